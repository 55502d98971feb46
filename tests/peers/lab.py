"""Everything the peer tests share, started once a session: namespace, name servers, Postfix, fastscreen processes."""

import contextlib
import itertools
import os
import shutil
import tempfile
from pathlib import Path
from typing import TypeVar

from peers import certificate, dialogue, imported, needs, postfix, profiles, screener
from peers.logbook import Logbook
from peers.nameserver import ADDRESS, NameServer
from peers.namespace import Namespace
from peers.postfix import Postfix, Service
from peers.rbldnsd import Rbldnsd
from peers.screener import Screener
from peers.sides import Side

FIRST_PORT = 2501
PRIORITY = -10  # nice(2)
AT_A_TIME = 4  # fastscreen processes that start together; more would only be in each other's way, and other tests'

Peer = TypeVar("Peer", Namespace, Rbldnsd, NameServer, Postfix)


class Lab:
    """The peers, running. `close` stops all of them, whatever failed before."""

    def __init__(self) -> None:
        needs.root("a private Postfix in a namespace")
        for name in needs.LAB:
            needs.program(name)
        self.dialogues = dialogue.load(profiles.DIALOGUES)
        known, tables = profiles.load()
        services = dict(known)
        for each in self.dialogues:
            settings = known[each.profile]
            for key, value in each.settings.items():
                settings = profiles.with_setting(settings, key, value)
            services[each.service] = settings
        self.rounds = itertools.count()
        self._stack = contextlib.ExitStack()
        # A real postscreen uses the real clock, and so do the dialogues: everything else here runs after them.
        self._stack.callback(os.setpriority, os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, 0))
        os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)
        self._running: dict[tuple[str, int], Screener] = {}
        try:
            # not pytest's folder: its 0700 would keep Postfix' users out
            self.folder = Path(tempfile.mkdtemp(prefix="fastscreen-"))
            self._stack.callback(shutil.rmtree, self.folder)
            self.folder.chmod(0o755)
            folder = self.folder / "tables"
            folder.mkdir()
            for name, content in tables.items():
                (folder / name).write_text(content)
            chain = certificate.make(folder)
            self.services = {n: profiles.replaced(s, "$tables", str(folder)) for n, s in services.items()}
            parameters = {name: profiles.to_postscreen(settings) for name, settings in self.services.items()}
            for name in imported.names():
                made = imported.make(name, folder, self.folder / name)
                self.services[name], parameters[name] = made.settings, made.parameters
            self.ports = {name: FIRST_PORT + at for at, name in enumerate(self.services)}
            resolv_conf = self.folder / "resolv.conf"
            resolv_conf.write_text(f"nameserver {ADDRESS}\noptions timeout:10 attempts:1\n")
            self.namespace = self._keep(Namespace(resolv_conf))
            self.lists = self._keep(Rbldnsd(self.namespace, self.folder / "rbldnsd"))
            self.nameserver = self._keep(NameServer(self.namespace))
            screens = [Service(name, self.ports[name], parameters[name]) for name in self.services]
            self.postfix = self._keep(Postfix(self.namespace, self.folder / "postfix", screens, chain))
            self._postfix_log = Logbook(self.postfix.log)
        except BaseException:
            self.close()
            raise

    def _keep(self, peer: Peer) -> Peer:
        self._stack.callback(peer.close)
        return peer

    def postscreen(self, service: str) -> Side:
        """Return the real postscreen with a service's settings."""
        log = self._postfix_log
        return Side(
            "postscreen",
            postfix.ADDRESS,
            postfix.ADDRESS6,
            postfix.BACKUP,
            self.ports[service],
            screener=(log, f"ps-{service}"),
            dnsblog=(log, "postfix"),
            tlsproxy=(log, "postfix"),
            smtpd=(log, postfix.SMTPD),
            last_words=str,
        )

    def fastscreen(self, services: list[str], workers: int = 1) -> list[Side]:
        """Start fastscreen with each service's settings, those not running yet; return them, listening."""
        starting: list[Screener] = []
        for name in services:
            if (name, workers) not in self._running:
                if len(starting) == AT_A_TIME:
                    starting.pop(0).ready()
                started = self._running[name, workers] = Screener(
                    self.namespace,
                    self.folder / f"fastscreen{workers}" / name,
                    name,
                    self.ports[name],
                    self.services[name],
                    self.postfix.ours[workers],
                    workers,
                )
                self._stack.callback(started.close)
                starting.append(started)
        sides = []
        for name in services:
            self._running[name, workers].ready()
            log = Logbook(self._running[name, workers].log)
            sides.append(
                Side(
                    f"fastscreen, workers: {workers}",
                    screener.address(workers),
                    screener.address6(workers),
                    screener.backup(workers),
                    self.ports[name],
                    screener=(log, "postfix"),
                    dnsblog=(log, "postfix"),
                    tlsproxy=(log, "postfix"),
                    smtpd=(self._postfix_log, postfix.smtpd_of_ours(workers)),
                    last_words=self._running[name, workers].last_words,
                )
            )
        return sides

    def screener(self, service: str, workers: int = 1) -> Screener:
        """Return the running fastscreen of a service."""
        return self._running[service, workers]

    def close(self) -> None:
        """Stop everything, last started first, and remove the folder."""
        for running in self._running.values():  # all at once; each is waited for below
            running.leave()
        self._stack.close()
