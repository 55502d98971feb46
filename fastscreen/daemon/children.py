"""The supervisor's children, once they run: their reports, their time limits, their ends and their successors.

A child that dies is started again: at once, a second time in a row after 1 s, then 2, 4, up to 30 s. One that does not
report in time, or whose heartbeat stops, is killed first.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator

from fastscreen.cache import lmdb_file, use_mark
from fastscreen.daemon import spawn, tls_reload
from fastscreen.daemon.cache_crashes import CacheCrashes
from fastscreen.daemon.error_guard import ErrorGuard
from fastscreen.daemon.list_refresh import ListRefresh
from fastscreen.daemon.resources import Resources
from fastscreen.process import ipc
from fastscreen.process.child import END_SECONDS, SHORT_LIFE_SECONDS, Child, ChildState, Heartbeat, describe_exit
from fastscreen.process.conditions import Kind
from fastscreen.process.ipc import Failed, MalformedError, Ready

HEARTBEAT_SECONDS = 10.0  # between two checks of the heartbeats
MAX_MISSED = 6  # checks in a row; so many, because the whole machine may have stood still meanwhile
MAX_REPORTS = 16  # of one child in one turn of the loop


class Children:
    """Workers and all other processes of the daemon; also trials, and processes of before a restart."""

    def __init__(
        self, resources: Resources, guard: ErrorGuard, list_refresh: ListRefresh, cache_crashes: CacheCrashes
    ) -> None:
        self._resources = resources
        self._guard = guard
        self._list_refresh = list_refresh
        self._cache_crashes = cache_crashes
        self._heartbeats_at = math.inf
        self._failing: set[Kind] = set()
        """Conditions that end when the children concerned have lived for a while."""

    def __iter__(self) -> Iterator[Child]:
        """All, whether a process runs or not."""
        resources = self._resources
        yield from resources.everyone
        yield from resources.trials
        yield from resources.former

    def start(self, child: Child, *, look_over_cache: bool) -> None:
        """Fork it. OSError: no descriptors or processes."""
        if child is self._resources.control_process:
            spawn.start_control(self._resources)
        elif child in self._resources.tls:
            spawn.start_tls(self._resources, child)
        elif self._resources.cluster is not None and child is self._resources.cluster.child:
            spawn.start_cluster(self._resources, self._resources.cluster)
        elif self._resources.history is not None and child is self._resources.history.child:
            spawn.start_recorder(self._resources, self._resources.history)
        else:
            spawn.start_worker(self._resources, child, look_over_cache=look_over_cache)

    def due(self, now: float) -> Iterator[float]:
        """When something is to be done (s, monotonic)."""
        for child in self.missing():
            yield child.start_at
        for child in self:
            if child.pid:
                yield child.deadline
        if not self._resources.stopping:
            yield self._heartbeats_at
        if self._failing:
            yield now + 1.0

    # ---- reports

    def receive_reports(self, child: Child) -> None:
        """Take the reports of a child whose channel is readable."""
        for _ in range(MAX_REPORTS):
            if child.channel is None or child.is_muted:
                return
            try:
                report = ipc.receive_report(child.channel)
                if report is None:  # it ends; if it does not, it is of no use any more
                    child.is_muted = True
                    child.end_by(time.monotonic() + END_SECONDS)
                    return
                before = child.state
                child.take_report(report)
            except BlockingIOError:
                return
            except (MalformedError, ValueError) as error:
                child.is_muted = True
                child.kill()
                if child not in self._resources.former:
                    self._resources.warn(f"{child.name} (process {child.pid}) sent {error}: killed")
                return
            if child not in self._resources.trials and child not in self._resources.former:
                self._handle_report(child, before, report)

    def _handle_report(self, child: Child, before: ChildState, report: ipc.Report) -> None:
        resources = self._resources
        match report, before:
            case Ready(), ChildState.STARTING:
                if not resources.starting:
                    resources.info(f"{child.name} is process {child.pid} now")
            case Failed(why), ChildState.STARTING:
                if not resources.starting:
                    resources.warn(f"{child.name} cannot start: {why}")
                    self._begin_condition(child, f"{child.name} cannot start: {why}")
            case Failed(why), _:
                resources.warn(f"{child.name}: configuration not taken over: {why}; it is started again")
                child.kill()

    # ---- time limits

    def enforce_deadlines(self, now: float) -> None:
        """Kill children that did not report, or did not end, in time."""
        resources = self._resources
        for child in list(self):
            if not child.pid or now < child.deadline or child in resources.trials:  # handled by the task of its trial
                continue
            child.deadline = math.inf
            if child in resources.former:
                resources.warn(f"{child.name} (process {child.pid}, before the restart) did not stop: killed")
            elif child.state is ChildState.STARTING and not resources.starting:
                resources.warn(f"{child.name} does not start: killed")
                self._begin_condition(child, f"{child.name} does not start")
            elif child.state is ChildState.RELOADING:
                resources.warn(f"{child.name}: configuration not taken over: no answer; it is started again")
            child.kill()

    def watch_heartbeats(self, now: float) -> None:
        """Begin to check heartbeats."""
        self._heartbeats_at = now + HEARTBEAT_SECONDS

    def check_heartbeats(self, now: float) -> None:
        """Kill children that hang: their clients would wait for ever, and so would all that come after them."""
        if self._resources.stopping or now < self._heartbeats_at:
            return
        self._heartbeats_at = now + HEARTBEAT_SECONDS
        resources = self._resources
        for child in resources.watched:
            if child.pid and child.heartbeat.missed(resources.heartbeat(child)[0]) >= MAX_MISSED:
                resources.warn(f"{child.name} (process {child.pid}) hangs: killed")
                child.kill()
                child.heartbeat = Heartbeat()

    # ---- ends

    def reap(self) -> None:
        """Collect the processes that have ended. As process 1 of a container, also those of strangers."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            code = _exit_code(status)
            reader = self._resources.key_reader
            if reader is not None and reader.pid == pid:
                tls_reload.reader_ended(self._resources, describe_exit(code))
            for child in list(self):
                if child.pid == pid:
                    self._guard.call(f"the last report of {child.name}", self.receive_reports, child)
                    self._guard.call(f"the end of {child.name}", self.handle_end, child, code)

    def handle_end(self, child: Child, code: int) -> None:
        """The process of a child has ended."""
        resources, pid, since = self._resources, child.pid, child.serving_since
        child.ended()
        if child in resources.trials:
            resources.trials.remove(child)
            return
        if child in resources.former:
            resources.former.remove(child)
            child.close_channel()
            return
        if child in resources.tls:
            resources.tls_ready[child.number] = 0
        if resources.cluster is not None and child is resources.cluster.child:
            resources.cluster.state.clear()
        if resources.stopping or resources.starting:
            return
        if child is resources.refresher:
            self._list_refresh.ended(pid, code, time.monotonic())
            return
        resources.warn(f"{child.name} (process {pid}) {describe_exit(code)}: it is started again")
        if since < math.inf:
            if child.short_lives > 1:
                often = f"{child.short_lives} times within {SHORT_LIFE_SECONDS:g} s of its start"
                self._begin_condition(child, f"{child.name} {describe_exit(code)}, {often}")
        elif not isinstance(child.last_report, Failed):  # else the reason is known
            self._begin_condition(child, f"{child.name} {describe_exit(code)} before it served")
        if child in resources.children and -code in lmdb_file.CRASHES:
            self._cache_crashes.add(use_mark.file_in_use(resources.mark(child)))
            if resources.history is not None:
                self._cache_crashes.add(use_mark.file_in_use(resources.history.mark(child.number)), lmdb_file.MEMORY)

    # ---- successors

    def missing(self) -> list[Child]:
        """The children that are to be started again."""
        resources = self._resources
        if resources.stopping or resources.starting:
            return []
        wanted = [
            *resources.children,
            *(resources.tls if resources.wants_tls else []),
            *resources.optional,
            *([resources.control_process] if resources.wants_control else []),
        ]
        return [child for child in wanted if not child.pid]

    def start_again(self, child: Child) -> None:
        """Start the successor of a child that has ended."""
        try:
            self.start(child, look_over_cache=True)
        except OSError as error:
            child.not_started()
            text = f"no process for {child.name}: {error.strerror}"
            self._resources.warn_rarely(child.name, f"{text}; retried automatically")
            self._begin_condition(child, text)

    # ---- conditions

    def _begin_condition(self, child: Child, text: str) -> None:
        if child in self._resources.children:
            kind, consequence = Kind.WORKER, "it is started again and again"
        elif child in self._resources.tls:
            kind, consequence = Kind.TLS, "it is started again and again, STARTTLS may be refused"
        elif self._resources.cluster is not None and child is self._resources.cluster.child:
            kind, consequence = Kind.CLUSTER, "it is started again and again, passes are not shared meanwhile"
        elif self._resources.history is not None and child is self._resources.history.child:
            kind, consequence = Kind.HISTORY, "it is started again and again, sessions may be lost meanwhile"
        else:
            return
        self._resources.conditions.begin(kind, f"{text}; {consequence}")
        self._failing.add(kind)

    def end_conditions(self, now: float) -> None:
        """End conditions whose children have lived for a while."""
        resources = self._resources
        for kind, children in (
            (Kind.WORKER, resources.children),
            (Kind.TLS, resources.tls if resources.wants_tls else []),
            (Kind.CLUSTER, [resources.cluster.child] if resources.cluster is not None else []),
            (Kind.HISTORY, [resources.history.child] if resources.history is not None else []),
        ):
            if kind in self._failing and all(now >= each.serving_since + SHORT_LIFE_SECONDS for each in children):
                resources.conditions.end(kind)
                self._failing.discard(kind)


def _exit_code(status: int) -> int:
    """Negative for a signal."""
    try:
        return os.waitstatus_to_exitcode(status)
    except ValueError:  # stopped or continued, which was not asked for
        return status
