"""The daemon's side of docs/control.md, with answers that a test gives it."""

import contextlib
import socket
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import msgpack  # type: ignore[import-untyped]

HELLO = {
    "fastscreen": "0.1.0",
    "protocol": 1,
    "rights": ["read", "act"],
    "pid": 4711,
    "workers": 2,
    "hostname": "mx.example.test",
    "started": 1763848000.0,
}
TIMEOUT = 20.0  # s: a bound on hanging, not on speed


class Error(str):
    """An answer that is an error."""


class FakeHub:
    """Listens at `path`; `asked` is what came.

    answers: by verb a value, an Error, or a function of the request. batches: what follows a subscription to events,
    each (events, lost).
    """

    def __init__(
        self,
        path: Path,
        answers: Mapping[str, Any] | None = None,
        *,
        batches: list[tuple[list[Any], int]] | None = None,
        hello: Mapping[str, Any] = HELLO,
    ) -> None:
        self.path = path
        self.asked: list[dict[str, Any]] = []
        self._answers = dict(answers or {})
        self._batches = batches or []
        self._hello = hello
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(8)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(TIMEOUT)
        self._listener.close()
        assert not self._thread.is_alive()

    def _serve(self) -> None:
        while True:
            try:
                control, _ = self._listener.accept()
            except OSError:
                return
            with control, contextlib.suppress(ConnectionError, EOFError):
                control.settimeout(TIMEOUT)
                self._send(control, dict(self._hello))
                while True:
                    self._answer(control, self._receive(control))

    def _answer(self, control: socket.socket, request: dict[str, Any]) -> None:
        self.asked.append({key: value for key, value in request.items() if key != "id"})
        answer = self._answers.get(request["do"], {})
        if callable(answer):
            answer = answer(request)
        if isinstance(answer, Error):
            self._send(control, {"id": request["id"], "error": str(answer)})
            return
        self._send(control, {"id": request["id"], "ok": answer})
        if request["do"] == "events":
            for events, lost in self._batches:
                self._send(control, {"id": request["id"], "events": events, "lost": lost})
            raise EOFError  # a daemon that stops

    def _send(self, control: socket.socket, message: dict[str, Any]) -> None:
        body = msgpack.packb(message)
        control.sendall(len(body).to_bytes(4, "big") + body)

    def _receive(self, control: socket.socket) -> dict[str, Any]:
        length = int.from_bytes(self._octets(control, 4), "big")
        assert length <= 64 << 10
        message: dict[str, Any] = msgpack.unpackb(self._octets(control, length))
        return message

    def _octets(self, control: socket.socket, count: int) -> bytes:
        octets = b""
        while len(octets) < count:
            more = control.recv(count - len(octets))
            if not more:
                raise EOFError
            octets += more
        return octets
