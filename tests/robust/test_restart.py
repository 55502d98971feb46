"""A restart does not refuse connections: under load, twice in a row, during a reload, and if it is refused."""

import collections
import contextlib
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.ports import free_port
from robust import harness
from robust.conftest import Alter, Start
from robust.fakemta import GREETING as FROM_MTA
from robust.fakemta import FakeMta, fill
from robust.harness import ADDRESS, COMMAND, TEASER, TIMEOUT, Client, Screener, merge, wait_until
from robust.reachable import wrap
from robust.test_metrics import there
from robust.test_starttls import greeted, secured, shown
from robust.test_supervisor import conditions, serves, sockets
from robust.test_workers import KNOWN, TWO
from robust.tlsclient import certificates

REFUSED = r"warning: restart refused: .*; the running daemon goes on"


@pytest.fixture(autouse=True)
def executable(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The screener's user can execute the program."""
    monkeypatch.setattr(harness, "COMMAND", wrap(COMMAND, folder))


@pytest.fixture
def alter_program(alter: Alter, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Alter:
    """As `alter`, where the user can execute it."""

    def first(statements: str) -> None:
        alter(statements)
        monkeypatch.setattr(harness, "COMMAND", wrap(harness.COMMAND, folder))

    return first


def restart(screener: Screener, expected: str = " daemon restarted -- ") -> str:
    """SIGUSR2; return the line that tells how it went."""
    count = len(screener.lines(expected))
    screener.signal(signal.SIGUSR2)
    return screener.line(expected, count + 1, 3 * TIMEOUT)


Outcomes = collections.Counter[str]


@contextlib.contextmanager
def load(run_client: Callable[[str], str], sources: list[str], outcomes: Outcomes, threads: int = 6) -> Iterator[None]:
    """Clients from these addresses, again and again, until the end of the block; what they saw is counted."""
    done = threading.Event()
    counting = threading.Lock()

    def run(mine: list[str]) -> None:
        while not done.is_set():
            for source in mine:
                try:
                    seen = run_client(source)
                except OSError as error:
                    seen = type(error).__name__
                with counting:
                    outcomes[seen] += 1
                if done.is_set():
                    return

    running = [threading.Thread(target=run, args=(sources[at::threads],)) for at in range(threads)]
    for each in running:
        each.start()
    try:
        yield
    finally:
        done.set()
        for each in running:
            each.join()


def test_under_load_nobody_is_refused(start: Start, folder: Path, mta: FakeMta) -> None:
    """Known clients at the plain port and through a balancer, restarts, most of them in quick succession."""
    mta.start(2000)
    plain, balanced = free_port(ADDRESS), free_port("127.9.0.2")
    settings = {
        "listen": {
            "addresses": [f"{ADDRESS}:{plain}"],
            "workers": 2,
            "proxy": [{"addresses": [f"127.9.0.2:{balanced}"], "trusted": ["127.8.0.0/16"]}],
        },
        "limits": {"post_queue": 2000, "client_connection_count": 0},
    }
    screener = start(KNOWN, settings)

    def direct(source: str) -> str:
        with Client((ADDRESS, plain), source) as client:
            return client.read().decode()

    def proxied(source: str) -> str:
        with Client(("127.9.0.2", balanced), "127.8" + source.removeprefix("127.7")) as client:
            client.send(f"PROXY TCP4 {source} 127.9.0.2 1000 25\r\n".encode())
            return client.read().decode()

    outcomes: Outcomes = collections.Counter()
    through: Outcomes = collections.Counter()
    sources = [f"127.7.{at}.{number}" for at in range(8) for number in range(1, 26)]
    waiting = [Client((ADDRESS, plain), f"127.1.0.{number}") for number in range(1, 11)]
    pids = set(screener.workers())
    with load(direct, sources, outcomes), load(proxied, sources, through, 3):
        time.sleep(0.5)
        restart(screener)
        time.sleep(0.5)
        for _ in range(30):  # also while one is under way, and while the program is being replaced
            screener.signal(signal.SIGUSR2)
            time.sleep(0.1)
        screener.line(" daemon restarted -- ", 3, 3 * TIMEOUT)
        wait_until(lambda: len(screener.lines(" daemon restarted -- |restarting: ")) % 2 == 0, "the last restart")
        time.sleep(0.5)
    served, relayed = outcomes.pop(FROM_MTA.decode(), 0), through.pop(FROM_MTA.decode(), 0)
    assert outcomes == {}
    assert through == {}
    assert served > 100
    assert relayed > 50
    for client in waiting:  # the greet wait goes on in the process that it began in
        assert client.read() == TEASER + FROM_MTA
    wait_until(lambda: not pids & set(screener.workers()), "the former processes to end")
    assert len(screener.lines("daemon started")) == 1
    assert screener.output.read_text() == ""


def test_clients_in_hand_finish(start: Start, folder: Path, mta: FakeMta) -> None:
    """In the greet wait, in the dialogue and lined up for a busy MTA; then the old workers are gone, and the new ones
    have the same process above them, the same sockets and no more descriptors than before.
    """
    deep = {"deep": {"pipelining": "enforce"}, "cache": {"path": str(folder / "cache")}, "greet": {"wait": "4s"}}
    screener = start(KNOWN, TWO, deep)
    restart(screener)
    talking = screener.connect("127.1.0.1")
    assert talking.read() == TEASER + b"220 mx.example.test ESMTP Postfix\r\n"
    waiting = screener.connect("127.1.0.2")
    assert waiting.socket.recv(len(TEASER)) == TEASER
    fill(mta)
    known = [screener.connect(f"127.7.0.{number}") for number in range(1, 6)]
    screener.line(r"CONNECT from \[127\.7\.", 5)
    former, count, pid = screener.workers(), sockets(screener.pid), screener.pid
    restart(screener)
    mta.accept()
    for client in known:
        assert client.read() == FROM_MTA
    assert waiting.read() == b"220 mx.example.test ESMTP Postfix\r\n"
    for client in (talking, waiting):
        assert client.ask(b"EHLO me").startswith(b"250-")
        assert client.ask(b"MAIL FROM:<a@example.test>") == b"250 2.1.0 Ok\r\n"
        assert client.ask(b"RCPT TO:<b@example.test>").startswith(b"450 4.3.2")
        assert client.ask(b"QUIT") == b"221 2.0.0 Bye\r\n"
        client.socket.close()
    wait_until(lambda: not set(former) & set(screener.workers()), "the former workers to end")
    descriptors = len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208
    restart(screener)
    wait_until(lambda: len(screener.workers()) == 2, "the former workers to end")
    assert len(os.listdir(f"/proc/{pid}/fd")) == descriptors  # noqa: PTH208
    assert (screener.pid, sockets(pid)) == (pid, count)
    for source in ("127.1.0.1", "127.1.0.2"):
        with screener.connect(source) as again:
            assert again.read() == FROM_MTA
            screener.line(f"PASS OLD {again.pattern}")


def test_passes_of_the_last_second(start: Start, folder: Path, mta: FakeMta, alter_program: Alter) -> None:
    """A client that passes before a restart, or in the former process, and comes back at once is not tested again."""
    alter_program("from fastscreen.cache import writer\nwriter.TURN_SECONDS = 60.0")
    screener = start({"cache": {"path": str(folder / "cache")}, "greet": {"wait": "5s"}})
    with screener.connect("127.1.0.1") as client:
        assert client.read() == TEASER + FROM_MTA
    waiting = screener.connect("127.1.0.2")
    time.sleep(1.5)
    last = screener.connect("127.1.0.3")  # keeps the former process, which would write all passes at its end
    restart(screener)
    assert waiting.read() == TEASER + FROM_MTA
    for source in ("127.1.0.1", "127.1.0.2"):
        with screener.connect(source) as again:
            assert again.read() == FROM_MTA
            screener.line(f"PASS OLD {again.pattern}")
    assert last.socket.recv(2 * len(TEASER)) == TEASER  # it was there all the time
    assert last.read() == FROM_MTA


def takes_starttls(screener: Screener) -> bool:
    """Until the new TLS process is ready, the reply is 454."""
    with greeted(screener, "127.1.0.3") as client:
        client.ask(b"EHLO me")
        return client.ask(b"STARTTLS").startswith(b"220 ")


def test_a_session_in_tls_goes_on(start: Start, folder: Path, mta: FakeMta) -> None:
    """Its TLS process lives as long as a former worker; the new one has the key, which root alone may read."""
    keys = certificates(folder)
    for path in keys:
        os.chown(path, os.geteuid(), os.getegid())
        Path(path).chmod(0o600)
    deep = {"deep": {"pipelining": "enforce"}, "greet": {"banner": ""}}
    screener = start(deep, TWO, {"tls": {"level": "may", "certificates": keys}})
    client = secured(screener)
    before = shown(client)
    processes = screener.workers()
    names = {pid: Path(f"/proc/{pid}/comm").read_text().strip() for pid in processes}
    reader = {
        pid for pid in processes if names[pid] == "fastscreen-keys"
    }  # of keys that only root may read: it goes on
    former = set(processes) - reader
    restart(screener)
    screener.line("daemon restarted")
    wait_until(lambda: len(screener.workers()) == 3 + 2 + len(reader), "the idle former worker to end")
    wait_until(lambda: takes_starttls(screener), "the new TLS process")
    later = secured(screener, "127.1.0.2")
    assert shown(later) == before
    for each in (client, later):
        assert each.ask(b"EHLO me").startswith(b"250-mx.example.test")
        assert each.ask(b"MAIL FROM:<a@example.test>") == b"250 2.1.0 Ok\r\n"
        assert each.ask(b"RCPT TO:<b@example.test>").startswith(b"450 4.3.2")
        assert each.ask(b"QUIT") == b"221 2.0.0 Bye\r\n"
        each.socket.close()
    wait_until(lambda: not former & set(screener.workers()), "the former processes to end")
    assert all("no TLS process is ready" in line for line in screener.lines("warning"))


def test_metrics_can_be_asked_for_later(start: Start, folder: Path) -> None:
    """The former control server leaves its path to the next one."""
    path = folder / "run" / "metrics"
    screener = start({"metrics": {"listen": f"unix:{path}"}})
    wait_until(lambda: there(str(path)), "metrics")
    former = set(screener.workers())
    restart(screener)
    wait_until(lambda: not former & set(screener.workers()), "the former processes to end")
    assert path.exists()
    wait_until(lambda: there(str(path)), "metrics")


# ---- what must not happen

BROKEN = {
    "syntax": '[greet]\nwait = "soon"\n',
    "table": '[access]\nlist = ["cidr:/nonexistent/table"]\n',
    "address": '[listen]\naddresses = ["192.0.2.1:25"]\n',
    "user": 'user = "root"\n',
    "certificates": '[tls]\nlevel = "may"\ncertificates = ["/nonexistent/key.pem"]\n',
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_configuration(start: Start, folder: Path, mta: FakeMta, what: str) -> None:
    """The running daemon goes on, says why, and shows it until a restart or a reload succeeds."""
    settings = merge(KNOWN, TWO, {"control": {"path": str(folder / "control")}})
    screener = start(settings)
    workers = screener.workers()
    text = screener.config.read_text()
    screener.config.write_text(text if what == "table" else BROKEN[what])
    if what == "table":
        screener.configure(merge(settings, {"access": {"list": ["cidr:/nonexistent/table"]}}))
    restart(screener, REFUSED)
    assert workers[0] in screener.workers()
    serves(screener, "127.7.0.1")
    assert [one["kind"] for one in conditions(screener)] == ["config"]
    screener.configure(settings)
    restart(screener)
    serves(screener, "127.7.0.2")
    wait_until(lambda: conditions(screener) == [], "the condition to end")


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("raise RuntimeError('a broken upgrade')", "the new program does not start; its output has the reason"),
        ("import os; os._exit(3)", "the new program does not start; its output has the reason"),
        ("from fastscreen.daemon import takeover; takeover.FORMAT = 99", "stop and start fastscreen"),
    ],
)
def test_a_broken_upgrade(
    start: Start, alter_program: Alter, folder: Path, mta: FakeMta, statement: str, why: str
) -> None:
    alter_program(f"import os\nif os.path.exists('{folder}/broken'):\n    {statement}")
    screener = start(KNOWN, TWO)
    (folder / "broken").touch()
    assert why in restart(screener, REFUSED)
    serves(screener, "127.7.0.1")
    (folder / "broken").unlink()
    restart(screener)
    serves(screener, "127.7.0.2")
    screener.output.write_text("")


def test_packages_that_the_new_configuration_needs(
    start: Start, alter_program: Alter, folder: Path, mta: FakeMta
) -> None:
    """Without them, the new program could not start: it is refused while the old one still serves."""
    alter_program("sys.modules['hiredis'] = None")
    screener = start(KNOWN, TWO)
    (folder / "secret").write_text("the secret of these hosts\n")
    cluster = {"server": "redis://127.0.0.1:1", "secret_file": str(folder / "secret")}
    screener.configure(merge(KNOWN, TWO, {"cluster": cluster}))
    assert "pip install 'fastscreen[cluster]'" in restart(screener, REFUSED)
    serves(screener, "127.7.0.1")


def test_a_configuration_that_breaks_at_the_last_moment(
    start: Start, alter_program: Alter, folder: Path, mta: FakeMta
) -> None:
    """After the trial: the new program goes on with the settings that were in force."""
    alter_program(
        "import os\n"
        "from pathlib import Path\n"
        "if 'FASTSCREEN_HANDOVER' in os.environ and 'FASTSCREEN_HANDOVER_TRIAL' not in os.environ:\n"
        f"    Path('{folder}/screener.toml').write_text('[gr')\n"
    )
    folder.chmod(0o777)
    screener = start(KNOWN, TWO)
    screener.config.chmod(0o666)
    restart(screener)
    screener.line("warning: configuration not taken over: .*screener.toml")
    serves(screener, "127.7.0.1")


@pytest.mark.parametrize("kind", ["missing", "fifo"])
@pytest.mark.parametrize("stopped", [False, True])
def test_a_table_that_breaks_at_the_last_moment(
    start: Start, alter_program: Alter, folder: Path, mta: FakeMta, kind: str, stopped: bool
) -> None:
    """After the trial: the former workers serve until it can be read; a stop meanwhile is a stop, a reload is kept."""
    table = folder / "table"
    table.write_text("127.7.0.0/16 permit\n")
    spoil = "os.mkfifo(table)" if kind == "fifo" else "None"
    alter_program(
        "import os\n"
        "from fastscreen.daemon import worker_settings\n"
        "worker_settings.READ_SECONDS = 1.0\n"
        f"table = {str(table)!r}\n"
        "if 'FASTSCREEN_HANDOVER' in os.environ and 'FASTSCREEN_HANDOVER_TRIAL' not in os.environ:\n"
        f"    os.rename(table, table + '.aside'); {spoil}\n"
    )
    folder.chmod(0o777)
    screener = start(KNOWN, TWO, {"access": {"list": [f"cidr:{table}"]}})
    screener.signal(signal.SIGUSR2)
    screener.line("warning: restart not finished: .*the former processes serve")
    serves(screener, "127.7.0.1")
    if stopped:
        screener.signal(signal.SIGTERM)
        assert screener.wait() == 0
        screener.line("daemon stopped")
        return
    screener.signal(signal.SIGHUP)
    Path(f"{table}.aside").replace(table)
    screener.line(" daemon restarted -- ", 1, 3 * TIMEOUT)
    screener.line(" configuration reloaded", 1, 3 * TIMEOUT)
    serves(screener, "127.7.0.2")


def test_workers_that_cannot_start_after_all(start: Start, alter_program: Alter, folder: Path, mta: FakeMta) -> None:
    """Those before go on serving until their successors do."""
    alter_program(
        "import os\n"
        "from fastscreen.daemon import worker\n"
        "serve = worker.Worker.start\n"
        "async def failing(self):\n"
        f"    if os.path.exists('{folder}/fail'): raise OSError(5, 'injected')\n"
        "    return await serve(self)\n"
        "worker.Worker.start = failing\n"
    )
    screener = start(KNOWN, TWO)
    screener.may_lose_workers = True
    (folder / "fail").touch()
    screener.signal(signal.SIGUSR2)
    screener.line("worker 1 cannot start: injected")
    screener.line("worker 2 cannot start: injected")
    for number in range(1, 21):
        serves(screener, f"127.7.0.{number}")
    (folder / "fail").unlink()
    screener.line(" daemon restarted -- ", 1, 3 * TIMEOUT)
    wait_until(lambda: len(screener.workers()) == 2, "the former workers to end")
    serves(screener, "127.7.0.1")


def test_the_command_reports_the_new_daemon_or_the_refusal(start: Start, folder: Path, mta: FakeMta) -> None:
    path = folder / "run" / "control"
    screener = start(KNOWN, {"control": {"path": str(path)}})

    def command(*words: str) -> "subprocess.CompletedProcess[str]":
        program = [str(COMMAND), "restart", "--socket", str(path), *words]
        return subprocess.run(program, capture_output=True, text=True, timeout=120, check=False)

    wait_until(path.exists, "the control socket")
    good = screener.config.read_text()
    screener.config.write_text(good + "\n[dnsbl2]\ntreshold = 3\n")
    refused = command()
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "restart refused: " in refused.stderr
    assert "dnsbl2" in refused.stderr
    screener.config.write_text(good)
    done = command("--json")
    assert done.returncode == 0, done.stderr
    assert f"process {screener.pid}" in json.loads(done.stdout)["text"]
    assert len(screener.lines(" daemon restarted -- ")) == 1


# ---- what changes


def test_what_a_restart_takes_over_and_what_not(start: Start, folder: Path, mta: FakeMta) -> None:
    """Another address, banner, control socket and cache; the number of workers stays."""
    first, second = free_port(ADDRESS), free_port("127.9.0.2")
    settings = {"listen": {"addresses": [f"{ADDRESS}:{first}"], "workers": 2}, "control": {"path": str(folder / "one")}}
    screener = start(KNOWN, settings)
    other = {
        "listen": {"addresses": [f"127.9.0.2:{second}"], "workers": 3},
        "control": {"path": str(folder / "control")},
        "cache": {"path": str(folder / "cache")},
        "greet": {"banner": "new"},
    }
    screener.configure(merge(KNOWN, other))
    restart(screener)
    screener.line("warning: listen.workers changed: 2 workers stay")
    wait_until(lambda: len(screener.workers()) == 3, "the former processes to end")  # with the control server
    with Client(("127.9.0.2", second), "127.1.0.1") as client:
        assert client.socket.recv(9) == b"220-new\r\n"
    with pytest.raises(ConnectionRefusedError):
        screener.connect("127.7.0.1")
    assert conditions(screener) == []
    assert not (folder / "one").exists()
    assert (folder / "cache").exists()


def test_a_bypass_goes_on(start: Start, folder: Path, mta: FakeMta) -> None:
    screener = start(TWO, {"control": {"path": str(folder / "control")}})
    command = [str(COMMAND), "bypass", "on", "--socket", str(folder / "control"), "--for", "10m"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    restart(screener)
    with screener.connect("127.1.0.1") as client:
        assert client.read() == FROM_MTA


def test_a_restart_while_a_reload_waits(start: Start, folder: Path, mta: FakeMta) -> None:
    """One after the other: the reload waits for a worker that hangs, and the restart for the reload."""
    screener = start(KNOWN, TWO)
    hanging = screener.workers()[0]
    os.kill(hanging, signal.SIGSTOP)
    screener.signal(signal.SIGHUP)
    time.sleep(1.0)
    screener.signal(signal.SIGUSR2)
    time.sleep(0.5)
    assert not screener.lines("restarting")
    os.kill(hanging, signal.SIGCONT)
    screener.line(" configuration reloaded")
    screener.line(" daemon restarted -- ", 1, 3 * TIMEOUT)
    serves(screener, "127.7.0.1")


def test_a_stop_while_former_workers_finish(start: Start, mta: FakeMta) -> None:
    """Clients that only wait get a 421 from them, too."""
    screener = start({"greet": {"wait": "100s"}}, TWO)
    client = screener.connect("127.1.0.1")
    assert client.socket.recv(len(TEASER)) == TEASER
    restart(screener)
    screener.signal(signal.SIGTERM)
    assert client.read_all() == b"421 4.3.2 Service currently unavailable\r\n"
    assert screener.wait() == 0
    assert screener.output.read_text() == ""


def test_a_former_worker_that_hangs(start: Start, alter_program: Alter, mta: FakeMta) -> None:
    alter_program("from fastscreen.daemon import restart\nrestart.FORMER_WORKER_SECONDS = 1.0")
    screener = start(KNOWN, TWO)
    hanging = screener.workers()[0]
    os.kill(hanging, signal.SIGSTOP)
    restart(screener)
    screener.line(rf"warning: worker 1 \(process {hanging}, before the restart\) did not stop: killed")
    wait_until(lambda: len(screener.workers()) == 2, "its end")


# ---- without a restart in place


def test_the_control_socket_is_taken_over_when_it_is_free(
    start: Start, folder: Path, mta: FakeMta, alter: Alter
) -> None:
    """The successor starts while its predecessor waits for a busy MTA: a condition, until the name is free."""
    shared = {
        "control": {"path": str(folder / "control")},
        "metrics": {"listen": f"127.9.0.3:{free_port('127.9.0.3')}"},
    }
    first = start(KNOWN, shared)
    wait_until((folder / "control").exists, "the control socket")
    fill(mta)
    known = [first.connect(f"127.7.0.{number}") for number in range(1, 6)]
    first.line("CONNECT from", 5)
    first.signal(signal.SIGTERM)
    first.line("stopping")
    place = folder / "second"
    place.mkdir()
    second = Screener(place, merge(KNOWN, shared, {"handoff": {"to": f"pass:{folder / 'mta'}"}}))
    try:
        second.start()
        assert "no control socket until it is free" in second.line("warning: control.path: ")
        second.line("warning: metrics.listen: .*: no metrics until it is free")
        mta.accept()
        for client in known:
            assert client.read() == FROM_MTA
        assert first.wait() == 0
        second.line("control.path: .* is free now and taken over")
        second.line("metrics.listen: .* is free now and taken over")

        def well() -> bool:
            command = [str(COMMAND), "status", "--json", "--socket", str(folder / "control")]
            said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
            return said.returncode == 0 and json.loads(said.stdout)["conditions"] == []

        wait_until(well, "the second one to answer, without a condition")
        assert not (folder / "control.next").exists()
    finally:
        second.stop()
    assert not (folder / "control").exists()


class Store:
    """A service manager with a descriptor store, as far as fastscreen uses it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.kept: dict[str, int] = {}
        self._end = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._end.bind(str(path))
        path.chmod(0o666)
        self._end.settimeout(0.1)

    def hear(self) -> None:
        """Do what was ordered so far."""
        while True:
            try:
                message, descriptors, _, _ = socket.recv_fds(self._end, 4096, 4)
            except TimeoutError:
                return
            for descriptor in descriptors:
                os.set_inheritable(descriptor, False)
            fields = dict(line.partition("=")[::2] for line in message.decode().splitlines())
            if "FDSTORE" in fields:
                (self.kept[fields["FDNAME"]],) = descriptors
                continue
            for descriptor in descriptors:
                os.close(descriptor)
            if "FDSTOREREMOVE" in fields and fields["FDNAME"] in self.kept:
                os.close(self.kept.pop(fields["FDNAME"]))

    def start(self, screener: Screener) -> None:
        """Start it as the manager does, with what is kept; in another order than it came."""
        names = sorted(self.kept, reverse=True)
        descriptors = [self.kept[name] for name in names]
        before = len(screener.lines(" daemon started "))

        def pass_on() -> None:
            high = [os.dup2(descriptor, 200 + at) for at, descriptor in enumerate(descriptors)]
            for at, descriptor in enumerate(high):
                os.dup2(descriptor, 3 + at)
                os.close(descriptor)

        words = ["sh", "-c", 'LISTEN_PID=$$ exec "$@"', "sh", str(harness.COMMAND), "run", "-c", str(screener.config)]
        environment = {
            "NOTIFY_SOCKET": str(self.path),
            "LISTEN_FDS": str(len(names)),
            "LISTEN_FDNAMES": ":".join(names),
        }
        with screener.output.open("ab") as sink:
            screener.process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True, close_fds=False,
                env={**os.environ, **environment}, preexec_fn=pass_on,
            )  # fmt: skip
        screener.line(" daemon started ", before + 1)
        self.hear()

    def close(self) -> None:
        self._end.close()
        for descriptor in self.kept.values():
            os.close(descriptor)


@pytest.fixture
def store(folder: Path) -> Iterator[Store]:
    made = Store(folder / "notify")
    yield made
    made.close()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_not_even_the_end_of_the_supervisor_refuses(
    folder: Path, mta: FakeMta, store: Store, how: signal.Signals
) -> None:
    """With the descriptor store: the sockets go on listening, and the next start serves who connected meanwhile."""
    mta.start(2000)
    port = free_port(ADDRESS)
    settings = {"listen": {"addresses": [f"{ADDRESS}:{port}"], "workers": 2}, "limits": {"post_queue": 2000}}
    screener = Screener(folder, merge(KNOWN, settings, {"limits": {"client_connection_count": 0}}))
    screener.may_lose_workers = True

    def direct(source: str) -> str:
        with Client((ADDRESS, port), source) as client:
            return client.read().decode()

    try:
        store.start(screener)
        screener.address = (ADDRESS, port)
        assert sorted(store.kept) == [f"fastscreen {ADDRESS} {port} {number}" for number in (0, 1)]
        outcomes: Outcomes = collections.Counter()
        with load(direct, [f"127.7.0.{number}" for number in range(1, 101)], outcomes):
            time.sleep(0.3)
            for _ in range(2):
                screener.signal(how)
                screener.wait()
                time.sleep(0.3)
                store.start(screener)
                time.sleep(0.3)
        served = outcomes.pop(FROM_MTA.decode(), 0)
        assert outcomes == {}
        assert served > 50
        assert screener.output.read_text() == ""
    finally:
        screener.stop()


def test_a_crash_right_after_the_program_was_replaced(
    folder: Path, mta: FakeMta, store: Store, alter_program: Alter
) -> None:
    """Nobody is above the former workers any more: they finish, and the next start has the sockets from the store."""
    alter_program(
        "import os\n"
        "if 'FASTSCREEN_HANDOVER' in os.environ and 'FASTSCREEN_HANDOVER_TRIAL' not in os.environ:\n"
        "    os._exit(1)\n"
    )
    port = free_port(ADDRESS)
    screener = Screener(folder, merge(KNOWN, {"listen": {"addresses": [f"{ADDRESS}:{port}"], "workers": 2}}))
    screener.may_lose_workers = True
    try:
        store.start(screener)
        screener.address = (ADDRESS, port)
        waiting = screener.connect("127.1.0.1")
        assert waiting.socket.recv(len(TEASER)) == TEASER
        screener.signal(signal.SIGUSR2)
        assert screener.wait(3 * TIMEOUT) == 1
        screener.line("the supervisor has ended: stopping", 2)
        later = screener.connect("127.7.0.1")
        store.start(screener)
        assert waiting.read() == FROM_MTA
        assert later.read() == FROM_MTA
    finally:
        screener.stop()


def test_the_store_forgets_what_is_not_wanted(folder: Path, mta: FakeMta, store: Store) -> None:
    """Another address by a reload, another number of workers by a start."""
    first, second = free_port(ADDRESS), free_port("127.9.0.2")
    one = {"listen": {"addresses": [f"{ADDRESS}:{first}"], "workers": 2}}
    other = {"listen": {"addresses": [f"127.9.0.2:{second}"], "workers": 2}}
    screener = Screener(folder, merge(KNOWN, one))
    try:
        store.start(screener)
        screener.reload(merge(KNOWN, other))
        store.hear()
        names = [f"fastscreen 127.9.0.2 {second} {number}" for number in (0, 1)]
        assert sorted(store.kept) == names
        screener.configure(merge(KNOWN, other, {"listen": {"workers": 1}}))
        screener.signal(signal.SIGTERM)
        assert screener.wait() == 0
        listening = threading.Thread(target=_hear_for, args=(store, 5.0))
        listening.start()
        store.start(screener)
        listening.join()
        assert sorted(store.kept) == names[:1]
        serves_at(("127.9.0.2", second))
    finally:
        screener.stop()


def _hear_for(store: Store, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        store.hear()


def serves_at(address: tuple[str, int]) -> None:
    with Client(address, "127.7.0.1") as client:
        assert client.read() == FROM_MTA
