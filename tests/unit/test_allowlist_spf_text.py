"""The text of SPF records, RFC 7208 sections 4.5, 4.6 and 12. tests/peers compares with pyspf."""

import pytest

from fastscreen.allowlist.spf import SpfError, parse, select


@pytest.mark.parametrize(
    "texts", [[b"v=spf1"], [b"V=SPF1 -all", b"x"], [b"v=spf1 ", b"v=spf10 -all", b"v=spf1.1", b" v=spf1 -all", b""]]
)
def test_the_one_record_is_found(texts: list[bytes]) -> None:
    assert select(texts, "a.example").lower().startswith("v=spf1")


@pytest.mark.parametrize(
    ("texts", "kind", "why"),
    [
        ([], "none", "a.example: no SPF record"),
        ([b"v=spf11", b"verification"], "none", "a.example: no SPF record"),
        ([b"v=spf1 -all", b"v=spf1 ~all", b"x"], "permerror", "a.example: 2 SPF records"),
        ([b"v=spf1 \xff"], "permerror", "a.example: the SPF record is not ASCII"),
    ],
)
def test_no_record(texts: list[bytes], kind: str, why: str) -> None:
    with pytest.raises(SpfError) as caught:
        select(texts, "a.example")
    assert (caught.value.kind, str(caught.value)) == (kind, why)


def test_a_mechanism_in_all_its_parts() -> None:
    record = parse("v=spf1 ~MX:Mail.Example.com./24//64 a//48 -ip4:8.8.8.9/24 ?include:_x.example.com", "a.example")
    mx, a, ip4, include = record.mechanisms
    assert (mx.qualifier, mx.name, mx.domain, mx.ipv4, mx.ipv6) == ("~", "mx", "mail.example.com", 24, 64)
    assert (a.qualifier, a.name, a.domain, a.ipv4, a.ipv6) == ("+", "a", "", 32, 48)
    assert (ip4.qualifier, str(ip4.network)) == ("-", "8.8.8.0/24")
    assert (include.qualifier, include.domain, include.macro) == ("?", "_x.example.com", False)
    assert record.redirect is None


def test_length_zero_is_one() -> None:
    (a,) = parse("v=spf1 a:x.example/0//0", "a.example").mechanisms
    assert (a.ipv4, a.ipv6) == (0, 0)


def test_what_comes_behind_all_counts_for_nothing() -> None:
    record = parse("v=spf1 a -all mx redirect=b.example", "a.example")
    assert [each.name for each in record.mechanisms] == ["a", "all"]
    assert record.redirect is None


def test_macros_are_known_by_their_form() -> None:
    record = parse("v=spf1 exists:%{ir}.%{v}._spf.%{d2}%%%_%- redirect=%{d}.example", "a.example")
    assert record.mechanisms[0].macro
    assert record.redirect is not None and record.redirect.macro


@pytest.mark.parametrize(
    "term",
    [
        "ip4:", "ip4", "ip4:8.8.8.8/", "ip4:8.8.8.8/33", "ip4:8.8.8.8/024", "ip4:8.8.8.8/255.255.255.0", "ip4:8.8.8",
        "ip4:08.8.8.8", "ip6:fe80::1%eth0", "ip6:8.8.8.8", "ip6:::/129", "all:x", "all/24", "include", "include:",
        "include:x", "include:x.1", "include:x..example", "include:.example", "include:x.example/24", "exists",
        "a:", "a/", "a/33", "a//129", "a/1/2", "a/024", "a:x.example//", "mx:-", "a:" + "x" * 64 + ".example",
        "a:" + "x." * 130 + "example", "ptr:", "redirect=", "redirect=x", "exists:%", "exists:%{q}", "exists:%{d",
        "+-all", "-", ":", "a:x y", "\tall", "ip4:8.8.8.8\t", "x:y", "exp=x", "exp=%{q}.example", "a:ü.example", "\x00",
    ],
)  # fmt: skip
def test_what_is_wrong_is_a_permanent_error_and_named(term: str) -> None:
    with pytest.raises(SpfError) as caught:
        parse(f"v=spf1 {term} -all", "a.example")
    assert caught.value.kind == "permerror"
    assert str(caught.value).startswith('a.example: "')
    assert str(caught.value).isprintable()


def test_modifiers_that_are_not_known_are_passed_over() -> None:
    record = parse("v=spf1 a=b x-y_z.1=%{not/a*macro ip4:8.8.8.8 exp=x.example exp.x=y", "a.example")
    assert [each.name for each in record.mechanisms] == ["ip4"]


@pytest.mark.parametrize("twice", ["redirect=a.example Redirect=b.example", "exp=a.example exp=a.example"])
def test_a_modifier_that_is_there_twice(twice: str) -> None:
    with pytest.raises(SpfError, match="there twice"):
        parse(f"v=spf1 {twice}", "a.example")
