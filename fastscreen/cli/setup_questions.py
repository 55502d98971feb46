"""The questions of `fastscreen setup`: on a terminal, or answered by options and defaults."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

from fastscreen.escaping import printable

T = TypeVar("T")
COUNT = 6


class NoAnswer(Exception):
    """A question cannot be asked or has no valid answer. The message says what is expected, in one line."""


class Questions:
    """Ask: an option's value counts first, then the terminal, then the default.

    ask: whether a person is there to answer. number: of the last question.
    """

    def __init__(self, *, ask: bool) -> None:
        self._ask = ask
        self.number = 0

    def answer(
        self,
        text: str,
        option: str,
        given: str | None,
        default: str,
        parse: Callable[[str], T],
        explained: str = "",
    ) -> T:
        """One answer. option: the option that gives it. parse: raises ValueError if it is wrong. Raises NoAnswer."""
        self.number += 1
        if given is not None or not self._ask:
            answer = given if given is not None else default
            if not answer:
                raise NoAnswer(f"{text}: no default was found; expected {option}")
            try:
                return parse(answer)
            except ValueError as error:
                raise NoAnswer(f"{option} {printable(answer)}: {error}") from None
        print(f"\n{self.number}/{COUNT}  {text}")
        if explained:
            print(f"     {explained}")
        while True:
            answer = self._line(f"     [{default}] > " if default else "     > ", option) or default
            try:
                return parse(answer)
            except ValueError as error:
                print(f"     {printable(str(error))}")

    def _line(self, prompt: str, option: str) -> str:
        print(prompt, end="", flush=True)
        line = sys.stdin.readline()
        if not line:
            print()
            raise NoAnswer(f"the input ended at this question; expected an answer, or {option}")
        return line.strip()


def yes_or_no(text: str) -> bool:
    """Raises ValueError."""
    words = {"y": True, "yes": True, "n": False, "no": False}
    if text.lower() not in words:
        raise ValueError("expected yes or no")
    return words[text.lower()]
