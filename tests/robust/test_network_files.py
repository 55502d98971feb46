"""A file of networks with a bad entry: the daemon starts, reloads, and says which."""

from pathlib import Path

from robust.conftest import Start
from robust.fakemta import GREETING as FROM_MTA
from robust.fakemta import FakeMta
from robust.harness import TEASER


def test_a_bad_entry_is_skipped_at_start_and_at_reload(start: Start, folder: Path, mta: FakeMta) -> None:
    nets = folder / "nets"
    nets.write_text("127.7.7.7\nsmarthost.example.net\n127.8.0.0/255.255.0.0\n")
    nets.chmod(0o644)
    screener = start({"access": {"mynetworks": [str(nets)]}, "greet": {"wait": "100s"}})
    said = rf"warning: access\.mynetworks: {nets}, line"
    screener.line(rf'{said} 2: bad network "smarthost\.example\.net"; .* skipped$')
    screener.line(rf'{said} 3: ".*" has a netmask; expected "127\.8\.0\.0/16"; .* skipped$')
    with screener.connect("127.7.7.7") as known:
        assert known.read() == FROM_MTA
    with screener.connect("127.8.0.1") as client:
        assert client.socket.recv(len(TEASER)) == TEASER
    nets.write_text("127.7.7.7\n127.8.0.0/16\nanother mistake\n")
    screener.reload()
    screener.line(rf'{said} 3: bad network "another"; .* skipped$')
    with screener.connect("127.8.0.1") as known:
        assert known.read() == FROM_MTA


def test_a_file_that_is_missing_at_reload_keeps_the_old_networks(start: Start, folder: Path, mta: FakeMta) -> None:
    nets = folder / "nets"
    nets.write_text("127.7.7.7\n")
    nets.chmod(0o644)
    screener = start({"access": {"mynetworks": [str(nets)]}})
    nets.unlink()
    screener.reload(expected="configuration not taken over: ")
    screener.line(rf"access\.mynetworks: {nets}: cannot be read: No such file or directory")
    with screener.connect("127.7.7.7") as known:
        assert known.read() == FROM_MTA
