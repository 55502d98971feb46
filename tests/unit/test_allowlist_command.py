"""`fastscreen allowlist` with the test's own answers. tests/peers/test_allowlist_command.py has a real name server."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from peers import needs

from fastscreen.allowlist import state
from fastscreen.allowlist.spf import SpfError
from fastscreen.allowlist.state import Entry, State
from fastscreen.cli import allowlist, main
from fastscreen.config import providers

RECORDS = {
    "good.example": "v=spf1 ip4:8.8.8.0/24 ip4:10.0.0.1 ptr -all",
    "spam.example": "v=spf1 ip4:9.9.9.9 -all",
}


class Answers:
    """The DNS. A domain without a record gives no answer."""

    def __init__(self, _: object) -> None:
        pass

    async def texts(self, name: str) -> list[bytes]:
        if name not in RECORDS:
            raise SpfError("temperror", f"{name} TXT: no answer")
        return [RECORDS[name].encode()]

    async def addresses(self, name: str) -> list[str]:
        return []

    async def exchanges(self, name: str) -> list[str]:
        return []

    async def close(self) -> None:
        pass


class Command:
    """The command with a configuration of its own."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.file = folder / "fastscreen.toml"
        self.allow, self.deny = folder / "lists" / "allow", folder / "lists" / "deny"
        self._capsys = capsys
        self.configure()

    def configure(self, *allow: str, deny: tuple[str, ...] = (), first: str = "") -> None:
        self.file.write_text(
            f'{first}\nhandoff = {{to = "sink:"}}\n[allowlist]\ndomains = {json.dumps(allow)}\npath = "{self.allow}"\n'
            f'[denylist]\ndomains = {json.dumps(deny)}\npath = "{self.deny}"\n'
        )

    def run(self, *words: str) -> tuple[int, str, str]:
        """Exit code, stdout and stderr."""
        code = main(["allowlist", words[0], "-c", str(self.file), *words[1:]])
        return code, *self._capsys.readouterr()

    def json(self, *words: str) -> Any:
        return json.loads(self.run(*words, "--json")[1])


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    monkeypatch.setattr(allowlist, "Dns", Answers)
    return Command(tmp_path, capsys)


