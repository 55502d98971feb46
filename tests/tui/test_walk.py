"""`make demo` in a terminal: the views show the clients, scores and verdicts of the demo."""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from robust.harness import wait_until
from robust.leftovers import processes_of

from fastscreen.demo import client_kinds, settings
from fastscreen.demo.lists import LISTS, SECRET, THRESHOLD, List, is_kind
from fastscreen.tui.view import TableView, View
from fastscreen.tui.views import VIEWS, key_of
from fastscreen.tui.views.cache import CacheView
from fastscreen.tui.views.clients import ClientsView
from fastscreen.tui.views.cluster import NOT_CONFIGURED, ClusterView
from fastscreen.tui.views.connections import SORTS, ConnectionsView
from fastscreen.tui.views.dnsbl import DnsblView
from fastscreen.tui.views.events import EventsView
from fastscreen.tui.views.networks import NetworksView
from fastscreen.tui.views.overview import VERDICTS, OverviewView
from fastscreen.tui.views.story import StoryView
from fastscreen.tui.views.warnings import WarningsView
from fastscreen.tui.wording import STAGE_ROLES
from tui.terminal import Terminal

ROOT = Path(__file__).parents[2]
# As it is built: otherwise the test would rebuild it while others use it, if a source is newer.
MAKE_DEMO = ("make", "-C", str(ROOT), "--old-file=.venv/built", f"BIN={Path(sys.executable).parent}", "demo")
FIRST_ROW = 5  # of a table with a line to type in: behind bars, line, note and headings

pytestmark = pytest.mark.xdist_group("walk")  # one demo for all of it


@contextmanager
def made_demo() -> Iterator[tuple[Terminal, Path]]:
    """`make demo` in a terminal, and the folder for what it makes."""
    folder = Path(tempfile.mkdtemp(prefix="walk-", dir="/tmp"))  # short: there are sockets in it
    try:
        (folder / "demo").mkdir()
        (folder / "tmux").mkdir()
        with Terminal(folder / "tmux", MAKE_DEMO, {"TMPDIR": str(folder / "demo")}) as terminal:
            terminal.sees("1 Over", "Verdicts")
            yield terminal, folder / "demo"
        wait_until(lambda: processes_of(folder / "demo") == [], "the end of the demo", 60)
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def demo() -> Iterator[Terminal]:
    """One for all tests. Each goes to its screen first, whatever the one before has left."""
    with made_demo() as (terminal, _):
        yield terminal


def plain(row: str) -> str:
    """A line with one blank between words."""
    return " ".join(row.split())


def go(terminal: Terminal, kind: type[View], size: tuple[int, int] = (80, 24)) -> None:
    """Go to a screen by its key. The last line tells when it is there."""
    terminal.resize(*size)
    terminal.press(key_of(VIEWS.index(kind)))
    arrived(terminal, kind)


def arrived(terminal: Terminal, kind: type[View]) -> list[str]:
    keys = " ".join(f"{key} {what}" for key, what in (*kind.keys, ("?", "help"), ("q", "quit")))
    return terminal.until(lambda rows: plain(rows[-1]) == keys, f"screen with the keys {keys!r}")


def enter(terminal: Terminal, text: str, hint: str) -> None:
    """Type something into the screen's line. hint: what the line shows when it is empty."""
    terminal.press("/", "C-u")
    terminal.until(lambda rows: hint in rows[2], "empty line")
    terminal.type(text)
    terminal.press("Enter")
    terminal.until(lambda rows: rows[2].strip() == (text or hint), f"{text!r}")


def filtered(terminal: Terminal, kind: type[TableView], filter: str) -> None:
    """Go to a screen and filter it."""
    go(terminal, kind)
    enter(terminal, filter, kind.hint)


def table(rows: Sequence[str]) -> list[list[str]]:
    """The rows of a table, in words."""
    return [row.split() for row in rows[FIRST_ROW:-1] if row.split()[1:]]


def tabled(terminal: Terminal, right: Callable[[list[list[str]]], object], what: str) -> list[list[str]]:
    """Wait until a table is not empty and right; return it. The line above may be there before the rows are its own."""
    return table(terminal.until(lambda rows: (found := table(rows)) and right(found), what))


def connected(rows: Sequence[str]) -> list[list[str]]:
    """The rows of Connections, in words, without the name that a client may have."""
    return [row[:1] + row[1 + (row[1] not in STAGE_ROLES) :] for row in table(rows)]


