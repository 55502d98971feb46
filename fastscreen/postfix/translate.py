"""From a postscreen's settings to fastscreen's keys, one by one, each with where it is from and what is to be known.

What the keys are and what postscreen calls them is `fastscreen.config.keys`; here is only how a value is rewritten
where its form differs.
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
from fastscreen.postfix import listening, tlssettings
from fastscreen.postfix.defaults import RENAMED
from fastscreen.postfix.files import ReadError, Service
from fastscreen.postfix.settings import Parameter, Settings
from fastscreen.postfix.tablenames import renamed
from fastscreen.postfix.without import WITHOUT
from fastscreen.screening.macros import MacroError, words

_YES = {"yes": True, "no": False}
_BY_NAME = {key.key: key for key in KEYS}
_OF_FILES = ("cidr", "texthash", "regexp", "pcre", "hash", "btree", "lmdb", "cdb", "dbm", "sdbm")
_EVERYWHERE = ["0.0.0.0/0", "::/0"]
_TIME = re.compile(r"\s*([0-9]+)([smhdw]?)(.*)", re.ASCII | re.DOTALL)
_NUMBER = re.compile(r"[+-]?[0-9]+", re.ASCII)
_COMMENT_DROPPED = "the # and all that follows it is dropped"

Toml = str | int | bool | list[str] | list[dict[str, object]]


class Note(Struct, frozen=True):
    """Something to be known about a line. todo: somebody has to do something."""

    text: str
    todo: bool = False


class Other(Struct, frozen=True):
    """Another postscreen that differs in where and how clients come in, at most."""

    service: Service
    settings: Settings


class Entry(Struct):
    """One key. value: None when fastscreen's default stands. sources: what was set in Postfix for it."""

    key: Key
    value: Toml | None
    sources: list[Parameter]
    notes: list[Note]


class Translated(Struct):
    """entries: of every key, in the table's order. without: what is set and has no counterpart, and why."""

    entries: list[Entry]
    without: list[tuple[Parameter, str]]


