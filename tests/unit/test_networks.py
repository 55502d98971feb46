"""Network tables: the syntax of cidr_table(5), each rule as Postfix 3.7.11's postmap was seen to apply it."""

import pytest

from fastscreen.core import NetworkTable


def table(text: str) -> NetworkTable:
    return NetworkTable(text.encode(), "access.cidr")


def answers(text: str, *addresses: str) -> list[str | None]:
    compiled = table(text)
    assert compiled.warnings == []
    return [compiled.lookup(address) for address in addresses]


def test_first_match_in_file_order_wins() -> None:
    text = "192.0.2.7 dunno\n192.0.2.0/24 reject\n192.0.0.0/16 permit\n192.0.2.9 dunno\n"
    assert answers(text, "192.0.2.7", "192.0.2.9", "192.0.3.1", "192.1.0.0") == ["dunno", "reject", "permit", None]


def test_results_are_distinct_and_in_order() -> None:
    compiled = table("10.0.0.1 b\n10.0.0.2 a\n10.0.0.3 b\n::1 c d\n")
    assert compiled.results == ["b", "a", "c d"]
    assert len(compiled) == 4


def test_empty_table_matches_nothing() -> None:
    assert answers("\n# nothing\n   \n", "0.0.0.0", "255.255.255.255", "::", "192.0.2.1") == [None] * 4
    assert len(table("")) == 0


def test_ends_of_the_address_space() -> None:
    text = "0.0.0.0 a\n255.255.255.255 b\n:: c\nffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff d\n0.0.0.0/0 e\n::/0 f\n"
    last = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fff"
    assert answers(text, "0.0.0.0", "0.0.0.1", "255.255.255.254", "255.255.255.255") == ["a", "e", "e", "b"]
    assert answers(text, "::", "::1", f"{last}e", f"{last}f") == ["c", "f", "f", "d"]


def test_address_families_are_apart() -> None:
    assert answers("::/0 six\n", "192.0.2.1", "::1") == [None, "six"]
    assert answers("0.0.0.0/0 four\n", "192.0.2.1", "::1") == ["four", None]
    assert answers("!192.0.2.1 other\n", "192.0.2.1", "192.0.2.2", "::1") == [None, "other", None]


def test_mapped_client_is_an_ipv4_client() -> None:
    assert answers("192.0.2.1 four\n::/0 six\n", "::ffff:192.0.2.1") == ["four"]


@pytest.mark.parametrize("negation", ["!", "! ", "!!!", "! ! !"])
def test_negation(negation: str) -> None:
    text = f"{negation}192.0.2.0/24 outside\n"
    assert answers(text, "192.0.1.255", "192.0.2.0", "192.0.2.255", "192.0.3.0") == ["outside", None, None, "outside"]


def test_double_negation_is_none() -> None:
    assert answers("!!192.0.2.1 a\n", "192.0.2.1", "192.0.2.2") == ["a", None]


def test_negated_everything_is_nothing() -> None:
    assert answers("!0.0.0.0/0 a\n!::/0 b\n", "192.0.2.1", "::1") == [None, None]


def test_if_blocks_nest() -> None:
    text = """\
if 192.0.2.0/24
if !192.0.2.128/25
192.0.0.0/8 low
endif
192.0.2.200 high
2001:db8::1 never
endif
192.0.2.201 after
"""
    expected = ["low", "low", "high", "after", None, None]
    clients = ["192.0.2.0", "192.0.2.127", "192.0.2.200", "192.0.2.201", "192.0.3.1", "2001:db8::1"]
    assert answers(text, *clients) == expected


def test_if_in_any_case_and_without_space() -> None:
    assert answers("IF[192.0.2.0/24]\n192.0.2.1 a\nEndIf\n", "192.0.2.1") == ["a"]
    assert answers("if!192.0.2.0/24\n0.0.0.0/0 a\nendif\n", "192.0.2.1", "192.0.3.1") == [None, "a"]


@pytest.mark.parametrize("pattern", ["2001:db8::/32", "[2001:db8::]/32", "[2001:db8::/32]", "2001:DB8:0::/032"])
def test_pattern_forms(pattern: str) -> None:
    assert answers(f"{pattern}\ta b\n", "2001:db8:1::1", "2001:db9::") == ["a b", None]


def test_lines_are_continued_across_comments_and_blank_lines() -> None:
    assert answers("192.0.2.1 a\n  b  c  \n# comment\n   d\n\n  e\n192.0.2.2 x", "192.0.2.1", "192.0.2.2") == [
        "a  b  c     d  e",
        "x",
    ]


def test_carriage_returns_are_white_space() -> None:
    assert answers("192.0.2.1 a\r\n\r\n192.0.2.2 b\r\n", "192.0.2.1", "192.0.2.2") == ["a", "b"]


def test_octets_that_are_not_utf8_survive() -> None:
    assert NetworkTable(b"192.0.2.1 \xff\x01x", "t").results == ["\udcff\x01x"]


@pytest.mark.parametrize("client", ["", "client.example", "192.0.2", "[::1]", "192.0.2.1\0", "192.0.2.1 ", "\udcff"])
def test_what_is_no_address_is_not_found(client: str) -> None:
    assert answers("0.0.0.0/0 a\n::/0 b\n", client) == [None]


