"""Translates postscreen's settings to fastscreen's keys, each with its origin and with notes for the operator.

`fastscreen.config.keys` defines the keys and their names in postscreen. This module only converts values whose form
differs.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Sequence

from msgspec import Struct

from fastscreen.config import kinds
from fastscreen.config.keys import KEYS, Key
from fastscreen.config.load import default_value
from fastscreen.config.postfix_names import USED
from fastscreen.escaping import escape_text
from fastscreen.postfix import listening, tls_settings
from fastscreen.postfix.defaults import RENAMED
from fastscreen.postfix.files import ReadError, Service
from fastscreen.postfix.no_counterpart import NO_COUNTERPART
from fastscreen.postfix.settings import Parameter, Settings
from fastscreen.postfix.table_names import convert
from fastscreen.screening.macros import MacroError, words

_YES = {"yes": True, "no": False}
_BY_NAME = {key.key: key for key in KEYS}
_FILE_TYPES = ("cidr", "texthash", "regexp", "pcre", "hash", "btree", "lmdb", "cdb", "dbm", "sdbm")
_ANY_NETWORK = ["0.0.0.0/0", "::/0"]
_TIME = re.compile(r"\s*([0-9]+)([smhdw]?)(.*)", re.ASCII | re.DOTALL)
_NUMBER = re.compile(r"[+-]?[0-9]+", re.ASCII)
_COMMENT_DROPPED = "Postfix does not allow comments after a value: the # and everything after it is omitted"

Toml = str | int | bool | list[str] | list[dict[str, object]]


class Note(Struct, frozen=True):
    """A note for the operator about a key. todo: whether it asks for action."""

    text: str
    todo: bool = False


class OtherService(Struct, frozen=True):
    """Another postscreen service, which differs at most in its addresses and in its PROXY protocol."""

    service: Service
    settings: Settings


class Entry(Struct):
    """One key. value: None for fastscreen's default. sources: the parameters that were set in Postfix."""

    key: Key
    value: Toml | None
    sources: list[Parameter]
    notes: list[Note]


class Translated(Struct):
    """entries: every key, in the order of the table. no_counterpart: parameters that are set but do not become a key,
    with the reason.
    """

    entries: list[Entry]
    no_counterpart: list[tuple[Parameter, str]]


