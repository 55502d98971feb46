"""Our files are accepted by promtool, systemd, fail2ban, logrotate and mandoc; a wheel works in a new environment."""

import contextlib
import grp
import gzip
import json
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import tomllib
import venv
import zipfile
from collections.abc import Iterable, Iterator
from email.parser import Parser
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from prometheus_client.parser import text_string_to_metric_families
from robust.conftest import Start, dns, folder, mta, start
from robust.fakedns import FakeDns, listed
from robust.fakemta import GREETING as FROM_MTA
from robust.harness import ADDRESS, COMMAND, USER, Screener, merge, wait_until
from robust.proxymta import Connection, ProxyMta
from robust.test_allowlist_daemon import says
from robust.test_continue_tls import asked, going_on
from robust.test_metrics import begin, cluster_without_server, place, samples, scraped, talk
from robust.test_workers import owner
from robust.tlsclient import certificates

from bench.ports import free_port
from peers import needs

__all__ = ["dns", "folder", "mta", "place", "start"]

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "contrib/systemd/fastscreen.service"
FILTER = ROOT / "contrib/fail2ban/fastscreen.conf"


def run(*command: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, input=stdin, capture_output=True, text=True, timeout=300, env={**os.environ, **environment}
    )


def test_promtool(start: Start, place: str, dns: FakeDns) -> None:
    """Families that need a list's answer included."""
    promtool = needs.program("promtool")
    dns.zones = {"bl.test": listed("127.0.0.2")}
    screener = begin(start, place, {"dnsbl": {"sites": ["bl.test*1"], "threshold": 3, "resolvers": [dns.endpoint]}})
    talk(screener)
    took = "fastscreen_dnsbl_latency_seconds", "bl.test"
    wait_until(lambda: took in samples(scraped(place)), "an answer")
    checked = run(promtool, "check", "metrics", stdin=scraped(place))
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_each_query_of_the_board_has_an_answer(
    start: Start, place: str, folder: Path, dns: FakeDns, tmp_path: Path
) -> None:
    """Prometheus' own evaluator, over what is really served: no selector or label that nothing has."""
    promtool = needs.program("promtool")
    dns.zones = {"bl.test": listed("127.0.0.2")}
    lists = {"sites": ["bl.test*1"], "threshold": 3, "resolvers": [dns.endpoint]}
    kept = {"cache": {"path": str(folder / "cache")}, "score": {"memory": str(folder / "offenses")}}
    screener = begin(start, place, {"dnsbl": lists}, kept, cluster_without_server(folder))
    talk(screener)
    wait_until(lambda: samples(scraped(place)).get(("fastscreen_dnsbl_answers_total", "bl.test")) == 1, "an answer")
    for name, what in (("cluster_stored", "the cluster process"), ("offenses_bad", "the memory of offenses")):
        wait_until(lambda one=name: (f"fastscreen_{one}_total", "") in samples(scraped(place)), what)  # type: ignore[misc]
    there = [one for family in text_string_to_metric_families(scraped(place)) for one in family.samples]
    labels = {one.name: set(one.labels) for one in there}
    board = json.loads((ROOT / "contrib/grafana.json").read_text())
    targets = [target for panel in board["panels"] for target in panel["targets"]]
    queries = [target["expr"].replace("$instance", ".*").replace("$__rate_interval", "5m") for target in targets]
    assert len(queries) > 30
    for query, target in zip(queries, targets, strict=True):
        wanted = {label for words in re.findall(r"by \(([\w, ]+)\)", query) for label in words.split(", ")}
        wanted |= set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
        for name in re.findall(r"fastscreen_\w+", query):
            assert wanted <= labels[name] | {"instance"}, query
    series = [
        {"series": one.name + json.dumps(one.labels | {"instance": "a"}), "values": f"{one.value}x10"} for one in there
    ]
    for each in series:
        each["series"] = re.sub(r'"(\w+)": "', r'\1="', each["series"])
    asked = [{"eval_time": "8m", "expr": f"absent({query})", "exp_samples": []} for query in queries]
    # A query that nothing answers is absent: promtool has to see that, too.
    for expression, wrong in (("vector(1)", 0), ("fastscreen_x", 1)):
        asked.append({"eval_time": "8m", "expr": f"absent({expression})", "exp_samples": []})
        tests = tmp_path / "tests.yml"
        tests.write_text(json.dumps({"tests": [{"interval": "1m", "input_series": series, "promql_expr_test": asked}]}))
        judged = run(promtool, "test", "rules", str(tests))
        assert judged.returncode == wrong, judged.stdout + judged.stderr
        assert (judged.stdout + judged.stderr).count("expr:") == wrong, judged.stdout + judged.stderr


