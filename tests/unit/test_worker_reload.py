"""How a worker handles the sockets of a reload. The core and everything else are mocks."""

from __future__ import annotations

import asyncio
import os
import socket
from types import SimpleNamespace

import pytest

from fastscreen import config
from fastscreen.daemon.worker import Worker
from fastscreen.process import ipc
from fastscreen.screening import policy


class Tables:
    """No tables, and a policy of nothing."""

    shown: tuple[str, ...] = ()

    def __init__(self, _: object) -> None:
        pass

    def policy(self, *_: object) -> SimpleNamespace:
        return SimpleNamespace(policy=None, proxies={}, offers=None, warnings=())


def test_a_worker_that_was_forked_during_a_reload_listens_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has had the new sockets from the start, and gets them again."""
    monkeypatch.setattr(policy, "Tables", Tables)
    monkeypatch.setattr(policy, "enabled_tests", lambda _: None)
    settings = config.default()
    (address,) = settings.listen.addresses
    listened: list[int] = []
    with socket.socket() as own:
        worker = SimpleNamespace(
            _listeners={address: own},
            _config=settings,
            _mta_socket=lambda _: "",
            _log=SimpleNamespace(warning=print),
            _args=SimpleNamespace(share=None, health=None),
            _stopping=False,
            _screener=SimpleNamespace(unlisten=print, use_policy=lambda _: None),
            _listen=lambda listener, _: listened.append(listener.fileno()),
            _resolver=SimpleNamespace(close=lambda: asyncio.sleep(0)),
            _use_resolvers=lambda _: None,
            _use_cluster=lambda _: None,
            _use_history=lambda *_: None,
            _cache=None,
            _query_capabilities=lambda *_: None,
            _list_health=None,
        )
        again = os.dup(own.fileno())
        memory = ipc.settings_memory(settings, (address,))
        asyncio.run(Worker._reload(worker, [memory, again]))  # type: ignore[arg-type]
        assert worker._listeners == {address: own}
    assert listened == []
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(again)
