"""The operator's expression for lines that call a message spam."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

import regex
from msgspec import Struct

from fastscreen.config.feedback_kinds import compiled
from fastscreen.feedback.postfix import Client, client_of

LINE_SECONDS = 0.005  # at most for one line, which then does not match
TURN_SECONDS = 0.05  # at most for the lines of one turn; further ones are not matched


class Verdict(Struct, frozen=True):
    """A message is spam. At least one of the two is there; if both are, they must belong together."""

    queue: str
    client: Client | None


class SpamExpression:
    """The expression. It is matched from the first character of `program[pid]: text` on, so that no other program can
    write a verdict by what its peers send."""

    def __init__(self, expression: str, timer: Callable[[], float] = monotonic) -> None:
        self._pattern: regex.Pattern[str] = compiled(expression)
        self._timer = timer
        self._left = TURN_SECONDS
        self.slow = 0
        """Lines for which it needed too long."""

    def begin_turn(self) -> None:
        """A new turn has its full time."""
        self._left = TURN_SECONDS

    def find(self, said: str) -> Verdict | None:
        """None: no verdict, or no time."""
        if self._left <= 0:
            self.slow += 1
            return None
        begun = self._timer()
        try:
            found = self._pattern.match(said, timeout=min(self._left, LINE_SECONDS))
        except TimeoutError:
            self.slow += 1
            return None
        finally:
            self._left -= self._timer() - begun
        if found is None:
            return None
        groups = found.groupdict()
        queue, address, port = groups.get("queue") or "", groups.get("address"), groups.get("port")
        client = client_of(address, port) if address and (port is None or (port.isascii() and port.isdigit())) else None
        if (address and client is None) or (not queue and (client is None or not client.port)):
            return None
        return Verdict(queue, client)
