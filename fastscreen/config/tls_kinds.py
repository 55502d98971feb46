"""Kinds of value of the [tls] table."""

from __future__ import annotations

import re
from ssl import TLSVersion

from fastscreen.config.kinds import FilePath, Text, one_of
from fastscreen.escaping import quoted

VERSIONS = {
    "TLSv1": TLSVersion.TLSv1,
    "TLSv1.1": TLSVersion.TLSv1_1,
    "TLSv1.2": TLSVersion.TLSv1_2,
    "TLSv1.3": TLSVersion.TLSv1_3,
}
_BY_NAME = {name.lower(): version for name, version in VERSIONS.items()}


class PemFile:
    """A file with keys, certificates, or both. What it holds shows when it is opened."""

    expected = "an absolute path"

    def parse(self, value: object) -> str:
        path = FilePath().parse(value)
        if not path:
            raise ValueError(f"the path is empty; expected {self.expected}")
        return path


class Protocols:
    """A range of versions as Postfix writes it since 3.6: (oldest, newest), 0 for no bound."""

    expected = f'">=VERSION", "<=VERSION" or both with a comma between them, where VERSION is {one_of(VERSIONS)}'
    _BOUND = re.compile(r"(>=|<=)(\S+)", re.ASCII)

    def parse(self, value: object) -> tuple[int, int]:
        text = Text(self.expected).parse(value)
        bounds: dict[str, int] = {}
        for item in filter(None, re.split(r"[\s,:]+", text)):
            found = self._BOUND.fullmatch(item)
            version = _BY_NAME.get(found[2].lower()) if found else None
            if found is None or version is None or found[1] in bounds:
                raise ValueError(f"bad versions {quoted(text)}; expected {self.expected}")
            bounds[found[1]] = int(version)
        oldest, newest = bounds.get(">=", 0), bounds.get("<=", 0)
        if not bounds or (newest and newest < oldest):
            raise ValueError(f"{quoted(text)} includes no version; expected {self.expected}")
        return oldest, newest
