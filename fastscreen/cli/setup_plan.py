"""What `fastscreen setup` would write: the configuration in shadow mode, and the change to master.cf."""

from __future__ import annotations

import contextlib
import pwd
import socket
import stat
import tomllib
from pathlib import Path

from msgspec import Struct

from fastscreen.cli import import_postfix, setup_service
from fastscreen.cli.import_postfix import Result
from fastscreen.cli.setup_questions import Questions, yes_or_no
from fastscreen.config import Config, ConfigError, Endpoint, parse
from fastscreen.config.keys import KEYS
from fastscreen.config.load import default_value
from fastscreen.dns.resolver import system_nameservers
from fastscreen.escaping import escape_text
from fastscreen.postfix import files, listening, master_cf, output, settings
from fastscreen.postfix.files import ReadError
from fastscreen.postfix.translate import Entry, Note, Toml, Translated
from fastscreen.postfix.verify import verify
from fastscreen.process.log_output import SYSLOG_SOCKET

TRIAL_PORT = 2525
LOG_FILE = "file:/var/log/fastscreen.log"  # without a syslog daemon
LETS_ENCRYPT = Path("/etc/letsencrypt/live")
NONE = "none"
POSTFIX = "postfix"
_NO_TEST = ["127.0.0.0/8", "[::1]/128"]
_KEYS = {key.key: key for key in KEYS}
_EVERYWHERE = ("0.0.0.0", "[::]")
_SHADOW = "made by fastscreen setup: nobody is rejected; remove it when you have seen enough (docs/shadow.md)"
_ANSWERED = "answered to fastscreen setup"
_ABOUT_SHADOW = "mode is shadow: no client is rejected"  # a warning of the configuration, which setup explains
_SEEN = "made by fastscreen setup, to see in shadow mode who fails this test"


class PlanError(Exception):
    """Setup cannot go on. The message is one line."""


class Answers(Struct):
    """What was answered. mta: `postfix`, or HOST:PORT of another MTA. takes_port: fastscreen gets Postfix's port."""

    mta: str = ""
    listen: list[str] = []
    takes_port: bool = False
    networks: list[str] = []
    lists: list[str] = []
    certificates: list[str] = []


class MasterChange(Struct):
    """The change to master.cf in two steps. ready: with the service that receives clients, but the port still is
    Postfix's. after: without the service on the port.
    """

    folder: Path
    path: Path
    before: bytes
    ready: bytes
    after: bytes

    @property
    def takes_port(self) -> bool:
        return self.after != self.ready


class Plan(Struct):
    """Everything that would be written. todo: notes from the import."""

    text: str
    user: str
    answers: Answers
    config: Config
    listen: list[Endpoint]
    proxied: bool
    master: MasterChange | None = None
    todo: list[str] = []
    cache_map: str = ""


class Given(Struct):
    """Options of the command line; None: not given."""

    folder: Path
    mta: str | None = None
    listen: str | None = None
    networks: str | None = None
    lists: str | None = None
    certificates: str | None = None
    now: bool | None = None


class Findings(Struct):
    """What is on this machine. result: the import of Postfix's settings in shadow mode, without answers."""

    postfix: settings.Postfix | None = None
    result: Result | None = None
    problem: str = ""
    hostname: str = ""

    def lines(self, folder: Path) -> list[str]:
        """What was found, for a person."""
        if self.result is not None:
            service = self.result.service
            what = f"postscreen ({escape_text(service.full_name)})" if service else "smtpd, without postscreen"
            found = f"Postfix in {escape_text(str(folder), 500)}: {what}"
        else:
            found = f"no Postfix in {escape_text(str(folder), 500)}{f' ({self.problem})' if self.problem else ''}"
        resolvers = ", ".join(escape_text(str(server.address)) for server in system_nameservers())
        return [found, f"host name: {escape_text(self.hostname)}", f"resolvers: {resolvers} (/etc/resolv.conf)"]


# ---- finding


