"""Faults of fastscreen's own processes: killed, stopped, started again, without descriptors or memory."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

from soak.faults import fault
from soak.smtp import now
from soak.world import World

_WORKER = "a worker dies or hangs"
_TLS = "a TLS process dies or hangs"
_CONTROL = "the control server dies or hangs"
_SUPERVISOR = "the supervisor is busy, stopped or killed"
_RELOAD = "reloads under load"
_RESTART = "a restart under load"
_DESCRIPTORS = "descriptors run out"
_MEMORY = "memory runs out"
_REPLACED_SECONDS = 15.0
_CGROUP = Path("/sys/fs/cgroup/memory")


async def _pick(world: World, kind: str) -> int:
    for _ in range(100):
        if found := world.processes(kind):
            return world.chance.choice(found)
        await asyncio.sleep(0.1)
    raise RuntimeError(f"no {kind} process")


@fault(_WORKER, 1, 3, name="worker_killed", kind="worker")
@fault(_WORKER, 1, 3, name="worker_killed_three_times", kind="worker", times=3)
@fault(_TLS, 1, 3, spares_known=True, name="tls_killed", kind="tls")
@fault(_CONTROL, 1, 3, spares_known=True, name="control_killed", kind="control")
async def _killed(world: World, kind: str, times: int = 1) -> AsyncIterator[str]:
    killed = []
    for _ in range(times):
        pid = await _pick(world, kind)
        world.kill(pid)
        killed.append(str(pid))
        await asyncio.sleep(0.5 * (times > 1))
    yield " ".join(killed)


@fault(_WORKER, 1, 3)
async def workers_killed(world: World) -> AsyncIterator[str]:
    """All at once."""
    pids = world.processes("worker")
    for pid in pids:
        world.kill(pid)
    yield " ".join(map(str, pids))


@fault(_WORKER, 4, 10, name="worker_stopped", kind="worker")
@fault(_WORKER, 65, 80, name="worker_hangs", kind="worker", long=True)
@fault(_WORKER, 4, 8, name="workers_stopped", kind="worker", everyone=True)
@fault(_TLS, 4, 10, spares_known=True, name="tls_stopped", kind="tls")
@fault(_TLS, 65, 80, spares_known=True, name="tls_hangs", kind="tls", long=True)
@fault(_CONTROL, 4, 10, spares_known=True, name="control_stopped", kind="control")
@fault(_CONTROL, 65, 80, spares_known=True, name="control_hangs", kind="control", long=True)
@fault(_SUPERVISOR, 4, 10, name="supervisor_stopped", kind="supervisor")
async def _stopped(world: World, kind: str, everyone: bool = False) -> AsyncIterator[str]:
    if kind == "supervisor":
        pids = [world.supervisor]
    else:
        pids = world.processes(kind) if everyone else [await _pick(world, kind)]
    for pid in pids:
        world.kill(pid, signal.SIGSTOP)
    yield " ".join(map(str, pids))
    for pid in pids:
        world.kill(pid, signal.SIGCONT)


@fault(_SUPERVISOR, 3, 6)
async def worker_hangs_reload_worker_killed(world: World) -> AsyncIterator[str]:
    """The supervisor waits for the answer of one worker while another one dies."""
    workers = world.processes("worker")
    world.kill(workers[0], signal.SIGSTOP)
    world.reload()
    await asyncio.sleep(0.3)
    world.kill(workers[-1])
    began = now()
    while world.options.workers > 1 and not set(world.processes("worker")) - set(workers):
        if now() > began + _REPLACED_SECONDS:
            world.violate(f"a dead worker is not replaced within {_REPLACED_SECONDS:.0f} s while another one hangs")
            break
        await asyncio.sleep(0.1)
    yield f"{workers[0]} stopped, {workers[-1]} killed, replaced after {now() - began:.1f} s"
    world.kill(workers[0], signal.SIGCONT)


@fault(_RELOAD, 1, 2, spares_known=True)
async def reload_storm(world: World) -> AsyncIterator[str]:
    """60 reloads of two configurations in turn."""
    for _ in range(60):
        world.configure(teaser=world.chance.choice(("$banner", "hello there")))
        world.reload()
        await asyncio.sleep(world.chance.choice((0, 0.01, 0.1)))
    yield "60 reloads"
    world.configure()
    world.reload()


def _all_gone(world: World) -> None:
    """Before a restart, which may leave former workers to their clients for a while."""
    world.gone.update(world.all_processes())
    world.former |= world.workers


@fault(_SUPERVISOR, 1, 3, restarts=True)
async def supervisor_killed(world: World) -> AsyncIterator[str]:
    """And started again, as a service manager does."""
    _all_gone(world)
    world.kill(world.supervisor)
    world.daemon.wait()
    world.start_daemon()
    yield "started again"
    await world.until_up()


@fault(_RESTART, 1, 2, restarts=True, name="restarted", times=1)
@fault(_RESTART, 1, 2, restarts=True, name="restarted_at_once", times=2)
async def _restarted(world: World, times: int) -> AsyncIterator[str]:
    _all_gone(world)
    began = now()
    for _ in range(times):
        world.kill(world.supervisor, signal.SIGTERM)
        await asyncio.sleep(0.2)
    while world.daemon.poll() is None and now() < began + 60:
        await asyncio.sleep(0.05)
    if world.daemon.poll() != 0:
        world.violate(f"after {times} SIGTERM it ends with {world.daemon.returncode} after {now() - began:.0f} s")
        world.kill(world.supervisor)
        world.daemon.wait()
    ended = now() - began
    world.start_daemon()
    yield f"ended after {ended:.1f} s"
    await world.until_up()


def takes_signal(pid: int, number: int) -> bool:
    """Whether a process handles, or waits for, a signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    masks = re.findall(r"Sig(?:Cgt|Blk):\s*([0-9a-f]+)", status)
    return any(int(mask, 16) >> (number - 1) & 1 for mask in masks)


