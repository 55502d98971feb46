"""How a value of the TOML file becomes a value of the model: one class for each kind of value.

`parse(value)` takes what tomllib gave and raises ValueError("what is wrong; what is allowed"). `allowed` says the same
for the documentation.
"""

from __future__ import annotations

import ipaddress
import re
from typing import ClassVar, Protocol

import msgspec

from fastscreen.config import model
from fastscreen.config.model import Action, Endpoint, LogFile, LogStderr, LogSyslog, Pass, Proxy, Sink, Site, Target
from fastscreen.config.sites import parse_site
from fastscreen.escaping import quoted

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
MAX_INT = 2**31 - 1  # as Postfix: an int
MAX_BANNER = 506  # RFC 5321 section 4.5.3.1.5: 512 octets with `220-` and CRLF
MAX_ITEM_PROBLEMS = 20  # of one list that are named
TABLE_TYPES = ("cidr", "texthash", "inline", "static", "regexp", "pcre")

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
    def allowed(self) -> str: ...
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


def _text(value: object, allowed: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{shown(value)} is not a string; expected {allowed}")
    return value


class Text:
    """Text without control characters, that fits into one line of a protocol or a file name."""

    def __init__(self, allowed: str = "printable text", most: int = 4096) -> None:
        self.allowed = allowed
        self.most = most

    def parse(self, value: object) -> str:
        text = _text(value, self.allowed)
        if len(text) > self.most or any(ord(char) < 32 or ord(char) == 127 for char in text):
            raise ValueError(f"{quoted(text)} has control characters or is too long; expected {self.allowed}")
        return text


class Banner(Text):
    """Text of a 220 line: RFC 5321 section 4.2 textstring."""

    def __init__(self, names: str, empty: bool = False) -> None:
        self.empty = empty
        super().__init__(f"printable ASCII, at most {MAX_BANNER} characters; with {names} and $$ (a $)", MAX_BANNER)

    def parse(self, value: object) -> str:
        text = super().parse(value)
        if not text and not self.empty:
            raise ValueError(f"an empty text; expected {self.allowed}")
        if not text.isascii():
            raise ValueError(f"{quoted(text)} is not ASCII; expected {self.allowed}")
        return text


class Hostname:
    allowed = 'a host name of letters, digits, "-", "_" and dots; "" is the machine\'s own name'

    def parse(self, value: object) -> str:
        text = _text(value, self.allowed)
        if text and (len(text) > 255 or not all(_HOST_LABEL.fullmatch(label) for label in text.split("."))):
            raise ValueError(f"bad host name {quoted(text)}; expected {self.allowed}")
        return text


class Ident:
    """A name of a program or a user."""

    def __init__(self, empty: bool = False) -> None:
        self.empty = empty
        self.allowed = "1 to 64 printable ASCII characters without space" + (', or ""' if empty else "")

    def parse(self, value: object) -> str:
        text = _text(value, self.allowed)
        if text == "" and self.empty:
            return text
        if not _IDENT.fullmatch(text):
            raise ValueError(f"bad name {quoted(text)}; expected {self.allowed}")
        return text


class Choice:
    """One of some words, in any case."""

    def __init__(self, *words: str) -> None:
        self.words = words
        self.allowed = ", ".join(f'"{word}"' for word in words)

    def parse(self, value: object) -> str:
        text = _text(value, self.allowed)
        if text.lower() not in self.words:
            raise ValueError(f"unknown value {quoted(text)}; expected {self.allowed}")
        return text.lower()


class ActionOf:
    """An action in any case; `continue` is Postfix's undocumented word for `ignore` (reference 1.1)."""

    def __init__(self, *actions: Action) -> None:
        self.actions = actions
        self.allowed = ", ".join(f'"{action}"' for action in actions)

    def parse(self, value: object) -> Action:
        word = _text(value, self.allowed).lower()
        word = "ignore" if word == "continue" else word
        if word not in self.actions:
            raise ValueError(f"unknown action {shown(value)}; expected {self.allowed}")
        return Action(word)


class Flag:
    allowed = "true, false"

    def parse(self, value: object) -> bool:
        if not isinstance(value, bool):
            raise ValueError(f"{shown(value)} is not a truth value; expected {self.allowed}")
        return value


class Number:
    """A whole number between bounds, both allowed; `also` is one more value outside of them."""

    def __init__(self, least: int, most: int = MAX_INT, also: int | None = None) -> None:
        self.least, self.most, self.also = least, most, also
        self.allowed = f"a whole number from {least}" if most == MAX_INT else f"a whole number from {least} to {most}"
        if least == -MAX_INT:
            self.allowed = "a whole number"
        if also is not None:
            self.allowed = f"{also} or {self.allowed}"

    def parse(self, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"{shown(value)} is not a whole number; expected {self.allowed}")
        if value != self.also and not self.least <= value <= self.most:
            raise ValueError(f"{shown(value)} is out of bounds; expected {self.allowed}")
        return value


class Workers:
    """A number of processes; 0 for "auto"."""

    allowed = '"auto" or a whole number from 1 to 128'
    _number = Number(1, 128)

    def parse(self, value: object) -> int:
        if value == "auto":
            return 0
        try:
            return self._number.parse(value)
        except ValueError as error:
            raise ValueError(f"{str(error).partition(';')[0]}; expected {self.allowed}") from None


class Time:
    """Seconds: a whole number and a unit, or a number alone in the key's own unit (reference 1.1)."""

    def __init__(self, unit: str = "s", least: int = 1) -> None:
        self.unit, self.least = unit, least
        self.allowed = f'a whole number with a unit s, m, h, d or w (none: {unit}), at least "{least}s"'

    def parse(self, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise ValueError(f"{shown(value)} is not a time; expected {self.allowed}")
        found = _TIME.fullmatch(str(value) if isinstance(value, str) or 0 <= value <= MAX_INT else "-")
        if not found:
            raise ValueError(f"bad time {shown(value)}; expected {self.allowed}")
        seconds = int(found[1]) * UNITS[found[2] or self.unit]
        if not self.least <= seconds <= MAX_INT:
            raise ValueError(f"time {shown(value)} is out of bounds; expected {self.allowed}")
        return seconds


class Size:
    """Bytes: a whole number, or a text with a unit of 1024, 1024² or 1024³ bytes."""

    _FORM = re.compile(r"([0-9]{1,12})([KMG]?)", re.ASCII)
    _UNITS: ClassVar[dict[str, int]] = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}

    def __init__(self, least: str, most: str) -> None:
        self.least, self.most = self._read(least), self._read(most)
        self.allowed = f'a number of bytes, or with a unit K, M or G, from "{least}" to "{most}"'

    def _read(self, text: str) -> int:
        found = self._FORM.fullmatch(text)
        if not found:
            raise ValueError
        return int(found[1]) * self._UNITS[found[2]]

    def parse(self, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise ValueError(f"{shown(value)} is not a size; expected {self.allowed}")
        try:
            size = self._read(str(value))
        except ValueError:
            raise ValueError(f"bad size {shown(value)}; expected {self.allowed}") from None
        if not self.least <= size <= self.most:
            raise ValueError(f"size {shown(value)} is out of bounds; expected {self.allowed}")
        return size


class Address:
    """IPv4:port or [IPv6]:port. With a default port, the port may be left out and an IPv6 address may be bare."""

    _FORM = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+))(?::([0-9]{1,5}))?", re.ASCII)

    def __init__(self, port: int | None = None) -> None:
        self.port = port
        self.allowed = (
            'IP address and port, as "192.0.2.1:25" or "[2001:db8::1]:25"'
            if port is None
            else f'IP address with or without port, as "192.0.2.1", "192.0.2.1:{port}" or "[2001:db8::1]:{port}"'
        )

    def parse(self, value: object) -> Endpoint:
        text = _text(value, self.allowed)
        bare = self.port is not None and text.count(":") > 1 and "[" not in text
        found = self._FORM.fullmatch(f"[{text}]" if bare else text)
        port = self.port if found is None or found[3] is None else int(found[3])
        try:
            # Port 0, any free port, only makes sense for a listener: there the port has no default.
            if found is None or port is None or not (self.port is not None) <= port <= 65535:
                raise ValueError
            address = ipaddress.IPv6Address(found[1]) if found[1] else ipaddress.IPv4Address(found[2])
        except ValueError:
            raise ValueError(f"bad address {quoted(text)}; expected {self.allowed}") from None
        return Endpoint(str(address), port)


