"""`python -m peers.apart` for moments instead of minutes."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from peers import apart, needs


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="fastscreen-apart-"))  # pytest's own are closed to the hosts' user
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def test_both_sides_converge(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Deletions on both sides and a restart of the host that is cut off, which the partition of
    test_cluster_hosts.py does not have."""
    needs.root("namespaces of the hosts")
    apart.run(folder, 0.4, 10.0, 3)
    assert "PASS OLD at each host" in capsys.readouterr().out
