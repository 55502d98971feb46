"""An MTA that reads the PROXY protocol, and does with each connection what the test says."""

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Self

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


class Connection:
    """One connection that came with a PROXY header, version 2 (or 1, when that is how it begins).

    client, server: the endpoints by the header; None: it is its sender's own (LOCAL, or its own ends in version 1).
    """

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.held = b""
        self.client: tuple[str, int] | None = None
        self.server: tuple[str, int] | None = None
        self.header = self._exactly(12)
        if self.header == SIGNATURE:
            self._read_binary()
        else:
            while not self.header.endswith(b"\r\n"):
                self.header += self._exactly(1)
            _, _, *where = self.header.decode().split()
            if where and (where[0], int(where[2])) != connection.getpeername()[:2]:
                self.client, self.server = (where[0], int(where[2])), (where[1], int(where[3]))

    def _read_binary(self) -> None:
        self.header += self._exactly(4)
        addresses = self._exactly(int.from_bytes(self.header[14:16]))
        self.header += addresses
        if self.header[12] == 0x21:
            family, size = (socket.AF_INET6, 16) if self.header[13] == 0x21 else (socket.AF_INET, 4)
            assert len(addresses) == 2 * size + 4
            ports = addresses[2 * size :]
            self.client = socket.inet_ntop(family, addresses[:size]), int.from_bytes(ports[:2])
            self.server = socket.inet_ntop(family, addresses[size : 2 * size]), int.from_bytes(ports[2:])

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            got = self.socket.recv(size - len(data))
            if not got:
                raise EOFError
            data += got
        return data

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def line(self) -> bytes:
        """The next line without its CRLF. Raises EOFError at the end of the connection."""
        while b"\n" not in self.held:
            got = self.socket.recv(65536)
            if not got:
                raise EOFError
            self.held += got
        line, _, self.held = self.held.partition(b"\n")
        return line.removesuffix(b"\r")

    def expect(self, line: bytes, reply: bytes) -> None:
        """AssertionError: the next line is another."""
        said = self.line()
        assert said == line, said
        self.send(reply + b"\r\n")

    def rest(self) -> bytes:
        """Everything up to the end."""
        data, self.held = self.held, b""
        with contextlib.suppress(ConnectionResetError):
            while got := self.socket.recv(1 << 20):
                data += got
        return data


class ProxyMta:
    """Takes connections at a port of 127.0.0.1, each in a thread: `serve` gets it and its number, from 0.

    Connections of nobody (LOCAL) are not counted: they get `offer` to EHLO. What `serve` raises is in `failures`.
    """

    OFFER = b"250-mta\r\n250-SIZE 1000000\r\n250-8BITMIME\r\n250-CHUNKING\r\n250-DSN\r\n250 SMTPUTF8\r\n"

    def __init__(self, serve: Callable[[Connection, int], None]) -> None:
        self.serve = serve
        self.offer = self.OFFER
        self.came = 0
        self.locals = 0
        self.failures: list[BaseException] = []
        self._threads: list[threading.Thread] = []
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.port = self._listener.getsockname()[1]
        self.target = f"proxy:127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._accept, name="MTA behind a relay")
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End everything; AssertionError: something went wrong in `serve`."""
        self.stop()
        for each in list(self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        assert not self.failures, self.failures

    def stop(self) -> None:
        """Refuse from now on."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.add(connection)
            thread = threading.Thread(target=self._take, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _take(self, connection: socket.socket) -> None:
        with connection:
            try:
                made = Connection(connection)
                if made.client is None:
                    self.locals += 1
                    made.send(b"220 mta\r\n")
                    made.line()
                    made.send(self.offer)
                    made.expect(b"QUIT", b"221 bye")
                else:
                    number, self.came = self.came, self.came + 1
                    self.serve(made, number)
            except (EOFError, ConnectionError):
                pass
            except BaseException as error:
                self.failures.append(error)
        self._open.discard(connection)