# ---- systemd


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The units, with our own program and the manual out of the way."""
    for unit in UNIT.parent.iterdir():
        text = unit.read_text().replace("/usr/bin/fastscreen", str(COMMAND))
        (tmp_path / unit.name).write_text(re.sub(r"(?m)^Documentation=.*\n", "", text))
    return tmp_path


def test_systemd_accepts_the_units(installed: Path) -> None:
    analyze = needs.program("systemd-analyze")
    checked = run(analyze, "verify", *(str(unit) for unit in sorted(installed.iterdir())))
    assert (checked.returncode, checked.stderr) == (0, "")


def test_nothing_but_the_configuration_decides_whether_it_starts(tmp_path: Path) -> None:
    """A check fails when the mail server is down, and port 25 would stay closed."""
    config = tmp_path / "fastscreen.toml"
    config.write_text(f'[handoff]\nto = "pass:{tmp_path}/nobody"\n[cache]\npath = ""\n[control]\npath = ""\n')
    assert run(str(COMMAND), "check", "-c", str(config)).returncode == 1
    unit = UNIT.read_text()
    assert not re.search(r"(?m)^Exec(?:StartPre|Condition)=(?!-)", unit)
    assert re.search(r"(?m)^StartLimitIntervalSec=0$", unit)
    assert re.search(r"(?m)^ExecStart=/usr/bin/fastscreen run ", unit)


def test_the_sandbox_is_as_tight_as_the_docs_say() -> None:
    analyze = needs.program("systemd-analyze")
    said = run(analyze, "security", "--offline=true", str(UNIT)).stdout
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", said)
    assert found is not None, said
    assert f"exposure level is {found[1]}" in (ROOT / "docs/systemd.md").read_text()


def _allowed_calls() -> set[str]:
    """Of the unit's SystemCallFilter lines, as systemd.exec(5) combines them."""
    analyze = needs.program("systemd-analyze")

    def names(word: str) -> set[str]:
        if not word.startswith("@"):
            return {word}
        listed = run(analyze, "syscall-filter", word).stdout.splitlines()[1:]
        words = [line.strip() for line in listed if line.strip() and not line.strip().startswith("#")]
        return {name for each in words for name in names(each)}

    calls: set[str] = set()
    for line in re.findall(r"(?m)^SystemCallFilter=(.*)$", UNIT.read_text()):
        these = {name for word in line.lstrip("~").split() for name in names(word)}
        calls = calls - these if line.startswith("~") else calls | these
    return calls


def _sandboxed(trace: str) -> None:
    """AssertionError: a process did what the unit does not allow."""
    unit = UNIT.read_text()
    # systemd calls exec. A process that is not root cannot become another user or read root's keys.
    made = set(re.findall(r"(?m)^\d+ +(?:<\.\.\. )?(\w+)[( ]", trace)) - {"execve"}
    made -= {"setgroups", "setresgid", "setresuid", "setgid", "setuid", "capget", "capset"}
    assert len(made) > 40
    assert {"splice", "memfd_create", "connect"} <= made
    assert made - _allowed_calls() <= {"unfinished"}
    families = set(re.findall(r" socket(?:pair)?\((?:AF|PF)_(\w+)", trace))
    assert {"INET", "UNIX"} <= families
    (allowed,) = re.findall(r"(?m)^RestrictAddressFamilies=(.*)$", unit)
    assert families <= {name.removeprefix("AF_") for name in allowed.split()}
    assert "RestrictNamespaces=yes" in unit
    assert "CLONE_NEW" not in trace
    # systemd.exec(5): no memory that is written and run, nor any that becomes what is run
    assert "MemoryDenyWriteExecute=yes" in unit
    assert not re.findall(r" mmap\(.*PROT_WRITE\|PROT_EXEC|.* (?:pkey_)?mprotect\(.*PROT_EXEC", trace)


