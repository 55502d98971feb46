"""Connections: the clients that are connected now."""

from __future__ import annotations

from typing import ClassVar, Literal, cast

from textual.binding import Binding, BindingType

from fastscreen.control.messages import Session, SessionsRequest
from fastscreen.tui.figures import count, duration
from fastscreen.tui.link import Link
from fastscreen.tui.palette import BAD, MUTED, OK, PLAIN, STRONG, WARN
from fastscreen.tui.table import Column, Row, Table
from fastscreen.tui.view import Export, TableView
from fastscreen.tui.wording import STAGE_ROLES

Sort = Literal["age", "score", "address"]
SORTS: tuple[Sort, ...] = ("age", "score", "address")
MAX_ROWS = 200


class ConnectionsView(TableView):
    title = "Connections"
    brief = "Conns"
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
    keys = (("/", "filter"), ("s", "sort"), ("space", "pause"), ("Enter", "story"), ("x", "export"))
    BINDINGS: ClassVar[list[BindingType]] = [Binding("s", "sort", show=False), Binding("space", "pause", show=False)]

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._sort = SORTS[0]
        self._paused = False
        self._sessions: list[Session] = []

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

    def reset(self) -> None:
        self._paused, self._sessions = False, []
        super().reset()

    def action_sort(self) -> None:
        """The next column to sort by."""
        self._sort = SORTS[(SORTS.index(self._sort) + 1) % len(SORTS)]
        self.again()

    def action_pause(self) -> None:
        """Freeze the table, or let it go on."""
        self._paused = not self._paused
        self.again()

    def on_table_heading(self, message: Table.Heading) -> None:
        self._sort = cast(Sort, message.sort)
        self.again()

    def on_table_chosen(self, message: Table.Chosen) -> None:
        session = next(session for session in self._sessions if key(session) == message.key)
        self.viewer.open_story(session.address)

    def exported(self) -> Export | None:
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
