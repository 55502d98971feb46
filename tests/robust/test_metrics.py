"""/metrics of a real fastscreen: the values, and hostile scrapers."""

import json
import re
import socket
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from bench.ports import free_port
from robust.conftest import Start
from robust.fakedns import FakeDns, listed
from robust.harness import ADDRESS, Screener, wait_until

BOARD = Path(__file__).resolve().parents[2] / "contrib/grafana.json"
Samples = dict[tuple[str, str], float]


@pytest.fixture
def place(folder: Path) -> str:
    return str(folder / "run" / "metrics")


def ask(place: str, request: bytes = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n") -> bytes:
    """All that comes until the end. place: a path, or [IP]:PORT."""
    got = b""
    tcp = place.startswith("[")
    with socket.socket(socket.AF_INET6 if tcp else socket.AF_UNIX) as scraper:
        scraper.settimeout(20)
        host, _, port = place[1:].rpartition("]:")
        scraper.connect((host, int(port)) if tcp else place)
        scraper.sendall(request)
        while more := scraper.recv(65536):
            got += more
    return got


def scraped(place: str) -> str:
    head, _, body = ask(place).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 200 OK\r\n"), head
    assert f"Content-Length: {len(body)}".encode() in head
    return body.decode()


def samples(text: str) -> Samples:
    """By name and the value of the first label but `worker`, if there is one; of all workers together."""
    seen = set()
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for one in family.samples:
            series = (one.name, *sorted(one.labels.items()))
            assert series not in seen
            seen.add(series)
            key = (one.name, next((value for label, value in one.labels.items() if label != "worker"), ""))
            found[key] = found.get(key, 0.0) + one.value
    return found


def there(place: str) -> bool:
    """The daemon's start does not wait for the control server."""
    try:
        return ask(place).startswith(b"HTTP/1.0 200")
    except OSError:
        return False


def begin(start: Start, place: str, *settings: dict[str, Any]) -> Screener:
    screener = start({"metrics": {"listen": f"unix:{place}"}}, *settings)
    wait_until(lambda: there(place), "metrics")
    return screener


def cluster_without_server(folder: Path) -> dict[str, Any]:
    """Settings with which there are the cluster's metrics."""
    secret = folder / "secret"
    secret.write_text("a secret of the cluster's hosts\n")
    return {"cluster": {"server": "redis://127.0.0.1:1", "secret_file": str(secret), "name": "mx1"}}


def talk(screener: Screener, early: bytes = b"", source: str = "127.0.0.1") -> None:
    """One client, until it is hung up on or the greeting is over."""
    with socket.create_connection(screener.address, 20, (source, 0)) as client:
        client.sendall(early)
        client.settimeout(20)
        got = b""
        while b"\r\n" not in got.partition(b"\r\n")[2]:
            more = client.recv(4096)
            if not more:
                return
            got += more


@pytest.mark.parametrize("workers", [1, 2])
def test_what_happens_is_counted(start: Start, place: str, dns: FakeDns, workers: int) -> None:
    dns.zones = {"bl.test": listed("127.0.0.2")}
    lists = {"sites": ["bl.test*7"], "threshold": 3, "action": "drop", "resolvers": [dns.endpoint]}
    screener = begin(
        start, place, {"listen": {"addresses": [f"{ADDRESS}:0"], "workers": workers}},
        {"dnsbl": lists, "access": {"list": ["inline:{{127.0.0.9=reject}}"], "denylist_action": "drop"}},
    )  # fmt: skip
    talk(screener, b"EHLO early\r\n", "127.0.0.7")
    talk(screener, source="127.0.0.8")
    talk(screener, source="127.0.0.9")
    wanted = {
        ("fastscreen_connects_total", ""): 3,
        ("fastscreen_tests_failed_total", "pregreet"): 1,
        ("fastscreen_access_list_matches_total", "deny"): 1,
        ("fastscreen_dnsbl_listed_total", "bl.test"): 2,
        ("fastscreen_dnsbl_rank_sum", ""): 14,
        ("fastscreen_dnsbl_rank_count", ""): 2,
        ("fastscreen_dnsbl_rank_bucket", "6.0"): 0,
        ("fastscreen_dnsbl_rank_bucket", "8.0"): 2,
        ("fastscreen_workers", ""): workers,
    }
    found: list[Samples] = [{}]

    def right() -> bool:
        found[0] = samples(scraped(place))
        return wanted.items() <= found[0].items()

    wait_until(right, lambda: str({key: found[0].get(key) for key in wanted}))


def test_lists_of_one_name(start: Start, place: str, dns: FakeDns) -> None:
    """As Postfix's own example of a reply map makes of many lists one: no series is there twice, nothing is lost."""
    dns.zones = {"a.test": listed("127.0.0.2"), "b.test": listed("127.0.0.2")}
    lists = {"sites": ["a.test", "b.test", "c.test"], "threshold": 9, "resolvers": [dns.endpoint]}
    lists["reply_map"] = 'inline:{{a.test=lists "of" \\ours}, {b.test=lists "of" \\ours}}'
    screener = begin(start, place, {"dnsbl": lists})
    talk(screener)
    name = 'lists "of" \\ours'

    def counted() -> bool:
        found = samples(scraped(place))
        assert found["fastscreen_dnsbl_up", name] == found["fastscreen_dnsbl_in_score", name] == 1
        return (
            found["fastscreen_dnsbl_listed_total", name] == 2 and found["fastscreen_dnsbl_queries_total", "c.test"] == 1
        )

    wait_until(counted, lambda: scraped(place))


def test_the_board_names_only_what_is_there(start: Start, place: str, folder: Path, dns: FakeDns) -> None:
    dns.zones = {"bl.test": listed("127.0.0.2")}
    lists = {"sites": ["bl.test*1"], "threshold": 3, "resolvers": [dns.endpoint]}
    stored = {"cache": {"path": str(folder / "cache")}, "score": {"memory": str(folder / "offenses")}}
    screener = begin(start, place, {"dnsbl": lists}, stored, cluster_without_server(folder))
    talk(screener)
    named = set(re.findall(r"fastscreen_\w+", json.dumps(json.loads(BOARD.read_text()))))
    assert len(named) > 20

    def all_there() -> bool:
        return named <= {name for name, _ in samples(scraped(place))}

    wait_until(all_there, lambda: str(named - {name for name, _ in samples(scraped(place))}))


def test_idle_scrapers_keep_out_nobody_and_hold_no_mail_up(start: Start, place: str) -> None:
    """New connections replace them."""
    screener = begin(start, place)
    held = []
    for _ in range(12):
        idle = socket.socket(socket.AF_UNIX)
        idle.settimeout(20)
        idle.connect(place)
        held.append(idle)
    assert scraped(place)
    talk(screener)
    for idle in held[:5]:  # twelve and one, for eight places
        assert hung_up_on(idle)
    for idle in held:
        idle.close()


def hung_up_on(scraper: socket.socket) -> bool:
    try:
        return scraper.recv(1) == b""
    except ConnectionResetError:
        return True


def test_over_tcp_where_another_listens(start: Start) -> None:
    """A port that is taken is a warning: mail does not depend on it."""
    with socket.socket() as taken:
        taken.bind((ADDRESS, 0))
        taken.listen()
        port = taken.getsockname()[1]
        screener = start({"metrics": {"listen": f"{ADDRESS}:{port}"}})
        assert "no metrics" in screener.line(" metrics.listen: ")
        talk(screener)


def test_over_tcp(start: Start) -> None:
    place = f"[::1]:{free_port('::1')}"
    screener = start({"metrics": {"listen": place}})
    talk(screener)
    wait_until(lambda: there(place), "metrics")
    assert samples(scraped(place))["fastscreen_connects_total", ""] == 1