def scored(row: list[str]) -> int | None:
    """The score in such a row; None: the lists have not answered."""
    return int(row[3]) if len(row) > 3 and row[3].lstrip("-").isdigit() else None


def network(part: client_kinds.ClientKind) -> str:
    return f"{part.network}.0.0/16"


def shown(each: List) -> str:
    """A list's name with the key masked."""
    return each.domain.removeprefix(f"{SECRET}.")


WEIGHTS = {shown(each): int(each.site.rpartition("*")[2]) for each in LISTS}


def listing(address: str) -> list[str]:
    """The lists that have the address."""
    said = {shown(each): each.rule(address) for each in LISTS}
    return [name for name, reply in said.items() if reply is not None and reply.addresses]


def score(address: str) -> int:
    return sum(WEIGHTS[name] for name in listing(address))


# What becomes of each kind


class Fate(NamedTuple):
    """What becomes of a kind of clients.

    filter: finds the events in which it shows. shows: how such an event's line goes on behind the kind; {score} is what
    the lists give this client. story: what its story has. failed: among what it says that the client failed. listed: it
    has the answers of the lists as well.
    """

    filter: str
    shows: str
    story: tuple[str, ...]
    failed: str = ""
    listed: bool = False


ANY = ""
REFUSED = "reply 550 5.5.1 Protocol error"
SCORE = "score {score}"
BAD_SCORE = f"kind:rank score>={THRESHOLD}"
FATES = {
    client_kinds.SENDER: Fate(
        "kind:passed",
        "PASS NEW",
        ("reply 450 4.3.2 Service currently unavailable", "passed PASS NEW", "pregreet 23h"),
        listed=True,
    ),
    client_kinds.LARGE_SENDER: Fate(
        "kind:rank", SCORE, (SCORE, "passed PASS", "handed_off to the MTA in"), listed=True
    ),
    client_kinds.OWN: Fate("kind:allowlisted", ANY, ("allowlisted", "handed_off to the MTA in")),
    client_kinds.BANNED: Fate("kind:denylisted", ANY, ("reply 550 5.3.2 Service currently unavailable",), "denylisted"),
    client_kinds.PREGREETER: Fate(
        "kind:reply", "550 5.5.1 Protocol error", (" bytes: ", REFUSED), "pregreet", listed=True
    ),
    client_kinds.PIPELINER: Fate("kind:pipelining", "MAIL FROM:<offer@bulk.", (REFUSED,), "pipelining"),
    client_kinds.BARE_NEWLINE: Fate("kind:bare_newline", ANY, (REFUSED,), "bare_newline"),
    client_kinds.LISTED: Fate(
        BAD_SCORE, SCORE, (SCORE, "reply 550 5.7.1 Service unavailable; client [{address}] "), "dnsbl", listed=True
    ),
    client_kinds.HTTP_PROBE: Fate("kind:non_smtp_command", ANY, ("reply 521 5.7.0 Error:",), "non_smtp_command"),
    client_kinds.SLOW: Fate("kind:command", "EHLO tarpit.example", ("command EHLO tarpit.example",)),
    client_kinds.IMPATIENT: Fate("kind:hangup", "after", ("hangup after",)),
    client_kinds.GREEDY: Fate(
        "kind:busy", "too many", ("busy too many", "reply 421 4.7.0 Error: too many connections")
    ),
    client_kinds.BOTNET: Fate(BAD_SCORE, SCORE, (SCORE,), "dnsbl", listed=True),
}


def test_every_kind_has_its_fate() -> None:
    assert set(FATES) == set(client_kinds.CLIENT_KINDS)


