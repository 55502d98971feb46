"""Flattening and refreshes with answers of the test's own; of a real name server: tests/peers/test_allowlist_spf.py."""

import asyncio
import sys
from collections import Counter
from pathlib import Path

import pytest

from fastscreen.allowlist import flatten, refresh, schedule, wording
from fastscreen.allowlist.lists import List, Renewal
from fastscreen.allowlist.networks import aggregated
from fastscreen.allowlist.refresh import Change
from fastscreen.allowlist.spf import SpfError
from fastscreen.allowlist.state import Entry, State
from fastscreen.config.providers import Source

NOW = 1_800_000_000.0


class Answers:
    """The DNS as dictionaries; a name with the value None gives no answer."""

    def __init__(
        self,
        texts: dict[str, str | list[str] | None] | None = None,
        addresses: dict[str, list[str] | None] | None = None,
        exchanges: dict[str, list[str] | None] | None = None,
    ) -> None:
        self._texts = texts or {}
        self._addresses = addresses or {}
        self._exchanges = exchanges or {}
        self.asked: Counter[str] = Counter()
        self.at_a_time = self.most_at_a_time = 0

    async def texts(self, name: str) -> list[bytes]:
        found = self._texts.get(name, [])
        return [each.encode() for each in await self._answer(name, [found] if isinstance(found, str) else found)]

    async def addresses(self, name: str) -> list[str]:
        return await self._answer(name, self._addresses.get(name, []))

    async def exchanges(self, name: str) -> list[str]:
        return await self._answer(name, self._exchanges.get(name, []))

    async def _answer(self, name: str, found: list[str] | None) -> list[str]:
        self.asked[name] += 1
        self.at_a_time += 1
        self.most_at_a_time = max(self.most_at_a_time, self.at_a_time)
        await asyncio.sleep(0)
        self.at_a_time -= 1
        if found is None:
            raise SpfError("temperror", f"{name}: no answer")
        return found


def flat(answers: Answers, domain: str = "a.example") -> list[str]:
    found = asyncio.run(flatten.flatten(domain, answers))
    return [str(network) for network in aggregated(found.networks)]


def error(answers: Answers) -> str:
    with pytest.raises(SpfError) as caught:
        asyncio.run(flatten.flatten("a.example", answers))
    return f"{caught.value.kind}: {caught.value}"


# ---- bounds


def test_a_record_of_too_many_networks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flatten, "MAX_NETWORKS", 100)
    hundred = " ".join(f"ip4:8.8.{each}.0/24" for each in range(100))
    assert flat(Answers({"a.example": f"v=spf1 {hundred} -all"}))
    many = f"v=spf1 {hundred} include:b.example -all"
    answers = Answers({"a.example": many, "b.example": "v=spf1 ip4:9.9.9.9 -all"})
    assert error(answers) == "permerror: b.example: more than 100 networks"


