"""fastscreen import-postfix: converts postscreen's configuration, and shows what to change in Postfix."""

from __future__ import annotations

import argparse
import grp
import json
import os
import pwd
import re
import sys
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct, to_builtins

from fastscreen.cli import COMMANDS
from fastscreen.cli.output import print_utf8
from fastscreen.config import ConfigError, parse
from fastscreen.config.load import default_value
from fastscreen.escaping import escape_text
from fastscreen.postfix import output, services, settings
from fastscreen.postfix.advice import Advice, Screening, advise, diff
from fastscreen.postfix.files import ReadError, Service
from fastscreen.postfix.listening import smtpd_listeners
from fastscreen.postfix.repair import repair
from fastscreen.postfix.settings import Postfix
from fastscreen.postfix.translate import Note, Translated, translate
from fastscreen.postfix.verify import verify
from fastscreen.process.privileges import user_of

EXAMPLES = """\
examples:
  fastscreen import-postfix                                          show the configuration and the report
  fastscreen import-postfix --output /etc/fastscreen/fastscreen.toml
  fastscreen import-postfix --config-dir /srv/old/etc/postfix --service 192.0.2.1:smtp
  fastscreen import-postfix --json | jq '.keys[] | select(.notes | length > 0)'

Postfix's files are read, never changed. The configuration is written to standard output or a file, the report to
standard error. Settings that fastscreen would reject on this machine are omitted and listed under "To do", so run this
as root, on the machine that will run fastscreen. docs/import.md describes the whole migration, and how to undo it.

exit codes: 0 success, 1 Postfix's files cannot be read or the output cannot be written, 2 wrong usage
"""

