"""How a value of the TOML file becomes a value of the model: one class for each kind of value.

`parse(value)` takes what tomllib gave and raises ValueError("PROBLEM; expected ..."). `expected` is the second part,
also for the documentation: plain text, with backticks around commands.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import ClassVar, Protocol

import msgspec

from fastscreen.config import model
from fastscreen.config.model import (
    Action,
    Endpoint,
    LogFile,
    LogStderr,
    LogSyslog,
    Pass,
    Proxy,
    Sink,
    Site,
    Target,
)
from fastscreen.config.sites import FORM, parse_site
from fastscreen.escaping import quoted

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
MAX_INT = 2**31 - 1  # as Postfix: an int
MAX_BANNER = 506  # RFC 5321 section 4.5.3.1.5: 512 bytes with `220-` and CRLF
MAX_ITEM_PROBLEMS = 20  # of one list that are named
TABLE_TYPES = ("cidr", "texthash", "inline", "static", "regexp", "pcre")


def one_of(words: Iterable[str]) -> str:
    """`a, b or c`."""
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last


_TABLE_FORM = f'"TYPE:TABLE", where TYPE is {one_of(TABLE_TYPES)}'

_TIME = re.compile(r"([0-9]{1,10})([smhdw]?)", re.ASCII)
_HOST_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)", re.ASCII)
_TABLE = re.compile(r"([a-z]+):(.+)", re.ASCII | re.DOTALL)
_IDENT = re.compile(r"[!-~]{1,64}", re.ASCII)


class SeveralErrors(ValueError):
    """Several things are wrong with one value. each: a text of each; str(): the first."""

    def __init__(self, each: list[str]) -> None:
        super().__init__(each[0])
        self.each = each


class Kind(Protocol):
    """A kind of value."""

    @property
    def expected(self) -> str: ...
    def parse(self, value: object) -> object: ...


def shown(value: object) -> str:
    """A TOML value as it is named in a message."""
    match value:
        case str():
            return quoted(value)
        case bool():
            return "true" if value else "false"
        case int() | float():
            return quoted(str(value), 40)[1:-1] if abs(value) < 10**30 else "a huge number"
        case list():
            return "a list"
        case dict():
            return "a table"
    return "a date or time"


def _text(value: object, expected: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{shown(value)} is not a string; expected {expected}")
    return value


class Text:
    """Text without control characters, that fits into one line of a protocol or a file name."""

    def __init__(self, expected: str = "", most: int = 4096) -> None:
        self.expected = expected or f"printable text of at most {most} characters"
        self.most = most

    def parse(self, value: object) -> str:
        text = _text(value, self.expected)
        if len(text) > self.most:
            raise ValueError(f"{quoted(text)} has more than {self.most} characters; expected {self.expected}")
        if any(ord(char) < 32 or ord(char) == 127 for char in text):
            raise ValueError(f"{quoted(text)} has control characters; expected {self.expected}")
        return text


class Banner(Text):
    """Text of a 220 line: RFC 5321 section 4.2 textstring."""

    def __init__(self, names: str, empty: bool = False) -> None:
        self.empty = empty
        text = "printable ASCII text" if empty else "a non-empty printable ASCII text"
        super().__init__(
            f"{text} of at most {MAX_BANNER} characters; it may contain {names}, and $$ for a $ sign", MAX_BANNER
        )

    def parse(self, value: object) -> str:
        text = super().parse(value)
        if not text and not self.empty:
            raise ValueError(f"the text is empty; expected {self.expected}")
        if not text.isascii():
            raise ValueError(f"{quoted(text)} is not ASCII; expected {self.expected}")
        return text


class Hostname:
    expected = 'a host name of letters, digits, "-", "_" and ".", or "" for the name of the machine'

    def parse(self, value: object) -> str:
        text = _text(value, self.expected)
        if text and (len(text) > 255 or not all(_HOST_LABEL.fullmatch(label) for label in text.split("."))):
            raise ValueError(f"bad host name {quoted(text)}; expected {self.expected}")
        return text


class Ident:
    """A name of a program or a user."""

    def __init__(self, empty: bool = False) -> None:
        self.empty = empty
        self.expected = "1 to 64 printable ASCII characters without spaces" + (', or ""' if empty else "")

    def parse(self, value: object) -> str:
        text = _text(value, self.expected)
        if text == "" and self.empty:
            return text
        if not _IDENT.fullmatch(text):
            raise ValueError(f"bad name {quoted(text)}; expected {self.expected}")
        return text


class Choice:
    """One of some words; uppercase and lowercase are the same."""

    def __init__(self, *words: str) -> None:
        self.words = words
        self.expected = one_of(f'"{word}"' for word in words)

    def parse(self, value: object) -> str:
        text = _text(value, self.expected)
        if text.lower() not in self.words:
            raise ValueError(f"unknown value {quoted(text)}; expected {self.expected}")
        return text.lower()


class ActionOf:
    """An action; uppercase and lowercase are the same. `continue` is Postfix's undocumented synonym of `ignore`
    (reference 1.1).
    """

    def __init__(self, *actions: Action) -> None:
        self.actions = actions
        self.expected = one_of(f'"{action}"' for action in actions)

    def parse(self, value: object) -> Action:
        word = _text(value, self.expected).lower()
        word = "ignore" if word == "continue" else word
        if word not in self.actions:
            raise ValueError(f"unknown action {shown(value)}; expected {self.expected}")
        return Action(word)


class Flag:
    expected = "true or false"

    def parse(self, value: object) -> bool:
        if not isinstance(value, bool):
            raise ValueError(f"{shown(value)} is not a Boolean; expected {self.expected}")
        return value


class Number:
    """A whole number in a range, whose ends belong to it; `also` is one more value outside of it."""

    def __init__(self, least: int, most: int = MAX_INT, also: int | None = None) -> None:
        self.least, self.most, self.also = least, most, also
        self.expected = (
            f"a whole number of at least {least}" if most == MAX_INT else f"a whole number from {least} to {most}"
        )
        if least == -MAX_INT:
            self.expected = "a whole number"
        if also is not None:
            self.expected = f"{also} or {self.expected}"

    def parse(self, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"{shown(value)} is not a whole number; expected {self.expected}")
        if value != self.also and not self.least <= value <= self.most:
            raise ValueError(f"{shown(value)} is out of range; expected {self.expected}")
        return value


class Workers:
    """A number of processes; 0 for "auto"."""

    expected = '"auto" or a whole number from 1 to 128'
    _number = Number(1, 128)

    def parse(self, value: object) -> int:
        if value == "auto":
            return 0
        try:
            return self._number.parse(value)
        except ValueError as error:
            raise ValueError(f"{str(error).partition(';')[0]}; expected {self.expected}") from None


class Time:
    """Seconds: a whole number and a unit, or a number alone in the key's own unit (reference 1.1)."""

    def __init__(self, unit: str = "s", least: int = 1) -> None:
        self.unit, self.least = unit, least
        self.expected = f"a whole number with the unit s, m, h, d or w (without a unit: {unit})"
        self.expected += f', at least "{least}s"' if least else ""

    def parse(self, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise ValueError(f"{shown(value)} is not a time; expected {self.expected}")
        found = _TIME.fullmatch(str(value) if isinstance(value, str) or 0 <= value <= MAX_INT else "-")
        if not found:
            raise ValueError(f"bad time {shown(value)}; expected {self.expected}")
        seconds = int(found[1]) * UNITS[found[2] or self.unit]
        if not self.least <= seconds <= MAX_INT:
            raise ValueError(f"time {shown(value)} is out of range; expected {self.expected}")
        return seconds


class Size:
    """Bytes: a whole number, or a text with a unit of 1024, 1024² or 1024³ bytes."""

    _FORM = re.compile(r"([0-9]{1,12})([KMG]?)", re.ASCII)
    _UNITS: ClassVar[dict[str, int]] = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}

    def __init__(self, least: str, most: str) -> None:
        self.least, self.most = self._read(least), self._read(most)
        self.expected = f'a number of bytes, or a number with the unit K, M or G, from "{least}" to "{most}"'

    def _read(self, text: str) -> int:
        found = self._FORM.fullmatch(text)
        if not found:
            raise ValueError
        return int(found[1]) * self._UNITS[found[2]]

    def parse(self, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise ValueError(f"{shown(value)} is not a size; expected {self.expected}")
        try:
            size = self._read(str(value))
        except ValueError:
            raise ValueError(f"bad size {shown(value)}; expected {self.expected}") from None
        if not self.least <= size <= self.most:
            raise ValueError(f"size {shown(value)} is out of range; expected {self.expected}")
        return size


class Address:
    """IPv4:port or [IPv6]:port. With a default port, the port may be omitted and an IPv6 address may be bare."""

    _FORM = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+))(?::([0-9]{1,5}))?", re.ASCII)

    def __init__(self, port: int | None = None) -> None:
        self.port = port
        self.expected = (
            'an IP address and port, such as "192.0.2.1:25" or "[2001:db8::1]:25"'
            if port is None
            else f'an IP address with or without a port, such as "192.0.2.1" or "[2001:db8::1]:{port}"'
        )

    def parse(self, value: object) -> Endpoint:
        text = _text(value, self.expected)
        bare = self.port is not None and text.count(":") > 1 and "[" not in text
        found = self._FORM.fullmatch(f"[{text}]" if bare else text)
        port = self.port if found is None or found[3] is None else int(found[3])
        try:
            # Port 0, any free port, only makes sense for a listener: there the port has no default.
            if found is None or port is None or not (self.port is not None) <= port <= 65535:
                raise ValueError
            address = ipaddress.IPv6Address(found[1]) if found[1] else ipaddress.IPv4Address(found[2])
        except ValueError:
            raise ValueError(f"bad address {quoted(text)}; expected {self.expected}") from None
        return Endpoint(str(address), port)