def test_the_sandbox_has_what_we_do(folder: Path, mta: object, dns: FakeDns, tmp_path: Path) -> None:
    """A session in TLS that goes on with an MTA, and a long message in it; then one by descriptor, a refresh of the
    lists, metrics, the control socket, a reload, and the end.
    """
    strace = needs.program("strace")
    needs.root("strace of another user's processes")
    trace = tmp_path / "trace"
    message = b"x" * 78 + b"\r\n"
    message = b"Subject: x\r\n\r\n" + message * 20_000 + b".\r\n"
    dns.zones = {"bl.test": listed("127.0.0.2"), "big.test": says("v=spf1 ip4:8.8.8.0/24 -all")}

    def serve(connection: Connection, _: int) -> None:
        asked(connection)
        connection.expect(b"DATA", b"354 go")
        left = len(message)
        while left:
            left -= len(connection.socket.recv(min(left, 1 << 20)))
        connection.send(b"250 ok\r\n")
        connection.expect(b"QUIT", b"221 bye")

    with ProxyMta(serve) as behind:
        screener = Screener(
            folder,
            {
                "control": {"path": str(folder / "run/control")},
                "metrics": {"listen": f"unix:{folder / 'run/metrics'}"},
                "cache": {"path": str(folder / "cache")},
                "listen": {"addresses": [f"{ADDRESS}:0", "[::1]:0"], "workers": 2},
                "greet": {"banner": "", "wait": "1s"},
                "tls": {"level": "may", "certificates": certificates(folder)},
                "deep": {"pipelining": "enforce", "non_smtp_command": "enforce", "bare_newline": "enforce"},
                "handoff": {"continue_to": [behind.target]},
                "dnsbl": {"sites": ["bl.test*1"], "threshold": 3, "resolvers": [dns.endpoint]},
                "allowlist": {"domains": ["big.test"], "path": str(folder / "lists/allow.cidr")},
                "access": {"list": [f"cidr:{folder / 'lists/allow.cidr'}"]},
            },
        )
        shutil.chown(folder, "nobody")
        for name in ("run", "lists"):
            (folder / name).mkdir()
            shutil.chown(folder / name, "nobody")
        with screener.output.open("ab") as sink:
            screener.process = subprocess.Popen(
                [strace, "-f", "-qq", "-o", str(trace), str(COMMAND), "run", "-c", str(screener.config)],
                stdout=sink, stderr=sink, start_new_session=True,
            )  # fmt: skip
        try:
            where = screener.line(" daemon started ", seconds=60).rpartition(" listening on ")[2].split(", ")[0]
            screener.address = (where.rpartition(":")[0], int(where.rpartition(":")[2]))
            screener.line(" tables read again", seconds=60)
            with going_on(screener) as client:
                assert client.ask(b"DATA") == b"354 go\r\n"
                client.send(message)
                assert client.read() == b"250 ok\r\n"
                assert client.ask(b"QUIT") == b"221 bye\r\n"
            with screener.connect() as client:
                assert client.read() == FROM_MTA
            screener.line(" PASS OLD ")
            wait_until(lambda: _answers(str(folder / "run/metrics")), "metrics", 60)
            assert run(str(COMMAND), "status", "--socket", str(folder / "run/control")).returncode == 0
            (child,) = Path(f"/proc/{screener.pid}/task/{screener.pid}/children").read_text().split()
            os.kill(int(child), signal.SIGHUP)
            screener.line(" configuration reloaded", seconds=60)
            os.kill(int(child), signal.SIGTERM)
            assert screener.wait(60) == 0
        finally:
            if screener.process.poll() is None:
                screener.process.kill()
    assert not screener.lines("warning"), screener.lines("warning")
    _sandboxed(trace.read_text(errors="replace"))


def _answers(place: str) -> bool:
    try:
        return "fastscreen_connects_total" in scraped(place)
    except OSError:
        return False


