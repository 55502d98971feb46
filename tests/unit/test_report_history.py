"""The report from recorded sessions: what a session becomes is what the log has of it."""

import re
from collections.abc import Iterable
from typing import Any

import historyfiles
import pytest
from historyfiles import NOON, NUMBER, SETTINGS, deferred, known, listed, row
from msgspec.structs import astuple, replace
from reportlog import come_again, connect, line, tallied
from reportlog import known as known_line
from reportlog import listed as listed_line

from fastscreen.core import history_read
from fastscreen.history.day import COUNT_BITS, Row
from fastscreen.history.session import Session, named
from fastscreen.history.settings import HistorySettings
from fastscreen.report.from_history import UNKNOWN_TOTALS, FromHistory
from fastscreen.report.lines import KIND_NAMES
from fastscreen.report.summary import Summary, summarize
from fastscreen.report.tally import Tally
from fastscreen.report.text import Style, as_text

A = "[192.0.2.1]:1111"
B = "[192.0.2.77]:1111"
SHADOW = replace(SETTINGS, shadow=True)
OTHER = 99


def session(found: Row) -> Session:
    fields = history_read(found[0] >> COUNT_BITS, found[1], found[2])
    assert fields is not None
    return named(fields, SETTINGS)


def from_history(rows: Iterable[Row], **period: float) -> tuple[Summary, FromHistory]:
    settings: dict[int, HistorySettings] = {NUMBER: SETTINGS, OTHER: SHADOW}
    tally = Tally(**period)  # type: ignore[arg-type]
    source = FromHistory(tally, settings.get)
    source.add(session(each) for each in sorted(rows))
    return summarize(tally, host="mx1", period="", failed=source.notes(), missing=UNKNOWN_TOTALS), source


def from_log(lines: Iterable[bytes], **period: float) -> Summary:
    return summarize(tallied(lines, **period), host="mx1", period="")


def agree(rows: Iterable[Row], lines: Iterable[bytes], **period: float) -> Summary:
    """Every total of both reports is the same; return that of the history."""
    found, _ = from_history(rows, **period)
    logged = from_log(lines, **period)
    unknown = {KIND_NAMES[kind] for kind in UNKNOWN_TOTALS}
    assert {kind: count for kind, count in found.totals.items() if count} == {
        kind: count for kind, count in logged.totals.items() if count and kind not in unknown
    }
    assert found.outcomes == {name: count for name, count in logged.outcomes.items() if name != "continue failed"}
    for field in (
        "refusals", "in_spite", "hours", "days", "ranks", "evidence", "lists", "clients", "networks",
        "top_networks", "away", "suspects", "suspect_counts", "reject_codes", "shadow",
    ):  # fmt: skip
        assert getattr(found, field) == getattr(logged, field), field
    return found


def rcpt(second: int, reply: str, client: str = A) -> bytes:
    envelope = "from=<>, to=<b@example.net>, proto=ESMTP, helo=<mail>"
    return line(second, f"NOQUEUE: reject: RCPT from {client}: {reply}; {envelope}")


def bye(second: int, client: str = A) -> bytes:
    return line(second, f"DISCONNECT {client}")


def test_known_clients() -> None:
    agree([known(0.0004), known(60.0004, "192.0.2.77")], [known_line(0), known_line(60, B)])


def test_came_back() -> None:
    """From the same address, from another one, or not at all."""
    rows = [deferred(7), known(607, lasted=0), deferred(700), known(760, "192.0.2.77", lasted=0)]
    rows += [deferred(807, "198.51.100.9", recipients=2)]
    lines = [come_again(0).replace(b"from=<a@example.com>", b"from=<>"), known_line(607)]
    lines += [come_again(693).replace(b"from=<a@example.com>", b"from=<>"), known_line(760, B)]
    client = "[198.51.100.9]:1111"
    lines += [come_again(800, client).replace(b"from=<a@example.com>", b"from=<>"), rcpt(807, "450 4.3.2 x", client)]
    lines[-2:] = [
        connect(800, client), rcpt(807, "450 4.3.2 x", client), rcpt(807, "450 4.3.2 x", client),
        line(807, f"PASS NEW {client}"), bye(807, client),
    ]  # fmt: skip
    found = agree(rows, lines)
    assert (found.away.times, found.away.back, found.away.neighbour, found.away.never) == (3, 1, 1, 1)


