"""A real name server with the zones of `zones/`: Debian's NSD, running as the current user."""

import signal
from pathlib import Path

import dns.flags
import dns.message
import dns.query
import dns.rdatatype

from bench.ports import free_port
from peers import needs, processes

ADDRESS = "127.9.53.3"
ZONES = Path(__file__).with_name("zones")
EMPTY = "$TTL 300\n@ SOA ns.spf.test. hostmaster.spf.test. 1 3600 600 86400 60\n@ NS ns.spf.test.\n"

_SETTINGS = """
server:
    ip-address: {address}@{port}
    port: {port}
    server-count: 1
    username: ""
    database: ""
    pidfile: ""
    zonesdir: "{folder}"
    xfrdfile: "{folder}/xfrd.state"
    xfrdir: "{folder}"
    zonelistfile: "{folder}/zone.list"
    logfile: "{folder}/nsd.log"
    rrl-ratelimit: 0
remote-control:
    control-enable: no
"""


class Nsd:
    """NSD on 127.9.53.3 and a free port. Zones: those of `zones/`; broken.test, which answers SERVFAIL; no reverse
    names.
    """

    def __init__(self, folder: Path) -> None:
        program = needs.program("nsd")
        self.port = free_port(ADDRESS)
        self._folder = folder
        texts = {
            **{path.name: path.read_text() for path in ZONES.iterdir()},
            "broken.test": "this is not a zone\n",
            "in-addr.arpa": EMPTY,
            "ip6.arpa": EMPTY,
        }
        settings = _SETTINGS.format(address=ADDRESS, port=self.port, folder=folder)
        for zone, text in texts.items():
            (folder / zone).write_text(text)
            settings += f'zone:\n    name: "{zone}"\n    zonefile: "{zone}"\n'
        (folder / "nsd.conf").write_text(settings)
        self._log = folder / "nsd.log"
        output = folder / "nsd.output"
        self._process = processes.start([program, "-d", "-c", str(folder / "nsd.conf")], output)

        def answers() -> bool:
            if self._process.poll() is not None:
                raise RuntimeError(f"nsd ended: {output.read_text()}")
            try:
                return bool(self.ask("spf.test", "SOA").answer)
            except (OSError, dns.exception.Timeout):
                return False

        processes.wait_until(answers, "nsd")

    def ask(self, name: str, kind: str) -> dns.message.Message:
        """What it says over UDP."""
        question = dns.message.make_query(name, kind)
        return dns.query.udp(question, ADDRESS, port=self.port, timeout=0.5)

    def change(self, zone: str, before: str, after: str) -> None:
        """Let it serve a zone with other text in it; back when that is in it now."""
        path = self._folder / zone
        text = path.read_text()
        assert before in text
        serial = self._serial(zone)
        text = text.replace(before, after).replace(f" {serial} 3600 ", f" {serial + 1} 3600 ")
        path.write_text(text)
        self._process.send_signal(signal.SIGHUP)
        processes.wait_until(lambda: self._serial(zone) == serial + 1, f"nsd to serve the new {zone}")

    def _serial(self, zone: str) -> int:
        return int(self.ask(zone, "SOA").answer[0][0].serial)

    def close(self) -> None:
        """Stop it."""
        processes.stop(self._process)
