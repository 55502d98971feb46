"""A screener that dialogues are played against: where it listens, what it and those around it logged."""

from collections.abc import Callable
from dataclasses import dataclass

from peers.logbook import Line, Logbook


@dataclass
class Side:
    """One screener with one settings profile."""

    title: str
    address: str
    address6: str
    backup: str
    """Another address of the same server's."""
    port: int
    screener: tuple[Logbook, str]
    """Its log and syslog name."""
    dnsblog: tuple[Logbook, str]
    tlsproxy: tuple[Logbook, str]
    smtpd: tuple[Logbook, str]
    """The log and syslog name of the smtpd it hands off to."""

    last_words: Callable[[], str]
    """What the screener printed, if it has ended."""

    def lines(self) -> list[Line]:
        """Return the screener's own lines."""
        return self._of(*self.screener, "postscreen")

    def dnsblog_lines(self) -> list[Line]:
        """Return the listing lines."""
        return self._of(*self.dnsblog, "dnsblog")

    def tlsproxy_lines(self) -> list[Line]:
        """Return the lines about TLS."""
        return self._of(*self.tlsproxy, "tlsproxy")

    def smtpd_lines(self) -> list[Line]:
        """Return the lines of the smtpd behind it."""
        return self._of(*self.smtpd, "smtpd")

    def settled(self, address: str, connections: int) -> bool:
        """Tell whether `connections` connections of a client were logged and each has ended, in the log."""
        begun = ended = 0
        for line in self.lines():
            if line.address == address:
                begun += line.text.startswith("CONNECT from ")
                ended += line.text.startswith("DISCONNECT ")
        for line in self.smtpd_lines():
            ended += line.address == address and line.text.startswith("disconnect from ")
        for line in self.tlsproxy_lines():
            if line.address == address:
                begun += line.text.startswith("CONNECT from ")
                ended += line.text.startswith("DISCONNECT ")
        return connections <= begun <= ended

    def _of(self, book: Logbook, name: str, program: str) -> list[Line]:
        return book.of(name, program)
