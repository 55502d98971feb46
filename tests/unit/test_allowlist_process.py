"""The result of a refresh: which lists failed. Nothing is queried."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from fastscreen.allowlist import process
from fastscreen.allowlist.process import End
from fastscreen.config import default
from fastscreen.process import conditions
from fastscreen.process.conditions import Conditions, Kind


class Refresh:
    """Refreshes of an allowlist and a denylist; `unreachable`: of which lists no source answers. `broken`: which cannot
    be written."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.unreachable: set[str] = set()
        self.broken: set[str] = set()
        self.conditions = Conditions(memoryview(bytearray(conditions.SIZE)))
        names = ("allowlist", "denylist")
        made = [
            SimpleNamespace(name=name, sources=[SimpleNamespace(name="a"), SimpleNamespace(name="b")]) for name in names
        ]
        monkeypatch.setattr(process, "lists_of", lambda _: made)
        monkeypatch.setattr(process, "Dns", lambda _: SimpleNamespace(close=lambda: asyncio.sleep(0)))
        monkeypatch.setattr(process, "renew", self.renew)
        monkeypatch.setattr(process, "_tell", lambda *_: None)
        monkeypatch.setattr(process, "set_name_and_priority", lambda *_: None)

    async def renew(self, each: SimpleNamespace, *_: object) -> SimpleNamespace:
        if each.name in self.broken:
            raise OSError(28, "No space left on device", "/lists/x")
        changes = [SimpleNamespace(name=one.name, unreachable=each.name in self.unreachable) for one in each.sources]
        return SimpleNamespace(of=each, changes=changes)

    def run(self) -> tuple[int, list[tuple[Kind, str]]]:
        target = SimpleNamespace(log=SimpleNamespace(warning=lambda _: None), close=lambda: None)
        code = process.run(default(), target, self.conditions)  # type: ignore[arg-type]
        return code, [(one.kind, one.text) for one in self.conditions.read()]


@pytest.mark.parametrize(
    "fail", [lambda refresh, name: refresh.unreachable.add(name), lambda refresh, name: refresh.broken.add(name)]
)
def test_each_list_that_fails_is_shown(monkeypatch: pytest.MonkeyPatch, fail: Callable[[Refresh, str], None]) -> None:
    refresh = Refresh(monkeypatch)
    assert refresh.run() == (End.DONE, [])
    fail(refresh, "denylist")
    rest = "not refreshed; the last good result stays in use"
    assert refresh.run() == (End.DONE, [(Kind.ALLOWLIST, f"denylist: {rest}")])
    fail(refresh, "allowlist")
    assert refresh.run() == (End.AGAIN, [(Kind.ALLOWLIST, f"allowlist and denylist: {rest}")])
    refresh.unreachable.clear()
    refresh.broken.clear()
    assert refresh.run() == (End.DONE, [])
