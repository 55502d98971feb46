"""Story: all that is known about one address, now, or in a recorded session."""

from __future__ import annotations

import contextlib
import ipaddress
import time
from collections.abc import Sequence
from typing import ClassVar

import msgspec
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widget import Widget

from fastscreen.control.messages import (
    Event,
    HistorySession,
    HistorySessionsRequest,
    ListAnswer,
    Story,
    StoryRequest,
)
from fastscreen.tui.figures import clock, date, duration
from fastscreen.tui.lines import ScrolledLines
from fastscreen.tui.link import ControlError, Link, Unreachable
from fastscreen.tui.palette import ACCENT, BAD, HEADING, MUTED, OK, PLAIN, STRONG, WARN
from fastscreen.tui.past import Past
from fastscreen.tui.recorded import brief, exported_sessions, part, record, recorded
from fastscreen.tui.view import Entry, Export, View
from fastscreen.tui.views.networks import reputation_line
from fastscreen.tui.wording import ROLES, detail, stamp, wrapped

MAX_ROWS = 100  # recorded sessions of one request
EARLIER_ROWS = 20  # of a client that is there
EARLIER_SECONDS = 10.0  # between two requests for them
CUT = "recorded for {}: history.mask cuts addresses, so it may be another client's"
LIST_ROLES = {"listed": BAD, "not_listed": OK, "pending": WARN, "failed": BAD}


class StoryView(View):
    title = "Story"
    about = "All that is known about one address"
    keys = (("/", "address"), ("n", "last recorded session"), ("Esc", "back"), ("x", "export"))
    past_keys = (("/", "address"), ("n", "older session"), ("b", "newer one"), ("Esc", "back"), ("x", "export"))
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", show=False),
        Binding("n", "session(1)", show=False),
        Binding("b", "session(-1)", show=False),
    ]

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._story: Story | None = None
        self._recorded: list[HistorySession] = []  # of the past, or earlier ones
        self._next = 0  # where older ones begin
        self._asked = 0.0  # monotonic: when earlier ones were asked for
        self._chosen = 0  # the recorded session that is shown in full, by its id
        self._entry = Entry("address, such as: 192.0.2.1 or 2001:db8::25")
        self._lines = ScrolledLines()

    def compose(self) -> ComposeResult:
        yield self._entry
        yield self._lines

    @property
    def main(self) -> Widget | None:
        return self._lines

    @property
    def entry(self) -> Entry | None:
        return self._entry

    @property
    def address(self) -> str:
        return self._entry.value.strip()

    def tell(self, address: str, session: int = 0) -> None:
        """Show this client's story from now on. session: the recorded one that is shown in full."""
        self._entry.value = address
        self._chosen = session
        self._forget()

    def _forget(self) -> None:
        self._story = None
        self._recorded, self._next, self._asked = [], 0, 0.0
        self._lines.show([])
        self._lines.scroll_to(y=0, animate=False)

    def _has_address(self) -> bool:
        if not self.address:
            self._say("Press / and type an address, or choose a client on another screen and press Enter.", MUTED)
        return bool(self.address)

    async def poll(self, link: Link) -> None:
        if not self._has_address():
            return
        self._story = await link.ask(StoryRequest(self.address))
        if time.monotonic() >= self._asked + EARLIER_SECONDS:
            self._asked = time.monotonic()
            self._recorded = await self._earlier(link)
        self._lines.show(told(self._story, link.now, self._lines.room - 1, self._recorded))

    async def _earlier(self, link: Link) -> list[HistorySession]:
        """Recorded sessions whose beginning the events do not have; none if this daemon records none."""
        events = self._story.events if self._story else []
        connects = [(event.port, event.time) for event in events if event.kind == "connect"]
        try:
            found = await link.ask(HistorySessionsRequest(address=self.address, limit=MAX_ROWS))
        except Unreachable:
            raise
        except ControlError:
            return []
        return [
            session
            for session in found.sessions
            if not any(port == session.port and abs(at - session.began) < 1.0 for port, at in connects)
        ]

    async def poll_past(self, link: Link, past: Past) -> None:
        if not self._has_address():
            return
        if not self._recorded or past.until > link.now:
            await self._ask(link, past)
        self._draw()

    async def _ask(self, link: Link, past: Past, before: int = 0) -> None:
        """Sessions that ended before what is shown does; before: those that follow."""
        wanted = HistorySessionsRequest(until=past.until, address=self.address, before=before, limit=MAX_ROWS)
        found = await link.ask(wanted)
        if self._chosen and not before and not any(each.id == self._chosen for each in found.sessions):
            # It is among older ones.
            found = await link.ask(msgspec.structs.replace(wanted, before=self._chosen + 1))
        self._recorded = [*(self._recorded if before else ()), *found.sessions]
        self._next = found.next

    @property
    def _place(self) -> int:
        """The session that is shown in full, among the recorded ones."""
        return next((at for at, session in enumerate(self._recorded) if session.id == self._chosen), 0)

    def _draw(self) -> None:
        past = self.viewer.past
        if past is not None:
            place, more = self._place, bool(self._next)
            self._lines.show(told_past(self.address, past, self._recorded, place, more, self._lines.room - 1))

    def on_resize(self) -> None:
        self.call_after_refresh(self._draw)

    def turn(self) -> None:
        past = self.viewer.past
        if past is None or not any(s.id == self._chosen and past.since <= s.ended < past.until for s in self._recorded):
            self._chosen = 0
        self._forget()

    def reset(self) -> None:
        self._chosen = 0
        self._forget()

    def complain(self, trouble: str) -> None:
        self._say(trouble, BAD)

    def _say(self, text: str, role: str) -> None:
        self._lines.show([Text(), Text(" ").append(text, role)])

    async def action_session(self, by: int) -> None:
        """An older or a newer recorded session; from the present, the last one."""
        past, place = self.viewer.past, self._place + by
        if past is None:
            if by > 0 and not self._recorded and self.address:
                with contextlib.suppress(ControlError):
                    self._recorded = await self._earlier(self.link)
            if by > 0 and self._recorded:
                self._chosen = self._recorded[0].id
                self.viewer.go_to_past(self._recorded[0].ended)
            return
        if place == len(self._recorded) and self._next:
            try:
                await self._ask(self.link, past, self._next)
            except ControlError as error:
                self.viewer.say(str(error), bad=True)
        if 0 <= place < len(self._recorded):
            self._chosen = self._recorded[place].id
            self._lines.scroll_to(y=0, animate=False)
            self._draw()

    def action_back(self) -> None:
        """Back to the screen where the story was opened."""
        self.viewer.go_back()

    def submit(self) -> None:
        self.tell(self.address)
        super().submit()

    def exported(self) -> Export | None:
        if self.viewer.past is not None:
            return exported_sessions(self._recorded)
        events = self._story.events if self._story else []
        return Export(
            ("time", "worker", "session", "port", "kind", "list", "number", "text", "detail"),
            [(e.time, e.worker, e.session, e.port, e.kind, e.zone, e.number, e.text, detail(e)) for e in events],
        )


