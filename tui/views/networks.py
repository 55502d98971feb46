"""Networks: the networks and autonomous systems from which offenders come, and the addresses of each."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import ClassVar, Literal, cast

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widget import Widget

from fastscreen.control.messages import (
    Feedback,
    Memory,
    Reputation,
    ReputationDeleteRequest,
    ReputationGetRequest,
    ReputationListRequest,
    ReputationMember,
    Reputations,
    Status,
)
from fastscreen.tui.dialogs import Confirm
from fastscreen.tui.figures import count, share, size
from fastscreen.tui.lines import Lines
from fastscreen.tui.link import ControlError, Link
from fastscreen.tui.palette import BAD, MUTED, OK, PLAIN, STRONG, WARN
from fastscreen.tui.table import Column, Row, Table
from fastscreen.tui.view import Entry, Export, Keys, TableView
from fastscreen.tui.wording import wrapped

PAGE = 200
MAX_LISTED = 1000  # what the daemon lists at most
PROBLEM_ROWS = 3
Kind = Literal["network", "as"]
Sort = Literal["worst", "share", "recent"]
SORTS: dict[Sort, str] = {"worst": "worst first", "share": "by share of bad addresses", "recent": "by last offense"}
NO_MEMORY = "There is no memory of offenses: score.memory is not set. docs/score.md says what it is for."
HASHED = "only a hash of this address is kept; its whole /64 can be deleted (Esc, d)"


LIST_KEYS = (("/", "within"), ("s", "sort"), ("a", "AS"), ("n b", "pages"), ("d", "delete"), ("Enter", "open"))
MEMBER_KEYS = (("d", "delete"), ("Enter", "story"), ("Esc", "back"), ("x", "export"))


class NetworksView(TableView):
    title = "Networks"
    brief = "Net"
    about = "The networks and AS from which offenders come, and their addresses"
    hint = "within, such as: 192.0.2.0/24 or ::/0 or AS64500"
    columns = (
        Column("network or AS", 18, 43, give=True),
        Column("state", 5, 5),
        Column("bad", 6, 9, right=True, sort="worst"),
        Column("known", 6, 9, right=True),
        Column("good", 6, 6, right=True, sort="share"),
        Column("last bad", 10, 10, sort="recent"),
        Column("last good", 10, 10),
        Column("AS", 9),
    )
    member_columns = (
        Column("address", 18, 43, give=True),
        Column("state", 5, 5),
        Column("bad", 6, 9, right=True),
        Column("good", 6, 9, right=True),
        Column("last bad", 10, 10),
        Column("last good", 10),
    )
    keys: Keys = LIST_KEYS
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "sort", show=False),
        Binding("a", "systems", show=False),
        Binding("n", "next_page", show=False),
        Binding("b", "first_page", show=False),
        Binding("d", "delete", show=False),
        Binding("escape", "back", show=False),
    ]

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._kind: Kind = "network"
        self._sort: Sort = "worst"
        self._start = 0
        self._found: list[Reputation] = []
        self._number = 0
        self._opened: list[str] = []  # networks whose members are shown: a /64 may have been opened from a /48
        self._members: list[ReputationMember] = []
        self._box = Lines()
        self._member_table = Table(self.member_columns)
        self._member_table.display = False

    def compose(self) -> ComposeResult:
        yield self._box
        yield from super().compose()
        yield self._member_table

    @property
    def main(self) -> Widget | None:
        return self._member_table if self._member_table.display else self.table

    @property
    def entry(self) -> Entry | None:
        return self._entry if self._entry.display else None

    # ---- asking

    async def poll(self, link: Link) -> None:
        self._show_box(link.status)
        if link.status is None or link.status.memory is None:
            self.fill([])
            return
        if self._opened:
            await self._poll_members(link, self._opened[-1])
        else:
            await self._poll_list(link)

    async def _poll_list(self, link: Link) -> None:
        typed = self.typed
        if self._kind == "as" and typed:
            if not typed.upper().startswith("AS"):
                self._show_found(Reputations())
                self.note((f"{typed} selects networks: press a to see them", WARN))
                return
            answer = await link.ask(ReputationGetRequest(typed))
        else:
            wanted = ReputationListRequest(self._kind, PAGE, start=self._start, within=typed, sort=self._sort)
            answer = await link.ask(wanted)
        self._show_found(answer)
        self.note(*list_note(answer, self._kind, self._sort, self._start, typed, link.may_act))

    def _show_found(self, answer: Reputations) -> None:
        self._found = answer.reputations[:PAGE]
        self._number = answer.found
        self.table.sort = self._sort
        self.fill([row(each) for each in self._found])

    async def _poll_members(self, link: Link, subject: str) -> None:
        answer = await link.ask(ReputationGetRequest(subject))
        found = next((each for each in answer.reputations if each.subject == subject), None)
        self._members = found.members if found is not None else []
        self._member_table.fill([member_row(each) for each in self._members])
        if found is None:
            self.note((f"nothing is known of {subject} any more", WARN), "   Esc: back")
            return
        bad = f"{count(found.bad_members)} of {count(found.known_members)} {members_of(found)} bad"
        self.note(
            (subject, STRONG),
            f" AS{found.system}   " if found.system else "   ",
            (bad, BAD if found.is_bad else PLAIN),
            f", good share {good_share(found)}   Esc: back",
        )

    # ---- showing

    def _show_box(self, status: Status | None) -> None:
        """status: None: the daemon has not told it yet."""
        memory = status.memory if status is not None else None
        lines = memory_lines(memory, self.size.width) if status is not None else []
        if memory is not None and status is not None and status.feedback is not None:
            lines += feedback_lines(status.feedback, self.size.width)
        hidden = not self._note.display
        self._note.display = memory is not None
        self.table.display = self._entry.display = memory is not None and not self._opened
        self._member_table.display = memory is not None and bool(self._opened)
        if hidden and memory is not None:  # a hidden table has lost the focus
            self.screen.set_focus(self.main)
        self._box.styles.height = len(lines)
        self._box.show(lines)

    def _turn_to(self, opened: list[str]) -> None:
        """Show the list, or the members of a network."""
        self._opened = opened
        self._members = []
        self._member_table.clear()
        self.keys = MEMBER_KEYS if opened else LIST_KEYS
        self.viewer.show_keys()
        self.note()
        self._show_box(self.link.status)
        self.screen.set_focus(self.main)
        self.again()

    def complain(self, trouble: str) -> None:
        """The file cannot be read, or what was typed is wrong: nothing old may be taken for the answer."""
        self._found, self._members, self._number = [], [], 0
        self.table.sort = self._sort
        self.fill([])
        self._member_table.fill([])
        super().complain(trouble)

    def reset(self) -> None:
        self._found, self._members, self._opened = [], [], []
        self._start = self._number = 0
        self.keys = LIST_KEYS
        self._member_table.clear()
        self._member_table.display = False
        self.table.display = True
        super().reset()

    def submit(self) -> None:
        self._begin()
        super().submit()

    # ---- keys

    def _begin(self) -> None:
        self._start = 0
        self.table.clear()

    def action_sort(self) -> None:
        """The next order."""
        if not self._opened:
            orders = list(SORTS)
            self._sort_by(orders[(orders.index(self._sort) + 1) % len(orders)])

    def _sort_by(self, sort: Sort) -> None:
        self._sort = sort
        self._begin()
        self.again()

    def on_table_heading(self, message: Table.Heading) -> None:
        self._sort_by(cast(Sort, message.sort))

    def action_systems(self) -> None:
        """Networks or AS."""
        if self._opened:
            return
        self._kind = "as" if self._kind == "network" else "network"
        self._begin()
        self.again()

    def action_next_page(self) -> None:
        """The next page."""
        if not self._opened and len(self._found) and self._start + PAGE < min(self._number, MAX_LISTED):
            self._start += PAGE
            self.table.clear()
            self.again()

    def action_first_page(self) -> None:
        """The first page."""
        if not self._opened:
            self._begin()
            self.again()

    def action_back(self) -> None:
        """From the addresses of a network to where it was opened."""
        if self._opened:
            self._turn_to(self._opened[:-1])

    def on_table_chosen(self, message: Table.Chosen) -> None:
        subject = message.key
        if subject.startswith("AS"):
            self._kind = "network"
            self.type_in(subject)
            self._begin()
            self.again()
        elif "/" in subject:
            self._turn_to([*self._opened, subject])
        elif subject.startswith("#"):
            self.viewer.say("only a hash of this address is kept, so it has no story")
        else:
            self.viewer.open_story(subject)

    def action_delete(self) -> None:
        """Delete what is known of the chosen one, after a question."""
        subject = self._member_table.chosen if self._opened else self.table.chosen
        link = self.link
        if subject is None:
            return
        if not link.may_act:
            self.viewer.say("only root and fastscreen's user may delete entries", bad=True)
            return
        if subject.startswith("#"):
            self.viewer.say(HASHED, bad=True)
            return

        async def delete() -> None:
            try:
                done = await link.ask(ReputationDeleteRequest(subject))
            except ControlError as error:
                self.viewer.say(str(error), bad=True)
            else:
                changed = f"{count(done.deleted)} {'entry' if done.deleted == 1 else 'entries'} changed or deleted"
                self.viewer.say(changed + ("; delete again for the rest" if done.more else ""))
            self.again()

        def answered(yes: bool | None) -> None:
            if yes:
                self.run_worker(delete())

        self.app.push_screen(Confirm(question(subject)), answered)

    def exported(self) -> Export | None:
        if self._opened:
            return Export(
                ("address", "is_bad", "bad", "good", "last_bad", "last_good"),
                [(m.subject, int(m.is_bad), m.bad, m.good, m.last_bad, m.last_good) for m in self._members],
            )
        return Export(
            ("subject", "is_bad", "bad_members", "known_members", "last_bad", "last_good", "system"),
            [
                (r.subject, int(r.is_bad), r.bad_members, r.known_members, r.last_bad, r.last_good, r.system)
                for r in self._found
            ],
        )


def question(subject: str) -> str:
    """What is asked before something is deleted."""
    if subject.startswith("AS"):
        return f"Delete the sums of {subject}? Its networks and addresses stay. It is counted again from now on."
    if "/" in subject:
        return f"Delete all addresses of {subject} from the memory of offenses, with what they did well?"
    return f"Delete {subject} from the memory of offenses, with what it did well?"


# ---- what is above the table


def memory_lines(memory: Memory | None, width: int) -> list[Text]:
    """The state of the memory."""
    if memory is None:
        return [Text(" ").append(piece) for piece in wrapped(NO_MEMORY, width - 2)]
    if not memory.running:
        return [Text(" ").append("the recorder is not running: nothing is learned", BAD)]
    line = Text(" ").append(count(memory.entries), STRONG)
    line.append(f" of {count(memory.max_entries)} entries, {size(memory.bytes)}", MUTED)
    line.append("   since the start: ", MUTED).append(count(memory.bad), BAD if memory.bad else PLAIN)
    line.append(" offense, " if memory.bad == 1 else " offenses, ", MUTED)
    line.append(count(memory.good), OK if memory.good else PLAIN).append(" good", MUTED)
    if memory.dropped:
        line.append(f", {count(memory.dropped)} dropped", WARN)
    if memory.lost:
        line.append(f", {count(memory.lost)} lost", BAD)
    line.truncate(max(width - 1, 1), overflow="ellipsis")
    return [line, *_problem(memory.problem, width)]


def feedback_lines(feedback: Feedback, width: int) -> list[Text]:
    """What the memory learns from the MTA's log."""
    if not feedback.running:  # nor is the memory, which says so
        return []
    if feedback.problem:
        return _problem(f"MTA's log is not read: {feedback.problem}", width)
    roles = {"accepted": OK, "rejected": BAD, "spam": BAD, "other": PLAIN, "unknown": PLAIN}
    line = Text(" ").append("MTA's log: ", MUTED)
    for name, role in roles.items():
        number = getattr(feedback, name)
        if name == "other" and not number:
            continue
        line.append(count(number), role if number else MUTED).append(f" {name}, ", MUTED)
    line.append(count(feedback.waiting), PLAIN).append(" waiting", MUTED)
    if feedback.behind:
        line.append(f", {size(feedback.behind)} behind", WARN)
    if feedback.skipped:
        line.append(f", {size(feedback.skipped)} skipped", BAD)
    line.truncate(max(width - 1, 1), overflow="ellipsis")
    return [line]


