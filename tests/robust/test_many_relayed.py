"""Many relayed sessions: 4,000 held by one worker, 8,000 by two, and each transfers data."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from robust.conftest import Start
from robust.harness import TEASER, Screener, wait_until

KNOWN = {"access": {"list": ["permit_mynetworks"], "mynetworks": ["127.20.0.0/14"]}}
DESCRIPTORS = resource.getrlimit(resource.RLIMIT_NOFILE)[1]


@pytest.mark.skipif(DESCRIPTORS < 17000, reason="the limit of open descriptors allows no 8,000 sessions' both ends")
@pytest.mark.parametrize(("workers", "count"), [(1, 4000), (2, 8000)])
def test_thousands_at_once(start: Start, workers: int, count: int, capsys: pytest.CaptureFixture[str]) -> None:
    """All at the same time, each with its own MTA's greeting and answers; two descriptors and 0.7 kB for each."""
    command = [sys.executable, str(Path(__file__).with_name("relayload.py")), str(count)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as load:
        try:
            port = said(load, "port")
            screener = start(
                KNOWN,
                {
                    "handoff": {"to": f"proxy:127.0.0.1:{port}"},
                    "listen": {"workers": workers},
                    "limits": {"post_queue": 1000},
                },
            )
            descriptors, before = screener.descriptors(), screener.status("RssAnon")
            host, at = screener.address
            assert ask(load, f"hold {host} {at}", "held") == count
            assert screener.descriptors() == descriptors + 2 * count
            held = (screener.status("RssAnon") - before) / count
            with capsys.disabled():
                print(f" {held:.2f} kB for each of {count} relayed sessions ", end="")
            assert ask(load, "talk", "talked") == count
            with screener.connect("127.1.0.1") as client:
                assert client.socket.recv(len(TEASER)) == TEASER
            assert ask(load, "talk", "talked") == count
            if "asan" not in Path(f"/proc/{screener.pid}/maps").read_text():
                assert (screener.status("RssAnon") - before) / count <= 0.7
            assert shares(screener) == workers
            assert ask(load, "end", "ended") == count
            wait_until(lambda: screener.descriptors() <= descriptors, "all sessions to be gone")
            assert screener.lines("warning|STRESS|busy|TIME LIMIT") == []
        finally:
            load.kill()


def ask(load: "subprocess.Popen[str]", order: str, answer: str) -> int:
    assert load.stdin is not None
    load.stdin.write(order + "\n")
    load.stdin.flush()
    return said(load, answer)


def said(load: "subprocess.Popen[str]", what: str) -> int:
    """The number that the load process prints next."""
    assert load.stdout is not None
    word, number = load.stdout.readline().split()
    assert word == what
    return int(number)


def shares(screener: Screener) -> int:
    """How many workers have had clients."""
    return len({line.partition("postscreen[")[2].partition("]")[0] for line in screener.lines("ALLOWLISTED")})