@pytest.mark.parametrize(
    ("line", "warning"),
    [
        ("192.0.2.1", 'no result after "192.0.2.1"'),
        ("! # x", '"#" is not an IPv4 or IPv6 address'),
        ("!", "no address or network"),
        ("if", "no address or network"),
        ("192.0.2.1/24 a", 'bits set behind the prefix of "192.0.2.1"/24'),
        ("2001:db8::1/64 a", 'bits set behind the prefix of "2001:db8::1"/64'),
        ("192.0.2.0/33 a", 'prefix length in "192.0.2.0/33" is not 0 to 32'),
        ("2001:db8::/129 a", 'prefix length in "2001:db8::/129" is not 0 to 128'),
        ("192.0.2.0/4294967320 a", 'prefix length in "192.0.2.0/4294967320" is not 0 to 32'),
        ("192.0.2.0/ a", 'prefix length in "192.0.2.0/" is not 0 to 32'),
        ("192.0.2.0/+24 a", 'prefix length in "192.0.2.0/+24" is not 0 to 32'),
        ("192.0.2.0/24/24 a", 'prefix length in "192.0.2.0/24/24" is not 0 to 32'),
        ("192.0.2/24 a", '"192.0.2" is not an IPv4 or IPv6 address'),
        ("192.0.2.010 a", '"192.0.2.010" is not an IPv4 or IPv6 address'),
        ("fe80::1%eth0 a", '"fe80::1%eth0" is not an IPv4 or IPv6 address'),
        ("client.example a", '"client.example" is not an IPv4 or IPv6 address'),
        ("[192.0.2.1 a", '"[192.0.2.1" is not [address] or [network]/length'),
        ("[192.0.2.1]x a", '"[192.0.2.1]x" is not [address] or [network]/length'),
        ("[] a", '"" is not an IPv4 or IPv6 address'),
        ("[192.0.2.0/24]/24 a", 'prefix length in "192.0.2.0/24/24" is not 0 to 32'),
        ("endif", "endif without if"),
        ("if 192.0.2.0/24 x", 'prefix length in "192.0.2.0/24 x" is not 0 to 32'),
        ("192.0.2.1\0 a", "NUL in a line"),
        ("\x1b[31m a", r'"\x1b[31m" is not an IPv4 or IPv6 address'),
        (f"{'9' * 61} a", f'"{"9" * 60}..." is not an IPv4 or IPv6 address'),
    ],
)
def test_bad_line_is_skipped_with_a_warning(line: str, warning: str) -> None:
    compiled = table(f"198.51.100.0/24 before\n{line}\n0.0.0.0/0 behind\n")
    assert compiled.warnings == [f"cidr table access.cidr, line 2: {warning}: line skipped"]
    assert compiled.lookup("198.51.100.1") == "before"
    assert compiled.lookup("192.0.2.1") == "behind"
    assert len(compiled) == 2


def test_warning_names_the_first_line_of_a_continued_one() -> None:
    assert table("\n# x\n192.0.2.x\n a\n").warnings == [
        'cidr table access.cidr, line 3: "192.0.2.x" is not an IPv4 or IPv6 address: line skipped'
    ]


def test_white_space_before_the_first_rule() -> None:
    compiled = table("  192.0.2.1 a\n b\n192.0.2.2 c\n")
    assert compiled.warnings == [
        'cidr table access.cidr, line 1: white space before the first rule, "  192.0.2.1 a b": line skipped'
    ]
    assert compiled.lookup("192.0.2.2") == "c"


def test_text_after_endif_leaves_the_block_open() -> None:
    compiled = table("if 192.0.2.0/24\n192.0.2.1 a\nendif x\n198.51.100.1 b\n")
    assert compiled.warnings == [
        'cidr table access.cidr, line 3: text after endif, " x": line skipped',
        "cidr table access.cidr, line 1: if without endif",
    ]
    assert compiled.lookup("198.51.100.1") is None


def test_nesting_is_bounded() -> None:
    levels = 40
    text = "if 192.0.0.0/8\n" * levels + "192.0.2.1 deep\n" + "endif\n" * 10 + "192.0.2.2 less\n" + "endif\n" * 30
    compiled = table(f"{text}192.0.2.1 after\n")
    assert compiled.warnings == [
        "cidr table access.cidr, line 33: if nested deeper than 32 levels: skipped up to its endif"
    ]
    assert compiled.lookup("192.0.2.1") == "after"
    assert compiled.lookup("192.0.2.2") == "less"


def test_deepest_negated_blocks() -> None:
    blocks = [f"if !10.0.{2 * level}.0/24\n" for level in range(32)]
    compiled = table("".join(blocks) + "!10.1.0.0/24 a\n" + "endif\n" * 32)
    assert compiled.warnings == []
    for level in range(32):
        assert compiled.lookup(f"10.0.{2 * level}.0") is None
        assert compiled.lookup(f"10.0.{2 * level + 1}.255") == "a"
    assert compiled.lookup("10.1.0.1") is None
    assert compiled.lookup("255.255.255.255") == "a"


def test_warnings_are_bounded() -> None:
    compiled = table("x y\n" * 1000)
    assert len(compiled.warnings) == 101
    assert compiled.warnings[-1] == "cidr table access.cidr: 900 more such warnings"


def test_wrong_types_are_refused() -> None:
    with pytest.raises(TypeError):
        NetworkTable("192.0.2.1 a", "t")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        NetworkTable(b"", None)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        table("").lookup(None)  # type: ignore[arg-type]
