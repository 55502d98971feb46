"""What the screener would do with a client that behaves: the steps of ext/session.pyx and greet.pyx, with reasons."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct, field

from fastscreen import core
from fastscreen.config.model import Action, Config, Proxy
from fastscreen.control.cluster_client import SharedRecord
from fastscreen.control.messages import Evidence, Step
from fastscreen.control.mx_policy import Arrival
from fastscreen.control.scoring import Score
from fastscreen.escaping import quoted
from fastscreen.format import span
from fastscreen.screening import policy
from fastscreen.screening.access_list import PERMITTED, REJECTED, Found

TESTS = tuple(test.key for test in core.TESTS)
LABELS = {scorer.key: scorer.label for scorer in core.SCORERS}
PREGREET, DNSBL, SCORE = TESTS.index("pregreet"), TESTS.index("dnsbl"), TESTS.index("score")
_DEEP = {number for number, test in enumerate(core.TESTS) if test.stage == "dialogue"}
_NOW = "Service currently unavailable"
LATER = f"450 4.3.2 {_NOW}"
_SHADOW = "shadow mode: without it, the reply would be"


class Limits(Struct, frozen=True):
    """Of one worker: what there is now, and what may be. sessions: those that are not relayed. relays: ways to
    MTAs, in use or being made."""

    sessions: int
    handoffs: int
    relays: int
    pre_queue: int
    post_queue: int
    relay: int
    stress: bool


class Facts(Struct, frozen=True):
    """What the verdict depends on. sessions: the client's open sessions; relayed: those of them that are relayed.
    counted: sessions that count toward its limit, from its whole prefix. rate, network_rate: connections within the
    minute. stamps: from its record, or shared by its sessions; None without either. score: None if no list is
    configured. asked: number of lists that are queried, which excludes disabled ones. limits: of its worker. key: its
    key in the cache. arrival: where it connects. evidence: for the score test. seen: the same from the memory of
    offenses. shared: what the cluster knows of the client; None: there is no cluster. kept: its worker has the answers
    of all lists, so that it waits for none.
    """

    address: str
    now: int  # s since 1970
    access: Found
    bypassed: bool
    sessions: int
    relayed: int
    counted: int
    rate: int
    network_rate: int
    stamps: tuple[int, ...] | None
    score: Score | None
    asked: int
    shown: dict[str, str]
    limits: Limits
    key: str
    arrival: Arrival
    evidence: tuple[Evidence, ...] = ()
    seen: tuple[Evidence, ...] = ()
    shared: SharedRecord | None = None
    kept: bool = False


class Verdict(Struct):
    """verdict, and the words of `steps`: see docs/control.md. reply: the final one, None when the MTA gets the client.
    wait: s that the tests before the greeting take at most. tests: that would be made.
    """

    verdict: str = ""
    reply: str | None = None
    wait: int | None = None
    tests: list[str] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)

    def add(self, step: str, text: str) -> None:
        self.steps.append(Step(step, text))

    def end(self, verdict: str, step: str, text: str, reply: str | None = None) -> Verdict:
        self.verdict = verdict
        self.reply = reply
        self.add(step, text)
        return self


def judge(config: Config, facts: Facts) -> Verdict:
    """Follow a connection that arrives now."""
    found = Verdict()
    limits = facts.limits
    most = config.limits.client_connection_count
    if 0 < most <= facts.counted:
        reply = "421 4.7.0 Error: too many connections"
        text = f"{facts.counted} sessions are open, and limits.client_connection_count is {most}"
        if not config.shadow:
            return found.end("busy", "limits", f"rejected: {text}", reply)
        found.add("limits", f"{text}: {_SHADOW} {reply}")
    if limits.handoffs >= limits.post_queue:
        reply = "421 4.3.2 All server ports are busy"
        return found.end(
            "busy", "limits", f"rejected: {limits.handoffs} hand-offs are under way (limits.post_queue)", reply
        )
    if isinstance(config.handoff.to, Proxy) and limits.relays >= limits.relay:
        reply = "421 4.3.2 All server ports are busy"
        return found.end(
            "busy", "limits", f"rejected: {limits.relays} connections to MTAs are in use (limits.relay)", reply
        )
    denied = facts.access.decision == REJECTED
    found.add("access", _access(facts.access))
    if facts.access.decision == PERMITTED:
        return found.end("allowlisted", "handoff", "handed off at once")
    if denied:
        refused = _soft(config, f"550 5.3.2 {_NOW}")
        _no_consequence(config, found, "access.denylist_action", config.access.denylist_action, _521(config), refused)
    action = config.follows(config.access.denylist_action)
    if denied and action is Action.DROP:
        return found.end("denylisted", "access", "rejected at once (access.denylist_action is drop)", _521(config))
    enforced = denied and action is Action.ENFORCE
    if not denied and facts.bypassed:
        return found.end("bypassed", "bypass", "handed off at once: the bypass is on")
    due = _due(config, facts, found, enforced)
    if SCORE in due and not enforced and facts.sessions == facts.relayed and _comes_back(config, facts):
        due.remove(SCORE)
        found.add("score", "deferred by score.defer_from, and it comes back in time: the score test counts as passed")
    if not due and not enforced and facts.sessions == facts.relayed and facts.stamps is not None:
        return found.end("cached", "handoff", "handed off at once (PASS OLD)")
    if text := _too_often(config, facts):
        reply = "421 4.7.0 Error: too many connections"
        if not config.shadow:
            return found.end("busy", "limits", f"rejected: {text}", reply)
        found.add("limits", f"{text}: {_SHADOW} {reply}")
    shut = not facts.arrival.open
    vetoed = shut and not config.shadow
    if shut:
        found.add("interface", f"{facts.arrival.server} is not in access.allowlist_interfaces: no client passes there")
        if not vetoed:
            found.add("interface", f"{_SHADOW} {LATER}")
    elif facts.arrival.others:
        found.add("interface", "at an address that is not in access.allowlist_interfaces it would be deferred with 450")
    if limits.sessions + 1 - limits.handoffs > limits.pre_queue:
        text = f"{limits.sessions - limits.handoffs} clients are under test, and limits.pre_queue allows no more"
        reply = "421 4.3.2 All screening ports are busy"
        if not config.shadow:
            return found.end("busy", "limits", f"rejected: {text}", reply)
        return found.end("untested", "limits", f"{text}: handed off at once; {_SHADOW} {reply}")
    waits = PREGREET in due or (DNSBL in due and not facts.kept)
    if waits and not enforced and not shut and facts.shared is not None:
        due, text = _still_due(facts.shared, facts.now, due)
        if not due:
            return found.end("cached", "cluster", text)
        found.add("cluster", text)
    found.tests = [TESTS[test] for test in due]
    reply = _soft(config, f"550 5.3.2 {_NOW}") if enforced else ""
    deep = [test for test in due if test in _DEEP]
    if PREGREET in due or DNSBL in due:
        found.wait = config.greet.stress_wait if limits.stress else config.greet.wait
        _greet(facts, found, due)
        score = facts.score or Score()
        if DNSBL in due:
            found.add("dnsbl", _scored(config, score))
            if _vouched(config, score) and not enforced and not shut:
                deep = []
                found.add("dnsbl", "dnsbl.allowlist_threshold is reached: every other test counts as passed")
            less = _in_favor(facts) if SCORE in deep and not enforced else 0
            if score.highest >= config.dnsbl.threshold > score.highest + less:
                found.add("dnsbl", f"decided at the first recipient: negative weights make it {score.highest + less}")
            score = _plus(score, less)
            if score.highest >= config.dnsbl.threshold:
                dropped, refused = (_blocked(config, facts, score, drop) for drop in (True, False))
                _no_consequence(config, found, "dnsbl.action", config.dnsbl.action, dropped, refused)
            action = config.follows(config.dnsbl.action)
            if score.highest >= config.dnsbl.threshold and action is not Action.IGNORE:
                reply = dropped if action is Action.DROP else refused
                if action is Action.DROP:
                    kind = "deferred" if reply.startswith("4") and not config.engine.soft_bounce else "dropped"
                    return found.end(kind, "dnsbl", "disconnected after the greet wait (dnsbl.action is drop)", reply)
    defers = False
    if SCORE in deep:
        lists = (facts.score if DNSBL in due else None) or Score()
        _weigh(config, facts, found, lists)
        if not reply:
            reply, defers = _at_recipient(config, facts, found, lists)
            if reply and config.score.action is Action.DROP:
                kind = "deferred" if reply.startswith("4") and not config.engine.soft_bounce else "dropped"
                return found.end(kind, "dialogue", "disconnected at its first recipient (score.action is drop)", reply)
    if config.tls.level == "encrypt" and (reply or vetoed or deep):
        found.add(
            "dialogue", "STARTTLS is required: without it, the reply to MAIL and RCPT is 530 (tls.level is encrypt)"
        )
    if reply:
        unsure = reply.startswith("4") and not config.engine.soft_bounce
        kind = "deferred" if unsure else "rejected"
        return found.end(kind, "dialogue", "dummy SMTP engine: every recipient is rejected", reply)
    if vetoed:
        text = "dummy SMTP engine: every recipient is deferred, and no test is passed"
        return found.end("vetoed", "dialogue", text, LATER)
    if deep:
        names = ", ".join(TESTS[test] for test in deep)
        if defers:
            text = f"greeted by the dummy SMTP engine; if it passes {names}, deferred once (score.defer_from)"
            return found.end("reconnect", "dialogue", text, LATER)
        if config.handoff.continue_to is not None:
            text = (
                f"greeted by the dummy SMTP engine; if it passes {names}, continued with the MTA at its first recipient"
            )
            return found.end("continued", "dialogue", text)
        text = f"greeted by the dummy SMTP engine; if it passes {names}, handed off when it connects again"
        return found.end("reconnect", "dialogue", text, LATER)
    failed = DNSBL in due and facts.score is not None and facts.score.highest >= config.dnsbl.threshold
    if failed or shut:
        return found.end("ignored", "handoff", "handed off if it is silent until greeted; it has not passed")
    if found.tests:
        return found.end("passed", "handoff", "handed off if it is silent until greeted")
    return found.end("untested", "handoff", "handed off: no test is due")


def _in_favor(facts: Facts) -> int:
    """What the memory and the evidence of its last session take from a client's score."""
    return sum(min(each.weight, 0) for each in (*facts.seen, *facts.evidence))


