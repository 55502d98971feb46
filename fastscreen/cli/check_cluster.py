"""Checks of [cluster]: files, connection, records of other hosts, clocks. The server gets one record for a minute."""

from __future__ import annotations

import asyncio
import os
import ssl
import stat
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from fastscreen.config import Config, ConfigError
from fastscreen.config.model import ClusterConfig
from fastscreen.escaping import escape_text
from fastscreen.format import plural, span

if TYPE_CHECKING:  # these import redis, which may not be installed: see `checked_cluster`
    from fastscreen.cluster.files import Files
    from fastscreen.cluster.secrets import Secrets
    from fastscreen.cluster.servers import Servers
    from fastscreen.cluster.store import HostEntry, Store

Found = tuple[str, bool, str] | tuple[str, bool, str, bool]
"""The fields of check.Check."""

SECONDS = 20.0  # for all of it
CLOCK_SECONDS = 300.0  # by which clocks may differ
NAMESAKE_SECONDS = 30.0  # within which an entry of this host's name counts as one that is in use
ALIVE_SECONDS = 6.0  # within which a host that is there refreshes its entry
RECORD_SECONDS = 60  # for which the server keeps the record of the check
SAMPLE = 100  # records of other hosts that are read
SCANS = 20  # replies in which they are looked for, among the keys of others


def checked_cluster(config: Config, missing: str) -> Iterator[Found]:
    """missing: what is not installed. Otherwise `preload.missing_for_cluster` has imported everything, which this
    process's user may be unable to read now.
    """
    cluster = config.cluster
    if not cluster.enabled:
        return
    key = "cluster.server" if cluster.server else "cluster.sentinels"
    if missing:
        yield key, False, missing
        return
    from fastscreen.cluster import files
    from fastscreen.cluster.servers import Servers

    if unreadable := list(_unreadable(cluster)):
        yield from unreadable
        return
    try:
        content = files.read(cluster)
        servers = Servers(cluster, content)
    except ConfigError as error:
        what, _, detail = str(error).partition(": ")
        yield what, False, detail
        return
    except (OSError, ValueError) as error:
        yield key, False, str(error)
        return
    yield from _exposed(cluster)
    if cluster.ca_file and not _has_certificates(content):
        yield "cluster.ca_file", False, f"{escape_text(cluster.ca_file)}: no valid certificate in PEM format"
        return
    yield from uvloop.run(_tried(cluster, key, content, servers))


def _paths(cluster: ClusterConfig) -> Iterator[tuple[str, str]]:
    for key in ("secret_file", "password_file", "ca_file"):
        if path := getattr(cluster, key):
            yield f"cluster.{key}", path


def _unreadable(cluster: ClusterConfig) -> Iterator[Found]:
    for key, path in _paths(cluster):
        try:
            os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        except PermissionError as error:
            detail = f"{escape_text(path)}: {error.strerror}; expected a file that the daemon's user can read"
            yield key, False, detail
        except OSError as error:
            yield key, False, f"{escape_text(path)}: {error.strerror}"


def _exposed(cluster: ClusterConfig) -> Iterator[Found]:
    """Files with secrets that every local user can read."""
    for key, path in _paths(cluster):
        if key != "cluster.ca_file" and Path(path).stat().st_mode & stat.S_IROTH:
            yield key, True, f"{escape_text(path)}: every local user can read it; expected mode 0640 or 0600", True


def _has_certificates(content: Files) -> bool:
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=content.certificates)
        return True
    except (ssl.SSLError, ValueError):
        return False


class _Outcome:
    """How the first attempt to connect ended: an empty text, or why it failed."""

    def __init__(self) -> None:
        self.future: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def connected(self) -> None:
        self._set("")

    def disconnected(self, why: str) -> None:
        self._set(why)

    def published(self, value: bytes) -> None:
        """A deletion, which is the daemon's concern."""

    def _set(self, text: str) -> None:
        if not self.future.done():
            self.future.set_result(text)


async def _tried(cluster: ClusterConfig, key: str, content: Files, servers: Servers) -> list[Found]:
    """Connect, and look at what is there."""
    from fastscreen.cluster.link import StoreError
    from fastscreen.cluster.store import Store

    outcome = _Outcome()
    store = Store(servers, cluster.prefix, outcome)
    task = asyncio.create_task(store.run())
    found: list[Found] = []
    try:
        async with asyncio.timeout(SECONDS):
            if problem := await outcome.future:
                return [(_key_of(problem, key, cluster), False, problem)]
            found.append(await _stored(cluster, key, content.secrets, store))
            found += await _clocks(cluster, key, store)
            found += await _signatures(cluster, content.secrets, store)
            if (status := store.status()).problem:
                found.append((key, False, f"{status.problem}; {status.effect}"))
    except StoreError as error:
        found.append((key, False, str(error)))
    except TimeoutError:
        found.append((key, False, f"the server takes longer than {SECONDS:g} s"))
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    return found