def told_past(
    address: str, past: Past, sessions: Sequence[HistorySession], place: int, more: bool, width: int
) -> list[Text]:
    """A recorded session in full, and the others in one line each. place: of the one in full. more: there are more."""
    head = Text(" ").append(address, STRONG)
    if not sessions:
        return [head, Text(" ").append(f"no session was recorded until the end of this {past.unit}", WARN)]
    session = sessions[place]
    head.append(f"   recorded session {place + 1} of {len(sessions)}{' or more' if more else ''}, ", MUTED)
    head.append(f"{date(session.ended)}:{clock(session.ended)[6:]}", STRONG)
    lines = [head]
    if not _is_same(address, session.address):
        lines.append(Text(" ").append(CUT.format(session.address), WARN))
    if not past.since <= session.ended < past.until:
        lines.append(Text(" ").append(f"not in this {past.unit}: before it", WARN))
    lines += record(session, width)
    lines.append(_heading(f"Sessions until the end of this {past.unit}, the newest first"))
    return [*lines, *recorded(sessions, place, width, EARLIER_ROWS)]


def _is_same(typed: str, recorded: str) -> bool:
    """Whether this is the address as it was typed, which may be written in other ways."""
    try:
        address = ipaddress.ip_address(typed)
    except ValueError:
        return True  # fastscreen understood it
    return str(getattr(address, "ipv4_mapped", None) or address) == recorded


def told(story: Story, now: float, width: int, earlier: Sequence[HistorySession] = ()) -> list[Text]:
    """A story as lines. earlier: recorded sessions of before the events."""
    events = sorted(story.events, key=lambda event: event.time)
    lines = _head(story, events, len(earlier))
    if story.lists:
        lines += [_heading("DNSBLs")] + [_list(answer) for answer in story.lists]
    if evidence := _evidence(events):
        lines.append(_heading("Evidence for the score"))
        for scorer, (weight, text) in evidence.items():
            lines += part(scorer, weight, text, width, 3)
    if story.memory is not None:
        lines += [_heading("Memory of offenses"), *_memory(story, width)]
    lines += [_heading("Cache"), *_cache(story, now)]
    lines.append(_heading("Timeline"))
    if story.complete_since is not None:
        lines.append(Text(" ").append(f"events are complete since {clock(story.complete_since)}", MUTED))
    if not events:
        lines.append(Text(" ").append("no event of this client", MUTED))
    first = events[0].time if events else 0.0
    sessions: set[int] = {event.session for event in events if event.session}
    for event in events:
        lines += _event(event, first, width, len(sessions) > 1)
    if earlier:
        lines.append(_heading("Earlier sessions, from the history"))
        if earlier[0].address != story.address:
            lines.append(Text("   ").append(CUT.format(earlier[0].address), WARN))
        lines += [brief(session, width) for session in earlier[:EARLIER_ROWS]]
        if len(earlier) > EARLIER_ROWS:
            lines.append(Text("   ").append("and older ones: press n", MUTED))
    return lines


