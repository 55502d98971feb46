"""The access list (reference 1.2, `postscreen_access_list`), made ready for the core once at load.

A step is a word, a table of networks that the core asks itself, or a callable for all other tables. A table's result is
a list of words itself. What each result of a network table leads to is computed here, once:

* `permit`, `reject`: decided;
* `dunno`: ends the whole list without a decision (what a `dunno` at the top of the list does, and an unknown word);
* `next`: go on with the next step (what a `dunno` in a result does);
* a callable: the result names permit_mynetworks, so it depends on the address.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from fastscreen.config import Config, ConfigError
from fastscreen.core import AccessStep, NetworkTable
from fastscreen.escaping import quoted
from fastscreen.tables import Cidr, Table, TableError, open_table
from fastscreen.tables.mynetworks import PERMIT, NetworkList, read_networks

PERMITTED, REJECTED, DUNNO, NEXT = "permit", "reject", "dunno", "next"
_WARNINGS = 100

Decide = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Networks:
    """A step the core does: `decisions[i]` belongs to `table.results[i]`; an address not in the table goes on."""

    name: str
    table: NetworkTable
    decisions: list[str | Decide]


@dataclass(frozen=True, slots=True)
class Ask:
    """A step for another type of table: `decide(address)` gives permit, reject, dunno or next; `lookup` its result."""

    name: str
    decide: Decide
    lookup: Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class Word:
    """permit, reject or dunno as a separate step: it decides for every client that reaches it."""

    decision: str


Step = Networks | Ask | Word


@dataclass(frozen=True, slots=True)
class Found:
    """What decides: permit, reject or None (nothing does); the step's name, and what its table has for the address."""

    decision: str | None = None
    step: str = ""
    result: str | None = None


@dataclass(slots=True)
class AccessList:
    """steps: in order; the first decision wins. After the last step, nothing is decided.

    warnings: one line each; a look-up in an `Ask` may add to it, once for each unknown word.
    """

    steps: list[Step] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def decide(self, address: str) -> tuple[str | None, str]:
        """permit, reject or None for an address in text form, and the name of the step that said so."""
        found = self.find(address)
        return found.decision, found.step

    def find(self, address: str) -> Found:
        """The first step that decides about an address in text form."""
        for step in self.steps:
            result: str | None = None
            match step:
                case Word(decision):
                    name = decision
                case Ask(name, ask, lookup):
                    decision = ask(address)
                    result = lookup(address)
                case Networks(name, table, decisions):
                    result = table.lookup(address)
                    if result is None:
                        continue
                    found = decisions[table.results.index(result)]
                    decision = found if isinstance(found, str) else found(address)
            if decision == DUNNO:
                return Found(None, name, result)
            if decision != NEXT:
                return Found(decision, name, result)
        return Found()


def load_networks(config: Config, key: str, items: Sequence[str]) -> NetworkList:
    """Open a list of networks as `mynetworks` is one; `member` asks its table. Raises ConfigError with the key."""
    try:
        return read_networks(items, key)
    except TableError as error:
        raise ConfigError(f"{config.source}: {key}: {error}") from None


def membership(networks: NetworkTable) -> AccessStep:
    """The step that permits the members."""
    return AccessStep([PERMITTED if result == PERMIT else NEXT for result in networks.results], networks)


def member(networks: NetworkTable, address: str) -> bool:
    """Whether an address in text form is in a list of networks."""
    return networks.lookup(address) == PERMIT


def load_access(config: Config) -> AccessList:
    """Open what `access.list` and `access.mynetworks` name. Raises ConfigError with all that cannot be opened."""
    problems: list[str] = []
    networks = NetworkList(NetworkTable(b"", ""))
    try:
        networks = load_networks(config, "access.mynetworks", config.access.mynetworks)
    except ConfigError as error:
        problems += error.problems
    trusted = networks.table
    access = AccessList(warnings=list(networks.warnings))
    for item in config.access.list:
        if item == "permit_mynetworks":
            decisions = [PERMITTED if result == PERMIT else NEXT for result in trusted.results]
            access.steps.append(Networks(item, trusted, list(decisions)))
        elif ":" in item:
            try:
                table = open_table(item, "access.list")
            except TableError as error:
                problems.append(f"{config.source}: {error}")
                continue
            access.steps.append(_step(table, trusted, access.warnings))
        else:
            access.steps.append(Word(item))
    if problems:
        raise ConfigError(*problems)
    return access


def _step(table: Table, trusted: NetworkTable, warnings: list[str]) -> Step:
    if isinstance(table, Cidr):
        warnings += table.warnings
        decisions = [_decision(result, trusted, table.spec, warnings) for result in table.networks.results]
        return Networks(table.spec, table.networks, decisions)
    warnings += table.warnings
    table.warnings = warnings
    known = {result: _decision(result, trusted, table.spec, warnings) for result in table.results}
    most = len(known) + _WARNINGS

    def decide(address: str) -> str:
        result = table.lookup(address)
        if result is None:
            return NEXT
        decision = known.get(result)
        if decision is None:
            # Substitution may make any number of different results: neither they nor their warnings may pile up.
            if len(known) == most:
                known.clear()
            decision = known[result] = _decision(result, trusted, table.spec, warnings)
        return decision if isinstance(decision, str) else decision(address)

    return Ask(table.spec, decide, table.lookup)


def _decision(result: str, trusted: NetworkTable, spec: str, warnings: list[str]) -> str | Decide:
    """What a table's result leads to."""
    words = [word for word in re.split(r"[\s,]+", result) if word]
    for place, word in enumerate(words):
        match word.lower():
            case "permit" | "reject" as decision:
                return decision
            case "dunno":
                return NEXT
            case "permit_mynetworks":
                rest = _decision(" ".join(words[place + 1 :]), trusted, spec, warnings)

                def decide(address: str, rest: str | Decide = rest) -> str:
                    if trusted.lookup(address) == PERMIT:
                        return PERMITTED
                    return rest if isinstance(rest, str) else rest(address)

                return decide
            case _:
                what = "a table in a table's result" if ":" in word else "unknown command"
                if len(warnings) < _WARNINGS:
                    warnings.append(f"{quoted(spec)[1:-1]}: {what}: {quoted(word)}: no decision for its clients")
                return DUNNO
    return NEXT