def find(folder: Path) -> Findings:
    """Look at Postfix, and at nothing that it would notice."""
    found = Findings(hostname=socket.getfqdn())
    if not folder.joinpath("main.cf").exists() or not folder.joinpath("master.cf").exists():
        return found
    try:
        found.postfix = settings.read(folder, settings.postconf_program())
        result = import_postfix.imported(found.postfix, None, _shadowed)
    except ReadError as error:
        found.problem = str(error)
        return found
    assert not isinstance(result, str)  # no service was named
    found.result = result
    found.hostname = found.postfix.settings(None).value("myhostname") or found.hostname
    return found


def _shadowed(translated: Translated) -> None:
    """Shadow mode, in which a test that is off would show nothing."""
    entries = _by_key(translated)
    _set(entries["mode"], "shadow", _SHADOW)
    for key in ("greet.action", "dnsbl.action", "access.denylist_action"):
        if entries[key].value is None and not entries[key].sources:
            _set(entries[key], "enforce", _SEEN)
    log = entries["log.to"]
    if str(log.value).startswith("file:"):  # it would get another owner
        log.notes = []
        to = "syslog" if Path(SYSLOG_SOCKET).exists() else LOG_FILE
        _set(log, to, "made by fastscreen setup: Postfix keeps its own file")
    elif not Path(SYSLOG_SOCKET).exists():
        _set(log, LOG_FILE, "made by fastscreen setup: no syslog daemon was found")


def _by_key(translated: Translated) -> dict[str, Entry]:
    return {entry.key.key: entry for entry in translated.entries}


def _set(entry: Entry, value: Toml, why: str) -> None:
    entry.value = value
    entry.notes.append(Note(why))


def _value(result: Result | None, key: str) -> list[str]:
    """A list in the import, or its default."""
    entry = _by_key(result.translated)[key] if result is not None else None
    value = entry.value if entry is not None else None
    if value is None:
        value = default_value(_KEYS[key])  # type: ignore[assignment]
    return [str(each) for each in value] if isinstance(value, list | tuple) else []


# ---- asking


def ask(given: Given, found: Findings, questions: Questions) -> Answers:
    """The answers to all questions but the last. Raises NoAnswer."""
    answers = Answers()
    answers.mta = questions.answer(
        "Which mail server is behind fastscreen?",
        "--mta",
        given.mta,
        POSTFIX if found.result else "",
        lambda text: _mta(text, found),
        "postfix, or HOST:PORT of an MTA that reads the PROXY protocol (docs/mta-exim.md and others)",
    )
    postfix = found.result if answers.mta == POSTFIX else None
    listen = _value(postfix, "listen.addresses")
    theirs = (
        (" ".join(listen) or POSTFIX) if postfix else ""
    )  # without addresses, all its ports have the PROXY protocol
    answers.listen, answers.takes_port = questions.answer(
        "Where do clients connect?",
        "--listen",
        given.listen,
        theirs or str(_free_port()),
        lambda text: _listen(text, theirs, listen),
        "a port, or ADDRESS:PORT ...; "
        + ("Postfix's port is taken over, a different one leaves it to Postfix" if theirs else "a free one"),
    )
    answers.networks = questions.answer(
        "Which networks are yours, and are not tested?",
        "--networks",
        given.networks,
        " ".join(_value(postfix, "access.mynetworks") if postfix else _NO_TEST) or NONE,
        lambda text: _words(text, "access.mynetworks"),
    )
    answers.lists = questions.answer(
        "Which DNS lists are asked about clients?",
        "--lists",
        given.lists,
        " ".join(_value(postfix, "dnsbl.sites") or _lists_of_restrictions(postfix)) or NONE,
        lambda text: _words(text, "dnsbl.sites"),
        "for example zen.spamhaus.org=127.0.0.[2..11]*3 bl.spamcop.net*2, if their terms of use allow it; or none",
    )
    answers.certificates = questions.answer(
        "Which files have the key and the certificate, so that clients under test can use STARTTLS?",
        "--certificate",
        given.certificates,
        " ".join(_value(postfix, "tls.certificates") if postfix else _certificate(found.hostname)) or NONE,
        _files,
        "KEYFILE CHAINFILE, or none",
    )
    return answers


def ask_whether(given: Given, questions: Questions, text: str, *, default: bool) -> bool:
    """The last question. Raises NoAnswer."""
    now = None if given.now is None else "yes" if given.now else "no"
    return questions.answer(text, "--yes or --config-only", now, "yes" if default else "no", yes_or_no)