def _key_of(problem: str, key: str, cluster: ClusterConfig) -> str:
    """The key that most likely has to be changed."""
    if "refuses the user or the password" in problem or "NOAUTH" in problem:
        return "cluster.password_file"
    if "CERTIFICATE_VERIFY_FAILED" in problem:
        return "cluster.ca_file"
    if "does not know cluster.master" in problem:
        return "cluster.master"
    return key


async def _stored(cluster: ClusterConfig, key: str, secrets: Secrets, store: Store) -> Found:
    """Store a record with its MAC, and read it. StoreError."""
    from fastscreen.cluster import records

    name = f"c:{cluster.name}/check".encode()
    now = time.time()
    expiry = int(now) + RECORD_SECONDS
    value = records.seal(secrets, records.CHECK_LABEL, name, b"", expiry=expiry, stored=now, host=cluster.name)
    seconds, read = await store.round_trip(name, value, RECORD_SECONDS)
    status = store.status()
    if isinstance(records.unseal(secrets, records.CHECK_LABEL, name, read), records.Reason):
        return key, False, f"{status.server}: does not return the record that was stored"
    return key, True, f"{status.server} ({status.role}): a record was stored and read in {1000 * seconds:.1f} ms"


async def _clocks(cluster: ClusterConfig, key: str, store: Store) -> list[Found]:
    """Compare this host's clock with those of the server and the other hosts. StoreError."""
    found: list[Found] = []
    if text := _difference(await store.server_time() - time.time()):
        found.append((key, False, f"{store.status().server}: the clock of the server is {text}"))
    hosts = await store.hosts()
    now = time.time()
    if (own := hosts.get(cluster.name)) is not None and own.time > now - NAMESAKE_SECONDS:
        text = (
            f"{cluster.name}: a host of this name is connected; "
            "unless this is the daemon on this host, give each host its own name"
        )
        found.append(("cluster.name", True, text, True))
    peers = _others(cluster, hosts)
    if any(entry.time < now - CLOCK_SECONDS for entry in peers.values()):
        # It is switched off, or its clock is slow: then its entry changes all the same.
        await asyncio.sleep(ALIVE_SECONDS)
        later = _others(cluster, await store.hosts())
        now = time.time()
        peers = {
            name: entry for name, entry in later.items() if name not in peers or entry.time != peers[name].time
        } | {name: entry for name, entry in peers.items() if entry.time > now - CLOCK_SECONDS}
    for name, entry in sorted(peers.items()):
        if text := _difference(entry.time - now):
            found.append((key, False, f"{name}: the clock of this host of the cluster is {text}"))
    names = ", ".join(sorted(peers)) or "none"
    return [*found, (key, True, f"other hosts that are connected or were lately: {names}")]


def _others(cluster: ClusterConfig, hosts: Mapping[str, HostEntry]) -> dict[str, HostEntry]:
    return {name: entry for name, entry in hosts.items() if name != cluster.name}


def _difference(ahead: float) -> str:
    if abs(ahead) <= CLOCK_SECONDS:
        return ""
    return f"{span(abs(ahead))} {'ahead' if ahead > 0 else 'behind'}; expected at most {span(CLOCK_SECONDS)}"


async def _signatures(cluster: ClusterConfig, secrets: Secrets, store: Store) -> list[Found]:
    """Whether other hosts sign with a secret that this host knows. StoreError."""
    from fastscreen.cluster import records, tombstones
    from fastscreen.cluster.link import StoreError

    path = escape_text(cluster.secret_file)
    try:
        names = await _some_names(store)
    except StoreError as error:
        if not error.refused:
            raise
        return [("cluster.secret_file", True, f"{path}: not compared with other hosts, as SCAN is not permitted", True)]
    values: list[tuple[bytes, bytes, bytes]] = []
    for name, value in zip(names, await store.get(names) if names else (), strict=True):
        if value is not None:
            values.append((records.PASS_LABEL, name, value))
    values += [(records.DELETED_LABEL, tombstones.NAME, value) for value, _ in await store.deletions(SAMPLE)]
    wrong = [
        value for label, name, value in values if records.unseal(secrets, label, name, value) is records.Reason.BAD_MAC
    ]
    if not wrong:
        return [("cluster.secret_file", True, f"{path}: {plural(len(values), 'record')} of the server verified")]
    by = ", ".join(_claimed(records.claimed_host(value) for value in wrong))
    return [
        (
            "cluster.secret_file",
            False,
            f"{path}: {len(wrong)} of {plural(len(values), 'record')} in the server are signed with another secret, "
            f"according to the records by {by}; expected the same secret on all hosts",
        )
    ]


async def _some_names(store: Store) -> list[bytes]:
    """The server's keys of some passes, without the cluster's prefix. StoreError: also if SCAN is not permitted."""
    found: list[bytes] = []
    cursor = b"0"
    for _ in range(SCANS):
        cursor, names = await store.scan(cursor, b"p:")
        found += names
        if len(found) >= SAMPLE or cursor == b"0":
            break
    return list(dict.fromkeys(found))[:SAMPLE]


def _claimed(hosts: Iterable[str]) -> Sequence[str]:
    found = sorted(set(hosts))
    return found if len(found) <= 5 else [*found[:5], "…"]