def test_without_root_from_the_beginning(folder: Path, mta: object) -> None:
    """With the one capability and the folders that the unit gives: a port below 1024, log, cache, sockets, a reload."""
    setpriv = needs.program("setpriv")
    needs.root("to become another user")
    where = {name: folder / name for name in ("run", "state", "log")}
    for path in where.values():
        path.mkdir()
        shutil.chown(path, "nobody")
    folder.chmod(0o755)
    os.chown(folder, 0, 0)
    log = where["log"] / "fastscreen.log"
    screener = Screener(
        folder,
        {
            "listen": {"addresses": ["127.9.7.1:1017"], "workers": 2},
            "control": {"path": str(where["run"] / "control")},
            "metrics": {"listen": f"unix:{where['run'] / 'metrics'}"},
            "cache": {"path": str(where["state"] / "cache")},
            "log": {"to": f"file:{log}"},
        },
    )
    screener.log = log
    screener.config.chmod(0o644)
    capability = "-all,+net_bind_service"
    with screener.output.open("ab") as sink:
        screener.process = subprocess.Popen(
            [
                setpriv, "--reuid=65534", "--regid=65534", "--clear-groups", f"--inh-caps={capability}",
                "--ambient-caps=+net_bind_service", f"--bounding-set={capability}", "--no-new-privs",
                str(COMMAND), "run", "-c", str(screener.config),
            ],
            stdout=sink, stderr=sink, start_new_session=True, umask=0o027,
        )  # fmt: skip
    try:
        screener.line(" daemon started ")
        screener.address = ("127.9.7.1", 1017)
        talk(screener)
        wait_until(lambda: _answers(str(where["run"] / "metrics")), "metrics")
        processes = [screener.pid, *screener.workers()]
        assert len(processes) == 4
        for pid in processes:
            status = Path(f"/proc/{pid}/status").read_text()
            assert "Uid:\t65534\t65534\t65534\t65534" in status
            assert "CapEff:\t0000000000000400" in status
        made = [log, where["state"] / "cache", where["run"] / "control", where["run"] / "metrics"]
        for path in made:
            assert (path.stat().st_uid, path.stat().st_mode & 0o007) == (65534, 0)
        log.rename(log.with_suffix(".1"))
        screener.signal(signal.SIGHUP)
        screener.line(" configuration reloaded")
        assert not screener.lines("warning"), screener.lines()
    finally:
        screener.stop()


class Manager:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        path.chmod(0o777)
        self._socket.settimeout(30)

    def hears(self, wanted: str) -> str:
        """Wait for a message with this line; return it."""
        while wanted not in (message := self.hears_any()).split("\n"):
            pass
        return message

    def hears_any(self) -> str:
        return self._socket.recv(4096).decode()

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(folder: Path) -> Iterator[Manager]:
    made = Manager(folder / "notify")
    yield made
    made.close()


def test_started_by_its_socket(folder: Path, mta: object, manager: Manager) -> None:
    """The first client starts it, is served, and the manager hears READY, a reload, life signs and the end."""
    activate = needs.program("systemd-socket-activate")
    where, also = f"{ADDRESS}:{free_port(ADDRESS)}", f"[::1]:{free_port(ADDRESS)}"
    screener = Screener(folder, {"listen": {"addresses": [where, also]}})
    with screener.output.open("ab") as sink:
        process = screener.process = subprocess.Popen(
            [
                activate, "-l", where, "-l", also, "--fdname=smtp", "-E", f"NOTIFY_SOCKET={manager.path}", "-E",
                "WATCHDOG_USEC=200000", str(COMMAND), "run", "-c", str(screener.config),
            ],
            stdout=sink, stderr=sink, start_new_session=True,
        )  # fmt: skip
    try:
        screener.address = (ADDRESS, int(where.rpartition(":")[2]))
        wait_until(lambda: "Listening on" in screener.output.read_text(), "systemd-socket-activate")
        talk(screener)
        assert f"STATUS=listening on {where}, {also}" in manager.hears("READY=1")
        with socket.create_connection(("::1", int(also.rpartition(":")[2]))) as client:
            assert client.recv(4) == b"220-"
        manager.hears("WATCHDOG=1")
        screener.signal(signal.SIGHUP)
        while not (message := manager.hears_any()).startswith("RELOADING=1"):
            pass
        assert re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=\d+", message)
        manager.hears("READY=1")
        screener.signal(signal.SIGTERM)
        manager.hears("STOPPING=1")
        assert process.wait(30) == 0
    finally:
        if process.poll() is None:
            process.kill()


