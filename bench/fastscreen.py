"""fastscreen as installed, with the same settings as the postscreen that it is compared with."""

import os
import pwd
import subprocess
import sys
from pathlib import Path

from bench import cpu
from bench.programs import BenchError
from bench.screener import Screener, Settings, rss_anon

COMMAND = Path(sys.executable).with_name("fastscreen")

_CONFIGURATION = """\
hostname = "mx.example.test"
banner = "mx.example.test ESMTP Postfix"
user = "{user}"
[listen]
addresses = ["{address}:{port}"]
{workers}
[handoff]
to = "{to}"
continue_to = "{continue_to}"
[access]
list = ["permit_mynetworks"]
mynetworks = ["192.0.2.0/24"]
[greet]
wait = "{greet_wait}s"
action = "{greet_action}"
{no_teaser}
[dnsbl]
sites = [{sites}]
action = "enforce"
[deep]
pipelining = "{deep}"
non_smtp_command = "{deep}"
bare_newline = "{deep}"
[cache]
path = "{folder}/state/cache"
[tls]
level = "{tls}"
certificates = [{certificates}]
[control]
path = "{control}"
[limits]
client_connection_count = 0
pre_queue = {limit}
post_queue = {handoffs}
[log]
to = "file:{folder}/log"
ident = "postfix/postscreen"
"""


class Fastscreen(Screener):
    """fastscreen. Its whole process tree is counted."""

    name = "fastscreen"

    def __init__(self, folder: Path, settings: Settings, command: Path = COMMAND) -> None:
        super().__init__(folder, settings)
        self._command = command

    @property
    def mta_socket(self) -> Path:
        return self.folder / "smtpd"

    @property
    def log_path(self) -> Path:
        return self.folder / "log"

    @property
    def control_socket(self) -> Path:
        return self.folder / "control"

    def prepare(self) -> None:
        try:
            self._user = pwd.getpwnam("postfix")
        except KeyError:
            raise BenchError("the user postfix does not exist: install Debian's package postfix") from None
        state = self.folder / "state"
        state.mkdir()
        os.chown(state, self._user.pw_uid, self._user.pw_gid)
        os.chown(self.folder, self._user.pw_uid, self._user.pw_gid)

    def configure(self) -> None:
        values = {
            "user": self._user.pw_name,
            "folder": self.folder,
            "to": _relay(self.settings.relay_to) or f"pass:{self.mta_socket}",
            "continue_to": _relay(self.settings.continue_to),
            "address": self.address,
            "port": self.port,
            "workers": f"workers = {self.settings.workers}" if self.settings.workers > 1 else "",
            "greet_wait": self.settings.greet_wait,
            "greet_action": self.settings.greet_action,
            "no_teaser": "" if self.settings.greet_test else 'banner = ""',
            "tls": "may" if self.settings.tls else "none",
            "certificates": ", ".join(f'"{path}"' for path in self.settings.tls),
            "sites": ", ".join(f'"{zone}"' for zone in self.settings.lists),
            "deep": "enforce" if self.settings.deep else "off",
            "limit": self.settings.limit,
            "handoffs": self.settings.handoffs,
            "control": self.control_socket if self.settings.control else "",
        }
        (self.folder / "fastscreen.toml").write_text(_CONFIGURATION.format_map(values))

    def held_memory(self) -> int:
        return sum(rss_anon(pid) for pid in cpu.tree(self.root))

    def launch(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [self._command, "run", "-c", self.folder / "fastscreen.toml"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=(self.folder / "stderr").open("wb"),
        )


def _relay(port: int) -> str:
    return f"proxy:127.0.0.1:{port}" if port else ""