def _plus(score: Score, more: int) -> Score:
    return Score(score.total + more, score.lowest + more, score.highest + more, score.top, score.doubtful)


def _at_recipient(config: Config, facts: Facts, found: Verdict, lists: Score) -> tuple[str, bool]:
    """The reply of the score test if the lists and the memory are enough for one, and whether the client is deferred
    once. What its last session showed counts only in its favor: the next one may not show it.
    """
    more = sum(max(each.weight, 0) for each in facts.seen) + _in_favor(facts)
    if not facts.seen or lists.highest + more < config.dnsbl.threshold:
        return "", _defers(config, facts, lists.total + more)
    score = _plus(lists, more)
    heaviest = max(facts.seen, key=lambda each: each.weight)
    label = LABELS[heaviest.scorer] if heaviest.weight > 0 else ""
    dropped, refused = (_blocked(config, facts, score, drop, label) for drop in (True, False))
    _no_consequence(config, found, "score.action", config.score.action, dropped, refused)
    action = config.follows(config.score.action)
    return "" if action is Action.IGNORE else dropped if action is Action.DROP else refused, False


def _weigh(config: Config, facts: Facts, found: Verdict, lists: Score) -> None:
    """What the score test will add up at the first recipient."""
    weights = ", ".join(f"{key} {weight:+}" for key, weight in config.weights.items() if weight)
    found.add(
        "score",
        f"judged at the first recipient: {weights}; dnsbl.threshold is {config.dnsbl.threshold}, score.action is "
        f"{'shadow' if config.shadow else config.score.action}",
    )
    for each in facts.seen:
        found.add("memory", f"{each.text}, {each.weight:+} ({each.scorer})")
    total = lists.total + sum(each.weight for each in (*facts.seen, *facts.evidence))
    what = f"a score of {total} {'is below' if total < config.dnsbl.threshold else 'reaches'} dnsbl.threshold"
    if facts.evidence:
        shown = ", ".join(f"{each.scorer} {each.weight:+} ({each.text})" for each in facts.evidence)
        found.add("score", f"its last session showed {shown}: {what}")
    elif facts.seen:
        found.add("score", f"without evidence from its session, {what}")
    for text in _responses(config, facts, total):
        found.add("score", text)


