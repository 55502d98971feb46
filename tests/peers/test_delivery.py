"""A message from swaks, through the screener by descriptor hand-off, into the mailbox of a real Postfix."""

import subprocess

import pytest

from peers import needs, postfix, processes
from peers.lab import Lab
from peers.sides import Side

SERVICE = "early"

CLIENTS = {"IPv4": "127.10.251.7", "IPv6": "2001:db8:10::fb07"}


def _send(lab: Lab, side: Side, source: str, token: str) -> str:
    command = [
        *lab.namespace.inside,
        needs.program("swaks"),
        *("--server", side.address6 if ":" in source else side.address),
        *("--port", str(side.port)),
        *("--local-interface", source),
        *("--helo", "client.example"),
        *("--from", "sender@example.com"),
        *("--to", f"inbox@{postfix.MAIL_DOMAIN}"),
        *("--header", f"Subject: {token}"),
        *(["-6"] if ":" in source else []),
    ]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def _received(lab: Lab, token: str) -> str:
    """Return the Received line of the message with this subject, unfolded, once it is in the mailbox."""

    def found() -> list[str]:
        return [mail for mail in lab.postfix.mails() if f"Subject: {token}\n" in mail]

    processes.wait_until(lambda: bool(found()), f"the message {token!r} in the mailbox")
    head = found()[0].partition("\n\n")[0].replace("\n\t", " ")
    return next(line for line in head.splitlines() if line.startswith("Received:"))


@pytest.mark.parametrize("family", CLIENTS)
@pytest.mark.parametrize("title", ["postscreen", "fastscreen"])
def test_delivery(lab: Lab, title: str, family: str) -> None:
    """The message arrives with the client's own address in Received: as PASS NEW, then as PASS OLD."""
    if family == "IPv6":
        needs.program("swaks over IPv6")
    side = lab.postscreen(SERVICE) if title == "postscreen" else lab.fastscreen([SERVICE])[0]
    source = CLIENTS[family]
    shown = f"[IPv6:{source}]" if family == "IPv6" else f"[{source}]"
    for number, verdict in enumerate(("PASS NEW", "PASS OLD"), 1):
        token = f"{title} {family} {number}"
        said = _send(lab, side, source, token)
        assert ("220-" in said) == (verdict == "PASS NEW"), said
        assert f"from client.example (unknown {shown})" in _received(lab, token)
        processes.wait_until(lambda count=number: side.settled(source, count), "the end of the session in the log")  # type: ignore[misc]
        lines = [line.text for line in side.lines() if line.address == source]
        assert lines[-1].startswith(f"{verdict} [{source}]:")
        assert len(lines) == 2 * number  # CONNECT and PASS each time
