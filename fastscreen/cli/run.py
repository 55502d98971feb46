"""fastscreen run: screen, in the foreground."""

import argparse
from pathlib import Path

from fastscreen import config
from fastscreen.cli.problems import print_problems
from fastscreen.supervisor import Supervisor

EXAMPLE = """examples:
  fastscreen run                                  try it: 127.0.0.1:2525, passed clients to an embedded sink
  fastscreen run -c /etc/fastscreen/fastscreen.toml

SIGHUP reads the configuration anew and opens the log again, without dropping a client.
SIGTERM lets the clients in hand finish (at most 30 s); a second one stops at once."""


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
    try:
        settings = config.default() if arguments.config is None else config.load(arguments.config)
    except config.ConfigError as error:
        print_problems(error)
        return 2
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
