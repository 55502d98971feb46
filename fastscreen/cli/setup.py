"""fastscreen setup: a guided start in shadow mode in front of Postfix or another MTA, and the way back."""

from __future__ import annotations

import argparse
import copy
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from fastscreen.atomicfile import sole_writer
from fastscreen.cli import COMMANDS, control_socket, setup_apply, setup_plan, setup_state, setup_undo, setup_unit
from fastscreen.cli.setup_apply import ApplyError
from fastscreen.cli.setup_plan import Given, Plan, PlanError
from fastscreen.cli.setup_questions import NoAnswer, Questions
from fastscreen.cli.setup_service import ServiceError
from fastscreen.cli.setup_state import StateError
from fastscreen.cli.setup_unit import Unit
from fastscreen.config import LogFile
from fastscreen.escaping import escape_text, printable
from fastscreen.postfix import master_cf

DEFAULT_FOLDER = Path("/etc/postfix")

EXAMPLES = """\
examples:
  fastscreen setup --show                    what it would do, without root and without changing anything
  fastscreen setup                           six questions, then everything
  fastscreen setup --yes                     the same, with the default of each question
  fastscreen setup --yes --listen 2525       a trial on another port: Postfix keeps port 25
  fastscreen setup --yes --mta 127.0.0.1:10025 --config-only        another MTA; only the configuration is written
  fastscreen setup --undo                    everything as before

The configuration is in shadow mode: clients are tested and logged, but none is rejected. Until the last question is
answered, nothing is changed. docs/setup.md describes each step and the way back.

exit codes: 0 done, 1 a step failed and was reverted, or --undo refused, 2 wrong usage or an answer is missing
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "setup",
        help=COMMANDS["setup"],
        description="Ask six questions, write a configuration in shadow mode, put fastscreen in front of the MTA.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--yes", action="store_true", help="do not ask: use the default of each question, and do it all")
    way.add_argument("--show", action="store_true", help="do not ask, only show what would be done")
    way.add_argument("--undo", action="store_true", help="revert everything that setup did")
    parser.add_argument("--config-only", action="store_true", help="write the configuration, but change nothing else")
    parser.add_argument("--mta", metavar="postfix|HOST:PORT", help="the mail server behind fastscreen")
    parser.add_argument("--listen", metavar="PORT|ADDRESSES", help="where clients connect")
    parser.add_argument("--networks", metavar="NETWORKS", help="your networks, which are not tested, or none")
    parser.add_argument("--lists", metavar="LISTS", help="DNS lists in the form of dnsbl.sites, or none")
    parser.add_argument("--certificate", metavar="FILES", help="files of the key and the certificate, or none")
    parser.add_argument(
        "--config-dir",
        metavar="DIR",
        type=Path,
        default=DEFAULT_FOLDER,
        help=f"folder that contains Postfix's main.cf (default: {DEFAULT_FOLDER})",
    )
    parser.add_argument("--force", action="store_true", help="replace an existing configuration; --undo restores it")
    parser.add_argument(
        "--keep-changed", action="store_true", help="with --undo: leave files as they are that were changed after setup"
    )
    parser.add_argument(
        "-c",
        "--config",
        metavar="FILE",
        type=Path,
        default=control_socket.USUAL_FILE,
        help=f"the configuration (default: {control_socket.USUAL_FILE})",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Set up or undo; return the exit code."""
    path = arguments.config.absolute()
    try:
        if arguments.undo:
            return _undo(arguments, path)
        return _set_up(arguments, path)
    except NoAnswer as error:
        return _failed(str(error), 2)
    except (StateError, PlanError, ApplyError, ServiceError) as error:
        return _failed(str(error), 1)
    except BlockingIOError:
        return _failed(f"another setup is using {escape_text(str(path.parent), 500)}", 1)


def _failed(text: str, code: int) -> int:
    print(f"fastscreen: {printable(text)}", file=sys.stderr)
    return code


def _tell(text: str) -> None:
    print(f"* {printable(text)}", flush=True)


# ---- back


def _undo(arguments: argparse.Namespace, path: Path) -> int:
    if os.geteuid() != 0:
        return _failed("setup --undo: expected to be run as root", 1)
    state = setup_state.load(path)
    if state is None:
        return _failed(f"{escape_text(str(setup_state.path_of(path)), 500)}: missing, so there is nothing to undo", 1)
    with sole_writer(path.parent):
        code = setup_undo.run(state, keep_changed=arguments.keep_changed, tell=_tell)
    if code == 0:
        print("Everything is as it was before setup. The cache and the log of fastscreen were kept.")
    return code


# ---- forth


def _set_up(arguments: argparse.Namespace, path: Path) -> int:
    root = os.geteuid() == 0
    show = arguments.show or not root
    if not show:
        _refuse(arguments, path)
    if not show and not arguments.yes and not sys.stdin.isatty():
        raise NoAnswer(
            "standard input is not a terminal, so no question can be asked; expected --yes (all defaults), or --show "
            "(only shows)"
        )
    found = setup_plan.find(arguments.config_dir)
    if show and not arguments.show:
        print("This is what setup would do as root:\n")
    for line in found.lines(arguments.config_dir):
        print(f"found: {line}")
    now = False if arguments.config_only else True if arguments.yes else None
    given = Given(
        arguments.config_dir,
        arguments.mta,
        arguments.listen,
        arguments.networks,
        arguments.lists,
        arguments.certificate,
        now,
    )
    questions = Questions(ask=not show and not arguments.yes)
    answers = setup_plan.ask(given, found, questions)
    plan = setup_plan.make(found, answers)
    unit = None
    if arguments.config_only:
        plan.todo += _unit_to_do(plan, path)
    else:
        unit = setup_unit.add_unit(plan, path)
    for line in _shown(plan, path, unit):
        print(line)
    if show:
        return 0
    wanted = setup_plan.ask_whether(given, questions, "Do all of this now?", default=False)
    if not wanted and not arguments.config_only:
        print("Nothing was changed. With --config-only, setup writes the configuration and changes nothing else.")
        return 0
    return _carry_out(plan, path, unit, only=arguments.config_only)


