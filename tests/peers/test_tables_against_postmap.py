"""Lookup tables with Postfix as judge: what `postmap -q` finds, and nothing else, is what ours find."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastscreen.tables import Table, TableError, open_table
from peers import needs

# One process for each example or two: few examples, of many keys each. The same ones each time: what is judged is the
# two dialects as they are, and a rare difference found by chance must not stop other work.
JUDGED = settings(
    max_examples=30,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

ERE = (
    *("a", "b", "B", "1", " ", r"\.", r"\(", ".", "^", "$", "(", ")", "|", "*", "+", "?", "{2}", "{1,}", "{,2}"),
    *("[ab]", "[^a]", "[a-c]", "[]x]", "[[:alpha:]]", "[a\\]", r"\w", r"\b", r"\<", "-", "[^]a-]", "x", "[+--]"),
    *("{", "}", r"\1", "a{0}", "[[:^alpha:]]", "[[=a=]]", "é"),
)
PERL = (
    *("a", "b", "B", "1", r"\.", r"\(", ".", "^", "$", "(", ")", "|", "*", "+", "?", "{2}", "{1,}", "[ab]", "[^a]"),
    *("[a-c]", "[]x]", "[[:alpha:]]", r"[a\]]", r"\w", r"\b", "-", "x", "(?:", "*?", "++", r"\d", r"\s", "[[a]"),
    *(r"\Qa.b\E", r"\z", r"\Z", r"\1", "(?i)", "(?=a)", "(?!b)", "[a||b]", r"\x41", r"[\d-z]", "(?>a)", "é", "{", "}"),
)
KEYS = (
    *("a", "b", "ab", "aab", "aaabbb", "B", "1", "a1", "abc", "x", "xx", "a.b", "()", "(a)", "aa", "ABC", " a b", "-"),
    *("\\", "]", "a]b", "foo bar", "[", "éa", "+", "cab", "ba", "abab", "{", "}", "a{2}", "|", "||"),
)


@pytest.fixture(scope="module")
def postmap(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command, with a separate configuration."""
    path = Path(needs.program("postfix")).with_name("postmap")
    needs.program("postfix-pcre")
    folder = tmp_path_factory.mktemp("postfix")
    # With its own name it does not query the DNS for one.
    (folder / "main.cf").write_text("compatibility_level = 3.7\nmyhostname = mx.example.test\n")
    return [str(path), "-c", str(folder)]


def write(path: Path, text: str) -> None:
    """Write a table. Postfix waits for a file that was changed a moment ago: this one was not."""
    path.write_text(text)
    os.utime(path, (10**9, 10**9))


def judged(postmap: list[str], spec: str, keys: list[str]) -> dict[str, str]:
    """What postmap finds for each key."""
    run = subprocess.run(
        [*postmap, "-q", "-", spec], input="".join(f"{key}\n" for key in keys), capture_output=True, text=True
    )
    assert "fatal" not in run.stderr, run.stderr
    return dict(line.split("\t", 1) for line in run.stdout.splitlines())


def ours(table: Table, keys: list[str]) -> dict[str, str]:
    found = ((key, table.lookup(key)) for key in keys)
    return {key: value for key, value in found if value}


def rules(pieces: tuple[str, ...], flags: str) -> st.SearchStrategy[list[str]]:
    pattern = st.lists(st.sampled_from(pieces), min_size=1, max_size=6).map("".join)
    result = st.sampled_from(["r", "r$1", "x${2}y $$", "!"])
    rule = st.tuples(st.sampled_from(["/", "!/"]), pattern, st.text(flags, max_size=2), result)
    return st.lists(rule.map(lambda parts: "{}{}/{} {}".format(*parts)), min_size=1, max_size=3)


@JUDGED
@given(lines=rules(ERE, "imx"))
def test_regexp(postmap: list[str], tmp_path: Path, lines: list[str]) -> None:
    # A table for each rule: one that a first rule hides is not tried.
    for number, line in enumerate(lines):
        write(tmp_path / f"t{number}", f"{line}\n")
        spec = f"regexp:{tmp_path}/t{number}"
        assert ours(open_table(spec), list(KEYS)) == judged(postmap, spec, list(KEYS)), line


@JUDGED
@given(lines=rules(PERL, "imsxAEU"))
def test_pcre(postmap: list[str], tmp_path: Path, lines: list[str]) -> None:
    for number, line in enumerate(lines):
        write(tmp_path / f"t{number}", f"{line}\n")
        spec = f"pcre:{tmp_path}/t{number}"
        assert ours(open_table(spec), list(KEYS)) == judged(postmap, spec, list(KEYS)), line


