"""docs/postscreen-behavior.md: every section and step that the tree cites as "reference N.N" exists there."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/postscreen-behavior.md"
FOLDERS = ("bench", "contrib", "docs", "ext", "fastscreen", "tests", "tui")
SUFFIXES = {".md", ".py", ".pxd", ".pyi", ".pyx", ".toml", ".txt"}

CITATION = r"\d{1,2}(?:\.\d{1,2})?(?!\.?\d)(?: step \d{1,2})?"
MORE = rf"(?:(?:, | and | to ){CITATION})*"
NAMED = re.compile(rf"\breference(?:'s)?(?: section)? \(?({CITATION}{MORE})", re.IGNORECASE)
BARE = re.compile(rf"(?:(?<=\s)\(|# )(\d{{1,2}}\.{CITATION}{MORE})(?=[,:;)]|$)", re.MULTILINE)
"""In ext/ the number often stands alone, in parentheses or as the whole comment."""

HEADING = re.compile(r'^(##|###) <a id="([\d.]+)"></a>([\d.]+) \S', re.MULTILINE)


def citations(text: str, *, bare: bool = False) -> Iterator[str]:
    """Yield each number that a text cites, with its step: "2.3", "2.3 step 7"."""
    joined = re.sub(r"\s*\n\s*(?:# ?)?", " ", text)
    for found in NAMED.findall(joined) + (BARE.findall(text) if bare else []):
        yield from re.findall(CITATION, found)


def defined(page: str) -> set[str]:
    """Return what can be cited: the number of each section, and of each step in it."""
    found = set()
    headings = list(HEADING.finditer(page))
    for at, heading in enumerate(headings):
        end = headings[at + 1].start() if at + 1 < len(headings) else len(page)
        section, body = heading[2], page[heading.end() : end]
        found.add(section)
        found |= {f"{section} step {step}" for step in re.findall(r"^(\d+)\. ", body, re.MULTILINE)}
    return found


def cited() -> list[tuple[str, str]]:
    """Return each citation of the tree, with its file."""
    found = []
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in SUFFIXES and path.is_file() and path != Path(__file__):
                bare = folder == "ext"
                found += [(str(path.relative_to(ROOT)), each) for each in citations(path.read_text(), bare=bare)]
    return found


def test_every_citation_exists() -> None:
    known = defined(PAGE.read_text())
    everything = cited()
    assert len(everything) > 120
    assert [(file, number) for file, number in everything if number not in known] == []


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("as there (reference 2.3 step 7).", ["2.3 step 7"]),
        ("(reference section 7)", ["7"]),
        ("Reference 1.2, without TLS", ["1.2"]),
        ("(reference 1.2 to 1.4, 5.3 step 4)", ["1.2", "1.4", "5.3 step 4"]),
        ("# split over lines (reference\n    # 99.1)", ["99.1"]),
        ("the reference's (2.8, 6.4)", ["2.8", "6.4"]),
        ("a reference is held; RFC 5321 section 4.5; 3.7.11; (5.2)", []),
    ],
)
def test_citations_are_found(text: str, numbers: list[str]) -> None:
    assert list(citations(text)) == numbers


def test_bare_numbers_are_found() -> None:
    text = '    x = max(0.5, y)  # 8.1 step 5\n    """Judge (2.5, 3, 99.2)."""\n    # (RFC 3030 section 2) (4)\n'
    assert list(citations(text, bare=True)) == ["8.1 step 5", "2.5", "3", "99.2"]


def test_invented_numbers_are_not_in_the_page() -> None:
    assert not {"0.1", "2.12", "2.3 step 10", "14", "99.1"} & defined(PAGE.read_text())


def test_sections_are_anchored_and_in_order() -> None:
    page = PAGE.read_text()
    headings = HEADING.findall(page)
    assert len(headings) == len(re.findall(r"^##+ ", page, re.MULTILINE))
    for level, anchor, shown in headings:
        assert shown == (anchor + "." if level == "##" else anchor)
        assert level.count("#") == anchor.count(".") + 2
    numbers = [tuple(map(int, anchor.split("."))) for _, anchor, _ in headings]
    assert numbers == sorted(set(numbers))


def test_links_lead_to_sections() -> None:
    known = defined(PAGE.read_text())
    inside = re.findall(r"\]\(#([\d.]+)\)", PAGE.read_text())
    others = [
        anchor
        for path in [*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "tests/README.md"]
        for anchor in re.findall(r"postscreen-behavior\.md#([\d.]+)\)", path.read_text())
    ]
    assert len(inside) > 50
    assert {anchor for anchor in inside + others if anchor not in known} == set()
