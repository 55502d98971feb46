"""fastscreen cache."""

import io
import json
import time
from typing import Any

import pytest

from commands.conftest import Ask, Server
from commands.fakeserver import Error

NOW = 1763848061.0
STAMPS = {"pregreet": NOW + 3600, "dnsbl": NOW - 60, "pipelining": "new", "bare_newline": "disabled"}
ENTRY = {"address": "192.0.2.1", "passed_until": STAMPS}


@pytest.fixture(autouse=True)
def greenwich(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    monkeypatch.setattr(time, "time", lambda: NOW)


def test_get(server: Server, ask: Ask) -> None:
    daemon = server({"cache.get": ENTRY})
    code, printed, _ = ask("cache", "get", "192.0.2.1")
    assert code == 0
    assert printed.splitlines() == [
        "192.0.2.1",
        "  pregreet          passed, valid until 2025-11-22 22:47:41 (1 h more)",
        "  dnsbl             expired 2025-11-22 21:46:41 (1 min ago)",
        "  pipelining        not passed yet",
        "  bare_newline      disabled",
    ]
    assert json.loads(ask("cache", "get", "192.0.2.1", "--json")[1]) == ENTRY
    assert daemon.asked[0] == {"do": "cache.get", "address": "192.0.2.1"}


def test_get_of_one_that_is_not_there(server: Server, ask: Ask) -> None:
    server({"cache.get": None})
    assert ask("cache", "get", "2001:DB8::1") == (1, "", "2001:db8::1 is not in the cache\n")


def pages(request: dict[str, Any]) -> dict[str, Any]:
    """Three entries, two a page."""
    all_entries = [{**ENTRY, "address": f"192.0.2.{number}"} for number in (1, 2, 3)]
    rest = [entry for entry in all_entries if str(entry["address"]) > request.get("after", "")]
    return {"entries": rest[:2], "more": len(rest) > 2}


def test_list_goes_through_all_pages(server: Server, ask: Ask) -> None:
    daemon = server({"cache.list": pages})
    code, printed, _ = ask("cache", "list", "192.0.2.0/24")
    assert code == 0
    assert printed.splitlines() == [
        f"192.0.2.{number}        1 valid pass, pregreet expires first, in 1 h, 1 expired" for number in (1, 2, 3)
    ]
    assert [(asked["prefix"], asked.get("after", "")) for asked in daemon.asked] == [
        ("192.0.2.0/24", ""),
        ("192.0.2.0/24", "192.0.2.2"),
    ]


def test_what_is_exported_can_be_imported(server: Server, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon = server({"cache.list": pages, "cache.import": lambda request: {"stored": len(request["entries"])}})
    exported = ask("cache", "export")[1]
    assert exported == ask("cache", "list", "--json")[1]
    assert len(exported.splitlines()) == 3
    monkeypatch.setattr("sys.stdin", io.StringIO(exported + "\n"))
    assert ask("cache", "import") == (0, "", "3 of 3 entries stored\n")
    assert daemon.asked[-1]["entries"] == [
        {"address": f"192.0.2.{number}", "passed_until": STAMPS} for number in (1, 2, 3)
    ]


def test_many_are_imported_in_frames_of_their_size(server: Server, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server of the tests refuses a frame of more than 64 KiB."""
    daemon = server({"cache.import": lambda request: {"stored": len(request["entries"])}})
    names = ("pregreet", "dnsbl", "pipelining", "non_smtp_command", "bare_newline")
    one = {"passed_until": dict.fromkeys(names, NOW)}
    lines = [json.dumps({"address": f"2001:db8::{number:x}:ffff:ffff:ffff:ffff", **one}) for number in range(1, 502)]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines)))
    assert ask("cache", "import") == (0, "", "501 of 501 entries stored\n")
    assert [len(asked["entries"]) for asked in daemon.asked] == [200, 200, 101]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "line 2: "),
        ('{"address": "192.0.2.999", "passed_until": {}}', "IPv4 or IPv6 network"),
        ('{"address": "192.0.2.1"}', "passed_until"),
        ('{"address": "192.0.2.1", "passed_until": {"pregreet": "soon"}}', '"new" or "disabled"'),
        ('{"address": "192.0.2.1", "passed_until": {"pregreet": []}}', "got `array`"),
        ('{"address": "\\u001b[2J", "passed_until": {}}', "line 2: "),
        (" " * 5000 + "1", "longer than"),
    ],
)
def test_one_bad_line_and_nothing_is_imported(
    line: str, why: str, server: Server, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = server()
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{json.dumps(ENTRY)}\n{line}\n"))
    code, printed, said = ask("cache", "import")
    assert (code, printed, daemon.asked) == (1, "", [])
    assert said.endswith("; nothing was imported\n")
    assert "line 2: " in said
    assert why in said
    assert said[:-1].isprintable()


@pytest.mark.parametrize(
    ("cluster", "text"),
    [
        (True, "; the cluster's server has the deletion for the other hosts"),
        (False, "; the cluster's server cannot be used now: the other hosts delete when it can be used again"),
        (None, ""),
    ],
)
def test_delete_in_a_cluster(cluster: bool | None, text: str, server: Server, ask: Ask) -> None:
    server({"cache.delete": {"deleted": 1, "cluster": cluster}})
    assert ask("cache", "delete", "192.0.2.7") == (0, f"1 entry deleted{text}\n", "")


def test_delete(server: Server, ask: Ask) -> None:
    daemon = server({"cache.delete": {"deleted": 1234}})
    assert ask("cache", "delete", "192.0.2.0/24")[1] == "1,234 entries deleted\n"
    ask("cache", "delete", "192.0.2.7")
    ask("cache", "delete", "192.0.2.8/32")
    assert daemon.asked == [
        {"do": "cache.delete", "prefix": "192.0.2.0/24"},
        {"do": "cache.delete", "address": "192.0.2.7"},
        {"do": "cache.delete", "address": "192.0.2.8"},
    ]


def test_delete_without_the_right(server: Server, ask: Ask) -> None:
    server({"cache.delete": Error("cache.delete: only root and postfix may")})
    assert ask("cache", "delete", "192.0.2.1") == (1, "", "fastscreen: cache.delete: only root and postfix may\n")


@pytest.mark.parametrize("words", [["get", "nobody"], ["delete", "192.0.2.1/24"], ["delete", ""], ["list", "\x1b"]])
def test_what_is_no_address(words: list[str], ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        ask("cache", *words)
    assert stopped.value.code == 2
    assert "\x1b" not in capsys.readouterr().err


def test_stats(server: Server, ask: Ask) -> None:
    stats = {
        "path": "/var/lib/fastscreen/cache",
        "entries": 55000,
        "size": 9_000_000,
        "map_size": 32_000_000,
        "max_size": 64_000_000,
        "hits": 170,
        "misses": 30,
        "expiring": [{"within": 0.0, "entries": 3}, {"within": 3600.0, "entries": 120}],
    }
    server({"cache.stats": stats})
    assert ask("cache", "stats")[1].splitlines() == [
        "file      /var/lib/fastscreen/cache",
        "entries   55,000",
        "size      9.0 MB of at most 64.0 MB",
        "lookups   200, 85.0 % found",
        "expiry    3 have expired",
        "expiry    120 expire within 1 h",
    ]
    assert json.loads(ask("cache", "stats", "--json")[1]) == stats


def test_export_for_postscreen(server: Server, ask: Ask) -> None:
    """What postscreen cannot store is omitted and counted; the rest keeps every time, and each special value."""
    later = NOW + 3600
    entries = [
        {"address": "192.0.2.1", "passed_until": {**STAMPS, "non_smtp_command": later, "score": later}},
        {"address": "2001:db8::1", "passed_until": {"pregreet": NOW - 1.5, "another_test": later}},
        {"address": "2001:db8::/64", "passed_until": {"pregreet": later}},
        {"address": "192.0.2.2", "passed_until": {"pregreet": "new", "score": later}},
    ]
    server({"cache.list": {"entries": entries, "more": False}})
    code, printed, error = ask("cache", "export", "--format", "postmap")
    assert code == 0
    assert printed.splitlines() == [
        f"192.0.2.1\t{NOW + 3600:.0f};{NOW - 60:.0f};0;{NOW + 3600:.0f};1",
        f"2001:db8::1\t{int(NOW - 1.5)};1;1;1;1",
    ]
    assert error == (
        "2 clients written; 1 network omitted (postscreen stores single addresses only); 1 client omitted (no pass of "
        "a test that postscreen has); 2 passes omitted (postscreen has no test score)\n"
    )
