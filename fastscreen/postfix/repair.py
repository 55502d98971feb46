"""Omits from an imported configuration what the daemon would reject, key by key, until the daemon would start."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

from fastscreen.config.load import default_value
from fastscreen.config.suggest import toml
from fastscreen.escaping import escape_text
from fastscreen.postfix.translate import Entry, Note, Toml, Translated, disable_tls_without_certificates
from fastscreen.postfix.verify import Problem, Verify

MAX_OMITTED = 1000  # items of one list that are found one by one
_SHOWN = 300  # characters of an omitted value
_ITEM = re.compile(r"item [0-9]+: ")
_ADDRESSES = ("listen.addresses", "listen.proxy")
_WHOLE = ("tls.certificates",)  # keys and chains belong together, so no single item is omitted


def repair(translated: Translated, written: Callable[[Translated], str], verify: Verify) -> None:
    """Change the entries so that the daemon would start; add a to-do note for everything that is omitted.

    written: returns the text of the file for these entries.
    """
    entries = {entry.key.key: entry for entry in translated.entries}
    check = _Check(translated, written, verify)
    for entry in translated.entries:
        _omit_special_files(entry)
    for _ in range(len(entries)):  # each round repairs at least one key
        problems = check.problems()
        before = check.text
        for problem in {each.key: each for each in reversed(problems)}.values():
            if problem.key:
                _repair_key(entries[problem.key], problem, check)
            elif len(problems) == 1:
                _repair_unknown(translated, problem, check)
        disable_tls_without_certificates(translated)
        if written(translated) == before:
            break
    found = verify(written(translated))
    for problem in found.problems:
        if problem.denied and problem.key:
            text = f"not checked, because this user lacks the rights: {problem.text}; run fastscreen check as root"
            entries[problem.key].notes.append(Note(text, todo=True))
    for warning in found.warnings:
        entries[warning.key].notes.append(Note(warning.text, todo=True))


class _Check:
    """text: the configuration that was checked last."""

    def __init__(self, translated: Translated, written: Callable[[Translated], str], verify: Verify) -> None:
        self._translated, self._written, self._verify = translated, written, verify
        self.text = ""

    def problems(self) -> list[Problem]:
        """Why the daemon would not start, except for what only this user cannot check: the daemon starts as root."""
        self.text = self._written(self._translated)
        root = os.geteuid() == 0
        return [each for each in self._verify(self.text).problems if root or not each.denied]

    def problem_of(self, key: str) -> str:
        """What is wrong with one key; empty if nothing is."""
        found = [each.text for each in self.problems() if each.key in (key, "")]
        return _ITEM.sub("", found[0], count=1) if found else ""


def _repair_key(entry: Entry, problem: Problem, check: _Check) -> None:
    value, key = entry.value, entry.key.key
    if value is None:
        return  # the default causes the problem: another key has to be omitted
    if key == "listen.proxy" and isinstance(value, list):
        _repair_proxy(entry, value, check)
    elif isinstance(value, list) and value and key not in _WHOLE:

        def assign(items: list[object]) -> None:
            entry.value = _as_toml(items)

        accepted = _accepted(entry, value, assign, check)
        assign(accepted)
        if not accepted:
            _replace_empty(entry, value, check)
    else:
        if value != []:
            _omit(entry, value, _ITEM.sub("", problem.text, count=1))
        elif default_value(entry.key) != []:
            entry.notes.append(Note("no address is left; the default is used instead", todo=True))
        entry.value = None


def _replace_empty(entry: Entry, before: Sequence[object], check: _Check) -> None:
    """Choose a value for a list of which no item is left. An empty list may mean something else than the default."""
    if entry.key.key in _ADDRESSES:
        entry.value = _as_toml(_anywhere(before))
        entry.notes.append(Note("all items are omitted; all addresses of this machine are used instead", todo=True))
    elif default_value(entry.key) == []:
        entry.value = None
    elif check.problem_of(entry.key.key):
        entry.value = None
        entry.notes.append(Note("all items are omitted; the default is used instead", todo=True))


def _repair_proxy(entry: Entry, ports: Sequence[object], check: _Check) -> None:
    """Omit single addresses. A port must be kept even without any, or PROXY headers would be read as SMTP commands."""
    for at, port in enumerate(ports):
        assert isinstance(port, dict)

        def assign(items: list[object], port: dict[str, object] = port, at: int = at) -> None:
            port["addresses"] = items
            entry.value = _as_toml([*ports[:at], port])

        before = list(port["addresses"])
        accepted = _accepted(entry, before, assign, check)
        if not accepted:
            accepted = _anywhere(before)
            entry.notes.append(Note("all items are omitted; all addresses of this machine are used instead", todo=True))
        assign(accepted)
    if (problem := check.problem_of(entry.key.key)) and entry.value:
        _omit(entry, entry.value, problem)
        entry.value = None


def _anywhere(addresses: Sequence[object]) -> list[object]:
    ports = dict.fromkeys(str(address).rpartition(":")[2] for address in addresses)
    return [f"{host}:{port}" for port in ports for host in ("0.0.0.0", "[::]")]


def _accepted(
    entry: Entry, items: Sequence[object], assign: Callable[[list[object]], None], check: _Check
) -> list[object]:
    """The items that the daemon accepts; each of the others gets a note. assign: sets the entry's value to a list."""
    accepted: list[object] = []
    omitted = 0

    def add(some: Sequence[object]) -> None:
        nonlocal omitted
        if omitted >= MAX_OMITTED:
            omitted += len(some)
            return
        assign([*accepted, *some])
        problem = check.problem_of(entry.key.key)
        if not problem:
            accepted.extend(some)
        elif len(some) == 1:
            omitted += 1
            _omit(entry, some[0], problem)
        else:
            add(some[: len(some) // 2])
            add(some[len(some) // 2 :])

    add(items)
    if omitted > MAX_OMITTED:
        entry.notes.append(Note(f"omitted: {omitted - MAX_OMITTED} more items", todo=True))
    return accepted


def _omit(entry: Entry, value: object, why: str) -> None:
    entry.notes.append(Note(f"omitted: {escape_text(toml(value), _SHOWN)}: {why}", todo=True))


def _as_toml(items: list[object]) -> Toml:
    return items  # type: ignore[return-value]  # some of the same items as before


def _repair_unknown(translated: Translated, problem: Problem, check: _Check) -> None:
    """Omit the first key whose omission solves the problem, otherwise all. Keys that name files come first."""
    candidates = sorted(translated.entries, key=lambda entry: "/" not in str(entry.value))
    for entry in candidates:
        value = entry.value
        if value is None:
            continue
        entry.value = None
        if not any(not each.key for each in check.problems()):
            _omit(entry, value, problem.text)
            return
        entry.value = value
    for entry in candidates:
        if entry.value is not None:
            _omit(entry, entry.value, problem.text)
            entry.value = None


def _omit_special_files(entry: Entry) -> None:
    """Reading a pipe as a table would never end."""
    value = entry.value
    if (
        isinstance(value, str)
        and _is_special_file(value.partition(":")[2])
        and not value.startswith(("file:", "pass:"))
    ):
        _omit(entry, value, "not a file")
        entry.value = None
    elif isinstance(value, list) and entry.key.key not in _WHOLE:
        bad = [item for item in value if isinstance(item, str) and _is_special_file(_path(item))]
        for item in bad:
            _omit(entry, item, "not a file")
        if bad:
            left: list[object] = [item for item in value if item not in bad]
            entry.value = _as_toml(left) if left or default_value(entry.key) else None


def _path(item: str) -> str:
    bare = item.lstrip("! ")
    return bare if bare.startswith("/") else bare.partition(":")[2]


def _is_special_file(name: str) -> bool:
    try:
        return name.startswith("/") and not stat.S_ISREG(Path(name).stat().st_mode)
    except (OSError, ValueError):
        return False