BLOCKS = (
    "if /a/",
    "if !/b/",
    "if /./",
    "endif",
    "/a/ one",
    "/b/ two",
    "!/a/ three",
    "/x/ four",
    "  more",
    "# c",
    "",
    "IF /c/",
    "ENDIF x",
)


@JUDGED
@given(lines=st.lists(st.sampled_from(BLOCKS), min_size=1, max_size=12))
def test_if_and_endif(postmap: list[str], tmp_path: Path, lines: list[str]) -> None:
    write(tmp_path / "t", "".join(f"{line}\n" for line in lines))
    spec = f"regexp:{tmp_path}/t"
    assert ours(open_table(spec), list(KEYS)) == judged(postmap, spec, list(KEYS))


ADDRESSES = (
    "192.0.2.0",
    "192.0.2.1",
    "192.0.2.128",
    "192.0.3.7",
    "10.0.0.0",
    "10.9.0.1",
    "::1",
    "2001:db8::",
    "2001:db8:1::9",
    "fe80::1",
)
CIDR = st.one_of(
    st.tuples(
        st.sampled_from(["", "!", "if ", "if !"]),
        st.sampled_from([*ADDRESSES, "[::1]", "[2001:db8::]", "x"]),
        st.sampled_from(["", "/32", "/24", "/8", "/0", "/128", "/64", "/33", "/x"]),
        st.sampled_from([" permit", " two words", ""]),
    ).map("".join),
    st.sampled_from(["endif", "# c", "", " more"]),
)


@JUDGED
@given(lines=st.lists(CIDR, min_size=1, max_size=12))
def test_cidr(postmap: list[str], tmp_path: Path, lines: list[str]) -> None:
    # IF takes no result; Postfix would warn and go on.
    text = "".join(
        f"{line.removesuffix(' permit').removesuffix(' two words') if line.startswith('if') else line}\n"
        for line in lines
    )
    write(tmp_path / "t", text)
    spec = f"cidr:{tmp_path}/t"
    assert ours(open_table(spec), list(ADDRESSES)) == judged(postmap, spec, list(ADDRESSES))


WORDS = st.text('abAB"\\:é', min_size=1, max_size=3)


@JUDGED
@given(
    entries=st.lists(
        st.tuples(WORDS, st.sampled_from([" ", "\t", "  ", ""]), st.sampled_from(["v", "two words", "", "#x"])),
        max_size=8,
    )
)
def test_texthash(postmap: list[str], tmp_path: Path, entries: list[tuple[str, str, str]]) -> None:
    write(tmp_path / "t", "".join(f"{''.join(entry)}\n" for entry in entries) + "last 1\n cont\n")
    spec = f"texthash:{tmp_path}/t"
    keys = sorted({key for key, _, _ in entries} | {"last", "LAST", "a", "b"})
    assert ours(open_table(spec), keys) == judged(postmap, spec, keys)


@pytest.mark.parametrize(
    "spec",
    [
        "inline:{ {a = b c}, k=v,K2=w {Q = {x}}}",
        "inline:{a=b, a=c}",
        "inline:{A=b}",
        "inline:{{a=b=c}}",
        "inline:{ {a b=c} }",
        "inline:{}",
        "inline:x",
        "inline:{a=b}x",
        "static:all",
        "static:{ a b  c }",
        "static:{x",
        "cidr:{{1.2.3.4 permit}, {::/0 v6}}",
        "cidr:{1.2.3.4 permit}",
        "regexp:{{/^[^A-Z]/ Bogus}}",
        "regexp:{{/b/ x}{/a/ z}}",
        "regexp:{ {/b/ x} , , {/a/ z} }",
        "regexp:{}",
        "pcre:{{# c},{/a/ z}}",
    ],
)
def test_tables_in_a_name(postmap: list[str], spec: str) -> None:
    keys = ["a", "k", "K2", "q", "1.2.3.4", "::1", "1abc", "b"]
    run = subprocess.run(
        [*postmap, "-q", "-", spec], input="".join(f"{key}\n" for key in keys), capture_output=True, text=True
    )
    if "fatal" in run.stderr:
        with pytest.raises(TableError):
            open_table(spec)
    else:
        assert ours(open_table(spec), keys) == judged(postmap, spec, keys)
