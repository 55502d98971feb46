"""The queries of a refresh if name servers fail. tests/peers/test_allowlist_spf.py uses a real name server."""

import asyncio
import socket
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest
from robust.fakedns import Answer, Behaviour, FakeDns, Question, failing, record, silent

from fastscreen.allowlist import dns as asking
from fastscreen.allowlist.dns import Dns, nameservers_of
from fastscreen.allowlist.spf import SpfError
from fastscreen.config import load
from fastscreen.dns.resolver import Nameserver

MX, TXT = 15, 16


def ask(port: int, question: Callable[[Dns], Coroutine[Any, Any, Sequence[object]]]) -> Sequence[object]:
    async def run() -> Sequence[object]:
        dns = Dns([Nameserver("127.9.53.1", port)])
        try:
            return await question(dns)
        finally:
            await dns.close()

    return asyncio.run(run())


def asked(behaviour: Behaviour, question: Callable[[Dns], Coroutine[Any, Any, Sequence[object]]]) -> Sequence[object]:
    server = FakeDns({"a.example": behaviour})
    try:
        return ask(int(server.endpoint.rpartition(":")[2]), question)
    finally:
        server.close()


def always(kind: int, data: bytes) -> Behaviour:
    def behave(question: Question) -> list[Answer]:
        return [Answer(record(question, kind, data))]

    return behave


@pytest.mark.parametrize(("code", "why"), [(2, "SERVFAIL"), (5, "refused")])
def test_an_error_is_temporary_and_named(code: int, why: str) -> None:
    with pytest.raises(SpfError) as caught:
        asked(failing(code), lambda dns: dns.texts("a.example"))
    assert (caught.value.kind, str(caught.value)) == ("temperror", f"a.example TXT: {why}")


def test_nobody_is_there() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:  # a port that is nobody's, and stays so
        other.bind(("127.9.53.2", 0))
        port = other.getsockname()[1]
        with pytest.raises(SpfError) as caught:
            ask(port, lambda dns: dns.texts("a.example"))
    assert caught.value.kind == "temperror"
    assert str(caught.value).startswith("a.example TXT: ")


def test_a_silent_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "_DEADLINE_SECONDS", 0.1)
    with pytest.raises(SpfError) as caught:
        asked(silent, lambda dns: dns.texts("a.example"))
    assert (caught.value.kind, str(caught.value)) == ("temperror", "a.example TXT: no answer")


def test_strings_are_put_together_whatever_is_in_them() -> None:
    data = b"\x04v=sp\x00\x05f1 \x00\xff"
    assert asked(always(TXT, data), lambda dns: dns.texts("a.example")) == [b"v=spf1 \x00\xff"]


def test_records_of_another_type_are_passed_over() -> None:
    assert asked(always(TXT, b"\x01x"), lambda dns: dns.exchanges("a.example")) == []


def test_the_null_mx() -> None:
    assert asked(always(MX, b"\0\0\0"), lambda dns: dns.exchanges("a.example")) == ["."]


def test_an_exchange_in_capitals() -> None:
    data = b"\0\x0a\x02MX\x07EXAMPLE\0"
    assert asked(always(MX, data), lambda dns: dns.exchanges("a.example")) == ["mx.example"]


def test_the_resolvers_are_those_of_the_lists(tmp_path: Path) -> None:
    file = tmp_path / "fastscreen.toml"
    file.write_text('[dnsbl]\nresolvers = ["127.0.0.1:5353", "[::1]:53"]\n')
    assert [str(each) for each in nameservers_of(load(file))] == ["127.0.0.1:5353", "[::1]:53"]
    file.write_text("")
    assert nameservers_of(load(file))
