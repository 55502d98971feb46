"""fastscreen allowlist: big senders' networks for the access list, from their SPF records."""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import os
import sys
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from fastscreen.allowlist import state, wording
from fastscreen.allowlist.dns import Dns, nameservers_of
from fastscreen.allowlist.lists import List, Renewal, lists_of, renew
from fastscreen.allowlist.refresh import Change
from fastscreen.allowlist.state import Entry, State
from fastscreen.cli import COMMANDS
from fastscreen.cli.control_socket import USUAL_FILE
from fastscreen.cli.problems import print_problems
from fastscreen.config import Config, ConfigError, load, providers
from fastscreen.escaping import escape_text, printable
from fastscreen.format import moment, red, span
from fastscreen.process import privileges
from fastscreen.process.privileges import PrivilegeError

EXAMPLES = """\
examples:
  fastscreen allowlist list                             providers that a configuration may name
  fastscreen allowlist refresh --dry-run                look up all providers, show what would change
  fastscreen allowlist refresh                          look up all providers, write the tables
  fastscreen allowlist refresh --accept zoho            accept a result without most of the previous networks
  fastscreen allowlist show                             the last result of each provider, and its age
  fastscreen allowlist show google                      its networks

A running fastscreen refreshes the tables every allowlist.interval, and reads a changed table within seconds. postscreen
needs `postfix reload` after a refresh. If root runs refresh, it first switches to the user of the configuration.

exit codes: 0 done, 1 a provider keeps its last result or a file cannot be written, 2 wrong usage or configuration
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "allowlist",
        help=COMMANDS["allowlist"],
        description="Keep the networks of big senders, from their SPF records, in a table for the access list.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    ways = parser.add_subparsers(metavar="refresh|show|list", required=True)
    refresh = ways.add_parser("refresh", help="look up all providers and write the tables")
    refresh.add_argument("-n", "--dry-run", action="store_true", help="write nothing, show what would change")
    refresh.add_argument(
        "--accept",
        metavar="NAME",
        action="append",
        default=[],
        help="accept this provider's result even if it has less than half of its previous addresses or, on the "
        "denylist, more than twice as many; can be repeated",
    )
    refresh.set_defaults(run=run_refresh)
    show = ways.add_parser("show", help="show the last result of each provider, or the networks of one")
    show.add_argument("name", metavar="NAME", nargs="?", help="a provider or a domain")
    show.set_defaults(run=run_show)
    listing = ways.add_parser("list", help="list the known providers by group")
    listing.set_defaults(run=run_list)
    for way in (refresh, show):
        way.add_argument(
            "-c", "--config", metavar="FILE", type=Path, default=USUAL_FILE, help=f"the configuration ({USUAL_FILE})"
        )
    for way in (refresh, show, listing):
        way.add_argument("--json", action="store_true", help="print one JSON object instead")


def _reports_errors(run: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """The same command, with a line on stderr and an exit code for each error."""

    @functools.wraps(run)
    def guarded(arguments: argparse.Namespace) -> int:
        try:
            return run(arguments)
        except (ConfigError, PrivilegeError) as error:
            print_problems(error)
            return 2
        except OSError as error:
            print(f"fastscreen: {_why(error)}", file=sys.stderr)
            return 1

    return guarded


def _why(error: OSError) -> str:
    return (f"{escape_text(str(error.filename), 4096)}: " if error.filename else "") + str(error.strerror)


# ---- refresh


@_reports_errors
def run_refresh(arguments: argparse.Namespace) -> int:
    """Look up the providers, write the tables, print what changed, and return the exit code."""
    config = load(arguments.config)
    lists = lists_of(config)
    names = {name for each in lists for name in _names(each)}
    if unknown := sorted(set(arguments.accept) - names):
        raise ConfigError(f"--accept {printable(unknown[0])}: not on any list; expected {_some(names)}")
    _become_user(config, lists if not arguments.dry_run else [])
    if not lists:
        print(f"fastscreen: {config.source}: [allowlist] and [denylist] do not name any provider", file=sys.stderr)
    renewals = asyncio.run(_renew(config, lists, arguments.accept, write=not arguments.dry_run))
    failed = len(renewals) < len(lists) or any(change.problem for renewal in renewals for change in renewal.changes)
    if arguments.json:
        print(json.dumps({"lists": [_as_json(renewal) for renewal in renewals]}, indent=2))
    else:
        for renewal in renewals:
            for line in _shown(renewal, dry_run=arguments.dry_run):
                print(line)
    for renewal in renewals:
        if renewal.warning:
            print(red(f"fastscreen: {renewal.warning}", sys.stderr), file=sys.stderr)
        for change in renewal.changes:
            if change.problem:
                line = f"fastscreen: {renewal.of.name}: {wording.problem_of(change)}"
                print(red(line, sys.stderr), file=sys.stderr)
    return 1 if failed else 0


def _names(each: List) -> list[str]:
    return [source.name for source in each.sources]


def _some(names: Collection[str]) -> str:
    return ", ".join(sorted(names)[:100]) or "none, the lists are empty"


def _become_user(config: Config, lists: list[List]) -> None:
    """As root, create the folders and switch to the daemon's user, so that the daemon can replace the files later."""
    if os.geteuid() != 0:
        for each in lists:
            privileges.give_folder(each.path.parent, "", f"{each.name}.path")
        return
    user = privileges.user_of(config)
    for each in lists:
        privileges.give_folder(each.path.parent, user, f"{each.name}.path")
    if user:
        privileges.become(user)


