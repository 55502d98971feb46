"""fastscreen check: reads everything that a configuration names, tries the MTA and the resolvers, reports problems."""

from __future__ import annotations

import argparse
import grp
import ipaddress
import json
import os
import pwd
import stat
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from msgspec import Struct

import fastscreen.tables.patterns  # noqa: F401 the user of the daemon may be unable to read Python's files
from fastscreen.cli import COMMANDS
from fastscreen.cli.check_access import checked_access
from fastscreen.cli.check_allowlist import checked_allowlists, without_missing_tables
from fastscreen.cli.check_cluster import checked_cluster
from fastscreen.cli.check_dns import checked_lists, checked_resolvers
from fastscreen.cli.check_feedback import checked_feedback
from fastscreen.cli.check_history import checked_history
from fastscreen.cli.check_mta import ProbeError, try_pass, try_proxy
from fastscreen.cli.check_running import checked_running
from fastscreen.cli.check_tls import checked_certificates, checked_renewal
from fastscreen.cli.problems import print_problems
from fastscreen.config import Config, ConfigError, LogFile, LogSyslog, Pass, Proxy, environment, load
from fastscreen.daemon import listeners
from fastscreen.daemon.control_listener import MAX_PATH
from fastscreen.daemon.preload import missing_for_cluster
from fastscreen.escaping import escape_text, quoted
from fastscreen.mta.ehlo_keywords import Keyword, keyword_words
from fastscreen.offenses.rules import load_rules
from fastscreen.process import descriptor_limits
from fastscreen.process.file_type import file_type
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
  fastscreen check -c /etc/fastscreen/fastscreen.toml       prints problems only
  fastscreen check -v -c fastscreen.toml                    also prints successful checks
  fastscreen check --json -c fastscreen.toml | jq '.checks[] | select(.ok | not)'

Nothing is changed. The MTA of handoff.to receives one connection from 127.0.0.1, which ends with QUIT. Each resolver is
asked for the test entry of the first list. The server of [cluster] stores a record for one minute. When run as root,
the command first switches to the user of the configuration.
If fastscreen is running and answers at control.path, keys whose values differ from those in use are shown, with the
command that applies them.

