"""Story: all that is known about one address."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widget import Widget

from fastscreen.control.messages import Event, ListAnswer, Story, StoryRequest
from fastscreen.tui.figures import clock, duration
from fastscreen.tui.lines import ScrolledLines
from fastscreen.tui.link import Link
from fastscreen.tui.palette import ACCENT, BAD, HEADING, MUTED, OK, PLAIN, STRONG, WARN
from fastscreen.tui.view import Entry, Export, View
from fastscreen.tui.wording import ROLES, detail, stamp, wrapped

LIST_ROLES = {"listed": BAD, "not_listed": OK, "pending": WARN, "failed": BAD}


class StoryView(View):
    title = "Story"
    about = "All that is known about one address"
    keys = (("/", "address"), ("Esc", "back"), ("x", "export"))
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", show=False),
    ]

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._story: Story | None = None
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

    def tell(self, address: str) -> None:
        """Show this client's story from now on."""
        self._entry.value = address
        self._story = None
        self._lines.show([])
        self._lines.scroll_to(y=0, animate=False)

    async def poll(self, link: Link) -> None:
        if not self.address:
            self._say("Press / and type an address, or choose a client on another screen and press Enter.", MUTED)
            return
        self._story = await link.ask(StoryRequest(self.address))
        self._lines.show(told(self._story, link.now, self._lines.room - 1))

    def reset(self) -> None:
        self._story = None
        self._lines.show([])

    def complain(self, trouble: str) -> None:
        self._say(trouble, BAD)

    def _say(self, text: str, role: str) -> None:
        self._lines.show([Text(), Text(" ").append(text, role)])

    def action_back(self) -> None:
        """Back to the screen where the story was opened."""
        self.viewer.go_back()

    def submit(self) -> None:
        self.tell(self.address)
        super().submit()

    def exported(self) -> Export | None:
        events = self._story.events if self._story else []
        return Export(
            ("time", "worker", "session", "port", "kind", "list", "number", "text", "detail"),
            [(e.time, e.worker, e.session, e.port, e.kind, e.zone, e.number, e.text, detail(e)) for e in events],
        )


def told(story: Story, now: float, width: int) -> list[Text]:
    """A story as lines."""
    events = sorted(story.events, key=lambda event: event.time)
    lines = _head(story, events)
    if story.lists:
        lines += [_heading("DNSBLs")] + [_list(answer) for answer in story.lists]
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
    return lines


def _head(story: Story, events: list[Event]) -> list[Text]:
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
