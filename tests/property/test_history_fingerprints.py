"""How a client speaks SMTP, and its SYN packet, against models in plain Python."""

from __future__ import annotations

import re
import statistics
import struct

from hypothesis import given
from hypothesis import strategies as st

from fastscreen.core import HISTORY_DIALECT, HISTORY_SYN_OPTIONS, dialect_of, syn_in
from fastscreen.history.fingerprint import dialect_text, syn_text

# ---- SYN packets

KINDS = {2: ("mss", 4), 3: ("ws", 3), 4: ("sack", 2), 8: ("ts", 10)}


def headers(family: int, *, ttl: int, df: bool, window: int, options: bytes, extensions: bytes = b"") -> bytes:
    """As the kernel keeps them. extensions: of IPv6, each of eight bytes with the kind of the next in the first."""
    length = min(15, 5 + (len(options) + 3) // 4)
    tcp = struct.pack("!HHIIBBHHH", 40000, 25, 1, 0, length << 4, 2, window, 0, 0) + options
    if family == 4:
        return struct.pack("!BBHHHBBH", 0x45, 0, 40, 1, 0x4000 if df else 0, ttl, 6, 0) + bytes(8) + tcp
    return struct.pack("!IHBB", 6 << 28, 40, 60 if extensions else 6, ttl) + bytes(32) + extensions + tcp


def model(options: bytes) -> tuple[list[str], int, int, bool, bool]:
    """Names, maximum segment size, window scale + 1, whether they were cut, and whether there are more."""
    names: list[str] = []
    mss = scale = at = 0
    while at < len(options):
        kind = options[at]
        length = 1 if kind < 2 else options[at + 1] if at + 1 < len(options) else 0
        if length < (1 if kind < 2 else 2) or at + length > len(options):
            return names, mss, scale, True, False
        name = {0: "eol", 1: "nop", 30: "mptcp", 34: "tfo"}.get(kind, "other")
        if kind in KINDS and KINDS[kind][1] == length:
            name = KINDS[kind][0]
        if name == "mss":
            mss = int.from_bytes(options[at + 2 : at + 4])
        if name == "ws":
            scale = options[at + 2] + 1
        if len(names) == 8:
            return names, mss, scale, False, True
        names.append(name)
        if name == "eol":
            break
        at += length
    return names, mss, scale, False, False


USUAL = st.sampled_from(
    [b"\0", b"\1", b"\2\4\5\xb4", b"\3\3\7", b"\4\2", b"\x08\x0a" + bytes(8), b"\x22\2", b"\x1e\4ab"]
)
OPTION = st.one_of(
    USUAL,
    st.tuples(st.integers(2, 255), st.binary(max_size=12)).map(
        lambda each: bytes([each[0], 2 + len(each[1])]) + each[1]
    ),
    st.binary(min_size=1, max_size=6),
)
OPTIONS = st.one_of(st.lists(USUAL, max_size=12), st.lists(OPTION, max_size=12)).map(
    lambda each: (b"".join(each) + bytes(-len(b"".join(each)) % 4))[:40]
)


@given(
    st.sampled_from((4, 6)), st.integers(0, 255), st.booleans(), st.integers(0, 65535), OPTIONS,
    st.lists(st.sampled_from((0, 43, 60)), max_size=5),
)  # fmt: skip
def test_syn(family: int, ttl: int, df: bool, window: int, options: bytes, kinds: list[int]) -> None:
    extensions = b"".join(bytes([kind, 0]) + bytes(6) for kind in [*kinds, 6]) if kinds and family == 6 else b""
    ip, tcp, kept = syn_in(headers(family, ttl=ttl, df=df, window=window, options=options, extensions=extensions))
    names, mss, scale, cut, more = model(options)
    df = df and family == 4
    assert ip == window << 16 | ttl << 8 | 1 | (family == 6) << 1 | df << 2 | cut << 3 | more << 4
    assert tcp == mss << 16 | scale
    assert [HISTORY_SYN_OPTIONS[kept >> 4 * at & 15] for at in range(8)][: len(names)] == names
    assert kept >> 4 * len(names) == 0
    shown = ",".join([*names, *(["..."] if more else []), *(["cut"] if cut else [])])
    assert syn_text(ip, tcp, kept) == (
        f"ttl {ttl}{' df' if df else ''} win {window}{f' mss {mss}' if mss else ''}"
        f"{f' ws {scale - 1}' if scale else ''}{f' {shown}' if shown else ''}"
    )


@given(st.binary(max_size=200), st.sampled_from((b"", b"\x45", b"\x4f", b"\x44", b"\x60" + bytes(5) + b"\x3c")))
def test_any_packet(packet: bytes, first: bytes) -> None:
    ip, tcp, options = syn_in(first + packet)
    assert ip or not (tcp or options)
    assert bool(syn_text(ip, tcp, options)) == bool(ip)


@given(st.integers(0, 119), st.sampled_from((4, 6)))
def test_a_packet_that_is_cut(size: int, family: int) -> None:
    options = b"\2\4\5\xb4\4\2\x08\x0a" + bytes(8) + b"\1\3\3\7" + b"\1" * 20
    packet = headers(family, ttl=64, df=True, window=64240, options=options)
    known = syn_in(packet[:size])[0] & 1
    assert known == (size >= (40 if family == 4 else 60))


def test_known_systems() -> None:
    linux = headers(4, ttl=64, df=True, window=64240, options=b"\2\4\5\xb4\4\2\x08\x0a" + bytes(8) + b"\1\3\3\7")
    assert syn_text(*syn_in(linux)) == "ttl 64 df win 64240 mss 1460 ws 7 mss,sack,ts,nop,ws"
    windows = headers(6, ttl=128, df=False, window=65535, options=b"\2\4\5\xa0\1\3\3\x08\1\1\4\2")
    assert syn_text(*syn_in(windows)) == "ttl 128 win 65535 mss 1440 ws 8 mss,nop,ws,nop,nop,sack"
    assert syn_text(0, 0, 0) == ""


# ---- dialects

VERBS = {
    "helo": "HELO", "ehlo": "EHLO", "starttls": "STARTTLS", "rset": "RSET", "noop": "NOOP", "data": "DATA",
    "auth": "AUTH", "quit": "QUIT",
}  # fmt: skip


def spoken(lines: list[tuple[int, bool, bytes]]) -> set[str]:
    """The traits of these lines."""
    found: set[str] = set()
    for _, in_tls, raw in lines:
        line = raw.decode("latin-1")
        text = line.lstrip(" ")
        if text and text[-1] in " \t":
            found.add("trailing")
        verb = text.partition(" ")[0]
        rest = text[len(verb) :]
        known = {*VERBS.values(), "MAIL", "RCPT", "BDAT", "VRFY", "ETRN", "XCLIENT", "XFORWARD"}
        if not verb.isascii() or verb.upper() not in known:
            found.add("other")
            continue
        found |= {"upper"} if re.search("[A-Z]", verb) else set()
        found |= {"lower"} if re.search("[a-z]", verb) else set()
        verb = verb.upper()
        if rest[1:2] in (" ", "\t") and rest[1:2]:
            found.add("blanks")
        if verb == "HELO" and "ehlo" in found:
            found.add("fallback")
        if verb == "MAIL" and not in_tls:
            found.add("clear_mail")
        if verb in ("MAIL", "RCPT"):
            found |= of_path(rest, verb == "MAIL")
        elif verb == "BDAT":
            found.add("data")
        else:
            found.add(next((name for name, each in VERBS.items() if each == verb), "other"))
    return found


def of_path(rest: str, mail: bool) -> set[str]:
    label, colon, after = rest.partition(":")
    found = {"label"} if re.search("[a-z]", label) else set()
    if not colon or not after:
        return found
    if after[0] in " \t":
        found.add("blank")
    after = after.lstrip(" \t")
    if not after:
        return found
    if after[0] != "<":
        found.add("no_bracket")
    _, *parameters = re.split("[ \t]+", after)
    if re.search("[ \t]{2}", after):
        found.add("blanks")
    if mail:
        for each in parameters:
            if each:
                name = each.upper()
                found.add("size" if name.startswith("SIZE=") else "body" if name.startswith("BODY=") else "parameter")
    return found


WORDS = st.sampled_from(
    ["HELO", "EHLO", "ehlo", "Mail", "MAIL", "mail", "RCPT", "rcpt", "RSET", "NOOP", "DATA", "BDAT", "AUTH", "STARTTLS",
     "QUIT", "Quit", "VRFY", "GET", "", " ", "  ", "\t", "FROM:", "From:", "TO:", "to:", ":", "<a@b.test>", "a@b.test",
     "<>", "SIZE=1", "size=2", "BODY=8BITMIME", "SMTPUTF8", "SIZE", "x", "\xe9"]
)  # fmt: skip
LINE = st.lists(WORDS, max_size=8).flatmap(
    lambda words: st.sampled_from(["", " "]).map(lambda gap: gap.join(words).encode("latin-1"))
)
SESSION = st.lists(st.tuples(st.integers(0, 2**31), st.booleans(), LINE), max_size=12)


@given(SESSION)
def test_dialect(lines: list[tuple[int, bool, bytes]]) -> None:
    number = dialect_of(lines)
    if not lines:
        assert number == 0
        assert dialect_text(number) == ""
        return
    assert {name for bit, name in enumerate(HISTORY_DIALECT) if number >> bit & 1} == spoken(lines)
    bits = [min(29, delay.bit_length()) for delay, _, _ in lines]
    assert number >> 27 == 1 + statistics.median_low(bits)
    assert dialect_text(number).split()


def test_dialect_text() -> None:
    lines = [b"EHLO a", b"HELO a", b"mail from: a@b.test SIZE=3 SMTPUTF8", b"rcpt TO:<c@d.test> ", b"QUIT"]
    number = dialect_of([(2500, False, line) for line in lines])
    assert dialect_text(number) == "EHLO+HELO mixed from: blank nobracket trailing size parameter quit 2ms"
    assert dialect_text(dialect_of([(3_000_000, True, b"NOOP")])) == "upper noop 2s"
    assert dialect_text(dialect_of([(0, True, b"GET / HTTP/1.1")])) == "other 0µs"
