"""Work of the supervisor that takes several steps, such as a reload: one task at a time, resumed by its loop."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TypeVar

_Result = TypeVar("_Result")
Steps = Generator[None, None, _Result]
"""A task. At each `yield` the supervisor's loop serves everything else; it resumes the task after the next event."""


class TaskQueue:
    """The current task, and those that wait for it."""

    def __init__(self) -> None:
        self._current: Steps[object] | None = None
        self._waiting: dict[str, Callable[[], Steps[object]]] = {}

    @property
    def is_idle(self) -> bool:
        """Whether no task is running or waiting."""
        return self._current is None and not self._waiting

    def waits(self, kind: str) -> bool:
        """Whether a task of this kind waits."""
        return kind in self._waiting

    def begin(self, task: Steps[object]) -> None:
        """Make this the current task, ahead of those that wait."""
        self._current = task

    def add(self, kind: str, task: Callable[[], Steps[object]]) -> None:
        """Run a task after those before it. One of the same kind that still waits is replaced."""
        self._waiting[kind] = task

    def resume(self, *, begin_next: bool = True) -> None:
        """Run the current task up to its next step; when it has ended, begin the next one. What it raises is raised."""
        while True:
            if self._current is None:
                if not self._waiting or not begin_next:
                    return
                self._current = self._waiting.pop(next(iter(self._waiting)))()
            try:
                next(self._current)
                return
            except StopIteration:
                self._current = None
            except BaseException:
                self._current = None
                raise

    def cancel(self) -> None:
        """End the current task, which sees GeneratorExit, and drop those that wait."""
        self._waiting.clear()
        current, self._current = self._current, None
        if current is not None:
            current.close()