class ProxyPort:
    """One table `[[listen.proxy]]`."""

    expected = (
        'a table with addresses = ["IP:PORT"], trusted = ["NETWORK"] (hosts that may send the header) and, optionally, '
        'timeout = "5s"'
    )

    def parse(self, value: object) -> model.ProxyPort:
        if not isinstance(value, dict):
            raise ValueError(f"{shown(value)} is not a table; expected {self.expected}")
        kinds: dict[str, Kind] = {
            "addresses": ListOf(Address(), least=1, most=100, distinct=True),
            "trusted": ListOf(Network(), least=1),
            "timeout": Time(),
        }
        if unknown := [name for name in value if name not in kinds]:
            raise ValueError(f"{quoted(unknown[0])}: unknown name; expected {one_of(kinds)}")
        parsed: dict[str, object] = {}
        for name, kind in kinds.items():
            if name not in value and name != "timeout":
                raise ValueError(f"{name}: missing; expected {kind.expected}")
            try:
                parsed[name] = kind.parse(value.get(name, "5s"))
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        return msgspec.convert(parsed, model.ProxyPort)


class SitePattern:
    expected = FORM

    def parse(self, value: object) -> Site:
        return parse_site(_text(value, self.expected))


class TableName:
    """`type:table` of a type that `fastscreen.tables` reads; whether the table can be opened shows later."""

    def __init__(self, optional: bool = False) -> None:
        self.optional = optional
        self.expected = ('"" or ' if optional else "") + _TABLE_FORM

    def parse(self, value: object) -> str:
        text = _text(value, self.expected)
        if not text and self.optional:
            return text
        if text.startswith("${") or not _TABLE.fullmatch(text):
            raise ValueError(f"{quoted(text)} is not a table; expected {self.expected}")
        check_table_type(text)
        return text


