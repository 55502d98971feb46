"""fastscreen check: reads all that a configuration names, tries the MTA and the resolvers, says what is wrong."""

from __future__ import annotations

import argparse
import grp
import ipaddress
import json
import os
import pwd
from collections.abc import Callable, Iterator
from pathlib import Path

from msgspec import Struct

from fastscreen.cli.check_access import checked_access
from fastscreen.cli.check_allowlist import checked_allowlists, without_tables_to_come
from fastscreen.cli.check_dns import checked_lists, checked_resolvers
from fastscreen.cli.check_mta import ProbeError, try_pass, try_proxy
from fastscreen.cli.check_running import checked_running
from fastscreen.cli.check_tls import checked_certificates, checked_renewal
from fastscreen.cli.problems import print_problems
from fastscreen.config import Config, ConfigError, LogFile, LogSyslog, Pass, Proxy, load
from fastscreen.daemon import listeners
from fastscreen.daemon.control_listener import MAX_PATH
from fastscreen.escaping import escape_text, quoted
from fastscreen.mta.ehlo_keywords import Keyword, keyword_words
from fastscreen.process import descriptor_limits
from fastscreen.process.log_output import SYSLOG_SOCKET
from fastscreen.process.privileges import PrivilegeError, become, raise_descriptor_limit, user_of
from fastscreen.process.safe_open import will_be_given
from fastscreen.screening import policy
from fastscreen.screening.access_list import load_access, load_networks, member
from fastscreen.screening.command_tables import CommandFilter, ForbiddenCommands
from fastscreen.screening.ehlo_reply import Ehlo
from fastscreen.screening.reject_footer import Footer
from fastscreen.tables import TableError, open_table

EXAMPLES = """\
examples:
  fastscreen check -c /etc/fastscreen/fastscreen.toml       silent when all is well
  fastscreen check -v -c fastscreen.toml                    also what is well
  fastscreen check --json -c fastscreen.toml | jq '.checks[] | select(.ok | not)'

Nothing is changed. The MTA behind handoff.to gets one connection from 127.0.0.1 and is told QUIT; each resolver is
asked for the test entry of the first list. Run as root, it becomes the user of the configuration first.
If a fastscreen answers at control.path, each key whose value differs from the one in use is shown, with the command
that applies it.

exit codes: 0 all is well, 1 something is wrong, 2 the configuration cannot be used
"""


