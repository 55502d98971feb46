"""A refresh in a process of its own under the supervisor, which ends with it."""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from enum import IntEnum

from fastscreen.allowlist import wording
from fastscreen.allowlist.dns import Dns, nameservers_of
from fastscreen.allowlist.lists import Renewal, lists_of, renew
from fastscreen.config import Config
from fastscreen.logs import LogTarget

_PR_SET_NAME = 15
NAME = b"fastscreen-list"  # as top and ps show it, at most 15 octets
NICENESS = 10  # where there is not CPU enough, mail goes first


class End(IntEnum):
    """The exit code, for the supervisor."""

    SAME = 0
    CHANGED = 10
    """A table has other rules than before."""
    UNREACHABLE = 11
    """No name server gave an answer: it is worth trying again soon."""


def run(config: Config, target: LogTarget) -> int:
    """Refresh all lists; what goes wrong is a warning. Return `End`."""
    os.nice(NICENESS)
    ctypes.CDLL(None).prctl(_PR_SET_NAME, NAME)
    end = asyncio.run(_refresh(config, target))
    target.log.flush()
    return end


async def _refresh(config: Config, target: LogTarget) -> End:
    dns = Dns(nameservers_of(config))
    changed = False
    unreachable = []
    try:
        for each in lists_of(config):
            try:
                renewal = await renew(each, dns, time.time())
            except BlockingIOError:
                target.log.warning(f"{each.name}: not refreshed: another refresh is under way")
            except OSError as error:
                target.log.warning(f"{each.name}: not refreshed: {error.filename}: {error.strerror}")
            else:
                changed |= renewal.written
                unreachable += [change.unreachable for change in renewal.changes if change.name in _names(renewal)]
                _tell(renewal, target)
    finally:
        await dns.close()
    if changed:
        return End.CHANGED
    return End.UNREACHABLE if unreachable and all(unreachable) else End.SAME


def _names(renewal: Renewal) -> set[str]:
    return {source.name for source in renewal.of.sources}


def _tell(renewal: Renewal, target: LogTarget) -> None:
    if renewal.warning:
        target.log.warning(f"{renewal.of.name}: {renewal.warning}")
    if line := wording.sum_of(renewal):
        target.log.info(line)
    for line in wording.notes_of(renewal):
        target.log.info(line)
    if line := wording.problems_of(renewal):
        target.log.warning(line)