def _mta(text: str, found: Findings) -> str:
    if text == POSTFIX:
        if found.result is None:
            raise ValueError(found.problem or "Postfix's files were not found; expected --config-dir, or HOST:PORT")
        return text
    key = _KEYS["handoff.to"]
    try:
        key.kind.parse(f"proxy:{text}")
    except ValueError as error:
        raise ValueError(f"{error}; expected postfix or HOST:PORT") from None
    return text


def _listen(text: str, theirs: str, listen: list[str]) -> tuple[list[str], bool]:
    """The addresses, and whether they are Postfix's, which will release them. Raises ValueError."""
    if text == theirs:
        return listen, True
    addresses = text.split()
    if len(addresses) == 1 and addresses[0].isdecimal():
        addresses = [f"{host}:{addresses[0]}" for host in _EVERYWHERE]
    wanted, postfix = _endpoints(addresses), _endpoints(listen) if theirs else []
    if wanted and set(wanted) == set(postfix):
        return listen, True
    if not wanted or set(wanted) & set(postfix):
        raise ValueError("expected a port that is free" + (", or all addresses of Postfix" if theirs else ""))
    for each in wanted:
        if each.port and not setup_service.is_free(each):
            by = ", ".join(sorted(setup_service.users_of([each])))
            raise ValueError(f"{each} is in use{f' by {by}' if by else ''}; port {_free_port()} is free")
    return addresses, False


def _endpoints(addresses: list[str]) -> list[Endpoint]:
    """Raises ValueError."""
    parsed = _KEYS["listen.addresses"].kind.parse(addresses)
    assert isinstance(parsed, tuple)
    return [each for each in parsed if isinstance(each, Endpoint)]


def _free_port() -> int:
    """25 if it is free, otherwise the first free one for a trial."""
    port: int
    for port in (25, *range(TRIAL_PORT, TRIAL_PORT + 100)):
        if all(setup_service.is_free(Endpoint(host.strip("[]"), port)) for host in _EVERYWHERE):
            return port
    return TRIAL_PORT


def _words(text: str, key: str) -> list[str]:
    words = [] if text == NONE else text.replace(",", " ").split()
    _KEYS[key].kind.parse(words)
    return words


def _files(text: str) -> list[str]:
    if text == NONE:
        return []
    names = text.split()
    for name in names:
        with contextlib.suppress(PermissionError):  # without root, which only shows
            if not Path(name).is_file():
                raise ValueError(f"{escape_text(name, 300)}: not a file")
    _KEYS["tls.certificates"].kind.parse(names)
    return names


def _certificate(hostname: str) -> list[str]:
    """That of certbot for this host, if it exists."""
    names = [LETS_ENCRYPT / hostname / name for name in ("privkey.pem", "fullchain.pem")]
    with contextlib.suppress(OSError):
        if all(stat.S_ISREG(name.stat().st_mode) for name in names):
            return [str(name) for name in names]
    return []


def _lists_of_restrictions(postfix: Result | None) -> list[str]:
    """DNS lists that smtpd's restrictions ask, with their filters."""
    found: list[str] = []
    for each in postfix.advice.remove if postfix else []:
        name, _, site = each.item.partition(" ")
        if name.lower() == "reject_rbl_client" and site and site not in found:
            with contextlib.suppress(ValueError):
                _KEYS["dnsbl.sites"].kind.parse([site])
                found.append(site)
    return found


# ---- writing


def make(found: Findings, answers: Answers) -> Plan:
    """The plan for these answers. Raises PlanError."""
    if answers.mta == POSTFIX:
        return _with_postfix(found, answers)
    text = _without_postfix(found, answers)
    problems = verify(text).problems
    if problems:
        shown = "; ".join(f"{each.key}: {each.text}" if each.key else each.text for each in problems)
        raise PlanError(f"fastscreen would not start with these answers: {shown}")
    return _plan(text, answers)


def _plan(text: str, answers: Answers) -> Plan:
    try:
        config = parse(text, "setup")
    except ConfigError as error:
        raise PlanError(f"fastscreen would not start with these answers: {error}") from None
    proxied = all(port is not None for port in config.listen.ports.values())
    return Plan(text, import_postfix.daemon_user(text), answers, config, list(config.listen.ports), proxied)