def test_sessions_that_overlap() -> None:
    """The one that begins first ends last: lines come in the order of time, not of the ends."""
    rows = [deferred(7), known(20, lasted=0), deferred(30, "192.0.2.77", lasted=29_000_000)]
    lines = [connect(0), connect(1, B)]
    lines += [rcpt(7, "450 4.3.2 x"), line(7, f"PASS NEW {A}"), bye(7), known_line(20)]
    lines += [rcpt(30, "450 4.3.2 x", B), line(30, f"PASS NEW {B}"), bye(30, B)]
    agree(rows, lines)


def test_listed() -> None:
    rows = [listed(7, lists=3, score=5), listed(100, "192.0.2.77", lasted=7_000_000)]
    both = ("zen.example as 127.0.0.2", "bl.example as 127.0.0.2")
    lines = [listed_line(0, *both, rank=5).replace(bye(6), b""), rcpt(7, "550 5.7.1 x"), bye(7)]
    lines += [
        listed_line(93, both[0], client=B, rank=3).replace(bye(99, B), b""),
        rcpt(100, "550 5.7.1 x", B),
        bye(100, B),
    ]
    found = agree(rows, lines)
    assert found.ranks == {"3": 1, "5": 1}


def test_two_sessions_share_a_lookup() -> None:
    """The lists are asked, and their answers logged, once for sessions in the greet wait at the same time."""
    rows = [listed(7), listed(8, client_port=2222, lasted=7_000_000), listed(100)]
    second = "[192.0.2.1]:2222"
    lines = [
        connect(0),
        connect(1, second),
        line(1, "addr 192.0.2.1 listed by domain zen.example as 127.0.0.2", "dnsblog"),
    ]
    for at, client in ((6, A), (7, second)):
        lines += [line(at, f"DNSBL rank 3 for {client}"), rcpt(at + 1, "550 5.7.1 x", client), bye(at + 1, client)]
    lines += [listed_line(93, "zen.example as 127.0.0.2", rank=3).replace(bye(99), b""), rcpt(100, "550 x"), bye(100)]
    agree(rows, lines)


