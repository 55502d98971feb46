"""The line parser: bytes in, commands out."""

from bench.micro.conftest import Measure
from bench.micro.samples import commands
from fastscreen.core import LineStates

COUNT = 9_000


def test_dialogue(measure: Measure) -> None:
    """Runs in C without the GIL, so the compiler guarantees that no Python object is created."""
    data = b"".join(commands(COUNT))
    states = LineStates()
    assert measure("line parser: a command of a dialogue", COUNT, lambda: states.count(data), aim=5e6) == COUNT


def test_dialogue_in_pieces(measure: Measure) -> None:
    """Pieces end anywhere, and the beginning of a line is kept. Includes the call from Python."""
    data = b"".join(commands(COUNT))
    pieces = [data[at : at + 100] for at in range(0, len(data), 100)]
    states = LineStates()
    count = measure(
        "line parser: a command, input in pieces of 100 bytes", COUNT, lambda: sum(map(states.count, pieces))
    )
    assert count == COUNT


def test_one_command_a_feed(measure: Measure) -> None:
    """As from a client that waits for each reply. Includes the call from Python."""
    lines = commands(COUNT)
    states = LineStates()
    count = measure("line parser: a command, one per piece of input", COUNT, lambda: sum(map(states.count, lines)))
    assert count == COUNT