class ProxyPort:
    """One table `[[listen.proxy]]`."""

    allowed = (
        'a table with addresses = ["IP:PORT"], trusted = ["NETWORK"] (who may send the header), and timeout = "5s"'
    )

    def parse(self, value: object) -> model.ProxyPort:
        if not isinstance(value, dict):
            raise ValueError(f"{shown(value)} is not a table; expected {self.allowed}")
        kinds: dict[str, Kind] = {
            "addresses": ListOf(Address(), least=1, most=100, distinct=True),
            "trusted": ListOf(Network(), least=1),
            "timeout": Time(),
        }
        if unknown := [name for name in value if name not in kinds]:
            raise ValueError(f"{quoted(unknown[0])}: unknown name; expected {', '.join(kinds)}")
        parsed: dict[str, object] = {}
        for name, kind in kinds.items():
            if name not in value and name != "timeout":
                raise ValueError(f"{name}: left out; expected {kind.allowed}")
            try:
                parsed[name] = kind.parse(value.get(name, "5s"))
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        return msgspec.convert(parsed, model.ProxyPort)


class SitePattern:
    allowed = "domain[=d.d.d.d][*weight], each d a number 0..255 or a [n;n..n] set"

    def parse(self, value: object) -> Site:
        return parse_site(_text(value, self.allowed))


