"""The receiving side of the hand-off (reference 8.2), with an MTA that can be missing, refusing, full or slow."""

import array
import contextlib
import os
import selectors
import socket
import threading
from pathlib import Path

GREETING = b"220 the MTA itself\r\n"
BACKLOG = 100


class FakeMta:
    """Takes clients at the Unix socket `path` in a thread: greets them with GREETING and hangs up.

    Before `start` the socket is missing. `taken` has the attributes of every client in the order of their coming.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.taken: list[dict[str, str]] = []
        self.early: list[bytes] = []
        """What each client had sent before it was taken."""
        self.keep = False
        """Slow: take the client, but never confirm."""
        self._kept: list[socket.socket] = []
        self._listener: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._waker, self._wake = socket.socketpair()

    def start(self, backlog: int = BACKLOG, *, accepting: bool = True) -> None:
        """Listen; with accepting=False nobody is taken and the backlog fills up, until `accept`."""
        self.stop()
        self.path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self.path))
        self.path.chmod(0o666)
        self._listener.listen(backlog)
        if accepting:
            self.accept()

    def accept(self) -> None:
        self._thread = threading.Thread(target=self._serve, name="fake MTA")
        self._thread.start()

    def stop(self) -> None:
        """Close the socket; its file stays, and refuses."""
        if self._thread is not None:
            self._wake.send(b"x")
            self._thread.join()
            self._waker.recv(1)
            self._thread = None
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        while self._kept:
            self._kept.pop().close()

    def close(self) -> None:
        self.stop()
        self._waker.close()
        self._wake.close()

    def _serve(self) -> None:
        assert self._listener is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._waker, selectors.EVENT_READ)
            while True:
                ready = [key.fileobj for key, _ in selector.select()]
                if self._waker in ready:
                    return
                connection, _ = self._listener.accept()
                self._take(connection)

    def _take(self, connection: socket.socket) -> None:
        connection.settimeout(5.0)
        data, ancillary, _, _ = connection.recvmsg(4096, socket.CMSG_SPACE(4))
        descriptors = array.array("i")
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                descriptors.frombytes(content)
        if not descriptors:
            connection.close()  # it was the probe of `full`
            return
        while not data.endswith(b"\0\0"):
            data += connection.recv(4096)
        names = data[1:-2].decode("ascii").split("\0")
        # Confirmed before the client is served, as by smtpd: a client may connect again after it was served.
        if self.keep:
            self._kept.append(connection)
        else:
            connection.close()
        with socket.socket(fileno=descriptors[0]) as client:
            client.setblocking(False)
            with contextlib.suppress(OSError):
                self.early.append(client.recv(65536, socket.MSG_PEEK))
            with contextlib.suppress(OSError):
                client.send(GREETING)
                # All that was sent early is read, else closing would be a reset that overtakes the greeting.
                while client.recv(65536):
                    pass
        self.taken.append(dict(zip(names[::2], names[1::2], strict=True)))


def full(path: Path) -> bool:
    """Whether a connect(2) to the socket finds no room."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        return probe.connect_ex(str(path)) == 11


def fill(mta: FakeMta, backlog: int = 1) -> None:
    """Let the MTA stop accepting, and leave no room in its socket."""
    mta.stop()
    mta.start(backlog, accepting=False)
    while not full(mta.path):
        pass


def folder_for(user: str, folder: Path) -> None:
    """Give a folder to the user that the screener becomes."""
    if user:
        import pwd

        owner = pwd.getpwnam(user)
        os.chown(folder, owner.pw_uid, owner.pw_gid)
