"""No process loads a large library that it does not use."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from robust.conftest import Alter
from robust.harness import Screener, wait_until
from robust.tlsclient import certificates

HEAVY = {
    "aiodns", "aiosmtpd", "asyncio", "fastscreen.core", "jinja2", "lmdb", "msgpack", "prometheus_client", "pycares",
    "pygal", "regex", "rich", "shtab", "ssl", "textual", "uvloop",
}  # fmt: skip
"""Each costs some megabytes, or some tens of milliseconds."""

COMMANDS = {
    "--help": set[str](),
    "--version": set(),
    "status": {"asyncio", "fastscreen.core", "ssl"},
    "explain": {"asyncio", "fastscreen.core", "ssl"},
    "events": {"asyncio", "fastscreen.core", "ssl"},
    "bypass": {"asyncio", "fastscreen.core", "ssl"},
    "reload": {"asyncio", "fastscreen.core", "ssl"},
    "tui": {"asyncio", "fastscreen.core", "ssl"},
}
"""What a command may load until it has found its socket. asyncio brings ssl along; the core has the table of tests, and
takes 20 ms."""

DAEMON = {"aiodns", "asyncio", "fastscreen.core", "lmdb", "pycares", "ssl", "uvloop"}
"""Of the supervisor; its children share it."""

NO_PATTERNS = {"engine": {"forbidden_commands": ["CONNECT", "GET", "POST"]}}
"""The default has a regular expression, which needs the library regex."""

LIST = f"print(__import__('json').dumps(sorted({sorted(HEAVY)!r} & __import__('sys').modules.keys())))"

AT_THE_END = f"""
import json, os, pathlib
from fastscreen import __main__
def end(code, real=os._exit):
    name = pathlib.Path("/proc/self/comm").read_text().strip()
    if not name.startswith("fastscreen-"):
        name = "worker"
    seen = sorted(set({sorted(HEAVY)!r}) & sys.modules.keys())
    pathlib.Path(FOLDER, f"modules.{{name}}").write_text(json.dumps(seen))
    real(code)
os._exit = end
"""


@pytest.mark.parametrize("command", COMMANDS)
def test_commands(command: str, tmp_path: Path) -> None:
    words = {"explain": ["explain", "192.0.2.1"], "bypass": ["bypass", "off"]}.get(command, [command])
    if not command.startswith("-"):
        words += ["--socket", str(tmp_path / "none")]
    program = f"from fastscreen.cli import main\ntry:\n    main({words!r})\nfinally:\n    {LIST}\n"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert set(json.loads(done.stdout.splitlines()[-1])) <= COMMANDS[command]


def loaded(folder: Path, alter: Alter, settings: dict[str, object]) -> dict[str, set[str]]:
    """By process: what it had loaded when it ended."""
    (folder / "seen").mkdir()
    (folder / "seen").chmod(0o777)
    alter(AT_THE_END.replace("FOLDER", repr(str(folder / "seen"))))
    screener = Screener(folder, settings)
    screener.start()
    try:
        wait_until(lambda: len(screener.workers()) >= 2, "all processes")
        screener.line("daemon started")
    finally:
        screener.stop()
    return {each.suffix[1:]: set(json.loads(each.read_text())) for each in (folder / "seen").iterdir()}


def test_daemon(folder: Path, alter: Alter) -> None:
    """Worker, control server, TLS process; the supervisor had no more than they have."""
    settings = {
        **NO_PATTERNS,
        "cache": {"path": str(folder / "cache")},
        "control": {"path": str(folder / "control")},
        "tls": {"level": "may", "certificates": certificates(folder)},
        "handoff": {"to": f"pass:{folder}/mta"},
    }
    found = loaded(folder, alter, settings)
    assert {"worker", "fastscreen-ctl", "fastscreen-tls"} <= found.keys()
    assert {name: heavy - DAEMON for name, heavy in found.items() if heavy - DAEMON} == {}


def test_what_a_configuration_needs_is_there(folder: Path, alter: Alter) -> None:
    settings = {
        "control": {"path": str(folder / "control")},
        "metrics": {"listen": f"unix:{folder}/metrics"},
        "access": {"list": ["regexp:{{/^192/ permit}}"]},
        "handoff": {"to": "sink:"},
    }
    found = loaded(folder, alter, settings)
    assert found["fastscreen-ctl"] - DAEMON == {"aiosmtpd", "prometheus_client", "regex"}
