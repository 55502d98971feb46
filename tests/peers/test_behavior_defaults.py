"""The table of parameters in docs/postscreen-behavior.md next to Postfix's own: names and defaults by `postconf -d`."""

import re
import subprocess

import pytest

from peers import needs, postfixroot

SECTION = postfixroot.PAGE.read_text().partition('<a id="1.2"></a>')[2].partition('<a id="1.3"></a>')[0]
ROWS = re.findall(r"^\| `(\w+)`[^|]*\| ([^|]+) \|", SECTION, re.MULTILINE)


@pytest.fixture(scope="module")
def theirs() -> dict[str, str]:
    """Each parameter of the Postfix under test, with its default."""
    needs.program("postfix")
    root = postfixroot.chosen()
    command = [*postfixroot.prefix(root), "/usr/sbin/postconf", "-d"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return {name: value.strip() for name, _, value in (line.partition(" =") for line in lines)}


def test_every_parameter_is_there(theirs: dict[str, str]) -> None:
    own = {name for name in theirs if name.startswith("postscreen_")}
    assert len(own) > 40
    assert own - set(re.findall(r"`(\w+)`", SECTION)) == set()


@pytest.mark.parametrize(("name", "default"), ROWS)
def test_default(name: str, default: str, theirs: dict[str, str]) -> None:
    expected = re.findall(r"`([^`]+)`", default) + [""] * default.startswith("empty")
    assert theirs[name] in expected
