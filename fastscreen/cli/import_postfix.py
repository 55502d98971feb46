"""fastscreen import-postfix: makes a configuration of a postscreen's, and says what changes in Postfix."""

from __future__ import annotations

import argparse
import grp
import json
import os
import pwd
import re
import sys
from pathlib import Path

from msgspec import Struct, to_builtins

from fastscreen.cli.output import print_utf8
from fastscreen.config import ConfigError, parse
from fastscreen.config.load import default_value
from fastscreen.escaping import escape_text
from fastscreen.postfix import output, services, settings
from fastscreen.postfix.advice import Advice, Work, advise, lines
from fastscreen.postfix.files import ReadError, Service
from fastscreen.postfix.listening import doors
from fastscreen.postfix.settings import Postfix
from fastscreen.postfix.settle import settle
from fastscreen.postfix.translate import Note, Translated, translate
from fastscreen.postfix.verify import verify
from fastscreen.process.privileges import user_of

EXAMPLES = """\
examples:
  fastscreen import-postfix                                          look at it first: the file, and what is to be done
  fastscreen import-postfix --output /etc/fastscreen/fastscreen.toml
  fastscreen import-postfix --config-dir /srv/old/etc/postfix --service 192.0.2.1:smtp
  fastscreen import-postfix --json | jq '.keys[] | select(.notes | length > 0)'

Postfix's files are read, never changed. The configuration goes to standard output or a file, the report to standard
error. What fastscreen would refuse on this machine is omitted and listed under "To do": run this as root, on the
machine that will screen. docs/import.md has the whole move, and the way back.

exit codes: 0 done, 1 Postfix's files cannot be read or the output cannot be written, 2 wrong usage
"""