def test_the_watchdog_hears_of_us_while_a_reload_waits(folder: Path, mta: object, manager: Manager) -> None:
    """For a table that is never read to its end: longer than half of what the unit says the watchdog waits."""
    table = folder / "table.cidr"
    table.write_text("192.0.2.1 permit\n")
    screener = Screener(folder, {"access": {"list": [f"cidr:{table}"]}})
    environment = {**os.environ, "NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": "200000"}
    with screener.output.open("ab") as sink:
        screener.process = subprocess.Popen(
            [str(COMMAND), "run", "-c", str(screener.config)], stdout=sink, stderr=sink, env=environment
        )
    try:
        manager.hears("READY=1")
        table.unlink()
        os.mkfifo(table)
        table.chmod(0o666)
        screener.signal(signal.SIGHUP)
        while not manager.hears_any().startswith("RELOADING=1"):
            pass
        assert [manager.hears_any() for _ in range(3)] == ["WATCHDOG=1"] * 3
        screener.signal(signal.SIGTERM)
        manager.hears("STOPPING=1")
        assert screener.wait(30) == 0
    finally:
        if screener.process.poll() is None:
            screener.process.kill()


# What systemd does with each address twice in ListenStream=, and ReusePort=yes: systemd-socket-activate cannot.
_ACTIVATE = """
import fcntl, os, socket, sys
sockets = []
for host, port in zip(sys.argv[1::2], map(int, sys.argv[2:5:2])):
    for _ in range(2):
        one = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        one.bind((host, port))
        one.listen()
        sockets.append(fcntl.fcntl(one.detach(), fcntl.F_DUPFD, 100))
for at, one in enumerate(sockets):
    os.dup2(one, 3 + at)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(sockets)), "LISTEN_FDNAMES": ":".join("abcd")}
os.execv(sys.argv[5], sys.argv[5:])
"""


def test_two_workers_with_a_socket_each(folder: Path, mta: object) -> None:
    """For IPv4 and IPv6: both are served by both, and a client's worker is always the same."""
    ports = free_port(ADDRESS), free_port(ADDRESS)
    screener = Screener(
        folder,
        {
            "listen": {"addresses": [f"{ADDRESS}:{ports[0]}", f"[::1]:{ports[1]}"], "workers": 2},
            "access": {"list": ["permit_mynetworks"], "mynetworks": ["127.7.0.0/16", "[::1]/128"]},
        },
    )
    where = (ADDRESS, str(ports[0]), "::1", str(ports[1]))
    with screener.output.open("ab") as sink:
        screener.process = subprocess.Popen(
            [sys.executable, "-c", _ACTIVATE, *where, str(COMMAND), "run", "-c", str(screener.config)],
            stdout=sink, stderr=sink, start_new_session=True,
        )  # fmt: skip
    try:
        screener.line(" daemon started ")
        screener.address = (ADDRESS, ports[0])
        owners: dict[str, set[int]] = {}
        for _ in range(2):
            for number in range(1, 31):
                with screener.connect(f"127.7.0.{number}") as client:
                    assert client.read() == FROM_MTA
                    owners.setdefault(f"127.7.0.{number}", set()).add(owner(screener, client))
            with socket.create_connection(("::1", ports[1]), 20) as ipv6:
                assert ipv6.recv(100) == FROM_MTA
        assert all(len(one) == 1 for one in owners.values())
        assert set.union(*owners.values()) == set(screener.workers())
        found = re.findall(r"\[(\d+)\]: CONNECT from \[::1\]", "\n".join(screener.lines()))
        assert len(found) == 2
        assert len(set(found)) == 1
    finally:
        screener.stop()