def check_table_type(spec: str) -> None:
    """Refuse a table of a type that is not supported, and say how to convert it (ValueError)."""
    kind, _, name = spec.partition(":")
    if kind in TABLE_TYPES:
        return
    if kind in ("hash", "btree", "lmdb", "cdb", "dbm", "sdbm"):
        how = f"convert it with: postmap -s {spec} > {name}.txt, then texthash:{name}.txt"
    elif kind in ("mysql", "pgsql", "ldap", "sqlite", "memcache", "tcp", "socketmap", "proxy", "nis", "netinfo"):
        how = f"query it with: postmap -q KEY {spec}, and keep the answers in a texthash: file"
    else:
        raise ValueError(f"table type {quoted(kind)} is unknown; expected {one_of(TABLE_TYPES)}")
    raise ValueError(f"table type {quoted(kind)} is not supported, {quoted(how)[1:-1]}; expected {one_of(TABLE_TYPES)}")


class Word:
    """An item of a string list (reference 1.2): a bare word, or a table."""

    expected = f"a word, or {_TABLE_FORM}"

    def parse(self, value: object) -> str:
        text = _text(value, self.expected)
        if ":" in text:
            return TableName().parse(text.removeprefix("!")) and text
        if not text or any(char.isspace() or not char.isprintable() for char in text):
            raise ValueError(f"{quoted(text)} is not a word; expected {self.expected}")
        return text


