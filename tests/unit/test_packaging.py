"""The wheel contains everything in the tree: packages, data files, and files for the system's folders."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
CODE = (".py", ".pyc", ".so")


def sources() -> list[Path]:
    """Of the package, through the link in it, too. From the root."""
    folders = [ROOT / "fastscreen", *(path for path in (ROOT / "fastscreen").iterdir() if path.is_symlink())]
    found = {path for folder in folders if folder.is_dir() for path in folder.rglob("*") if path.is_file()}
    return sorted(path.relative_to(ROOT) for path in found)


def test_every_package() -> None:
    there = {".".join(path.parent.parts) for path in sources() if path.name == "__init__.py"}
    assert "fastscreen.tui.views" in there
    assert sorted(there) == SETTINGS["packages"]


def test_every_file_beside_the_code() -> None:
    there: dict[str, set[str]] = {}
    for path in sources():
        if path.suffix not in CODE:
            there.setdefault(".".join(path.parent.parts), set()).add(path.name)
    assert there == {package: set(names) for package, names in SETTINGS["package-data"].items()}


def test_every_file_for_the_machine() -> None:
    named = [name for names in SETTINGS["data-files"].values() for name in names]
    assert len(named) == len(set(named))
    assert set(named) == {str(path.relative_to(ROOT)) for path in (ROOT / "contrib").rglob("*") if path.is_file()}
