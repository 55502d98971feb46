"""What became of clients and sessions."""

import pytest
from reportlog import A, come_again, connect, known, line, listed, tallied

from fastscreen.report.summary import Summary, summarize
from fastscreen.report.tally import Tally

NEIGHBOUR = "[192.0.2.77]:2222"
OTHER_NETWORK = "[198.51.100.9]:3333"
HOURS = 3600


def summary(*lines: bytes) -> Summary:
    return summarize(tallied(lines), host="mx1", period="")


def outcomes(*lines: bytes) -> dict[str, int]:
    return {name: count for name, count in summary(*lines).outcomes.items() if count}


def test_handed_on() -> None:
    assert outcomes(known(0)) == {"handed": 1}
    assert outcomes(connect(0), line(0, f"ALLOWLISTED {A}")) == {"handed": 1}
    assert outcomes(connect(0), line(0, f"BYPASSED {A}")) == {"handed": 1}
    assert outcomes(connect(0), line(6, f"PASS NEW {A}")) == {"handed": 1}


def test_without_a_disconnect_a_session_was_handed_on_once_it_cannot_be_in_the_tests_any_more() -> None:
    """With concurrent sessions or an ignored test there is not always a PASS line."""
    assert outcomes(connect(0)) == {"open": 1}
    assert outcomes(connect(0), line(2 * HOURS + 1, "warning: x")) == {"handed": 1}
    assert outcomes(connect(0), known(3 * HOURS, OTHER_NETWORK)) == {"handed": 2}
    assert outcomes(connect(0), connect(60), line(61, f"DISCONNECT {A}"), known(700)) == {"handed": 2, "left": 1}


def test_a_known_client_whose_tests_were_due_again() -> None:
    """It is deferred like a new client, but its PASS line says OLD."""
    texts = (line.replace(b"PASS NEW", b"PASS OLD") for line in come_again(0).splitlines(keepends=True))
    found = summary(*texts, known(67))
    assert {name: count for name, count in found.outcomes.items() if count} == {"away": 1, "handed": 1}
    assert (found.away.times, found.away.back) == (1, 1)
    assert outcomes(connect(0), line(6, f"PASS OLD {A}")) == {"handed": 1}
    assert outcomes(connect(0), line(8, f"PASS OLD {A}"), line(9, f"DISCONNECT {A}")) == {"left": 1}


def test_the_mta_did_not_take_it() -> None:
    assert outcomes(known(0), line(10, f"DISCONNECT {A}")) == {"not taken": 1}


def test_turned_away() -> None:
    away = line(9, f"DISCONNECT {A}")
    assert outcomes(come_again(0)) == {"away": 1}
    assert outcomes(connect(0), line(2, f"HANGUP after 2 from {A} in tests before SMTP handshake"), away) == {
        "hung up": 1
    }
    assert outcomes(connect(0), line(8, f"PASS NEW {A}"), away) == {"left": 1}
    for text, test in (
        (f"DENYLISTED {A}", "denylist"),
        (f"PREGREET 9 after 0.1 from {A}: EHLO x", "pregreet"),
        (f"DNSBL rank 9 for {A}", "dnsbl"),
        (f"DNSBL UNSURE rank 9 for {A}", "dnsbl"),
        (f"COMMAND PIPELINING from {A} after MAIL: x", "pipelining"),
        (f"NON-SMTP COMMAND from {A} after CONNECT: GET /", "non-SMTP command"),
        (f"BARE NEWLINE from {A} after NOOP", "bare newline"),
        (f"COMMAND TIME LIMIT from {A} after EHLO", "command time limit"),
        (f"NOQUEUE: reject: CONNECT from {A}: too many connections", "connections"),
        (f"reject: connect from {A}: all screening ports busy", "server busy"),
        (f"NOQUEUE: reject: CONNECT from {A}: connection rate limit exceeded", "connections"),
    ):
        found = summary(connect(0), line(1, text), away)
        assert (found.outcomes["refused"], found.refusals) == (1, {test: 1})


def test_a_limit_does_not_hide_the_test_that_was_failed() -> None:
    lines = [
        connect(0),
        line(1, f"PREGREET 9 after 1 from {A}: EHLO x"),
        line(300, f"COMMAND TIME LIMIT from {A} after EHLO"),
    ]
    assert summary(*lines, line(300, f"DISCONNECT {A}")).refusals == {"pregreet": 1}


