"""What is wrong with a configuration: all errors at once, one line for each."""

from __future__ import annotations

MAX_PROBLEMS = 50  # a file that is not a configuration at all must not flood a terminal


class ConfigError(Exception):
    """The configuration cannot be used.

    problems: one printable line for each error: `FILE: table.key: problem; expected ...`, or `FILE: line N: ...` if the
    file is not TOML. str() is always one line: the first problem and the number of the others.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__(*problems)
        more = len(problems) - MAX_PROBLEMS
        self.problems = problems if more <= 0 else (*problems[:MAX_PROBLEMS], f"{more} more problems")

    def __str__(self) -> str:
        first, *others = self.problems or ("",)
        if not others:
            return first
        return f"{first} (and {len(others)} more: `fastscreen check -c FILE` shows all)"