@pytest.mark.parametrize(
    ("fields", "texts"),
    [
        ({"outcome": "handed_off", "marks": ("allowlisted",)}, [f"ALLOWLISTED {A}"]),
        ({"outcome": "handed_off", "marks": ("bypassed",)}, [f"BYPASSED {A}"]),
        ({"outcome": "rejected", "marks": ("denylisted",), "verdict": 521}, [f"DENYLISTED {A}", f"DISCONNECT {A}"]),
        ({"outcome": "busy", "marks": ("client_limit",), "verdict": 421},
         [f"NOQUEUE: reject: CONNECT from {A}: too many connections", f"DISCONNECT {A}"]),
        ({"outcome": "busy", "marks": ("server_ports",), "verdict": 421},
         [f"NOQUEUE: reject: CONNECT from {A}: all server ports busy", f"DISCONNECT {A}"]),
        ({"outcome": "busy", "marks": ("rate_limit",), "verdict": 421},
         [f"NOQUEUE: reject: CONNECT from {A}: connection rate limit exceeded", f"DISCONNECT {A}"]),
        ({"outcome": "busy", "marks": ("screening_ports",), "verdict": 421},
         [f"reject: connect from {A}: all screening ports busy", f"DISCONNECT {A}"]),
        ({"outcome": "left", "marks": ("hung_up",)},
         [f"HANGUP after 1 from {A} in tests before SMTP handshake", f"DISCONNECT {A}"]),
        ({"outcome": "left", "marks": ("passed", "new"), "reply": 221}, [f"PASS NEW {A}", f"DISCONNECT {A}"]),
        ({"outcome": "left", "marks": ("passed",), "reply": 221}, [f"PASS OLD {A}", f"DISCONNECT {A}"]),
        ({"outcome": "left", "marks": ("time_limit",), "reply": 421},
         [f"COMMAND TIME LIMIT from {A} after EHLO", f"DISCONNECT {A}"]),
        ({"outcome": "left", "marks": ("count_limit",), "reply": 421},
         [f"COMMAND COUNT LIMIT from {A} after EHLO", f"DISCONNECT {A}"]),
        ({"outcome": "left", "marks": ("length_limit",), "reply": 421},
         [f"COMMAND LENGTH LIMIT from {A} after EHLO", f"DISCONNECT {A}"]),
        ({"outcome": "rejected", "found": ("pregreet",), "failed": ("pregreet",), "verdict": 521},
         [f"PREGREET 9 after 0.1 from {A}: EHLO x", f"DISCONNECT {A}"]),
        ({"outcome": "handed_off", "found": ("pregreet",), "marks": ("passed", "new")},
         [f"PREGREET 9 after 0.1 from {A}: EHLO x", f"PASS NEW {A}"]),
        ({"outcome": "rejected", "found": ("pregreet", "bare_newline"), "verdict": 550, "recipients": 1},
         [f"PREGREET 9 after 0.1 from {A}: EHLO x", f"BARE NEWLINE from {A} after NOOP",
          f"NOQUEUE: reject: RCPT from {A}: 550 5.5.1 x; from=<>, to=<b>, proto=ESMTP, helo=<c>", f"DISCONNECT {A}"]),
        ({"outcome": "rejected", "found": ("non_smtp_command",), "verdict": 521, "recipients": 1},
         [f"NON-SMTP COMMAND from {A} after CONNECT: GET /", f"DISCONNECT {A}"]),
        ({"outcome": "rejected", "found": ("pipelining",), "verdict": 521},
         [f"COMMAND PIPELINING from {A} after MAIL: x", f"DISCONNECT {A}"]),
        ({"outcome": "deferred", "marks": ("vetoed", "passed", "new"), "verdict": 450, "recipients": 1},
         [f"ALLOWLIST VETO {A}", f"NOQUEUE: reject: RCPT from {A}: 450 4.3.2 x; from=<>, to=<b>, proto=E, helo=<c>",
          f"PASS NEW {A}", f"DISCONNECT {A}"]),
        ({"outcome": "continued", "stage": "relay", "marks": ("passed", "new"), "recipients": 2, "mta_reply": 250},
         [f"PASS NEW {A}", f"CONTINUE from {A} to 127.0.0.1:10025: 250 2.1.5 Ok"]),
        ({"outcome": "continued", "marks": ("passed", "new"), "recipients": 1, "mta_reply": 550},
         [f"PASS NEW {A}", f"CONTINUE from {A} to 127.0.0.1:10025: MAIL refused: 550 x", f"DISCONNECT {A}"]),
        ({"outcome": "failed", "marks": ("cached", "passed"), "stage": "handoff", "verdict": 421}, [f"PASS OLD {A}"]),
        ({"outcome": "failed", "marks": ("passed", "new"), "stage": "dialogue", "verdict": 421},
         [f"PASS NEW {A}", f"DISCONNECT {A}"]),
        ({"outcome": "handed_off", "marks": ("shared", "cached", "passed")}, [f"PASS OLD {A}"]),
        ({"outcome": "rejected", "found": ("score",), "evidence": ("helo_address",), "score": 5, "lists_total": 3,
          "lists_highest": 3, "verdict": 550, "recipients": 1},
         [f"SCORE from {A}: helo_address +2: 192.0.2.1", f"SCORE rank 5 for {A}: dnsbl 3, helo_address 2",
          f"NOQUEUE: reject: RCPT from {A}: 550 5.7.1 x; from=<>, to=<b>, proto=E, helo=<c>", f"DISCONNECT {A}"]),
        ({"outcome": "deferred", "found": ("dnsbl",), "marks": ("unsure",), "score": 2, "lists_total": 2,
          "lists_highest": 5, "verdict": 450, "recipients": 1},
         [f"DNSBL UNSURE rank 5 for {A}",
          f"NOQUEUE: reject: RCPT from {A}: 450 4.7.1 x; from=<>, to=<b>, proto=E, helo=<c>", f"DISCONNECT {A}"]),
    ],
)  # fmt: skip
def test_each_way_to_end(fields: dict[str, Any], texts: list[str]) -> None:
    """A session of a second, and another one long after it."""
    lines = [connect(0), *(line(1, text) for text in texts), known_line(9000, B)]
    agree([row(1, **fields), known(9000, "192.0.2.77", lasted=0)], lines)


