"""A single figure that is not a comparison: what it is, its goal, and whether the goal was met."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One measured value. `met` is None for a figure without a goal; `name` is unique, for JSON."""

    name: str
    title: str
    value: float
    unit: str
    aim: str
    met: bool | None
    detail: str
