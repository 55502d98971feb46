"""Connections: the clients that are connected now."""

from __future__ import annotations

from typing import ClassVar, Literal, cast

from textual.binding import Binding, BindingType

from fastscreen.control.messages import HistorySession, HistorySessionsRequest, Session, SessionsRequest
from fastscreen.tui.figures import clock, count, duration
from fastscreen.tui.link import Link
from fastscreen.tui.palette import BAD, MUTED, OK, PLAIN, STRONG, WARN
from fastscreen.tui.past import Past
from fastscreen.tui.recorded import exported_sessions
from fastscreen.tui.table import Column, Row, Table
from fastscreen.tui.view import Export, TableView
from fastscreen.tui.wording import STAGE_ROLES, outcome

Sort = Literal["age", "score", "address"]
SORTS: tuple[Sort, ...] = ("age", "score", "address")
MAX_ROWS = 200


class ConnectionsView(TableView):
    title = "Connections"
    brief = "Conn"
    about = "The clients that are connected now"
    hint = "filter, such as: score>=3 stage:greet 192.0.2.0/24"
    columns = (
        Column("address", 15, 39, give=True, sort="address"),
        Column("name", 9, 40, give=True),
        Column("stage", 8, 8),
        Column("age", 6, 6, right=True, sort="age"),
        Column("score", 6, 6, right=True, sort="score"),
        Column("failed tests", 12, 40, give=True),
        Column("last command", 12),
    )
    past_hint = "filter, such as: score>=3 outcome:rejected helo:*.example mta:5*"
    past_columns = (
        Column("time", 8, 8),
        Column("address", 15, 39, give=True),
        Column("verdict", 10, 10),
        Column("code", 4, 4, right=True),
        Column("score", 5, 5, right=True),
        Column("MTA", 3, 3, right=True),
        Column("failed tests", 12, 30, give=True),
        Column("HELO name", 10),
    )
    keys = (("/", "filter"), ("s", "sort"), ("space", "pause"), ("Enter", "story"), ("x", "export"))
    past_keys = (("/", "filter"), ("n", "older"), ("b", "newest"), ("Enter", "story"), ("x", "export"))
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "sort", show=False),
        Binding("space", "pause", show=False),
        Binding("n", "older", show=False),
        Binding("b", "newest", show=False),
    ]

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._sort = SORTS[0]
        self._paused = False
        self._sessions: list[Session] = []
        self._recorded: list[HistorySession] = []
        self._before = 0  # where the page in the past begins
        self._next = 0  # where the one after it begins

    async def poll(self, link: Link) -> None:
        # A paused table still shows totals: one row is requested for them.
        limit = 1 if self._paused else MAX_ROWS
        found = await link.ask(SessionsRequest(self.typed, self._sort, limit))
        matched = f"{count(found.matched)} of {count(found.total)}" if self.typed else count(found.total)
        shown = len(self._sessions) if self._paused else min(len(found.sessions), MAX_ROWS)
        self.note(
            (matched, STRONG),
            " connection" if matched == "1" else " connections",
            f", {shown} shown" if shown < found.matched else "",
            f", sorted by {self._sort}",
            ("   PAUSED: press space to continue", WARN) if self._paused else "",
        )
        if not self._paused:
            self._sessions = found.sessions[:MAX_ROWS]
            self.table.sort = self._sort
            self.fill([row(session) for session in self._sessions])

    async def poll_past(self, link: Link, past: Past) -> None:
        wanted = HistorySessionsRequest(past.since, past.until, self.typed, before=self._before, limit=MAX_ROWS)
        found = await link.ask(wanted)
        self._recorded = found.sessions[:MAX_ROWS]
        self._next = found.next
        self.note(
            (count(len(self._recorded)), STRONG),
            f" session{'' if len(self._recorded) == 1 else 's'} of this {past.unit}, newest first",
            (f"; searched back to {clock(found.searched)}, n: go on", WARN)
            if found.searched is not None
            else "; n: older ones"
            if found.next
            else "",
        )
        self.past_table.fill([past_row(session) for session in self._recorded])

    def turn(self) -> None:
        self._before = self._next = 0
        super().turn()

    def reset(self) -> None:
        self._paused, self._sessions, self._recorded = False, [], []
        self._before = self._next = 0
        super().reset()

    def submit(self) -> None:
        self._before = self._next = 0
        super().submit()

    def action_older(self) -> None:
        """The next page of the past."""
        if self.viewer.past is not None and self._next:
            self._page(self._next)

    def action_newest(self) -> None:
        """The first page of the past."""
        if self.viewer.past is not None:
            self._page(0)

    def _page(self, before: int) -> None:
        self._before = before
        self.past_table.clear()
        self.again()

    def action_sort(self) -> None:
        """The next column to sort by."""
        if self.viewer.past is not None:
            return
        self._sort = SORTS[(SORTS.index(self._sort) + 1) % len(SORTS)]
        self.again()

    def action_pause(self) -> None:
        """Freeze the table, or let it go on."""
        if self.viewer.past is not None:
            return
        self._paused = not self._paused
        self.again()

    def on_table_heading(self, message: Table.Heading) -> None:
        self._sort = cast(Sort, message.sort)
        self.again()

    def on_table_chosen(self, message: Table.Chosen) -> None:
        if self.viewer.past is not None:
            recorded = next(session for session in self._recorded if str(session.id) == message.key)
            self.viewer.open_story(recorded.address, recorded.id)
            return
        session = next(session for session in self._sessions if key(session) == message.key)
        self.viewer.open_story(session.address)

    def exported(self) -> Export | None:
        if self.viewer.past is not None:
            return exported_sessions(self._recorded)
        return Export(
            ("worker", "session", "address", "port", "name", "stage", "age", "score", "failed", "evidence", "command"),
            [
                (
                    *(s.worker, s.session, s.address, s.port, s.name, s.stage, s.age, s.score),
                    *(",".join(s.failed), ",".join(s.evidence), s.command),
                )
                for s in self._sessions
            ],
        )


def key(session: Session) -> str:
    return f"{session.worker} {session.session} {session.address} {session.port}"


def row(session: Session) -> Row:
    """A session's row: what it failed and a score above nothing stand out."""
    score = session.score
    return Row(
        key(session),
        (
            (session.address, PLAIN),
            (session.name, MUTED),
            (session.stage, STAGE_ROLES.get(session.stage, PLAIN)),
            (duration(session.age), PLAIN),
            ("" if score is None else str(score), PLAIN if not score else WARN if score > 0 else OK),
            (",".join([*session.failed, *session.evidence]), BAD if session.failed else WARN),
            (session.command.removesuffix("\\r\\n"), PLAIN),
        ),
    )


def past_row(session: HistorySession) -> Row:
    """The row of a recorded session."""
    _, label, role = outcome(session.outcome)
    score, code, mta = session.score, session.verdict or session.reply, session.mta_reply
    return Row(
        str(session.id),
        (
            (clock(session.ended), MUTED),
            (session.address, PLAIN),
            (label, role),
            (str(code or ""), role),
            ("" if score is None else str(score), PLAIN if not score else WARN if score > 0 else OK),
            (str(mta or ""), BAD if mta >= 400 else OK),
            (",".join([*session.failed, *session.evidence]), BAD if session.failed else WARN),
            (session.helo, PLAIN),
        ),
    )