class _Importer:
    """One run. `note` adds a note about the key that is being translated."""

    def __init__(
        self,
        settings: Settings,
        tlsproxy: Settings,
        service: Service | None,
        listeners: Sequence[Service],
        others: Sequence[OtherService],
    ) -> None:
        self.settings = settings
        self.tlsproxy = tlsproxy
        self.service = service
        self.listeners: Sequence[Service | None] = [service] if service else listeners or [None]
        self.others = others
        self.notes: list[Note] = []
        self._special: dict[str, Callable[[Key], Toml | None]] = {
            "hostname": self._hostname,
            "banner": self._banner,
            "user": self._user,
            "listen.addresses": self._addresses,
            "listen.proxy": self._proxy,
            "handoff.to": self._handoff,
            "access.list": self._access,
            "access.mynetworks": self._mynetworks,
            "access.allowlist_interfaces": self._interfaces,
            "greet.banner": self._teaser,
            "greet.stress_wait": lambda key: self._time(key, stress=True),
            "engine.stress_command_time_limit": lambda key: self._time(key, stress=True),
            "engine.announce_vrfy": self._announce_vrfy,
            "tls.level": self._tls_level,
            "tls.certificates": lambda key: self._tls(tls_settings.certificates),
            "tls.protocols": lambda key: self._tls(tls_settings.protocols),
            "tls.ciphers": lambda key: self._tls(tls_settings.ciphers),
            "tls.handshake_time": self._handshake_time,
            "tls.log_level": self._tls_log_level,
            "cache.path": self._cache,
            "cache.prefix_ipv6": self._prefix,
            "limits.client_connection_prefix_ipv6": self._prefix,
            "limits.pre_queue": self._limit,
            "log.to": self._log_to,
            "log.ident": self._log_ident,
        }

    def note(self, text: str, *, todo: bool = False) -> None:
        self.notes.append(Note(text, todo))

    def entry(self, key: Key) -> Entry:
        """The value of one key. A value that the loader would reject is omitted with a note."""
        self.notes = []
        self._forget_unknown()
        try:
            value = self._checked(key)
        except (ValueError, ReadError) as error:
            value = self._without_comment(key, str(error))
        for name in sorted(self.settings.unknown | self.tlsproxy.unknown):
            self.note(f"${escape_text(name)} is not set on this machine, and is replaced with nothing", todo=True)
        return Entry(key, value, self._sources(key), self.notes)

    def _forget_unknown(self) -> None:
        self.settings.unknown.clear()
        self.tlsproxy.unknown.clear()

    def _checked(self, key: Key) -> Toml | None:
        """None: the default. Raises ValueError, ReadError."""
        value = self._value(key)
        if value is not None:
            parsed = key.kind.parse(value)
            if parsed == key.kind.parse(default_value(key)) and not self._sources(key):
                return None
        return value

    def _without_comment(self, key: Key, problem: str) -> Toml | None:
        """The value without a comment that Postfix does not allow there; None if it is not valid either."""
        notes, self.notes = self.notes, []
        cut = [seen for seen in (self.settings, self.tlsproxy) if any("#" in each.text for each in self._sources(key))]
        self._forget_unknown()
        for seen in cut:
            seen.without_comments = True
        try:
            if cut:
                value = self._checked(key)
                self.note(f"{_COMMENT_DROPPED} ({problem})", todo=True)
                return value
        except (ValueError, ReadError):
            pass
        finally:
            for seen in cut:
                seen.without_comments = False
        self.notes = notes
        self.note(f"omitted: {problem}", todo=True)
        return None

    def _items(self, name: str, text: str) -> list[str]:
        """The items of a list, up to a comment, which Postfix does not allow there."""
        items = _items(name, text)
        at = next((index for index, item in enumerate(items) if item.startswith("#")), len(items))
        if at < len(items):
            dropped = escape_text(" ".join(items[at:]), 200)
            self.note(f"{_COMMENT_DROPPED}: {dropped}", todo=True)
        return items[:at]

    def _sources(self, key: Key) -> list[Parameter]:
        """The parameters that were set for a key; of old names and parents, the one that is used."""
        names = key.parameters
        if key.key.startswith("deep.") and names[0].endswith("_enable"):
            found = [self.settings.origin(name) for name in names]
        elif key.key.startswith("tls.") and key.key != "tls.handshake_time":
            return self._tls_sources(key.key)
        elif key.key == "listen.addresses":
            found = [self.settings.origin(name) for name in ("inet_interfaces", "inet_protocols")]
        elif key.key == "listen.proxy":
            smtpds = ("smtpd_upstream_proxy_protocol",) if self.service is None else ()
            found = [self.settings.origin(name) for name in (*names, *smtpds)]
        elif key.key == "handoff.to":
            found = [self.settings.origin(name) for name in ("queue_directory", *names)]
        else:
            found = [self.settings.origin(*names, *key.parents)]
        return [each for each in found if each is not None]

    def _tls_sources(self, key: str) -> list[Parameter]:
        found: dict[str, Parameter] = {}
        for name, used in USED.items():
            seen = self.tlsproxy if name.startswith("tlsproxy_") else self.settings
            if used == key and (source := seen.origin(name)):
                found[name] = source
        return list(found.values())

    def _value(self, key: Key) -> Toml | None:
        if key.key in self._special:
            return self._special[key.key](key)
        if not key.parameters:
            return None
        kind = key.kind
        if isinstance(kind, kinds.ActionOf):
            return self._action(key)
        if isinstance(kind, kinds.Time):
            return self._time(key)
        if isinstance(kind, kinds.ListOf):
            return self._list(key, kind.kind)
        text = self._text(key)
        if isinstance(kind, kinds.Flag):
            return self._flag(key.parameters[0], text)
        if isinstance(kind, kinds.Number):
            return self._number(key, kind, text)
        if isinstance(kind, kinds.TableName):
            return self._table(text) if text else ""
        if isinstance(kind, kinds.Choice):
            return text.lower()
        return text

    def _text(self, key: Key) -> str:
        return self.settings.value(_name(key))

    # ---- kinds of value

    def _action(self, key: Key) -> str:
        """The action of a test. A disabled deep test also has an action, for clients that failed another test."""
        if key.parameters[0].endswith("_enable") and not self._flag(
            key.parameters[0], self.settings.value(key.parameters[0])
        ):
            return "off"
        name = key.parameters[-1] if key.parameters[0].endswith("_enable") else key.parameters[0]
        return self.settings.value(name).lower()

    def _flag(self, name: str, text: str) -> bool:
        if text.lower() not in _YES:
            raise ValueError(f"{name} = {escape_text(text)} is neither yes nor no")
        return _YES[text.lower()]

    def _number(self, key: Key, kind: kinds.Number, text: str) -> int:
        if not _NUMBER.fullmatch(text.strip()):
            raise ValueError(f"{_name(key)} = {escape_text(text)} is not a number")
        number = int(text)
        nearest = min(max(number, kind.least), kind.most)
        if nearest != number and number != kind.also:
            self.note(f"{number} is out of bounds in fastscreen; {nearest} is used instead", todo=True)
            return nearest
        return number

    def _time(self, key: Key, *, stress: bool = False) -> str:
        """A time with its unit. Postfix ignores what follows the unit, which fastscreen rejects (reference 1.1)."""
        text = self.settings.value(_name(key), stress=stress)
        found = _TIME.match(text)
        if found is None:
            raise ValueError(f"{_name(key)} = {escape_text(text)} is not a time")
        assert isinstance(key.kind, kinds.Time)
        if found[3].strip():
            self.note(f'the text after "{found[1]}{found[2]}" is ignored by Postfix and omitted')
        return f"{int(found[1])}{found[2] or key.kind.unit}"

    def _list(self, key: Key, kind: kinds.Kind) -> list[str]:
        """A list. Items that cannot be used are omitted with a note."""
        taken: list[str] = []
        for item in self._items(_name(key), self._text(key)):
            if isinstance(kind, kinds.SitePattern) and "." not in re.split("[=*]", item)[0]:
                self.note(
                    f"{escape_text(item)} is omitted: not a DNS list, because the dot is missing in its name", todo=True
                )
                continue
            spec = self._table(item) if _names_table(item) and not isinstance(kind, kinds.SitePattern) else item
            try:
                kind.parse(spec)
            except ValueError as error:
                if spec:
                    self.note(f"{escape_text(item)} is omitted: {error}", todo=True)
            else:
                taken.append(spec)
        return taken

    def _table(self, text: str) -> str:
        bare = text.removeprefix("!")
        kind, colon, name = bare.rpartition(":") if "{" not in bare else ("", "", "")
        if colon and name[:1] not in ("", "/") and kind.removeprefix("proxy:") in _FILE_TYPES:
            bare = f"{kind}:{self.settings.value('queue_directory')}/{name}"
            self.note(f"{escape_text(text)}: relative to the queue directory, as in Postfix")
        found = convert(bare)
        if found.note:
            self.note(found.note, todo=found.todo)
        return f"!{found.spec}" if text.startswith("!") and found.spec else found.spec

    # ---- keys with special rules

    def _prefix(self, key: Key) -> None:
        self.note(
            "postscreen treats each IPv6 address as a client, fastscreen each /64; 128 gives postscreen's behavior"
        )

    def _hostname(self, key: Key) -> str | None:
        return self.settings.value("myhostname") or None

    def _banner(self, key: Key) -> str | None:
        if self.settings.origin("smtpd_banner", "mail_name") is None and not self.settings.value("myhostname"):
            return None
        return self.settings.value("smtpd_banner").replace("$", "$$")

    def _teaser(self, key: Key) -> str:
        text = self.settings.value("postscreen_greet_banner")
        if not text:
            self.note("empty: disables the pregreet test, as in postscreen")
        if text == self.settings.value("smtpd_banner"):
            self.settings.unknown.clear()  # already noted for `banner`
            return "$banner"
        return text.replace("$", "$$")

    def _user(self, key: Key) -> str | None:
        owner = self.settings.value("mail_owner")
        return owner if owner != "postfix" else None

    def _listening(self) -> list[str]:
        return self._listening_of(self.listeners, self.settings)

    def _listening_of(self, listeners: Sequence[Service | None], settings: Settings) -> list[str]:
        interfaces = self._items("inet_interfaces", settings.value("inet_interfaces"))
        protocols = self._items("inet_protocols", settings.value("inet_protocols"))
        found: list[str] = []
        for listener in listeners:
            addresses, problems = listening.addresses(listener, interfaces, protocols)
            found += addresses
            for problem in problems:
                self.note(problem, todo=True)
        return list(dict.fromkeys(found))

    def _addresses(self, key: Key) -> list[str] | None:
        plain = [other for other in self.others if not other.settings.value("postscreen_upstream_proxy_protocol")]
        found = [] if self._is_balanced() else self._listening()
        for other in plain:
            found += self._listening_of([other.service], other.settings)
        if not found and self._is_balanced():
            self.note("all addresses accept the PROXY protocol and are in listen.proxy")
            return []
        return list(dict.fromkeys(found)) or None

    def _is_balanced(self) -> bool:
        """Whether the addresses will be in listen.proxy; if not, they have to be in listen.addresses."""
        kept, self.notes = self.notes, []  # the notes are added for listen.proxy
        try:
            ports = self._proxy_port(self._protocol(), self.settings, self._listening)
            return ports is not None and bool(_BY_NAME["listen.proxy"].kind.parse([ports]))
        except (ValueError, ReadError):
            return False
        finally:
            self.notes = kept

    def _protocol(self) -> str:
        """The PROXY protocol of postscreen, or of smtpd without a postscreen service."""
        smtpds = "" if self.service else self.settings.value("smtpd_upstream_proxy_protocol")
        return self.settings.value("postscreen_upstream_proxy_protocol") or smtpds

    def _proxy(self, key: Key) -> list[dict[str, object]] | None:
        found = [self._proxy_port(self._protocol(), self.settings, self._listening)]
        for other in self.others:
            protocol = other.settings.value("postscreen_upstream_proxy_protocol")

            def listening_there(other: OtherService = other) -> list[str]:
                return self._listening_of([other.service], other.settings)

            try:
                port = self._proxy_port(protocol, other.settings, listening_there)
                if port is not None and port["addresses"]:  # otherwise a note says why
                    found.append(port)
            except ValueError as error:
                self.note(f"{escape_text(other.service.full_name)} is omitted: {error}", todo=True)
        ports = [port for port in found if port is not None]
        if ports:
            self.note("Postfix trusts every client; set trusted to the addresses of your load balancers", todo=True)
        return ports or None

    def _proxy_port(
        self, protocol: str, settings: Settings, listening_there: Callable[[], list[str]]
    ) -> dict[str, object] | None:
        """A table of listen.proxy; None if the port does not use the PROXY protocol. Raises ValueError."""
        if not protocol:
            return None
        if protocol != "haproxy":
            raise ValueError(f"upstream_proxy_protocol = {escape_text(protocol)} is not known to Postfix either")
        text = settings.value("postscreen_upstream_proxy_timeout")
        timeout = _TIME.match(text)
        shown = f"{timeout[1]}{timeout[2] or 's'}" if timeout else ""
        try:
            kinds.Time().parse(shown)
        except ValueError:  # the port must be kept, or PROXY headers would be read as SMTP commands
            self.note(
                f"postscreen_upstream_proxy_timeout = {escape_text(text)} is omitted: not a time; 5s is used instead",
                todo=True,
            )
            shown = "5s"
        return {"addresses": listening_there(), "trusted": list(_ANY_NETWORK), "timeout": shown}

    def _handoff(self, key: Key) -> str:
        queue, service = self.settings.value("queue_directory"), self.settings.value("smtpd_service_name")
        return f"pass:{queue}/private/{service}"

    def _access(self, key: Key) -> list[str]:
        """In Postfix, an unknown item ends the list without a decision."""
        taken: list[str] = []
        for item in self._items("postscreen_access_list", self.settings.value("postscreen_access_list")):
            if _names_table(item):
                spec = self._table(item)
                if spec:
                    taken.append(spec)
            elif item.lower() in kinds.AccessItem.words:
                taken.append(item.lower())
            else:
                self.note(f"{escape_text(item)}: unknown in Postfix, which ignores the rest of the list", todo=True)
                taken.append("dunno")
                break
        return taken

    def _mynetworks(self, key: Key) -> list[str] | None:
        text = self.settings.value("mynetworks")
        if not text and self.settings.origin("mynetworks") is None:
            self.note("not set, and postconf is missing; fastscreen uses the addresses of this machine", todo=True)
            return None
        return self._networks("mynetworks", text)

    def _interfaces(self, key: Key) -> list[str]:
        return self._networks(_name(key), self.settings.value(_name(key)))

    def _networks(self, name: str, text: str) -> list[str]:
        """Addresses, networks and files. Of the table types, only `static:` can be converted."""
        taken: list[str] = []
        for item in self._items(name, text):
            bare = item.lstrip("!").strip()
            mark = "!" if item.count("!") % 2 else ""
            if bare.startswith("static:"):
                taken += [mark + network for network in _ANY_NETWORK]
                continue
            if _names_table(bare):
                self.note(
                    f"{escape_text(item)} is omitted: write its networks to a file, one per line, and use /FILE",
                    todo=True,
                )
                continue
            try:
                kinds.Network().parse(item)
            except ValueError as error:
                self.note(f"{escape_text(item)} is omitted: {error}", todo=True)
            else:
                taken.append(item)
        return taken

    def _announce_vrfy(self, key: Key) -> bool | None:
        announced = not self._flag("disable_vrfy_command", self.settings.value("disable_vrfy_command"))
        disabled = self._flag("postscreen_disable_vrfy_command", self.settings.value("postscreen_disable_vrfy_command"))
        return announced if announced == disabled else None

    def _limit(self, key: Key) -> int | None:
        if self.settings.origin(*key.parameters, *key.parents) is None:
            self.note("not set in Postfix, where the default is 100; here it depends on the limit of open files")
            return None
        assert isinstance(key.kind, kinds.Number)
        return self._number(key, key.kind, self._text(key))

    def _cache(self, key: Key) -> str | None:
        cache = self.settings.value("postscreen_cache_map")
        if not cache:
            self.note("postscreen_cache_map is empty: the cache is disabled")
            return ""
        caches = [cache, *(other.settings.value("postscreen_cache_map") for other in self.others)]
        for each in dict.fromkeys(filter(None, caches)):
            text = f"fastscreen has its own file; import postscreen's: fastscreen cache import {escape_text(each, 300)}"
            self.note(text, todo=self.service is not None)  # without postscreen there is nothing to copy
        return None

    def _log_to(self, key: Key) -> str:
        path = self.settings.value("maillog_file")
        if path in ("/dev/stdout", "/dev/stderr"):
            return "stderr"
        if path:
            why = "`postfix logrotate` creates this file again as root's, and fastscreen's log is lost from then on"
            self.note(f"{why}; use a separate file (contrib/logrotate rotates it) or syslog", todo=True)
        return f"file:{path}" if path else "syslog"

    def _log_ident(self, key: Key) -> str:
        return f"{self.settings.value('syslog_name')}/postscreen"

    # ---- TLS

    def _tls_level(self, key: Key) -> str:
        level, notes = tls_settings.level(self.settings, self.tlsproxy)
        for text, todo in notes:
            self.note(text, todo=todo)
        return level

    def _tls(self, rule: Callable[[Settings, Settings], tuple[Toml | None, tls_settings.Notes]]) -> Toml | None:
        value, notes = rule(self.settings, self.tlsproxy)
        for text, todo in notes:
            self.note(text, todo=todo)
        return value

    def _handshake_time(self, key: Key) -> str | None:
        if self.settings.origin(*key.parameters, *key.parents) is None:
            self.note("not set in Postfix, where the default is 300 s (10 s under stress)")
            return None
        return self._time(key)

    def _tls_log_level(self, key: Key) -> int | None:
        text = tls_settings.of_tlsproxy(self.settings, self.tlsproxy, "loglevel")
        if not _NUMBER.fullmatch(text):
            raise ValueError(f"tls_loglevel = {escape_text(text)} is not a number")
        return min(1, max(0, int(text)))