class AccessItem:
    """An item of the access list (reference 1.2); uppercase and lowercase are the same."""

    words = ("permit", "reject", "dunno", "permit_mynetworks")
    expected = f'"permit", "reject", "dunno", "permit_mynetworks" or {_TABLE_FORM}'

    def parse(self, value: object) -> str:
        text = _text(value, self.expected)
        if ":" in text:
            return TableName().parse(text)
        if text.lower() not in self.words:
            raise ValueError(f"unknown word {quoted(text)}; expected {self.expected}")
        return text.lower()


def _is_socket_path(path: str) -> bool:
    return path.startswith("/") and path.isprintable() and len(path.encode()) <= 107


class ProxyTo:
    """MTAs that read the PROXY protocol. `most`: as many as the core takes."""

    most = 16
    FORM = (
        '"proxy:IP:PORT" or "proxy:unix:/PATH", or a list of proxy: targets, which are tried in order, or share the '
        "clients if each ends in *WEIGHT (1 to 1000)"
    )
    _FORM = re.compile(r"proxy:(.+?)(?:\*([0-9]{1,4}))?", re.ASCII | re.DOTALL)

    def __init__(self, optional: bool = False) -> None:
        self.optional = optional
        self.expected = ('"", ' if optional else "") + self.FORM

    def parse(self, value: object) -> Proxy | None:
        if value == "" and self.optional:
            return None
        items = value if isinstance(value, list) else [value]
        if not 0 < len(items) <= self.most:
            raise ValueError(f"{len(items)} targets; expected 1 to {self.most} of the form {self.expected}")
        targets = tuple(self._target(item) for item in items)
        if len({target.where for target in targets}) < len(targets):
            raise ValueError(f"a target occurs twice; expected {self.expected}")
        if len({target.weight > 0 for target in targets}) > 1:
            raise ValueError(f"some targets have a weight and others do not; expected {self.expected}")
        return Proxy(targets)

    def _target(self, item: object) -> Target:
        text = _text(item, self.expected)
        found = self._FORM.fullmatch(text)
        try:
            if found is None or (found[2] is not None and not 1 <= int(found[2]) <= 1000):
                raise ValueError
            weight = int(found[2] or 0)
            path = found[1].removeprefix("unix:")
            if path != found[1]:
                if not _is_socket_path(path):
                    raise ValueError
                return Target(path, weight)
            where = Address().parse(found[1])
            if where.port == 0:
                raise ValueError
        except ValueError:
            raise ValueError(f"bad target {quoted(text)}; expected {self.expected}") from None
        return Target(where, weight)


class HandoffTo:
    expected = '"pass:/PATH" (Postfix: /var/spool/postfix/private/smtpd), "sink:", ' + ProxyTo.FORM

    def parse(self, value: object) -> Pass | Sink | Proxy:
        if isinstance(value, list) or (isinstance(value, str) and value.startswith("proxy:")):
            proxy = ProxyTo().parse(value)
            assert proxy is not None
            return proxy
        text = _text(value, self.expected)
        kind, _, path = text.partition(":")
        if text == "sink:":
            return Sink()
        if kind == "pass" and _is_socket_path(path):
            return Pass(path)
        raise ValueError(f"bad target {quoted(text)}; expected {self.expected}")


class DoubtfulTo:
    """As `HandoffTo`, without the built-in server, or nothing."""

    expected = '"", "pass:/PATH", ' + ProxyTo.FORM

    def parse(self, value: object) -> Pass | Proxy | None:
        if value == "":
            return None
        try:
            target = HandoffTo().parse(value)
        except ValueError as error:
            raise ValueError(str(error).replace(HandoffTo.expected, self.expected)) from None
        if isinstance(target, Sink):
            raise ValueError(f"bad target {quoted('sink:')}; expected {self.expected}")
        return target


class LogTo:
    expected = '"file:/PATH", "syslog" or "stderr"'

    def parse(self, value: object) -> LogFile | LogSyslog | LogStderr:
        text = _text(value, self.expected)
        if text == "syslog":
            return LogSyslog()
        if text == "stderr":
            return LogStderr()
        if text.startswith("file:/") and text.isprintable():
            return LogFile(text.removeprefix("file:"))
        raise ValueError(f"bad target {quoted(text)}; expected {self.expected}")


class FilePath:
    expected = 'an absolute path, or ""'

    def parse(self, value: object) -> str:
        text = _text(value, self.expected)
        if text and (not text.startswith("/") or not text.isprintable()):
            raise ValueError(f"bad path {quoted(text)}; expected {self.expected}")
        return text