@fault(_RESTART, 3, 6, restarts=True)
async def upgraded(world: World) -> AsyncIterator[str]:
    """SIGUSR2: the listening sockets pass to the successor, and no connection is refused."""
    if not takes_signal(world.supervisor, signal.SIGUSR2):
        yield "not supported by this build"
        return
    _all_gone(world)
    world.kill(world.supervisor, signal.SIGUSR2)
    yield "SIGUSR2"
    await world.until_up()


def _limit(world: World, pid: int, value: int) -> int:
    """Set the soft limit of a process's descriptors; return what it was. As its user: root without CAP_SYS_RESOURCE, as
    in a container, may not."""
    found = re.search(r"Max open files +(\d+)", Path(f"/proc/{pid}/limits").read_text())
    assert found is not None
    user, group = world.owner
    as_user = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups"]
    subprocess.run([*as_user, "prlimit", f"--pid={pid}", f"--nofile={value}:"], check=True, capture_output=True)
    return int(found[1])


@fault(_DESCRIPTORS, 4, 8, name="descriptors_worker", kind="worker")
@fault(_DESCRIPTORS, 4, 8, name="descriptors_tls", kind="tls")
@fault(_DESCRIPTORS, 4, 8, name="descriptors_control", kind="control")
async def _descriptors(world: World, kind: str) -> AsyncIterator[str]:
    pid = await _pick(world, kind)
    used = max(int(path.name) for path in Path(f"/proc/{pid}/fd").iterdir())
    value = used + 1 + world.chance.choice((0, 2, 6))
    before = _limit(world, pid, value)
    yield f"{pid}: {before} to {value}"
    with contextlib.suppress(subprocess.CalledProcessError, OSError):  # it ended
        _limit(world, pid, before)


@fault(_MEMORY, 4, 8)
async def memory_limit(world: World) -> AsyncIterator[str]:
    """A limit on all of fastscreen a little above what it uses (cgroup v1, where there is one)."""
    group = _CGROUP / f"soak{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        yield f"not possible here: {error.strerror}"
        return
    try:
        for pid in world.all_processes():
            (group / "tasks").write_text(str(pid))
        # What was used before stays with the group in which it was: so this limits what is added.
        (group / "memory.limit_in_bytes").write_text(str(2 << 20))
        yield "2 MiB more"
    finally:
        (group / "memory.limit_in_bytes").write_text("-1")
        for task in (group / "tasks").read_text().split():
            with contextlib.suppress(OSError):
                (_CGROUP / "tasks").write_text(task)
        with contextlib.suppress(OSError):
            group.rmdir()