def test_softened_replies_of_a_test_are_that_test_s() -> None:
    reject = line(
        8, f"NOQUEUE: reject: RCPT from {A}: 450 5.7.1 Service unavailable; client [192.0.2.1] blocked using zen"
    )
    found = summary(connect(0), line(6, f"DNSBL rank 9 for {A}"), reject, line(9, f"DISCONNECT {A}"))
    assert (found.refusals, found.away.times) == ({"dnsbl": 1}, 0)


def test_a_test_that_is_ignored() -> None:
    found = summary(connect(0), line(1, f"PREGREET 9 after 1 from {A}: EHLO x"), known(3 * HOURS, OTHER_NETWORK))
    assert (found.outcomes["handed"], found.refusals, found.in_spite) == (2, {}, {"pregreet": 1})


def test_continued() -> None:
    lines = [connect(0), line(7, f"PASS NEW {A}"), line(7, f"CONTINUE from {A} to 127.0.0.1:10025: 250 2.1.5 Ok")]
    assert outcomes(*lines) == {"handed": 1, "continued": 1}
    lines[2] = line(7, f"CONTINUE from {A} failed: timed out")
    assert outcomes(*lines, come_again(7)[len(connect(7)) :]) == {"away": 1, "continue failed": 1}


def test_came_again_from_the_same_address() -> None:
    away = summary(come_again(0), known(607)).away
    assert (away.times, away.back, away.neighbour, away.never, away.median) == (1, 1, 0, 0, 600)
    assert {span.name: span.count for span in away.delays if span.count} == {"5–30 min": 1}
    assert (away.networks[0].name, away.networks[0].away, away.networks[0].back) == ("192.0.2.0/24", 1, 1)


def test_came_from_another_address_of_the_network_only() -> None:
    away = summary(come_again(0), known(67, NEIGHBOUR), known(80, "[192.0.2.78]:1"), known(90, OTHER_NETWORK)).away
    assert (away.times, away.back, away.neighbour, away.never) == (1, 0, 1, 0)
    assert {span.name: span.count for span in away.neighbour_delays if span.count} == {"1–5 min": 1}


def test_the_same_address_counts_more_than_a_neighbour_before_it() -> None:
    away = summary(come_again(0), known(67, NEIGHBOUR), known(607)).away
    assert (away.back, away.neighbour, away.never) == (1, 0, 0)


def test_a_pool_that_is_turned_away_again_and_again() -> None:
    away = summary(come_again(0), come_again(1000, NEIGHBOUR), come_again(2000, "[192.0.2.78]:1")).away
    assert (away.times, away.back, away.neighbour, away.never) == (3, 0, 2, 1)


def same_mail(second: int, client: str, sender: str) -> bytes:
    return come_again(second, client).replace(b"<a@example.com>", f"<{sender}>".encode())


def test_the_same_mail_came_from_another_network() -> None:
    away = summary(
        same_mail(0, A, "x@y"), same_mail(600, OTHER_NETWORK, "x@y"), same_mail(601, "[203.0.113.1]:1", "q@y")
    ).away
    assert (away.times, away.back, away.neighbour, away.elsewhere, away.never) == (3, 0, 0, 1, 2)
    assert {span.name: span.count for span in away.elsewhere_delays if span.count} == {"5–30 min": 1}
    assert [(each.client, each.by, each.after) for each in away.instead] == [("192.0.2.1", "198.51.100.9", 600)]


def test_its_own_network_counts_more_than_another() -> None:
    away = summary(same_mail(0, A, "x@y"), same_mail(600, OTHER_NETWORK, "x@y"), known(700, NEIGHBOUR)).away
    assert (away.neighbour, away.elsewhere) == (1, 0)
    assert [(each.client, each.by, each.after) for each in away.instead] == [("192.0.2.1", "192.0.2.77", 693)]


def test_bounces_are_not_taken_for_the_same_mail() -> None:
    away = summary(same_mail(0, A, ""), same_mail(600, OTHER_NETWORK, "")).away
    assert (away.elsewhere, away.never) == (0, 2)


def test_pairs_of_sender_and_recipient_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastscreen.report.tally.MAILS", 1)
    found = summary(same_mail(0, A, "x@y"), same_mail(9, "[203.0.113.1]:1", "q@y"), same_mail(99, OTHER_NETWORK, "q@y"))
    assert found.away.elsewhere == 0
    assert any("pairs of sender and recipient that were deferred: 2 not listed" in note for note in found.notes)


def test_a_clock_that_is_put_back() -> None:
    """When summer time ends, an hour's stamps come twice."""
    away = summary(come_again(3600), known(1800), come_again(7200, OTHER_NETWORK), known(7000, "[198.51.100.8]:1")).away
    assert (away.back, away.median, away.neighbour) == (1, 0, 1)


