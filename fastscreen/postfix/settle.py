"""What the daemon would refuse is taken out of an imported configuration, key by key, until it would start."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

from fastscreen.config.load import default_value
from fastscreen.config.suggest import toml
from fastscreen.escaping import escape_text
from fastscreen.postfix.translate import Entry, Note, Toml, Translated, no_tls_without_certificates
from fastscreen.postfix.verify import Problem, Verify

MAX_OMITTED = 1000  # items of one list that are looked for singly
_SHOWN = 300  # characters of an omitted value
_ITEM = re.compile(r"item [0-9]+: ")
_ADDRESSES = ("listen.addresses", "listen.proxy")
_WHOLE = ("tls.certificates",)  # a key without its chain is as bad as none


def settle(translated: Translated, written: Callable[[Translated], str], verify: Verify) -> None:
    """Change the entries so that the configuration starts; of what is omitted, leave a note that is to do.

    written: the text of the file that the entries make.
    """
    entries = {entry.key.key: entry for entry in translated.entries}
    work = _Work(translated, written, verify)
    for entry in translated.entries:
        _omit_what_is_no_file(entry)
    for _ in range(len(entries)):  # each round settles one key at least
        problems = work.problems()
        before = work.text
        for problem in {each.key: each for each in reversed(problems)}.values():
            if problem.key:
                _settle_key(entries[problem.key], problem, work)
            elif len(problems) == 1:
                _settle_unknown(translated, problem, work)
        no_tls_without_certificates(translated)
        if written(translated) == before:
            break
    found = verify(written(translated))
    for problem in found.problems:
        if problem.denied and problem.key:
            text = f"this user cannot check it: {problem.text}; run fastscreen check as root"
            entries[problem.key].notes.append(Note(text, todo=True))
    for warning in found.warnings:
        entries[warning.key].notes.append(Note(warning.text, todo=True))


class _Work:
    """text: of the configuration as it was tried last."""

    def __init__(self, translated: Translated, written: Callable[[Translated], str], verify: Verify) -> None:
        self._translated, self._written, self._verify = translated, written, verify
        self.text = ""

    def problems(self) -> list[Problem]:
        """Why it would not start; without what only this user may not look at, for the daemon starts as root."""
        self.text = self._written(self._translated)
        root = os.geteuid() == 0
        return [each for each in self._verify(self.text).problems if root or not each.denied]

    def problem_of(self, key: str) -> str:
        """What is wrong with one key; empty: nothing."""
        found = [each.text for each in self.problems() if each.key in (key, "")]
        return _ITEM.sub("", found[0], count=1) if found else ""


def _settle_key(entry: Entry, problem: Problem, work: _Work) -> None:
    value, key = entry.value, entry.key.key
    if value is None:
        return  # the default does not suit: another key has to go
    if key == "listen.proxy" and isinstance(value, list):
        _settle_proxy(entry, value, work)
    elif isinstance(value, list) and value and key not in _WHOLE:

        def assign(items: list[object]) -> None:
            entry.value = _as_toml(items)

        taken = _kept(entry, value, assign, work)
        assign(taken)
        if not taken:
            _put_in_place_of_nothing(entry, value, work)
    else:
        if value != []:
            _omit(entry, value, _ITEM.sub("", problem.text, count=1))
        entry.value = None


def _put_in_place_of_nothing(entry: Entry, before: Sequence[object], work: _Work) -> None:
    """No item is left. Where the default is another than an empty list, that would be a change of its own."""
    if entry.key.key in _ADDRESSES:
        entry.value = _as_toml(_anywhere(before))
        entry.notes.append(Note("none is left: all addresses of this machine instead", todo=True))
    elif default_value(entry.key) == []:
        entry.value = None
    elif work.problem_of(entry.key.key):
        entry.value = None
        entry.notes.append(Note("none is left: the default instead", todo=True))


def _settle_proxy(entry: Entry, ports: Sequence[object], work: _Work) -> None:
    """Addresses of balancers' ports go singly. None left is no reason to take a PROXY header for a client's words."""
    for at, port in enumerate(ports):
        assert isinstance(port, dict)

        def assign(items: list[object], port: dict[str, object] = port, at: int = at) -> None:
            port["addresses"] = items
            entry.value = _as_toml([*ports[:at], port])

        before = list(port["addresses"])
        taken = _kept(entry, before, assign, work)
        if not taken:
            taken = _anywhere(before)
            entry.notes.append(Note("none is left: all addresses of this machine instead", todo=True))
        assign(taken)
    if (problem := work.problem_of(entry.key.key)) and entry.value:
        _omit(entry, entry.value, problem)
        entry.value = None


def _anywhere(addresses: Sequence[object]) -> list[object]:
    ports = dict.fromkeys(str(address).rpartition(":")[2] for address in addresses)
    return [f"{host}:{port}" for port in ports for host in ("0.0.0.0", "[::]")]


def _kept(entry: Entry, items: Sequence[object], assign: Callable[[list[object]], None], work: _Work) -> list[object]:
    """The items that are taken; each of the others gets a note. assign: makes a list of items the entry's value."""
    taken: list[object] = []
    omitted = 0

    def take(some: Sequence[object]) -> None:
        nonlocal omitted
        if omitted >= MAX_OMITTED:
            omitted += len(some)
            return
        assign([*taken, *some])
        problem = work.problem_of(entry.key.key)
        if not problem:
            taken.extend(some)
        elif len(some) == 1:
            omitted += 1
            _omit(entry, some[0], problem)
        else:
            take(some[: len(some) // 2])
            take(some[len(some) // 2 :])

    take(items)
    if omitted > MAX_OMITTED:
        entry.notes.append(Note(f"omitted: {omitted - MAX_OMITTED} more items", todo=True))
    return taken


def _omit(entry: Entry, value: object, why: str) -> None:
    entry.notes.append(Note(f"omitted: {escape_text(toml(value), _SHOWN)}: {why}", todo=True))


def _as_toml(items: list[object]) -> Toml:
    return items  # type: ignore[return-value]  # the same items as before, fewer of them


def _settle_unknown(translated: Translated, problem: Problem, work: _Work) -> None:
    """No key is named: the first one without which the problem is gone, else all. Those that name files come first."""
    having = sorted(translated.entries, key=lambda entry: "/" not in str(entry.value))
    for entry in having:
        value = entry.value
        if value is None:
            continue
        entry.value = None
        if not any(not each.key for each in work.problems()):
            _omit(entry, value, problem.text)
            return
        entry.value = value
    for entry in having:
        if entry.value is not None:
            _omit(entry, entry.value, problem.text)
            entry.value = None


def _omit_what_is_no_file(entry: Entry) -> None:
    """A pipe in place of a table would never be read to its end."""
    value = entry.value
    if isinstance(value, str) and _is_no_file(value.partition(":")[2]) and not value.startswith(("file:", "pass:")):
        _omit(entry, value, "not a file")
        entry.value = None
    elif isinstance(value, list) and entry.key.key not in _WHOLE:
        bad = [item for item in value if isinstance(item, str) and _is_no_file(_path(item))]
        for item in bad:
            _omit(entry, item, "not a file")
        if bad:
            left: list[object] = [item for item in value if item not in bad]
            entry.value = _as_toml(left) if left or default_value(entry.key) else None


def _path(item: str) -> str:
    bare = item.lstrip("! ")
    return bare if bare.startswith("/") else bare.partition(":")[2]


def _is_no_file(name: str) -> bool:
    try:
        return name.startswith("/") and not stat.S_ISREG(Path(name).stat().st_mode)
    except (OSError, ValueError):
        return False