class Check(Struct, frozen=True):
    """One thing that was looked at. what: the key. detail: what was found. told: also when all is well."""

    what: str
    ok: bool
    detail: str
    told: bool = False


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "check",
        help="try a configuration and say what is wrong",
        description="Read everything that a configuration names, try the MTA and the resolvers, say what is wrong.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-c", "--config", metavar="FILE", type=Path, required=True, help="the configuration")
    parser.add_argument("-v", "--verbose", action="store_true", help="show also what is well")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Check, print, and return the exit code."""
    root = os.geteuid() == 0
    try:
        config = load(arguments.config)
        raise_descriptor_limit(
            descriptor_limits.wanted_descriptors(config, descriptor_limits.Share(0, policy.worker_count(config)))
        )
        # As root, as `run` does both.
        certificates = list(checked_certificates(config, user_of(config)))
        gives_log = root and _gives_log(config)
        checks = list(checked_user(config))
        at_start = without_tables_to_come(config)
        policy.build(at_start, "", lambda warning: None)  # first: it names every table that cannot be read
        checks += checked_tables(at_start)
        checks += [Check(*found) for found in checked_access(at_start)]
    except ConfigError as error:
        if arguments.json:
            found = [{"what": "configuration", "ok": False, "detail": problem} for problem in error.problems]
            print(json.dumps({"ok": False, "checks": found}))
        else:
            print_problems(error)
        return 2
    checks += [Check(*found) for found in (*certificates, *checked_renewal(config, root))]
    checks += [Check(*found) for found in checked_allowlists(config, root)]
    checks += checked_files(config, root, gives_log)
    checks += checked_control(config, root)
    checks += checked_addresses(config)
    checks += checked_proxy(config)
    checks += checked_limits(config)
    checks += checked_handoff(config)
    checks += [Check(*found) for found in (*checked_resolvers(config), *checked_lists(config))]
    checks += [Check(*found) for found in checked_running(config)]
    well = all(check.ok for check in checks)
    if arguments.json:
        found = [{"what": check.what, "ok": check.ok, "detail": check.detail} for check in checks]
        print(json.dumps({"ok": well, "checks": found}, indent=2))
    else:
        for check in checks:
            if not check.ok or check.told:
                print(f"{config.source}: {check.what}: {check.detail}")
            elif arguments.verbose:
                print(f"ok: {check.what}: {check.detail}")
    return 0 if well else 1


def checked_user(config: Config) -> Iterator[Check]:
    """Become the user that the daemon becomes, for good: what only root may read does not help the daemon."""
    user = user_of(config)
    if not user:
        return
    try:
        become(user)
    except PrivilegeError as error:
        yield Check("user", False, str(error).removeprefix("user: "))
    else:
        yield Check("user", True, f"{escape_text(user)}; all else was tried as this user")
    try:
        Path(config.source).read_bytes()
    except OSError as error:
        yield Check(
            "user", False, f"{escape_text(user)} cannot read {escape_text(config.source)} at SIGHUP: {error.strerror}"
        )


def checked_tables(config: Config) -> Iterator[Check]:
    """Open every table. A rule that is skipped is a problem; ConfigError: a table that cannot be opened."""
    access = load_access(config)
    yield from _table("access.list", config.access.list, access.warnings)
    engine = config.engine
    try:
        yield from _table(
            "engine.forbidden_commands",
            engine.forbidden_commands,
            ForbiddenCommands(engine.forbidden_commands).warnings,
        )
        if engine.command_filter:
            yield from _table(
                "engine.command_filter", [engine.command_filter], CommandFilter(engine.command_filter).warnings
            )
        if engine.discard_ehlo_keyword_address_maps:
            yield from _table(
                "engine.discard_ehlo_keyword_address_maps",
                engine.discard_ehlo_keyword_address_maps,
                Ehlo(engine, config.hostname).warnings,
            )
        if engine.reject_footer or engine.reject_footer_maps:
            footer = Footer(engine, config.hostname)
            footer.apply(b"550 5.7.1 x\r\n", "192.0.2.1", 25, 0)  # the template's own mistakes show when it is used
            texts = [text for text in (engine.reject_footer, *engine.reject_footer_maps) if text]
            yield from _table("engine.reject_footer", texts, footer.warnings)
        if config.dnsbl.reply_map:
            table = open_table(config.dnsbl.reply_map, "dnsbl.reply_map")
            unmapped = [site.domain for site in config.dnsbl.sites if table.lookup(site.domain) is None]
            yield from _table("dnsbl.reply_map", [config.dnsbl.reply_map], table.warnings)
            if unmapped and len(unmapped) < len(config.dnsbl.sites):
                yield Check("dnsbl.reply_map", True, f"no name for {', '.join(unmapped)}: shown as it is")
    except TableError as error:
        raise ConfigError(f"{config.source}: {error}") from None


def _table(what: str, items: object, warnings: list[str]) -> Iterator[Check]:
    assert isinstance(items, list | tuple)
    yield from (Check(what, False, warning) for warning in warnings)
    if not warnings:
        yield Check(what, True, escape_text(", ".join(items) or "nothing", 500))


def _gives_log(config: Config) -> bool:
    try:
        return isinstance(config.log.to, LogFile) and will_be_given(config.log.to.path, user_of(config))
    except OSError:
        return False  # the user's own look tells why


def checked_files(config: Config, root: bool, gives_log: bool) -> Iterator[Check]:
    """Whether the cache and the log can be written by the user that this process is.

    root: `run` starts as root, and makes the cache's folder for the user. gives_log: it makes the log the user's.
    """
    if config.cache.path:
        yield _looked("cache.path", Path(config.cache.path), _cache, root)
    if isinstance(config.log.to, LogFile):
        yield _looked("log.to", Path(config.log.to.path), _log, gives_log)
    if isinstance(config.log.to, LogSyslog) and not Path(SYSLOG_SOCKET).is_socket():
        yield Check("log.to", False, f"{SYSLOG_SOCKET}: there is no log daemon's socket")


def _looked(what: str, path: Path, look: Callable[[Path, bool], Check], more: bool) -> Check:
    """A check of a file, when even looking may be forbidden."""
    try:
        return look(path, more)
    except OSError as error:
        return Check(what, False, f"{escape_text(str(path))}: {_user()}: {error.strerror}")


def _cache(path: Path, root: bool) -> Check:
    if root and not path.parent.exists() and _nearest(path.parent).is_dir():
        return Check("cache.path", True, f"{escape_text(str(path))}: its folder will be made")
    if path.is_symlink():
        return Check("cache.path", False, f"{escape_text(str(path))} is a symbolic link, which is not followed")
    return _writable("cache.path", path, also=path.parent)  # LMDB makes a lock file beside it


def _log(path: Path, given: bool) -> Check:
    if path.parent.is_dir() and given:
        return Check("log.to", True, f"{escape_text(str(path))} will be the user's")
    return _writable("log.to", Path(os.path.realpath(path)) if path.is_symlink() else path)


def checked_control(config: Config, root: bool) -> Iterator[Check]:
    """Whether `run` can make the control socket, and give it to its group. root: it starts as root."""
    if not config.control.path:
        yield Check("control.path", True, "empty: no control socket")
        return
    path, name = Path(config.control.path), escape_text(config.control.path, 200)
    try:
        folder = _nearest(path.parent)
        if (octets := len(os.fsencode(path))) > MAX_PATH:
            yield Check("control.path", False, f"{name}: {octets} octets; expected at most {MAX_PATH}")
        elif not folder.is_dir():
            yield Check("control.path", False, f"{name}: {escape_text(str(folder))} is no folder")
        elif path.exists() and not path.is_socket():
            yield Check("control.path", False, f"{name}: a file that is not a socket is in its place")
        elif not root and not os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
            yield Check("control.path", False, f"{name}: {_user()} may not write to {escape_text(str(folder))}")
        else:
            more = "" if folder == path.parent else ", and its folder"
            yield Check("control.path", True, f"{name} will be made{more}")
    except OSError as error:
        # This process may not look any more, and the daemon makes the socket while it is root.
        well = root and isinstance(error, PermissionError)
        yield Check("control.path", well, f"{name} will be made by root" if well else f"{name}: {error.strerror}")
    if config.control.group:
        yield _group(config.control.group, root)


def _group(group: str, root: bool) -> Check:
    try:
        gid = grp.getgrnam(group).gr_gid
    except KeyError:
        return Check("control.group", False, f"there is no group {quoted(group)} on this system")
    if not root and gid not in (os.getegid(), *os.getgroups()):
        return Check("control.group", False, f"{_user()} is not in group {quoted(group)}")
    return Check("control.group", True, f"{escape_text(group)} may read")


def _nearest(path: Path) -> Path:
    """The first folder upwards that is there."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def checked_limits(config: Config) -> Iterator[Check]:
    """Whether there are descriptors for as many clients as are allowed."""
    room = descriptor_limits.room(config, descriptor_limits.Share(0, policy.worker_count(config)))
    for warning in room.warnings:
        key, _, what = warning.partition(": ")
        yield Check(key.partition(" ")[0], False, what)
    if not room.warnings:
        yield Check("limits.pre_queue", True, f"{room.pre_queue} clients can be under test")


