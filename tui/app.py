"""The application: daemons, screens and keys."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar

from rich.console import Console
from rich.text import Text
from textual import work
from textual.app import App, ComposeResult, SystemCommand
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.theme import Theme
from textual.widgets import ContentSwitcher, Input

from fastscreen.control.messages import History, HistoryRequest
from fastscreen.history.times import moment
from fastscreen.tui import export, faults
from fastscreen.tui.bar import Bar, Item
from fastscreen.tui.dialogs import Ask, Help
from fastscreen.tui.figures import clock, date, duration
from fastscreen.tui.lines import Lines
from fastscreen.tui.link import PERIOD, ControlError, Link, Unreachable
from fastscreen.tui.palette import (
    ACCENT,
    ALARM,
    BAD,
    CURRENT,
    FASTSCREEN,
    HEADING,
    MUTED,
    OK,
    PAST,
    PLAIN,
    STRONG,
    roles,
)
from fastscreen.tui.past import MINUTE, Past, Unit, begin
from fastscreen.tui.picture import standalone
from fastscreen.tui.view import Keys, View
from fastscreen.tui.views import VIEWS, key_of
from fastscreen.tui.views.connections import ConnectionsView
from fastscreen.tui.views.events import EventsView
from fastscreen.tui.views.overview import OverviewView
from fastscreen.tui.views.story import StoryView
from fastscreen.tui.views.warnings import WarningsView

EVERYWHERE = (
    ("0-9 w", "go to a screen; so does a click on its name"),
    ("[ ]", "the previous or next daemon"),
    ("r", "connect now"),
    ("x", "export the table to a file, CSV or JSON"),
    ("p", "save the screen as an SVG file"),
    ("t", "next theme; to choose one: ctrl+p, Theme"),
    (": ctrl+p", "command palette"),
    ("?", "this help"),
    ("q", "quit"),
)
TRAVEL = (
    ("left right", "a minute back or forward, or what is shown"),
    ("< >", "an hour back or forward"),
    ("{ }", "a day back or forward"),
    ("g", "go to a time"),
    ("m", "in the past: show a minute, an hour or a day"),
    ("N", "return to now"),
)
NO_PAST = "{} has no past: it shows the present only. Press N to return to now."
NO_HISTORY = "no history is recorded: history.path is not set"
PAST_PERIOD = 5.0  # s between two polls of a past that is not over
OVER = 5.0  # s after which nothing is added to a minute
ASK_TIME = "Go to a time, such as 14:03, yesterday 09:30, 2026-11-29 or 3d:"
THEMES = ("fastscreen", "ansi-dark", "ansi-light", "textual-light", "gruvbox", "nord")


class Viewer(App[None]):
    """fastscreen tui."""

    CSS_PATH = "app.tcss"
    TITLE = "fastscreen"
    AUTO_FOCUS = None  # it would be the first input line, on a hidden screen
    ENABLE_COMMAND_PALETTE = True
    BINDINGS: ClassVar[list[BindingType]] = [
        # Before any widget: keys typed ahead on a slow line would reach the screen that is being left.
        *(Binding(key_of(at), f"go({at})", show=False, priority=True) for at in range(len(VIEWS))),
        Binding("slash", "type", show=False, priority=True),
        Binding("enter", "typed(True)", show=False, priority=True),
        Binding("escape,down", "typed(False)", show=False, priority=True),
        Binding("left", "step(-1)", show=False),
        Binding("right", "step(1)", show=False),
        Binding("less_than_sign", "step(-1, 'hour')", show=False),
        Binding("greater_than_sign", "step(1, 'hour')", show=False),
        Binding("left_curly_bracket", "step(-1, 'day')", show=False),
        Binding("right_curly_bracket", "step(1, 'day')", show=False),
        Binding("g", "ask_time", show=False),
        Binding("m", "unit", show=False),
        Binding("N", "now", show=False),
        Binding("left_square_bracket", "daemon(-1)", show=False),
        Binding("right_square_bracket", "daemon(1)", show=False),
        Binding("question_mark", "help", show=False),
        Binding("colon", "command_palette", show=False),
        Binding("x", "export", show=False),
        Binding("p", "picture", show=False),
        Binding("t", "next_theme", show=False),
        Binding("r", "retry", show=False),
        Binding("q,ctrl+c", "quit", show=False),
    ]

    def __init__(self, paths: Sequence[str]) -> None:
        """paths: the control sockets, one for each tab."""
        # Without color, Textual chooses here how to remove it, and gets it wrong for a theme of 16 colors set later.
        super().__init__(ansi_color=True if "NO_COLOR" in os.environ else None)
        self.links = [Link(path, self._changed) for path in paths]
        self._link = 0
        self._view = 0
        self._came_from = 0
        self._past: Past | None = None
        self._entering: Past | None = None  # while it is not known yet whether the daemon has a past
        self._first: float | None = None  # when the history begins
        self._themed = False
        self._daemons, self._tabs, self._keys = Bar(id="daemons"), Bar(id="tabs"), Bar(id="keys")
        self._trouble = Lines(id="trouble")
        self._faults = Bar(id="faults")
        self._past_bar = Bar(id="past")
        self._no_past = Lines(id="no-past")
        self.views = [kind(id=f"view-{at}") for at, kind in enumerate(VIEWS)]
        self.register_theme(FASTSCREEN)

    @property
    def link(self) -> Link:
        """The daemon that is shown."""
        return self.links[self._link]

    @property
    def view(self) -> View:
        """The current screen."""
        return self.views[self._view]

    @property
    def past(self) -> Past | None:
        """The past that is shown; None: the present."""
        return self._past

    def compose(self) -> ComposeResult:
        yield self._daemons
        yield self._tabs
        yield self._trouble
        yield self._faults
        yield self._past_bar
        yield self._no_past
        yield ContentSwitcher(*self.views, initial="view-0")
        yield self._keys

    def on_mount(self) -> None:
        self.theme = "ansi-dark" if self.no_color or few_colors(self.console) else FASTSCREEN.name
        self._take_theme(self.current_theme)
        self.theme_changed_signal.subscribe(self, self._take_theme)
        for link in self.links:
            self.run_worker(link.keep(), group="links")
        self._show_bars()
        self.action_view(0)

    # The lines around the screens

    def _changed(self, link: Link) -> None:
        if len(self.screen_stack) > 1:  # a dialog is open, and each change behind it would repaint all of it
            return
        self._show_bars()
        if link is self.link and isinstance(self.view, OverviewView):
            self.view.draw()

    def _show_bars(self) -> None:
        link, status = self.link, self.link.status
        items = [Item(" fastscreen ", HEADING)]
        for at, other in enumerate(self.links):
            mark = Item("●", OK if other.up else BAD, f"app.show_daemon({at})")
            several = len(self.links) > 1
            here = CURRENT if several and at == self._link else STRONG
            items += [Item(" "), mark, Item(f" {other.name} ", here, f"app.show_daemon({at})")]
        right: list[Item] = []
        if status is not None:
            if status.mode == "shadow":
                right += [Item(" SHADOW ", ALARM), Item(" ")]
            if status.bypass_until is not None and status.bypass_until > status.time:
                right += [Item(f" BYPASS {duration(status.bypass_until - status.time)} ", ALARM), Item(" ")]
            if status.lists_unhealthy:
                number = len(status.lists_unhealthy)
                text = f" {number} LIST{'S' if number != 1 else ''} UNHEALTHY "
                right += [Item(text, ALARM, "app.view(4)"), Item(" ")]
            if any(worker.stress for worker in status.workers):
                right += [Item(" STRESS ", ALARM), Item(" ")]
            if silent := len(status.missing_workers):
                text = f" {silent} WORKER{'S DO' if silent != 1 else ' DOES'} NOT ANSWER "
                right += [Item(text, ALARM), Item(" ")]
            right.append(Item(f"{status.version} up {duration(status.time - status.started)} ", MUTED))
            right.append(Item(f"{clock(status.time)} ", PLAIN if link.up else BAD))
        self._daemons.fill(items, right)
        tabs = []
        for at, kind in enumerate(VIEWS):
            role = PLAIN if at != self._view else CURRENT if self._past is None else PAST
            brief = f"{key_of(at)} {kind.brief or kind.title}"
            tabs.append(Item(f"{key_of(at)} {kind.title}", role, f"app.view({at})", brief))
            tabs.append(Item(" "))
        self._tabs.fill([Item(" "), *tabs])
        keys: list[Item] = [Item(" ")]
        for key, what in (*self.shown_keys, ("?", "help"), ("q", "quit")):
            keys += [Item(key, ACCENT), Item(f" {what}  ", MUTED)]
        self._keys.fill(keys)
        self._past_bar.display = self._past is not None
        if self._past is not None:
            self._past_bar.fill(*past_bar(self._past, link.now, self._first, self.size.width))
        self._no_past.display = self._has_no_past
        if self._has_no_past:
            self._no_past.show([Text(), Text(f" {NO_PAST.format(self.view.title)}", STRONG)])
        conditions = status.conditions if status is not None else []
        self._faults.display = bool(conditions)
        if conditions:
            self._faults.fill(faults.line(conditions, VIEWS.index(WarningsView)))
        self._trouble.display = not link.up
        if not link.up:
            again = f" (retry in {duration(link.retry_in)}; r: now)" if link.retry_in else ""
            room = max(self._trouble.size.width - len(again) - 2, 20)
            self._trouble.show([Text(f" {link.trouble[:room]}{again} ", ALARM)])

    def _take_theme(self, theme: Theme) -> None:
        """Set the roles, and repaint all lines."""
        if self._themed:
            self.console.pop_theme()
        self._themed = True
        self.console.push_theme(roles(self.theme_variables, theme.ansi))
        for screen in self.screen_stack:
            for lines in screen.query(Lines):
                lines.restyle()

    def show_keys(self) -> None:
        """Show the keys of the screen, which have changed."""
        self._show_bars()

    def say(self, text: str, bad: bool = False) -> None:
        """A short message in the corner."""
        self.notify(text, severity="error" if bad else "information", timeout=5, markup=False)

    # Screens

    def poll_now(self) -> None:
        """Poll for the current screen; a request of another one is abandoned."""
        self._poll(self.view, self.link)

    @work(group="poll", exclusive=True)
    async def _poll(self, view: View, link: Link) -> None:
        if self._has_no_past:
            return
        while not view.size.width:  # it has just become visible and does not have a size yet
            await asyncio.sleep(0.01)
        past = self._past
        while view.is_attached:  # it is not when the application ends
            if link.up and len(self.screen_stack) == 1:
                try:
                    if past is None:
                        await view.poll(link)
                    else:
                        await view.poll_past(link, past)
                        if past.until + OVER < link.now:
                            return
                except Unreachable:
                    pass  # the link shows it
                except ControlError as error:
                    view.complain(str(error))
            await asyncio.sleep(PERIOD if past is None or not link.up else PAST_PERIOD)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Leave the priority keys to an open dialog, and to a focused input line."""
        if action in ("go", "type"):
            hidden = action == "type" and self._has_no_past
            return len(self.screen_stack) == 1 and not isinstance(self.focused, Input) and not hidden
        if action == "typed":
            return len(self.screen_stack) == 1 and isinstance(self.focused, Input)
        return super().check_action(action, parameters)

    async def action_typed(self, counts: bool) -> None:
        """Leave the input line, once it has all that was typed before."""
        has_all = asyncio.Event()
        if self.focused is not None and self.focused.call_later(has_all.set):
            await has_all.wait()
        if counts:
            self.view.submit()
        else:
            self.screen.set_focus(self.view.main)

    def action_type(self) -> None:
        """Put the cursor into the screen's input line."""
        if self.view.entry is not None:
            self.screen.set_focus(self.view.entry)

    def action_go(self, at: int) -> None:
        """Go to a screen, by its key."""
        self.action_view(at)

    def action_view(self, at: int) -> None:
        """Go to a screen."""
        if len(self.screen_stack) > 1:
            return
        if not isinstance(self.views[at], StoryView):
            self._came_from = at
        self._view = at
        self.query_one(ContentSwitcher).current = f"view-{at}"
        self._show_view()

    def _show_view(self) -> None:
        """Show the current screen at the current time."""
        self.query_one(ContentSwitcher).display = not self._has_no_past
        self._show_bars()
        if isinstance(self.view, OverviewView):
            self.view.draw()
        # Now, not when what is queued has been done: see the keys.
        self.screen.set_focus(None if self._has_no_past else self.view.main)
        self.poll_now()

    def go_to(self, kind: type[View]) -> None:
        """Go to the screen of this kind."""
        self.action_view(VIEWS.index(kind))

    def go_back(self) -> None:
        """From a story to the screen where it was opened."""
        self.action_view(self._came_from)

    def open_story(self, address: str, session: int = 0) -> None:
        """Show the story of an address. session: the recorded session that is shown in full."""
        self.query_one(StoryView).tell(address, session)
        self.go_to(StoryView)

    def open_events(self, filter: str) -> None:
        """Follow the events that match."""
        self.query_one(EventsView).type_in(filter)
        self.go_to(EventsView)

    def open_overview(self, time: float) -> None:
        """Show Overview of the minute of this time."""
        self.go_to(OverviewView)
        self.go_to_past(time)

    def open_connections(self, filter: str) -> None:
        """Show the sessions that match."""
        self.query_one(ConnectionsView).type_in(filter)
        self.go_to(ConnectionsView)

    def action_daemon(self, by: int) -> None:
        """The next or the previous daemon."""
        self.action_show_daemon((self._link + by) % len(self.links))

    def action_show_daemon(self, at: int) -> None:
        """Show a daemon."""
        if at == self._link or len(self.screen_stack) > 1:
            return
        self._link = at
        for view in self.views:
            view.reset()
        self._turn(None)

    def action_retry(self) -> None:
        """Connect now."""
        self.link.retry()

    # The past

    @property
    def _has_no_past(self) -> bool:
        """The past is shown, and the current screen has none."""
        return self._past is not None and self.view.past_keys is None

    @property
    def shown_keys(self) -> Keys:
        """The keys of the current screen at the current time."""
        return self.view.keys if self._past is None else self.view.past_keys or (("N", "now"),)

    def _turn(self, past: Past | None) -> None:
        """Show another time."""
        self._past, self._entering = past, None
        self.screen.set_class(past is not None, "past")
        for view in self.views:
            view.turn()
        self._show_view()

    def _enter(self, past: Past) -> None:
        """Show the past for the first time, if this daemon has one."""
        asked = self._entering is not None
        self._entering = past
        if not asked:
            self._ask_for_history()

    @work(group="history", exclusive=True)
    async def _ask_for_history(self) -> None:
        link = self.link
        try:
            found, trouble = await link.ask(HistoryRequest()), ""
        except ControlError as error:
            found, trouble = History(), f"no history: {error}"
        past, self._entering = self._entering, None
        if past is None or link is not self.link or len(self.screen_stack) > 1:
            return
        if not found.path:
            self.say(trouble or NO_HISTORY, bad=True)
            return
        if found.problem:
            self.say(found.problem, bad=True)
        self._first = found.first
        self._turn(past)

    def go_to_past(self, time: float) -> None:
        """Show the minute of this time (s since 1970), or the present if it is not over."""
        minute = begin(time, "minute")
        if self._past is not None:
            self._turn(self._past._replace(minute=minute) if minute + MINUTE <= self.link.now else None)
        elif minute + MINUTE <= self.link.now:
            self._enter(Past(minute))

    def action_step(self, by: int, unit: Unit | None = None) -> None:
        """Step back or forward; unit: None: the one that is shown. Beyond the last minute is the present."""
        if len(self.screen_stack) > 1 or self.link.status is None:
            return
        if self._past is None:
            past = (self._entering or Past(begin(self.link.now, "minute"))).by(by, unit or "minute")
            if past.since + MINUTE <= self.link.now:
                self._enter(past)
            return
        past = self._past.by(by, unit or self._past.unit)
        self._turn(past if past.since + MINUTE <= self.link.now else None)

    def action_unit(self) -> None:
        """A minute, an hour or a day."""
        if self._past is not None and len(self.screen_stack) == 1:
            self._turn(self._past.other_unit())

    def action_now(self) -> None:
        """Return to the present."""
        self._entering = None
        if self._past is not None and len(self.screen_stack) == 1:
            self._turn(None)

    def action_ask_time(self) -> None:
        """Ask for a time, and go there."""
        if len(self.screen_stack) > 1 or self.link.status is None:
            return

        def told(text: str | None) -> None:
            if text:
                try:
                    self.go_to_past(moment("T".join(text.split()), self.link.now) / 1e6)
                except ValueError as error:
                    self.say(str(error), bad=True)

        self.push_screen(Ask(ASK_TIME, ""), told)

    # Keys of all screens

    def action_help(self) -> None:
        """The keys, and the filter language."""
        if len(self.screen_stack) == 1:
            general = {name for key, _ in (*EVERYWHERE, *TRAVEL) for name in (key, *key.split())}
            own = [(key, what) for key, what in self.shown_keys if key not in general]
            self.push_screen(Help(self.view.title, own, EVERYWHERE, TRAVEL))

    def action_next_theme(self) -> None:
        """The next theme."""
        at = THEMES.index(self.theme) + 1 if self.theme in THEMES else 0
        self.theme = THEMES[at % len(THEMES)]

    def action_export(self) -> None:
        """Write the table of the screen to a file."""
        table = None if self._has_no_past else self.view.exported()
        if len(self.screen_stack) > 1:
            return
        if table is None or not table.rows:
            self.say("this screen has nothing to export", bad=True)
            return

        def named(name: str | None) -> None:
            if name:
                self._write(lambda: _rows(export.write(table, name)) + f" written to {name}")

        question = f"Export {_rows(len(table.rows))} to this file (.csv or .json):"
        self.push_screen(Ask(question, export.file_name(self.view.title, "csv")), named)

    def action_picture(self) -> None:
        """Save the screen as an SVG file."""
        name = export.file_name(self.view.title, "svg")

        def write() -> str:
            with Path(name).open("x", encoding="utf-8") as file:
                file.write(standalone(self.export_screenshot()))
            return f"picture written to {name}"

        self._write(write)

    def _write(self, write: object) -> None:
        assert callable(write)
        try:
            self.say(write())
        except OSError as error:
            self.say(f"{error.filename}: {error.strerror}", bad=True)

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """The commands of the palette."""
        for at, kind in enumerate(VIEWS):
            yield SystemCommand(kind.title, kind.about, lambda at=at: self.action_view(at))
        for at, link in enumerate(self.links[1:] and self.links):
            yield SystemCommand(f"Daemon {at + 1}", f"Show {link.name}", lambda at=at: self.action_show_daemon(at))
        yield SystemCommand("Go to a time", "Show the past", self.action_ask_time)
        yield SystemCommand("Now", "Return to the present", self.action_now)
        yield SystemCommand("Export", "Write the table to a file, CSV or JSON", self.action_export)
        yield SystemCommand("Picture", "Save the screen as an SVG file", self.action_picture)
        yield SystemCommand("Theme", "Choose the colors", self.action_change_theme)
        yield SystemCommand("Help", "The keys and the filter language", self.action_help)
        yield SystemCommand("Quit", "Leave", self.action_quit)


def past_bar(past: Past, now: float, first: float | None, width: int) -> tuple[list[Item], list[Item]]:
    """The line that says that the past is shown, and which: nobody may take it for the present.

    first: when the history begins; None: it is empty.
    """
    keys, back = Item(" <> hour  {} day  g time  m unit ", PAST), Item(" N now ", PAST, "app.now")
    shown = past.text(now)
    if first is None:
        text = f" PAST  {shown}: the history is empty "
    elif past.until <= first:
        text = f" PAST  {shown}, before the history: it begins {date(first)} "
    else:
        text = f" PAST  {shown}, {past.ago(now)} "
    fits = len(text) + len(keys.text) + len(back.text) <= width
    return [Item(text, PAST), Item(" " * width, PAST)], [keys, back] if fits else [back]


def _rows(number: int) -> str:
    return f"{number} row{'s' if number != 1 else ''}"


def few_colors(console: Console) -> bool:
    """Whether the terminal has 16 colors or fewer; then its own are used."""
    return console.color_system in (None, "standard")
