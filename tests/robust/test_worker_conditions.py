"""Lasting problems with the MTA, resolver or descriptors are conditions in `status` until they end."""

import socket
import time
from pathlib import Path

import pytest

from robust.conftest import Start
from robust.control import Control, Map
from robust.fakedns import FakeDns, not_listed
from robust.fakemta import GREETING as FROM_MTA
from robust.fakemta import FakeMta
from robust.harness import Client, merge
from robust.test_control import KNOWN, connected, eventually


@pytest.fixture
def path(folder: Path) -> Path:
    return folder / "run" / "control"


@pytest.fixture
def settings(path: Path) -> Map:
    return {"control": {"path": str(path)}}


def held(control: Control, *kinds: str) -> None:
    eventually(control, "status", lambda it: [one["kind"] for one in it["conditions"]] == list(kinds))


def test_an_mta_that_is_away(start: Start, folder: Path, path: Path, settings: Map, mta: FakeMta) -> None:
    screener = start(settings, KNOWN)
    with connected(path) as control:
        mta.close()
        for number in range(1, 4):
            held(control)
            with screener.connect(f"127.7.0.{number}") as client:
                assert client.read().startswith(b"421 ")
        held(control, "mta")
        (one,) = control.ok("status")["conditions"]
        assert f"pass:{folder / 'mta'}" in one["text"]
        assert "mail server" in one["remedy"]
        again = FakeMta(folder / "mta")
        again.start()
        try:
            with screener.connect("127.7.0.9") as client:
                assert client.read() == FROM_MTA
            held(control)
        finally:
            again.close()


def test_resolvers_that_are_away(start: Start, path: Path, settings: Map, dns: FakeDns) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        where = "{}:{}".format(*silent.getsockname())
        lists: Map = {"dnsbl": {"sites": ["bl.test"], "resolvers": [where]}}
        screener = start(settings, lists)
        with connected(path) as control:
            with screener.connect("127.1.0.1"):
                held(control, "resolver")
            assert where in control.ok("status")["conditions"][0]["text"]
            dns.zones = {"bl.test": not_listed()}
            screener.reload(merge(settings, {"dnsbl": {"sites": ["bl.test"], "resolvers": [dns.endpoint]}}))
            with screener.connect("127.1.0.2"):
                held(control)


def test_descriptors_that_have_run_out(start: Start, path: Path, settings: Map, mta: FakeMta, alone: Map) -> None:
    """Known clients on their way to an MTA that does not take them yet hold every descriptor."""
    mta.start(1000, accepting=False)
    screener = start(settings, KNOWN, {"limits": {"post_queue": 1000}}, alone, descriptors=40)
    with connected(path) as control:
        held(control)
        clients: list[Client] = []
        while not screener.lines("accept: Too many open files"):
            clients.append(screener.connect(f"127.7.7.{len(clients) + 1}"))
            assert len(clients) < 100
            time.sleep(0.01)
        clients.append(screener.connect("127.7.7.200"))  # it waits in the kernel
        held(control, "descriptors")
        mta.accept()
        for client in clients:
            assert client.read() == FROM_MTA
        held(control)
