"""The line of Overview about the recording of sessions for the history."""

from __future__ import annotations

from rich.text import Text

from fastscreen.control.messages import Recorder
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
