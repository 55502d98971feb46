"""What a configuration makes of the memory: half-life, least number of addresses, the file of autonomous systems."""

from __future__ import annotations

import importlib
import ipaddress
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastscreen.config import Config, ConfigError
from fastscreen.core import AsTable, OffenseRules
from fastscreen.escaping import escape_text, one_line
from fastscreen.tables.file_watch import Version, version_of
from fastscreen.tables.lines import note_read, read_bytes
from fastscreen.tables.table import TableError

MMDB = ".mmdb"
_EXTRA = "an installation with `pip install 'fastscreen[mmdb]'`"
_NUMBERS = ("autonomous_system_number", "asn", "as_number")
"""Names of the field in databases of MaxMind, IPinfo and others."""

_last: tuple[str, Version, AsTable] | None = None


def load_rules(config: Config) -> OffenseRules | None:
    """The rules, with the table of AS if there is one. None: the memory is disabled. Raises ConfigError."""
    score = config.score
    if not score.memory:
        return None
    table = None
    if score.as_file:
        try:
            table = load_as_file(score.as_file)
        except TableError as error:
            raise ConfigError(f"{config.source}: score.as_file: {error}") from None
    return rules_of(config, table)


def rules_of(config: Config, table: AsTable | None) -> OffenseRules:
    """The rules with this table of AS."""
    score = config.score
    return OffenseRules(
        score.memory_half_life,
        score.seen_min,
        table,
        as_half_life=score.as_half_life,
        as_share=score.seen_as_share,
    )


def load_as_file(path: str) -> AsTable:
    """Read a file; one that has not changed since is not read again. Raises TableError, also for a new version without
    any AS: a download that failed does not replace what is known.
    """
    global _last
    try:
        found = Path(path).stat()
    except OSError as error:
        raise TableError(f"{escape_text(path)}: cannot be read: {error.strerror}") from None
    version = version_of(found)
    if _last is not None and _last[:2] == (path, version):
        note_read(path, version)
        return _last[2]
    note_read(path, version)
    try:
        text = b"".join(_mmdb_lines(path)) if path.endswith(MMDB) else read_bytes(path, path)
        table = AsTable(text, escape_text(path))
    except MemoryError:
        raise TableError(f"{escape_text(path)}: too large; expected at most 4 million ranges of each family") from None
    if not table and _last is not None and _last[0] == path and _last[2]:
        raise TableError(table.warnings[-1])
    _last = path, version, table
    return table


def missing_for_mmdb(config: Config) -> str:
    """Import what a file in MaxMind's format needs. Returns one line if that is not installed."""
    if not (config.score.memory and config.score.as_file.endswith(MMDB)):
        return ""
    try:
        importlib.import_module("maxminddb")
    except ImportError as error:
        return f"{one_line(error)}; expected {_EXTRA}"
    return ""


def _mmdb_lines(path: str) -> Iterator[bytes]:
    """A database as lines of a table."""
    try:
        import maxminddb  # an extra
    except ImportError:
        raise TableError(f"{escape_text(path)}: the library is missing; expected {_EXTRA}") from None
    try:
        with maxminddb.open_database(str(Path(path))) as database:
            for network, fields in database:
                if number := _number(fields):
                    yield f"{_plain(network)},{number}\n".encode()
    except (OSError, ValueError, maxminddb.InvalidDatabaseError) as error:
        raise TableError(f"{escape_text(path)}: cannot be read: {one_line(error)}") from None


def _number(fields: Any) -> int:
    """The AS in a database's record; 0: it has none."""
    for name in _NUMBERS:
        found = fields.get(name) if isinstance(fields, dict) else None
        text = str(found).upper().removeprefix("AS")
        if found is not None and text.isascii() and text.isdigit() and int(text) < 1 << 32:
            return int(text)
    return 0


def _plain(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> str:
    """IPv4 networks are in such databases below `::/96` or as IPv4-mapped addresses, too."""
    if network.version == 6 and network.prefixlen >= 96:
        high = int(network.network_address) >> 32
        if high in (0, 0xFFFF):
            low = ipaddress.IPv4Address(int(network.network_address) & 0xFFFFFFFF)
            return f"{low}/{network.prefixlen - 96}"
    return str(network)
