"""The lines of Overview about the recording of sessions for the history, and about the memory of offenses."""

from __future__ import annotations

from rich.text import Text

from fastscreen.control.messages import Memory, Recorder
from fastscreen.tui.figures import count, duration, size
from fastscreen.tui.palette import BAD, HEADING, OK, PLAIN, WARN


def recorder_line(history: Recorder, now: float, width: int) -> Text:
    """now: s since 1970."""
    line = Text(" ").append("History  ", HEADING)
    if not history.running:
        line.append("the recorder is not running", BAD)
    elif not history.recording:
        line.append(f"suspended for {duration(max(now - history.since, 0.0))}: ", BAD).append(history.problem, PLAIN)
    else:
        line.append("recording", OK)
        line.append(f", {count(history.sessions)} sessions, {history.days} {'day' if history.days == 1 else 'days'}, ")
        line.append(f"{size(history.bytes)} of {size(history.max_size)}")
    if history.lost:
        line.append(f", {count(history.lost)} lost", WARN)
    if history.set_aside:
        line.append(f", {history.set_aside} damaged", BAD)
    line.truncate(width, overflow="ellipsis")
    return line


def memory_line(memory: Memory, width: int) -> Text:
    """The memory of offenses."""
    line = Text(" ").append("Offenses ", HEADING)
    if not memory.running:
        line.append("the recorder is not running", BAD)
    elif memory.problem:
        line.append("not written: ", BAD).append(memory.problem, PLAIN)
    else:
        line.append(f"{count(memory.entries)} networks and AS", OK).append(f", {size(memory.bytes)}; ")
        offenses = "offense" if memory.bad == 1 else "offenses"
        line.append(f"{count(memory.bad)} {offenses}, {count(memory.good)} good since start")
    if memory.dropped:
        line.append(f", {count(memory.dropped)} dropped", WARN)
    if memory.lost:
        line.append(f", {count(memory.lost)} lost", BAD)
    line.truncate(width, overflow="ellipsis")
    return line