def _responses(config: Config, facts: Facts, total: int) -> Iterator[str]:
    """What follows from a score below the threshold."""
    score, threshold = config.score, config.dnsbl.threshold
    if not config.responds:
        return
    shadow = "in shadow mode, only logged: " if config.shadow or score.action is Action.SHADOW else ""
    stamp = facts.stamps[SCORE] if facts.stamps is not None else 0
    deferred = core.deferred_at(stamp)
    is_new = facts.stamps is None or 0 in facts.stamps or deferred > 0
    if score.defer_from and deferred:
        yield f"deferred {span(max(0, facts.now - deferred))} ago; admitted from 1 minute to 2 days after that"
    elif 0 < score.defer_from <= total < threshold and is_new:
        yield f"{shadow}score.defer_from is {score.defer_from}: deferred once with {LATER}"
    if 0 < score.doubtful_from <= total < threshold and is_new:
        yield f"{shadow}score.doubtful_from is {score.doubtful_from}: if it passes, it goes to handoff.doubtful_to"
    if 0 < score.slow_from <= total:
        yield f"{shadow}score.slow_from is {score.slow_from}: replies are delayed by {score.slow_by} s each"


def _defers(config: Config, facts: Facts, total: int) -> bool:
    """Whether a client with this score is deferred now: for the first time, or again because it comes too early."""
    stamps = facts.stamps
    deferred = core.deferred_at(stamps[SCORE]) if stamps is not None else 0
    if not 0 < config.score.defer_from <= total < config.dnsbl.threshold or not config.cache.path:
        return False
    if config.follows(config.score.action) is Action.IGNORE or (deferred and _in_time(facts.now - deferred)):
        return False
    return bool(deferred) or stamps is None or 0 in stamps


