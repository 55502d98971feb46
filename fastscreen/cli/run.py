"""fastscreen run: run the daemon in the foreground."""

import argparse
from pathlib import Path

from fastscreen import config
from fastscreen.cli import COMMANDS
from fastscreen.cli.problems import print_problems
from fastscreen.daemon import restart
from fastscreen.daemon.supervisor import Supervisor

EXAMPLE = """examples:
  fastscreen run                                  a trial on 127.0.0.1:2525, with an embedded sink as the mail server
  fastscreen run -c /etc/fastscreen/fastscreen.toml

Signals to the process of `fastscreen run`:
SIGHUP   reload the configuration and reopen the log, without dropping a client
SIGUSR1  reopen the log
SIGUSR2  restart: the program as installed now takes over all sockets, and no connection is refused
SIGTERM  stop: clients under test get a 421, those on their way to the mail server have 30 s to finish
SIGQUIT, or a second SIGTERM: stop at once"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "run",
        help=COMMANDS["run"],
        description="Run the daemon in the foreground and screen the clients of the configured ports.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "-c",
        "--config",
        type=Path,
        metavar="FILE",
        help="the configuration file (default: built-in settings, for a trial)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Exit code 0 after SIGTERM, 1 after a failure, 2 for a wrong configuration."""
    state, answer = restart.take()
    if state is not None and answer >= 0:
        return restart.try_out(state, arguments.config, answer)
    problem = ""
    try:
        if state is not None:
            settings, problem = restart.settings_of(state, arguments.config)
        else:
            settings = config.default() if arguments.config is None else config.load(arguments.config)
    except config.ConfigError as error:
        print_problems(error)
        return 2
    if state is not None:
        return Supervisor(arguments.config, settings, state, problem).run()
    if arguments.config is None:
        where = settings.listen.addresses[0]
        print(
            "fastscreen is running with built-in settings; a sink accepts and discards the mail of clients that pass.\n"
            f"  swaks -s {where} -f a@example.com -t b@example.net    # a good client: 450 first, then PASS OLD\n"
            f"  printf 'EHLO me\\r\\n' | nc {where.host} {where.port}                    # talks too early: PREGREET\n"
            "Press Ctrl-C to stop it.",
            flush=True,
        )
    return Supervisor(arguments.config, settings).run()