def test_never_came_again() -> None:
    other = same_mail(5 * HOURS, OTHER_NETWORK, "another@sender")
    away = summary(come_again(0), other, known(5 * HOURS + 60, "[203.0.113.1]:1")).away
    assert (away.times, away.never, away.recent, away.lost) == (2, 2, 1, ("192.0.2.1", "198.51.100.9"))


def test_several_refused_recipients_are_one_time() -> None:
    reject = come_again(0).splitlines(keepends=True)[1]
    assert summary(connect(0), reject, reject, reject).away.times == 1


def test_networks_of_ipv6_are_64_bits() -> None:
    away = summary(
        come_again(0, "[2001:db8::1]:1"), known(60, "[2001:db8::f:1]:2"), known(60, "[2001:db8:0:1::1]:2")
    ).away
    assert (away.neighbour, away.networks[0].name) == (1, "2001:db8::/64")


def test_lists_unique_hits_and_overlap() -> None:
    lines = [
        listed(0, "zen.example as 127.0.0.2", "zen.example as 127.0.0.4", "bl2.example as 127.0.0.2", rank=5),
        listed(20, "zen.example as 127.0.0.2", client=NEIGHBOUR, rank=3),
        listed(40, "zen.example as 127.0.0.2", client=NEIGHBOUR, rank=3),
    ]
    zen, bl2 = summary(*lines).lists
    assert (zen.name, zen.answers, zen.clients, zen.alone) == ("zen.example", 4, 2, 1)
    assert (zen.with_others, zen.replies) == ({"bl2.example": 1}, {"127.0.0.2": 3, "127.0.0.4": 1})
    assert (bl2.clients, bl2.alone, bl2.with_others) == (1, 0, {"zen.example": 1})
    assert summary(*lines).ranks == {"3": 2, "5": 1}


def test_suspects() -> None:
    found = summary(listed(0, "zen.example as 127.0.0.2", rank=5), known(106))
    (suspect,) = found.suspects
    assert (suspect.client, suspect.why, suspect.test, suspect.rank, suspect.after) == (
        "192.0.2.1",
        "passed later",
        "dnsbl",
        5,
        100,
    )
    found = summary(listed(0, "zen.example as 127.0.0.2", rank=5), known(106, NEIGHBOUR))
    assert [(each.client, each.why) for each in found.suspects] == [("192.0.2.1", "network passes")]
    found = summary(listed(0, "z as 127.0.0.2", rank=5), listed(9, "z as 127.0.0.2", client=OTHER_NETWORK, rank=3))
    assert [(each.client, each.why) for each in found.suspects] == [("198.51.100.9", "lowest rank")]
    two_lists = ("zen.example as 127.0.0.2", "bl2.example as 127.0.0.2")
    assert summary(known(0), listed(106, *two_lists, rank=5)).suspects == ()


def test_rejects_with_senders() -> None:
    tally = tallied([come_again(0)], with_senders=True)
    (reject,) = summarize(tally, host="", period="").rejects
    assert (reject.reply, reject.who) == (
        "450 4.3.2 Service currently unavailable",
        (("192.0.2.1", "a@example.com", 1),),
    )


def test_a_sender_that_looks_like_more() -> None:
    envelope = 'from=<"x>, to=<y"@example.com>, to=<"a\\"; from=<q>"@b>, proto=ESMTP, helo=<z>, to=<forged>'
    found = summary(connect(0), line(1, f"NOQUEUE: reject: RCPT from {A}: 550 5.5.1 Protocol error; {envelope}"))
    assert [each.name for each in found.senders] == ['"x>, to=<y"@example.com']
    assert [each.name for each in found.recipients] == ['"a\\"; from=<q>"@b']


def test_shadow_mode() -> None:
    reply = "521 5.7.1 Service unavailable; client [198.51.100.9] blocked using z"
    lines = [
        connect(0),
        line(1, f"PREGREET 9 after 1 from {A}: EHLO x"),
        line(1, f"SHADOW from {A}: would have replied: 521 5.5.1 Protocol error"),
        connect(0, OTHER_NETWORK),
        line(6, f"DNSBL rank 4 for {OTHER_NETWORK}"),
        line(6, f"SHADOW from {OTHER_NETWORK}: would have replied: {reply}"),
        line(7, f"HANGUP after 1 from {OTHER_NETWORK} in tests after SMTP handshake"),
        line(7, f"DISCONNECT {OTHER_NETWORK}"),
        known(3 * HOURS, NEIGHBOUR),
    ]
    found = summary(*lines)
    assert [(each.test, each.times, each.handed) for each in found.shadow] == [("dnsbl", 1, 0), ("pregreet", 1, 1)]
    assert "521 5.7.1 Service unavailable; client blocked using z" in [each.name for each in found.shadow_replies]


