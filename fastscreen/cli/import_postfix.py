"""fastscreen import-postfix: makes a configuration of a postscreen's, and says what changes in Postfix."""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

from msgspec import to_builtins

from fastscreen.cli.output import print_utf8
from fastscreen.config.escape import escaped
from fastscreen.config.load import default_value
from fastscreen.postfix import output, settings
from fastscreen.postfix.advice import Advice, Work, advise, lines
from fastscreen.postfix.files import ReadError, Service
from fastscreen.postfix.listening import doors
from fastscreen.postfix.settings import Postfix
from fastscreen.postfix.translate import Translated, translate

EXAMPLES = """\
examples:
  fastscreen import-postfix                                          look at it first: the file, and what is to be done
  fastscreen import-postfix --output /etc/fastscreen/fastscreen.toml
  fastscreen import-postfix --config-dir /srv/old/etc/postfix --service 192.0.2.1:smtp
  fastscreen import-postfix --json | jq '.keys[] | select(.notes | length > 0)'

Postfix's files are read, never changed. The configuration goes to standard output or a file, the report to standard
error. docs/import.md has the whole move, and the way back.

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
    parser.add_argument("--service", metavar="NAME", help="which postscreen of master.cf, when there are several")
    parser.add_argument("-o", "--output", metavar="FILE", type=Path, help="write the configuration there")
    parser.add_argument("--force", action="store_true", help="write it over a file that is there")
    parser.add_argument("--json", action="store_true", help="print the report as one JSON object instead")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Import, print, and return the exit code."""
    folder = arguments.config_dir
    try:
        postfix = settings.read(folder, settings.postconf_program())
        found = chosen(postfix, arguments.service)
        if isinstance(found, str):
            print(f"fastscreen: {found}", file=sys.stderr)
            return 2
        at_port = [found] if found else doors(postfix.services)
        seen = postfix.settings(at_port[0] if at_port else None)
        tlsproxy = postfix.settings(postfix.called(seen.value("tlsproxy_service_name"), "unix"))
        translated = translate(seen, tlsproxy, found, at_port)
        deep = any(
            entry.key.table == "deep"
            and entry.key.parameters[0].endswith("_enable")
            and entry.value not in ("off", None)
            for entry in translated.entries
        )
        advice = advise(postfix, seen, found, at_port, _work(translated, deep))
    except ReadError as error:
        print(f"fastscreen: {error}", file=sys.stderr)
        return 1
    origin = escaped(str(folder), 300) + (f", service {escaped(found.full_name)}" if found else ", main.cf alone")
    text = output.toml(translated, origin, deep)
    if arguments.output is not None:
        try:
            output.write(arguments.output, text, force=arguments.force)
        except FileExistsError:
            print(f"fastscreen: {arguments.output}: is there already; --force writes over it", file=sys.stderr)
            return 1
        except OSError as error:
            print(f"fastscreen: {arguments.output}: cannot be written: {error.strerror}", file=sys.stderr)
            return 1
    elif not arguments.json:
        print_utf8(text)
    if arguments.json:
        print(json.dumps(report(translated, advice, found), indent=2))
    else:
        for line in summary(translated, advice, found, arguments.output):
            print(line, file=sys.stderr)
    return 0


def _work(translated: Translated, deep: bool) -> Work:
    entries = {entry.key.key: entry for entry in translated.entries}
    sites, action = entries["dnsbl.sites"].value, entries["dnsbl.action"]
    lists = [re.split("[=*]", str(site))[0].lower() for site in sites] if isinstance(sites, list) else []
    return Work(deep, str(action.value or default_value(action.key)), frozenset(lists))


def chosen(postfix: Postfix, name: str | None) -> Service | str | None:
    """The postscreen that is meant; None: there is none; or what is wrong."""
    all_of_them = postfix.postscreens()
    names = ", ".join(escaped(each.name) for each in all_of_them)
    if name is None:
        if len(all_of_them) > 1:
            return f"master.cf has several postscreen services: {names}; say which one: --service NAME"
        return all_of_them[0] if all_of_them else None
    found = [each for each in all_of_them if name in (each.name, each.full_name)]
    if not found:
        return f"master.cf has no postscreen service {escaped(name)}; it has: {names or 'none'}"
    return found[0]


def report(translated: Translated, advice: Advice, service: Service | None) -> dict[str, object]:
    """All that is said, as data."""
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
        "without": [{**to_builtins(source), "why": why} for source, why in translated.without],
        "master": to_builtins(advice.changes),
        "go": to_builtins(advice.go),
        "stay": to_builtins(advice.stay),
    }


def summary(translated: Translated, advice: Advice, service: Service | None, path: Path | None) -> list[str]:
    """For people, on standard error."""
    told = [f"Imported: {escaped(service.full_name) if service else 'no postscreen in master.cf; main.cf alone'}"]
    set_there = [(source.name, entry) for entry in translated.entries for source in entry.sources]
    left = max((len(name) for name, _ in set_there), default=0)
    right = max((len(entry.key.key) for _, entry in set_there), default=0)
    for name, entry in set_there:
        became = "left at its default" if entry.value is None else output.value(entry.value)
        told.append(f"  {name:<{left}} -> {entry.key.key:<{right}} {escaped(' '.join(became.split()), 60)}")
    if translated.without:
        told += ["", "Without a counterpart:"]
        told += [f"  {source.name} ({source.where}): {why}" for source, why in translated.without]
    todo = [(entry.key.key, note.text) for entry in translated.entries for note in entry.notes if note.todo]
    if todo:
        told += ["", "To do:", *(f"  {key}: {escaped(text, 1000)}" for key, text in todo)]
    told += ["", "master.cf (- out, + in), then: postfix reload"]
    told += [f"  {line}" for line in lines(advice.changes, back=False)]
    told += ["The way back: stop fastscreen, then the same the other way round, then: postfix reload"]
    told += [f"  {line}" for line in lines(advice.changes, back=True)]
    if advice.go:
        told += ["", "What should go from Postfix, once fastscreen is at work:"]
        told += [f"  {each.parameter}: {escaped(each.item, 200)}: {each.why}" for each in advice.go]
    if advice.stay:
        told += ["", "What should stay:"]
        told += [f"  {each.parameter}: {escaped(each.item, 200)}: {each.why}" for each in advice.stay]
    if path is not None:
        told += ["", f"Written to {escaped(str(path), 500)}. Next: fastscreen check -c {escaped(str(path), 500)}"]
    return told