@pytest.mark.parametrize("part", client_kinds.CLIENT_KINDS, ids=lambda part: part.name)
def test_events_and_story_of_every_kind(part: client_kinds.ClientKind, demo: Terminal) -> None:
    fate = FATES[part]
    kind = fate.filter.split()[0].removeprefix("kind:")

    def meant(row: list[str]) -> bool:
        return row[2] == kind and " ".join(row[3:]).startswith(fate.shows.format(score=score(row[1])))

    filtered(demo, EventsView, f"{fate.filter} {network(part)}")
    found = tabled(
        demo,
        lambda rows: (
            any(map(meant, rows)) and {row[2] for row in rows} == {kind} and all(is_kind(row[1], part) for row in rows)
        ),
        f"nothing but {fate} of {part.name}",
    )
    address = next(row[1] for row in found if meant(row))

    go(demo, StoryView, (120, 60))
    enter(demo, address, "address, such as: ")
    words = [word.format(score=score(address), address=address) for word in fate.story]
    if fate.listed:
        words += [f"{name} listed {WEIGHTS[name]:+} 127.0." for name in listing(address)]

    def told(rows: list[str]) -> bool:
        lines = list(map(plain, rows))
        failed = [line.partition("failed ")[2].split(", ") for line in lines if re.match(r"(score \S+ )?failed ", line)]
        head = rf"{re.escape(address)} (host-\S+ )?now:"
        return (
            any(re.match(head, line) for line in lines)
            and all(any(word in line for line in lines) for word in words)
            and (not fate.failed or any(fate.failed in names for names in failed))
            and (
                part is client_kinds.SENDER or not any(".post.example" in line for line in lines)
            )  # some say it is their name
        )

    rows = demo.until(told, f"{words} and failed {fate.failed} in the story of {address}")
    assert SECRET not in "\n".join(rows)


def test_no_sender_is_taken_for_something_else(demo: Terminal) -> None:
    bad = "kind:pregreet,pipelining,bare_newline,non_smtp_command,denylisted"
    filtered(demo, EventsView, f"{bad} {network(client_kinds.PREGREETER)}")
    tabled(demo, lambda rows: all(is_kind(row[1], client_kinds.PREGREETER) for row in rows), "pregreeters")
    filtered(demo, EventsView, f"{bad} {network(client_kinds.SENDER)}")
    demo.until(lambda rows: rows[3].startswith(" 0 events") and table(rows) == [], "no event")


# The screens


def test_overview(demo: Terminal) -> None:
    go(demo, OverviewView)

    def counts(rows: list[str]) -> dict[str, int]:
        lines = [(row, kind, name) for row in rows for kind, name in VERDICTS if row.startswith(f" {name} ")]
        return {kind: int(row[len(name) + 1 :].split()[0].replace(",", "")) for row, kind, name in lines}

    def complete(rows: list[str]) -> bool:
        found = counts(rows)
        return len(found) == len(VERDICTS) and all(found[kind] for kind in found if kind != "handoff_failed")

    rows = demo.until(complete, "verdict of every kind")
    assert counts(rows)["handoff_failed"] == 0
    demo.sees(f" of {settings.PRE_QUEUE}", f"{len(LISTS)} lists, 1 unhealthy", "broken.example", "Workers")
    demo.until(lambda rows: any(re.search(r"broken\.example .*failing", row) for row in rows), "failing list")
    demo.until(lambda rows: any(re.search(r" 2 \d+ +\d+ +\d+ % +[\d.]+ MB", row) for row in rows), "second worker")


def test_connections_filter_and_story(demo: Terminal) -> None:
    filtered(demo, ConnectionsView, f"stage:dialogue age>3 {network(client_kinds.SLOW)}")
    rows = demo.until(
        lambda rows: (
            (found := table(rows))
            and all(is_kind(row[0], client_kinds.SLOW) for row in found)
            and "host-" in found[0][1]
            and {row[1] for row in connected(rows)} == {"dialogue"}
        ),
        "slow clients in their dialogue, the oldest with its name",
    )
    demo.press("Enter")
    arrived(demo, StoryView)
    rows = demo.sees("now: dialogue for", "Timeline", ".tarpit.example ")
    assert is_kind(rows[2].strip(), client_kinds.SLOW)
    demo.press("Escape")
    arrived(demo, ConnectionsView)


def test_connections_have_scores_while_they_wait(demo: Terminal) -> None:
    filtered(demo, ConnectionsView, f"score>={THRESHOLD} stage:greet {network(client_kinds.LISTED)}")
    demo.until(
        lambda rows: (
            (found := connected(rows))
            and all(is_kind(row[0], client_kinds.LISTED) for row in found)
            and any(scored(row) == score(row[0]) for row in found)
        ),
        "client with the score of its lists",
    )


ORDERS: dict[str, Callable[[list[str]], tuple[float, ...]]] = {
    "score": lambda row: (1 if (found := scored(row)) is None else -found,),
    "address": lambda row: tuple(map(int, row[0].split("."))),
    "age": lambda row: (-seconds(row[2]),),
}


