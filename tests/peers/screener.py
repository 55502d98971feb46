"""A fastscreen process with one settings profile."""

import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

from fastscreen.cache.lmdb_cache import LmdbCache
from fastscreen.config import Prefix
from fastscreen.core import cache_key_of
from peers import nameserver, postfix, processes, profiles
from peers.namespace import Namespace

USER = "postfix"
START_SECONDS = 120.0  # a bound on hanging: all of them are started at the same time
WRITE_SECONDS = 20.0  # likewise, for the cache's writer
COMMAND = Path(sys.executable).parent / "fastscreen"


def address(workers: int) -> str:
    """Where the processes with so many workers listen."""
    return f"127.2.0.{workers}"


def address6(workers: int) -> str:
    return f"2001:db8::2:{workers}"


def backup(workers: int) -> str:
    """Where they listen, too: the address of a backup MX."""
    return f"127.2.1.{workers}"


class Screener:
    """`fastscreen run -c FILE`, listening on `port` at its three addresses; call `ready` before use."""

    def __init__(
        self,
        namespace: Namespace,
        folder: Path,
        name: str,
        port: int,
        settings: profiles.Settings,
        handoff: Path,
        workers: int,
    ) -> None:
        # Its own: who opens a cache has the folder for itself meanwhile; who waits too long for that goes without one.
        folder.mkdir(parents=True)
        shutil.chown(folder, USER)  # it makes its cache there after it has become this user
        self.log = folder / f"{name}.log"
        self.cache = folder / f"{name}.cache"
        self.output = folder / f"{name}.output"
        addresses = [f"{address(workers)}:{port}", f"[{address6(workers)}]:{port}", f"{backup(workers)}:{port}"]
        listen: profiles.Settings = {"addresses": addresses, "workers": workers}
        if trusted := settings.get("listen", {}).get("trusted"):
            listen = {"addresses": [], "workers": workers, "proxy": [{"addresses": addresses, "trusted": trusted}]}
        own: profiles.Settings = {
            "hostname": postfix.HOSTNAME,
            "user": USER,
            "access": {"mynetworks": []},
            "dnsbl": {"resolvers": [f"{nameserver.ADDRESS}:53"], "probe_interval": 0},
            "cache": {"path": str(self.cache)},
            "control": {"path": ""},
            "log": {"to": f"file:{self.log}", "ident": "postfix/postscreen"},
        }
        to = handoff.with_name(
            settings.get("handoff", {}).get("service", handoff.name).replace("$side", f"fs{workers}")
        )
        others = {key: value for key, value in settings.get("handoff", {}).items() if key != "service"}
        settings = profiles.merge(own, settings) | {"handoff": {"to": f"pass:{to}", **others}, "listen": listen}
        self.config = folder / f"{name}.toml"
        self.config.write_text(profiles.to_toml(settings))
        command = [str(COMMAND), "run", "-c", str(self.config)]
        self.process = processes.start(command, self.output, inside=namespace.inside)

    def ready(self) -> None:
        """Wait until it says that it is up. RuntimeError has what it printed when it ended instead.

        That a port listens is not enough: with several workers, their group of sockets may not be complete.
        """
        processes.wait_until(self._started, f"fastscreen ({self.config.stem})", START_SECONDS)

    def _started(self) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError(f"fastscreen ({self.config.stem}) ended: {self.output.read_text().strip()}")
        return self.log.exists() and b": daemon started -- " in self.log.read_bytes()

    def last_words(self) -> str:
        """Return what it printed when it has ended, else nothing."""
        return self.output.read_text(errors="replace") if self.process.poll() is not None else ""

    def stamps(self, address: str) -> tuple[int, ...] | None:
        """Read the five stamps of a client from the cache file, with the cache's own code; None when it has none."""
        said: list[str] = []
        cache = LmdbCache(self.cache, warn=said.append, log=said.append, wake=lambda callback: callback())
        cache.open()
        try:
            found = cache.lookup(cache_key_of(address, Prefix(32, 64)))
        finally:
            cache.close()
        if said:
            raise RuntimeError(f"reading {self.cache}: {said}")
        return found

    def stamps_written(self, address: str, right: Callable[[tuple[int, ...]], bool] = bool) -> tuple[int, ...]:
        """Wait until a client's stamps are in the file, and are right: the cache is committed once per second.

        When they never are, return what is there in the end; empty: nothing.
        """
        end = time.monotonic() + WRITE_SECONDS
        while not right(found := self.stamps(address) or ()) and time.monotonic() < end:
            time.sleep(0.05)
        return found

    def leave(self) -> None:
        """Ask it to end when the sessions in hand have ended."""
        if self.process.poll() is None:
            self.process.terminate()

    def close(self) -> None:
        """Stop it at once: after the first SIGTERM it may wait for sessions, after the second it does not."""
        self.leave()
        processes.stop(self.process)
