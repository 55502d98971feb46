"""A real postscreen in a private Postfix instance, started by Postfix's own master."""

import contextlib
import grp
import os
import pwd
import shutil
import signal
import subprocess
import time
from pathlib import Path

from bench import cpu
from bench.programs import BenchError
from bench.screener import Screener, Settings, rss_anon

_MASTER_CF = """\
{address}:{port} inet n - n - 1 postscreen
dnsblog unix - - n - 0 dnsblog
tlsproxy unix - - n - 0 tlsproxy
tlsmgr unix - - n 1000? 1 tlsmgr
postlog unix-dgram n - n - 1 postlogd
"""

_MAIN_CF = """\
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
command_directory = /usr/sbin
daemon_directory = {daemons}
mail_owner = postfix
setgid_group = postdrop
inet_interfaces = {address}
inet_protocols = ipv4
myhostname = mx.example.test
mynetworks = 192.0.2.0/24
maillog_file = {folder}/maillog
maillog_file_prefixes = {folder}
postscreen_cache_map = {cache}:{folder}/data/postscreen_cache
postscreen_greet_wait = {greet_wait}s
postscreen_greet_action = {greet_action}
{no_teaser}
{tls}
postscreen_pre_queue_limit = {limit}
postscreen_post_queue_limit = {handoffs}
postscreen_client_connection_count_limit = 0
postscreen_dnsbl_sites = {sites}
postscreen_dnsbl_action = enforce
postscreen_pipelining_enable = {deep}
postscreen_pipelining_action = enforce
postscreen_non_smtp_command_enable = {deep}
postscreen_non_smtp_command_action = enforce
postscreen_bare_newline_enable = {deep}
postscreen_bare_newline_action = enforce
default_process_limit = {process_limit}
"""

_TLS = """\
postscreen_tls_security_level = may
smtpd_tls_security_level = may
smtpd_tls_chain_files = {}"""


class Postscreen(Screener):
    """postscreen. All processes of the Postfix instance are counted: master, postscreen, postlogd, dnsblog."""

    name = "postscreen"

    def __init__(self, folder: Path, settings: Settings) -> None:
        super().__init__(folder, settings)
        if os.geteuid() != 0:
            raise BenchError("Postfix's master must be started as root")
        places = ("/usr/lib/postfix/sbin", "/usr/libexec/postfix")
        self._daemons = next((place for place in places if Path(place, "postscreen").exists()), "")
        if not self._daemons:
            raise BenchError("postscreen is not installed: install Debian's package postfix")

    @property
    def mta_socket(self) -> Path:
        return self.folder / "queue" / "private" / "smtpd"

    @property
    def log_path(self) -> Path:
        return self.folder / "maillog"

    def prepare(self) -> None:
        owner, group = pwd.getpwnam("postfix"), grp.getgrnam("postdrop")
        (self.folder / "data").mkdir()
        shutil.chown(self.folder / "data", "postfix")
        for name, mode in (("pid", 0o755), ("private", 0o700), ("public", 0o710)):
            path = self.folder / "queue" / name
            path.mkdir(parents=True)
            if name != "pid":
                os.chown(path, owner.pw_uid, group.gr_gid)
            path.chmod(mode)

    def configure(self) -> None:
        values = {
            "folder": self.folder,
            "daemons": self._daemons,
            "address": self.address,
            "port": self.port,
            "cache": self.settings.postscreen_cache,
            "greet_wait": self.settings.greet_wait,
            "greet_action": self.settings.greet_action,
            "no_teaser": "" if self.settings.greet_test else "postscreen_greet_banner =",
            "tls": _TLS.format(", ".join(str(path) for path in self.settings.tls)) if self.settings.tls else "",
            "limit": self.settings.limit,
            "handoffs": self.settings.handoffs,
            "sites": ", ".join(self.settings.lists),
            "deep": "yes" if self.settings.deep else "no",
            "process_limit": self.settings.process_limit,
        }
        main_cf = self.folder / "main.cf"
        main_cf.write_text(_MAIN_CF.format_map(values))
        os.utime(main_cf, (0, 0))  # every program of Postfix first waits 2 s when it was written just now
        (self.folder / "master.cf").write_text(_MASTER_CF.format_map(values))

    def held_memory(self) -> int:
        return sum(rss_anon(pid) for pid, name in cpu.tree(self.root).items() if name == "postscreen")

    def launch(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [f"{self._daemons}/master", "-d", "-c", str(self.folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=(self.folder / "stderr").open("wb"),
            start_new_session=True,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "MAIL_CONFIG": str(self.folder)},
        )

    def end(self, process: subprocess.Popen[bytes]) -> None:
        """master terminates its children, which are in its process group, but does not wait for them."""
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        deadline = time.monotonic() + 10
        with contextlib.suppress(ProcessLookupError):
            while time.monotonic() < deadline:  # one that still listens would be taken for the next one
                os.killpg(process.pid, signal.SIGKILL if deadline - time.monotonic() < 5 else 0)
                time.sleep(0.02)


def version() -> str:
    """Postfix's version, or an empty string."""
    try:
        result = subprocess.run(["postconf", "-d", "-h", "mail_version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return result.stdout.strip()