def translate(
    settings: Settings,
    tlsproxy: Settings,
    service: Service | None,
    listeners: Sequence[Service] = (),
    others: Sequence[OtherService] = (),
) -> Translated:
    """Translate the settings of a postscreen service. tlsproxy: the settings of the service tlsproxy, which handles
    postscreen's TLS. listeners: the smtpd services on the port, without a postscreen service. others: other postscreen
    services whose ports are added to the same file.
    """
    importer = _Importer(settings, tlsproxy, service, listeners, others)
    translated = Translated([importer.entry(key) for key in KEYS], _without_counterpart(settings, tlsproxy))
    disable_tls_without_certificates(translated)
    return translated


def disable_tls_without_certificates(translated: Translated) -> None:
    """Set tls.level to none if the certificates are missing."""
    found = {entry.key.key: entry for entry in translated.entries}
    level = found["tls.level"]
    if level.value not in (None, "none") and not found["tls.certificates"].value:
        level.value = "none"
        level.notes.append(Note("STARTTLS is disabled, because it needs certificates", todo=True))


def _without_counterpart(settings: Settings, tlsproxy: Settings) -> list[tuple[Parameter, str]]:
    known = {name for key in KEYS for name in (*key.parameters, *key.parents)} | USED.keys()
    found: dict[str, tuple[Parameter, str]] = {}
    for name, old in RENAMED.items():
        source = settings.origin(old)
        if source is not None and settings.origin(name) is not None:
            found[old] = (source, f"ignored, because {name} is set as well")
    for seen in (settings, tlsproxy):
        for name in seen.set_names():
            why = NO_COUNTERPART.get(name)
            if why is None and name.startswith("tlsproxy_client_"):
                why = "only for outgoing mail"
            if why is None and name not in known and name.startswith(("postscreen_", "dnsblog_", "tlsproxy_")):
                why = "unknown: mistyped, or from a newer Postfix"
            source = seen.origin(name)
            if why is not None and source is not None and (not name.startswith("smtpd_")):
                found[name] = (source, why)
    return list(found.values())


def _name(key: Key) -> str:
    """The newest parameter name of a key."""
    return key.parameters[0]


def _items(name: str, text: str) -> list[str]:
    try:
        return words(text)
    except MacroError as error:
        raise ValueError(f"{name}: {error}") from None


def _names_table(item: str) -> bool:
    bare = item.lstrip("!").strip()
    return re.match(r"[a-z][a-z0-9]*:", bare) is not None and not _is_network(bare)


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True
