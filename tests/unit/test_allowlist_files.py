"""The table and the state as files: whole at any time, and read by the access list."""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
from msgspec import structs
from peers import needs

from fastscreen.allowlist import state, table
from fastscreen.allowlist.lists import begin, is_refreshed, lists_of
from fastscreen.allowlist.state import Entry, State
from fastscreen.config import Config, load
from fastscreen.config.providers import Source
from fastscreen.tables import open_table

SOURCES = [
    Source("one", "webmail", ("one.example", "uno.example")),
    Source("two", "bulk", ("two.example",)),
    Source("new.example", "own", ("new.example",)),
]
KNOWN = State(
    refreshed=1_800_000_000.0,
    providers={
        "one": Entry("webmail", ("one.example", "uno.example"), ("8.8.8.0/24", "2a00::/32"), 1_800_000_000.0, 1.0),
        "two": Entry("bulk", ("two.example",), ("8.8.8.7/32", "9.9.9.9/32"), 1_799_000_000.0, 1.0),
    },
)
TEXT = """\
# Written by fastscreen allowlist refresh at 2027-01-15 08:00:01 UTC; changes are lost at the next refresh.
# one (webmail: one.example, uno.example): 2 networks, looked up 2027-01-15 08:00:00 UTC
8.8.8.0/24\tpermit
2a00::/32\tpermit
# two (bulk: two.example): 2 networks, 1 of them above, looked up 2027-01-03 18:13:20 UTC
9.9.9.9/32\tpermit
# new.example (own: new.example): nothing yet
"""


def settings(tmp_path: Path, text: str) -> Config:
    file = tmp_path / "fastscreen.toml"
    file.write_text(text)
    return load(file)


def test_the_text_of_a_table() -> None:
    assert table.rendered(SOURCES, KNOWN, table.PERMIT, 1_800_000_001.0) == TEXT


def test_a_table_costs_no_more_than_its_length() -> None:
    """500 domains of 20 networks took 40 s of CPU."""

    def calls(count: int) -> int:
        sources = [Source(f"p{at}", "own", (f"p{at}.example",)) for at in range(count)]
        entries = {each.name: Entry("own", (), (f"8.{at}.0.1/32",), 1.0) for at, each in enumerate(sources)}
        counted = 0

        def count_one(*_: object) -> None:
            nonlocal counted
            counted += 1

        sys.setprofile(count_one)
        try:
            table.rendered(sources, State(providers=entries), table.PERMIT, 1.0)
        finally:
            sys.setprofile(None)
        return counted

    assert calls(160) < 6 * calls(40)


def test_the_access_list_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "allowlist.cidr"
    assert table.write(path, TEXT)
    read = open_table(f"cidr:{path}")
    assert not read.warnings
    found = {each: read.lookup(each) for each in ("8.8.8.7", "9.9.9.9", "9.9.9.8", "2a00::1", "2a01::1")}
    assert found == {"8.8.8.7": "permit", "9.9.9.9": "permit", "9.9.9.8": None, "2a00::1": "permit", "2a01::1": None}


def test_a_table_with_the_same_rules_stays(tmp_path: Path) -> None:
    path = tmp_path / "allowlist.cidr"
    assert table.write(path, TEXT)
    before = path.stat().st_ino
    assert not table.write(path, TEXT.replace("08:00:01", "09:09:09"))
    assert path.stat().st_ino == before
    assert table.write(path, TEXT.replace("9.9.9.9", "9.9.9.8"))
    assert table.write(path, TEXT)
    path.write_bytes(b"\xff\n")
    assert table.write(path, TEXT)
    assert path.read_text() == TEXT


def test_the_state_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "allowlist.cidr"
    state.save(path, KNOWN)
    assert state.load(path) == (KNOWN, "")
    assert state.load(tmp_path / "denylist.cidr") == (State(), "")


@pytest.mark.parametrize(
    "damaged",
    [b"", b"{", b"\xff\xfe", b"[]", b"null", b'{"version": "1"}', b'{"version": 1, "providers": []}', b"[" * 100000,
     b'{"version": 1, "providers": {"a": {"group": "g", "domains": [], "networks": ["8.8.8.8/99"]}}}',
     b'{"version": 1, "providers": {"a": {"group": "g", "domains": [], "networks": ["8.8.8.9/24"]}}}',
     b'{"version": 1, "refreshed": 1e300}', b'{"version": 1, "refreshed": -1}'],
)  # fmt: skip
def test_a_damaged_state_begins_anew(tmp_path: Path, damaged: bytes) -> None:
    path = tmp_path / "allowlist.cidr"
    state.path_of(path).write_bytes(damaged)
    assert state.load(path) == (State(), f"{path}.state: damaged; starting without it")