exit codes: 0 no problems, 1 problems were found, 2 the configuration cannot be used
"""


class Check(Struct, frozen=True):
    """The result of a check. what: the key. detail: what was found. notice: whether to print it even if it is ok."""

    what: str
    ok: bool
    detail: str
    notice: bool = False


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "check",
        help=COMMANDS["check"],
        description="Read everything that a configuration names, try the MTA and the resolvers, and report problems.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-c", "--config", metavar="FILE", type=Path, required=True, help="the configuration")
    parser.add_argument("-v", "--verbose", action="store_true", help="also print successful checks")
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
        # Both as root, like `run`.
        certificates = list(checked_certificates(config, user_of(config)))
        log_changes_owner = root and _log_changes_owner(config)
        missing = missing_for_cluster(config)  # the user of the daemon may be unable to read Python's files
        checks = list(checked_user(config))
        at_start = without_missing_tables(config)
        policy.build(at_start, "", lambda warning: None)  # first, because it reports all tables that cannot be read
        checks += checked_tables(at_start)
        checks += [Check(*found) for found in checked_access(at_start)]
    except ConfigError as error:
        if arguments.json:
            found = [{"what": "configuration", "ok": False, "detail": problem} for problem in error.problems]
            print(json.dumps({"ok": False, "checks": found}))
        else:
            print_problems(error)
        return 2
    checks += checked_environment()
    checks += [Check(*found) for found in (*certificates, *checked_renewal(config, root))]
    checks += [Check(*found) for found in checked_allowlists(config, root)]
    checks += checked_files(config, root, log_changes_owner)
    checks += [Check(*found) for found in checked_history(config, root, _user())]
    checks += [Check(*found) for found in checked_feedback(config, _user())]
    checks += checked_control(config, root)
    checks += checked_addresses(config)
    checks += checked_proxy(config)
    checks += checked_limits(config)
    checks += checked_handoff(config)
    checks += [Check(*found) for found in (*checked_resolvers(config), *checked_lists(config))]
    checks += [Check(*found) for found in checked_cluster(config, missing)]
    checks += [Check(*found) for found in checked_running(config)]
    ok = all(check.ok for check in checks)
    if arguments.json:
        found = [{"what": check.what, "ok": check.ok, "detail": check.detail} for check in checks]
        print(json.dumps({"ok": ok, "checks": found}, indent=2))
    else:
        for check in checks:
            if not check.ok or check.notice:
                print(f"{config.source}: {check.what}: {check.detail}")
            elif arguments.verbose:
                print(f"ok: {check.what}: {check.detail}")
    return 0 if ok else 1


def checked_environment() -> Iterator[Check]:
    """Which keys the environment sets in place of the file."""
    if keys := sorted(environment.read()[0]):
        detail = f"sets {', '.join(keys)}, in place of the file"
        yield Check("environment", True, detail, notice=True)


def checked_user(config: Config) -> Iterator[Check]:
    """Switch to the user of the daemon permanently, because everything must be readable for that user."""
    user = user_of(config)
    if not user:
        return
    try:
        become(user)
    except PrivilegeError as error:
        yield Check("user", False, str(error).removeprefix("user: "))
    else:
        yield Check("user", True, f"{escape_text(user)}; all other checks were made as this user")
    try:
        Path(config.source).read_bytes()
    except OSError as error:
        yield Check(
            "user", False, f"{escape_text(user)} cannot read {escape_text(config.source)} at SIGHUP: {error.strerror}"
        )


def checked_tables(config: Config) -> Iterator[Check]:
    """Open every table. A skipped rule is a problem. Raises ConfigError if a table cannot be opened."""
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
            footer.apply(
                b"550 5.7.1 x\r\n", "192.0.2.1", 25, 0
            )  # mistakes in the template are only found when it is used
            texts = [text for text in (engine.reject_footer, *engine.reject_footer_maps) if text]
            yield from _table("engine.reject_footer", texts, footer.warnings)
        if config.dnsbl.reply_map:
            table = open_table(config.dnsbl.reply_map, "dnsbl.reply_map")
            unmapped = [site.domain for site in config.dnsbl.sites if table.lookup(site.domain) is None]
            yield from _table("dnsbl.reply_map", [config.dnsbl.reply_map], table.warnings)
            if unmapped and len(unmapped) < len(config.dnsbl.sites):
                yield Check("dnsbl.reply_map", True, f"no entry for {', '.join(unmapped)}, so replies show this name")
        if (rules := load_rules(config)) is not None and rules.as_table is not None:
            yield from _table("score.as_file", [config.score.as_file], rules.as_table.warnings)
    except TableError as error:
        raise ConfigError(f"{config.source}: {error}") from None


def _table(what: str, items: object, warnings: list[str]) -> Iterator[Check]:
    assert isinstance(items, list | tuple)
    yield from (Check(what, False, warning) for warning in warnings)
    if not warnings:
        yield Check(what, True, escape_text(", ".join(items) or "nothing", 500))


def _log_changes_owner(config: Config) -> bool:
    try:
        return isinstance(config.log.to, LogFile) and will_be_given(config.log.to.path, user_of(config))
    except OSError:
        return False  # the check as the daemon's user reports why


def checked_files(config: Config, root: bool, log_changes_owner: bool) -> Iterator[Check]:
    """Whether this process's user can write the cache, the memory of offenses and the log.

    root: whether `run` starts as root, and creates the cache's folder. log_changes_owner: whether it gives the log to
    the user.
    """
    if config.cache.path:
        yield _check_file("cache.path", Path(config.cache.path), partial(_lmdb, "cache.path"), root)
    if config.score.memory:
        yield _check_file("score.memory", Path(config.score.memory), partial(_lmdb, "score.memory"), root)
    if isinstance(config.log.to, LogFile):
        yield _check_file("log.to", Path(config.log.to.path), _log, log_changes_owner)
    if isinstance(config.log.to, LogSyslog) and not Path(SYSLOG_SOCKET).is_socket():
        yield Check("log.to", False, f"{SYSLOG_SOCKET}: syslogd is not listening")


def _check_file(what: str, path: Path, check: Callable[[Path, bool], Check], root: bool) -> Check:
    """Check a file, also if this user may not access its folder."""
    try:
        return check(path, root)
    except OSError as error:
        return Check(what, False, f"{escape_text(str(path))}: {_user()}: {error.strerror}")


def _lmdb(what: str, path: Path, root: bool) -> Check:
    if root and not file_type(path.parent) and _nearest(path.parent).is_dir():
        return Check(what, True, f"{escape_text(str(path))}: its folder will be created")
    if file_type(path, follow_symlinks=False) == stat.S_IFLNK:
        return Check(what, False, f"{escape_text(str(path))} is a symbolic link; expected the file itself")
    return _writable(what, path, also=path.parent)  # LMDB creates a lock file in the same folder


def _log(path: Path, given: bool) -> Check:
    if file_type(path.parent) == stat.S_IFDIR and given:
        return Check("log.to", True, f"{escape_text(str(path))} will belong to the daemon's user")
    return _writable("log.to", Path(os.path.realpath(path)) if path.is_symlink() else path)


def checked_control(config: Config, root: bool) -> Iterator[Check]:
    """Whether `run` can create the control socket, and set its group. root: whether it starts as root."""
    if not config.control.path:
        yield Check("control.path", True, "empty: the control socket is disabled")
        return
    path, name = Path(config.control.path), escape_text(config.control.path, 200)
    try:
        folder = _nearest(path.parent)
        if (length := len(os.fsencode(path))) > MAX_PATH:
            yield Check("control.path", False, f"{name}: {length} bytes; expected at most {MAX_PATH}")
        elif not folder.is_dir():
            yield Check("control.path", False, f"{name}: {escape_text(str(folder))} is not a folder")
        elif file_type(path) not in (0, stat.S_IFSOCK):
            yield Check("control.path", False, f"{name}: exists, but is not a socket")
        elif not root and not os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
            yield Check("control.path", False, f"{name}: {_user()} may not write to {escape_text(str(folder))}")
        else:
            with_folder = "" if folder == path.parent else ", and its folder"
            yield Check("control.path", True, f"{name} will be created{with_folder}")
    except OSError as error:
        # This process may lack the rights by now, but the daemon creates the socket while it is root.
        by_root = root and isinstance(error, PermissionError)
        detail = f"{name} will be created by root" if by_root else f"{name}: {error.strerror}"
        yield Check("control.path", by_root, detail)
    if config.control.group:
        yield _group(config.control.group, root)


def _group(group: str, root: bool) -> Check:
    try:
        gid = grp.getgrnam(group).gr_gid
    except KeyError:
        return Check("control.group", False, f"the group {quoted(group)} does not exist")
    if not root and gid not in (os.getegid(), *os.getgroups()):
        return Check("control.group", False, f"{_user()} is not in group {quoted(group)}")
    return Check("control.group", True, f"members of {escape_text(group)} may read")


def _nearest(path: Path) -> Path:
    """The nearest existing folder, from this one upwards."""
    while not file_type(path) and path != path.parent:
        path = path.parent
    return path


def checked_limits(config: Config) -> Iterator[Check]:
    """Whether there are enough file descriptors for the configured number of clients."""
    limits = descriptor_limits.worker_limits(config, descriptor_limits.Share(0, policy.worker_count(config)))
    for warning in limits.warnings:
        key, _, what = warning.partition(": ")
        yield Check(key.partition(" ")[0], False, what)
    if not limits.warnings:
        yield Check("limits.pre_queue", True, f"{limits.pre_queue} clients can be under test")


def checked_addresses(config: Config) -> Iterator[Check]:
    """Without IPv6 in the kernel, the daemon only serves IPv4 addresses, and fails if there are none."""
    addresses = [address for address in config.listen.ports if ":" in address.host]
    if not addresses or listeners.has_ipv6():
        return
    listed = ", ".join(str(address) for address in addresses)
    only = len(addresses) == len(config.listen.ports)
    served = "no address remains" if only else "only IPv4 is served"
    yield Check(
        "listen.addresses", not only, f"the kernel does not support IPv6, so {listed} is omitted; {served}", notice=True
    )


def checked_proxy(config: Config) -> Iterator[Check]:
    """Which hosts may claim any client address. Raises ConfigError if a list of networks cannot be read."""
    for port in config.listen.proxy:
        networks = load_networks(config, "listen.proxy: trusted", port.trusted)
        trusted = networks.table
        where = ", ".join(str(address) for address in port.addresses)
        yield from (Check("listen.proxy", False, warning) for warning in networks.warnings)
        local = [address for address in ("127.0.0.1", "::1") if member(trusted, address)]
        if local and any(_reached_locally(address.host, local) for address in port.addresses):
            yield Check("listen.proxy", True, f"{where}: every local user can claim any client address", notice=True)
        elif all(ipaddress.ip_address(address.host).is_loopback for address in port.addresses) and not local:
            yield Check("listen.proxy", False, f"{where}: only this machine can connect, but it is not in trusted")
        else:
            yield Check("listen.proxy", True, f"{where}: trusts {escape_text(', '.join(port.trusted), 500)}")


def _reached_locally(host: str, local: list[str]) -> bool:
    """Whether connections to this address come from a trusted loopback address."""
    address = ipaddress.ip_address(host)
    return (address.is_loopback or address.is_unspecified) and any(
        ipaddress.ip_address(source).version == address.version for source in local
    )


def _writable(what: str, path: Path, also: Path | None = None) -> Check:
    """Whether a file can be written or created, and whether files can be created in `also`."""
    name = escape_text(str(path))
    try:
        found = file_type(path)
        if found not in (0, stat.S_IFREG):
            return Check(what, False, f"{name} is not a file")
        if file_type(path.parent) != stat.S_IFDIR:
            return Check(what, False, f"{name}: the folder {escape_text(str(path.parent))} does not exist")
        for target in (path if found else path.parent, also):
            if target and not os.access(target, os.W_OK | (os.X_OK if target.is_dir() else 0), effective_ids=True):
                return Check(what, False, f"{name}: {_user()} may not write to {escape_text(str(target))}")
    except OSError as error:
        return Check(what, False, f"{name}: {error.strerror}")
    return Check(what, True, name if found else f"{name} will be created")


def _user() -> str:
    try:
        return f"user {pwd.getpwuid(os.geteuid()).pw_name}"
    except KeyError:
        return f"user {os.geteuid()}"


def checked_handoff(config: Config) -> Iterator[Check]:
    """Hand off a connection to each MTA, and read its greeting."""
    handoff = config.handoff
    for key, to in (("handoff.to", handoff.to), ("handoff.doubtful_to", handoff.doubtful_to)):
        if isinstance(to, Pass):
            try:
                yield Check(key, True, f"{escape_text(to.path)}: {try_pass(to.path)}")
            except (ProbeError, OSError) as error:
                yield Check(key, False, str(error))
        elif isinstance(to, Proxy):
            yield from _checked_proxy(key, to, config)
        elif to is not None:
            yield Check(key, True, "the embedded sink")
    if handoff.continue_to is not None:
        yield from _checked_proxy("handoff.continue_to", handoff.continue_to, config)


def _checked_proxy(what: str, proxy: Proxy, config: Config) -> Iterator[Check]:
    for target in proxy.targets:
        name = escape_text(str(target))
        try:
            capabilities = try_proxy(target, config.handoff.proxy_version, config.hostname)
        except ProbeError as error:
            yield Check(what, False, f"{name}: {error}")
            continue
        continues = what == "handoff.continue_to" or (
            what == "handoff.doubtful_to" and config.handoff.continue_to is not None
        )
        if continues and Keyword.STARTTLS in capabilities.keywords:
            detail = (
                "offers STARTTLS, which must be disabled on this port, because it would discard the earlier commands"
            )
            yield Check(what, False, f"{name}: {detail} (Postfix: -o smtpd_tls_security_level=none)")
        else:
            yield Check(what, True, f"{name}: announces {keyword_words(capabilities.keywords) or 'no extensions'}")
