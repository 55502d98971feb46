"""exact-timers: a wait is never shorter than configured (in postscreen it may be, by up to one second)."""

import time

from robust.conftest import Start
from robust.harness import GREETING, TEASER


def test_no_greet_wait_is_too_short(start: Start) -> None:
    screener = start({"greet": {"wait": "1s"}, "deep": {"pipelining": "enforce"}})
    began = []
    clients = []
    for number in range(20):
        began.append(time.monotonic())
        clients.append(screener.connect(f"127.1.1.{number + 1}"))
        time.sleep(0.05)  # spread over a second: whole-second timers would cut some of them short
    for start_time, client in zip(began, clients, strict=True):
        got = b""
        while got != TEASER + GREETING:
            got += client.read()
            assert (TEASER + GREETING).startswith(got)
        assert time.monotonic() - start_time >= 1.0
        client.socket.close()