USUAL_FOLDER = Path("/etc/postfix")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "import-postfix",
        help="make a configuration of postscreen's",
        description="Make a fastscreen.toml of main.cf and master.cf, and say what changes in Postfix.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config-dir", metavar="DIR", type=Path, default=USUAL_FOLDER, help=f"with main.cf ({USUAL_FOLDER})"
    )
    parser.add_argument("--service", metavar="NAME", help="import this postscreen of master.cf alone")
    parser.add_argument("-o", "--output", metavar="FILE", type=Path, help="write the configuration there")
    parser.add_argument("--force", action="store_true", help="write it over a file that is there")
    parser.add_argument("--json", action="store_true", help="print the report as one JSON object instead")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Import, print, and return the exit code."""
    folder = arguments.config_dir
    try:
        postfix = settings.read(folder, settings.postconf_program())
        made = imported(postfix, arguments.service)
    except ReadError as error:
        print(f"fastscreen: {error}", file=sys.stderr)
        return 1
    if isinstance(made, str):
        print(f"fastscreen: {made}", file=sys.stderr)
        return 2
    if arguments.output is not None:
        try:
            output.write(arguments.output, made.text, force=arguments.force, user=made.user)
        except FileExistsError:
            print(f"fastscreen: {arguments.output}: is there already; --force writes over it", file=sys.stderr)
            return 1
        except OSError as error:
            print(f"fastscreen: {arguments.output}: cannot be written: {error.strerror}", file=sys.stderr)
            return 1
        made.notes += unreadable_for(made.user, arguments.output)
    elif not arguments.json:
        print_utf8(made.text)
        sys.stdout.flush()
    if arguments.json:
        print(json.dumps(report(made), indent=2))
    else:
        for line in summary(made, arguments.output):
            print(line, file=sys.stderr)
    return 0


class Made(Struct):
    """service: the postscreen; None: there is none. text: of the configuration file. user: the daemon's, or empty.

    notes: what has to be known beside the keys' own.
    """

    service: Service | None
    translated: Translated
    advice: Advice
    text: str
    user: str
    notes: list[str]


def imported(postfix: Postfix, name: str | None) -> Made | str:
    """Translate, try, and put right. name: of the postscreen. A text: what is wrong with that. Raises ReadError."""
    picked = services.pick(postfix, name)
    if isinstance(picked, str):
        return picked
    found, others = picked.service, picked.others
    at_port = [found, *(other.service for other in others)] if found else doors(postfix.services)
    seen = postfix.settings(at_port[0] if at_port else None)
    tlsproxy = services.tlsproxy(postfix, seen)
    translated = translate(seen, tlsproxy, found, at_port, others)
    listening = next(entry for entry in translated.entries if entry.key.key == "listen.addresses")
    listening.notes += [Note(text, todo=True) for text in picked.todo]
    origin = escape_text(str(postfix.folder), 300)
    origin += (
        f", service {' and '.join(escape_text(each.full_name) for each in at_port)}" if found else ", main.cf alone"
    )

    def written(translated: Translated) -> str:
        return output.toml(translated, origin, _is_deep(translated))

    settle(translated, written, verify)
    advice = advise(postfix, seen, found, at_port, _work(translated, _is_deep(translated)))
    text = written(translated)
    return Made(found, translated, advice, text, daemon_user(text), list(postfix.notes))


def daemon_user(text: str) -> str:
    """The user that the daemon becomes with this configuration; empty: none."""
    try:
        return user_of(parse(text, "import"))
    except ConfigError:
        return ""


def unreadable_for(user: str, path: Path) -> list[str]:
    """A warning where the daemon cannot read its configuration at SIGHUP."""
    if not user:
        return []
    entry, file = pwd.getpwnam(user), path.stat()
    groups = os.getgrouplist(user, entry.pw_gid)
    if file.st_uid == entry.pw_uid or (file.st_gid in groups and file.st_mode & 0o040):
        return []
    group = grp.getgrgid(entry.pw_gid).gr_name
    name = escape_text(str(path), 500)
    return [f"{name}: user {user} cannot read it at SIGHUP: chgrp {group} {name} && chmod 0640 {name}"]


def _is_deep(translated: Translated) -> bool:
    """Whether deep tests are on."""
    return any(
        entry.key.table == "deep" and entry.key.parameters[0].endswith("_enable") and entry.value not in ("off", None)
        for entry in translated.entries
    )


def _work(translated: Translated, deep: bool) -> Work:
    entries = {entry.key.key: entry for entry in translated.entries}
    sites, action = entries["dnsbl.sites"].value, entries["dnsbl.action"]
    lists = [re.split("[=*]", str(site))[0].lower() for site in sites] if isinstance(sites, list) else []
    return Work(deep, str(action.value or default_value(action.key)), frozenset(lists))


def report(made: Made) -> dict[str, object]:
    """All that is said, as data."""
    service, translated, advice = made.service, made.translated, made.advice
    return {
        "service": service.full_name if service else None,
        "keys": [
            {
                "key": entry.key.key,
                "value": entry.value,
                "sources": to_builtins(entry.sources),
                "notes": to_builtins(entry.notes),
            }
            for entry in translated.entries
        ],
        "notes": made.notes,
        "without": [{**to_builtins(source), "why": why} for source, why in translated.without],
        "master": to_builtins(advice.changes),
        "go": to_builtins(advice.go),
        "stay": to_builtins(advice.stay),
    }


def summary(made: Made, path: Path | None) -> list[str]:
    """For people, on standard error."""
    service, translated, advice = made.service, made.translated, made.advice
    told = [f"Imported: {escape_text(service.full_name) if service else 'no postscreen in master.cf; main.cf alone'}"]
    set_there = [(source.name, entry) for entry in translated.entries for source in entry.sources]
    left = max((len(name) for name, _ in set_there), default=0)
    right = max((len(entry.key.key) for _, entry in set_there), default=0)
    for name, entry in set_there:
        became = "left at its default" if entry.value is None else output.value(entry.value)
        told.append(f"  {name:<{left}} -> {entry.key.key:<{right}} {escape_text(' '.join(became.split()), 60)}")
    if translated.without:
        told += ["", "Without a counterpart:"]
        told += [f"  {source.name} ({source.where}): {why}" for source, why in translated.without]
    todo = [(entry.key.key, note.text) for entry in translated.entries for note in entry.notes if note.todo]
    if todo or made.notes:
        told += ["", "To do:", *(f"  {escape_text(text, 1000)}" for text in made.notes)]
        told += [f"  {key}: {escape_text(text, 1000)}" for key, text in todo]
    told += ["", "master.cf (- out, + in), then: postfix reload"]
    told += [f"  {line}" for line in lines(advice.changes, back=False)]
    told += ["The way back: stop fastscreen, then the same the other way round, then: postfix reload"]
    told += [f"  {line}" for line in lines(advice.changes, back=True)]
    if advice.go:
        told += ["", "What should go from Postfix, once fastscreen is at work:"]
        told += [f"  {each.parameter}: {escape_text(each.item, 200)}: {each.why}" for each in advice.go]
    if advice.stay:
        told += ["", "What should stay:"]
        told += [f"  {each.parameter}: {escape_text(each.item, 200)}: {each.why}" for each in advice.stay]
    if path is not None:
        told += [
            "",
            f"Written to {escape_text(str(path), 500)}. Next: fastscreen check -c {escape_text(str(path), 500)}",
        ]
    return told
