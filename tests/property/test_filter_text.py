"""Any text is either compiled to a Filter, or causes a one-line error."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from fastscreen.control import frames, protocol
from fastscreen.control.filters import compiled
from fastscreen.control.worker_rpc import Live
from fastscreen.core import Filter

WORDS = st.sampled_from(
    [
        "score",
        "age",
        "kind:",
        "stage:",
        "failed:",
        "list:",
        "session:",
        "port:",
        "worker:",
        ">",
        "<=",
        "=",
        "-",
        '"',
        "\\",
        "greet",
        "pregreet",
        "zen",
        "1",
        "99999999999",
        "0.5",
        "192.0.2.1",
        "/24",
        "::",
        "2001:db8::/32",
        ",",
        "\x00",
        "é",
    ]
) | st.just(" ")
TYPED = st.one_of(st.text(max_size=60), st.lists(WORDS, max_size=12).map("".join))
WHATEVER = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=9)
    | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=12,
)


@given(TYPED)
def test_a_filter_or_one_line(text: str) -> None:
    try:
        chosen = compiled(text, ("zen", "bl.example"))
    except ValueError as error:
        said = str(error)
        assert said.startswith("filter: ")
        assert said.isprintable()
        return
    assert isinstance(chosen.filter(), Filter)
    # It is the same after its way to a worker.
    sent = msgspec.msgpack.decode(msgspec.msgpack.encode(Live(chosen.terms, "age", 1)), type=Live)
    assert isinstance(Filter([(*term,) for term in sent.terms]), Filter)


@given(st.binary(max_size=200) | WHATEVER.map(msgspec.msgpack.encode))
def test_a_frame_is_a_request_or_an_error(body: bytes) -> None:
    try:
        request = protocol.request(body)
    except frames.FrameError as error:
        assert str(error).isprintable()
    else:
        assert isinstance(request.id, int | float)
        assert isinstance(request.verb, str)
