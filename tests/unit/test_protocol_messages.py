"""The protocol's messages are defined once: server, client and view use the same ones."""

import ast
import inspect
from pathlib import Path

import msgspec
import pytest

import fastscreen.tui
from fastscreen.control import client, messages
from fastscreen.control.commands import COMMANDS

REQUESTS = [
    kind
    for _, kind in inspect.getmembers(messages, inspect.isclass)
    if issubclass(kind, messages.Request) and kind is not messages.Request
]
VIEW = Path(fastscreen.tui.__file__).parent
MAY_IMPORT = {
    "fastscreen.control",
    "fastscreen.control.client",
    "fastscreen.control.messages",
    "fastscreen.escaping",
    "fastscreen.history.times",
}


def test_every_request_has_a_command() -> None:
    assert {kind.verb: kind for kind in REQUESTS} == {verb: command.request for verb, command in COMMANDS.items()}


@pytest.mark.parametrize("kind", REQUESTS, ids=lambda kind: str(kind.verb))
def test_the_server_takes_no_other_arguments(kind: type[msgspec.Struct]) -> None:
    with pytest.raises(msgspec.ValidationError, match="unknown field `more`"):
        msgspec.convert({"more": 1}, kind)


def test_a_request_omits_defaults() -> None:
    """So that an older server takes it."""
    frame = client.pack(7, messages.SessionsRequest(sort="score"))
    assert msgspec.msgpack.decode(frame[4:]) == {"id": 7, "do": "sessions", "sort": "score"}


def test_an_answer_may_have_keys_of_tomorrow_and_lack_others() -> None:
    status = {"time": 1, "started": 0, "version": "9", "hostname": "mx", "pid": 2, "new": {}}
    assert client.record(messages.Status, status).workers == []


def test_the_view_imports_only_the_client_and_the_messages() -> None:
    found = set()
    for file in VIEW.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("fastscreen"):
                names = {f"{node.module}.{alias.name}" for alias in node.names}
                found |= {node.module} if node.module != "fastscreen.control" else names
    assert {name for name in found if not name.startswith("fastscreen.tui")} <= MAY_IMPORT


def test_the_view_has_no_cycle_with_its_screens() -> None:
    """The application knows the screens, and these know only what they need of it (`Host`)."""
    for file in [VIEW / "view.py", *(VIEW / "views").glob("*.py")]:
        assert "fastscreen.tui.app" not in file.read_text()
