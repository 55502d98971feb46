"""Other settings for what was logged."""

import pytest
from reportlog import connect, known, line, listed, tallied

from fastscreen.config.sites import parse_site
from fastscreen.report.what_if import Settings, WhatIf, rank_of, rejudge, settings_of

ONE, TWO, THREE = (f"[192.0.2.{number}]:1" for number in (1, 2, 3))
LOG = (
    listed(0, "zen.example as 127.0.0.4", client=ONE, rank=3),
    listed(20, "bl2.example as 127.0.0.2", "bl2.example as 127.0.0.9", client=TWO),
    listed(40, "zen.example as 127.0.0.2", "bl2.example as 127.0.0.2", client=THREE, rank=5),
)


def judged(*words: str, base: Settings | None = None, log: tuple[bytes, ...] = LOG) -> WhatIf:
    return rejudge(tallied(log), settings_of(words, base or Settings()))


def counts(found: WhatIf) -> tuple[int, ...]:
    return found.still, found.no_longer, found.newly, found.neither, found.unknown


def test_weights_and_threshold() -> None:
    zen, bl2 = "site=zen.example*3", "site=bl2.example*2"
    assert counts(judged("threshold=3", zen, bl2)) == (2, 0, 0, 1, 0)
    assert counts(judged("threshold=4", zen, bl2)) == (1, 1, 0, 1, 0)
    assert counts(judged("threshold=2", zen, bl2)) == (2, 0, 1, 0, 0)
    assert counts(judged("threshold=9", zen, bl2)) == (0, 2, 0, 1, 0)


def test_filters() -> None:
    found = judged("threshold=3", "site=zen.example=127.0.0.[2;3]*3")
    assert counts(found) == (1, 1, 0, 1, 0)
    assert [(each.client, each.rank) for each in found.no_longer_clients] == [("192.0.2.1", 0)]


def test_who_would_be_refused_newly() -> None:
    (client,) = judged("threshold=2", "site=zen.example*3", "site=bl2.example*2").newly_clients
    assert (client.client, client.rank) == ("192.0.2.2", 2)
    assert client.answers == ("bl2.example as 127.0.0.2", "bl2.example as 127.0.0.9")


def test_a_weight_counts_once_however_many_answers_match() -> None:
    """The reference's own example: two records, three sites, rank 10."""
    sites = [parse_site(text) for text in ("bl.a*2", "bl.a=127.0.0.8*5", "bl.a=127.0.0.[2..9]*3", "other*7")]
    assert rank_of([("bl.a", bytes([127, 0, 0, 8])), ("bl.a", bytes([127, 0, 0, 4]))], sites) == 10


def test_sites_of_a_configuration_are_replaced_by_domain() -> None:
    base = Settings((parse_site("zen.example*3"), parse_site("bl2.example*2")), 3)
    assert counts(judged(base=base)) == (2, 0, 0, 1, 0)
    assert counts(judged("site=zen.example*2", base=base)) == (1, 1, 0, 1, 0)
    assert counts(judged("threshold=2", base=base)) == (2, 0, 1, 0, 0)


def test_what_cannot_be_known() -> None:
    found = judged(
        "site=new.example*3", log=(connect(0, ONE), line(6, f"DNSBL rank 3 for {ONE}"), line(6, f"DISCONNECT {ONE}"))
    )
    assert counts(found) == (0, 0, 0, 0, 1)
    found = judged("site=new.example*3")
    assert (found.without_site, found.without_answers) == (("zen.example", "bl2.example"), ("new.example",))


def test_known_clients_are_not_judged() -> None:
    assert counts(judged("site=zen.example", log=(known(0), known(5)))) == (0, 0, 0, 0, 0)


def test_an_earlier_visit_s_answers_are_not_those_of_a_later_one() -> None:
    found = judged("threshold=3", "site=zen.example*3", log=(LOG[0], listed(5000, client=ONE)))
    assert counts(found) == (1, 0, 0, 1, 0)
    assert (found.no_longer_clients, found.newly_clients) == ((), ())


def test_a_second_session_of_the_same_look_up_has_its_answers() -> None:
    second = "[192.0.2.1]:2"
    log = (connect(0, second), LOG[0], line(7, f"DNSBL rank 3 for {second}"), line(7, f"DISCONNECT {second}"))
    assert counts(judged("threshold=3", "site=zen.example*3", log=log)) == (2, 0, 0, 0, 0)


def test_sessions_beside_each_other_share_answers_that_do_not_refuse() -> None:
    second = "[192.0.2.2]:2"
    log = (connect(20, TWO), *LOG[1].splitlines(keepends=True)[1:3], connect(25, second))
    log += (line(26, f"PASS NEW {TWO}"), line(31, f"PASS OLD {second}"))
    assert counts(judged("threshold=2", "site=bl2.example*2", log=log)) == (0, 0, 2, 0, 0)


def test_allow_lists() -> None:
    log = (listed(0, "allow.example as 127.0.5.2", client=ONE),)
    found = judged("site=allow.example*-4", "allowlist_threshold=-3", log=log)
    assert (found.neither, found.allowed) == (1, 1)
    assert judged("site=allow.example*-4", log=log).allowed == 0


def test_a_log_file_behind_the_settings() -> None:
    with pytest.raises(ValueError, match=r"^mail\.log: unknown setting \(log files come before --what-if\); "):
        settings_of(["threshold=4", "mail.log"], Settings())


@pytest.mark.parametrize(
    "word",
    [
        "threshold",
        "threshold=x",
        "threshold=0",
        "treshold=4",
        "site=",
        "site=a=1.2*3",
        "site=a*x",
        "allowlist_threshold=",
    ],
)
def test_wrong_settings(word: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        settings_of([word], Settings())