def test_a_socket_for_another_address(folder: Path) -> None:
    activate = needs.program("systemd-socket-activate")
    port = free_port(ADDRESS)
    screener = Screener(folder, {"listen": {"addresses": [f"{ADDRESS}:{free_port(ADDRESS)}"]}})
    with screener.output.open("ab") as sink:
        process = subprocess.Popen(
            [activate, "-l", f"{ADDRESS}:{port}", str(COMMAND), "run", "-c", str(screener.config)], stderr=sink
        )
    try:
        wait_until(lambda: "Listening on" in screener.output.read_text(), "systemd-socket-activate")
        with socket.create_connection((ADDRESS, port)):
            assert process.wait(30) == 1
        assert f"{ADDRESS}:{port} is not in listen.addresses" in screener.output.read_text()
    finally:
        if process.poll() is None:
            process.kill()


# ---- fail2ban

_C = "[192.0.2.7]:51234"
BAD = (
    f"PREGREET 11 after 0.1 from {_C}: EHLO you\\r\\n",
    f"NON-SMTP COMMAND from {_C} after CONNECT: GET / HTTP/1.0",
    f"COMMAND PIPELINING from {_C} after EHLO: x",
    f"BARE NEWLINE from {_C} after CONNECT",
    f"COMMAND TIME LIMIT from {_C} after CONNECT",
    f"DENYLISTED {_C}",
    f"BLACKLISTED {_C}",
    f"DNSBL rank 5 for {_C}",
    f"NOQUEUE: reject: RCPT from {_C}: 550 5.7.1 Service unavailable; client [192.0.2.7] blocked using x; from=<a>",
    f"NOQUEUE: reject: CONNECT from {_C}: too many connections",
)
GOOD = (
    f"CONNECT from {_C} to [192.0.2.1]:25",
    f"PASS NEW {_C}",
    f"HANGUP after 0.1 from {_C} in tests after SMTP handshake",
    f"DISCONNECT {_C}",
    f"NOQUEUE: reject: RCPT from {_C}: 450 4.3.2 Service currently unavailable; from=<a>, to=<b>, proto=ESMTP",
    f"NOQUEUE: reject: CONNECT from {_C}: all server ports busy",
    f"CONTINUE from {_C} to 127.0.0.1:10025: 550 5.1.1 unknown",
    f"CONTINUE from {_C} failed: timeout",
)


def _matched(path: Path) -> tuple[int, int]:
    """Matched, missed lines."""
    regex = needs.program("fail2ban-regex")
    found = re.search(
        r"Lines: (\d+) lines, \d+ ignored, (\d+) matched, (\d+) missed", run(regex, str(path), str(FILTER)).stdout
    )
    assert found is not None
    return int(found[2]), int(found[3])


@pytest.mark.parametrize(
    "ident",
    [
        *("postfix/postscreen", "postfix-in/postscreen", "postfix/2525/postscreen", "fastscreen"),
        *(
            "postfix-mx-in/postscreen",
            "postfix-mx.example.com/postscreen",
            "postfix-a_b+c@d/postscreen",
            "mx/in/postscreen",
        ),
    ],
)
@pytest.mark.parametrize("stamp", ["Nov 22 08:06:46", "2026-11-22T08:06:46.123456+00:00"])
def test_fail2ban_finds_each_refusal_and_nothing_else(tmp_path: Path, ident: str, stamp: str) -> None:
    log = tmp_path / "mail.log"
    for lines, wanted in ((BAD, (len(BAD), 0)), (GOOD, (0, len(GOOD)))):
        log.write_text("".join(f"{stamp} mx {ident}[17]: {text}\n" for text in lines))
        assert _matched(log) == wanted


def test_fail2ban_finds_a_dropped_client_in_our_log(start: Start) -> None:
    """521 is in no line: the test's own line counts."""
    screener = start({"greet": {"action": "drop"}})
    talk(screener, b"EHLO early\r\n")
    screener.line(" PREGREET ")
    assert _matched(screener.log)[0] == 1


# ---- manual, packages


def logs_of(screener: Screener) -> set[int]:
    """The inodes of the files that its processes write their log to."""
    found = set()
    for pid in (screener.pid, *screener.workers()):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                if str(entry.readlink()).startswith(str(screener.log)):
                    found.add(entry.stat().st_ino)
    return found


