"""What fastscreen is configured to, and where everything is."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

ADDRESS = "127.9.0.1"
PORT = 2525
MTA_PORT = 2526
BALANCER_PORT = 2527
NAMESERVER = "127.0.0.53"
USER = "nobody"
GREET_SECONDS = 2.0
LISTED = "127.66"
"""Clients of this /16 are on both block lists."""

_TEXT = """\
hostname = "mx.example.test"
user = "{user}"

[listen]
addresses = ["{address}:{port}"]
workers = {workers}

[[listen.proxy]]
addresses = ["{address}:{balancer}"]
trusted = ["127.0.0.0/8"]

[handoff]
to = {to}
continue_to = "proxy:{address}:{mta}"

[access]
list = ["permit_mynetworks", "cidr:{folder}/access.cidr"]
mynetworks = ["192.0.2.0/24"]

[greet]
wait = "2s"
action = "enforce"
banner = "{teaser}"

[dnsbl]
sites = ["bl1.test=127.0.0.2*2", "bl2.test=127.0.0.2*2", "wl.test=127.0.0.[1..3]*-4"]
threshold = 2
action = "enforce"
resolvers = ["{nameserver}:53"]
timeout = "3s"
probe_interval = "10s"

[deep]
pipelining = "enforce"
non_smtp_command = "enforce"
bare_newline = "enforce"

[tls]
level = "may"
certificates = ["{folder}/tls.pem"]

[cache]
path = "{folder}/cache/cache"
keep_free = 0

[limits]
client_connection_count = 200
pre_queue = 8000
post_queue = 200

[control]
path = "{folder}/control/socket"

[log]
to = "file:{folder}/log/log"
ident = "postfix/postscreen"
"""


class Options(Struct, frozen=True):
    """From the command line. minutes: of faults. rate: clients per second. handoff: "pass" or "proxy". faults: by name;
    empty: all that fit into the time. keep: the folder stays."""

    folder: Path
    minutes: float
    seed: int
    rate: float
    workers: int
    handoff: str
    faults: tuple[str, ...] = ()
    without: tuple[str, ...] = ()


def text(options: Options, teaser: str = "$banner") -> str:
    """The configuration file."""
    folder = options.folder
    to = f'"pass:{folder}/mta/pass"' if options.handoff == "pass" else f'["proxy:{ADDRESS}:{MTA_PORT}"]'
    return _TEXT.format(
        user=USER,
        address=ADDRESS,
        port=PORT,
        balancer=BALANCER_PORT,
        mta=MTA_PORT,
        nameserver=NAMESERVER,
        folder=folder,
        workers=options.workers,
        to=to,
        teaser=teaser,
    )
