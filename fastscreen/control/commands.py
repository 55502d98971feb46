"""The verbs of the control socket: what each takes, whether it acts, and who answers it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from msgspec import Struct

from fastscreen.control import acting, reading
from fastscreen.control.context import ServerContext
from fastscreen.control.protocol import Request, RequestError
from fastscreen.control.session import Caller
from fastscreen.escaping import one_line, unexpected

Handler = Callable[[ServerContext, Any, Caller, Request], Awaitable[Any]]


class Verb(Struct, frozen=True):
    takes: type[Struct]
    handler: Handler
    acts: bool = False
    large: bool = False
    """Its answer may take megabytes while it is made: only a few are made at a time."""


VERBS = {
    "status": Verb(reading.Nothing, reading.status),
    "config": Verb(reading.Nothing, reading.config),
    "sessions": Verb(reading.Sessions, reading.sessions, large=True),
    "events": Verb(reading.Events, reading.events, large=True),
    "cancel": Verb(reading.Cancel, reading.cancel),
    "story": Verb(reading.Address, reading.story, large=True),
    "dnsbl": Verb(reading.Nothing, reading.dnsbl),
    "clients": Verb(reading.Clients, reading.clients, large=True),
    "warnings": Verb(reading.Nothing, reading.warnings),
    "explain": Verb(reading.Explain, reading.explained),
    "cache.stats": Verb(reading.Nothing, reading.cache_stats),
    "cache.get": Verb(reading.Address, reading.cache_get),
    "cache.list": Verb(reading.CacheList, reading.cache_list, large=True),
    "cache.delete": Verb(acting.Delete, acting.delete, acts=True),
    "cache.import": Verb(acting.Import, acting.import_, acts=True),
    "bypass": Verb(acting.Bypass, acting.bypass, acts=True),
    "reload": Verb(acting.Order, acting.reload, acts=True),
    "reopen": Verb(acting.Order, acting.reopen, acts=True),
    "restart": Verb(acting.Order, acting.restart, acts=True),
    "stop": Verb(acting.Order, acting.stop, acts=True),
}


async def answer(context: ServerContext, caller: Caller, request: Request) -> Any:
    """What `ok` is. RequestError."""
    verb = VERBS.get(request.verb)
    if verb is None:
        raise RequestError(f"{request.verb[:40]!a}: no such verb; there are {', '.join(VERBS)}")
    if verb.acts and not caller.may_act:
        raise RequestError(f"{request.verb}: only root and the screening user may act, this is user {caller.uid}")
    try:
        arguments = msgspec.convert(request.arguments, verb.takes)
    except msgspec.ValidationError as error:
        raise RequestError(f"{request.verb}: {one_line(error)}") from None
    try:
        if not verb.large:
            return await verb.handler(context, arguments, caller, request)
        async with context.turns[caller.may_act]:
            return await verb.handler(context, arguments, caller, request)
    except RequestError:
        raise
    except ValueError as error:
        raise RequestError(one_line(error)) from None
    except Exception as error:  # whatever it is: the others are served on
        context.warn(f"control socket: {request.verb}: {unexpected(error)}")
        raise RequestError(f"{request.verb}: failed, and the log says why") from None