class _Importer:
    """One run. `note` is told what is to be known about the key in hand."""

    def __init__(
        self,
        settings: Settings,
        tlsproxy: Settings,
        service: Service | None,
        doors: Sequence[Service],
        others: Sequence[Other],
    ) -> None:
        self.settings = settings
        self.tlsproxy = tlsproxy
        self.service = service
        self.doors: Sequence[Service | None] = [service] if service else doors or [None]
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
            "tls.certificates": lambda key: self._tls(tlssettings.certificates),
            "tls.protocols": lambda key: self._tls(tlssettings.protocols),
            "tls.ciphers": lambda key: self._tls(tlssettings.ciphers),
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
        """One key's value, checked as the loader checks it; what it would refuse is left out and named."""
        self.notes = []
        self._forget_unknown()
        try:
            value = self._checked(key)
        except (ValueError, ReadError) as error:
            value = self._without_comment(key, str(error))
        for name in sorted(self.settings.unknown | self.tlsproxy.unknown):
            self.note(f"${escape_text(name)} is set nowhere here: nothing is put in its place", todo=True)
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
        """What is left of a value when a comment that does not belong there is dropped; None: that does not help."""
        notes, self.notes = self.notes, []
        cut = [seen for seen in (self.settings, self.tlsproxy) if any("#" in each.text for each in self._sources(key))]
        self._forget_unknown()
        for seen in cut:
            seen.without_comments = True
        try:
            if cut:
                value = self._checked(key)
                self.note(f"Postfix knows no comments behind a value: {_COMMENT_DROPPED} ({problem})", todo=True)
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
        """The items of a list, up to a comment, which main.cf has no place for."""
        items = _items(name, text)
        at = next((place for place, item in enumerate(items) if item.startswith("#")), len(items))
        if at < len(items):
            dropped = escape_text(" ".join(items[at:]), 200)
            self.note(f"Postfix knows no comments behind a value: {_COMMENT_DROPPED}: {dropped}", todo=True)
        return items[:at]

    def _sources(self, key: Key) -> list[Parameter]:
        """What was set for a key: of a parameter with an old name, or a parent, the one that counts."""
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
        """A deep test that is off has an action for clients that failed another test; both are keys."""
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
            raise ValueError(f"{_name(key)} = {escape_text(text)} is no number")
        number = int(text)
        nearest = min(max(number, kind.least), kind.most)
        if nearest != number and number != kind.also:
            self.note(f"{number} is out of bounds here, {nearest} is next to it", todo=True)
            return nearest
        return number

    def _time(self, key: Key, *, stress: bool = False) -> str:
        """With its unit written; Postfix looks at one letter only, and ours refuses what follows it (reference 1.1)."""
        text = self.settings.value(_name(key), stress=stress)
        found = _TIME.match(text)
        if found is None:
            raise ValueError(f"{_name(key)} = {escape_text(text)} is no time")
        assert isinstance(key.kind, kinds.Time)
        if found[3].strip():
            self.note(f'what stands behind "{found[1]}{found[2]}" has no effect in Postfix and is omitted')
        return f"{int(found[1])}{found[2] or key.kind.unit}"

    def _list(self, key: Key, kind: kinds.Kind) -> list[str]:
        """A list; an item that cannot be taken over is omitted and named."""
        taken: list[str] = []
        for item in self._items(_name(key), self._text(key)):
            if isinstance(kind, kinds.SitePattern) and "." not in re.split("[=*]", item)[0]:
                self.note(f"{escape_text(item)} is omitted: no DNS list, for there is no dot in its name", todo=True)
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
        if colon and name[:1] not in ("", "/") and kind.removeprefix("proxy:") in _OF_FILES:
            bare = f"{kind}:{self.settings.value('queue_directory')}/{name}"
            self.note(f"{escape_text(text)}: daemons of Postfix run in the queue directory")
        found = renamed(bare)
        if found.note:
            self.note(found.note, todo=found.todo)
        return f"!{found.spec}" if text.startswith("!") and found.spec else found.spec

    # ---- keys with rules of their own

    def _prefix(self, key: Key) -> None:
        self.note("postscreen takes each IPv6 address for a client, fastscreen each /64; 128 is postscreen's way")

    def _hostname(self, key: Key) -> str | None:
        return self.settings.value("myhostname") or None

    def _banner(self, key: Key) -> str | None:
        if self.settings.origin("smtpd_banner", "mail_name") is None and not self.settings.value("myhostname"):
            return None
        return self.settings.value("smtpd_banner").replace("$", "$$")

    def _teaser(self, key: Key) -> str:
        text = self.settings.value("postscreen_greet_banner")
        if not text:
            self.note("empty: no pregreet test, as in postscreen")
        if text == self.settings.value("smtpd_banner"):
            self.settings.unknown.clear()  # told of `banner`
            return "$banner"
        return text.replace("$", "$$")

    def _user(self, key: Key) -> str | None:
        owner = self.settings.value("mail_owner")
        return owner if owner != "postfix" else None

    def _listening(self) -> list[str]:
        return self._listening_of(self.doors, self.settings)

    def _listening_of(self, doors: Sequence[Service | None], settings: Settings) -> list[str]:
        interfaces = self._items("inet_interfaces", settings.value("inet_interfaces"))
        protocols = self._items("inet_protocols", settings.value("inet_protocols"))
        found: list[str] = []
        for door in doors:
            here, problems = listening.addresses(door, interfaces, protocols)
            found += here
            for problem in problems:
                self.note(problem, todo=True)
        return list(dict.fromkeys(found))

    def _addresses(self, key: Key) -> list[str] | None:
        plain = [other for other in self.others if not other.settings.value("postscreen_upstream_proxy_protocol")]
        found = [] if self._is_balanced() else self._listening()
        for other in plain:
            found += self._listening_of([other.service], other.settings)
        if not found and self._is_balanced():
            self.note("all of them are the balancer's, in listen.proxy")
            return []
        return list(dict.fromkeys(found)) or None

    def _is_balanced(self) -> bool:
        """Whether the addresses will be in listen.proxy: a file needs one of the two."""
        kept, self.notes = self.notes, []  # what there is to say, listen.proxy says itself
        try:
            ports = self._proxy_port(self._protocol(), self.settings, self._listening)
            return ports is not None and bool(_BY_NAME["listen.proxy"].kind.parse([ports]))
        except (ValueError, ReadError):
            return False
        finally:
            self.notes = kept

    def _protocol(self) -> str:
        """What a balancer speaks; where no postscreen is at the port, to the smtpd there."""
        smtpds = "" if self.service else self.settings.value("smtpd_upstream_proxy_protocol")
        return self.settings.value("postscreen_upstream_proxy_protocol") or smtpds

    def _proxy(self, key: Key) -> list[dict[str, object]] | None:
        found = [self._proxy_port(self._protocol(), self.settings, self._listening)]
        for other in self.others:
            protocol = other.settings.value("postscreen_upstream_proxy_protocol")

            def listening_there(other: Other = other) -> list[str]:
                return self._listening_of([other.service], other.settings)

            try:
                found.append(self._proxy_port(protocol, other.settings, listening_there))
            except ValueError as error:
                self.note(f"{escape_text(other.service.full_name)} is omitted: {error}", todo=True)
        ports = [port for port in found if port is not None]
        if ports:
            self.note("Postfix believes whoever connects; name your balancers in trusted, and nobody else", todo=True)
        return ports or None

    def _proxy_port(
        self, protocol: str, settings: Settings, listening_there: Callable[[], list[str]]
    ) -> dict[str, object] | None:
        """A table of listen.proxy; None: no header is expected there. Raises ValueError."""
        if not protocol:
            return None
        if protocol != "haproxy":
            raise ValueError(f"upstream_proxy_protocol = {escape_text(protocol)} is unknown in Postfix, too")
        text = settings.value("postscreen_upstream_proxy_timeout")
        timeout = _TIME.match(text)
        shown = f"{timeout[1]}{timeout[2] or 's'}" if timeout else ""
        try:
            kinds.Time().parse(shown)
        except ValueError:  # no reason to take a PROXY header for a client's words
            self.note(
                f"postscreen_upstream_proxy_timeout = {escape_text(text)} is omitted: not a time; 5s instead", todo=True
            )
            shown = "5s"
        return {"addresses": listening_there(), "trusted": list(_EVERYWHERE), "timeout": shown}

    def _handoff(self, key: Key) -> str:
        queue, service = self.settings.value("queue_directory"), self.settings.value("smtpd_service_name")
        return f"pass:{queue}/private/{service}"

    def _access(self, key: Key) -> list[str]:
        """The first item that Postfix does not know ends its list without a decision."""
        taken: list[str] = []
        for item in self._items("postscreen_access_list", self.settings.value("postscreen_access_list")):
            if _names_table(item):
                spec = self._table(item)
                if spec:
                    taken.append(spec)
            elif item.lower() in kinds.AccessItem.words:
                taken.append(item.lower())
            else:
                self.note(f"{escape_text(item)}: unknown in Postfix, too, where the list ends here", todo=True)
                taken.append("dunno")
                break
        return taken

    def _mynetworks(self, key: Key) -> list[str] | None:
        text = self.settings.value("mynetworks")
        if not text and self.settings.origin("mynetworks") is None:
            self.note("not set, and there is no postconf to ask what Postfix takes: the machine's own", todo=True)
            return None
        return self._networks("mynetworks", text)

    def _interfaces(self, key: Key) -> list[str]:
        return self._networks(_name(key), self.settings.value(_name(key)))

    def _networks(self, name: str, text: str) -> list[str]:
        """Addresses, networks and files; of tables only `static:` can be said so."""
        taken: list[str] = []
        for item in self._items(name, text):
            bare = item.lstrip("!").strip()
            mark = "!" if item.count("!") % 2 else ""
            if bare.startswith("static:"):
                taken += [mark + network for network in _EVERYWHERE]
                continue
            if _names_table(bare):
                self.note(
                    f"{escape_text(item)} is omitted: write its networks into a file, one a line, and name it as /FILE",
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
            self.note("not set in Postfix, where it is 100; here as many as the open files allow")
            return None
        assert isinstance(key.kind, kinds.Number)
        return self._number(key, key.kind, self._text(key))

    def _cache(self, key: Key) -> str | None:
        cache = self.settings.value("postscreen_cache_map")
        if not cache:
            self.note("postscreen_cache_map is empty: no cache")
            return ""
        caches = [cache, *(other.settings.value("postscreen_cache_map") for other in self.others)]
        for each in dict.fromkeys(filter(None, caches)):
            known = (
                f"a file of fastscreen's own; what postscreen knows: fastscreen cache import {escape_text(each, 300)}"
            )
            self.note(known, todo=self.service is not None)  # where there is no postscreen, nothing is known
        return None

    def _log_to(self, key: Key) -> str:
        path = self.settings.value("maillog_file")
        if path in ("/dev/stdout", "/dev/stderr"):
            return "stderr"
        if path:
            why = "`postfix logrotate` makes the file anew as root's: what fastscreen logs from then on is lost"
            self.note(f"{why}; name a file of its own (contrib/logrotate rotates it) or syslog", todo=True)
        return f"file:{path}" if path else "syslog"

    def _log_ident(self, key: Key) -> str:
        return f"{self.settings.value('syslog_name')}/postscreen"

    # ---- TLS

    def _tls_level(self, key: Key) -> str:
        level, notes = tlssettings.level(self.settings, self.tlsproxy)
        for text, todo in notes:
            self.note(text, todo=todo)
        return level

    def _tls(self, rule: Callable[[Settings, Settings], tuple[Toml | None, tlssettings.Notes]]) -> Toml | None:
        value, notes = rule(self.settings, self.tlsproxy)
        for text, todo in notes:
            self.note(text, todo=todo)
        return value

    def _handshake_time(self, key: Key) -> str | None:
        if self.settings.origin(*key.parameters, *key.parents) is None:
            self.note("not set in Postfix, where it is 300 s (10 s under stress)")
            return None
        return self._time(key)

    def _tls_log_level(self, key: Key) -> int | None:
        text = tlssettings.of_tlsproxy(self.settings, self.tlsproxy, "loglevel")
        if not _NUMBER.fullmatch(text):
            raise ValueError(f"tls_loglevel = {escape_text(text)} is no number")
        return min(1, max(0, int(text)))


def translate(
    settings: Settings,
    tlsproxy: Settings,
    service: Service | None,
    doors: Sequence[Service] = (),
    others: Sequence[Other] = (),
) -> Translated:
    """All keys of a postscreen service. tlsproxy: what the service `tlsproxy` sees, which has postscreen's TLS.
    doors: where there is no postscreen, what has the port. others: postscreens whose ports come into the same file.
    """
    importer = _Importer(settings, tlsproxy, service, doors, others)
    translated = Translated([importer.entry(key) for key in KEYS], _without(settings, tlsproxy))
    no_tls_without_certificates(translated)
    return translated


def no_tls_without_certificates(translated: Translated) -> None:
    """Put tls.level right when there is nothing to make handshakes with."""
    found = {entry.key.key: entry for entry in translated.entries}
    level = found["tls.level"]
    if level.value not in (None, "none") and not found["tls.certificates"].value:
        level.value = "none"
        level.notes.append(Note("without its certificates there can be no STARTTLS", todo=True))


def _without(settings: Settings, tlsproxy: Settings) -> list[tuple[Parameter, str]]:
    known = {name for key in KEYS for name in (*key.parameters, *key.parents)} | USED.keys()
    found: dict[str, tuple[Parameter, str]] = {}
    for name, old in RENAMED.items():
        source = settings.origin(old)
        if source is not None and settings.origin(name) is not None:
            found[old] = (source, f"{name} is set as well, and counts")
    for seen in (settings, tlsproxy):
        for name in seen.set_names():
            why = WITHOUT.get(name)
            if why is None and name.startswith("tlsproxy_client_"):
                why = "of mail that goes out"
            if why is None and name not in known and name.startswith(("postscreen_", "dnsblog_", "tlsproxy_")):
                why = "unknown to this import: mistyped, or of a newer Postfix"
            source = seen.origin(name)
            if why is not None and source is not None and (not name.startswith("smtpd_")):
                found[name] = (source, why)
    return list(found.values())


def _name(key: Key) -> str:
    """The parameter of a key by its newest name."""
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
