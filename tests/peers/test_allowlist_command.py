"""`fastscreen allowlist` with a real name server, and its tables in Postfix's own hands."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from robust.harness import COMMAND

from fastscreen.allowlist import state
from fastscreen.allowlist.state import Entry, State
from fastscreen.atomicfile import sole_writer
from fastscreen.cli import main
from fastscreen.core import NetworkTable
from peers import needs
from peers.nsd import ADDRESS, Nsd

CLIENTS = ["8.8.8.0", "8.8.8.255", "8.8.9.0", "9.9.9.9", "2a00:1450:4fff::1", "2a00:1450:5000::", "5.5.5.5", "1.1.1.1"]


@pytest.fixture(scope="module")
def nsd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nsd]:
    server = Nsd(tmp_path_factory.mktemp("nsd"))
    yield server
    server.close()


class Lists:
    """A configuration in a folder, and the command on it."""

    def __init__(self, folder: Path, nsd: Nsd, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.allow, self.deny = folder / "lists" / "allowlist.cidr", folder / "lists" / "denylist.cidr"
        self._nsd = nsd
        self._capsys = capsys

    def configure(self, *domains: str, deny: str = "") -> None:
        names = [f"{each}.senders.test" for each in domains]
        (self.folder / "fastscreen.toml").write_text(
            f'[handoff]\nto = "sink:"\n[dnsbl]\nresolvers = ["{ADDRESS}:{self._nsd.port}"]\n'
            f'[allowlist]\ndomains = {json.dumps(names)}\npath = "{self.allow}"\n'
            f'[denylist]\ndomains = {json.dumps([deny] if deny else [])}\npath = "{self.deny}"\n'
        )

    def run(self, *words: str) -> tuple[int, str, str]:
        """Exit code and what it said."""
        code = main(["allowlist", words[0], "-c", str(self.folder / "fastscreen.toml"), *words[1:]])
        said = self._capsys.readouterr()
        return code, said.out, said.err

    def json(self, *words: str) -> Any:
        return json.loads(self.run(*words, "--json")[1])


@pytest.fixture
def lists(tmp_path: Path, nsd: Nsd, capsys: pytest.CaptureFixture[str]) -> Lists:
    return Lists(tmp_path, nsd, capsys)


def rules(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if not line.startswith("#")]


def test_from_nothing_to_a_table(lists: Lists) -> None:
    lists.configure("big")
    code, out, err = lists.run("refresh")
    assert (code, err) == (0, "")
    assert out == (
        "big.senders.test (own): 3 networks\n"
        "  + 8.8.8.0/24\n"
        "  + 9.9.9.9/32\n"
        "  + 2a00:1450:4000::/36\n"
        "  omitted: exists:%{i}.x.senders.test in big.senders.test\n"
        f"{lists.allow}: replaced; a running fastscreen reads it within seconds, postscreen after `postfix reload`\n"
    )
    assert rules(lists.allow) == ["8.8.8.0/24\tpermit", "9.9.9.9/32\tpermit", "2a00:1450:4000::/36\tpermit"]
    assert lists.run("refresh") == (0, f"{lists.allow}: no change\n", "")


def test_a_dry_run_changes_nothing(lists: Lists) -> None:
    lists.configure("big")
    code, out, err = lists.run("refresh", "--dry-run")
    assert (code, err) == (0, "")
    assert "  + 9.9.9.9/32\n" in out and out.endswith(f"{lists.allow}: would be replaced\n")
    assert not lists.allow.parent.exists()
    lists.run("refresh")
    before = {path.name: path.read_bytes() for path in lists.allow.parent.iterdir()}
    lists.configure("odd")
    code, out, _ = lists.run("refresh", "-n")
    assert code == 0 and "  - 9.9.9.9/32\n" in out
    assert {path.name: path.read_bytes() for path in lists.allow.parent.iterdir()} == before


def test_what_is_refused_is_named_with_its_provider(lists: Lists) -> None:
    lists.configure("odd")
    code, out, err = lists.run("refresh")
    assert (code, err) == (0, "")
    assert out.startswith(
        "odd.senders.test (own): 2 networks\n  + 1.1.1.1/32\n  + 8.8.8.8/32\n"
        "  refused: 10.0.0.0/8 (private)\n  refused: 8.0.0.0/7 (wider than /8)\n"
    )


def test_a_provider_that_fails_keeps_its_last_result(lists: Lists, nsd: Nsd) -> None:
    lists.configure("big", "bad")
    code, out, err = lists.run("refresh")
    assert code == 1
    assert err == (
        'fastscreen: allowlist: bad.senders.test (none yet): bad.senders.test: "nonsense": not an SPF mechanism\n'
    )
    assert "big.senders.test (own): 3 networks\n" in out
    before = rules(lists.allow)
    nsd.change("senders.test", "more TXT", "less TXT")  # include of a domain without a record
    try:
        code, out, err = lists.run("refresh")
    finally:
        nsd.change("senders.test", "less TXT", "more TXT")
    assert (code, out) == (1, f"{lists.allow}: no change\n")
    assert "): more.senders.test: no SPF record\n" in err
    assert rules(lists.allow) == before
    big, bad = lists.run("show")[1].splitlines()[1:]
    assert "own       3 networks, " in big and "; more.senders.test: no SPF record; omitted: exists:" in big
    assert bad.endswith('own       nothing yet; bad.senders.test: "nonsense": not an SPF mechanism')


def test_a_list_that_shrinks_is_taken_when_it_is_said_so(lists: Lists, nsd: Nsd) -> None:
    lists.configure("big")
    lists.run("refresh")
    before = rules(lists.allow)
    nsd.change("senders.test", "ip4:8.8.8.0/25 ip4:8.8.8.128/25", "ip4:8.8.8.0/26")
    try:
        code, out, err = lists.run("refresh")
        assert (code, out) == (1, f"{lists.allow}: no change\n")
        assert "has less than half of its addresses (networks: 3, before 3); to accept it: " in err
        assert err.endswith("fastscreen allowlist refresh --accept big.senders.test\n")
        assert rules(lists.allow) == before
        code, out, err = lists.run("refresh", "--accept", "big.senders.test")
        assert (code, err) == (0, "")
        assert "  + 8.8.8.0/26\n  - 8.8.8.0/24\n" in out
        assert rules(lists.allow)[0] == "8.8.8.0/26\tpermit"
    finally:
        nsd.change("senders.test", "ip4:8.8.8.0/26", "ip4:8.8.8.0/25 ip4:8.8.8.128/25")


def test_a_denylist_beside_it(lists: Lists) -> None:
    lists.configure("big", deny="spam.senders.test")
    assert lists.run("refresh")[0] == 0
    assert rules(lists.deny) == ["5.5.5.0/24\treject"]


def test_a_denied_domain_that_names_a_big_provider(lists: Lists, nsd: Nsd) -> None:
    """The owner of the record could otherwise cause other senders to be rejected."""
    lists.configure(deny="spam.senders.test")
    lists.run("refresh")
    nsd.change("senders.test", "ip4:5.5.5.0/24", "ip4:5.5.5.0/24 include:big.senders.test")
    try:
        code, _, err = lists.run("refresh")
        assert code == 1 and rules(lists.deny) == ["5.5.5.0/24\treject"]
        assert "has more than twice its addresses (networks: 4, before 1); to accept it: " in err
        assert lists.run("refresh", "--accept", "spam.senders.test")[0] == 0
        assert len(rules(lists.deny)) == 4
    finally:
        nsd.change("senders.test", "ip4:5.5.5.0/24 include:big.senders.test", "ip4:5.5.5.0/24")


def test_a_list_that_cannot_be_written_hides_nothing_of_the_other(lists: Lists) -> None:
    lists.configure("big", deny="spam.senders.test")
    lists.deny.mkdir(parents=True)
    code, out, err = lists.run("refresh")
    assert (code, err) == (1, f"fastscreen: denylist: not refreshed: {lists.deny}: Is a directory\n")
    assert out.endswith(
        f"{lists.allow}: replaced; a running fastscreen reads it within seconds, postscreen after `postfix reload`\n"
    )
    assert rules(lists.allow)


def test_a_refresh_while_another_is_under_way(lists: Lists) -> None:
    lists.configure("big")
    lists.allow.parent.mkdir()
    with sole_writer(lists.allow.parent):
        code, out, err = lists.run("refresh")
    assert (code, out) == (1, "")
    assert err == "fastscreen: allowlist: not refreshed: another refresh is under way\n"


def test_who_is_taken_off_is_gone_from_the_table(lists: Lists) -> None:
    lists.configure("big", "odd", deny="spam.senders.test")
    lists.run("refresh")
    lists.configure("odd")
    code, out, _ = lists.run("refresh")
    assert code == 0
    assert "big.senders.test (own): 0 networks\n  - 8.8.8.0/24\n" in out
    assert rules(lists.allow) == ["1.1.1.1/32\tpermit", "8.8.8.8/32\tpermit"]
    assert rules(lists.deny) == []


def test_json_has_all_of_it(lists: Lists) -> None:
    lists.configure("odd", "bad")
    (allow,) = lists.json("refresh")["lists"]
    assert (allow["list"], allow["path"], allow["changed"]) == ("allowlist", str(lists.allow), True)
    odd, bad = allow["providers"]
    assert (odd["name"], odd["networks"], odd["added"]) == ("odd.senders.test", 2, ["1.1.1.1/32", "8.8.8.8/32"])
    assert odd["refused"] == ["10.0.0.0/8 (private)", "8.0.0.0/7 (wider than /8)"]
    assert bad["problem"] == 'bad.senders.test: "nonsense": not an SPF mechanism' and bad["good"] is None
    (shown,) = lists.json("show")["lists"]
    assert [each["networks"] for each in shown["providers"]] == [["1.1.1.1/32", "8.8.8.8/32"], []]
    assert lists.json("show", "odd.senders.test")["domains"] == ["odd.senders.test"]


def test_show(lists: Lists) -> None:
    lists.configure("odd", "bad")
    code, out, err = lists.run("show")
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == f"allowlist  {lists.allow}  new"
    assert out.splitlines()[1].split() == ["odd.senders.test", "own", "not", "looked", "up", "yet"]
    lists.run("refresh")
    lines = lists.run("show")[1].splitlines()
    assert "refreshed 20" in lines[0]
    assert "2 networks, 0 s old; refused: 10.0.0.0/8 (private); refused: 8.0.0.0/7 (wider than /8)" in lines[1]
    assert 'nothing yet; bad.senders.test: "nonsense": not an SPF mechanism' in lines[2]
    assert lists.run("show", "odd.senders.test") == (0, "1.1.1.1/32\n8.8.8.8/32\n", "")
    assert lists.run("show", "nobody") == (1, "", "fastscreen: nothing is known about nobody\n")


def test_what_stands_in_the_state_is_escaped(lists: Lists) -> None:
    """root may look at a file of the user without rights."""
    lists.configure("odd")
    lists.allow.parent.mkdir()
    entry = Entry("\x1b[2J", (), ("1.1.1.1/32",), 1.0, 1.0, "\x1b]0;x\a", ("\x9b1m",), ("\x1b[31m",))
    state.save(lists.allow, State(providers={"odd.senders.test": entry, "\x1b[1m": entry}))
    for words in (("show",), ("show", "--json"), ("refresh",)):
        _, out, err = lists.run(*words)
        assert not set(out + err) & set("\x1b\x9b\a"), words
        assert "1b" in out or "033" in out


def test_a_damaged_state_begins_anew_and_says_so(lists: Lists) -> None:
    lists.configure("odd")
    lists.run("refresh")
    state.path_of(lists.allow).write_text("{")
    code, out, err = lists.run("refresh")
    assert (code, err) == (0, f"fastscreen: {lists.allow}.state: damaged; starting without it\n")
    assert out.endswith(f"{lists.allow}: no change\n")
    assert lists.run("refresh") == (0, f"{lists.allow}: no change\n", "")


def test_wrong_usage(lists: Lists) -> None:
    lists.configure("odd")
    assert lists.run("refresh", "--accept", "google")[::2] == (
        2,
        "fastscreen: --accept google: not on any list; expected odd.senders.test\n",
    )
    (lists.folder / "fastscreen.toml").write_text("[allow]\n")
    for way in ("refresh", "show"):
        code, out, err = lists.run(way)
        assert (code, out) == (2, "") and err.count("\n") == 1 and "allow" in err


def test_a_folder_that_cannot_be_made(lists: Lists) -> None:
    lists.configure("odd")
    lists.allow.parent.write_text("a file")
    code, out, err = lists.run("refresh")
    assert (code, out) == (1, "")
    assert err.count("\n") == 1 and str(lists.allow.parent) in err


def test_postfix_reads_the_tables(lists: Lists) -> None:
    """postmap -q, as postscreen reads `cidr:`; and the access list says the same."""
    needs.program("postfix")
    lists.configure("big", deny="spam.senders.test")
    lists.run("refresh")
    (lists.folder / "main.cf").write_text("compatibility_level = 3.7\n")
    for path, permitted in ((lists.allow, CLIENTS[:2] + CLIENTS[3:5]), (lists.deny, ["5.5.5.5"])):
        done = subprocess.run(
            ["postmap", "-c", lists.folder, "-q", "-", f"cidr:{path}"],
            input="".join(f"{client}\n" for client in CLIENTS),
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        assert done.stderr == ""
        result = "permit" if path == lists.allow else "reject"
        assert done.stdout.splitlines() == [f"{client}\t{result}" for client in permitted]
        table = NetworkTable(path.read_bytes(), str(path))
        assert [client for client in CLIENTS if table.lookup(client) == result] == permitted


def test_root_becomes_the_user_so_that_the_daemon_can_replace_the_files(
    nsd: Nsd, tmp_path_factory: pytest.TempPathFactory
) -> None:
    needs.root("becoming the unprivileged user")
    folder = Path(tempfile.mkdtemp(prefix="fastscreen-lists-"))
    try:
        folder.chmod(0o755)
        (folder / "fastscreen.toml").write_text(
            f'user = "nobody"\n[dnsbl]\nresolvers = ["{ADDRESS}:{nsd.port}"]\n'
            f'[allowlist]\ndomains = ["odd.senders.test"]\npath = "{folder}/own/allowlist.cidr"\n'
        )
        done = subprocess.run(
            [COMMAND, "allowlist", "refresh", "-c", folder / "fastscreen.toml"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        made = {path.name: (path.owner(), oct(path.stat().st_mode & 0o777)) for path in (folder / "own").iterdir()}
        assert made == {
            "allowlist.cidr": ("nobody", "0o644"),
            "allowlist.cidr.state": ("nobody", "0o644"),
        }
        assert (folder / "own").owner() == "nobody"
        assert os.geteuid() == 0
    finally:
        shutil.rmtree(folder)
