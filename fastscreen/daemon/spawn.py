"""How a process under the supervisor begins: forked, without what is another's, and what each kind does."""

from __future__ import annotations

import math
import os
import signal
import socket
import time
import traceback
from collections.abc import Callable, Generator
from typing import NoReturn, TypeVar

from fastscreen.allowlist import process as refresh
from fastscreen.cache import use_mark
from fastscreen.control.server import Daemon, Hub
from fastscreen.daemon.resources import Holdings, close_all
from fastscreen.daemon.worker import Crew, Seat, Worker
from fastscreen.process import ipc, signals
from fastscreen.process.child import Place, State
from fastscreen.process.conditions import Conditions
from fastscreen.process.ipc import Report
from fastscreen.process.warning_ring import WarningBook
from fastscreen.tls.process import Seat as TlsSeat
from fastscreen.tls.process import TlsProcess

START_SECONDS = 40.0  # opening the cache may wait for another process

_Result = TypeVar("_Result")
Steps = Generator[None, None, _Result]
"""Work of the supervisor in steps: at each `yield` its loop serves everything else, and goes on at the next event."""


class Silent:
    """A process did not report in time."""


def start_worker(held: Holdings, place: Place, *, look_over_cache: bool) -> None:
    """Fork a worker. The child never returns from here. OSError: no descriptors or processes."""
    mark = held.mark(place)
    use_mark.clear(mark)
    fork(held, place, lambda theirs: _work(held, place, theirs, mark, look_over_cache))
    place.expect(State.STARTING, time.monotonic() + START_SECONDS)


def start_tls(held: Holdings, place: Place) -> None:
    """Fork a TLS process. OSError: as above."""
    held.tls_ready[place.number] = 0
    fork(held, place, lambda theirs: _encrypt(held, place, theirs))
    place.expect(State.STARTING, time.monotonic() + START_SECONDS)


def start_hub(held: Holdings) -> None:
    """Fork the hub. Nothing waits for it: the front door is open whether it comes up or not. OSError: as above."""
    fork(held, held.hub, lambda theirs: _serve(held, theirs))


def start_refresh(held: Holdings) -> None:
    """Fork a refresh of the lists, which ends by itself. Nothing waits for it. OSError: as above."""
    fork(held, held.refresher, lambda theirs: _refresh(held))


def fork(held: Holdings, place: Place, work: Callable[[socket.socket], int]) -> None:
    """Let a new process do `work` with its end of a channel. OSError: no descriptors or processes."""
    place.leave()
    ours, theirs = ipc.pair()
    held.target.log.flush()  # what is still to be written is not the child's
    with theirs:
        try:
            with held.oom.for_fork():
                pid = os.fork()
                if not pid:
                    ours.close()
                    _be(held, lambda: work(theirs))
        except OSError:
            ours.close()
            raise
        place.take(pid, ours)


def tried(held: Holdings, work: Callable[[socket.socket], int], seconds: float) -> Steps[Report | Silent | None]:
    """Let a child do what may fail or never end, and return its report; None: it ended without one. OSError: as above.

    Nobody waits: the supervisor's loop goes on meanwhile, and buries the child.
    """
    place = Place("trial")
    fork(held, place, work)
    place.expect(State.STARTING, time.monotonic() + seconds)
    held.trials.append(place)
    try:
        while place.pid and place.answer is None:
            if time.monotonic() >= place.by:
                return Silent()
            yield
        return place.answer
    finally:
        place.leave()
        place.kill()
        place.by = math.inf
        if not place.pid and place in held.trials:
            held.trials.remove(place)


