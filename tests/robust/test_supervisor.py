"""Faults in the supervisor: it handles all children concurrently, and survives malformed messages."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.ports import free_port
from robust import harness
from robust.conftest import Alter, Start
from robust.fakemta import GREETING as FROM_MTA
from robust.fakemta import FakeMta
from robust.harness import ADDRESS, TIMEOUT, Screener, merge, wait_until
from robust.test_workers import KNOWN, TWO, address_of
from robust.tlsclient import certificates

WITHOUT_IPV6 = """
import errno, os, socket
class Without(socket.socket):
    def __init__(self, family=-1, *more, **fields):
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
        super().__init__(family, *more, **fields)
socket.socket = Without
"""
SIGNALS_IGNORED = [signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF, signal.SIGIO, signal.SIGPWR, signal.SIGRTMIN + 3]


def serves(screener: Screener, source: str) -> None:
    with screener.connect(source) as client:
        assert client.read() == FROM_MTA


def served_by_all(screener: Screener, sources: list[str]) -> None:
    for source in sources:
        serves(screener, source)


def test_a_death_while_another_hangs_and_a_reload_waits(start: Start, mta: FakeMta) -> None:
    """The reload waits up to 30 s for the worker that hangs; the one that died is replaced long before."""
    screener = start(KNOWN, TWO)
    screener.may_lose_workers = True
    hanging, victim = screener.workers()
    source = address_of(screener, victim)
    os.kill(hanging, signal.SIGSTOP)
    try:
        screener.signal(signal.SIGHUP)
        # the child that reads the configuration has come and gone, and the worker that runs has taken it over
        time.sleep(1.0)
        os.kill(victim, signal.SIGKILL)
        screener.line("worker 2 is process .* now")
        serves(screener, source)
        assert not screener.lines("configuration reloaded|no answer")
    finally:
        os.kill(hanging, signal.SIGCONT)
    screener.line(" configuration reloaded")


def test_a_death_while_a_configuration_is_read(start: Start, folder: Path, mta: FakeMta) -> None:
    screener = start(KNOWN, TWO)
    screener.may_lose_workers = True
    victim = screener.workers()[0]
    source = address_of(screener, victim)
    os.mkfifo(folder / "pipe")
    (folder / "pipe").chmod(0o666)
    screener.configure(merge(KNOWN, TWO, {"access": {"list": [f"cidr:{folder / 'pipe'}"]}}))
    screener.signal(signal.SIGHUP)
    time.sleep(0.5)
    os.kill(victim, signal.SIGKILL)
    screener.line("worker 1 is process .* now")
    serves(screener, source)
    assert not screener.lines("not taken over")


def test_four_deaths_while_starts_take_long(start: Start, alter: Alter, mta: FakeMta) -> None:
    """All successors start at a time, each of which takes 3 s here: not one after the other."""
    alter(
        "import os, time\n"
        "from fastscreen.daemon import worker\n"
        "serve, parent = worker.Worker.start, os.getpid()\n"
        "async def slowly(self):\n"
        "    if os.path.exists(os.environ['SLOW']): time.sleep(3)\n"
        "    return await serve(self)\n"
        "worker.Worker.start = slowly\n"
    )
    flag = mta.path.with_name("slow")
    os.environ["SLOW"] = str(flag)
    try:
        screener = start(KNOWN, {"listen": {"addresses": [f"{ADDRESS}:0"], "workers": 4}})
    finally:
        del os.environ["SLOW"]
    screener.may_lose_workers = True
    sources = [address_of(screener, pid) for pid in screener.workers()]
    flag.touch()
    for pid in screener.workers():
        os.kill(pid, signal.SIGKILL)
    screener.line("was killed by SIGKILL", 4)
    wait_until(lambda: len(screener.workers()) == 4, "four successors")
    assert not screener.lines("worker . is process")  # none has to serve before the next one starts
    served_by_all(screener, sources)


def test_sigterm_while_a_successor_does_not_start(start: Start, alter: Alter, folder: Path, mta: FakeMta) -> None:
    alter(
        "import os, time\n"
        "from fastscreen.daemon import worker\n"
        "serve = worker.Worker.start\n"
        "async def hanging(self):\n"
        f"    if os.path.exists('{folder}/hang'): time.sleep(1000)\n"
        "    return await serve(self)\n"
        "worker.Worker.start = hanging\n"
    )
    screener = start(KNOWN)
    screener.may_lose_workers = True
    (folder / "hang").touch()
    os.kill(screener.workers()[0], signal.SIGKILL)
    screener.line("was killed by SIGKILL")
    screener.signal(signal.SIGTERM)
    screener.line("stopping")
    screener.signal(signal.SIGTERM)
    assert screener.wait() == 0


# ---- what children send

MALFORMED = {
    "garbage": "end.send(b'\\xc1 no report')",
    "another type": "end.send(b'\\x81\\xa4type\\xa5ready\\xa4type')",
    "too long": "end.send(bytes(20000))",
    "descriptors": "socket.send_fds(end, [b'\\x81\\xa4type\\xa5ready'], [0, 1, 2])",
    "many descriptors": "socket.send_fds(end, [b'\\x81\\xa4type\\xa5ready'], [0] * 200)",
    "not expected": "[end.send(b'\\x81\\xa4type\\xa5ready') for _ in range(50)]",
}


@pytest.mark.parametrize("packet", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_report(start: Start, alter: Alter, folder: Path, mta: FakeMta, packet: str) -> None:
    """The worker that sent it is replaced, with one line; the supervisor loses nothing."""
    alter(
        "import os, socket\n"
        "from fastscreen.daemon import worker\n"
        "tick = worker.Worker._tick\n"
        "async def odd(self):\n"
        f"    if self._args.number == 0 and os.path.exists('{folder}/now'):\n"
        f"        os.unlink('{folder}/now')\n"
        "        end = self._args.channel\n"
        f"        {packet}\n"
        "    await tick(self)\n"
        "worker.Worker._tick = odd\n"
    )
    folder.chmod(0o777)
    screener = start(KNOWN, TWO)
    screener.may_lose_workers = True
    sources = [address_of(screener, pid) for pid in screener.workers()]
    descriptors = len(list(Path(f"/proc/{screener.pid}/fd").iterdir()))
    (folder / "now").touch()
    first = screener.workers()[0]
    os.kill(first, signal.SIGKILL)
    screener.line(r"warning: worker 1 \(process \d+\) sent .*: killed$")
    screener.line("worker 1 is process .* now")
    wait_until(lambda: len(screener.lines("worker 1 .* was killed by SIGKILL")) == 2, "its end")
    served_by_all(screener, sources)
    screener.reload()
    assert len(list(Path(f"/proc/{screener.pid}/fd").iterdir())) == descriptors
    assert len(screener.lines("sent .*: killed")) == 1


def test_a_worker_that_closes_its_channel(start: Start, alter: Alter, folder: Path, mta: FakeMta) -> None:
    """It cannot be given orders any more: it is replaced within seconds."""
    alter(
        "import asyncio, os\n"
        "from fastscreen.daemon import worker\nfrom fastscreen.process import child\n"
        "child.END_SECONDS = 0.5\n"
        "tick = worker.Worker._tick\n"
        "async def odd(self):\n"
        f"    if os.path.exists('{folder}/now'):\n"
        f"        os.unlink('{folder}/now')\n"
        "        asyncio.get_running_loop().remove_reader(self._args.channel.fileno())\n"
        "        self._args.channel.close()\n"
        "    await tick(self)\n"
        "worker.Worker._tick = odd\n"
    )
    folder.chmod(0o777)
    screener = start(KNOWN)
    screener.may_lose_workers = True
    (folder / "now").touch()
    os.kill(screener.workers()[0], signal.SIGKILL)
    screener.line("worker 1 .* was killed by SIGKILL: it is started again", 2)
    screener.line("worker 1 is process .* now", 2)
    serves(screener, "127.7.0.1")


# ---- failures of the supervisor


def test_an_unexpected_exception_is_no_end(start: Start, alter: Alter, folder: Path, mta: FakeMta) -> None:
    """One part of the loop fails at every turn: it is logged once, the rest works, and the CPU stays idle."""
    alter(
        "import os\n"
        "from fastscreen.daemon import children\n"
        "look = children.Children.check_heartbeats\n"
        "def odd(self, now):\n"
        f"    if os.path.exists('{folder}/now'): raise RuntimeError('injected')\n"
        "    look(self, now)\n"
        "children.Children.check_heartbeats = odd\n"
        "children.HEARTBEAT_SECONDS = 0.01\n"
    )
    screener = start(KNOWN, TWO)
    screener.may_lose_workers = True
    (folder / "now").touch()
    line = screener.line("internal error in checking heartbeats: RuntimeError: injected")
    assert re.search(r"\(\w+, line \d+\); the supervisor goes on$", line)

    def cpu() -> float:
        fields = Path(f"/proc/{screener.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    before = cpu()
    for number, pid in enumerate(screener.workers(), 1):
        os.kill(pid, signal.SIGKILL)
        screener.line("worker . is process .* now", number)
    time.sleep(3.0)
    assert cpu() - before < 2.0
    assert len(screener.lines("internal error")) == 1
    (folder / "now").unlink()
    screener.reload()
    serves(screener, "127.7.0.1")


FAILING: dict[str, Callable[[dict[str, object]], str]] = {
    "memory": lambda _: (
        "import errno\nfrom fastscreen.process import ipc\n"
        "def full(*_): raise OSError(errno.ENOSPC, 'No space left on device')\n"
        "ipc.os.memfd_create = full\n"
    ),
    "fork": lambda _: (
        "import errno\nfrom fastscreen.daemon import worker_settings\n"
        "def none(*_): raise OSError(errno.EAGAIN, 'Resource temporarily unavailable')\n"
        "worker_settings.run_in_child = none\n"
    ),
    "anything": lambda _: (
        "from fastscreen.daemon import reload\ndef odd(*_): raise KeyError('injected')\n"
        "reload.with_what_is_fixed = odd\n"
    ),
    "setsockopt": lambda _: (
        "import errno\nfrom fastscreen.daemon import reload\n"
        "def odd(*_): raise OSError(errno.ENOPROTOOPT, 'Protocol not available')\n"
        "reload.choose_freely = odd\n"
    ),
}


@pytest.mark.parametrize("what", FAILING)
def test_a_reload_that_raises(start: Start, alter: Alter, folder: Path, mta: FakeMta, what: str) -> None:
    """The configuration before stays whole, what was opened is closed, and the next good reload ends the condition."""
    alter(
        "import os\n"
        "from fastscreen.daemon import supervisor\n"
        "reload_, done = supervisor.Supervisor._reload, []\n"
        "def odd(self):\n"
        f"    if os.path.exists('{folder}/now'):\n"
        + "".join(f"        {line}\n" for line in FAILING[what]({}).splitlines())
        + "    return reload_(self)\n"
        "supervisor.Supervisor._reload = odd\n"
    )
    first = f"{ADDRESS}:{free_port(ADDRESS)}"
    added = f"127.9.0.2:{free_port('127.9.0.2')}"
    port = {"listen": {"addresses": [first], "workers": 2}, "control": {"path": str(folder / "control")}}
    screener = start(KNOWN, port)
    before = sockets(screener.pid)
    (folder / "now").touch()
    balanced = {
        "listen": {"addresses": [added], "workers": 2, "proxy": [{"addresses": [first], "trusted": ["127.0.0.0/8"]}]}
    }
    line = screener.reload(
        merge(KNOWN, port, balanced, {"banner": "new"}), expected="warning: configuration not taken over"
    )
    assert "daemon" not in line
    serves(screener, "127.7.0.1")
    with screener.connect("127.1.0.1") as client:
        assert client.socket.recv(4) == b"220-"
        assert b"new" not in client.read()
    assert sockets(screener.pid) == before
    assert [one["kind"] for one in conditions(screener)] == ["config"]
    assert "configuration not taken over" in str(conditions(screener)[0]["text"])


def sockets(pid: int) -> int:
    """How many Internet sockets that listen the process has."""
    listed = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
    listening = {f"socket:[{line.split()[9]}]" for line in listed if line.split()[3] == "0A"}
    own = [str(descriptor.readlink()) for descriptor in Path(f"/proc/{pid}/fd").iterdir()]
    return sum(one in listening for one in own)


def conditions(screener: Screener) -> list[dict[str, object]]:
    """What holds, as `fastscreen status --json` says it."""
    command = [
        str(harness.COMMAND),
        "status",
        "--json",
        "--socket",
        str(screener.folder / "control"),
    ]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    found = json.loads(said.stdout)["conditions"]
    assert isinstance(found, list)
    return found


def test_a_refused_reload_is_a_condition_until_the_next_good_one(start: Start, folder: Path, mta: FakeMta) -> None:
    screener = start(KNOWN, {"control": {"path": str(folder / "control")}})
    screener.config.write_text("[gr")
    screener.reload(expected="warning: configuration not taken over: ")
    assert [one["kind"] for one in conditions(screener)] == ["config"]
    screener.reload(merge(KNOWN, {"control": {"path": str(folder / "control")}}))
    assert conditions(screener) == []


def test_a_worker_that_dies_again_and_again_is_a_condition(
    start: Start, alter: Alter, folder: Path, mta: FakeMta
) -> None:
    """It ends when the worker has lived for a while."""
    alter("from fastscreen.daemon import children\nchildren.SHORT_LIFE_SECONDS = 4.0")
    screener = start(KNOWN, TWO, {"control": {"path": str(folder / "control")}})
    screener.may_lose_workers = True
    victim = screener.workers()[0]
    for death in (1, 2):
        os.kill(victim, signal.SIGKILL)
        screener.line("worker 1 .* was killed", death)
        assert [one["kind"] for one in conditions(screener)] == ([] if death == 1 else ["worker"])
        victim = int(screener.line("worker 1 is process .* now", death).rpartition(" is process ")[2].split()[0])
    wait_until(lambda: conditions(screener) == [], "the condition to end")


def test_tls_that_cannot_start_again_is_a_condition(start: Start, alter: Alter, folder: Path, mta: FakeMta) -> None:
    """Mail goes on without it, and it is tried until it works."""
    alter(
        "import os\n"
        "from fastscreen.daemon import children\n"
        "from fastscreen.tls import process\n"
        "children.SHORT_LIFE_SECONDS = 1.0\n"
        "prepared = process.prepared\n"
        "def failing(*arguments):\n"
        f"    if os.path.exists('{folder}/fail'): raise process.ContextError('injected')\n"
        "    return prepared(*arguments)\n"
        "process.prepared = failing\n"
    )
    tls = {"tls": {"level": "may", "certificates": certificates(folder)}}
    screener = start(KNOWN, tls, {"control": {"path": str(folder / "control")}})
    (folder / "fail").touch()
    (pid,) = (one for one in screener.workers() if "tls" in Path(f"/proc/{one}/comm").read_text())
    os.kill(pid, signal.SIGKILL)
    screener.line("warning: tls cannot start: .*injected", 2)
    (found,) = conditions(screener)
    assert (found["kind"], "injected" in str(found["text"])) == ("tls", True)
    serves(screener, "127.7.0.1")
    (folder / "fail").unlink()
    screener.line("tls is process .* now")
    wait_until(lambda: conditions(screener) == [], "the condition to end")


# ---- signals


def test_signals_that_mean_nothing(start: Start, mta: FakeMta) -> None:
    """By default each of these signals ends a process, but they do not end any of ours."""
    screener = start(KNOWN, TWO)
    workers = screener.workers()
    for count, number in enumerate(SIGNALS_IGNORED, 1):
        os.kill(screener.pid, number)
        screener.line("warning: (SIG[A-Z]+|signal [0-9]+) is ignored", count)
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGQUIT):
        for pid in workers:
            os.kill(pid, number)
    served_by_all(screener, [f"127.7.0.{number}" for number in range(1, 20)])
    assert screener.workers() == workers


def test_sigusr1_opens_the_log_again(start: Start, mta: FakeMta) -> None:
    """And reads no configuration."""
    screener = start(KNOWN)
    screener.config.write_text("[gr")
    screener.log.rename(screener.log.with_suffix(".1"))
    screener.signal(signal.SIGUSR1)
    screener.line(" log opened again$")
    serves(screener, "127.7.0.1")
    screener.line(r"ALLOWLISTED \[127\.7\.0\.1\]")
    assert not screener.lines("configuration")


def test_sigquit_stops_at_once(start: Start, mta: FakeMta) -> None:
    screener = start({"greet": {"wait": "100s"}})
    client = screener.connect("127.1.0.1")
    client.socket.recv(4)
    screener.signal(signal.SIGQUIT)
    assert screener.wait(TIMEOUT) == 0
    screener.line("daemon stopped")


# ---- memory


def test_the_supervisor_is_the_last_that_memory_is_taken_from(start: Start, folder: Path, mta: FakeMta) -> None:
    """By oom_score_adj; as root it is below what it inherited, else at it. Processes that are started later, too."""
    screener = start(KNOWN, TWO, {"control": {"path": str(folder / "control")}})
    screener.may_lose_workers = True
    inherited = score(os.getpid())

    def check() -> None:
        own = max(-1000, inherited - 500) if may_lower() else inherited
        # at a fork it has the child's value for a moment
        wait_until(lambda: score(screener.pid) == own, lambda: f"{own}, not {score(screener.pid)}")
        children = screener.workers()
        assert len(children) == 3
        assert {score(pid) for pid in children} == {min(1000, max(inherited, 0) + 100)}

    wait_until(lambda: len(screener.workers()) == 3, "the control server")
    check()
    os.kill(screener.workers()[0], signal.SIGKILL)
    screener.line("worker 1 is process .* now")
    check()


def may_lower() -> bool:
    """Whether this process, and so a daemon that it starts, has CAP_SYS_RESOURCE; containers often take it away."""
    (line,) = re.findall(r"(?m)^CapEff:\s+(\w+)$", Path("/proc/self/status").read_text())
    return bool(int(line, 16) >> 24 & 1)


def score(pid: int) -> int:
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


# ---- addresses


def test_a_kernel_without_ipv6(start: Start, alter: Alter, folder: Path, mta: FakeMta) -> None:
    """IPv4 only, with a warning and a condition, also after a reload; `check` says it."""
    alter(WITHOUT_IPV6)
    port = free_port(ADDRESS)
    settings = merge(
        KNOWN,
        {"listen": {"addresses": [f"127.0.0.1:{port}", f"[::]:{port}"]}, "control": {"path": str(folder / "control")}},
    )
    screener = start(settings)
    screener.line(rf"warning: listen: \[::\]:{port} is omitted: the kernel does not support IPv6$")
    serves(screener, "127.7.0.1")
    assert [one["kind"] for one in conditions(screener)] == ["listen"]
    screener.reload(settings)
    serves(screener, "127.7.0.2")
    assert len(screener.lines("is omitted")) == 1
    checked = subprocess.run(
        [harness.COMMAND, "check", "-c", screener.config], capture_output=True, text=True, timeout=60, check=False
    )
    omitted = f"the kernel does not support IPv6, so [::]:{port} is omitted; only IPv4 is served\n"
    assert omitted in checked.stdout


def test_a_kernel_without_ipv6_and_no_other_address(folder: Path, alter: Alter) -> None:
    alter(WITHOUT_IPV6)
    screener = Screener(folder, {"listen": {"addresses": ["[::1]:0"]}})
    with pytest.raises(AssertionError, match=r"cannot listen on \[::1\]:0: Address family not supported by protocol"):
        screener.start()


# ---- Ctrl-C


@pytest.mark.parametrize(
    "moment", ["fastscreen.cli", "fastscreen.daemon.supervisor", "fastscreen.control.server", "exit"]
)
def test_ctrl_c_at_any_moment(tmp_path: Path, moment: str) -> None:
    """While this module is imported, or when all is over: no word, and an end that a shell shows as 130."""
    interrupt = "import os, signal; os.kill(os.getpid(), signal.SIGINT)"
    program = tmp_path / "program"
    program.write_text(
        f"import sys, atexit\nimport fastscreen.__main__\n"
        f"class Finder:\n"
        f"    def find_spec(self, name, path, target=None):\n"
        f"        if name == {moment!r}:\n"
        f"            {interrupt}\n"
        f"sys.meta_path.insert(0, Finder())\n"
        f"code = fastscreen.__main__.main()\n" + (f"{interrupt}\n" if moment == "exit" else "") + "sys.exit(code)\n"
    )
    words = ["--help"] if moment == "exit" else ["run", "-c", str(tmp_path / "missing")]
    command = [sys.executable, str(program), *(["status", "--socket", "/nonexistent"] if moment == "exit" else words)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == -signal.SIGINT
    assert "Traceback" not in ended.stderr
    assert "KeyboardInterrupt" not in ended.stderr


def test_ctrl_c_where_nothing_can_be_raised(tmp_path: Path) -> None:
    """In a finalizer Python would print a traceback, and go on as if nothing had happened."""
    program = tmp_path / "program"
    program.write_text(
        "import os, signal, sys, time\n"
        "import fastscreen.__main__\n"
        "from fastscreen import cli\n"
        "class Odd:\n"
        "    def __del__(self):\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        time.sleep(1)\n"
        "def command(*, interruptible):\n"
        "    signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "    try:\n"
        "        Odd()\n"
        "        time.sleep(50)\n"
        "    except KeyboardInterrupt:\n"
        "        return 130\n"
        "    return 0\n"
        "cli.main = command\n"
        "sys.exit(fastscreen.__main__.main())\n"
    )
    ended = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (130, "")


def test_ctrl_c_twice_leaves_no_folder_of_the_demo(folder: Path) -> None:
    """The second one comes while the first one is obeyed."""
    command = [sys.executable, "-m", "fastscreen", "demo", "--headless", "--seconds", "60"]
    environment = {**os.environ, "TMPDIR": str(folder)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as demo:
        try:
            wait_until(lambda: any(folder.iterdir()), "its folder")
            demo.send_signal(signal.SIGINT)
            end = time.monotonic() + TIMEOUT
            while demo.poll() is None and time.monotonic() < end:
                demo.send_signal(signal.SIGINT)
                time.sleep(0.05)
            said = demo.stdout.read() if demo.stdout is not None else b""
        finally:
            demo.kill()
    assert b"Traceback" not in said
    assert demo.returncode in (130, -signal.SIGINT)
    wait_until(lambda: not list(folder.iterdir()), lambda: f"an empty folder: {list(folder.iterdir())}")
