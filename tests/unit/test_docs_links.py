"""The pages for people: the index lists every page, and every link leads to a file and a heading that exist."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
FOLDERS = (ROOT, DOCS, ROOT / "bench", ROOT / "tests")
PAGES = sorted(path.relative_to(ROOT).as_posix() for folder in FOLDERS for path in folder.glob("*.md"))
_FENCE = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.+?)\s*$", re.MULTILINE)
_ANCHOR = re.compile(r'<a (?:id|name)="([^"]+)">')


def _prose(path: Path) -> str:
    return _FENCE.sub("", path.read_text())


def _anchors(path: Path) -> set[str]:
    """The anchors of a page, as GitHub makes them of its headings."""
    text = _prose(path)
    anchors = set(_ANCHOR.findall(text))
    for heading in _HEADING.findall(text):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        number = 0
        while (anchor := f"{slug}-{number}" if number else slug) in anchors:
            number += 1
        anchors.add(anchor)
    return anchors


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    broken = []
    for link in _LINK.findall(_prose(ROOT / page)):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (ROOT / page).parent / name if name else ROOT / page
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            broken.append(link)
    assert broken == []


def test_the_index_lists_every_page() -> None:
    linked = {link.partition("#")[0] for link in _LINK.findall((DOCS / "README.md").read_text())}
    assert sorted(path.name for path in DOCS.glob("*.md") if path.name not in {*linked, "README.md"}) == []


def test_the_files_that_architecture_names_exist() -> None:
    """By the end of their paths: `restart.py`, `control/context.py`, `ext/session.pyx`."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    named = set(re.findall(r"[a-z_/0-9]*[a-z_0-9]+\.pyx?\b", (DOCS / "architecture.md").read_text()))
    assert len(named) > 50
    assert [name for name in sorted(named) if not any(f"/{path}".endswith(f"/{name}") for path in listed)] == []