class TableName:
    """`type:table` of a type that `fastscreen.tables` reads; whether the table can be opened shows later."""

    def __init__(self, optional: bool = False) -> None:
        self.optional = optional
        self.allowed = f'"TYPE:TABLE", TYPE one of {", ".join(TABLE_TYPES)}' + (', or ""' if optional else "")

    def parse(self, value: object) -> str:
        text = _text(value, self.allowed)
        if not text and self.optional:
            return text
        if text.startswith("${") or not _TABLE.fullmatch(text):
            raise ValueError(f"{quoted(text)} names no table; expected {self.allowed}")
        check_table_type(text)
        return text


def check_table_type(spec: str) -> None:
    """Refuse a table of a type that is not read here, and say how to convert it (ValueError)."""
    kind, _, name = spec.partition(":")
    if kind in TABLE_TYPES:
        return
    types = ", ".join(TABLE_TYPES)
    if kind in ("hash", "btree", "lmdb", "cdb", "dbm", "sdbm"):
        how = f"convert it with: postmap -s {spec} > {name}.txt, then texthash:{name}.txt"
    elif kind in ("mysql", "pgsql", "ldap", "sqlite", "memcache", "tcp", "socketmap", "proxy", "nis", "netinfo"):
        how = f"ask it with: postmap -q KEY {spec}, and keep the answers in a texthash: file"
    else:
        how = "see man 5 postconf for what these hold"
    raise ValueError(f"table type {quoted(kind)} is not read here, {quoted(how)[1:-1]}; expected {types}")


class Word:
    """An item of a string list (reference 1.2): a bare word, or a table."""

    allowed = f'a word or "TYPE:TABLE", TYPE one of {", ".join(TABLE_TYPES)}'

    def parse(self, value: object) -> str:
        text = _text(value, self.allowed)
        if ":" in text:
            return TableName().parse(text.removeprefix("!")) and text
        if not text or any(char.isspace() or not char.isprintable() for char in text):
            raise ValueError(f"{quoted(text)} is not a word; expected {self.allowed}")
        return text


