"""Refreshes the lists of [allowlist] and [denylist]: at each interval, a child process looks up all providers."""

from __future__ import annotations

from fastscreen.allowlist import lists
from fastscreen.allowlist.process import End
from fastscreen.allowlist.schedule import RefreshSchedule
from fastscreen.config import Config
from fastscreen.daemon import spawn, table_reload
from fastscreen.daemon.resources import Resources
from fastscreen.daemon.tasks import TaskQueue
from fastscreen.process.child import describe_exit
from fastscreen.process.conditions import Conditions, Kind


class ListRefresh:
    """Starts the child when a refresh is due, and has the tables read again when the lists have changed."""

    def __init__(self, resources: Resources, tasks: TaskQueue) -> None:
        self._resources = resources
        self._tasks = tasks
        self._schedule = RefreshSchedule()
        self._is_canceled = False
        self._problem = ""

    @property
    def due(self) -> float:
        """When `run` has something to do (s, monotonic)."""
        return self._schedule.deadline if self._resources.refresher.pid else self._schedule.due

    def configure(self, config: Config, now: float) -> None:
        """At the start."""
        self._schedule.configure(config, now)

    def reconfigure(self, before: Config, now: float) -> None:
        """After a reload: a refresh with the old settings is ended. Its files are complete at any time."""
        config = self._resources.config
        if (config.allowlist, config.denylist) == (before.allowlist, before.denylist):
            return
        self.cancel()
        self._schedule.configure(config, now)
        if not self._resources.refresher.pid:
            self._show("")

    def cancel(self) -> None:
        """End a refresh. That is not a failure."""
        self._is_canceled = True
        self._resources.refresher.kill()

    def run(self, now: float) -> None:
        """Begin a refresh that is due, or kill one that takes too long."""
        resources, schedule = self._resources, self._schedule
        if resources.refresher.pid and now >= schedule.deadline:
            resources.warn("allowlist: the refresh takes too long: killed; the lists stay as they are")
            self.cancel()
            self._problem = "the last refresh took too long and was killed"
            schedule.begin(now)
        if resources.refresher.pid or resources.stopping or now < schedule.due:
            return
        schedule.begin(now)
        self._is_canceled, self._problem = False, ""
        try:
            spawn.start_refresh(resources)
        except OSError as error:
            schedule.end(1, now)
            text = f"allowlist: no process for a refresh: {error.strerror}"
            resources.warn(f"{text}; retried automatically")
            self._show(text)

    def ended(self, pid: int, code: int, now: float) -> None:
        """The child has ended."""
        resources = self._resources
        self._schedule.end(code, now)
        problem = self._problem
        if code not in (End.DONE, End.AGAIN) and not self._is_canceled:
            problem = f"the last refresh {describe_exit(code)}"
            resources.warn(f"allowlist (process {pid}) {describe_exit(code)}: the lists stay as they are")
        self._show(problem)
        # Not by the exit code: it may have written a list before it failed, and so may a refresh by hand.
        if lists.versions(resources.config) != resources.list_versions:
            self._tasks.add("tables", lambda: table_reload.read_tables_again(resources))

    def _show(self, problem: str) -> None:
        """Begin the condition for a failure that the child cannot report. Empty: end it if nothing is refreshed now.

        Call it only while a child does not run, because children write to the same memory.
        """
        conditions = Conditions(self._resources.condition_memory[-3])
        if not self._schedule.is_enabled:
            conditions.end(Kind.ALLOWLIST)
        elif problem:
            conditions.begin(Kind.ALLOWLIST, f"{problem}; the lists stay as they are")
