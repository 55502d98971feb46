"""The configuration that docs/score.md suggests to start with."""

import re
import tomllib
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[1] / "docs/score.md"


def suggested(*, memory: bool) -> dict[str, Any]:
    """The settings of the section "How to start". memory: also those for the memory of offenses."""
    _, _, section = PAGE.read_text().partition("\n## How to start\n")
    blocks = [
        tomllib.loads(text) for text in re.findall(r"```toml\n(.+?)```", section.partition("\n## ")[0], re.DOTALL)
    ]
    first, second = blocks
    return {**first, "score": {**first["score"], **(second["score"] if memory else {})}}
