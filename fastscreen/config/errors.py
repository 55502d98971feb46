"""What is wrong with a configuration: every mistake at once, one line for each."""

from __future__ import annotations

MAX_PROBLEMS = 50  # a file that is no configuration at all must not flood a terminal


class ConfigError(Exception):
    """The configuration cannot be used.

    problems: one printable line for each mistake: `FILE: table.key: problem; expected ...`, or `FILE: line N: ...`
    where the file is not TOML. str() is one line in any case: the first problem and how many more there are.
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