def test_another_version_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "allowlist.cidr"
    state.path_of(path).write_bytes(b'{"version": 2, "providers": "something else"}')
    assert state.load(path) == (State(), f"{path}.state: version 2 is not read by this version; starting without it")


# ---- which lists there are


def test_nobody_is_on_a_list_by_default(tmp_path: Path) -> None:
    config = settings(tmp_path, "")
    assert lists_of(config) == []
    assert not is_refreshed(config)


def test_both_lists(tmp_path: Path) -> None:
    config = settings(
        tmp_path,
        '[allowlist]\nproviders = ["yahoo"]\ndomains = ["Sender.Example"]\npath = "/a"\n'
        '[denylist]\ndomains = ["bad.example"]\npath = "/b"\n',
    )
    allow, deny = lists_of(config)
    assert (allow.name, str(allow.path), allow.result) == ("allowlist", "/a", "permit")
    assert [source.name for source in allow.sources] == ["yahoo", "sender.example"]
    assert (deny.name, str(deny.path), deny.result) == ("denylist", "/b", "reject")
    assert [source.name for source in deny.sources] == ["bad.example"]
    assert is_refreshed(config)


def test_a_list_that_lost_everybody_is_still_one(tmp_path: Path) -> None:
    path = tmp_path / "allowlist.cidr"
    config = settings(tmp_path, f'[allowlist]\npath = "{path}"\n')
    assert lists_of(config) == []
    state.save(path, structs.replace(KNOWN, configuration=str(tmp_path / "fastscreen.toml")))
    (each,) = lists_of(config)
    assert (each.path, list(each.sources)) == (path, [])


@pytest.mark.parametrize("other", ["/etc/fastscreen/fastscreen.toml", ""])
def test_another_configurations_list_is_left_alone(tmp_path: Path, other: str) -> None:
    """A trial, or the demo, on the host of the real one has the same path by default: it would empty its list."""
    path = tmp_path / "allowlist.cidr"
    state.save(path, structs.replace(KNOWN, configuration=other))
    assert lists_of(settings(tmp_path, f'[allowlist]\npath = "{path}"\n')) == []


@pytest.mark.parametrize("damaged", [b"", b"[]", b'{"configuration": 1}', b"[" * 100000, b"\xff"])
def test_a_damaged_state_is_nobodys(tmp_path: Path, damaged: bytes) -> None:
    path = tmp_path / "allowlist.cidr"
    state.path_of(path).write_bytes(damaged)
    assert lists_of(settings(tmp_path, f'[allowlist]\npath = "{path}"\n')) == []


def test_no_path_no_list(tmp_path: Path) -> None:
    assert lists_of(settings(tmp_path, '[allowlist]\ngroups = ["bulk"]\npath = ""\n')) == []


def test_a_folder_out_of_reach_is_as_if_there_were_no_list() -> None:
    """The default folder belongs to the daemon's user; other users who try fastscreen cannot read it."""
    needs.root("a folder that is out of another user's reach")
    folder = Path(tempfile.mkdtemp(prefix="fastscreen-lists-"))
    folder.chmod(0o755)
    (folder / "own").mkdir(mode=0o700)
    config = settings(folder, f'[allowlist]\npath = "{folder}/own/list"\n')
    named = settings(folder, f'[allowlist]\nproviders = ["google"]\npath = "{folder}/own/list"\n')
    os.seteuid(65534)
    try:
        assert lists_of(config) == []
        begin(named)
    finally:
        os.seteuid(0)
        shutil.rmtree(folder)


@pytest.mark.parametrize("interval", ["0", "1d"])
def test_a_daemon_that_refreshes_begins_with_an_empty_table(tmp_path: Path, interval: str) -> None:
    path = tmp_path / "allowlist.cidr"
    config = settings(tmp_path, f'[allowlist]\nproviders = ["google"]\npath = "{path}"\ninterval = "{interval}"\n')
    begin(config)
    assert path.exists() == (interval == "1d")
    if path.exists():
        assert table.rules(path.read_text()) == []
        path.write_text("8.8.8.8 permit\n")
        begin(config)
        assert path.read_text() == "8.8.8.8 permit\n"


def test_a_table_that_was_lost_comes_back_with_what_is_known(tmp_path: Path) -> None:
    """Though no name server should answer just then."""
    path = tmp_path / "allowlist.cidr"
    state.save(path, State(providers={"a.example": Entry("own", ("a.example",), ("8.8.8.0/24",), 1.0, 1.0)}))
    begin(settings(tmp_path, f'[allowlist]\ndomains = ["a.example"]\npath = "{path}"\n'))
    assert table.rules(path.read_text()) == ["8.8.8.0/24\tpermit"]