def test_responses_to_a_score_in_shadow_mode_are_no_rejections() -> None:
    slowed = line(6, f"SHADOW from {A}: would have been slowed: score 2")
    elsewhere = line(6, f"SHADOW from {A}: would have gone to private/strict: score 2")
    found = summary(connect(0), slowed, elsewhere, line(6, f"PASS NEW {A}"))
    assert not found.shadow
    assert not found.shadow_replies
    assert found.totals.get("shadow", 0) == 0


def test_who_hung_up_in_shadow_mode_was_not_turned_away() -> None:
    away = line(9, f"DISCONNECT {A}")
    hung = line(8, f"HANGUP after 1 from {A} in tests before SMTP handshake")
    dnsbl = f"SHADOW from {A}: would have replied: 550 5.7.1 Service unavailable; client [192.0.2.1] blocked using z"
    assert outcomes(connect(0), line(6, f"DNSBL rank 4 for {A}"), line(6, dnsbl), hung, away) == {"hung up": 1}
    too_many = line(0, f"NOQUEUE: reject: CONNECT from {A}: too many connections")
    would = line(0, f"SHADOW from {A}: would have replied: 421 4.7.0 mx1 Error: too many connections")
    assert outcomes(connect(0), too_many, would, away) == {"left": 1}
    later = line(8, f"COMMAND PIPELINING from {A} after MAIL: x")  # a test that is in force
    assert outcomes(connect(0), line(6, f"DNSBL rank 4 for {A}"), line(6, dnsbl), later, away) == {"refused": 1}


def test_only_the_days_that_are_asked_for() -> None:
    noon = 1_795_348_800
    tally = tallied([known(0), known(100), known(200)], since=noon + 50, until=noon + 200)
    assert summarize(tally, host="", period="").totals["connect"] == 1


def test_clients_are_bounded() -> None:
    tally = tallied([known(0), known(1, NEIGHBOUR), known(2, OTHER_NETWORK), known(3)], clients=2)
    found = summarize(tally, host="", period="")
    assert (found.clients, found.totals["connect"], found.outcomes["handed"]) == (2, 4, 3)
    assert any("in totals and hours only: 1 connection of clients after the first 2" in note for note in found.notes)


@pytest.mark.parametrize("text", ["DISCONNECT [999.1.1.1]:1", "PASS NEW [1:2]:3", "DISCONNECT [192.0.2.1]:1"])
def test_what_has_no_beginning_or_no_address_is_counted_as_a_line(text: str) -> None:
    found = summary(line(0, text))
    assert sum(found.totals.values()) == 1
    assert not any(found.outcomes.values())


def test_nothing() -> None:
    assert summarize(Tally(), host="", period="").empty
    other = summary(b"Nov 22 08:06:46 mx1 postfix/smtpd[7]: connect from x\n")
    assert other.empty
    assert other.notes == (
        "not from postscreen or fastscreen: 1 line; is --syslog-name needed, or is the format not supported "
        "(docs/report.md)?",
    )
    elsewhen = summarize(tallied([known(0)], since=2_000_000_000), host="", period="")
    assert elsewhen.notes == ("from other days: 2 lines of postscreen or fastscreen",)


def test_a_session_whose_mail_the_mta_refused() -> None:
    """The MTA has replied, so it counts once as handed off, whatever the result of its next transaction."""
    refused = line(7, f"CONTINUE from {A} to 127.0.0.1:25: MAIL refused: 452 4.3.1 no room")
    went_on = line(8, f"CONTINUE from {A} to 127.0.0.1:25: 250 2.1.5 Ok: MAIL refused: 5")
    begun = connect(0) + line(7, f"PASS NEW {A}")
    for rest in (
        refused + line(9, f"DISCONNECT {A}"),
        refused + refused + line(9, f"DISCONNECT {A}"),
        refused + went_on,
    ):
        outcomes = summary(begun + rest + known(100, "[192.0.2.9]:1")).outcomes
        assert (outcomes["handed"], outcomes["continued"], outcomes["not taken"]) == (2, 1, 0)
    failed = line(8, f"CONTINUE from {A} failed: Connection refused")
    outcomes = summary(begun + refused + failed + line(9, f"DISCONNECT {A}")).outcomes
    assert (outcomes["continued"], outcomes["continue failed"]) == (1, 1)
    lost = begun + refused + went_on + line(9, f"DISCONNECT {A}")
    assert summary(lost).outcomes["not taken"] == 1
