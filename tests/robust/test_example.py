"""The example configuration must work, with other addresses and paths."""

from pathlib import Path

from robust.fakedns import FakeDns, listed, not_listed
from robust.fakemta import GREETING as FROM_MTA
from robust.fakemta import FakeMta
from robust.harness import ADDRESS, GREETING, Screener

EXAMPLE = """\
hostname = "mx.example.test"
banner = "mx.example.test ESMTP Postfix"          # the engine's own 220; [greet] banner defaults to it

[listen]
addresses = ["{address}:0"]

[handoff]
to = "pass:{folder}/mta"      # or "sink:", the embedded one

[access]
list = ["permit_mynetworks", "cidr:{folder}/access.cidr"]
mynetworks = ["127.7.0.0/24"]
denylist_action = "enforce"

[greet]
wait = "2s"
action = "enforce"                                # ignore | enforce | drop
ttl = "1d"

[dnsbl]
sites = ["bl1.rbl.test*3", "bl2.rbl.test=127.0.0.[2..11]*2", "wl.rbl.test*-4"]
threshold = 3
allowlist_threshold = -2
action = "enforce"
resolvers = ["{resolver}"]                      # default: from resolv.conf

[deep]
pipelining = "enforce"                            # off | ignore | enforce | drop
non_smtp_command = "enforce"
bare_newline = "enforce"

[cache]
path = "{folder}/cache"

[limits]
client_connection_count = 50
pre_queue = 10000                                 # default: from the descriptor limit
post_queue = 1000

[log]
to = "file:{folder}/screener.log"               # or "syslog", "stderr"
ident = "postfix/postscreen"
"""


def told(screener: Screener, source: str) -> bytes:
    """What RCPT is answered, or the MTA's greeting."""
    with screener.connect(source) as client:
        got = b""
        while not got.endswith((GREETING, FROM_MTA)):
            got += client.read()
        if got.endswith(FROM_MTA):
            return FROM_MTA
        client.ask(b"EHLO client.example")
        client.ask(b"MAIL FROM:<a@example.com>")
        answer = client.ask(b"RCPT TO:<b@example.test>")
        assert client.ask(b"QUIT") == b"221 2.0.0 Bye\r\n"
        return answer


def test_the_example_works_as_it_stands(folder: Path, mta: FakeMta, dns: FakeDns) -> None:
    dns.zones["bl1.rbl.test"] = lambda question: (listed("127.0.0.2") if "66.0" in question.name else not_listed())(
        question
    )
    dns.zones["bl2.rbl.test"] = not_listed()
    dns.zones["wl.rbl.test"] = lambda question: (listed("127.0.0.5") if "77.0" in question.name else not_listed())(
        question
    )
    (folder / "access.cidr").write_text("127.1.9.0/24 reject\n127.1.8.0/24 permit\n")
    folder.chmod(0o777)
    screener = Screener(folder, {})
    screener.config.write_text(EXAMPLE.format(address=ADDRESS, folder=folder, resolver=dns.endpoint))
    screener.start()
    try:
        assert told(screener, "127.7.0.1") == FROM_MTA  # mynetworks
        assert told(screener, "127.1.8.1") == FROM_MTA  # permitted
        assert told(screener, "127.1.9.1") == b"550 5.3.2 Service currently unavailable\r\n"
        assert told(screener, "127.1.0.77") == FROM_MTA  # allowed by wl
        listed_client = b"550 5.7.1 Service unavailable; client [127.1.0.66] blocked using bl1.rbl.test\r\n"
        assert told(screener, "127.1.0.66") == listed_client
        assert told(screener, "127.1.0.1") == b"450 4.3.2 Service currently unavailable\r\n"
        assert told(screener, "127.1.0.1") == FROM_MTA  # PASS OLD
        assert [line.split("]: ")[1].split(" [")[0] for line in screener.lines(r" (PASS \w+|\w+LISTED) \[")] == [
            "ALLOWLISTED", "ALLOWLISTED", "DENYLISTED", "PASS NEW", "PASS NEW", "PASS OLD",
        ]  # fmt: skip
    finally:
        screener.stop()
