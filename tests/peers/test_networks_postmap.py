"""Network tables against Postfix's own reading of them: postmap -q."""

import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastscreen.core import NetworkTable
from peers import needs

V4 = [f"{first}.0.2.{last}" for first in (0, 10, 255) for last in (0, 1, 7, 8, 128, 255)]
V6 = [f"{first}::{last}" for first in ("", "2001:db8", "ffff") for last in ("0", "1", "ff00", "8000:0:0:0")]
CLIENTS = [
    *V4,
    *V6,
    "0.0.0.0",
    "255.255.255.255",
    "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    "client.example",
    "10.0.2",
]

NETWORKS = st.one_of(
    st.sampled_from(
        ["0.0.0.0/0", "10.0.2.0/24", "10.0.2.0/29", "10.0.2.128/25", "0.0.0.0/4", "255.0.0.0/8", "010.0.2.0/24"]
    ),
    st.sampled_from(
        ["::/0", "2001:db8::/32", "2001:0db8::ff00/120", "2001:db8::8000:0:0:0/65", "8000::/1", "ffff::/16"]
    ),
    st.sampled_from([*V4, *V6]),
    st.sampled_from(
        ["10.0.2.1/24", "10.0.2.0/33", "10.0.2/24", "10.0.2.0/", "2001:db8::/129", "x", "", "10.0.2.0/ 24"]
    ),
)
PATTERNS = st.tuples(
    st.sampled_from(["", "", "", "!", "! ", "!!"]),
    NETWORKS,
    st.sampled_from([("", ""), ("", ""), ("", ""), ("[", "]"), ("[", ""), ("", "]"), ("[", "]x")]),
).map(lambda parts: f"{parts[0]}{parts[2][0]}{parts[1]}{parts[2][1]}")
LINES = st.one_of(
    st.tuples(PATTERNS, st.sampled_from([" a", "\tb c", "  d ", " e\n  f", " g\n# x\n\n h", ""])).map("".join),
    st.tuples(st.sampled_from(["if ", "IF  ", "if\t", "if"]), PATTERNS, st.sampled_from(["", "", " ", " x"])).map(
        "".join
    ),
    st.sampled_from(["endif", "endif ", "ENDIF", "endif x", "endifx", "# comment", "", "  # comment", "   "]),
)


@pytest.fixture(scope="session")
def settings_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Postfix configuration that says nothing."""
    needs.program("postfix")
    folder = tmp_path_factory.mktemp("postmap")
    (folder / "main.cf").write_text("compatibility_level = 3.7\n")
    return folder


def ask_postmap(folder: Path, text: str) -> tuple[dict[str, str], list[str]]:
    """Return what Postfix answers for those of CLIENTS that it finds, and its warnings."""
    table = folder / "access.cidr"
    table.write_text(text)
    done = subprocess.run(
        ["postmap", "-c", folder, "-q", "-", f"cidr:{table}"],
        input="".join(f"{client}\n" for client in CLIENTS),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    found = dict(line.split("\t", 1) for line in done.stdout.splitlines())
    return found, done.stderr.splitlines()


def skipped_lines(warnings: list[str]) -> list[str]:
    """The numbers of the lines that are not used, from Postfix's warnings or from ours."""
    return [
        match[1] for text in warnings if (match := re.search(r", line (\d+): .*(skipping this rule|skipped)$", text))
    ]


@settings(max_examples=100, deadline=None)
@given(st.lists(LINES, max_size=25))
def test_look_ups_and_skipped_lines_are_those_of_postfix(settings_folder: Path, lines: list[str]) -> None:
    text = "".join(f"{line}\n" for line in ["192.0.2.1 first", *lines])
    found, warnings = ask_postmap(settings_folder, text)
    table = NetworkTable(text.encode(), "access.cidr")
    ours = {client: result for client in CLIENTS if (result := table.lookup(client)) is not None}
    assert ours == found
    assert skipped_lines(table.warnings) == skipped_lines(warnings)