def test_list_has_every_provider_in_its_group(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["allowlist", "list"]) == 0
    group, listed = "", []
    for line in capsys.readouterr().out.splitlines():
        if not line.startswith(" "):
            group = line
        else:
            name, *domains = line.replace(",", "").split()
            listed.append((group, name, tuple(domains)))
    assert listed == [(each.group, each.name, each.domains) for each in providers.known()]
    assert main(["allowlist", "list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["providers"]
    assert [(each["group"], each["name"], tuple(each["domains"])) for each in found] == listed


def test_lists_without_anybody(command: Command) -> None:
    """Nothing is written, not even a folder; that is not a failure."""
    warning = f"fastscreen: {command.file}: [allowlist] and [denylist] do not name any provider\n"
    assert command.run("refresh") == (0, "", warning)
    assert command.run("refresh", "--json") == (0, '{\n  "lists": []\n}\n', warning)
    assert command.run("show") == (0, "", "")
    assert command.run("show", "good.example")[::2] == (1, "fastscreen: nothing is known about good.example\n")
    assert not command.allow.parent.exists()


def test_accept_on_empty_lists(command: Command) -> None:
    expected = "fastscreen: --accept google: not on any list; expected none, the lists are empty\n"
    assert command.run("refresh", "--accept", "google") == (2, "", expected)
    command.configure("good.example", deny=("spam.example",))
    code, out, err = command.run("refresh", "--accept", "good.example", "--accept", "\x1b[2J")
    assert (code, out) == (2, "")
    assert err == "fastscreen: --accept \\033[2J: not on any list; expected good.example, spam.example\n"


def test_json_of_a_refresh(command: Command) -> None:
    command.configure("good.example", "silent.example", deny=("spam.example",))
    code, out, err = command.run("refresh", "--json")
    assert code == 1
    assert err == "fastscreen: allowlist: silent.example (none yet): silent.example TXT: no answer\n"
    allow, deny = json.loads(out)["lists"]
    assert {key: deny[key] for key in ("list", "path", "changed", "warning")} == {
        "list": "denylist",
        "path": str(command.deny),
        "changed": True,
        "warning": "",
    }
    good, silent = allow["providers"]
    assert good.pop("good") > 1_700_000_000
    assert good == {
        "name": "good.example",
        "group": "own",
        "networks": 1,
        "added": ["8.8.8.0/24"],
        "removed": [],
        "problem": "",
        "sudden": False,
        "refused": ["10.0.0.1/32 (private)"],
        "omitted": ["ptr in good.example"],
    }
    assert (silent["good"], silent["networks"], silent["problem"]) == (None, 0, "silent.example TXT: no answer")
    again = command.json("refresh", "-n")["lists"]
    assert [each["changed"] for each in again] == [False, False]


def test_json_of_show(command: Command) -> None:
    command.configure("good.example", deny=("spam.example",))
    before = command.json("show")["lists"]
    assert [(each["list"], each["refreshed"]) for each in before] == [("allowlist", None), ("denylist", None)]
    assert before[0]["providers"][0]["tried"] is None
    command.run("refresh")
    allow, _ = command.json("show")["lists"]
    assert allow["refreshed"] > 1_700_000_000
    (one,) = allow["providers"]
    assert one == command.json("show", "good.example")
    assert (one["networks"], one["good"], one["problem"]) == (["8.8.8.0/24"], one["tried"], "")
    assert command.json("show", "spam.example")["networks"] == ["9.9.9.9/32"]


def test_show_of_a_damaged_state(command: Command) -> None:
    command.configure("good.example")
    command.allow.parent.mkdir()
    state.path_of(command.allow).write_text("{")
    warning = f"fastscreen: {command.allow}.state: damaged; starting without it\n"
    code, out, err = command.run("show")
    assert (code, err) == (0, warning) and out.endswith("not looked up yet\n")
    assert command.run("show", "good.example") == (1, "", f"{warning}fastscreen: nothing is known about good.example\n")
    code, out, err = command.run("show", "--json")
    assert (code, err) == (0, warning) and json.loads(out)["lists"][0]["refreshed"] is None


def test_a_user_without_rights_makes_the_folder_itself(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """And does not try to become the configuration's user."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    command.configure("good.example", first='user = "nobody"')
    code, out, err = command.run("refresh")
    assert (code, err) == (0, "") and out.endswith(" after `postfix reload`\n")
    assert command.allow.exists()
    command.allow = command.allow.parent.parent / "file" / "allow"
    command.allow.parent.write_text("")
    command.configure("good.example")
    code, out, err = command.run("refresh")
    assert (code, out) == (1, "")
    assert err.startswith(f"fastscreen: allowlist.path: {command.allow.parent}: ") and err.count("\n") == 1


def test_a_user_that_cannot_be_used(command: Command) -> None:
    needs.root("becoming another user")
    problems = {"nobody-at-all": "'nobody-at-all' does not exist on this system", "root": "'root' is root"}
    for user, problem in problems.items():
        command.configure("good.example", first=f'user = "{user}"')
        code, out, err = command.run("refresh")
        assert (code, out) == (2, "")
        assert err.startswith("fastscreen: ") and problem in err and err.count("\n") == 1
        assert not command.allow.exists()


@pytest.mark.parametrize("way", ["refresh", "show"])
def test_a_configuration_that_is_missing_or_wrong(command: Command, way: str) -> None:
    command.file.write_text('[allowlist]\ninterval = "often"\ngroup = ["bulk"]\n')
    code, out, err = command.run(way, "--json")
    assert (code, out) == (2, "")
    assert [line.startswith(f"fastscreen: {command.file}: allowlist.") for line in err.splitlines()] == [True, True]
    command.file.unlink()
    code, out, err = command.run(way)
    assert (code, out) == (2, "") and str(command.file) in err and err.count("\n") == 1


def test_what_show_says_of_a_provider(command: Command) -> None:
    command.configure("good.example", deny=("spam.example",))
    command.allow.parent.mkdir()
    refused = ("10.0.0.1/32 (private)",)
    entry = Entry("own", ("good.example",), ("8.8.8.8/32",), 1.0, 2.0, "no answer", refused=refused)
    state.save(command.allow, State(refreshed=2.0, providers={"good.example": entry}))
    code, out, err = command.run("show")
    assert (code, err) == (0, "")
    allow, good, deny, spam = out.splitlines()
    assert allow.startswith(f"allowlist  {command.allow}  refreshed 1970-01-01 ") and allow.endswith(" ago)")
    assert "  good.example         own       1 network, " in good
    assert good.endswith(" old; no answer; refused: 10.0.0.1/32 (private)")
    assert (deny, spam.split()[2:]) == (f"denylist  {command.deny}  new", ["not", "looked", "up", "yet"])
