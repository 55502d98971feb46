"""The reply to EHLO, and which keywords are omitted for which clients (reference 5.6)."""

from __future__ import annotations

from msgspec import Struct

from fastscreen.config.model import Engine
from fastscreen.mta.ehlo_keywords import Keyword, keyword_words, parse_keywords
from fastscreen.tables import open_table


class Answer(Struct, frozen=True):
    """reply: all lines of the 250, with CRLF. discard: what BDAT (CHUNKING) and STARTTLS have to look at.

    log: what follows `[address]port: ` in the log at each EHLO, or None.
    """

    reply: bytes
    discard: Keyword
    log: str | None


class Ehlo:
    """Replies for one configuration; each distinct one is made once."""

    def __init__(self, engine: Engine, hostname: str, starttls: bool = False) -> None:
        """starttls: whether it is announced outside of TLS. Raises TableError."""
        self._engine = engine
        self._starttls = starttls
        self._hostname = hostname
        self._maps = [
            open_table(spec, "engine.discard_ehlo_keyword_address_maps")
            for spec in engine.discard_ehlo_keyword_address_maps
        ]
        self._answers: dict[tuple[Keyword, bool], Answer] = {}
        self._lacking = Keyword(0)
        self._size: int | None = None
        self._global = parse_keywords(engine.discard_ehlo_keywords)
        self.warnings: list[str] = []
        for table in self._maps:
            self.warnings += table.warnings
            table.warnings = self.warnings
        self.default = self._answer(self._global)

    def use(self, lacking: Keyword, size: int | None) -> None:
        """Announce these keywords to nobody, and this SIZE (None: engine.message_size_limit).

        So it is done where clients go on with an MTA that announces less.
        """
        self._lacking, self._size = lacking, size
        self._answers.clear()
        self.default = self._answer(self._global)

    def for_client(self, address: str, in_tls: bool = False) -> Answer:
        """The answer for a client by its address in text form; a map's value replaces the global list."""
        for table in self._maps:
            words = table.lookup(address)
            if words is not None:
                return self._answer(parse_keywords([words]), in_tls)
        return self._answer(self._global, in_tls)

    def _answer(self, discard: Keyword, in_tls: bool = False) -> Answer:
        answer = self._answers.get((discard, in_tls))
        if answer is None:
            loud = discard and discard != self._global and Keyword.SILENT not in discard
            log = f"discarding EHLO keywords: {keyword_words(discard)}" if loud else None
            answer = self._answers[discard, in_tls] = Answer(
                self._reply(discard | self._lacking, in_tls), discard | self._lacking, log
            )
        return answer

    def _reply(self, discard: Keyword, in_tls: bool) -> bytes:
        engine = self._engine
        size = engine.message_size_limit if self._size is None else self._size
        lines = [self._hostname]
        for keyword, text, announced in (
            (Keyword.SIZE, f"SIZE {size}" if size > 0 else "SIZE", True),
            (Keyword.VRFY, "VRFY", engine.announce_vrfy),
            (Keyword.ETRN, "ETRN", True),
            (Keyword.STARTTLS, "STARTTLS", self._starttls and not in_tls),
            (Keyword.ENHANCEDSTATUSCODES, "ENHANCEDSTATUSCODES", True),
            (Keyword.EIGHTBITMIME, "8BITMIME", True),
            (Keyword.DSN, "DSN", True),
            (Keyword.SMTPUTF8, "SMTPUTF8", engine.smtputf8),
            (Keyword.CHUNKING, "CHUNKING", True),
        ):
            if announced and keyword not in discard:
                lines.append(text)
        *more, last = lines
        return "".join([*(f"250-{line}\r\n" for line in more), f"250 {last}\r\n"]).encode()
