"""Every difference from postscreen is documented, and every documented one is tested under its name."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTED = set(re.findall(r"^(?:\| |\* )`([a-z0-9-]+)`", (ROOT / "docs/differences.md").read_text(), re.MULTILINE))


def test_what_the_dialogues_claim_is_documented() -> None:
    claimed = set()
    for dialogue in (ROOT / "tests/dialogues").glob("*.txt"):
        claimed |= set(re.findall(r"^differs: (\S+)", dialogue.read_text(), re.MULTILINE))
    assert claimed
    assert claimed <= DOCUMENTED


def test_what_is_documented_is_tested() -> None:
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("*") if path.suffix in (".py", ".txt"))
    missing = {name for name in DOCUMENTED if name not in tests and f"test_{name.replace('-', '_')}" not in tests}
    assert not missing