def _head(story: Story, events: list[Event], earlier: int) -> list[Text]:
    head, line = Text(" ").append(story.address, STRONG), Text(" ")
    if story.name:
        head.append(f" {story.name}", MUTED)
    stages = [f"{session.stage} for {duration(session.age)}" for session in story.sessions]
    head.append("   now: ", MUTED).append(", ".join(stages[:2]) or "not connected", ACCENT if stages else MUTED)
    if len(stages) > 2:
        head.append(f" and {len(stages) - 2} more", MUTED)
    scores = [event.score for event in events if event.score is not None]
    scores += [session.score for session in story.sessions if session.score is not None]
    if scores:
        line.append("score ", MUTED).append(str(scores[-1]), WARN if scores[-1] > 0 else OK)
    found = [*(session.failed for session in story.sessions), *(event.failed for event in events)]
    failed = sorted({name for names in found for name in names})
    if failed:
        line.append("   failed ", MUTED).append(", ".join(failed), BAD)
    heard = [*(session.evidence for session in story.sessions), *(event.evidence for event in events)]
    if evidence := sorted({name for names in heard for name in names}):
        line.append("   evidence ", MUTED).append(", ".join(evidence), WARN)
    if earlier:
        number = f"{earlier}{' or more' if earlier == MAX_ROWS else ''}"
        line.append("   earlier sessions ", MUTED).append(number, STRONG).append(" below; n: the last one", MUTED)
    return [head, line] if line.plain.strip() else [head]


def _heading(text: str) -> Text:
    return Text(" ").append(text, HEADING)


def _list(answer: ListAnswer) -> Text:
    line = Text("   ").append(f"{answer.zone:<32} ")
    line.append(f"{answer.state.replace('_', ' '):<11}", LIST_ROLES.get(answer.state, MUTED))
    if answer.state == "listed":
        line.append(f"{answer.weight:>+4}  ", BAD if answer.weight > 0 else OK)
        line.append(" ".join(answer.answers), PLAIN)
    return line


def _evidence(events: list[Event]) -> dict[str, tuple[int, str]]:
    """Of the last session that has any: weight and text, by scorer."""
    found = [event for event in events if event.kind == "evidence"]
    parts: dict[str, tuple[int, str]] = {}
    for event in found:
        if (event.worker, event.session) == (found[-1].worker, found[-1].session):
            scorer, _, text = (event.text or "").partition(": ")
            parts[scorer] = int(event.number) if isinstance(event.number, int | float) else 0, text
    return {scorer: parts[scorer] for scorer in parts if scorer in found[-1].evidence} if found else {}


def _memory(story: Story, width: int) -> list[Text]:
    """What the memory knows, and below it what it says against the client now."""
    lines = [reputation_line(each) for each in story.memory or ()]
    if not lines:
        lines = [Text("   ").append("nothing is known of this address, its network or its AS", MUTED)]
    for each in story.seen:
        lines += part(each.scorer, each.weight, f"{each.text} (now)", width, 3)
    return lines


def _cache(story: Story, now: float) -> list[Text]:
    if story.cache is None:
        return [Text("   ").append("no entry: every test is due", MUTED)]
    return [Text("   ").append(f"{test:<18} ").append(*stamp(value, now)) for test, value in story.cache.items()]


def _event(event: Event, first: float, width: int, several: bool) -> list[Text]:
    """One event: time since the first, kind and details, on several lines if it is long."""
    head = f" {event.time - first:>+10.3f} "
    kind = f"{event.kind:<17}"
    number = f"#{event.session}" if event.session else ""  # a list's answer is about the address, not a session
    session = f"{number:<5} " if several else ""
    indent = len(head) + len(kind) + len(session)
    pieces = wrapped(detail(event), width - indent)
    line = (
        Text().append(head, MUTED).append(session, MUTED).append(kind, ROLES.get(event.kind, PLAIN)).append(pieces[0])
    )
    return [line, *(Text(" " * indent).append(piece) for piece in pieces[1:])]
