"""Cache: who has passed which test, and until when."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from fastscreen.control.messages import CacheEntries, CacheEntry, CacheStats, Deleted
from fastscreen.tui.dialogs import Confirm
from fastscreen.tui.figures import bar, count, duration, octets, share
from fastscreen.tui.lines import Lines
from fastscreen.tui.link import ControlError, Link
from fastscreen.tui.palette import ACCENT, BAD, MUTED, OK, PLAIN, STRONG, WARN
from fastscreen.tui.table import Column, Row, Table
from fastscreen.tui.view import Export, TableView
from fastscreen.tui.wording import stamps

PAGE = 200


class CacheView(TableView):
    title = "Cache"
    about = "Who has passed which test, until when"
    hint = "prefix, such as: 192.0.2.0/24 or 2001:db8::/32"
    columns = (Column("address", 15, 39, give=True), Column("passed, and for how long that holds", 20))
    keys = (("/", "prefix"), ("n b", "pages"), ("d D", "delete, all"), ("Enter", "story"), ("x", "export"))
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
        self._stats(await link.ask(CacheStats, "cache.stats"))
        found = await link.ask(CacheEntries, "cache.list", prefix=self.typed, after=self._after, limit=PAGE)
        self._entries, self._more = found.entries[:PAGE], found.more
        self.note(
            (str(len(self._entries)), STRONG),
            f" entries of {self.typed}" if self.typed else " entries",
            f" after {self._after}" if self._after else "",
            ", n: more" if self._more else "",
            "" if link.may_act else ", not yours to delete",
        )
        self.fill([row(entry, link.now) for entry in self._entries])

    def _stats(self, stats: CacheStats) -> None:
        width = self.size.width
        size = Text(" ").append(count(stats.entries), STRONG).append(" entries, ", MUTED)
        size.append(octets(stats.size), STRONG).append(f" of {octets(stats.max_size)}", MUTED)
        size.append("   hits ", MUTED).append(share(stats.hits, stats.hits + stats.misses), OK)
        size.append(f" of {count(stats.hits + stats.misses)} look-ups", MUTED)
        place = Text(" ").append(stats.path, MUTED)
        lines = [size, place]
        most = max((step.entries for step in stats.expiring), default=0)
        for step in stats.expiring[: 4 if self.size.height < 30 else 6]:
            what = f"expire within {duration(step.within)}" if step.within else "expired already"
            line = Text(" ").append(f"{what:<21}", MUTED)
            line.append(f"{count(step.entries):>10} ")
            lines.append(line.append(bar(step.entries, most, max(width - 36, 8)), ACCENT))
        self._box.styles.height = len(lines)
        self._box.show(lines)

    def reset(self) -> None:
        self._entries, self._after, self._more = [], "", False
        super().reset()

    def submit(self) -> None:
        self._after = ""
        super().submit()

    def action_next_page(self) -> None:
        """What comes behind the last entry shown."""
        if self._more and self._entries:
            self._after = self._entries[-1].address
            self.table.clear()
            self.again()

    def action_first_page(self) -> None:
        """The first entries of the prefix."""
        self._after = ""
        self.table.clear()
        self.again()

    def action_delete(self) -> None:
        """Delete the chosen entry, if the user says so."""
        if (address := self.table.chosen) is not None:
            self._delete(f"Delete what the cache has of {address}? It will be tested again.", address=address)

    def action_delete_prefix(self) -> None:
        """Delete all entries of the prefix, if the user says so."""
        if self.typed:
            prefix = self.typed
            self._delete(f"Delete all that the cache has of {prefix}? All of it will be tested again.", prefix=prefix)
        else:
            self.note(("type a prefix first (/): the whole cache is not deleted from here", WARN))

    def _delete(self, question: str, **what: str) -> None:
        link = self.link
        if not link.may_act:
            self.note(("only root and the screening user may delete", BAD))
            return

        async def delete() -> None:
            try:
                done = await link.ask(Deleted, "cache.delete", **what)
            except ControlError as error:
                self.viewer.say(str(error), bad=True)
            else:
                self.viewer.say(f"{count(done.deleted)} deleted")
            self.again()

        def answered(yes: bool | None) -> None:
            if yes:
                self.run_worker(delete())

        self.app.push_screen(Confirm(question), answered)

    def on_table_chosen(self, message: Table.Chosen) -> None:
        self.viewer.open_story(message.key)

    def exported(self) -> Export | None:
        tests = sorted({test for entry in self._entries for test in entry.stamps})
        return Export(
            ("address", *tests),
            [(entry.address, *(entry.stamps.get(test) for test in tests)) for entry in self._entries],
        )


def row(entry: CacheEntry, now: float) -> Row:
    """An entry's row."""
    held = any(isinstance(value, int | float) and value > now for value in entry.stamps.values())
    return Row(entry.address, ((entry.address, PLAIN), (stamps(entry.stamps, now), PLAIN if held else MUTED)))