def seconds(text: str) -> float:
    """An age as it is shown, within a minute."""
    return float(text[:-2]) / 1000 if text.endswith("ms") else float(text[:-1])


def test_connections_sort(demo: Terminal) -> None:
    filtered(demo, ConnectionsView, network(client_kinds.LISTED))
    for _ in SORTS:
        before = demo.until(lambda rows: re.search(r", sorted by \w+ *$", rows[3]), "order")[3].split()[-1]
        order = SORTS[(SORTS.index(before) + 1) % len(SORTS)]
        demo.press("s")

        def in_order(rows: list[str], order: str = order) -> bool:
            keys = list(map(ORDERS[order], connected(rows)))
            return rows[3].split()[-1] == order and len(keys) > 1 and keys == sorted(keys)

        demo.until(in_order, f"rows in the order of {order}")


def test_pause_freezes_the_table_and_not_the_counters(demo: Terminal) -> None:
    filtered(demo, ConnectionsView, "")
    demo.press("Space")
    count = demo.sees("PAUSED: press space to continue")[3].split()[0]
    held = demo.until(lambda rows: rows[3].split()[0] != count, "other number of connections")  # all of it is drawn
    counts = {held[3].split()[0]}

    def counted_on(rows: list[str]) -> bool:
        counts.add(rows[3].split()[0])
        return len(counts) > 2

    rows = demo.until(counted_on, "third number of connections")
    assert table(rows) == table(held)
    demo.press("Space")
    demo.until(lambda rows: "PAUSED" not in rows[3] and table(rows) != table(held), "table that goes on")


def test_dnsbl(demo: Terminal) -> None:
    go(demo, DnsblView)
    states = {name: "failing" if name.startswith("broken") else "ok" for name in WEIGHTS}
    lines = [rf" {re.escape(name)} +{re.escape(f'{WEIGHTS[name]:+}')} .* {states[name]} *$" for name in WEIGHTS]
    rows = demo.until(
        lambda rows: all(any(re.match(line, row) for row in rows) for line in lines), f"lists, as {lines}"
    )
    assert SECRET not in "\n".join(rows)
    first = rows[FIRST_ROW - 1].split()[0]  # no input line is open
    demo.press("Home", "Enter")
    arrived(demo, EventsView)
    demo.until(lambda rows: rows[2].strip() == f"list:{first}", f"filter for {first}")
    tabled(demo, lambda rows: {row[2] for row in rows} == {"listed"}, f"clients on {first}")


def test_clients(demo: Terminal) -> None:
    go(demo, ClientsView)
    good = client_kinds.SENDER.network
    line = rf" {re.escape(good)}\.0\.\d+ +(\d+) +(\d+) +0 +(\d+) "
    demo.until(lambda rows: any(re.match(line, row) for row in rows), "sender that never failed")
    demo.press("n")
    demo.sees("by network (/24, /64)", f"{good}.0.0/24", f"{client_kinds.PREGREETER.network}.0.0/24")
    demo.press("n")
    demo.sees("by address")
    demo.press("Home", "Enter")
    arrived(demo, StoryView)
    demo.sees("Timeline")