class AccessItem:
    """An item of the access list (reference 1.2); words in any case."""

    words = ("permit", "reject", "dunno", "permit_mynetworks")
    allowed = f'"permit", "reject", "dunno", "permit_mynetworks", "TYPE:TABLE" ({", ".join(TABLE_TYPES)})'

    def parse(self, value: object) -> str:
        text = _text(value, self.allowed)
        if ":" in text:
            return TableName().parse(text)
        if text.lower() not in self.words:
            raise ValueError(f"unknown word {quoted(text)}; expected {self.allowed}")
        return text.lower()


def _is_socket_path(path: str) -> bool:
    return path.startswith("/") and path.isprintable() and len(path.encode()) <= 107


class ProxyTo:
    """MTAs that read the PROXY protocol. `most`: as many as the core takes."""

    most = 16
    allowed = (
        '"proxy:IP:PORT" or "proxy:unix:/PATH/OF/SOCKET", or a list of those: the first that answers; with *WEIGHT '
        "behind each (1 to 1000): each by its weight"
    )
    _FORM = re.compile(r"proxy:(.+?)(?:\*([0-9]{1,4}))?", re.ASCII | re.DOTALL)

    def parse(self, value: object) -> Proxy | None:
        if value == "":
            return None
        items = value if isinstance(value, list) else [value]
        if not 0 < len(items) <= self.most:
            raise ValueError(f"{len(items)} targets; expected {self.allowed}, at most {self.most}")
        targets = tuple(self._target(item) for item in items)
        if len({target.where for target in targets}) < len(targets):
            raise ValueError(f"a target is there twice; expected {self.allowed}")
        if len({target.weight > 0 for target in targets}) > 1:
            raise ValueError(f"some targets have a weight and some have none; expected {self.allowed}")
        return Proxy(targets)

    def _target(self, item: object) -> Target:
        text = _text(item, self.allowed)
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
            raise ValueError(f"bad target {quoted(text)}; expected {self.allowed}") from None
        return Target(where, weight)


class HandoffTo:
    allowed = '"pass:/PATH/OF/SOCKET" (Postfix: /var/spool/postfix/private/smtpd), "sink:", ' + ProxyTo.allowed

    def parse(self, value: object) -> Pass | Sink | Proxy:
        if isinstance(value, list) or (isinstance(value, str) and value.startswith("proxy:")):
            proxy = ProxyTo().parse(value)
            assert proxy is not None
            return proxy
        text = _text(value, self.allowed)
        kind, _, path = text.partition(":")
        if text == "sink:":
            return Sink()
        if kind == "pass" and _is_socket_path(path):
            return Pass(path)
        raise ValueError(f"bad target {quoted(text)}; expected {self.allowed}")


class LogTo:
    allowed = '"file:/PATH", "syslog", "stderr"'

    def parse(self, value: object) -> LogFile | LogSyslog | LogStderr:
        text = _text(value, self.allowed)
        if text == "syslog":
            return LogSyslog()
        if text == "stderr":
            return LogStderr()
        if text.startswith("file:/") and text.isprintable():
            return LogFile(text.removeprefix("file:"))
        raise ValueError(f"bad target {quoted(text)}; expected {self.allowed}")


class FilePath:
    allowed = 'an absolute path, or "" for none'

    def parse(self, value: object) -> str:
        text = _text(value, self.allowed)
        if text and (not text.startswith("/") or not text.isprintable()):
            raise ValueError(f"bad path {quoted(text)}; expected {self.allowed}")
        return text


class ListenAt:
    """An address and port, the path of a Unix socket, or nothing."""

    allowed = 'IP address and port, as "127.0.0.1:9155", an absolute path as "unix:/run/fastscreen/metrics", or ""'

    def parse(self, value: object) -> Endpoint | str | None:
        text = _text(value, self.allowed)
        if not text:
            return None
        if text.startswith("unix:"):
            path = text.removeprefix("unix:")
            if not path.startswith("/") or not path.isprintable():
                raise ValueError(f"bad path {quoted(text)}; expected {self.allowed}")
            return path
        try:
            return Address().parse(text)
        except ValueError:
            raise ValueError(f"bad address {quoted(text)}; expected {self.allowed}") from None


