"""Connects to what a configuration names: an MTA, a DNS resolver."""

from __future__ import annotations

import array
import asyncio
import errno
import os
import socket
import time

import aiodns

from fastscreen.config.model import Endpoint, Target
from fastscreen.dns.resolver import Nameserver, asker
from fastscreen.escaping import escape_text
from fastscreen.mta.capabilities import Capabilities, asked, parse_capabilities

_MAX_REPLY = 4096


class ProbeError(Exception):
    """A probe failed. The message is one printable line."""


def try_pass(path: str, timeout: float = 10.0) -> str:
    """Hand off one end of a loopback connection to an MTA (reference 8), and return its `220` line. Raises ProbeError.

    timeout: total, in s. The session ends with QUIT, so that the MTA does not log an error.
    """
    end = time.monotonic() + timeout
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        with socket.create_connection(listener.getsockname(), timeout) as client:
            server, address = listener.accept()
            with server:
                _hand_over(path, server, address, listener.getsockname(), timeout)
            reply = _read_reply(client, end)
            if reply.startswith(b"220"):
                client.sendall(b"QUIT\r\n")
                _read_reply(client, end, may_close=True)
                return escape_text(reply.decode("ascii", "backslashreplace"), 500)
    if not reply:
        raise ProbeError("the MTA closed the connection without a greeting; see the log of the MTA")
    raise ProbeError(f"the MTA replied {escape_text(reply.decode('ascii', 'backslashreplace'), 500)}; expected 220")


def try_proxy(target: Target, version: int, hostname: str, timeout: float = 10.0) -> Capabilities:
    """Connect to an MTA with a PROXY header without a client, and return what it announces. Raises ProbeError.

    timeout: total, in s. The session ends with QUIT.
    """
    try:
        return parse_capabilities(asyncio.run(asyncio.wait_for(asked(target, version, hostname), timeout)))
    except TimeoutError:
        raise ProbeError(f"no reply within {timeout:g} s; does the port accept the PROXY protocol?") from None
    except EOFError:
        raise ProbeError(
            "the MTA closed the connection; does the port accept the PROXY protocol? See the log of the MTA"
        ) from None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else f"the MTA sent {error}"
        raise ProbeError(escape_text(why or str(error), 500)) from None


def _hand_over(path: str, server: socket.socket, client: tuple[str, int], own: tuple[str, int], timeout: float) -> None:
    values = {
        "client_address": client[0],
        "client_port": client[1],
        "server_address": own[0],
        "server_port": own[1],
    }
    attributes = "".join(f"{name}\0{value}\0" for name, value in values.items()).encode() + b"\0"
    with socket.socket(socket.AF_UNIX) as channel:
        channel.settimeout(timeout)
        try:
            channel.connect(path)
            rights = array.array("i", [server.fileno()]).tobytes()
            channel.sendmsg([b"\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
            channel.sendall(attributes)
        except OSError as error:
            raise ProbeError(_socket_problem(path, error)) from None


def _socket_problem(path: str, error: OSError) -> str:
    why = error.strerror or str(error)
    match error.errno:
        case errno.ENOENT:
            hint = "is Postfix running, with the service `smtpd pass` in master.cf?"
        case errno.ECONNREFUSED:
            hint = "is Postfix running?"
        case errno.EACCES | errno.EPERM:
            hint = f"user {os.geteuid()} may not use it; start as root or as Postfix's user"
        case errno.EAGAIN | errno.ETIMEDOUT:
            hint = "its queue is full"
        case _:
            hint = "is this a socket of Postfix?"
    return f"{escape_text(path)}: {why}; {hint}"


def _read_reply(client: socket.socket, end: float, may_close: bool = False) -> bytes:
    """The last line of a reply, without CRLF; empty if the connection was closed."""
    data = b""
    while len(data) < _MAX_REPLY:
        lines = data.split(b"\n")
        for line in lines[:-1]:
            if line[3:4] != b"-":
                return line.rstrip(b"\r")
        client.settimeout(max(end - time.monotonic(), 0.001))
        try:
            some = client.recv(_MAX_REPLY)
        except TimeoutError:
            if may_close:
                return b""
            raise ProbeError("the MTA accepted the connection, but did not send a greeting in time") from None
        except OSError:
            some = b""
        if not some:
            return b""
        data += some
    raise ProbeError("the greeting of the MTA is too long")


def try_resolver(resolver: Endpoint, domain: str, timeout: float = 5.0) -> str:
    """Ask a resolver for the test entry of a list (RFC 5782 section 5), and describe the answer. Raises ProbeError.

    `no such name` is a valid answer, because this checks the resolver and not the list.
    """
    return asyncio.run(_ask(resolver, f"2.0.0.127.{domain}", timeout))


async def _ask(resolver: Endpoint, name: str, timeout: float) -> str:
    try:
        client = asker([Nameserver(resolver.host, resolver.port)], timeout)
    except aiodns.error.DNSError as error:
        raise ProbeError(f"query failed: {error.args[-1]}") from None
    try:
        async with asyncio.timeout(timeout):
            answer = await client.query_dns(name, "A")
        count = len(answer.answer)
        return "1 record" if count == 1 else f"{count} records"
    except TimeoutError:
        raise ProbeError(f"no answer in {timeout:g} s") from None
    except aiodns.error.DNSError as error:
        match error.args[0]:
            case aiodns.error.ARES_ENOTFOUND | aiodns.error.ARES_ENODATA:
                return "no such name"
            case aiodns.error.ARES_ETIMEOUT:
                raise ProbeError(f"no answer in {timeout:g} s") from None
            case aiodns.error.ARES_ECONNREFUSED:
                raise ProbeError("connection refused; is a resolver running there?") from None
            case aiodns.error.ARES_ESERVFAIL:
                raise ProbeError(f"answered SERVFAIL for {name}") from None
            case aiodns.error.ARES_EREFUSED:
                raise ProbeError(f"refused to answer for {name} (REFUSED)") from None
        raise ProbeError(f"no usable answer for {name}: {error.args[-1]}") from None
    finally:
        await client.close()
