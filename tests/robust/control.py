"""A tiny client of the control socket (docs/control.md), for the tests that attack it."""

import contextlib
import socket
import struct
from pathlib import Path
from typing import Any, Self

import msgpack  # type: ignore[import-untyped]

Map = dict[str, Any]


class Closed(Exception):
    """The other side has ended it."""


class Control:
    """One connection. `hello` is what came first."""

    def __init__(self, path: Path | str, *, greeted: bool = True) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(20)
        try:
            self.socket.connect(str(path))
            self.hello: Map = self.read() if greeted else {}
        except BaseException:
            self.socket.close()
            raise
        self._last = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, message: Map) -> None:
        self.send_body(msgpack.packb(message))

    def send_body(self, body: bytes) -> None:
        self.socket.sendall(struct.pack("!I", len(body)) + body)

    def read(self) -> Map:
        """The next frame."""
        (size,) = struct.unpack("!I", self._octets(4))
        message: Map = msgpack.unpackb(self._octets(size))
        return message

    def _octets(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            got = b""
            with contextlib.suppress(ConnectionError):
                got = self.socket.recv(count - len(data))
            if not got:
                raise Closed
            data += got
        return data

    def ask(self, verb: str, **arguments: Any) -> Map:
        """The whole answer, without events that arrive in between."""
        self._last += 1
        self.send({"id": self._last, "do": verb, **arguments})
        while (message := self.read()).get("id") != self._last:
            pass
        return message

    def ok(self, verb: str, **arguments: Any) -> Any:
        answer = self.ask(verb, **arguments)
        assert "ok" in answer, answer
        return answer["ok"]

    def error(self, verb: str, **arguments: Any) -> str:
        answer = self.ask(verb, **arguments)
        assert set(answer) == {"id", "error"}, answer
        assert "\n" not in answer["error"]
        text: str = answer["error"]
        return text


def conditions(path: Path | str) -> Map:
    """What lasts now, by its kind; empty as well while nobody answers there."""
    with contextlib.suppress(OSError, Closed), Control(path) as control:
        return {one["kind"]: one["text"] for one in control.ok("status")["conditions"]}
    return {}
