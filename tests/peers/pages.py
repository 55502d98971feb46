"""What the pages of docs/ tell people to write into configuration files, taken from the pages themselves."""

import re
import textwrap
import tomllib
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent.parent.parent / "docs"

_BLOCK = re.compile(r"^ *```\w*\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


def block(page: str, having: str) -> str:
    """Return the one code block of a page that holds this text. ValueError: none does, or several."""
    blocks: list[str] = [text for text in _BLOCK.findall((DOCS / page).read_text()) if having in text]
    if len(blocks) != 1:
        raise ValueError(f"docs/{page}: {len(blocks)} blocks hold {having!r}")
    return textwrap.dedent(blocks[0])


def settings(page: str) -> dict[str, Any]:
    """Return the fastscreen.toml of a page."""
    return tomllib.loads(block(page, "[handoff]"))
