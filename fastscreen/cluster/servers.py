"""Finds the server: its URL as it is configured, or what the Sentinels say."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError

from fastscreen.cluster.files import Files
from fastscreen.cluster.link import CONNECT_TIMEOUT, BoundedParser, Command, Link, StoreError
from fastscreen.config.model import ClusterConfig
from fastscreen.config.server_url import ServerUrl, parse_server_url

_HOST_MAX = 253


class Servers:
    """Where to connect to, and how. ValueError: the URL is malformed."""

    def __init__(self, cluster: ClusterConfig, files: Files) -> None:
        self._cluster = cluster
        self._files = files
        self._url = parse_server_url(cluster.server) if cluster.server else None

    @property
    def has_sentinels(self) -> bool:
        return bool(self._cluster.sentinels)

    async def find(self) -> list[ServerUrl]:
        """Where the server is: one address, or what each Sentinel says, if they differ. StoreError."""
        if not self._cluster.sentinels:
            assert self._url is not None
            return [self._url]
        tls = bool(self._cluster.ca_file)
        sentinels = [ServerUrl(each.host, each.port, tls=tls) for each in self._cluster.sentinels]
        found: Counter[ServerUrl] = Counter()
        problems = []
        tasks = [asyncio.create_task(self._ask(sentinel)) for sentinel in sentinels]
        try:
            for answer in asyncio.as_completed(tasks):
                try:
                    where = await answer
                except StoreError as error:
                    problems.append(str(error))
                    continue
                found[where] += 1
                if found[where] > len(sentinels) / 2:  # a frozen one is not waited for
                    return [where]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if not found:
            raise StoreError(f"no Sentinel knows the server: {problems[0]}")
        return [where for where, _ in found.most_common()]

    def link(self, where: ServerUrl, on_push: Any = None) -> Link:
        """A connection to this server, not open yet."""
        return Link(self._connection(where, self._files.user, self._files.password), str(where), on_push)

    async def _ask(self, sentinel: ServerUrl) -> ServerUrl:
        """Where one Sentinel sees the server. StoreError."""
        name = f"Sentinel {sentinel}"
        question = (b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", self._cluster.master)
        try:
            reply = await self._reply_of(sentinel, name, question, "", "")
        except StoreError as error:
            if not (error.refused and self._files.password):
                raise
            reply = await self._reply_of(sentinel, name, question, self._files.user, self._files.password)
        if isinstance(reply, ResponseError):
            raise StoreError(f"{name}: refuses the question for its server")
        if reply is None:
            raise StoreError(f"{name}: does not know cluster.master")
        try:
            host, port = reply
            where = ServerUrl(host.decode("ascii"), int(port), tls=sentinel.tls)
        except (TypeError, ValueError, AttributeError):
            raise StoreError(f"{name}: gives a malformed answer") from None
        if not (0 < len(where.host) <= _HOST_MAX and where.host.isprintable() and 0 < where.port < 1 << 16):
            raise StoreError(f"{name}: gives a malformed address")
        return where

    async def _reply_of(self, sentinel: ServerUrl, name: str, question: Command, user: str, password: str) -> Any:
        link = Link(self._connection(sentinel, user, password), name)
        try:
            await link.open()
            [reply] = await link.call(question)
            return reply
        finally:
            await link.close()

    def _connection(self, where: ServerUrl, user: str, password: str) -> AbstractConnection:
        """Redis-py's, which only speaks the protocol: `Link` has the time-outs, and `Store` tries again."""
        usual: dict[str, Any] = {
            "db": where.database,
            "username": user or None,
            "password": password or None,
            "socket_timeout": None,
            "socket_connect_timeout": CONNECT_TIMEOUT,
            "retry": Retry(NoBackoff(), 0),
            "retry_on_timeout": False,
            "health_check_interval": 0,
            "parser_class": BoundedParser,
            "protocol": 2,
            "driver_info": None,  # or the version would be read from files, which this user may not be able to read
            "client_name": f"fastscreen-{self._cluster.name}" if self._cluster.name else "fastscreen",
        }
        if where.path:
            return UnixDomainSocketConnection(path=where.path, **usual)
        if where.tls:
            return SSLConnection(
                host=where.host,
                port=where.port,
                ssl_cert_reqs="required",
                ssl_check_hostname=True,
                ssl_ca_data=self._files.certificates or None,
                **usual,
            )
        return Connection(host=where.host, port=where.port, **usual)