def checked_addresses(config: Config) -> Iterator[Check]:
    """Without IPv6 in the kernel the daemon serves IPv4 only, unless nothing is left then."""
    addresses = [address for address in config.listen.ports if ":" in address.host]
    if not addresses or listeners.has_ipv6():
        return
    listed = ", ".join(str(address) for address in addresses)
    only = len(addresses) == len(config.listen.ports)
    served = "no address is left" if only else "IPv4 only"
    yield Check(
        "listen.addresses", not only, f"the kernel does not support IPv6: {listed} omitted, {served}", told=True
    )


def checked_proxy(config: Config) -> Iterator[Check]:
    """Who may name any client's address. ConfigError: a list of networks cannot be read."""
    for port in config.listen.proxy:
        networks = load_networks(config, "listen.proxy: trusted", port.trusted)
        trusted = networks.table
        where = ", ".join(str(address) for address in port.addresses)
        yield from (Check("listen.proxy", False, warning) for warning in networks.warnings)
        local = [address for address in ("127.0.0.1", "::1") if member(trusted, address)]
        if local and any(_reached_locally(address.host, local) for address in port.addresses):
            yield Check(
                "listen.proxy", True, f"{where}: every user of this machine may name any client there", told=True
            )
        elif all(ipaddress.ip_address(address.host).is_loopback for address in port.addresses) and not local:
            yield Check("listen.proxy", False, f"{where}: only this machine can connect, and it is not trusted")
        else:
            yield Check("listen.proxy", True, f"{where}: trusts {escape_text(', '.join(port.trusted), 500)}")


