"""Imports go downward only: the contracts of [tool.importlinter] in pyproject.toml, and that they notice violations."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINTER = "from importlinter.cli import lint_imports_command; lint_imports_command()"


def lint(root: Path) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", LINTER, "--no-cache", "--no-logo"]
    return subprocess.run(words, cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, text=True)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy that may be broken."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(ROOT / "fastscreen", tmp_path / "fastscreen", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    return tmp_path


def test_contracts() -> None:
    found = lint(ROOT)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "0 broken" in found.stdout


@pytest.mark.parametrize(
    ("module", "imported", "contract"),
    [
        ("config/errors.py", "fastscreen.daemon.worker", "Imports go downward only BROKEN"),
        ("process/signals.py", "fastscreen.cache.keys", "Imports go downward only BROKEN"),
        ("screening/policy.py", "fastscreen.control.client", "Imports go downward only BROKEN"),
        ("dns/resolver.py", "fastscreen.cache.keys", "Imports go downward only BROKEN"),
        ("tui/link.py", "fastscreen.config.model", "only through the control socket's client BROKEN"),
        ("tui/link.py", "fastscreen.control.server", "only through the control socket's client BROKEN"),
        ("control/client.py", "fastscreen.config.model", "client needs nothing of the daemon BROKEN"),
    ],
)
def test_what_breaks_them_is_named(tree: Path, module: str, imported: str, contract: str) -> None:
    with (tree / "fastscreen" / module).open("a") as file:
        file.write(f"\nimport {imported}\n")
    found = lint(tree)
    output = " ".join(found.stdout.split())
    assert found.returncode == 1, found.stdout + found.stderr
    assert contract in output
    names = (module.removesuffix(".py").replace("/", "."), imported.removeprefix("fastscreen."))
    assert all(name in output for name in names), found.stdout


def test_a_cycle_inside_a_folder(tree: Path) -> None:
    with (tree / "fastscreen" / "cache" / "keys.py").open("a") as file:
        file.write("\nimport fastscreen.cache.lmdb_cache\n")
    found = lint(tree)
    assert found.returncode == 1
    assert "No cycles are allowed in fastscreen.cache." in found.stdout
    assert ".lmdb_cache -> .keys" in found.stdout


def test_a_new_folder_needs_a_place(tree: Path) -> None:
    (tree / "fastscreen" / "greylist").mkdir()
    (tree / "fastscreen" / "greylist" / "__init__.py").touch()
    found = lint(tree)
    assert found.returncode == 1
    assert "greylist" in found.stdout
