"""Where a worker answers the hub's questions: on its loop, one at a time, each bounded. It never waits for the hub."""

from __future__ import annotations

import os
import socket
from typing import Any

from fastscreen.cache.writer import Cache
from fastscreen.config import Prefix
from fastscreen.control.questions import (
    About,
    Answered,
    Forget,
    Lists,
    Live,
    Question,
    Remember,
    Stats,
    receive_question,
    send,
)
from fastscreen.core import Filter, Log, Screener, cache_key_of


class Desk:
    """One worker's. `serve` is the loop's reader of `end`. prefix: the cache's."""

    def __init__(self, end: socket.socket, screener: Screener, cache: Cache | None, prefix: Prefix, log: Log) -> None:
        self._end = end
        self._prefix = prefix
        self._screener = screener
        self._cache = cache
        self._log = log

    def serve(self) -> None:
        """Answer one question. What cannot be sent is lost: the hub asks again. Raises whatever is wrong with it."""
        asked = receive_question(self._end)
        if asked is not None:
            send(self._end, Answered(asked.number, self._answer(asked.question)))

    def _answer(self, question: Question) -> Any:
        match question:
            case Stats():
                return {"pid": os.getpid(), "lost_log_lines": self._log.lost_total, **self._screener.stats()}
            case Lists():
                return self._screener.lists()
            case Live(terms, order, limit):
                return self._screener.live(Filter([(*term,) for term in terms]), order, limit)
            case About(address):
                record = self._cache.pending(cache_key_of(address, self._prefix)) if self._cache else None
                return {
                    "lists": self._screener.answers(address),
                    "client": self._screener.client(address),
                    "rates": self._screener.rates_of(address),
                    "record": record,
                }
            case Forget(first, last):
                return self._cache.forget(first, last) if self._cache else 0
            case Remember(records):
                return self._cache.replace(records) if self._cache else 0
