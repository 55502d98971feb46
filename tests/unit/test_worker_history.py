"""What a worker says about the settings that it gives to the recorder."""

from types import SimpleNamespace

import pytest

from fastscreen import config
from fastscreen.daemon.worker import Worker
from fastscreen.history.settings import MAX_SIZE


@pytest.mark.parametrize(("number", "size", "warns"), [(0, MAX_SIZE, 0), (0, MAX_SIZE + 1, 1), (1, MAX_SIZE + 1, 0)])
def test_settings_without_room_are_reported_once(number: int, size: int, warns: int) -> None:
    lines: list[str] = []
    used: list[tuple[bytes, bool]] = []
    worker = SimpleNamespace(
        _args=SimpleNamespace(history=memoryview(b""), number=number),
        _log=SimpleNamespace(warning=lines.append),
        _screener=SimpleNamespace(
            use_history=lambda _memory, _number, _known, text, fingerprints: used.append((text, fingerprints))
        ),
    )
    built = SimpleNamespace(description=bytes(size))
    for text in ('[history]\npath = "/var/lib/history"', ""):
        Worker._use_history(worker, built, config.parse(text, "fastscreen.toml"))  # type: ignore[arg-type]
    assert used == [(built.description, True), (built.description, False)] and len(lines) == 2 * warns
    assert all(f"{size} bytes, more than {MAX_SIZE}" in line for line in lines)