async def _renew(config: Config, lists: list[List], accept: Collection[str], *, write: bool) -> list[Renewal]:
    """Refresh each list separately, as in the daemon. Lists with an error are reported on stderr and omitted."""
    dns = Dns(nameservers_of(config))
    done = []
    try:
        for each in lists:
            try:
                done.append(await renew(each, dns, time.time(), accept, write=write))
            except BlockingIOError:
                print(f"fastscreen: {each.name}: not refreshed: another refresh is under way", file=sys.stderr)
            except OSError as error:
                print(f"fastscreen: {each.name}: not refreshed: {_why(error)}", file=sys.stderr)
    finally:
        await dns.close()
    return done


def _shown(renewal: Renewal, *, dry_run: bool) -> Iterator[str]:
    """What changed for each provider, and at the end what happened to the table."""
    for change in renewal.changes:
        if not (change.added or change.removed or change.omitted or change.refused):
            continue
        yield f"{printable(change.name)} ({printable(change.group)}): {_count(change.count)}"
        yield from (f"  + {network}" for network in change.added)
        yield from (f"  - {network}" for network in change.removed)
        yield from (f"  refused: {text}" for text in change.refused)
        yield from (f"  omitted: {text}" for text in change.omitted)
    path = escape_text(str(renewal.of.path), 4096)
    if not renewal.written:
        yield f"{path}: no change"
    elif dry_run:
        yield f"{path}: would be replaced"
    else:
        yield f"{path}: replaced; a running fastscreen reads it within seconds, postscreen after `postfix reload`"


def _count(count: int) -> str:
    return "1 network" if count == 1 else f"{count:,} networks"


def _as_json(renewal: Renewal) -> dict[str, object]:
    return {
        "list": renewal.of.name,
        "path": str(renewal.of.path),
        "changed": renewal.written,
        "warning": renewal.warning,
        "providers": [_change_as_json(change) for change in renewal.changes],
    }


def _change_as_json(change: Change) -> dict[str, object]:
    return {
        "name": change.name,
        "group": change.group,
        "networks": change.count,
        "added": change.added,
        "removed": change.removed,
        "problem": change.problem,
        "sudden": change.sudden,
        "good": change.good or None,
        "refused": change.refused,
        "omitted": change.omitted,
    }


# ---- show


@_reports_errors
def run_show(arguments: argparse.Namespace) -> int:
    """Print the last results; exit code 1: the provider is unknown, or was never looked up."""
    config = load(arguments.config)
    found = []
    for each in lists_of(config):
        known, warning = state.load(each.path)
        if warning:
            print(red(f"fastscreen: {warning}", sys.stderr), file=sys.stderr)
        found.append((each, known))
    if arguments.name is not None:
        return _show_one(arguments, found)
    if arguments.json:
        print(json.dumps({"lists": [_state_as_json(each, known) for each, known in found]}, indent=2))
        return 0
    now = time.time()
    for each, known in found:
        path = escape_text(str(each.path), 4096)
        when = f"refreshed {moment(known.refreshed)} ({span(now - known.refreshed)} ago)" if known.refreshed else "new"
        print(f"{each.name}  {path}  {when}")
        for source in each.sources:
            entry = known.providers.get(source.name, Entry(source.group, source.domains))
            print(f"  {source.name:<20} {source.group:<9} {_state_of(entry, now)}")
    return 0


def _state_of(entry: Entry, now: float) -> str:
    if not entry.tried:
        return "not looked up yet"
    parts = [f"{_count(len(entry.networks))}, {span(now - entry.good)} old" if entry.good else "nothing yet"]
    if entry.problem:
        parts.append(red(printable(entry.problem)))
    parts += [f"refused: {printable(text)}" for text in entry.refused]
    parts += [f"omitted: {printable(text)}" for text in entry.omitted]
    return "; ".join(parts)


def _show_one(arguments: argparse.Namespace, found: list[tuple[List, State]]) -> int:
    entries = [known.providers[arguments.name] for _, known in found if arguments.name in known.providers]
    if not entries:
        print(f"fastscreen: nothing is known about {printable(arguments.name)}", file=sys.stderr)
        return 1
    if arguments.json:
        print(json.dumps(_entry_as_json(arguments.name, entries[0]), indent=2))
    else:
        print("\n".join(network for entry in entries for network in entry.networks))
    return 0


def _state_as_json(each: List, known: State) -> dict[str, object]:
    return {
        "list": each.name,
        "path": str(each.path),
        "refreshed": known.refreshed or None,
        "providers": [
            _entry_as_json(source.name, known.providers.get(source.name, Entry(source.group, source.domains)))
            for source in each.sources
        ],
    }


def _entry_as_json(name: str, entry: Entry) -> dict[str, object]:
    return {
        "name": name,
        "group": entry.group,
        "domains": entry.domains,
        "networks": entry.networks,
        "good": entry.good or None,
        "tried": entry.tried or None,
        "problem": entry.problem,
        "refused": entry.refused,
        "omitted": entry.omitted,
    }


# ---- list


def run_list(arguments: argparse.Namespace) -> int:
    """Print the providers of `providers.toml`."""
    known = providers.known()
    if arguments.json:
        listed = [{"name": each.name, "group": each.group, "domains": each.domains} for each in known]
        print(json.dumps({"providers": listed}, indent=2))
        return 0
    for group in providers.groups():
        print(group)
        for each in known:
            if each.group == group:
                print(f"  {each.name:<20} {', '.join(each.domains)}")
    return 0