def _in_time(age: int) -> bool:
    """Whether a deferred client that comes back after this time (s) is admitted, as deferral_ends of the core."""
    return 60 <= age <= 2 * 86400 or age < -4


def _comes_back(config: Config, facts: Facts) -> bool:
    """Whether the client was deferred long enough ago; with an MTA to continue with, it is judged again."""
    deferred = core.deferred_at(facts.stamps[SCORE]) if facts.stamps is not None else 0
    wanted = config.responds and config.score.defer_from and config.handoff.continue_to is None
    return bool(wanted and deferred and _in_time(facts.now - deferred))


def _access(access: Found) -> str:
    if not access.step:
        return "access.list does not decide"
    what = access.decision or "dunno"
    return f"{access.step}: {what}" + (f" ({quoted(access.result)})" if access.result is not None else "")


def _due(config: Config, facts: Facts, found: Verdict, enforced: bool) -> list[int]:
    """The enabled tests that are not passed; adds the cache's part of the decision to `found`."""
    under_test = facts.sessions - facts.relayed
    stamps = (0,) * len(TESTS) if facts.stamps is None or (enforced and not under_test) else facts.stamps
    enabled = policy.enabled_tests(config)
    due = [test for test in range(len(TESTS)) if enabled[test] and facts.now > stamps[test]]
    shared = f"{facts.key}: " if facts.key != facts.address else ""
    if enforced:
        found.add("cache", "not used: the client is on the deny list")
    elif under_test:
        sessions = "1 session is" if under_test == 1 else f"{under_test} sessions are"
        found.add("cache", f"not used: {sessions} open, and the client shares their results")
    elif facts.stamps is None:
        found.add(
            "cache", f"{shared}no entry: a new client" if config.cache.path else "cache.path is empty: a new client"
        )
    elif due:
        found.add("cache", f"{shared}no longer valid: " + ", ".join(TESTS[test] for test in due))
    else:
        found.add("cache", f"{shared}every pass is valid")
    return due


