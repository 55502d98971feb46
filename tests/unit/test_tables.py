"""Lookup tables: what each type finds, and the one line for what it cannot read. Postfix as judge: tests/peers."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastscreen.tables import TableError, open_table
from fastscreen.tables.mynetworks import NO, PERMIT, read_networks

DEFAULT_FORBIDDEN = "regexp:{{/^[^A-Z]/ Bogus}}"


def test_texthash(tmp_path: Path) -> None:
    file = tmp_path / "map"
    file.write_text('# comment\nFoo   bar baz  \n\n  more\nfoo second\n"a b" quoted\nalone\n')
    table = open_table(f"texthash:{file}")
    assert table.lookup("FOO") == "bar baz    more"
    assert table.lookup('"a b"') == "quoted"
    assert table.lookup("alone") is None
    assert table.results == ["bar baz    more", "quoted"]
    assert table.warnings == [
        f'{file}, line 5: duplicate entry: "foo"',
        f"{file}, line 7: expected format: key whitespace value -- ignoring this line",
    ]


def test_texthash_that_begins_with_a_continuation(tmp_path: Path) -> None:
    (tmp_path / "map").write_text("  lead x\nfoo bar\n")
    table = open_table(f"texthash:{tmp_path}/map")
    assert table.lookup("foo") == "bar"
    assert "logical line must not start with whitespace" in table.warnings[0]


def test_texthash_octets_that_are_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "map").write_bytes(b"k\xff \xfe\n")
    assert open_table(f"texthash:{tmp_path}/map").lookup("k\udcff") == "\udcfe"


def test_inline() -> None:
    table = open_table("inline:{ {a = b c}, k=v,K=w {Q = {x}}}")
    assert [table.lookup(key) for key in ("a", "A", "k", "q", "z")] == ["b c", "b c", "w", "{x}", None]


@pytest.mark.parametrize("spec", ["inline:{}", "inline:x", "inline:{a}", "inline:{ {a=b} x", "inline:{a b=c}"])
def test_inline_that_cannot_be_read(spec: str) -> None:
    with pytest.raises(TableError, match=r"^inline:.*\}|missing"):
        open_table(spec)


@pytest.mark.parametrize(
    ("spec", "value"), [("static:all", "all"), ("static:{ a b  c }", "a b  c"), ("static:a b", "a b")]
)
def test_static(spec: str, value: str) -> None:
    assert open_table(spec).lookup("anything") == value


@pytest.mark.parametrize("spec", ["static:", "static:{x", "cidr:{1.2.3.4 permit}", "regexp:{{/a/ x}{/b/ y}}", "pcre:"])
def test_specs_that_cannot_be_read(spec: str) -> None:
    with pytest.raises(TableError):
        open_table(spec)


@pytest.mark.parametrize("kind", ["texthash", "cidr", "regexp", "pcre"])
def test_a_file_that_is_not_there(kind: str) -> None:
    with pytest.raises(TableError) as caught:
        open_table(f"{kind}:/nowhere/\x1b")
    assert str(caught.value) == rf"{kind}:/nowhere/\x1b: cannot be read: No such file or directory"


def test_the_key_that_names_a_table_stands_in_the_error() -> None:
    with pytest.raises(TableError, match=r"^engine\.command_filter: pcre:/nowhere: cannot be read"):
        open_table("pcre:/nowhere", "engine.command_filter")


def test_another_type_is_refused_with_the_way_to_convert_it() -> None:
    with pytest.raises(TableError, match=r"postmap -s hash:/etc/x > /etc/x\.txt, then texthash:/etc/x\.txt"):
        open_table("hash:/etc/x")
    with pytest.raises(TableError, match=r"postmap -q KEY mysql:/etc/x"):
        open_table("mysql:/etc/x")


def test_cidr(tmp_path: Path) -> None:
    (tmp_path / "access").write_text("192.0.2.1 permit\n192.0.2.0/24 reject\n[2001:db8::]/32 dunno\n10.0.0.1/8 x\n")
    table = open_table(f"cidr:{tmp_path}/access")
    found = [table.lookup(key) for key in ("192.0.2.1", "192.0.2.2", "2001:db8::5", "10.0.0.1", "x")]
    assert found == ["permit", "reject", "dunno", None, None]
    assert len(table.warnings) == 1
    assert f"{tmp_path}/access, line 4: " in table.warnings[0]


def test_cidr_in_the_name() -> None:
    table = open_table("cidr:{{1.2.3.4 permit}, { ::/0 v6 }}")
    assert (table.lookup("1.2.3.4"), table.lookup("fe80::1")) == ("permit", "v6")


@pytest.mark.parametrize(
    ("spec", "key", "found"),
    [
        (DEFAULT_FORBIDDEN, "abc", None),
        (DEFAULT_FORBIDDEN, "1abc", "Bogus"),
        (DEFAULT_FORBIDDEN, "\udcff", "Bogus"),
        ("regexp:{{/^(.)(b)/ x$1${2}$(1) $$1}}", "abc", "xaba $1"),
        ("regexp:{{/(a)|(b)/ [$1][$2]}}", "b", "[][b]"),
        ("regexp:{{/a/i x}}", "A", None),
        ("regexp:{{!/a/ no}}", "bbc", "no"),
        ("regexp:{{if /a/},{/b/ y},{endif},{/c/ z}}", "ab", "y"),
        ("regexp:{{if /a/},{/b/ y},{endif},{/c/ z}}", "b", None),
        ("regexp:{{if !/a/},{if /b/},{/x/ n},{endif},{/c/ y},{endif},{/./ z}}", "bc", "y"),
        ("regexp:{{if !/a/},{if /b/},{/x/ n},{endif},{/c/ y},{endif},{/./ z}}", "a", "z"),
        (r"regexp:{{/[a\]/ x}}", "\\", "x"),
        (r"regexp:{{/a*?b/ x}}", "b", "x"),
        (r"regexp:{{/\./x x}}", "ab", None),
        (r"regexp:{{/\(a\)\1/x <$1>}}", "aa", "<a>"),
        ("regexp:{{~a/b~ x}}", "a/b", "x"),
        ("pcre:{{/a(?=b)/ x}}", "ab", "x"),
        (r"pcre:{{/^\d+$/ x}}", "12", "x"),
        ("pcre:{{/^a.*b/U x}}", "a\nb", "x"),
        ("pcre:{{/a.b/s x}}", "a\nb", None),
        ("pcre:{{/b/A x}}", "ab", None),
        ("pcre:{{/a$/ x}}", "a\n", "x"),
        ("pcre:{{/a$/E x}}", "a\n", None),
        ("pcre:{{/a b/x x}}", "ab", "x"),
        ("pcre:{{/(a+)/U <$1>}}", "aaa", "<a>"),
        (r"pcre:{{/[[a]\Q.*\E/ x}}", "[.*", "x"),
        ("pcre:{{/(é)/ <$1>}}", "é", "<é>"),
    ],
)
def test_patterns(spec: str, key: str, found: str | None) -> None:
    table = open_table(spec)
    assert table.warnings == []
    assert table.lookup(key) == found


@pytest.mark.parametrize(
    ("rule", "warning"),
    [
        ("/a/Z x", 'unknown regexp option "Z": skipping this rule'),
        ("/(/ x", "Unmatched ( or \\(: skipping this rule"),
        ("/a x", 'no closing regexp delimiter "/": skipping this rule'),
        ("a x", "ignoring unrecognized request"),
        ("/a/ $1", 'out of range replacement index "1": skipping this rule'),
        ("/a/ $x", 'non-numeric replacement index "x": bad replacement syntax: skipping this rule'),
        ("!/(a)/ $1", "$number found in negative match replacement text: skipping this rule"),
        ("endif", "ignoring ENDIF without matching IF"),
        ("if /a/", "IF has no matching ENDIF"),
        ("/[z-a]/ x", "Invalid range end: skipping this rule"),
        ("/[[:nope:]]/ x", "Invalid character class name: skipping this rule"),
    ],
)
def test_a_bad_rule_is_named_and_skipped(tmp_path: Path, rule: str, warning: str) -> None:
    (tmp_path / "map").write_text(f"# one\n{rule}\n/q/ found\n")
    table = open_table(f"regexp:{tmp_path}/map")
    assert table.warnings == [f"regexp map {tmp_path}/map, line 2: {warning}"]
    assert table.lookup("aq") == "found"


def test_an_empty_result_is_found_and_warned_of() -> None:
    table = open_table("regexp:{{/a/}}")
    assert table.lookup("a") == ""
    assert "no replacement text" in table.warnings[0]


@pytest.mark.parametrize("kind", ["regexp", "pcre"])
def test_a_catastrophic_pattern_cannot_stop_the_screener(kind: str) -> None:
    table = open_table(f"{kind}:{{{{/^(a|aa)+$/ slow}}, {{/b$/ next}}}}")
    for _ in range(3):
        assert table.lookup("a" * 60 + "b") == "next"
    assert len(table.warnings) == 1
    assert "line 1: pattern needs more than 50 ms" in table.warnings[0]


def test_results_that_do_not_depend_on_the_key() -> None:
    assert open_table("regexp:{{/a/ permit}, {/(b)/ x$1}, {/c/ permit}, {/d/ a$$b}}").results == ["permit", "a$b"]


KEY = "access.mynetworks"


def test_mynetworks(tmp_path: Path) -> None:
    (tmp_path / "nets").write_text("# ours\n198.51.100.0/25, 198.51.100.200\n!203.0.113.1\n")
    found = read_networks(
        ["!192.0.2.5", "192.0.2.0/24", "[::1]/128", "[2001:db8::]/32", f"/{tmp_path}/nets", "203.0.113.0/24"], KEY
    )
    wanted = {
        "192.0.2.5": NO,
        "192.0.2.6": PERMIT,
        "::1": PERMIT,
        "2001:db8::9": PERMIT,
        "198.51.100.127": PERMIT,
        "198.51.100.128": None,
        "198.51.100.200": PERMIT,
        "203.0.113.1": NO,
        "203.0.113.2": PERMIT,
    }
    assert {address: found.table.lookup(address) for address in wanted} == wanted
    assert found.warnings == ()


def test_mynetworks_negated_file(tmp_path: Path) -> None:
    (tmp_path / "not").write_text("192.0.2.1 !192.0.2.2\n")
    table = read_networks([f"!{tmp_path}/not", "192.0.2.0/24"], KEY).table
    assert [table.lookup(f"192.0.2.{n}") for n in (1, 2, 3)] == [NO, PERMIT, PERMIT]


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ("smarthost.example.net", 'bad network "smarthost.example.net"'),
        ("192.0.2.1/24", 'perhaps you should use "192.0.2.0/24"'),
        ("192.0.2.0/255.255.255.0", '"192.0.2.0/255.255.255.0" has a netmask; expected "192.0.2.0/24"'),
        ("fe80::1%eth0", 'bad network "fe80::1%eth0"'),
        ("10.0.0.0/33", 'bad network "10.0.0.0/33"'),
        ("hash:/etc/postfix/nets", 'bad network "hash:/etc/postfix/nets"'),
        ("cidr:/etc/postfix/nets", "is a table, which belongs in access.list"),
        ("if", 'bad network "if"'),
        ("endif", 'bad network "endif"'),
        ("\x1b[31m", r'bad network "\x1b[31m"'),
        ("10.0.0.0\0/8", "bad network"),
    ],
)
def test_what_is_not_a_network_in_a_file_is_skipped_with_a_warning(entry: str, why: str, tmp_path: Path) -> None:
    """As a bad line of an access table: the server starts, and the other entries count."""
    nets = tmp_path / "nets"
    nets.write_text(f"198.51.100.1\n{entry}\n203.0.113.0/24\n")
    found = read_networks([str(nets), "!10.0.0.0/8"], KEY)
    answers = [found.table.lookup(address) for address in ("198.51.100.1", "203.0.113.9", "10.1.1.1", "198.51.100.2")]
    assert answers == [PERMIT, PERMIT, NO, None]
    assert found.warnings[0].startswith(f"{KEY}: {nets}, line 2: ")
    assert why in found.warnings[0]
    assert all(line.endswith("; entry skipped") and line.isprintable() for line in found.warnings)


def test_a_comment_behind_a_network_is_dropped_with_one_warning(tmp_path: Path) -> None:
    (tmp_path / "nets").write_text("192.0.2.1 # the office, since 2019\n198.51.100.1\n")
    found = read_networks([f"{tmp_path}/nets"], KEY)
    assert found.table.lookup("192.0.2.1") == found.table.lookup("198.51.100.1") == PERMIT
    (warning,) = found.warnings
    assert warning.startswith(f'{KEY}: {tmp_path}/nets, line 1: a comment behind an entry, "# the office since 2019"')


def test_a_file_that_is_no_list_of_networks_does_not_flood_the_log(tmp_path: Path) -> None:
    (tmp_path / "prose").write_text("word " * 5000)
    found = read_networks([f"{tmp_path}/prose", "192.0.2.1"], KEY)
    assert len(found.warnings) == 101
    assert found.warnings[-1] == f"{KEY}: 4900 more such warnings"
    assert found.table.lookup("192.0.2.1") == PERMIT


def test_mynetworks_mistakes(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="non-null host address bits"):
        read_networks(["192.0.2.1/24"], KEY)
    with pytest.raises(TableError, match=r'expected "192\.0\.2\.0/24"'):
        read_networks(["192.0.2.0/255.255.255.0"], KEY)
    (tmp_path / "loop").write_text(f"{tmp_path}/loop\n")
    with pytest.raises(TableError, match="nested more than"):
        read_networks([f"{tmp_path}/loop"], KEY)