def test_shadow_mode() -> None:
    rows = [
        listed(7, settings=OTHER, outcome="handed_off", stage="handoff", recipients=0, failed=(), spared=550,
               marks=("spared", "lists_judged")),
        row(20, "192.0.2.77", settings=OTHER, outcome="handed_off", found=("pregreet",), spared=521,
            marks=("spared", "denylisted", "client_limit", "vetoed")),
        row(30, "198.51.100.9", settings=OTHER, outcome="left", found=("pregreet",), marks=("spared", "hung_up")),
    ]  # fmt: skip
    shadow = "SHADOW from %s: would have replied: %s"
    other = "[198.51.100.9]:1111"
    lines = [connect(0), line(1, "addr 192.0.2.1 listed by domain zen.example as 127.0.0.2", "dnsblog")]
    lines += [
        line(7, f"DNSBL rank 3 for {A}"),
        line(7, shadow % (A, "550 5.7.1 x; client [192.0.2.1] blocked using zen")),
    ]
    lines += [connect(19, B), line(19, f"NOQUEUE: reject: CONNECT from {B}: too many connections")]
    lines += [line(19, shadow % (B, "421 4.7.0 x too many connections")), line(19, f"DENYLISTED {B}")]
    lines += [
        line(19, shadow % (B, "521 5.3.2 x")),
        line(19, f"ALLOWLIST VETO {B}"),
        line(19, shadow % (B, "450 4.3.2 x")),
    ]
    lines += [line(20, f"PREGREET 9 after 0.1 from {B}: x"), line(20, shadow % (B, "550 5.5.1 Protocol error"))]
    lines += [connect(29, other), line(30, f"PREGREET 9 after 0.1 from {other}: x")]
    lines += [line(30, shadow % (other, "550 5.5.1 Protocol error"))]
    lines += [line(30, f"HANGUP after 1 from {other} in tests before SMTP handshake"), bye(30, other)]
    lines += [known_line(9000, "[203.0.113.1]:1")]
    found = agree([*rows, known(9000, "203.0.113.1", lasted=0)], lines)
    assert {each.test: (each.times, each.handed) for each in found.shadow}["pregreet"] == (2, 1)


def test_relayed_sessions_count_when_they_begin() -> None:
    """They end hours later; meanwhile the client comes again."""
    rows = [
        row(7200, outcome="relayed", stage="relay", marks=("cached", "passed"), lasted=7_200_000_000),
        row(7300, "192.0.2.77", outcome="continued", stage="relay", marks=("new", "passed"), lasted=7_290_000_000),
        known(60, client_port=5, lasted=0),
    ]
    lines = [known_line(0), connect(10, B), line(17, f"PASS NEW {B}"), line(17, f"CONTINUE from {B} to x: 250 ok")]
    lines.append(known_line(60, "[192.0.2.1]:5"))
    agree(rows, lines)
    found = agree(rows, lines, since=NOON, until=NOON + 3600)
    assert (found.totals["pass_new"], found.totals["continue"], found.outcomes["handed"]) == (1, 1, 3)


def test_continued_after_the_tests_that_were_due() -> None:
    """The log says PASS OLD, as for a known client, but seconds after the connection."""
    rows = [
        row(700, outcome="continued", stage="relay", marks=("passed",), made=("pregreet", "dnsbl"), lasted=700_000_000)
    ]
    lines = [connect(0), line(7, f"PASS OLD {A}"), line(7, f"CONTINUE from {A} to x: 250 ok")]
    found = agree(rows, lines)
    assert (found.outcomes["continued"], found.outcomes["handed"]) == (1, 1)


def test_a_period() -> None:
    """A session that began before it, one that ends after it, and others outside."""
    rows = [
        known(-4000, "198.51.100.9"),
        listed(3),
        deferred(3602, "192.0.2.77"),
        known(9000, "198.51.100.9", lasted=0),
    ]
    lines = [known_line(-4000, "[198.51.100.9]:1111"), connect(-4), rcpt(3, "550 5.7.1 x")]
    lines[2:2] = [
        line(3, "addr 192.0.2.1 listed by domain zen.example as 127.0.0.2", "dnsblog"),
        line(3, f"DNSBL rank 3 for {A}"),
    ]
    lines += [bye(3), connect(3595, B), rcpt(3602, "450 4.3.2 x", B), line(3602, f"PASS NEW {B}"), bye(3602, B)]
    period = {"since": NOON, "until": NOON + 3600}
    found, _ = from_history(rows, **period)
    logged = from_log(lines, **period)
    assert {kind: count for kind, count in found.totals.items() if count} == {
        kind: count for kind, count in logged.totals.items() if count
    }
    assert (found.totals["connect"], found.totals["disconnect"]) == (1, 1)
    del logged.outcomes["continue failed"]
    assert found.outcomes == logged.outcomes
    assert "in totals only: 1 session that began before the period" in found.notes


def test_samples() -> None:
    found, source = from_history([known(0, weight=10), known(60)])
    assert (found.totals["connect"], found.totals["pass_old"], found.outcomes["handed"]) == (11, 11, 11)
    assert (found.clients, found.lines, source.sampled) == (1, 11, 10)
    assert "estimated from a sample: 10 sessions of known clients" in found.notes


