"""The words for events and cache entries, and their roles on the screen."""

from __future__ import annotations

import textwrap

from fastscreen.control.messages import TESTS, Event, PassedUntil
from fastscreen.tui.figures import count, date, duration
from fastscreen.tui.palette import ACCENT, ALARM, BAD, MUTED, OK, PLAIN, WARN

ROLES = {
    **dict.fromkeys(("allowlisted", "cached", "passed", "handed_off", "continued"), OK),
    **dict.fromkeys((test.event for test in TESTS if test.event == test.key), BAD),
    **dict.fromkeys(("denylisted", "command_limit", "handoff_failed", "rejected"), BAD),
    **dict.fromkeys(
        ("listed", "list_failed", "busy", "continue_failed", "vetoed", "shadow_rejected", "evidence"), WARN
    ),
    **dict.fromkeys(("score_deferred", "doubtful", "slowed"), WARN),
    **dict.fromkeys(("bypassed", "stress_on"), ALARM),
    **dict.fromkeys(("command", "reply"), ACCENT),
    **dict.fromkeys(("connect", "greet", "hangup", "disconnect", "relayed"), MUTED),
}
STAGE_ROLES = {"greet": PLAIN, "dialogue": ACCENT, "queued": WARN, "handoff": OK, "continue": WARN, "relay": OK}

OUTCOMES = {
    "handed_off": ("handed off to the MTA", "handed off", OK),
    "relayed": ("relayed to the MTA", "relayed", OK),
    "continued": ("continued with an MTA", "continued", OK),
    "deferred": ("deferred", "deferred", WARN),
    "rejected": ("rejected", "rejected", BAD),
    "left": ("left without a verdict", "left", MUTED),
    "busy": ("rejected: busy", "busy", BAD),
    "failed": ("hand-off failed", "failed", BAD),
}
"""How a recorded session ended: words, a word, and role."""
ADMITTED = ("handed_off", "relayed", "continued")


def seconds(number: object) -> str:
    """A duration, if it is one."""
    return duration(number) if isinstance(number, int | float) else str(number or "")


def detail(event: Event) -> str:
    """What an event says beyond its kind."""
    number, text = event.number, event.text or ""
    match event.kind:
        case "command" | "continued":
            return text.removesuffix("\\r\\n")
        case "reply":  # our own: each of its lines begins with the code
            return text.removesuffix("\\r\\n").replace("\\r\\n", " ")
        case "connect" | "vetoed":
            return f"to port {number}" if number else text
        case "greet":
            return f"waits for {seconds(number)}"
        case "pregreet":
            return f"{number} byte{'s' if number != 1 else ''}: {text}"
        case "listed":
            return f"{event.zone}: {number}"
        case "list_failed":
            return f"{event.zone}: {number}"
        case "rank" | "slowed":
            return f"score {number}"
        case "score" | "score_deferred":
            return f"score {number}: {text}"
        case "doubtful":
            return f"score {number}: to {text}"
        case "evidence":
            return f"{number:+} {text}" if isinstance(number, int | float) else text
        case "passed":
            return {"new": "PASS NEW", "old": "PASS OLD"}.get(str(number), str(number or ""))
        case "cached":
            return "PASS OLD"
        case "handed_off":
            return f"to the MTA in {seconds(number)}"
        case "relayed":
            return f"{number} bytes in, {text} out"
        case "hangup" | "disconnect":
            return f"after {seconds(number)}"
        case "command_limit":
            return f"{number}: {text}" if text else str(number)
        case "stress_on" | "stress_off":
            return f"{count(number)} session{'s' if number != 1 else ''}" if isinstance(number, int | float) else ""
    return text or (str(number) if number is not None else "")


def outcome(name: str) -> tuple[str, str, str]:
    """Words, a word, and role; a newer daemon may have others."""
    words = name.replace("_", " ")
    return OUTCOMES.get(name, (words, words, PLAIN))


def stamp(value: float | str | None, now: float) -> tuple[str, str]:
    """An expiry time of the cache, `now` by the daemon's clock: text and role."""
    if value is None or isinstance(value, str):
        return "not passed yet" if value == "new" else value or "-", MUTED
    if value <= now:
        return f"expired {duration(now - value)} ago", WARN
    return f"{duration(value - now)} left, until {date(value)}", OK


def stamps(record: PassedUntil | None, now: float) -> str:
    """A whole entry in short: each test and the time left."""
    parts = []
    for test, value in (record or {}).items():
        if isinstance(value, int | float):
            parts.append(f"{test} {duration(value - now)}" if value > now else f"{test} expired")
        elif value:
            parts.append(f"{test} {value}")
    return ", ".join(parts)


def wrapped(text: str, width: int) -> list[str]:
    """Text in pieces of a width, broken at spaces where possible."""
    return textwrap.wrap(text, max(width, 1)) or [""]
