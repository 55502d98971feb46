"""The TLS of one client: the same at any split of what comes, and nothing that comes raises."""

import contextlib
import ssl
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given
from hypothesis import strategies as st
from peers import certificate

from fastscreen.config import default
from fastscreen.tls.context import chains, new_context
from fastscreen.tls.tunnel import Tunnel

ROOM = memoryview(bytearray(65536))
VERSIONS = st.sampled_from([ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])


@cache
def server() -> ssl.SSLContext:
    with TemporaryDirectory() as folder:
        files = [(path.name, path.read_bytes()) for path in certificate.make(Path(folder))]
    return new_context(default().tls, chains(files))


class Peer:
    """A client, and the bytes that it would send."""

    def __init__(self, version: ssl.TLSVersion) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.minimum_version = context.maximum_version = version
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing)
        self.open = False

    def go_on(self) -> bytes:
        if not self.open:
            with contextlib.suppress(ssl.SSLWantReadError):
                self.tls.do_handshake()
                self.open = True
        return self.outgoing.read()

    def read(self) -> bytes:
        data = b""
        with contextlib.suppress(ssl.SSLWantReadError):
            while got := self.tls.read(65536):
                data += got
        return data


def feed(tunnel: Tunnel, data: bytes, sizes: list[int]) -> bytes:
    """Feed in pieces, the sizes again and again; what came out as plaintext."""
    plain, at, turn = b"", 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        tunnel.feed(data[at : at + size])
        at, turn = at + size, turn + 1
        if tunnel.open or tunnel.shake_hands():
            while got := tunnel.read(ROOM):
                plain += bytes(ROOM[:got])
    return plain


def open_tunnel(version: ssl.TLSVersion, sizes: list[int]) -> tuple[Tunnel, Peer]:
    tunnel, peer = Tunnel(server()), Peer(version)
    while not (tunnel.open and peer.open):
        feed(tunnel, peer.go_on(), sizes)
        assert not tunnel.broken
        peer.incoming.write(tunnel.to_client())
    return tunnel, peer


@given(VERSIONS, st.lists(st.integers(1, 700), min_size=1, max_size=4), st.binary(min_size=1, max_size=40000))
def test_the_same_at_any_split(version: ssl.TLSVersion, sizes: list[int], text: bytes) -> None:
    tunnel, peer = open_tunnel(version, sizes)
    peer.tls.write(text[:16000])
    sent = peer.go_on()
    assert feed(tunnel, sent, sizes) == text[:16000]
    tunnel.write(memoryview(text))
    peer.incoming.write(tunnel.to_client())
    assert peer.read() == text
    assert not tunnel.ended and not tunnel.broken
    tunnel.finish()
    peer.incoming.write(tunnel.to_client())
    assert peer.tls.read(10) == b""  # close_notify


@given(VERSIONS, st.booleans())
def test_the_end_with_a_word_and_without(version: ssl.TLSVersion, word: bool) -> None:
    """What was sent before it still comes."""
    tunnel, peer = open_tunnel(version, [1000])
    peer.tls.write(b"the last")
    if word:
        with contextlib.suppress(ssl.SSLWantReadError):
            peer.tls.unwrap()
    tunnel.feed(peer.go_on())
    if not word:
        tunnel.feed_end()
    assert bytes(ROOM[: tunnel.read(ROOM)]) == b"the last"
    assert tunnel.ended
    assert not tunnel.broken


@given(st.binary(min_size=1, max_size=2000), st.integers(0, 400))
def test_garbage_breaks_and_never_raises(garbage: bytes, kept: int) -> None:
    """Instead of a hello, or behind the beginning of a real one."""
    tunnel, peer = Tunnel(server()), Peer(ssl.TLSVersion.TLSv1_3)
    tunnel.feed(peer.go_on()[:kept] + garbage)
    tunnel.shake_hands()
    tunnel.feed_end()
    tunnel.shake_hands()
    assert not tunnel.open
    assert tunnel.broken
    assert tunnel.broken.isprintable()
    tunnel.finish()
    tunnel.to_client()


@given(VERSIONS, st.binary(min_size=6, max_size=500))
def test_garbage_inside(version: ssl.TLSVersion, garbage: bytes) -> None:
    tunnel, _ = open_tunnel(version, [1000])
    tunnel.feed(garbage)
    tunnel.feed_end()
    assert tunnel.read(ROOM) == 0
    assert tunnel.broken or tunnel.ended


def test_a_hello_that_never_ends() -> None:
    """Rejected because of its length, before its bytes are stored."""
    tunnel = Tunnel(server())
    tunnel.feed(b"\x16\x03\x01\x40\x00" + b"\x01\xff\xff\xff" + bytes(0x4000 - 4))
    assert not tunnel.shake_hands()
    assert tunnel.broken == "excessive message size"
