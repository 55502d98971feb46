"""What a worker says about the settings that it gives to the recorder."""

from types import SimpleNamespace

import pytest

from fastscreen import config
from fastscreen.daemon.worker import Worker
from fastscreen.history.settings import MAX_SIZE


@pytest.mark.parametrize(("number", "size", "warns"), [(0, MAX_SIZE, 0), (0, MAX_SIZE + 1, 1), (1, MAX_SIZE + 1, 0)])
def test_settings_without_room_are_reported_once(number: int, size: int, warns: int) -> None:
    lines: list[str] = []
    used: list[bytes] = []
    worker = SimpleNamespace(
        _args=SimpleNamespace(history=memoryview(b""), number=number),
        _log=SimpleNamespace(warning=lines.append),
        _screener=SimpleNamespace(use_history=lambda memory, number, known, description: used.append(description)),
    )
    built = SimpleNamespace(description=bytes(size))
    Worker._use_history(worker, built, config.default())  # type: ignore[arg-type]
    assert used == [built.description] and len(lines) == warns
    assert all(f"{size} bytes, more than {MAX_SIZE}" in line for line in lines)
