"""The line parser finds the same lines and violations for every split of the input."""

from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from fastscreen.core import LineStates

BARE_NEWLINE, TOO_LONG, NUL, CONTROL, HEADER_LABEL, BAD_UTF8_LINE, BAD_UTF8_WORD, MORE = (1 << bit for bit in range(8))
COMMANDS = [b"HELO", b"EHLO", b"STARTTLS", b"XCLIENT", b"XFORWARD", b"AUTH", b"MAIL", b"RCPT", b"DATA"]
COMMANDS += [b"BDAT", b"RSET", b"NOOP", b"VRFY", b"ETRN", b"QUIT"]
LIMIT = 40

fragments = st.one_of(
    st.sampled_from([b"\r\n", b"\n", b"\r", b" ", b"\0", b"\t", b"Subject: x", b"GET / HTTP/1.1", "größe".encode()]),
    st.sampled_from(COMMANDS),
    st.binary(max_size=12),
)
inputs = st.lists(fragments, max_size=30).map(b"".join)


def reference(data: bytes, limit: int) -> list[tuple[bytes, bytes, str, int]]:
    """The same in a few slow words, with all of the input at hand."""
    lines: list[tuple[bytes, bytes, str, int]] = []
    while data:
        line, newline, rest = data.partition(b"\n")
        if len(line) + len(newline) > limit:
            return [*lines, described(data[:limit], TOO_LONG)]
        if not newline:
            break
        bare = 0 if line.endswith(b"\r") else BARE_NEWLINE
        lines.append(described(line.removesuffix(b"\r"), bare))
        data = rest
    return lines


def described(line: bytes, found: int) -> tuple[bytes, bytes, str, int]:
    text = line.partition(b"\0")[0]
    word = text.lstrip(b" ").partition(b" ")[0]
    known = word.upper() in COMMANDS
    label = word.partition(b":")[0]
    if b"\0" in line:
        found |= NUL
    if any((octet < 32 and octet not in (0, 9)) or octet == 127 for octet in line):
        found |= CONTROL
    if not known and b":" in word and label and all(33 <= octet <= 126 for octet in label):
        found |= HEADER_LABEL
    if not is_utf8(text):
        found |= BAD_UTF8_LINE
    if not known and not is_utf8(word):
        found |= BAD_UTF8_WORD
    return line, word, word.upper().decode() if known else "UNIMPLEMENTED", found


def is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


@given(inputs, st.lists(st.integers(0, 200), max_size=12))
@example(b"NOOP\r\nQUIT\r\n", [6])
@example(b"NOOP\r\n", [5])
@example(b"x" * 39 + b"\n", [])
@example(b"x" * 38 + b"\r\n", [39])
@example(b"x" * 39 + b"\r\n", [40])
def test_any_split_gives_the_same_lines(data: bytes, cuts: list[int]) -> None:
    states = LineStates(LIMIT)
    got: list[tuple[bytes, bytes, str, int]] = []
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for begin, end in pairwise(places):
        feed = data[begin:end]
        lines = states.feed(feed)
        for place, line in enumerate(lines):
            # Bytes remain behind a line that is not the last of its feed, and behind the last one if the feed goes on.
            remain = place + 1 < len(lines) or (not feed.endswith(b"\n") or line[3] & TOO_LONG)
            if not line[3] & TOO_LONG:
                assert bool(line[3] & MORE) == bool(remain)
        got += lines
    assert [(*line[:3], line[3] & ~MORE) for line in got] == reference(data, LIMIT)


@given(st.lists(st.sampled_from([b"NOOP\r\n", b"EHLO x\r\n", b"\r\n", b"foo\n"]), min_size=1, max_size=20))
def test_one_line_a_feed_never_leaves_bytes(lines: list[bytes]) -> None:
    states = LineStates()
    for line in lines:
        [(_, _, _, found)] = states.feed(line)
        assert not found & MORE


@given(st.lists(st.sampled_from([b"NOOP\r\n", b"EHLO x\r\n", b"\r\n", b"foo\n"]), min_size=2, max_size=20))
def test_lines_in_one_feed_leave_bytes_behind_all_but_the_last(lines: list[bytes]) -> None:
    found = [line[3] & MORE for line in LineStates().feed(b"".join(lines))]
    assert found == [MORE] * (len(lines) - 1) + [0]


@given(inputs)
def test_memory_is_bounded_by_the_limit(data: bytes) -> None:
    states = LineStates(LIMIT)
    for octet in data * 5:
        states.feed(bytes([octet]))
        assert states.held <= LIMIT


@given(inputs)
def test_counting_agrees(data: bytes) -> None:
    assert LineStates(LIMIT).count(data) == len(LineStates(LIMIT).feed(data))
