"""What the recorder says about itself: to the log, and the last error for `fastscreen status`."""

from __future__ import annotations

from collections.abc import Callable


class Notes:
    """info, warn: log a line. clock: s since 1970."""

    def __init__(
        self, info: Callable[[str], object], warn: Callable[[str], object], clock: Callable[[], float]
    ) -> None:
        self._info = info
        self._warn = warn
        self._clock = clock
        self.error = ""
        """What went wrong last."""
        self.error_time = 0.0
        self._told: set[str] = set()

    def info(self, text: str) -> None:
        """Log a line."""
        self._info(f"history: {text}")

    def warn(self, text: str) -> None:
        """Log something that went wrong."""
        self.note(text)
        self._warn(f"history: {text}")

    def warn_once(self, text: str) -> None:
        """Log something that goes wrong again and again."""
        self.note(text)
        if text not in self._told:
            self._told.add(text)
            self._warn(f"history: {text}")

    def note(self, text: str) -> None:
        """Something went wrong that may pass."""
        self.error, self.error_time = text, self._clock()
