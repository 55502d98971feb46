"""A refresh in a separate child process of the supervisor, which ends after the refresh."""

from __future__ import annotations

import asyncio
import time
from enum import IntEnum

from fastscreen.allowlist import wording
from fastscreen.allowlist.dns import Dns, nameservers_of
from fastscreen.allowlist.lists import Renewal, lists_of, renew
from fastscreen.config import Config
from fastscreen.process.conditions import Conditions, Kind
from fastscreen.process.log_output import LogTarget
from fastscreen.process.startup import set_name_and_priority

NAME = "fastscreen-list"
NICENESS = 10  # mail goes first


class End(IntEnum):
    """The exit code, for the supervisor."""

    DONE = 0
    AGAIN = 10
    """No name server answered, or nothing could be written: try again soon."""


def run(config: Config, target: LogTarget, conditions: Conditions) -> int:
    """Refresh all lists. An error is a warning, and a condition until a refresh succeeds. Return `End`."""
    set_name_and_priority(NAME, NICENESS)
    end, failed = asyncio.run(_refresh(config, target))
    if failed:
        text = f"{' and '.join(failed)}: not refreshed; the last good result stays in use"
        conditions.begin(Kind.ALLOWLIST, text)
    else:
        conditions.end(Kind.ALLOWLIST)
    target.close()
    return end


async def _refresh(config: Config, target: LogTarget) -> tuple[End, list[str]]:
    """Refresh all lists. Also return the names of lists of which nothing could be refreshed."""
    dns = Dns(nameservers_of(config))
    in_vain: list[bool] = []
    failed: list[str] = []
    try:
        for each in lists_of(config):
            try:
                renewal = await renew(each, dns, time.time())
            except BlockingIOError:
                target.log.warning(f"{each.name}: not refreshed: another refresh is under way")
                found = [True]
            except OSError as error:
                target.log.warning(f"{each.name}: not refreshed: {error.filename}: {error.strerror}")
                found = [True]
            else:
                found = [change.unreachable for change in renewal.changes if change.name in _names(renewal)]
                _tell(renewal, target)
            in_vain += found
            if found and all(found):
                failed.append(each.name)
    finally:
        await dns.close()
    return End.AGAIN if in_vain and all(in_vain) else End.DONE, failed


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