def test_holes_cannot_make_networks_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hole in an IPv6 network costs up to 128 networks."""
    monkeypatch.setattr(flatten, "MAX_NETWORKS", 100)
    record = "v=spf1 -ip6:2a00::1 -ip6:2a00:8000::1 ip6:2a00::/19 -all"
    assert error(Answers({"a.example": record})) == "permerror: a.example: more than 100 networks"


def steps(answers: Answers) -> int:
    """The number of calls that flattening a record needs."""
    counted = 0

    def count(*_: object) -> None:
        nonlocal counted
        counted += 1

    sys.setprofile(count)
    try:
        flat(answers)
    finally:
        sys.setprofile(None)
    return counted


@pytest.mark.parametrize("order", [0, 1])
def test_a_hostile_record_costs_no_more_than_its_length(order: int) -> None:
    """64 kB of exclusions took a minute of CPU time, during which no other record was queried."""

    def record(count: int) -> str:
        by_turns = [f"{'-' if at % 2 else ''}ip4:{8 + at % 2}.{at >> 8}.{at & 255}.1" for at in range(count)]
        return f"v=spf1 {' '.join(by_turns if order else sorted(by_turns))} -all"

    few, many = (steps(Answers({"a.example": record(count)})) for count in (250, 1000))
    assert many < 6 * few


def test_a_chain_of_includes_ends() -> None:
    answers = Answers({f"{n}.example": f"v=spf1 include:{n + 1}.example -all" for n in range(1, 100)})
    answers._texts["a.example"] = "v=spf1 include:1.example -all"
    assert error(answers).startswith("permerror: more than 10 look-ups")
    assert sum(answers.asked.values()) == 11


def test_a_hostile_name_is_shown_escaped() -> None:
    record = "v=spf1 include:%{i}\\.x.example a:\x1b[31m.example -all"
    assert error(Answers({"a.example": record})) == r'permerror: a.example: "a:\x1b[31m.example": no domain'


def test_no_answer_to_any_question_is_temporary() -> None:
    hosts: dict[str, list[str] | None] = {"h.example": None}
    assert error(Answers({"a.example": None})) == "temperror: a.example: no answer"
    assert error(Answers({"a.example": "v=spf1 a:h.example -all"}, hosts)) == "temperror: h.example: no answer"
    record = "v=spf1 include:b.example -all"
    assert error(Answers({"a.example": record, "b.example": None})) == "temperror: b.example: no answer"
    mx = Answers({"a.example": "v=spf1 mx -all"}, hosts, {"a.example": ["h.example"]})
    assert error(mx) == "temperror: h.example: no answer"


# ---- limits of an SPF check (RFC 7208 4.6.4)


def test_a_loop_of_redirects_is_refused() -> None:
    answers = Answers({"a.example": "v=spf1 redirect=b.example", "b.example": "v=spf1 redirect=a.example"})
    assert error(answers) == "permerror: loop: a.example -> b.example -> a.example"


def test_the_same_domain_twice_is_not_a_loop() -> None:
    texts: dict[str, str | list[str] | None] = {
        "a.example": "v=spf1 include:b.example include:b.example redirect=b.example",
        "b.example": "v=spf1 ip4:8.8.8.8 -all",
    }
    assert flat(Answers(texts)) == ["8.8.8.8/32"]


def test_redirects_and_includes_count_together() -> None:
    """Ten are allowed, wherever they are; `ip4`, `ip6` and `all` are not counted."""
    nine = " ".join(f"include:{at}.example" for at in range(9))
    texts: dict[str, str | list[str] | None] = {f"{at}.example": "v=spf1 ip4:8.8.8.8 -all" for at in range(9)}
    texts["end.example"] = "v=spf1 ip4:9.9.9.9 ip6:2a00::1 -all"
    texts["a.example"] = f"v=spf1 ip4:1.1.1.1 {nine} redirect=end.example"
    assert flat(Answers(texts)) == ["1.1.1.1/32", "8.8.8.8/32", "9.9.9.9/32", "2a00::1/128"]
    texts["end.example"] = "v=spf1 a -all"
    limit = "more than 10 look-ups (RFC 7208 4.6.4), at end.example: a"
    assert error(Answers(texts)) == f"permerror: {limit}"
    texts["a.example"] = f"v=spf1 {nine} a redirect=end.example"
    hosts: dict[str, list[str] | None] = {"a.example": ["8.8.8.9"]}
    assert error(Answers(texts, hosts)).endswith("at a.example: redirect=end.example")


@pytest.mark.parametrize("record", ["mx:1.example mx:2.example a:3.example", "a:1.example mx:2.example mx:h.example"])
def test_look_ups_without_an_answer_are_limited(record: str) -> None:
    """Names without MX records and hosts without addresses count together; h.example names a host that has none."""
    names: dict[str, list[str] | None] = {"h.example": ["3.example"]}
    terms = record.split()
    two = Answers({"a.example": f"v=spf1 {' '.join(terms[:2])} ip4:8.8.8.8 -all"}, exchanges=names)
    assert flat(two) == ["8.8.8.8/32"]
    three = Answers({"a.example": f"v=spf1 {record} ip4:8.8.8.8 -all"}, exchanges=names)
    limit = "more than 2 look-ups without an answer (RFC 7208 4.6.4), the last of 3.example"
    assert error(three) == f"permerror: {limit}"


def test_hosts_of_one_mx_are_limited() -> None:
    names = [f"{at}.example" for at in range(11)]
    hosts: dict[str, list[str] | None] = {name: [f"8.8.8.{at}"] for at, name in enumerate(names)}
    texts: dict[str, str | list[str] | None] = {"a.example": "v=spf1 mx/24 -all"}
    assert flat(Answers(texts, hosts, {"a.example": names[:10]})) == ["8.8.8.0/24"]
    answers = Answers(texts, hosts, {"a.example": names})
    assert error(answers) == "permerror: a.example: mx/24: 11 MX records; expected at most 10"
    assert not set(answers.asked) & set(names)


def test_the_null_mx_has_no_hosts() -> None:
    answers = Answers({"a.example": "v=spf1 mx ip4:8.8.8.8 -all"}, exchanges={"a.example": ["."]})
    assert flat(answers) == ["8.8.8.8/32"]
    assert answers.asked == {"a.example": 2}


@pytest.mark.parametrize("term", ["include:b.example", "redirect=b.example"])
def test_another_domain_without_a_record_is_an_error(term: str) -> None:
    assert error(Answers({"a.example": f"v=spf1 ip4:8.8.8.8 {term}"})) == "permerror: b.example: no SPF record"


def test_what_is_excluded_is_excluded_of_a_redirect() -> None:
    texts: dict[str, str | list[str] | None] = {
        "a.example": "v=spf1 ~a:h.example redirect=b.example",
        "b.example": "v=spf1 ip4:8.8.8.0/30 -all",
    }
    assert flat(Answers(texts, {"h.example": ["8.8.8.2"]})) == ["8.8.8.0/31", "8.8.8.3/32"]


# ---- a refresh

GOOD = Source("good", "bulk", ("good.example",))
OTHER = Source("other.example", "own", ("other.example",))


def renewed(
    texts: dict[str, str | list[str] | None], before: State, *sources: Source, accept: tuple[str, ...] = ()
) -> tuple[State, dict[str, Change]]:
    state, changes = asyncio.run(refresh.refresh(sources or (GOOD,), before, Answers(texts), NOW, accept))
    return state, {change.name: change for change in changes}


def known(*networks: str, domains: tuple[str, ...] = ("good.example",)) -> State:
    return State(providers={"good": Entry("bulk", domains, networks, NOW - 1000, NOW - 1000)})


def test_the_first_refresh() -> None:
    texts: dict[str, str | list[str] | None] = {
        "good.example": "v=spf1 ip4:8.8.8.0/25 ip4:8.8.8.128/25 ip6:2a00::/32 exists:%{i}.x.example -all"
    }
    state, changes = renewed(texts, State())
    left = ("exists:%{i}.x.example in good.example",)
    assert state == State(
        refreshed=NOW,
        providers={"good": Entry("bulk", ("good.example",), ("8.8.8.0/24", "2a00::/32"), NOW, NOW, "", left, ())},
    )
    assert changes["good"] == Change("good", "bulk", 2, ("8.8.8.0/24", "2a00::/32"), good=NOW, omitted=left)


def test_what_changed_is_told() -> None:
    state, changes = renewed({"good.example": "v=spf1 ip4:8.8.8.0/24 ip4:9.9.9.9"}, known("8.8.8.0/24", "1.1.1.1/32"))
    assert changes["good"].added == ("9.9.9.9/32",)
    assert changes["good"].removed == ("1.1.1.1/32",)
    assert state.providers["good"].networks == ("8.8.8.0/24", "9.9.9.9/32")


@pytest.mark.parametrize(
    ("record", "why", "unreachable"),
    [
        (None, "good.example: no answer", True),
        ([], "good.example: no SPF record", False),
        (["v=spf1 -all", "v=spf1 ~all"], "good.example: 2 SPF records", False),
        ("v=spf1 include:good.example", "loop: good.example -> good.example", False),
        ("v=spf1 nonsense", 'good.example: "nonsense": not an SPF mechanism', False),
        ("v=spf1 -all", "its records do not contain a usable network", False),
        (
            "v=spf1 ip4:10.0.0.0/8 +all",
            "its records do not contain a usable network: refused 10.0.0.0/8 (private), omitted +all in good.example",
            False,
        ),
        (
            "v=spf1 " + " ".join(f"ip4:{first}.0.0.0/9" for first in range(1, 6)),
            "41,943,040 IPv4 addresses and 0 IPv6 networks of /64 are too much for one provider",
            False,
        ),
    ],
)
def test_without_a_good_result_the_last_one_stays(record: str | list[str] | None, why: str, unreachable: bool) -> None:
    before = known("8.8.8.0/24")
    state, changes = renewed({"good.example": record}, before)
    entry = state.providers["good"]
    assert (entry.networks, entry.good) == (("8.8.8.0/24",), NOW - 1000)
    assert (entry.problem, entry.tried) == (why, NOW)
    change = changes["good"]
    assert (change.added, change.removed, change.problem, change.unreachable) == ((), (), why, unreachable)


def test_one_bad_domain_of_a_provider_keeps_all_of_it() -> None:
    source = Source("good", "bulk", ("good.example", "more.example"))
    state, _ = renewed(
        {"good.example": "v=spf1 ip4:9.9.9.9", "more.example": None},
        known("8.8.8.8/32", domains=source.domains),
        source,
    )
    assert state.providers["good"].networks == ("8.8.8.8/32",)


def test_providers_fail_each_for_itself() -> None:
    texts: dict[str, str | list[str] | None] = {"good.example": None, "other.example": "v=spf1 ip4:9.9.9.9"}
    state, changes = renewed(texts, known("8.8.8.8/32"), GOOD, OTHER)
    assert state.providers["good"].networks == ("8.8.8.8/32",)
    assert state.providers["other.example"].networks == ("9.9.9.9/32",)
    assert changes["good"].problem and not changes["other.example"].problem


@pytest.mark.parametrize(
    ("before", "record", "shrunk"),
    [
        ("8.8.8.0/24", "ip4:8.8.8.0/25", False),  # half is left
        ("8.8.8.0/24", "ip4:8.8.8.0/26", True),
        ("8.8.8.0/24 8.8.9.7/32", "ip4:8.8.8.0/25", True),
        ("8.8.8.0/24 2a00::/32", "ip4:8.8.8.0/24", True),  # all of IPv6 is gone
        ("8.8.8.0/24 2a00::/32", "ip4:8.8.8.0/24 ip6:2a00::/33", False),
        ("8.8.8.0/24 2a00::/32", "ip6:2a00::/32", True),
        ("8.8.8.1/32 8.8.8.3/32 8.8.8.5/32", "ip4:8.8.8.0/24", False),  # fewer networks, more addresses
        ("8.8.8.0/24", "ip4:9.9.9.0/24", False),  # moved
    ],
)
def test_a_list_that_shrinks_suddenly_is_not_taken(before: str, record: str, shrunk: bool) -> None:
    state, changes = renewed({"good.example": f"v=spf1 {record} -all"}, known(*before.split()))
    assert changes["good"].sudden == shrunk
    assert (state.providers["good"].networks == tuple(before.split())) == shrunk
    if shrunk:
        assert "has less than half of its addresses" in changes["good"].problem
        assert state.providers["good"].good == NOW - 1000


@pytest.mark.parametrize(
    ("record", "grown"),
    [
        ("ip4:8.8.8.0/23", False),  # twice
        ("ip4:8.8.8.0/22", True),
        ("ip4:8.8.8.0/24 include:big.example", True),
        ("ip4:8.8.8.0/24 ip6:2a00::/48", False),  # without IPv6 before, and few now
        ("ip4:8.8.8.0/24 ip6:2a00::/47", True),
    ],
)
def test_a_denied_domain_that_grows_suddenly_is_not_taken(record: str, grown: bool) -> None:
    """The owner could add the networks of an important provider."""
    texts: dict[str, str | list[str] | None] = {
        "good.example": f"v=spf1 {record} -all",
        "big.example": "v=spf1 ip4:9.0.0.0/16 -all",
    }
    before = known("8.8.8.0/24")
    for denied, accept in ((True, ()), (True, ("good",)), (False, ())):
        answers = Answers(texts)
        state, (change,) = asyncio.run(refresh.refresh((GOOD,), before, answers, NOW, accept, denied=denied))
        kept = grown and denied and not accept
        assert (state.providers["good"].networks == ("8.8.8.0/24",)) == kept == change.sudden
        assert ("more than twice its addresses" in change.problem) == kept


def test_a_denied_domain_of_few_addresses_may_have_some_more() -> None:
    answers = Answers({"good.example": "v=spf1 ip4:8.8.8.0/24 -all"})
    state, _ = asyncio.run(refresh.refresh((GOOD,), known("8.8.8.8/32"), answers, NOW, denied=True))
    assert state.providers["good"].networks == ("8.8.8.0/24",)


def test_a_list_that_shrank_may_be_accepted() -> None:
    texts: dict[str, str | list[str] | None] = {"good.example": "v=spf1 ip4:8.8.8.8"}
    state, changes = renewed(texts, known("8.8.8.0/24"), accept=("good",))
    assert state.providers["good"].networks == ("8.8.8.8/32",)
    assert changes["good"].removed == ("8.8.8.0/24",) and not changes["good"].problem


def test_accepting_does_not_help_a_result_that_is_none() -> None:
    state, changes = renewed({"good.example": "v=spf1 -all"}, known("8.8.8.0/24"), accept=("good",))
    assert state.providers["good"].networks == ("8.8.8.0/24",)
    assert changes["good"].problem


def test_a_provider_of_other_domains_may_be_smaller() -> None:
    texts: dict[str, str | list[str] | None] = {"good.example": "v=spf1 ip4:8.8.8.8"}
    state, _ = renewed(texts, known("8.8.8.0/24", domains=("before.example",)))
    assert state.providers["good"].networks == ("8.8.8.8/32",)
    # But nothing is lost when they cannot be looked up; and then the old ones are still what it is compared with.
    state, _ = renewed({"good.example": None}, known("8.8.8.0/24", domains=("before.example",)))
    assert state.providers["good"].networks == ("8.8.8.0/24",)
    assert state.providers["good"].domains == ("before.example",)


def test_refused_networks_are_named_and_the_others_taken() -> None:
    record = "v=spf1 ip4:10.1.0.0/16 ip4:8.8.8.8 ip4:9.0.0.0/7 ip6:fe80::/64 ip6:2a00::/16 ip4:10.1.0.0/16 -all"
    state, changes = renewed({"good.example": record}, State())
    assert state.providers["good"].networks == ("8.8.8.8/32",)
    assert changes["good"].refused == (
        "10.1.0.0/16 (private)",
        "8.0.0.0/7 (wider than /8)",
        "fe80::/64 (not a global address)",
        "2a00::/16 (wider than /19)",
    )


def test_notes_are_told_once() -> None:
    texts: dict[str, str | list[str] | None] = {"good.example": "v=spf1 ip4:8.8.8.8 ip4:10.0.0.1 ptr -all"}
    state, first = renewed(texts, State())
    _, second = renewed(texts, state)
    assert first["good"].refused and first["good"].omitted
    assert second["good"] == Change("good", "bulk", 1, good=NOW)


def test_no_end_of_refused_networks_is_kept() -> None:
    record = "v=spf1 " + " ".join(f"ip4:10.{each}.0.0/16" for each in range(200)) + " ip4:8.8.8.8"
    state, _ = renewed({"good.example": record}, State())
    assert len(state.providers["good"].refused) == refresh.REFUSED_SHOWN + 1
    assert state.providers["good"].refused[-1] == "and 150 more"


def test_who_is_on_the_list_no_more_is_gone() -> None:
    state, changes = renewed({"other.example": "v=spf1 ip4:9.9.9.9"}, known("8.8.8.0/24"), OTHER)
    assert set(state.providers) == {"other.example"}
    assert changes["good"] == Change("good", "bulk", 0, removed=("8.8.8.0/24",))


def test_not_all_providers_ask_at_once() -> None:
    sources = [Source(f"{each}.example", "own", (f"{each}.example",)) for each in range(50)]
    answers = Answers({source.name: "v=spf1 ip4:8.8.8.8" for source in sources})
    asyncio.run(refresh.refresh(sources, State(), answers, NOW))
    assert answers.most_at_a_time == refresh.AT_A_TIME
    assert len(answers.asked) == 50


def test_a_provider_that_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless(Answers):
        async def texts(self, name: str) -> list[bytes]:
            await asyncio.Event().wait()
            raise AssertionError

    monkeypatch.setattr(refresh, "PROVIDER_SECONDS", 0.01)
    state, changes = asyncio.run(refresh.refresh((GOOD,), known("8.8.8.8/32"), Endless(), NOW))
    assert state.providers["good"].networks == ("8.8.8.8/32",)
    assert changes[0].problem == "not looked up within 0.01 s" and changes[0].unreachable


def test_slow_providers_take_no_more_time_than_a_list_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the daemon would kill the refresh, and all results would be lost."""

    class Silent(Answers):
        async def texts(self, name: str) -> list[bytes]:
            await asyncio.Event().wait()
            raise AssertionError

    monkeypatch.setattr(refresh, "AT_A_TIME", 1)
    monkeypatch.setattr(refresh, "LIST_SECONDS", 0.01)
    state, changes = asyncio.run(
        asyncio.wait_for(refresh.refresh((GOOD, OTHER), known("8.8.8.8/32"), Silent(), NOW), 60)
    )
    assert state.providers["good"].networks == ("8.8.8.8/32",)
    assert [change.problem for change in changes] == ["not looked up within the 0.01 s of a whole list"] * 2


