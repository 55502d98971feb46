"""Log lines for the tests of the report, written short."""

from __future__ import annotations

from collections.abc import Iterable

from fastscreen.report.lines import pattern
from fastscreen.report.tally import Tally
from fastscreen.report.timestamps import Clock

NOON = 1_795_348_800  # 2026-11-22 12:00:00 UTC
A = "[192.0.2.1]:1111"


def line(second: int, text: str, program: str = "postscreen") -> bytes:
    """A line so many seconds after noon (UTC)."""
    hour, rest = divmod(12 * 3600 + second, 3600)
    day, hour = divmod(hour, 24)
    stamp = f"2026-11-{22 + day:02d}T{hour:02d}:{rest // 60:02d}:{rest % 60:02d}+00:00"
    return f"{stamp} mx1 postfix/{program}[7]: {text}\n".encode()


def connect(second: int, client: str = A) -> bytes:
    """A client comes."""
    return line(second, f"CONNECT from {client} to [198.51.100.7]:25")


def come_again(second: int, client: str = A) -> bytes:
    """All lines of a client that has just passed the deep tests."""
    reply = "450 4.3.2 Service currently unavailable"
    envelope = "from=<a@example.com>, to=<b@example.net>, proto=ESMTP, helo=<mail>"
    texts = (f"NOQUEUE: reject: RCPT from {client}: {reply}; {envelope}", f"PASS NEW {client}", f"DISCONNECT {client}")
    return connect(second, client) + b"".join(line(second + 7, text) for text in texts)


def known(second: int, client: str = A) -> bytes:
    """A client that is handed off at once."""
    return connect(second, client) + line(second, f"PASS OLD {client}")


def listed(second: int, *answers: str, client: str = A, rank: int | None = None) -> bytes:
    """A client that lists know (`zen.example as 127.0.0.2`): refused with this rank, or passed."""
    address = client[1 : client.index("]")]
    lines = connect(second, client)
    for answer in answers:
        lines += line(second, f"addr {address} listed by domain {answer}", "dnsblog")
    if rank is None:
        return lines + line(second + 6, f"PASS NEW {client}")
    return lines + line(second + 6, f"DNSBL rank {rank} for {client}") + line(second + 6, f"DISCONNECT {client}")


def tallied(lines: Iterable[bytes], **settings: float) -> Tally:
    """Count them."""
    tally = Tally(**settings)  # type: ignore[arg-type]
    tally.add(pattern().findall(b"".join(lines)), Clock(NOON))
    tally.finish()
    return tally