def _reached_locally(host: str, local: list[str]) -> bool:
    """Whether one connects from a trusted loopback address to this address of ours."""
    address = ipaddress.ip_address(host)
    return (address.is_loopback or address.is_unspecified) and any(
        ipaddress.ip_address(source).version == address.version for source in local
    )


def _writable(what: str, path: Path, also: Path | None = None) -> Check:
    """Whether a file can be written, or be made if it is not there; and whether files can be made in `also`."""
    name = escape_text(str(path))
    try:
        found = path.exists()
        if found and not path.is_file():
            return Check(what, False, f"{name} is not a file")
        if not path.parent.is_dir():
            return Check(what, False, f"{name}: there is no folder {escape_text(str(path.parent))}")
        for place in (path if found else path.parent, also):
            if place and not os.access(place, os.W_OK | (os.X_OK if place.is_dir() else 0), effective_ids=True):
                return Check(what, False, f"{name}: {_user()} may not write to {escape_text(str(place))}")
    except OSError as error:
        return Check(what, False, f"{name}: {error.strerror}")
    return Check(what, True, name if found else f"{name} will be made")


def _user() -> str:
    try:
        return f"user {pwd.getpwuid(os.geteuid()).pw_name}"
    except KeyError:
        return f"user {os.geteuid()}"


def checked_handoff(config: Config) -> Iterator[Check]:
    """Hand a connection to each MTA and read what it says."""
    handoff = config.handoff
    if isinstance(handoff.to, Pass):
        try:
            yield Check("handoff.to", True, f"{escape_text(handoff.to.path)}: {try_pass(handoff.to.path)}")
        except (ProbeError, OSError) as error:
            yield Check("handoff.to", False, str(error))
    elif isinstance(handoff.to, Proxy):
        yield from _checked_proxy("handoff.to", handoff.to, config)
    else:
        yield Check("handoff.to", True, "the embedded sink")
    if handoff.continue_to is not None:
        yield from _checked_proxy("handoff.continue_to", handoff.continue_to, config)


def _checked_proxy(what: str, proxy: Proxy, config: Config) -> Iterator[Check]:
    for target in proxy.targets:
        name = escape_text(str(target))
        try:
            offer = try_proxy(target, config.handoff.proxy_version, config.hostname)
        except ProbeError as error:
            yield Check(what, False, f"{name}: {error}")
            continue
        if what == "handoff.continue_to" and Keyword.STARTTLS in offer.keywords:
            detail = "offers STARTTLS, which cannot follow what was said without TLS; turn it off at this port"
            yield Check(what, False, f"{name}: {detail} (Postfix: -o smtpd_tls_security_level=none)")
        else:
            yield Check(what, True, f"{name}: announces {keyword_words(offer.keywords) or 'nothing'}")