DEFAULT_FOLDER = Path("/etc/postfix")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "import-postfix",
        help=COMMANDS["import-postfix"],
        description="Convert main.cf and master.cf to a fastscreen.toml, and show what to change in Postfix.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config-dir",
        metavar="DIR",
        type=Path,
        default=DEFAULT_FOLDER,
        help=f"folder that contains main.cf (default: {DEFAULT_FOLDER})",
    )
    parser.add_argument("--service", metavar="NAME", help="import only this postscreen service of master.cf")
    parser.add_argument("-o", "--output", metavar="FILE", type=Path, help="write the configuration to FILE")
    parser.add_argument("--force", action="store_true", help="overwrite an existing FILE")
    parser.add_argument("--json", action="store_true", help="print the report as one JSON object, on standard output")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Import, print, and return the exit code."""
    folder = arguments.config_dir
    try:
        postfix = settings.read(folder, settings.postconf_program())
        result = imported(postfix, arguments.service)
    except ReadError as error:
        print(f"fastscreen: {error}", file=sys.stderr)
        return 1
    if isinstance(result, str):
        print(f"fastscreen: {result}", file=sys.stderr)
        return 2
    if arguments.output is not None:
        try:
            output.write(arguments.output, result.text, force=arguments.force, user=result.user)
        except FileExistsError:
            print(f"fastscreen: {arguments.output}: exists already; use --force to overwrite it", file=sys.stderr)
            return 1
        except OSError as error:
            print(f"fastscreen: {arguments.output}: cannot be written: {error.strerror}", file=sys.stderr)
            return 1
        result.notes += unreadable_for(result.user, arguments.output)
    elif not arguments.json:
        print_utf8(result.text)
        sys.stdout.flush()
    if arguments.json:
        print(json.dumps(report(result), indent=2))
    else:
        for line in summary(result, arguments.output):
            print(line, file=sys.stderr)
    return 0


class Result(Struct):
    """service: the postscreen service, or None. text: the configuration file. user: the daemon's user, or empty.

    notes: those that are not about a key.
    """

    service: Service | None
    translated: Translated
    advice: Advice
    text: str
    user: str
    notes: list[str]

    def todo(self) -> list[str]:
        """What is left to do for the operator, a line each."""
        of_keys = [(entry.key.key, note.text) for entry in self.translated.entries for note in entry.notes if note.todo]
        return [
            *(escape_text(text, 1000) for text in self.notes),
            *(f"{key}: {escape_text(text, 1000)}" for key, text in of_keys),
        ]


def imported(
    postfix: Postfix, name: str | None, adjust: Callable[[Translated], None] = lambda translated: None
) -> Result | str:
    """Translate, check and repair. name: a service. adjust: changes entries before they are checked.

    Returns an error text if the service does not exist. Raises ReadError.
    """
    selection = services.select(postfix, name)
    if isinstance(selection, str):
        return selection
    found, others = selection.service, selection.others
    listeners = [found, *(other.service for other in others)] if found else smtpd_listeners(postfix.services)
    seen = postfix.settings(listeners[0] if listeners else None)
    tlsproxy = services.tlsproxy(postfix, seen)
    translated = translate(seen, tlsproxy, found, listeners, others)
    listening = next(entry for entry in translated.entries if entry.key.key == "listen.addresses")
    listening.notes += [Note(text, todo=True) for text in selection.todo]
    adjust(translated)
    origin = escape_text(str(postfix.folder), 300)
    origin += (
        f", service {' and '.join(escape_text(each.full_name) for each in listeners)}" if found else ", only main.cf"
    )

    def written(translated: Translated) -> str:
        return output.toml(translated, origin, _is_deep(translated))

    repair(translated, written, verify)
    advice = advise(postfix, seen, found, listeners, _screening(translated, _is_deep(translated)))
    text = written(translated)
    return Result(found, translated, advice, text, daemon_user(text), list(postfix.notes))


def daemon_user(text: str) -> str:
    """The user that the daemon switches to with this configuration, or empty."""
    try:
        return user_of(parse(text, "import"))
    except ConfigError:
        return ""


def unreadable_for(user: str, path: Path) -> list[str]:
    """A warning if the daemon cannot read its configuration at SIGHUP."""
    if not user:
        return []
    entry, file = pwd.getpwnam(user), path.stat()
    groups = os.getgrouplist(user, entry.pw_gid)
    if file.st_uid == entry.pw_uid or (file.st_gid in groups and file.st_mode & 0o040):
        return []
    group = grp.getgrgid(entry.pw_gid).gr_name
    name = escape_text(str(path), 500)
    return [f"{name}: user {user} cannot read it at SIGHUP; run: chgrp {group} {name} && chmod 0640 {name}"]


def _is_deep(translated: Translated) -> bool:
    """Whether any deep test is enabled."""
    return any(
        entry.key.table == "deep" and entry.key.parameters[0].endswith("_enable") and entry.value not in ("off", None)
        for entry in translated.entries
    )


def _screening(translated: Translated, deep: bool) -> Screening:
    entries = {entry.key.key: entry for entry in translated.entries}
    sites, action = entries["dnsbl.sites"].value, entries["dnsbl.action"]
    lists = [re.split("[=*]", str(site))[0].lower() for site in sites] if isinstance(sites, list) else []
    return Screening(deep, str(action.value or default_value(action.key)), frozenset(lists))


def report(result: Result) -> dict[str, object]:
    """The report for --json."""
    service, translated, advice = result.service, result.translated, result.advice
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
        "notes": result.notes,
        "no_counterpart": [{**to_builtins(source), "why": why} for source, why in translated.no_counterpart],
        "master_cf": to_builtins(advice.changes),
        "remove": to_builtins(advice.remove),
        "keep": to_builtins(advice.keep),
    }


def summary(result: Result, path: Path | None) -> list[str]:
    """The report as text."""
    service, translated, advice = result.service, result.translated, result.advice
    name = escape_text(service.full_name) if service else "only main.cf, because master.cf does not run postscreen"
    lines = [f"Imported: {name}"]
    set_there = [(source.name, entry) for entry in translated.entries for source in entry.sources]
    left = max((len(name) for name, _ in set_there), default=0)
    right = max((len(entry.key.key) for _, entry in set_there), default=0)
    for name, entry in set_there:
        became = "fastscreen's default" if entry.value is None else output.value(entry.value)
        lines.append(f"  {name:<{left}} -> {entry.key.key:<{right}} {escape_text(' '.join(became.split()), 60)}")
    if translated.no_counterpart:
        lines += ["", "Without a counterpart in fastscreen:"]
        lines += [f"  {source.name} ({source.where}): {why}" for source, why in translated.no_counterpart]
    if todo := result.todo():
        lines += ["", "To do:", *(f"  {text}" for text in todo)]
    lines += ["", "In master.cf, remove the lines with - and add those with +, then: postfix reload"]
    lines += [f"  {line}" for line in diff(advice.changes, reverse=False)]
    lines += ["To undo this: stop fastscreen, change master.cf as follows, then: postfix reload"]
    lines += [f"  {line}" for line in diff(advice.changes, reverse=True)]
    if advice.remove:
        lines += ["", "Remove from main.cf once fastscreen is running:"]
        lines += [f"  {each.parameter}: {escape_text(each.item, 200)}: {each.why}" for each in advice.remove]
    if advice.keep:
        lines += ["", "Keep in main.cf:"]
        lines += [f"  {each.parameter}: {escape_text(each.item, 200)}: {each.why}" for each in advice.keep]
    if path is not None:
        lines += [
            "",
            f"Written to {escape_text(str(path), 500)}. Next: fastscreen check -c {escape_text(str(path), 500)}",
        ]
    return lines
