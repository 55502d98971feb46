"""What clients send is shown on every screen as text, and as nothing else."""

from __future__ import annotations

import os
import pty
import re
import select
import sys
import time
from pathlib import Path

import pytest

from fastscreen.tui.figures import BLOCKS, PARTS
from fastscreen.tui.view import TableView
from fastscreen.tui.views import key_of
from tui.memory_world import FEEDBACK, Remembered
from tui.pilot import driven, front_door, rows, seen, text, until
from tui.server import FakeServer
from tui.world import KNOWN, World

HOSTILE = {
    "action": (b"[@click=app.quit]x[/]", "[@click=app.quit]x[/]"),
    "markup": (b"[red]a[/] [b", "[red]a[/] [b"),
    "title": (b"\x1b]0;x\x07", r"\033]0;x\a"),
    "clear": (b"\x1b[2J\x1bc", r"\033[2J\033c"),
    "bidi": ("\u202eevil\u2066".encode(), r"\342\200\256evil\342\201\246"),
    "combining": (b"a" + "\u0301".encode() * 3000, r"a\314\201\314\201"),
    "c1": (b"\xc2\x9b2J", r"\302\2332J"),
    "wide": ("\u3042\U0001f600".encode(), r"\343\201\202\360\237\230\200"),
}
OURS = set(map(chr, range(32, 127))) | set(BLOCKS) | set(PARTS) | set("●…▾└┘▔▎▌─│╭╮╰╯░▒▓")


@pytest.mark.parametrize("what", HOSTILE)
def test_every_screen(tmp_path: Path, what: str) -> None:
    octets, shown = HOSTILE[what]
    world = World(hostile=octets)

    @driven
    async def run() -> None:
        async with front_door(tmp_path, world, size=(200, 50)) as (app, pilot, server):
            server.refused["clients"] = world.bad
            server.remembered = Remembered(world.bad, networks=5)
            server.feedback = {**FEEDBACK, "problem": world.bad}
            address = next(s["address"] for s in world.sessions.values() if s["command"])
            world.cache = {KNOWN[0]: {world.bad: world.bad}}
            for at, view in enumerate(app.views):
                if view.title == "Story":
                    app.open_story(address)
                else:
                    await pilot.press(key_of(at))
                # Overview and the heat map have the host's name, in the first line; each of the others something more.
                first, last = (0, 1) if view.title in ("Overview", "Heat map") else (2, 50)
                try:
                    await until(pilot, lambda first=first, last=last: shown in "".join(rows(app)[first:last]))  # type: ignore[misc]
                except TimeoutError:
                    raise AssertionError(f"{shown} not in {view.title}:\n{text(app)}") from None
                assert set(text(app)) <= OURS | {"\n"}, (view.title, set(text(app)) - OURS)
                for strip in app.screen._compositor.render_strips():
                    for segment in strip:
                        assert not (segment.style and "@click" in segment.style.meta)
                if isinstance(view, TableView):
                    for y in range(2, 7):
                        await pilot.click(view.table, offset=(170, y))
                    assert app.is_running
                    app.action_view(at)

    run()


@driven
async def test_a_refused_filter_is_shown_as_typed(tmp_path: Path) -> None:
    async with front_door(tmp_path) as (_, pilot, server):
        server.refused["sessions"] = "filter: [@click=app.quit]x[/]\x1b]0;x\x07: what is this?"
        await pilot.press("2")
        await seen(pilot, r"filter: [@click=app.quit]x[/]\033]0;x\a: what is this?")


SCRIPT = """
import sys
from fastscreen.cli import main
sys.exit(main(["tui", "--socket", sys.argv[1]]))
"""


def test_a_real_terminal_of_16_colours(tmp_path: Path) -> None:
    """The bytes that reach the terminal contain no escape sequence of a client's, and only colors that xterm has."""
    hostile = b"\x1b]0;owned\x07\x1b[31mEHLO [red]"
    world = World(hostile=hostile)
    written = b""

    @driven
    async def run() -> None:
        nonlocal written
        world.advance(120)
        async with FakeServer(tmp_path / "control", world) as server:
            process, terminal = pty.fork()
            if process == 0:
                os.environ.update(TERM="xterm", LANG="C.UTF-8", COLUMNS="80", LINES="24")
                for name in ("COLORTERM", "NO_COLOR", "TEXTUAL_COLOR_SYSTEM"):
                    os.environ.pop(name, None)
                os.execv(sys.executable, [sys.executable, "-c", SCRIPT, str(server.path)])
            import asyncio

            def talk() -> bytes:
                seen = b""
                keys = list(b"2457890")
                end = time.monotonic() + 30
                while time.monotonic() < end:
                    if select.select([terminal], [], [], 0.2)[0]:
                        try:
                            seen += os.read(terminal, 65536)
                        except OSError:  # it has ended
                            break
                    elif keys and b"Verdicts" in seen:
                        os.write(terminal, bytes([keys.pop(0)]))
                        time.sleep(1.2)
                    elif not keys:
                        os.write(terminal, b"q")
                return seen

            written = await asyncio.to_thread(talk)
            assert os.waitpid(process, 0)[1] == 0

    run()
    assert rb"\033]0;owned\a" in written
    assert b"]0;owned\x07" not in written
    assert not re.search(rb"\x1b\[[0-9;]*[34]8;[25];", written)
    assert re.search(rb"\x1b\[[0-9;]*3[1-7]", written)