@pytest.mark.parametrize("whose", ["user", "root"])
def test_logrotate(start: Start, folder: Path, whose: str) -> None:
    """Twice: the second compresses what the first left to us until the new file was open. In the user's folder with the
    user's rights: a link that the user has planted there changes nothing of root's."""
    needs.root("logrotate gives the new file to the user that fastscreen is")
    logrotate = needs.program("logrotate")
    logs = Path(tempfile.mkdtemp(prefix="fastscreen-logs-"))
    logs.chmod(0o755)
    if whose == "user":
        shutil.chown(logs, USER)
    screener = Screener(folder, {"listen": {"workers": 2}, "log": {"to": f"file:{logs / 'screener.log'}"}})
    screener.log = log = logs / "screener.log"
    group = grp.getgrgid(pwd.getpwnam(USER).pw_gid).gr_name
    theirs = (ROOT / "contrib/logrotate").read_text()
    assert "kill" not in theirs
    for name, ours in {
        "/var/log/fastscreen/*.log": str(log if whose == "user" else folder / "none"),
        "/var/log/fastscreen.log": str(log if whose == "root" else folder / "none"),
        "/usr/bin/fastscreen reopen -c /etc/fastscreen/fastscreen.toml": "kill -USR1 PID",
        "su postfix postfix": f"su {USER} {group}",
        "0640 postfix postfix": f"0640 {USER} {group}",
        "0640 postfix adm": f"0640 {USER} adm",
    }.items():
        lines = [line for line in theirs.splitlines() if not line.startswith("#")]
        assert any(name in line for line in lines), name
        theirs = "\n".join(line.replace(name, ours) for line in lines) + "\n"
    rules = folder / "rules"
    screener.start()
    try:
        rules.write_text(theirs.replace("PID", str(screener.pid)))
        rules.chmod(0o644)
        for turn in (1, 2):
            before = log.stat().st_ino
            ran = run(logrotate, "--force", "--state", str(folder / "state"), str(rules))
            assert (ran.returncode, ran.stdout + ran.stderr) == (0, "")
            found = log.stat()
            assert (found.st_ino != before, found.st_mode & 0o777, log.owner()) == (True, 0o640, USER)
            assert log.group() == ("adm" if whose == "root" else group)
            wait_until(lambda: logs_of(screener) == {log.stat().st_ino}, "all processes to open the new file")
            for number in range(20):  # both workers
                with screener.connect(f"127.{turn}.0.{number}"):
                    screener.line(rf"CONNECT from \[127\.{turn}\.0\.{number}\]")
        old = gzip.decompress(Path(f"{log}.2.gz").read_bytes()).decode()
        assert " daemon started " in old
        assert "CONNECT" not in old
        newer = Path(f"{log}.1").read_text()
        assert newer.count("CONNECT from [127.1.0.") == 20
        screener.stop()
        if whose == "user":
            secret = logs.with_suffix(".secret")
            secret.write_text("secret")
            secret.chmod(0o600)
            log.unlink()
            log.symlink_to(secret)
            run(logrotate, "--force", "--state", str(folder / "state"), str(rules))
            assert (secret.read_text(), secret.owner(), secret.stat().st_mode & 0o777) == ("secret", "root", 0o600)
            secret.unlink()
    finally:
        screener.stop()
        shutil.rmtree(logs)


@pytest.mark.parametrize("page", ["fastscreen.1", "fastscreen.toml.5"])
def test_the_manual_is_clean(page: str) -> None:
    path = str(ROOT / "contrib/man" / page)
    lint = run(needs.program("mandoc"), "-T", "lint", "-W", "warning", path).stdout
    assert [line for line in lint.splitlines() if "missing date" not in line] == []
    shown = run(needs.program("man"), "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", path, MANROFFSEQ="")
    assert (shown.returncode, shown.stderr) == (0, "")


def _needed(requirements: Iterable[str], extras: Iterable[str] = ("",)) -> set[str]:
    """The names of all that these requirements lead to, by what is installed here."""
    found: set[str] = set()
    for line in requirements:
        one = Requirement(line)
        if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in extras):
            found |= {one.name, *_needed(metadata.distribution(one.name).requires or (), ("", *one.extras))}
    return found