def _unit_to_do(plan: Plan, path: Path) -> list[str]:
    """What --config-only leaves to the operator."""
    try:
        unit = setup_unit.add_unit(copy.copy(plan), path)
    except (PlanError, ServiceError) as error:
        return [str(error)]
    if unit is None or not unit.drop_in:
        return []
    return [f"{unit.units[0]} needs {setup_unit.DROP_IN} to run this; fastscreen setup --show shows the file"]


def _refuse(arguments: argparse.Namespace, path: Path) -> None:
    """Before anything is asked: is there something that must not be overwritten? Raises PlanError, StateError."""
    if setup_state.load(path) is not None:
        raise PlanError("setup has been run already; run fastscreen setup --undo first")
    content = setup_state.content_of(path)
    if content is not None and not arguments.force and not setup_plan.is_unused(content):
        raise PlanError(
            f"{escape_text(str(path), 500)}: exists already; use --force to replace it (--undo restores it), or -c FILE"
        )


def _shown(plan: Plan, path: Path, unit: Unit | None) -> Iterator[str]:
    """The plan for a person."""
    yield from ("", f"The configuration, {escape_text(str(path), 500)}:")
    yield from (f"  {line}" for line in _without_comments(plan.text))
    if plan.todo:
        yield from ("", "To do afterwards:", *(f"  {line}" for line in plan.todo))
    if plan.master is not None:
        yield from ("", "The change to Postfix:")
        yield from (
            f"  {line}" for line in master_cf.unified(plan.master.before, plan.master.after, str(plan.master.path))
        )
    elif plan.answers.mta == setup_plan.POSTFIX:
        yield from ("", "Postfix needs no change.")
    else:
        yield from (
            "",
            f"The mail server at {plan.answers.mta} must read the PROXY protocol (docs/README.md lists MTAs).",
        )
    if unit is not None and unit.drop_in:
        yield from ("", f"The change to {unit.units[0]}, {setup_unit.DROP_IN}:")
        yield from (f"  {printable(line)}" for line in unit.drop_in.splitlines())
    if unit is not None and unit.account is not None and plan.config.tls.certificates and os.geteuid() != 0:
        yield f"As root, setup also lets {unit.units[0]} read the files of the certificate, if it could not."
    yield from ("", "Steps:", *(f"  {number}. {line}" for number, line in enumerate(_steps(plan, path, unit), 1)))


def _without_comments(text: str) -> list[str]:
    """The lines of a configuration that say something: no comments, and no tables without keys."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    after = [*lines[1:], "["]
    return [line for line, following in zip(lines, after, strict=True) if line[0] != "[" or following[0] != "["]


def _steps(plan: Plan, path: Path, unit: Unit | None) -> Iterator[str]:
    yield f"write {escape_text(str(path), 500)}, and what is needed for --undo next to it"
    change = plan.master
    if change is not None and change.ready != change.before:
        yield "add the service for fastscreen's clients to master.cf; postfix check; postfix reload"
    if unit is not None and unit.drop_in:
        yield f"write {setup_unit.DROP_IN}; systemctl daemon-reload"
    user = f" as the user {escape_text(unit.account.name, 100)}" if unit is not None and unit.account else ""
    yield f"fastscreen check{user}, which hands off a connection to the mail server"
    if change is not None and change.takes_port:
        yield "remove Postfix's service on the port from master.cf; postfix check; postfix reload"
    yield f"start fastscreen, and wait until it hands off a client at {plan.listen[0]}; otherwise revert everything"


def _carry_out(plan: Plan, path: Path, unit: Unit | None, *, only: bool) -> int:
    state = setup_apply.write_configuration(plan, path)
    _tell(f"wrote {escape_text(str(path), 500)}")
    option = "" if path == control_socket.USUAL_FILE else f" -c {escape_text(str(path), 500)}"
    if only:
        print(f"\nNext: fastscreen check -c {escape_text(str(path), 500)}; to revert: fastscreen setup --undo{option}")
        return 0
    try:
        with sole_writer(path.parent):
            setup_apply.apply(plan, state, _tell, unit)
    except ApplyError as error:
        code = _failed(str(error), 1)
        print(f"{escape_text(str(path), 500)} stays as it is. Before another try: fastscreen setup --undo{option}")
        return code
    print("\n".join(_afterwards(plan, option, unit)))
    return 0


def _afterwards(plan: Plan, option: str, unit: Unit | None) -> Iterator[str]:
    yield from ("", "fastscreen runs in shadow mode: it tests and logs every client, and rejects none.", "")
    to = plan.config.log.to
    log = f" {escape_text(to.path, 500)}" if isinstance(to, LogFile) else ""
    yield f"Watch it:   fastscreen tui{option}"
    yield f"            fastscreen status{option}"
    yield f"            fastscreen report -d today{log}      # which clients it would have rejected, and why"
    if plan.cache_map:
        cache = escape_text(plan.cache_map, 300)
        yield f"Take over the clients that postscreen knows:   fastscreen cache import{option} {cache}"
    yield f'After some days:   remove the line mode = "shadow", then: fastscreen reload{option}'
    if unit is not None and unit.credentials:
        yield f"Renewal:    systemctl restart {unit.units[0]}, because its start copies the files of the certificate"
    if unit is None:
        yield "At boot:    start `fastscreen run -c FILE` with your init system; systemd, or its unit, was not found"
    yield f"Go back:    fastscreen setup --undo{option}"
