"""TLS on one side, plaintext on the other: it takes and returns bytes, without a socket or a clock."""

from __future__ import annotations

import ssl

_VERSIONS = {"TLSv1": 1, "TLSv1.1": 2, "TLSv1.2": 3, "TLSv1.3": 4}


class Tunnel:
    """One client's TLS. Whatever is called, `to_client` may have something to send afterwards."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self.open = False
        """The handshake is over."""
        self.ended = False
        """The client sends nothing more."""
        self.broken = ""
        """Why it cannot go on; empty: it can."""

    # ---- from the client

    def feed(self, data: bytes | memoryview) -> None:
        self._incoming.write(data)

    def feed_end(self) -> None:
        """The client closed its direction of the connection, with or without telling TLS before."""
        self._incoming.write_eof()

    def shake_hands(self) -> bool:
        """Go on with the handshake as far as what came allows. True: it is over. `broken`: it failed."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except (ssl.SSLError, ConnectionError) as error:
            self.broken = _reason(error)
            return False
        self.open = True
        return True

    def read(self, into: memoryview) -> int:
        """Decrypt received data into a buffer; return the number of bytes. 0: no more now."""
        got = 0
        while got < len(into):
            try:
                count = int(self._tls.read(len(into) - got, into[got:]))
            except ssl.SSLWantReadError:
                break
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                count = 0
            except (ssl.SSLError, ConnectionError) as error:
                self.broken = _reason(error)
                break
            if not count:
                self.ended = True
                break
            got += count
        return got

    # ---- to the client

    def write(self, data: memoryview) -> None:
        """Encrypt."""
        try:
            while data:
                data = data[self._tls.write(data) :]
        except (ssl.SSLError, ConnectionError) as error:
            self.broken = _reason(error)

    def finish(self) -> None:
        """Tell the client that nothing more comes. Its own word to the same end is not waited for."""
        try:
            self._tls.unwrap()
        except (ssl.SSLError, ConnectionError, ValueError):
            return

    def to_client(self) -> bytes:
        """What is to be sent, once."""
        return self._outgoing.read()

    def version_byte(self) -> bytes:
        """The low byte of the protocol's number (RFC 8446 4.1.3): 3 is TLS 1.2."""
        return bytes([_VERSIONS.get(self._tls.version() or "", 0)])

    def summary(self) -> str:
        """Protocol and cipher, as Postfix logs them."""
        cipher = self._tls.cipher()
        name, bits = (cipher[0], cipher[2]) if cipher else ("none", 0)
        return f"{self._tls.version()} with cipher {name} ({bits}/{bits} bits)"


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", "") or str(error) or type(error).__name__
    return str(reason).replace("_", " ").lower()
