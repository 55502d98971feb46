"""One figure beside the side-by-side rows: what it is, what was aimed at, whether that was met."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One measured value. `met` is None when nothing was aimed at; `name` is unique and made for JSON."""

    name: str
    title: str
    value: float
    unit: str
    aim: str
    met: bool | None
    detail: str
