"""Only cells that have changed are painted, and what a table does with its rows."""

from __future__ import annotations

from rich.text import Text
from textual.app import App, ComposeResult
from textual.geometry import Region

from fastscreen.tui.lines import Lines, ScrolledLines
from fastscreen.tui.table import Column, Row, Table
from tui.pilot import driven

COLUMNS = (Column("a", 5, 8, give=True), Column("n", 3, 5, right=True, sort="n"), Column("rest", 4))


class Watched(Table):
    """A table that remembers which regions it has asked to be painted."""

    asked: list[Region]

    def refresh(self, *regions: Region, **named: bool) -> Watched:
        self.asked = [*getattr(self, "asked", []), *regions]
        super().refresh(*regions, **named)
        return self


class Bench(App[None]):
    def compose(self) -> ComposeResult:
        self.table = Watched(COLUMNS)
        self.tail = Table(COLUMNS, tail=True)
        self.lines = ScrolledLines()
        for widget in (self.table, self.tail, self.lines):
            widget.styles.height = 6
            yield widget


def rows(*numbers: int, rest: str = "x") -> list[Row]:
    return [Row(f"key {number}", (("name", ""), (str(number), ""), (rest, ""))) for number in numbers]


def shown(lines: Lines) -> list[str]:
    return [lines.line_at(y).plain.rstrip() for y in range(lines.size.height)]


@driven
async def test_one_cell_changes_one_cell() -> None:
    async with Bench().run_test(size=(30, 24)) as pilot:
        app = pilot.app
        assert isinstance(app, Bench)
        app.table.fill(rows(100, 200, 300))
        await pilot.pause()
        app.table.asked.clear()
        app.table.fill(rows(100, 200, 300))
        assert app.table.asked == []
        changed = rows(100, 200, 300)
        changed[1] = Row("key 200", (("name", ""), ("207", ""), ("x", "")))
        app.table.fill(changed)
        assert app.table.asked == [Region(9, 2, 1, 1)]


@driven
async def test_the_cursor_stays_on_its_row() -> None:
    async with Bench().run_test(size=(30, 24)) as pilot:
        app = pilot.app
        assert isinstance(app, Bench)
        app.table.fill(rows(1, 2, 3))
        app.table.focus()
        assert app.table.chosen == "key 1"
        app.table.fill(rows(9, 1, 2, 3))
        assert app.table.chosen == "key 9"  # it was not put anywhere, so it is at the top
        await pilot.press("down", "down")
        assert app.table.chosen == "key 2"
        app.table.fill(rows(3, 9, 1, 2))
        assert app.table.chosen == "key 2"
        app.table.fill(rows(*range(30, 50), 2))
        assert app.table.chosen == "key 2"
        assert shown(app.table)[-1].split() == ["name", "2", "x"]  # and it is in sight
        app.table.fill(rows(7))
        assert app.table.chosen == "key 7"
        app.table.fill([])
        assert app.table.chosen is None


@driven
async def test_moving_about() -> None:
    async with Bench().run_test(size=(30, 24)) as pilot:
        app = pilot.app
        assert isinstance(app, Bench)
        app.table.fill(rows(*range(100)))
        app.table.focus()
        for keys, at in ((("end",), 99), (("up",), 98), (("pageup",), 94), (("home",), 0), (("j", "j", "k"), 1)):
            await pilot.press(*keys)
            assert app.table.chosen == f"key {at}"
        await pilot.press("pagedown", "pagedown", "G", "down")
        assert app.table.chosen == "key 99"
        await pilot.click(app.table, offset=(3, 2))
        assert app.table.chosen == "key 96"


@driven
async def test_a_tail_follows_until_it_is_left() -> None:
    async with Bench().run_test(size=(30, 24)) as pilot:
        app = pilot.app
        assert isinstance(app, Bench)
        app.tail.fill(rows(*range(10)))
        app.tail.fill(rows(*range(20)))
        assert app.tail.chosen == "key 19"
        app.tail.focus()
        await pilot.press("up")
        app.tail.fill(rows(*range(30)))
        assert app.tail.chosen == "key 18"
        await pilot.press("end")
        app.tail.fill(rows(*range(40)))
        assert app.tail.chosen == "key 39"
        assert shown(app.tail)[-1].split() == ["name", "39", "x"]


@driven
async def test_widths() -> None:
    async with Bench().run_test(size=(20, 24)) as pilot:
        app = pilot.app
        assert isinstance(app, Bench)
        app.table.fill([Row("a", (("a name that is long", ""), ("1234567", ""), ("the rest of it", "")))])
        assert shown(app.table)[:2] == [" a           n rest", " a name… 1234… the…"]
        app.table.sort = "n"
        app.table.fill([])
        assert shown(app.table)[0] == " a          n▾ rest"


@driven
async def test_markup_is_text_and_controls_are_escaped_even_here() -> None:
    async with Bench().run_test(size=(60, 24)) as pilot:
        app = pilot.app
        assert isinstance(app, Bench)
        app.lines.show([Text("[red]x[/] \x1b]0;x\x07 \u202e"), Text("y")])
        await pilot.pause()
        assert app.lines.render_line(0).text.rstrip() == r"[red]x[/] \033]0;x \342\200\256"
