"""Fixtures: a fastscreen daemon, an MTA and a name server for each test."""

import fcntl
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from robust import harness
from robust.fakedns import FakeDns
from robust.fakemta import FakeMta, folder_for
from robust.harness import USER, Screener, merge

Start = Callable[..., Screener]
_OTHER_USER = "games"  # Debian has it on every machine, and nothing runs as it


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the screener's user can reach and write to (pytest's own are closed to others)."""
    made = Path(tempfile.mkdtemp(prefix="fastscreen-robust-"))
    folder_for(USER, made)
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def alone(folder: Path) -> Iterator[dict[str, object]]:
    """Settings for a user that no other test's screener has meanwhile, for a test that limits descriptors.

    The kernel holds all descriptors that a user's processes have passed, and that nobody has taken yet, against the
    limit of the one that passes another (unix(7), ETOOMANYREFS): those of tests that run at the same time count.
    """
    if not USER:
        yield {}
        return
    with (Path(tempfile.gettempdir()) / f"fastscreen-robust-{_OTHER_USER}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder_for(_OTHER_USER, folder)
        yield {"user": _OTHER_USER}


@pytest.fixture
def mta(folder: Path) -> Iterator[FakeMta]:
    """An MTA that is there and takes clients."""
    made = FakeMta(folder / "mta")
    made.start()
    yield made
    made.close()


@pytest.fixture
def dns() -> Iterator[FakeDns]:
    made = FakeDns()
    yield made
    made.close()


@pytest.fixture
def start(folder: Path, mta: FakeMta) -> Iterator[Start]:
    """Start a screener; settings are merged from left to right. At the end of the test it must stop cleanly."""
    started: list[Screener] = []

    def begin(*settings: dict[str, object], descriptors: int = 0) -> Screener:
        screener = Screener(folder, merge(*settings), descriptors=descriptors)
        started.append(screener)
        return screener.start()

    yield begin
    for screener in started:
        screener.stop()


Alter = Callable[[str], None]


@pytest.fixture
def alter(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Alter:
    """Have the screeners of this test run a statement or more first: what is long for them would be longer for us."""

    def first(statements: str) -> None:
        program = folder / "altered"
        program.write_text(
            f"#!{sys.executable}\nimport sys\nfrom fastscreen.cli import main\n{statements}\nsys.exit(main())\n"
        )
        program.chmod(0o755)
        monkeypatch.setattr(harness, "COMMAND", program)

    return first


@pytest.fixture
def impatient(alter: Alter) -> None:
    """Screeners of this test take a loop that stands still for 3 s for one that hangs (else it is a minute)."""
    alter(
        "from fastscreen.daemon import children\nfrom fastscreen.process import child\n"
        "child.TICK, children.HEARTBEAT_SECONDS = 0.1, 0.5"
    )