class ListenAt:
    """An address and port, the path of a Unix socket, or nothing."""

    expected = 'an IP address and port, such as "127.0.0.1:9155", or "unix:/PATH", or ""'

    def parse(self, value: object) -> Endpoint | str | None:
        text = _text(value, self.expected)
        if not text:
            return None
        if text.startswith("unix:"):
            path = text.removeprefix("unix:")
            if not path.startswith("/") or not path.isprintable():
                raise ValueError(f"bad path {quoted(text)}; expected {self.expected}")
            return path
        try:
            return Address().parse(text)
        except ValueError:
            raise ValueError(f"bad address {quoted(text)}; expected {self.expected}") from None


class Octets:
    """A set of bytes, with C escapes as in Postfix (reference 1.2 `postscreen_expansion_filter`)."""

    expected = r"ASCII characters and C escapes, such as \t, \40 (octal) or \\"
    _ESCAPE = re.compile(r"\\([abfnrtv\\\"]|[0-7]{1,3})|\\(.?)", re.DOTALL)
    _NAMED: ClassVar[dict[str, int]] = dict(zip('abfnrtv\\"', b'\a\b\f\n\r\t\v\\"', strict=True))

    def parse(self, value: object) -> bytes:
        text = _text(value, self.expected)

        def one(found: re.Match[str]) -> str:
            if found[1] is None:
                raise ValueError(f"bad escape {quoted(found[0])}; expected {self.expected}")
            return chr(self._NAMED[found[1]] if found[1] in self._NAMED else int(found[1], 8) & 0xFF)

        if not text.isascii():
            raise ValueError(f"{quoted(text)} is not ASCII; expected {self.expected}")
        return self._ESCAPE.sub(one, text).encode("latin-1")


class Network:
    """An item of `mynetworks`: network/prefix, address, /file, and `!` before any of them."""

    expected = 'a network ("192.0.2.0/24", "[2001:db8::]/32"), an address or "/FILE", with or without "!" before it'
    _LENGTH = re.compile(r"[^/]+/[0-9]{1,3}", re.ASCII)

    def parse(self, value: object) -> str:
        text = _text(value, self.expected)
        item = text.lstrip("!").strip()
        if item.startswith("/") and item.isprintable():
            return text
        if ":" in item and _TABLE.fullmatch(item) and not item[0].isdigit() and item.partition(":")[0] in TABLE_TYPES:
            raise ValueError(f"{quoted(text)} is a table, which belongs in access.list; expected {self.expected}")
        bare = re.sub(r"\A\[([^]]*)\]", r"\1", item)
        try:
            if "%" in bare:  # a zone is of one machine's interfaces, and no client's address has one
                raise ValueError
            if "/" in bare and not self._LENGTH.fullmatch(bare):
                network = ipaddress.ip_network(bare, strict=False)
                raise ValueError(f"{quoted(text)} has a netmask; expected {quoted(str(network))}")
            ipaddress.ip_network(bare)
        except ValueError as error:
            if "host bits" in str(error):
                network = ipaddress.ip_network(bare, strict=False)
                raise ValueError(
                    f"non-null host address bits in {quoted(text)}, perhaps you should use {quoted(str(network))}"
                    f" instead; expected {self.expected}"
                ) from None
            if "netmask" in str(error) and "expected" in str(error):
                raise
            raise ValueError(f"bad network {quoted(text)}; expected {self.expected}") from None
        return text


class ListOf:
    """A list of values of one kind; an error names the item by its place, counted from 1."""

    def __init__(self, kind: Kind, least: int = 0, most: int = 0, distinct: bool = False) -> None:
        self.kind = kind
        self.least = least
        self.most = most  # 0: any number
        self.distinct = distinct
        self.expected = f"a list in which each item is {kind.expected}"

    def parse(self, value: object) -> tuple[object, ...]:
        if not isinstance(value, list):
            raise ValueError(f"{shown(value)} is not a list; expected {self.expected}")
        if len(value) < self.least:
            raise ValueError(f"the list is empty; expected {self.expected}")
        if self.most and len(value) > self.most:
            raise ValueError(f"{len(value)} items; expected at most {self.most}")
        items: list[object] = []
        problems: list[str] = []
        for place, item in enumerate(value, 1):
            try:
                parsed = self.kind.parse(item)
                if self.distinct and parsed in items:
                    raise ValueError(f"{shown(item)} occurs twice; expected each item once")
            except ValueError as error:
                problems.append(f"item {place}: {error}")
                if len(problems) == MAX_ITEM_PROBLEMS:
                    break
            else:
                items.append(parsed)
        if problems:
            raise SeveralErrors(problems)
        return tuple(items)
