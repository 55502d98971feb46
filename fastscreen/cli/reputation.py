"""fastscreen reputation: show, delete and export the memory of offenses."""

from __future__ import annotations

import argparse
import datetime
import ipaddress
import json
import re
import sys
import time
from collections.abc import Iterator

import msgspec

from fastscreen.cli import COMMANDS, control_socket
from fastscreen.control import client
from fastscreen.control.messages import (
    MAX_PAGE,
    Reputation,
    ReputationDeleteRequest,
    ReputationExportRequest,
    ReputationGetRequest,
    ReputationListRequest,
    Reputations,
)
from fastscreen.escaping import printable
from fastscreen.format import plural

EXAMPLES = f"""\
examples:
  fastscreen reputation get 192.0.2.1
  fastscreen reputation get 192.0.2.0/24      with each address of it
  fastscreen reputation list                  the worst networks
  fastscreen reputation list AS64500          the worst networks of an AS
  fastscreen reputation list --as --sort recent
  fastscreen reputation delete 192.0.2.0/24   after its owner has removed the spammers
  fastscreen reputation export | jq -c 'select(.is_bad)'

An address is bad while its offenses outweigh what it did well; docs/score.md has the rules. For IPv6 addresses in a
/64, only a hash is kept, which is shown as #12345678.

{control_socket.EXIT_CODES}
"""
SORTS = ("worst", "share", "recent")
LIST_SECONDS = 60.0
LIST_PAUSE = 0.05  # s between requests: each of them goes on with the search for a moment
_AS = re.compile(r"AS[0-9]{1,10}", re.ASCII | re.IGNORECASE)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "reputation",
        help=COMMANDS["reputation"],
        description="Show, delete and export what the memory of offenses knows of addresses, networks and autonomous "
        "systems.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    ways = parser.add_subparsers(metavar="get|list|delete|export", required=True)
    get = ways.add_parser("get", help="show an address, a network or an AS; exit code 1 when nothing is known")
    get.add_argument("subject", type=subject, metavar="IP|NETWORK|AS")
    get.set_defaults(run=run_get)
    listing = ways.add_parser("list", help="show the worst networks, or the worst autonomous systems")
    listing.add_argument(
        "--as", dest="kind", action="store_const", const="as", default="network", help="AS, not networks"
    )
    listing.add_argument("--sort", choices=SORTS, default=SORTS[0], help="by what; default: %(default)s")
    listing.add_argument("within", type=subject, nargs="?", metavar="NETWORK|AS", help="only networks in it")
    listing.add_argument("-n", "--limit", type=limit, default=50, metavar="N", help=f"how many, at most {MAX_PAGE}")
    listing.set_defaults(run=run_list)
    delete = ways.add_parser("delete", help="forget an address, the addresses of a network, or an AS")
    delete.add_argument("subject", type=subject, metavar="IP|NETWORK|AS")
    delete.set_defaults(run=run_delete)
    export = ways.add_parser("export", help="write everything as JSON lines to standard output")
    export.set_defaults(run=run_export)
    for way in (get, listing, delete, export):
        control_socket.add_socket(way)
    get.add_argument("--json", action="store_true", help="print one JSON object instead")
    listing.add_argument("--json", action="store_true", help="print one JSON object per line")


def subject(text: str) -> str:
    """An address, a network, or an AS, as argparse reads it."""
    if _AS.fullmatch(text):
        return text.upper()
    try:
        return str(ipaddress.ip_network(text)) if "/" in text else str(ipaddress.ip_address(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{printable(str(error))}; examples: 192.0.2.1, 192.0.2.0/24, AS64500"
        ) from None


def limit(text: str) -> int:
    """A number of entries, as argparse reads it."""
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= MAX_PAGE:
        raise argparse.ArgumentTypeError(f"{printable(text)!r} is not a number from 1 to {MAX_PAGE}")
    return int(text)


@control_socket.guarded
def run_get(arguments: argparse.Namespace) -> int:
    """Print what is known; exit code 1 when nothing is."""
    found = client.ask(control_socket.socket_path(arguments), ReputationGetRequest(arguments.subject))
    if not found.reputations:
        print(f"nothing is known of {arguments.subject}", file=sys.stderr)
        return 1
    print(json.dumps(msgspec.to_builtins(found)) if arguments.json else "\n".join(shown(found)))
    return 0


@control_socket.guarded
def run_list(arguments: argparse.Namespace) -> int:
    """Print the worst, a line each, once all of the memory has been looked at."""
    if arguments.within and arguments.kind == "as":
        print("fastscreen: --as lists all AS; expected no NETWORK or AS with it", file=sys.stderr)
        return 2
    path = control_socket.socket_path(arguments)
    wanted = ReputationListRequest(arguments.kind, arguments.limit, within=arguments.within or "", sort=arguments.sort)
    until = time.monotonic() + LIST_SECONDS
    while (found := client.ask(path, wanted)).more and time.monotonic() < until:
        time.sleep(LIST_PAUSE)
    for each in found.reputations:
        print(json.dumps(msgspec.to_builtins(each)) if arguments.json else summary(each))
    if found.more:
        print("fastscreen: time ran out before all entries were read", file=sys.stderr)
    elif not found.reputations:
        what = "AS" if wanted.kind == "as" else f"network of {wanted.within}" if wanted.within else "network"
        print(f"no {what} with a bad address is known", file=sys.stderr)
    return 0


@control_socket.guarded
def run_delete(arguments: argparse.Namespace) -> int:
    """Delete, and print how many entries changed."""
    answer = client.ask(control_socket.socket_path(arguments), ReputationDeleteRequest(arguments.subject))
    more = "; time ran out, run it again for the rest" if answer.more else ""
    cluster = control_socket.elsewhere(answer)
    print(f"{plural(answer.deleted, 'entry', 'entries')} changed or deleted{cluster}{more}")
    return 0


@control_socket.guarded
def run_export(arguments: argparse.Namespace) -> int:
    """Write every entry as a line."""
    path, after = control_socket.socket_path(arguments), ""
    while True:
        page = client.ask(path, ReputationExportRequest(after, MAX_PAGE))
        for each in page.reputations:
            print(json.dumps(msgspec.to_builtins(each)))
        if not page.next:
            return 0
        after = page.next


def shown(found: Reputations) -> Iterator[str]:
    """What is known of one subject, for people."""
    for each in found.reputations:
        yield summary(each)
        for member in each.members:
            state = "bad" if member.is_bad else "-"
            days = _days(member.last_bad, member.last_good)
            yield f"  {member.subject:<20} {state:<4} bad {member.bad:.1f}, good {member.good:.1f}{days}"
    for one in found.evidence:
        yield f"{one.scorer} {one.weight:+d}: {one.text}"


def summary(each: Reputation) -> str:
    """One entry in a line."""
    state = "bad" if each.is_bad else "-"
    if each.kind == "address":
        what = f"bad {each.bad:.1f}, good {each.good:.1f}"
    else:
        members = "/64" if each.subject.endswith("/48") else "addresses"
        share = 100 * (each.known_members - each.bad_members) / each.known_members if each.known_members else 100
        what = f"{each.bad_members:,} of {each.known_members:,} {members} bad, good share {share:.0f} %"
    return f"{each.subject:<22} {state:<4} {what}{_days(each.last_bad, each.last_good)}"


def _days(bad: float, good: float) -> str:
    return "".join(
        f", last {word} {datetime.datetime.fromtimestamp(day, datetime.UTC):%Y-%m-%d}"
        for word, day in (("bad", bad), ("good", good))
        if day
    )
