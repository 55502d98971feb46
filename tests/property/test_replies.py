"""An MTA's reply is parsed identically at any split, and other text is rejected."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastscreen.core import read_reply

CODES = st.integers(200, 599)
TEXTS = st.binary(max_size=40).filter(lambda text: b"\n" not in text)


@st.composite
def replies(draw: st.DrawFn) -> tuple[int, bytes]:
    code = draw(CODES)
    lines = [b"%d-%b\r\n" % (code, draw(TEXTS)) for _ in range(draw(st.integers(0, 5)))]
    return code, b"".join(lines) + draw(st.sampled_from([b"%d %b\r\n", b"%d %b\n"])) % (code, draw(TEXTS))


@given(replies(), st.binary(max_size=20))
def test_one_reply(reply: tuple[int, bytes], behind: bytes) -> None:
    code, text = reply
    assert read_reply(text + behind) == (len(text), code)
    for size in range(len(text)):
        assert read_reply(text[:size]) is None


@given(st.binary(max_size=100))
def test_anything(text: bytes) -> None:
    """Whatever it is, an answer comes, within the text."""
    try:
        read = read_reply(text)
    except ValueError:
        return
    if read is not None:
        assert 4 <= read[0] <= len(text)
        assert 200 <= read[1] <= 599
        assert text[read[0] - 1 : read[0]] == b"\n"


@given(replies())
def test_a_reply_is_bounded(reply: tuple[int, bytes]) -> None:
    code, text = reply
    for long in (b"%d-" % code + b"x" * 8200, (b"%d-x\r\n" % code) * 1400 + text):
        with pytest.raises(ValueError, match="no reply"):
            read_reply(long)
