"""fastscreen run: screen, in the foreground."""

import argparse
from pathlib import Path

from fastscreen import config
from fastscreen.cli.problems import print_problems
from fastscreen.daemon import handover, takeover
from fastscreen.daemon.supervisor import Supervisor

EXAMPLE = """examples:
  fastscreen run                                  try it: 127.0.0.1:2525, passed clients to an embedded sink
  fastscreen run -c /etc/fastscreen/fastscreen.toml

Signals, for the process that was started:
SIGHUP   reads the configuration again and opens the log again, without dropping a client
SIGUSR1  opens the log again
SIGUSR2  restarts: the program as it is on the disk now takes over all sockets, and no connection is refused
SIGTERM  stops: clients that only wait get a 421, those on their way to the mail server have 30 s to finish
SIGQUIT, or a second SIGTERM, stops at once."""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "run",
        help="screen, in the foreground",
        description="Screen the clients of the configured ports, in the foreground.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-c", "--config", type=Path, metavar="FILE", help="the configuration")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Exit code 0 after SIGTERM, 1 when it failed, 2 for a wrong configuration."""
    state, answer = handover.receive()
    if state is not None and answer >= 0:
        return takeover.try_out(state, arguments.config, answer)
    problem = ""
    try:
        if state is not None:
            settings, problem = takeover.settings_of(state, arguments.config)
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
            "fastscreen screens on built-in settings; clients that pass reach a sink that discards their mail. Try:\n"
            f"  swaks -s {where} -f a@example.com -t b@example.net    # a good client: 450 first, then PASS OLD\n"
            f"  printf 'EHLO me\\r\\n' | nc {where.host} {where.port}                    # talks too early: PREGREET\n"
            "Ctrl-C ends it.",
            flush=True,
        )
    return Supervisor(arguments.config, settings).run()
