"""pflogsumm, logwatch, fail2ban's stock filter and our own report read fastscreen's log as they read postscreen's."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from peers import dialogue, needs, profiles
from peers.lab import Lab
from peers.playing import play_both

# together these log every kind of line of a session
NAMES = [
    "new-client-early",
    "deep-pass",
    "pregreet-enforce",
    "pregreet-drop",
    "denylist-drop",
    "allowlisted",
    "dnsbl-enforce",
    "dnsbl-drop",
    "dnsbl-both",
    "bare-newline-enforce",
    "non-smtp-drop",
    "pipelining-drop",
    "hangup-early",
    "hangup-after-rcpt",
    "count-limit",
    "time-limit",
    "length-in-pieces",
    "connection-count-held",
    "data-after-rcpt",
    "legacy-words-permit",
    "legacy-words-reject",
    "dnsbl-enforce-6",
    "soft-bounce",
    "pre-queue-stress-on",
]
CHOSEN = [each for each in dialogue.load(profiles.DIALOGUES) if each.name in NAMES]


@pytest.fixture(scope="module")
def logs(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Play the dialogues; return postscreen's log and fastscreen's, as the tools find them."""
    played = [both.dialogue for both in play_both(lab, CHOSEN)]
    folder = tmp_path_factory.mktemp("logs")
    services = list(dict.fromkeys(each.service for each in CHOSEN))
    sides = {"theirs": [lab.postscreen(name) for name in services], "ours": lab.fastscreen(services)}
    paths, stamp = [], ""
    clients = {each.address(client) for each in played for client in dialogue.CLIENTS if client != "crowd"}
    crowd = tuple(each.address("crowd").rpartition(".")[0] + "." for each in played)
    for name, of_each in sides.items():
        lines = []
        for side in of_each:
            own = side.lines()
            lines += [line for line in own if line.address in clients or line.address.startswith(crowd)]
            lines += [line for line in own if not line.address and " STRESS mode " in line.text]
        lines += [line for line in of_each[0].dnsblog_lines() if line.address in clients and name == "theirs"]
        if name == "ours":
            lines += [line for side in of_each for line in side.dnsblog_lines() if line.address in clients]
        path = folder / name / "mail.log"
        path.parent.mkdir()
        # one time for all lines: the tools print it, and it is not what is compared here
        stamp = stamp or lines[0].head.rpartition(" ")[0]
        host = lines[0].head.rpartition(" ")[2]
        path.write_text("".join(f"{stamp} {host} postfix/{line.program}[1]: {line.text}\n" for line in lines))
        paths.append(path)
    return paths[0], paths[1]


def _run(command: list[str], standard_input: Path | None = None) -> str:
    with Path(standard_input or "/dev/null").open() as file:
        run = subprocess.run(command, stdin=file, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    return run.stdout


def _without_ports(text: str) -> str:
    return re.sub(r"\]:\d+", "]", text)


def test_all_dialogues_there() -> None:
    """No name in the list above is misspelt."""
    assert {each.name for each in CHOSEN} == set(NAMES)


def test_pflogsumm(logs: tuple[Path, Path]) -> None:
    """pflogsumm's report is the same."""
    theirs, ours = (_run([needs.program("pflogsumm"), "--detail", "50", str(path)]) for path in logs)
    assert "Grand Totals" in theirs
    assert ours == theirs


def test_logwatch(logs: tuple[Path, Path], tmp_path: Path) -> None:
    """logwatch's Postfix script counts the same, in its most detailed report."""
    needs.program("logwatch")
    script = "/usr/share/logwatch/scripts/services/postfix"
    settings = tmp_path / "postfix.conf"
    settings.touch()
    theirs, ours = (_run(["perl", script, "--detail", "10", "-f", str(settings)], path) for path in logs)
    assert "Postscreen" in theirs
    # it prints the lines that it does not know in no particular order
    assert sorted(_without_ports(ours).splitlines()) == sorted(_without_ports(theirs).splitlines())


@pytest.mark.parametrize("mode", ["normal", "more", "ddos", "extra", "aggressive"])
def test_fail2ban(logs: tuple[Path, Path], mode: str) -> None:
    """fail2ban's own filter for Postfix finds the same hosts as often."""
    found = []
    for path in logs:
        said = _run([needs.program("fail2ban-regex"), "--print-all-matched", str(path), f"postfix[mode={mode}]"])
        matched = [line for line in said.splitlines() if line.startswith("|  ") and "postfix/" in line]
        total = re.search(r"Lines: .*", said)
        found.append(
            (
                sorted(re.sub(r"after [\d.]+ from", "", _without_ports(line)) for line in matched),
                total and total[0].split(" [")[0],
            )
        )
    theirs, ours = found
    assert theirs[0], "the filter found nothing in postscreen's log"
    assert ours == theirs


def test_fastscreen_report(logs: tuple[Path, Path]) -> None:
    """The report has the same sessions for both, and recognizes every line of a real postscreen."""
    command = [sys.executable, "-m", "fastscreen", "report", "--json"]
    theirs, ours = (json.loads(_run([*command, str(path)])) for path in logs)
    for path, found in zip(logs, (theirs, ours), strict=True):
        assert sum(found["totals"].values()) == found["lines"] == path.read_text().count("\n")
        assert found["totals"]["other"] == 0
    for key in (
        "totals",
        "outcomes",
        "rejected",
        "failed_but_handed_off",
        "clients",
        "ranks",
        "lists",
        "reject_codes",
        "client_texts",
    ):
        assert theirs[key] == ours[key], key