def _problem(text: str, width: int) -> list[Text]:
    pieces = wrapped(text, width - 2)[:PROBLEM_ROWS] if text else []
    return [Text(" ").append(piece, BAD) for piece in pieces]


def list_note(
    answer: Reputations, kind: Kind, sort: Sort, start: int, within: str, may_act: bool
) -> Sequence[tuple[str, str] | str]:
    """What the table has, and what is missing."""
    shown = len(answer.reputations)
    number = max(answer.found, shown)
    what = "AS" if kind == "as" else "network" if number == 1 else "networks"
    place = f" of {within}" if within else ""
    reading: tuple[str, str] | str = ("   still reading…", WARN) if answer.more else ""
    if not number:
        text = f"no {'AS' if kind == 'as' else 'network'}{place} with a bad address"
        return (text, reading)
    pages = f", {start + 1:,} to {start + shown:,}" if start or shown < min(number, MAX_LISTED) else ""
    listed = f" (the first {MAX_LISTED:,} can be listed)" if number > MAX_LISTED and start + shown >= MAX_LISTED else ""
    more = ", n: more" if start + shown < min(number, MAX_LISTED) else ""
    return (
        (count(number), STRONG),
        f" {what}{place}, {SORTS[sort]}{pages}{listed}{more}",
        "" if may_act else ", read-only for this user",
        reading,
    )