def test_two_lists_end_before_they_are_ended() -> None:
    assert 2 * refresh.LIST_SECONDS < schedule.MAX_SECONDS


def test_a_mistake_of_ours_is_one_providers_problem() -> None:
    class Odd(Answers):
        async def texts(self, name: str) -> list[bytes]:
            if name == "other.example":
                raise KeyError("\x1b")
            return await super().texts(name)

    odd = Odd({"good.example": "v=spf1 ip4:8.8.8.8"})
    state, changes = asyncio.run(refresh.refresh((OTHER, GOOD), State(), odd, NOW))
    assert state.providers["good"].networks == ("8.8.8.8/32",)
    assert changes[0].problem == r"KeyError: '\x1b'"


# ---- what is reported


def told(*changes: Change) -> Renewal:
    sources = [Source(change.name, change.group, (f"{change.name}.example",)) for change in changes]
    return Renewal(List("allowlist", Path("/x"), "permit", sources), State(), list(changes), "", False)


def test_one_line_tells_what_came_and_went() -> None:
    renewal = told(Change("a", "bulk", 3, ("8.8.8.8/32", "8.8.8.9/32"), ("9.9.9.9/32",)), Change("b", "bulk", 1))
    assert wording.sum_of(renewal) == "allowlist: 2 networks added, 1 removed: a +2 -1"
    assert wording.sum_of(told(Change("b", "bulk", 1))) == ""


def test_one_line_tells_all_failures() -> None:
    failed = [Change(f"p{each}", "bulk", 1, problem="no answer", good=NOW) for each in range(7)]
    assert wording.problems_of(told(*failed)) == (
        "allowlist: no new result of 7 of 7 providers, the last one stays in use: "
        + ", ".join(f"p{each} (of 2027-01-15): no answer" for each in range(5))
        + ", and 2 more"
    )
    shrunk = Change("a", "bulk", 1, problem="shrank", sudden=True)
    assert wording.problem_of(shrunk) == ("a (none yet): shrank; to accept it: fastscreen allowlist refresh --accept a")
    assert wording.problems_of(told(Change("a", "bulk", 1))) == ""


def test_what_is_not_in_the_table_is_a_line_for_each_provider() -> None:
    refused = tuple(f"10.{each}.0.0/16 (private)" for each in range(7))
    lines = list(wording.notes_of(told(Change("a", "bulk", 1, refused=refused, omitted=("ptr in a.example",)))))
    assert lines == [
        f"allowlist: a: refused: {', '.join(refused[:5])}, and 2 more",
        "allowlist: a: omitted, it depends on the client: ptr in a.example",
    ]