def _still_due(shared: SharedRecord, now: int, due: list[int]) -> tuple[list[int], str]:
    """The tests that are due after the cluster's answer, which comes during the greet wait, and what it says."""
    if shared.problem or shared.stamps is None:
        return due, shared.problem
    left = [test for test in due if shared.stamps[test] <= now]
    if not left:
        return left, f"known at {shared.host}: handed off as soon as the cluster has answered (PASS OLD)"
    passed = [TESTS[test] for test in due if test not in left]
    if not passed:
        return left, f"known at {shared.host}, but its record there lacks a valid pass of a test that is due"
    return left, f"known at {shared.host}: {', '.join(passed)} will not be repeated"


def _greet(facts: Facts, found: Verdict, due: list[int]) -> None:
    what = [f"{found.wait} s of silence" if PREGREET in due else f"at most {found.wait} s"]
    if DNSBL in due:
        what.append("1 list is queried" if facts.asked == 1 else f"{facts.asked} lists are queried")
    found.add("greet", "greet wait: " + ", ".join(what))


def _scored(config: Config, score: Score) -> str:
    threshold = config.dnsbl.threshold
    what = "is below" if score.total < threshold else "reaches"
    unsure = f"; {score.highest} with lists that are suspect" if score.highest > score.total else ""
    return f"score {score.total} {what} dnsbl.threshold {threshold}{unsure}"


def _too_often(config: Config, facts: Facts) -> str:
    """Which rate the next connection would exceed, or nothing."""
    limits = config.limits
    for key, made, most in (
        ("client_connection_rate", facts.rate, limits.client_connection_rate),
        ("client_network_rate", facts.network_rate, limits.client_network_rate),
    ):
        if 0 < most <= made:
            return f"{made} connections within a minute, and limits.{key} is {most}"
    return ""


def _no_consequence(config: Config, found: Verdict, key: str, action: Action, dropped: str, refused: str) -> None:
    """Add a step if a failed test does not lead to a reply; in shadow mode, with the reply that would be sent."""
    step = key.partition(".")[0]
    if action is Action.IGNORE:
        found.add(step, f"no consequence: {key} is ignore")
    elif config.follows(action) is Action.IGNORE:
        found.add(step, f"{_SHADOW} {dropped if action is Action.DROP else refused}")


def _vouched(config: Config, score: Score) -> bool:
    dnsbl = config.dnsbl
    return (
        dnsbl.allowlist_threshold < 0 and score.highest <= dnsbl.allowlist_threshold and score.highest < dnsbl.threshold
    )


def _blocked(config: Config, facts: Facts, score: Score, dropped: bool, label: str = "") -> str:
    """The reply to a client whose score reaches the threshold; temporary when an allow list without an answer could
    have saved it, or when only a suspect list has it. label: of the heaviest scorer; empty: the lists are the reason.
    """
    unsure = score.lowest < config.dnsbl.threshold
    code = ("421 4.7.1" if dropped else "450 4.7.1") if unsure else ("521 5.7.1" if dropped else "550 5.7.1")
    top = score.top if score.total >= config.dnsbl.threshold else score.doubtful
    reason = f": {label}" if label else f" using {facts.shown.get(top, top)}"
    return _soft(config, f"{code} Service unavailable; client [{facts.address}] blocked{reason}")


def _521(config: Config) -> str:
    return _soft(config, f"521 5.3.2 {_NOW}")


def _soft(config: Config, reply: str) -> str:
    """engine.soft_bounce."""
    if not config.engine.soft_bounce or not reply.startswith("5"):
        return reply
    return f"4{reply[1:4]}{'4' if reply[4] == '5' else reply[4]}{reply[5:]}"