@pytest.mark.parametrize(
    ("part", "known"),
    [
        (client_kinds.SENDER, True),
        (client_kinds.LISTED, False),
        (client_kinds.PREGREETER, False),
        (client_kinds.BANNED, False),
        (client_kinds.OWN, False),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_cache(part: client_kinds.ClientKind, known: bool, demo: Terminal) -> None:
    go(demo, CacheView)
    demo.press("/", "C-u")
    demo.until(lambda rows: any(CacheView.hint in row for row in rows), "empty line")
    demo.type(network(part))
    demo.press("Enter")
    if not known:
        demo.sees(f" 0 entries of {network(part)}")
        return
    demo.sees(f" entries of {network(part)}")

    def entries(rows: list[str]) -> list[list[str]]:
        return [row.split() for row in rows if re.match(r" 127\.\d+\.\d+\.\d+ ", row)]

    demo.until(
        lambda rows: (
            (found := entries(rows)) and all(is_kind(entry[0], part) and entry[1] == "pregreet" for entry in found)
        ),
        f"entries of {network(part)} and no other",
    )


def test_warnings(demo: Terminal) -> None:
    go(demo, WarningsView)
    demo.sees("reply timeout 1s for broken.example")


def test_cluster(demo: Terminal) -> None:
    go(demo, ClusterView)
    demo.sees(NOT_CONFIGURED)
    assert "Cluster  " not in "\n".join(demo.rows()[2:])


def test_networks(demo: Terminal) -> None:
    go(demo, NetworksView)
    demo.sees("worst first", f"{client_kinds.PREGREETER.network}.0.0/24")
    line = rf" {re.escape(client_kinds.PREGREETER.network)}\.0\.0/24 +bad +(\d+) +\1 +0 % .* AS64500$"
    demo.until(lambda rows: any(re.match(line, row) for row in rows), "network of which every address is bad")
    demo.press("a")
    demo.sees("AS, worst first", "AS64500 ")
    demo.press("a")
    demo.sees("networks, worst first", f"{client_kinds.PREGREETER.network}.0.0/24")  # there is a row to open
    demo.press("Home", "Enter")
    demo.sees("Esc: back", "good share")
    demo.press("Escape")
    demo.sees("worst first")


def test_the_past_of_a_known_event(demo: Terminal) -> None:
    """Step back to the minute of an event, find its story in the history, and return to now."""
    filtered(demo, EventsView, f"kind:denylisted {network(client_kinds.BANNED)}")

    def early(rows: list[list[str]]) -> list[list[str]]:
        """Not at the end of a minute: the session ends, and is recorded, in the same one."""
        return [row for row in rows if row[2] == "denylisted" and row[0][6:8] < "50"]

    found = tabled(demo, lambda rows: all(row[2] == "denylisted" for row in rows) and early(rows), "banned client")
    *_, row = early(found)
    clock, address = row[0][:5], row[1]
    demo.until(lambda rows: rows[0].split()[-1][:5] > clock, "end of its minute")
    go(demo, ConnectionsView)
    enter(demo, "", ConnectionsView.hint)
    for _ in range(60):
        demo.press("Left")
        rows = demo.sees(" PAST  ", "N now", "of this minute, newest first")
        if f" {clock}, " in next(row for row in rows if row.startswith(" PAST ")):
            break
    else:
        raise AssertionError(f"{clock} is not among the minutes before")
    demo.press("/", "C-u")
    demo.type(address)
    demo.press("Enter")
    demo.until(
        lambda rows: (
            any(re.search(r"[1-9]\d* sessions? of this minute", row) for row in rows)
            and any(re.match(rf" {clock}:\d\d {re.escape(address)} +rejected +5\d\d", row) for row in rows)
        ),
        f"sessions of {address}",
    )
    demo.press("Enter")
    demo.sees(" PAST  ", f" {address} ", "recorded session 1 of", "rejected, replied 5", "access.list rejects")
    demo.press("Escape")
    demo.sees(" PAST  ", "of this minute, newest first")
    demo.press("N")
    demo.until(lambda rows: not any("PAST" in row for row in rows) and "sorted by" in rows[3], "present")


def test_help_and_palette(demo: Terminal) -> None:
    go(demo, OverviewView)
    demo.press("?")
    demo.sees("All screens", "command palette", "return to now")
    demo.press("End")
    demo.sees("score>=3", "outcome:rejected")
    demo.press("Escape")
    demo.until(lambda rows: not any("score>=3" in row for row in rows), "end of the help")
    demo.press(":")
    demo.sees("Search for commands")
    demo.type("Warnings")
    demo.sees("Current faults, and the latest warnings")
    demo.press("Enter")
    arrived(demo, WarningsView)


MODES = ("alternate_on", "mouse_any_flag", "cursor_flag")


def test_quit_leaves_the_terminal_and_the_machine_as_they_were(demo: Terminal) -> None:
    """While another demo is there."""
    with made_demo() as (terminal, folder):
        assert [terminal.mode(name) for name in MODES] == [True, True, False]
        assert len(processes_of(folder)) > 3
        terminal.press("q")
        assert terminal.ended() == (0, True)
        assert [terminal.mode(name) for name in MODES] == [False, False, True]
        assert processes_of(folder) == []
        assert list(folder.iterdir()) == []
    go(demo, OverviewView)
    demo.sees("Verdicts", "● mx.demo.example")