def members_of(reputation: Reputation) -> str:
    return "/64s" if reputation.subject.endswith("/48") else "addresses"


def good_share(reputation: Reputation) -> str:
    known = reputation.known_members
    return share(known - reputation.bad_members, known) if known else "100 %"


def row(each: Reputation) -> Row:
    """The row of a network or an AS."""
    return Row(
        each.subject,
        (
            (each.subject, PLAIN),
            _state(each.is_bad),
            (count(each.bad_members), BAD if each.is_bad else WARN if each.bad_members else MUTED),
            (count(each.known_members), PLAIN),
            (good_share(each), OK if 2 * each.bad_members < each.known_members else PLAIN),
            (day(each.last_bad), PLAIN),
            (day(each.last_good), MUTED),
            (f"AS{each.system}" if each.system else "", MUTED),
        ),
    )


def member_row(each: ReputationMember) -> Row:
    """The row of an address, or of a /64 of a /48."""
    return Row(
        each.subject,
        (
            (each.subject, PLAIN),
            _state(each.is_bad),
            (f"{each.bad:.1f}", BAD if each.is_bad else WARN if each.bad else MUTED),
            (f"{each.good:.1f}", OK if each.good else MUTED),
            (day(each.last_bad), PLAIN),
            (day(each.last_good), PLAIN),
        ),
    )


def reputation_line(each: Reputation) -> Text:
    """What is known of an address, a network or an AS, in a line."""
    line = Text("   ").append(f"{each.subject:<20} ").append(f"{_state(each.is_bad)[0]:<4} ", _state(each.is_bad)[1])
    if each.kind == "address":
        line.append(f"bad {each.bad:.1f}, good {each.good:.1f}", PLAIN)
    else:
        line.append(f"{count(each.bad_members)} of {count(each.known_members)} {members_of(each)} bad, ", PLAIN)
        line.append(f"good share {good_share(each)}", PLAIN)
    if each.last_bad:
        line.append(f", last bad {day(each.last_bad)}", MUTED)
    if each.last_good:
        line.append(f", last good {day(each.last_good)}", MUTED)
    return line


def _state(is_bad: bool) -> tuple[str, str]:
    return ("bad", BAD) if is_bad else ("-", MUTED)


def day(moment: float) -> str:
    """A day of the memory, which counts days in UTC; nothing if there was none."""
    return time.strftime("%Y-%m-%d", time.gmtime(min(moment, 253e9))) if moment > 0 else "-"
