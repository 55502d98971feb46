"""The faults: each is a context manager that begins one, says what it did, and ends it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

from msgspec import Struct

from soak.world import World

Resources = Callable[[World], AbstractAsyncContextManager[str]]


class Fault(Struct, frozen=True):
    """row: the row of the failure table in docs/architecture.md that it belongs to. least, most: s for which it holds.
    grace: s after its end in which its effects on clients count as its own. long: too long for a run of two minutes.
    restarts: fastscreen starts again. spares_known: clients that are known do not notice it."""

    name: str
    row: str
    holding: Resources
    least: float
    most: float
    grace: float = 15.0
    long: bool = False
    restarts: bool = False
    spares_known: bool = False


FAULTS: dict[str, Fault] = {}
"""All of them, by name; the modules that define them are imported by `soak.nemesis`."""


def fault(
    row: str,
    least: float,
    most: float,
    *,
    grace: float = 15.0,
    long: bool = False,
    restarts: bool = False,
    spares_known: bool = False,
    name: str = "",
    **settings: object,
) -> Callable[[Callable[..., AsyncIterator[str]]], Callable[..., AsyncIterator[str]]]:
    """Register a generator that begins a fault, yields what it did, and ends it. The same one may be registered under
    several names, with other settings."""

    def register(generator: Callable[..., AsyncIterator[str]]) -> Callable[..., AsyncIterator[str]]:
        called = name or generator.__name__
        holding = asynccontextmanager(partial(generator, **settings))
        FAULTS[called] = Fault(called, row, holding, least, most, grace, long, restarts, spares_known)
        return generator

    return register