def test_what_is_not_known_is_left_out_and_named() -> None:
    found, _ = from_history([deferred(7)])
    assert found.source == "history"
    assert not {KIND_NAMES[kind] for kind in UNKNOWN_TOTALS} & set(found.totals)
    text = as_text(found, Style())
    for missing in ("Senders of rejected", "Warnings", "Sent before the greeting", "another network"):
        assert missing not in text.partition("\nNotes\n")[0]
    assert "sessions from Nov 22" in text and "log lines" not in text
    assert "  450 (total: 1)" in text
    for named_there in ("senders, recipients", "what clients sent", "have not ended", "warnings, stress mode"):
        assert named_there in text.partition("\nNotes\n")[2]


def test_several_tests_of_the_dialogue_failed() -> None:
    _, source = from_history([row(1, outcome="rejected", found=("pipelining", "bare_newline"), verdict=550)])
    assert source.several == 1
    assert any("1 sessions" in note or "1 session" in note for note in source.notes())


def test_sessions_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only those of the last quarter of an hour wait to be counted."""
    waiting = 0

    def each() -> Iterable[Session]:
        nonlocal waiting
        for at in range(0, 36_000, 10):
            waiting += 1
            yield session(known(at))

    tally = Tally()
    source = FromHistory(tally, historyfiles_settings)
    most = 0
    count = source._count

    def counted(entry: Any) -> None:
        nonlocal most, waiting
        most = max(most, waiting)
        waiting -= entry[3]
        count(entry)

    monkeypatch.setattr(source, "_count", counted)
    source.add(each())
    assert most < 200


def historyfiles_settings(number: int) -> HistorySettings | None:
    return {historyfiles.NUMBER: SETTINGS}.get(number)


def test_responses_to_a_score() -> None:
    later: dict[str, Any] = {"outcome": "deferred", "verdict": 450, "recipients": 1}
    rows = [
        row(1, marks=("new", "passed", "score_deferred", "slowed"), **later),
        row(1001, outcome="continued", stage="relay", marks=("passed", "doubtful"), verdict=250, recipients=1),
    ]
    lines = [connect(0), line(1, f"SLOWED from {A}: score 2"), line(1, f"DEFERRED from {A}: score 2: no_tls 2")]
    lines += [line(1, f"NOQUEUE: reject: RCPT from {A}: 450 4.3.2 x; from=<>, to=<b>, proto=E, helo=<c>")]
    lines += [line(1, f"PASS NEW {A}"), line(1, f"DISCONNECT {A}"), connect(1000)]
    lines += [line(1001, f"DOUBTFUL from {A} to 127.0.0.1:26: score 2"), line(1001, f"PASS OLD {A}")]
    lines += [line(1001, f"CONTINUE from {A} to 127.0.0.1:26: 250 2.1.5 Ok")]
    found = agree(rows, lines)
    assert {key: found.totals[key] for key in ("score_deferred", "doubtful", "slowed")} == {
        "score_deferred": 1, "doubtful": 1, "slowed": 1
    }  # fmt: skip
    text = as_text(found, Style())
    for what in ("deferred once because of their score", "passed to the MTA for doubtful clients", "got slow replies"):
        assert re.search(rf"\n +1   {what}", text)


def test_evidence_by_scorer() -> None:
    """Sessions, clients, and sessions that failed the score test."""
    failing: dict[str, Any] = {"outcome": "rejected", "found": ("score",), "verdict": 550, "recipients": 1,
                               "lists_total": 3, "lists_highest": 3}  # fmt: skip
    rows = [
        row(1, evidence=("helo_address", "seen_network"), score=5, **failing),
        row(1001, evidence=("seen_network",), outcome="left"),
        row(2001, "192.0.2.77", evidence=("seen_network",), outcome="left"),
        known(9000, "192.0.2.77", lasted=0),
    ]
    rejected = f"NOQUEUE: reject: RCPT from {A}: 550 5.7.1 x; from=<>, to=<b>, proto=E, helo=<c>"
    seen = f"SCORE from {A}: seen_network +2: 192.0.2.0/24: 7 of 9 addresses bad in 28 days"
    lines = [connect(0), line(1, seen), line(1, f"SCORE from {A}: helo_address +2: x")]
    lines += [line(1, f"SCORE rank 5 for {A}: dnsbl 3, helo_address 2"), line(1, rejected), line(1, f"DISCONNECT {A}")]
    lines += [connect(1000), line(1001, seen), line(1001, f"DISCONNECT {A}")]
    lines += [connect(2000, B), line(2001, seen.replace(A, B)), line(2001, f"DISCONNECT {B}"), known_line(9000, B)]
    found = agree(rows, lines)
    assert [astuple(each) for each in found.evidence] == [
        ("seen_network", 3, 2, 0), ("helo_address", 1, 1, 1)
    ]  # fmt: skip
