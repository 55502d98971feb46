"""The fixture with which a micro-benchmark describes what it measures."""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import pytest

Result = TypeVar("Result")


class Measure(Protocol):
    """Time `call`, which performs an operation `items` times; return the result of `call`.

    title: describes the operation. aim: minimum number of operations per second.
    """

    def __call__(self, title: str, items: int, call: Callable[[], Result], *, aim: float | None = None) -> Result: ...


@pytest.fixture
def measure(benchmark: Any) -> Measure:
    """pytest-benchmark, with what makes a figure of its result (see bench/micro/__init__.py)."""

    def run(title: str, items: int, call: Callable[[], Result], *, aim: float | None = None) -> Result:
        benchmark.extra_info.update(title=title, items=items, aim=aim)
        result: Result = benchmark(call)
        return result

    return run