def _be(held: Holdings, whatever: Callable[[], int]) -> NoReturn:
    """In the child: do this, and end."""
    code = 70  # EX_SOFTWARE
    try:
        # Not SIG_IGN, which the child's own children would inherit.
        for number in signals.FOR_SUPERVISOR:
            signal.signal(number, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals.BLOCKED)
        if held.signals is not None:
            held.signals.close()
        if held.oom.fd >= 0:
            os.close(held.oom.fd)
        for place in [*held.everyone, *held.former, *held.trials]:
            place.leave()
        if held.key_reader is not None:
            held.key_reader.close()
        code = whatever()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _work(held: Holdings, place: Place, theirs: socket.socket, mark: memoryview, look_over_cache: bool) -> int:
    """What a worker does, with nothing in its hands that is another's."""
    number = place.number
    without_doors(held)
    own = {}
    for address, group in held.groups.items():
        own[address] = group[number]
        close_all(listener for listener in group if listener is not own[address])
    close_all(receiving for at, (_, receiving) in enumerate(held.inboxes) if at != number)
    close_all(hubs for hubs, _ in held.questions)
    close_all(workers for at, (_, workers) in enumerate(held.questions) if at != number)
    without_keys(held)
    held.tls_pair[1].close()
    target = held.target.for_child()
    target.log.on_warning = WarningBook(held.books[number]).write
    seat = Seat(
        number,
        len(held.places),
        theirs,
        mark,
        held.rings[number],
        held.questions[number][1] if held.questions else None,
        look_over_cache,
        held.tls_pair[0],
        held.tls_ready,
        Crew(held.key, held.inboxes),
        held.health,
        held.pulse(place),
        fresh(held.condition_memory[number]),
    )
    target.watch(seat.conditions)
    return Worker(held.config, held.tables, own, target, seat).run()


def _encrypt(held: Holdings, place: Place, theirs: socket.socket) -> int:
    """What a TLS process does."""
    number = place.number
    without_doors(held)
    for group in held.groups.values():
        close_all(group)
    for pair in (*held.inboxes, *held.questions):
        close_all(pair)
    held.tls_pair[0].close()
    target = held.target.for_child("tlsproxy")
    target.log.on_warning = WarningBook(held.books[len(held.places) + number]).write
    assert held.certificates is not None
    ready = held.tls_ready[number : number + 1]
    conditions = fresh(held.condition_memory[len(held.places) + number])
    seat = TlsSeat(number, theirs, held.tls_pair[1], ready, held.certificates, held.pulse(place), conditions)
    target.watch(seat.conditions)
    return TlsProcess(held.config, target, seat).run()


def _refresh(held: Holdings) -> int:
    """What a refresh of the lists does: it needs nothing of the daemon's but settings and log."""
    without_doors(held)
    for group in held.groups.values():
        close_all(group)
    for pair in (*held.inboxes, *held.questions, held.tls_pair):
        close_all(pair)
    without_keys(held)
    target = held.target.for_child()
    target.log.on_warning = WarningBook(held.books[-3]).write
    return refresh.run(held.config, target, Conditions(held.condition_memory[-3]))


def fresh(memory: memoryview) -> Conditions:
    """The conditions of a process that starts: those of its predecessor ended with it."""
    conditions = Conditions(memory)
    conditions.clear()
    return conditions


def without_doors(held: Holdings) -> None:
    """The sockets that only the hub serves."""
    for door in (held.control, held.metrics):
        if door is not None:
            door.listener.close()


def without_keys(held: Holdings) -> None:
    """A process that talks to strangers has no private key in reach."""
    if held.certificates is not None:
        held.certificates.close()


def _serve(held: Holdings, theirs: socket.socket) -> int:
    """What the hub does."""
    for group in held.groups.values():
        close_all(group)
    for ends in held.inboxes:
        close_all(ends)
    close_all(workers for _, workers in held.questions)
    without_keys(held)
    close_all(held.tls_pair)
    target = held.target.for_child()
    target.log.on_warning = WarningBook(held.books[-1]).write
    target.watch(fresh(held.condition_memory[-1]))
    daemon = Daemon(
        pid=os.getppid(),
        started=held.started,
        channel=theirs,
        control=held.control.listener if held.control is not None else None,
        metrics=held.metrics.listener if held.metrics is not None else None,
        questions=[hubs for hubs, _ in held.questions],
        rings=held.rings,
        books=held.books,
        condition_memory=held.condition_memory,
        tables=held.tables,
        key=held.key,
        health=held.health,
        pulse=held.pulse(held.hub),
        reload_state=held.reload_state,
    )
    return Hub(held.config, target, daemon).run()
