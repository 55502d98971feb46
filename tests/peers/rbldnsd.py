"""A real rbldnsd with the lists of the tests. Only this module defines which clients are listed."""

import socket
from pathlib import Path

from peers import needs, processes
from peers.namespace import Namespace

ADDRESS = "127.0.53.2"

# zone -> (TTL of answers, TTL of the SOA record of negative answers, lines of the IPv4 set, lines of the IPv6 set)
ZONES: dict[str, tuple[str, str, list[str], list[str]]] = {
    "bl1.rbl.test": (
        "300",
        "120",
        ["127.20.0.0/16 :127.0.0.2:", "127.22.0.0/16 :127.0.0.2:", "127.26.0.0/16 :127.0.0.2:"],
        ["2001:db8:20::/48 :127.0.0.2:"],
    ),
    "bl2.rbl.test": (
        "7200",
        "90",
        ["127.21.0.0/16 :127.0.0.5:", "127.22.0.0/16 :127.0.0.11:", "127.23.0.0/16 :127.0.0.20:"],
        ["2001:db8:21::/48 :127.0.0.5:"],
    ),
    "wl.rbl.test": (
        "600",
        "30",
        ["127.25.0.0/16 :127.0.5.1:", "127.26.0.0/16 :127.0.5.1:"],
        ["2001:db8:25::/48 :127.0.5.1:"],
    ),
    # lists of the how-to's main.cf (tests/dialogues/imported), by their own names
    "zen.spamhaus.org": (
        "300",
        "120",
        ["127.20.0.0/16 :127.0.0.2:", "127.22.0.0/16 :127.0.0.4:", "127.26.0.0/16 :127.0.0.2:"],
        [],
    ),
    "b.barracudacentral.org": ("300", "120", ["127.21.0.0/16 :127.0.0.2:", "127.22.0.0/16 :127.0.0.2:"], []),
    "bl.spameatingmonkey.net": ("300", "120", ["127.99.0.0/16 :127.0.0.2:"], []),
    "bl.spamcop.net": ("300", "120", ["127.99.0.0/16 :127.0.0.2:"], []),
    "bl.mailspike.net": ("300", "120", ["127.99.0.0/16 :127.0.0.2:"], []),
    "list.dnswl.org": ("300", "120", ["127.25.0.0/16 :127.0.5.1:", "127.26.0.0/16 :127.0.5.2:"], []),
    # what must never score: error codes of list operators, and an answer that is not a list's
    "odd.rbl.test": ("300", "120", ["127.27.0.0/16 :192.0.2.80:", "127.28.0.0/16 :127.255.255.254:"], []),
}


class Rbldnsd:
    """rbldnsd on 127.0.53.2 port 53 of the namespace."""

    def __init__(self, namespace: Namespace, folder: Path) -> None:
        program = needs.program("rbldnsd")
        folder.mkdir()
        arguments = []
        for zone, (ttl, negative, ipv4, ipv6) in ZONES.items():
            head = [f"$SOA {negative} ns.rbl.test. hostmaster.rbl.test. 1 3600 600 86400 {negative}", f"$TTL {ttl}"]
            for kind, lines in (("ip4trie", ipv4), ("ip6trie", ipv6)):
                (folder / f"{zone}.{kind}").write_text("\n".join([*head, *lines, ""]))
                arguments.append(f"{zone}:{kind}:{zone}.{kind}")
        command = [program, "-n", "-w", str(folder), "-b", f"{ADDRESS}/53", *arguments]
        self._log = folder / "rbldnsd.log"
        self._process = processes.start(command, self._log, inside=namespace.inside)
        query = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03bl1\x03rbl\x04test\x00\x00\x06\x00\x01"  # SOA
        with namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.settimeout(0.1)

            def answers() -> bool:
                if self._process.poll() is not None:
                    raise RuntimeError(f"rbldnsd ended: {self._log.read_text()}")
                try:
                    probe.sendto(query, (ADDRESS, 53))
                    return probe.recv(512)[:2] == query[:2]
                except OSError:
                    return False

            processes.wait_until(answers, "rbldnsd")

    def close(self) -> None:
        """Stop it."""
        processes.stop(self._process)
