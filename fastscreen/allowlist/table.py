"""The table as cidr_table(5) has it, which fastscreen's access list and postscreen's read."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from fastscreen.allowlist import networks
from fastscreen.allowlist.networks import Covered
from fastscreen.allowlist.state import State
from fastscreen.atomicfile import replace_file
from fastscreen.config.providers import Source

PERMIT, REJECT = "permit", "reject"


def rendered(sources: Sequence[Source], state: State, result: str, now: float) -> str:
    """The file's text. A network that an earlier provider already has is omitted.

    result: the table's result for each network. now: s since 1970.
    """
    return "\n".join([*_lines(sources, state, result, now), ""])


def _lines(sources: Sequence[Source], state: State, result: str, now: float) -> Iterator[str]:
    yield f"# Written by fastscreen allowlist refresh at {_date(now)}; changes are lost at the next refresh."
    above = Covered()
    for source in sources:
        entry = state.providers.get(source.name)
        if entry is None or not entry.good:
            yield f"# {source.name} ({source.group}: {', '.join(source.domains)}): nothing yet"
            continue
        own = networks.parsed(entry.networks)
        new = [each for each in own if not above.has(each)]
        known = f", {len(own) - len(new)} of them above" if len(new) < len(own) else ""
        yield (
            f"# {source.name} ({source.group}: {', '.join(source.domains)}): {len(own)} networks{known}, "
            f"looked up {_date(entry.good)}"
        )
        yield from (f"{network}\t{result}" for network in new)
        above.add(new)


def rules(text: str) -> list[str]:
    """What counts in a table."""
    return [line for line in text.split("\n") if line and not line.startswith("#")]


def has(path: Path, text: str) -> bool:
    """Whether a table is there and has these rules. OSError: it cannot be read."""
    try:
        before = path.read_bytes().decode("utf-8", "replace")
    except FileNotFoundError:
        return False
    return rules(before) == rules(text)


def write(path: Path, text: str) -> bool:
    """Replace the table unless it has the same rules already; return whether it was replaced. OSError."""
    if has(path, text):
        return False
    replace_file(path, text.encode())
    return True


def _date(when: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(when))