def _with_postfix(found: Findings, answers: Answers) -> Plan:
    postfix, first = found.postfix, found.result
    assert postfix is not None and first is not None

    def adjust(translated: Translated) -> None:
        _shadowed(translated)
        entries = _by_key(translated)
        wanted: dict[str, list[str]] = {
            "access.mynetworks": answers.networks,
            "dnsbl.sites": answers.lists,
            "tls.certificates": answers.certificates,
        }
        for key, value in wanted.items():
            if value != _value(first, key):
                _set(entries[key], list(value), _ANSWERED)
        if not answers.takes_port:
            _set(entries["listen.addresses"], list(answers.listen), _ANSWERED)
            _set(entries["listen.proxy"], [], _ANSWERED)
        if answers.certificates != _value(first, "tls.certificates"):
            _set(entries["tls.level"], "may" if answers.certificates else "none", _ANSWERED)

    try:
        result = import_postfix.imported(postfix, None, adjust)
        assert not isinstance(result, str)
        plan = _plan(result.text, answers)
        plan.todo = [line for line in result.todo() if not line.endswith(_ABOUT_SHADOW)]
        plan.master = _master(postfix, result, takes_port=answers.takes_port)
        plan.cache_map = postfix.settings(result.service).value("postscreen_cache_map") if result.service else ""
    except (ReadError, master_cf.ChangeError) as error:
        raise PlanError(str(error)) from None
    return plan


def _master(postfix: settings.Postfix, result: Result, *, takes_port: bool) -> MasterChange | None:
    """Raises ChangeError, ReadError."""
    folder = postfix.folder.absolute()
    path = folder / "master.cf"
    try:
        before = path.read_bytes()
    except OSError as error:
        raise ReadError(f"{escape_text(str(path), 500)}: cannot be read: {error.strerror}") from None
    text = master_cf.decoded(before)
    ready = master_cf.changed(text, [change for change in result.advice.changes if not change.before])
    after = master_cf.changed(text, result.advice.changes) if takes_port else ready
    if takes_port:
        left = files.services(after, escape_text(str(path), 500))
        named = [each.full_name for each in left if each.kind == "inet" and listening.is_smtp(each)]
        if named and result.service is None:
            raise master_cf.ChangeError(f"{escape_text(str(path), 500)}: defines {named[0]} more than once; fix that")
    if after == text:
        return None
    return MasterChange(folder, path, before, master_cf.encoded(ready), master_cf.encoded(after))


def _without_postfix(found: Findings, answers: Answers) -> str:
    """A configuration for another MTA."""
    values: dict[str, Toml] = {
        "mode": "shadow",
        "hostname": found.hostname,
        "banner": "$hostname ESMTP",
        "user": _user(),
        "listen.addresses": list(answers.listen),
        "handoff.to": f"proxy:{answers.mta}",
        "access.mynetworks": list(answers.networks),
        "access.denylist_action": "enforce",
        "greet.action": "enforce",
        "dnsbl.sites": list(answers.lists),
        "dnsbl.action": "enforce",
        "log.to": "syslog" if Path(SYSLOG_SOCKET).exists() else LOG_FILE,
    }
    if answers.certificates:
        values |= {"tls.level": "may", "tls.certificates": list(answers.certificates)}
    comments = {"mode": _SHADOW, "user": "the daemon's user, after it has opened its sockets"}
    lines = ["# Made by fastscreen setup. Keys that are not here have their defaults: docs/configuration.md"]
    table = ""
    for key, value in values.items():
        entry = _KEYS[key]
        if entry.table != table:
            table = entry.table
            lines += ["", f"[{table}]"]
        if key in comments:
            lines.append(f"# {comments[key]}")
        lines.append(f"{entry.name} = {output.value(value)}")
    return "\n".join(lines) + "\n"


def _user() -> str:
    """fastscreen's own user if there is one."""
    for name in ("fastscreen", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    return ""


def is_unused(content: bytes) -> bool:
    """Whether a configuration is that of a new package: comments only, or without any address to listen on."""
    try:
        data = tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        return False
    listen = data.get("listen", {})
    return not data or (isinstance(listen, dict) and listen.get("addresses") == [] and not listen.get("proxy"))
