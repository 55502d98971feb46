"""A worker that ends serves the connections that were passed to it just before."""

import socket
from contextlib import ExitStack
from pathlib import Path

from fastscreen import config
from fastscreen.core import AccessStep, Log, Policy, Screener, worker_of
from fastscreen.daemon.listeners import inbox
from fastscreen.screening import policy
from robust.harness import HOSTNAME, wait_until

KEY = 7
WHOLE = (32, 128)


def test_who_was_passed_before_the_end_is_served(tmp_path: Path) -> None:
    """SIGTERM finds nobody but a client in the inbox: it goes its way before the worker ends."""
    source = next(f"192.0.2.{at}" for at in range(100) if worker_of(f"192.0.2.{at}", 2, KEY, WHOLE) == 1)
    rules = screening(tmp_path)
    drained: list[str] = []
    with ExitStack() as opened:
        inboxes = [inbox() for _ in range(2)]
        for end in (*inboxes[0], *inboxes[1]):
            opened.enter_context(end)
        first, second = (
            Screener(rules, Log("x", host="h", pid=1), None, on_truncated=print, on_drained=lambda: drained.append("!"))
            for _ in range(2)
        )
        sending = [end.fileno() for end, _ in inboxes]
        for number, screener in enumerate((first, second)):
            screener.join_crew(number, KEY, WHOLE, sending, inboxes[number][1].fileno())
        port = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
        port.setblocking(False)
        first.listen(port.fileno(), trusted=AccessStep(["permit"]), header_time=5.0)
        client = opened.enter_context(socket.create_connection(port.getsockname()))
        client.settimeout(5.0)
        client.sendall(f"PROXY TCP4 {source} 198.51.100.1 5000 25\r\n".encode())

        def passed() -> bool:
            first.run()
            return bool(first.stats()["passed_on"])

        wait_until(passed, "the first worker to pass it on")
        second.drain()
        assert client.recv(1000) == b"421 4.3.2 All server ports are busy\r\n"  # by the MTA, which is missing
        assert drained == ["!"]


def screening(folder: Path) -> Policy:
    file = folder / "fastscreen.toml"
    file.write_text(
        f'hostname = "{HOSTNAME}"\nbanner = "{HOSTNAME} ESMTP Postfix"\nuser = ""\n'
        'handoff = {to = "pass:/nonexistent"}\naccess = {mynetworks = ["192.0.2.0/24"]}\n'
    )
    return policy.build(config.load(file), "/nonexistent", print).policy