class Octets:
    """Allowed octets, C escapes as in Postfix (reference 1.2 `postscreen_expansion_filter`)."""

    allowed = r"ASCII characters and C escapes (\t, \40 octal, \\)"
    _ESCAPE = re.compile(r"\\([abfnrtv\\\"]|[0-7]{1,3})|\\(.?)", re.DOTALL)
    _NAMED: ClassVar[dict[str, int]] = dict(zip('abfnrtv\\"', b'\a\b\f\n\r\t\v\\"', strict=True))

    def parse(self, value: object) -> bytes:
        text = _text(value, self.allowed)

        def one(found: re.Match[str]) -> str:
            if found[1] is None:
                raise ValueError(f"bad escape {quoted(found[0])}; expected {self.allowed}")
            return chr(self._NAMED[found[1]] if found[1] in self._NAMED else int(found[1], 8) & 0xFF)

        if not text.isascii():
            raise ValueError(f"{quoted(text)} is not ASCII; expected {self.allowed}")
        return self._ESCAPE.sub(one, text).encode("latin-1")


class Network:
    """An item of `mynetworks`: network/prefix, address, /file, and `!` before any of them."""

    allowed = 'a network ("192.0.2.0/24", "[2001:db8::]/32"), an address, "/FILE", each also with "!" before it'
    _LENGTH = re.compile(r"[^/]+/[0-9]{1,3}", re.ASCII)

    def parse(self, value: object) -> str:
        text = _text(value, self.allowed)
        item = text.lstrip("!").strip()
        if item.startswith("/") and item.isprintable():
            return text
        if ":" in item and _TABLE.fullmatch(item) and not item[0].isdigit() and item.partition(":")[0] in TABLE_TYPES:
            raise ValueError(
                f"tables are not read here ({quoted(text)}), put it into access.list; expected {self.allowed}"
            )
        bare = re.sub(r"\A\[([^]]*)\]", r"\1", item)
        try:
            if "%" in bare:  # a zone is of one machine's interfaces, and no client's address has one
                raise ValueError
            if "/" in bare and not self._LENGTH.fullmatch(bare):
                network = ipaddress.ip_network(bare, strict=False)
                raise ValueError(f"a netmask in {quoted(text)}; expected {quoted(str(network))}")
            ipaddress.ip_network(bare)
        except ValueError as error:
            if "host bits" in str(error):
                network = ipaddress.ip_network(bare, strict=False)
                raise ValueError(
                    f"non-null host address bits in {quoted(text)}, perhaps you should use {quoted(str(network))}"
                    f" instead; expected {self.allowed}"
                ) from None
            if "netmask" in str(error) and "expected" in str(error):
                raise
            raise ValueError(f"bad network {quoted(text)}; expected {self.allowed}") from None
        return text


class ListOf:
    """A list of values of one kind; an error names the item by its place, counted from 1."""

    def __init__(self, kind: Kind, empty: str = "", least: int = 0, most: int = 0, distinct: bool = False) -> None:
        self.kind = kind
        self.least = least
        self.most = most  # 0: any number
        self.distinct = distinct
        self.allowed = f"a list of: {kind.allowed}" + (f"; {empty}" if empty else "")

    def parse(self, value: object) -> tuple[object, ...]:
        if not isinstance(value, list):
            raise ValueError(f"{shown(value)} is not a list; expected {self.allowed}")
        if len(value) < self.least:
            raise ValueError(f"an empty list; expected {self.allowed}")
        if self.most and len(value) > self.most:
            raise ValueError(f"{len(value)} items; expected at most {self.most}")
        items: list[object] = []
        problems: list[str] = []
        for place, item in enumerate(value, 1):
            try:
                parsed = self.kind.parse(item)
                if self.distinct and parsed in items:
                    raise ValueError(f"{shown(item)} is there twice; expected {self.allowed}")
            except ValueError as error:
                problems.append(f"item {place}: {error}")
                if len(problems) == MAX_ITEM_PROBLEMS:
                    break
            else:
                items.append(parsed)
        if problems:
            raise SeveralErrors(problems)
        return tuple(items)
