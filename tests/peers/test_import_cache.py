"""Import of postscreen's own cache, and export in its form: both know the same clients."""

import dataclasses
import ipaddress
import shutil
import subprocess
import tempfile
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import cachefixture
import pytest

from fastscreen.cache.lmdb_cache import LmdbCache
from fastscreen.config.model import Prefix
from fastscreen.postfix import cache_dump
from peers import dialogue, needs, processes, profiles
from peers.lab import Lab
from peers.playing import play
from peers.screener import COMMAND

SERVICE = "early"
NUMBER = 239  # of no file in tests/dialogues: those of test_imported.py begin above
NEW = "profile: early\n\nconnect\n<- 220-\n<- 220 mx\n-> QUIT\n<- 221\nclosed\n"
OLD = "profile: early\n\nconnect\n<- 220 mx\n-> QUIT\n<- 221\nclosed\n"
MANY = 100_000


def test_who_passed_at_postscreen_is_known(lab: Lab) -> None:
    """Records that a real postscreen wrote, into the file of a fastscreen that runs."""
    new, old = (dialogue.parse("here", NUMBER, text) for text in (NEW, OLD))
    (theirs,) = play(lab, [(new, lab.postscreen(SERVICE))])
    assert not theirs.missing and any("PASS NEW" in line for line in theirs.transcript)
    (side,) = lab.fastscreen([SERVICE])
    screener = lab.screener(SERVICE)
    done = subprocess.run(
        [str(COMMAND), "cache", "import", "-c", str(screener.config), f"lmdb:{lab.postfix.cache(SERVICE)}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "0 damaged" in done.stderr
    (ours,) = play(lab, [(dataclasses.replace(old), side)])
    assert not ours.missing
    assert [line.split()[1:3] for line in ours.transcript if " PASS " in line] == [["PASS", "OLD"]]
    their = tuple(map(int, lab.postfix.stamps(SERVICE)[new.address("unlisted")].split(";")))
    assert screener.stamps(new.address("unlisted")) == cachefixture.stamps(*their)


def test_who_passed_at_fastscreen_is_known_to_postscreen(lab: Lab) -> None:
    """The way back, and forth again: every stamp stays as it is. postscreen runs, and sees the records at once."""
    new, old = (dialogue.parse("here", NUMBER - 1, text) for text in (NEW, OLD))
    (side,) = lab.fastscreen([SERVICE])
    (ours,) = play(lab, [(new, side)])
    assert not ours.missing and any("PASS NEW" in line for line in ours.transcript)
    address = new.address("unlisted")
    stamps = lab.screener(SERVICE).stamps_written(address)
    text = _exported(lab)
    assert f"{address}\t{';'.join(map(str, stamps[:5]))}\n" in text
    _into_postscreen(lab, text)
    (theirs,) = play(lab, [(dataclasses.replace(old), lab.postscreen(SERVICE))])
    assert not theirs.missing
    assert [line.split()[1:3] for line in theirs.transcript if " PASS " in line] == [["PASS", "OLD"]]
    again = cache_dump.parse(text.splitlines(), time.time(), Prefix(32, 64), lambda done: None)
    assert again.records[ipaddress.ip_address(address).packed] == stamps and not again.damaged


def _exported(lab: Lab) -> str:
    """The cache of the running daemon, through the control socket of a second one that uses the same file."""
    running = lab.screener(SERVICE)
    settings = tomllib.loads(running.config.read_text())
    socket = running.config.with_suffix(".control")
    settings |= {"control": {"path": str(socket)}, "listen": {"addresses": ["127.2.0.1:2400"]}, "log": {"to": "stderr"}}
    config = running.config.with_suffix(".export.toml")
    config.write_text(profiles.to_toml(settings))
    command = [str(COMMAND), "run", "-c", str(config)]
    daemon = processes.start(command, config.with_suffix(".output"), inside=lab.namespace.inside)
    try:
        processes.wait_until(socket.exists, "the control socket")
        command = [str(COMMAND), "cache", "export", "--format", "postmap", "--socket", str(socket)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    finally:
        processes.stop(daemon)
    assert "written" in done.stderr
    return done.stdout


def _into_postscreen(lab: Lab, text: str) -> None:
    """As docs/import.md says."""
    command = ["setpriv", "--reuid", "postfix", "--regid", "postfix", "--clear-groups"]
    command += ["/usr/sbin/postmap", "-ir", f"lmdb:{lab.postfix.cache(SERVICE)}"]
    needs.program("setpriv")
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def made() -> Iterator[tuple[Path, dict[str, tuple[int, ...]]]]:
    """A folder that fastscreen's user can reach (pytest's own are closed to others); a cache in it, and its records.

    postmap writes the same bytes as postscreen, except for the case of the key of the last cleanup.
    """
    needs.program("postfix")
    needs.program("postfix-lmdb")
    folder = Path(tempfile.mkdtemp(prefix="fastscreen-import-"))
    try:
        folder.chmod(0o755)
        now = int(time.time())
        source = folder / "source"
        stamps: dict[str, tuple[int, ...]] = {
            f"10.{at >> 16}.{at >> 8 & 255}.{at & 255}": (now + 1000 + at, 1, now + at + 5, 0, 1) for at in range(MANY)
        }
        lines = [f"{address} {';'.join(map(str, five))}\n" for address, five in stamps.items()]
        lines += [f"2001:db8::1 {now - 1};1;1;1;1\n", f"_LAST_CACHE_CLEANUP_COMPLETED_ {now}\n"]
        source.write_text("".join(lines))
        for kind in ("lmdb", "btree"):
            subprocess.run(["/usr/sbin/postmap", f"{kind}:{source}"], check=True, capture_output=True)
        yield source, stamps
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize(("kind", "postmap"), [("lmdb", True), ("lmdb", False), ("btree", True)])
def test_a_large_cache_is_taken_over(kind: str, postmap: bool, made: tuple[Path, dict[str, tuple[int, ...]]]) -> None:
    """Read by postmap, or, without it, an LMDB file directly."""
    needs.root("the file becomes the user's")
    source, stamps = made
    state = source.parent / f"{kind}-{postmap}"
    settings = source.parent / f"{kind}-{postmap}.toml"
    settings.write_text(f'user = "postfix"\ncontrol.path = ""\ncache.path = "{state}/cache"\n')
    code = "import sys; from fastscreen.postfix import cache_dump; from fastscreen.cli import main\n"
    if not postmap:
        code += "cache_dump.postmap_program = lambda: None\n"
    code += "sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [str(COMMAND.parent / "python"), "-c", code, "cache", "import", "-c", str(settings), f"{kind}:{source}"],
        capture_output=True,
        text=True,
    )
    assert done.stderr == f"{MANY:,} added, 0 extended, 0 unchanged; skipped: 1 expired, 0 damaged\n"
    path = state / "cache"
    assert {each.owner() for each in (path, path.with_name("cache-lock"), path.parent)} == {"postfix"}
    cache = LmdbCache(path, warn=pytest.fail, log=pytest.fail, wake=lambda callback: callback())
    cache.open()
    found = {address: cache.lookup(ipaddress.ip_address(address).packed) for address in stamps}
    cache.close()
    assert found == {address: cachefixture.stamps(*five) for address, five in stamps.items()}
