"""What is measured: each row is one kind of client."""

from dataclasses import dataclass

from bench.screener import Settings


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Each of `clients` connections comes from one of `sources` addresses; `together` of them are open at a time. `line`
    is what the log must say of every one, `outcome` the load generator's counter that must count every one, if any.
    """

    name: str
    title: str
    kind: str
    settings: Settings
    line: bytes
    outcome: str | None = None
    warm: bool = False
    clients: int = 20_000
    together: int = 32
    sources: int = 200
    aim: float | None = None  # of the ratio fastscreen / postscreen


ROWS = (
    Row(
        name="known",
        title="known client (cached), handed on by descriptor",
        kind="known",
        settings=Settings(),
        line=b": PASS OLD [127.1.",
        warm=True,
        aim=1 / 3,
    ),
    Row(
        name="pregreet",
        title="pregreeter, dropped",
        kind="pregreet",
        settings=Settings(greet_action="drop"),
        line=b": PREGREET ",
        outcome="refused521",
        aim=1 / 3,
    ),
)