def _make_clean(clean: Path, wheel: Path) -> None:
    """An environment with a wheel, and with those packages that it names, linked to where they are installed.

    pip then says whether they are what the wheel wants; nothing is fetched.
    """
    venv.create(clean, with_pip=False, symlinks=True)
    pip = [sys.executable, "-m", "pip", "--python", str(clean / "bin/python"), "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", "--no-index", "--no-deps", str(wheel)], check=True)
    (packages,) = clean.glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        (about,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        named = Parser().parsestr(archive.read(about).decode()).get_all("Requires-Dist", [])
    for name in _needed(named):
        each = metadata.distribution(name)
        for top in {file.parts[0] for file in each.files or ()} - {"..", "__pycache__"}:
            (packages / top).symlink_to(str(each.locate_file(top)))
    checked = run(*pip, "check")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_wheel_from_sdist_in_a_clean_environment(tmp_path: Path) -> None:
    """From the source archive to the program, with nothing of the source tree in reach."""
    source = tmp_path / "source"
    kept = shutil.ignore_patterns(".venv", ".git", "build", "*.egg-info", "*.so", "core.c", "__pycache__")
    shutil.copytree(ROOT, source, symlinks=True, ignore=kept)
    build = "from setuptools.build_meta import *; import sys; print(globals()[sys.argv[1]](sys.argv[2]))"

    def build_in(folder: Path, what: str) -> None:
        made = subprocess.run(
            [sys.executable, "-c", build, what, str(tmp_path)], cwd=folder, capture_output=True, text=True,
            env={**os.environ, "CFLAGS": "-O0"},  # four times as quick; the program is the same
        )  # fmt: skip
        assert made.returncode == 0, made.stderr

    build_in(source, "build_sdist")
    unpacked = tmp_path / "unpacked"
    shutil.unpack_archive(next(tmp_path.glob("*.tar.gz")), unpacked, filter="data")
    shutil.rmtree(source)
    (inside,) = unpacked.iterdir()
    build_in(inside, "build_wheel")
    shutil.rmtree(unpacked)
    clean = tmp_path / "clean"
    _make_clean(clean, next(tmp_path.glob("*.whl")))

    def there(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(clean / "bin" / command[0]), *command[1:]], cwd=tmp_path, capture_output=True, text=True
        )

    assert there("fastscreen", "--version").stdout.startswith("fastscreen ")
    every = (
        "import fastscreen, importlib, pkgutil\n"
        "for each in pkgutil.walk_packages(fastscreen.__path__, 'fastscreen.'):\n"
        "    try:\n"
        "        if not each.name.endswith('__main__'): print(importlib.import_module(each.name).__file__)\n"
        "    except ModuleNotFoundError as error:\n"
        "        if error.name not in ('redis', 'hiredis'): raise  # of the extra `cluster`\n"
    )
    imported = there("python", "-c", every)
    assert imported.returncode == 0, imported.stderr
    files = imported.stdout.split("\n")[:-1]
    assert len(files) > 150
    assert all(file.startswith(f"{clean}/") for file in files)
    assert "_fastscreen" in there("fastscreen", "completion", "bash").stdout
    share = clean / "share"
    for path in ("man/man1/fastscreen.1", "man/man5/fastscreen.toml.5", "fastscreen/systemd/fastscreen.service"):
        assert (share / path).is_file()
    _screens(clean / "bin/fastscreen", share / "fastscreen/fastscreen.toml")


def _screens(program: Path, example: Path) -> None:
    """The program, on the example that it brings, with places of the test's: a check, a client, the end."""
    folder = Path(tempfile.mkdtemp(prefix="fastscreen-wheel-"))
    try:
        screener = Screener(folder, {"handoff": {"to": "sink:"}, "user": ""})
        own = tomllib.loads(example.read_text())
        screener.configure(merge(own, screener.settings))
        checked = run(str(program), "check", "-c", str(screener.config))
        assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
        with screener.output.open("ab") as sink:
            process = subprocess.Popen([str(program), "run", "-c", str(screener.config)], stdout=sink, stderr=sink)
        try:
            screener.process = process
            port = int(screener.line(" daemon started ").rpartition(":")[2])
            screener.address = (ADDRESS, port)
            talk(screener)
            screener.line(" PASS NEW ")
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    finally:
        shutil.rmtree(folder)
