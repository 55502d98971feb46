"""Cache: which client has passed which test, and until when."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from fastscreen.control.messages import (
    CacheDeleteRequest,
    CacheEntry,
    CacheListRequest,
    CacheStats,
    CacheStatsRequest,
)
from fastscreen.tui.dialogs import Confirm
from fastscreen.tui.figures import bar, count, duration, share, size
from fastscreen.tui.lines import Lines
from fastscreen.tui.link import ControlError, Link
from fastscreen.tui.palette import ACCENT, BAD, MUTED, OK, PLAIN, STRONG, WARN
from fastscreen.tui.table import Column, Row, Table
from fastscreen.tui.view import Export, TableView
from fastscreen.tui.wording import stamps

PAGE = 200


class CacheView(TableView):
    title = "Cache"
    about = "Which client has passed which test, and until when"
    hint = "prefix, such as: 192.0.2.0/24 or 2001:db8::/32"
    columns = (Column("address", 15, 39, give=True), Column("passed tests, and for how long they stay valid", 20))
    keys = (("/", "prefix"), ("n b", "pages"), ("d D", "delete one, all"), ("Enter", "story"), ("x", "export"))
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n", "next_page", show=False),
        Binding("b", "first_page", show=False),
        Binding("d", "delete", show=False),
        Binding("D", "delete_prefix", show=False),
    ]

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._entries: list[CacheEntry] = []
        self._after = ""
        self._more = False
        self._box = Lines(id="cache-stats")

    def compose(self) -> ComposeResult:
        yield self._box
        yield from super().compose()

    async def poll(self, link: Link) -> None:
        self._stats(await link.ask(CacheStatsRequest()))
        found = await link.ask(CacheListRequest(self.typed, self._after, PAGE))
        self._entries, self._more = found.entries[:PAGE], found.more
        self.note(
            (str(len(self._entries)), STRONG),
            " entry" if len(self._entries) == 1 else " entries",
            f" of {self.typed}" if self.typed else "",
            f" after {self._after}" if self._after else "",
            ", n: more" if self._more else "",
            "" if link.may_act else ", read-only for this user",
        )
        self.fill([row(entry, link.now) for entry in self._entries])

    def _stats(self, stats: CacheStats) -> None:
        width = self.size.width
        entries = " entry, " if stats.entries == 1 else " entries, "
        line = Text(" ").append(count(stats.entries), STRONG).append(entries, MUTED)
        line.append(size(stats.size), STRONG).append(f" of {size(stats.max_size)}", MUTED)
        line.append("   hits ", MUTED).append(share(stats.hits, stats.hits + stats.misses), OK)
        line.append(f" of {count(stats.hits + stats.misses)} lookups", MUTED)
        place = Text(" ").append(stats.path, MUTED)
        lines = [line, place]
        most = max((step.entries for step in stats.expiring), default=0)
        for step in stats.expiring[: 4 if self.size.height < 30 else 6]:
            what = f"expire within {duration(step.within)}" if step.within else "have expired"
            row = Text(" ").append(f"{what:<21}", MUTED)
            row.append(f"{count(step.entries):>10} ")
            lines.append(row.append(bar(step.entries, most, max(width - 36, 8)), ACCENT))
        self._box.styles.height = len(lines)
        self._box.show(lines)

    def reset(self) -> None:
        self._entries, self._after, self._more = [], "", False
        super().reset()

    def submit(self) -> None:
        self._after = ""
        super().submit()

    def action_next_page(self) -> None:
        """The next page."""
        if self._more and self._entries:
            self._after = self._entries[-1].address
            self.table.clear()
            self.again()

    def action_first_page(self) -> None:
        """The first page."""
        self._after = ""
        self.table.clear()
        self.again()

    def action_delete(self) -> None:
        """Delete the chosen entry, after a question."""
        if (address := self.table.chosen) is not None:
            self._delete(
                f"Delete {address} from the cache? It will be tested again.", CacheDeleteRequest(address=address)
            )

    def action_delete_prefix(self) -> None:
        """Delete all entries of the prefix, after a question."""
        if self.typed:
            prefix = self.typed
            question = f"Delete all entries of {prefix} from the cache? These clients will be tested again."
            self._delete(question, CacheDeleteRequest(prefix=prefix))
        else:
            self.note(("type a prefix first (/): the view cannot delete the whole cache", WARN))

    def _delete(self, question: str, request: CacheDeleteRequest) -> None:
        link = self.link
        if not link.may_act:
            self.note(("only root and fastscreen's user may delete entries", BAD))
            return

        async def delete() -> None:
            try:
                done = await link.ask(request)
            except ControlError as error:
                self.viewer.say(str(error), bad=True)
            else:
                self.viewer.say(f"{count(done.deleted)} {'entry' if done.deleted == 1 else 'entries'} deleted")
            self.again()

        def answered(yes: bool | None) -> None:
            if yes:
                self.run_worker(delete())

        self.app.push_screen(Confirm(question), answered)

    def on_table_chosen(self, message: Table.Chosen) -> None:
        self.viewer.open_story(message.key)

    def exported(self) -> Export | None:
        tests = sorted({test for entry in self._entries for test in entry.passed_until})
        return Export(
            ("address", *tests),
            [(entry.address, *(entry.passed_until.get(test) for test in tests)) for entry in self._entries],
        )


def row(entry: CacheEntry, now: float) -> Row:
    """An entry's row."""
    held = any(isinstance(value, int | float) and value > now for value in entry.passed_until.values())
    return Row(entry.address, ((entry.address, PLAIN), (stamps(entry.passed_until, now), PLAIN if held else MUTED)))
