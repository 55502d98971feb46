"""Chosen differences that no dialogue can state, because postscreen's side of them is not the same every time."""

import dataclasses
import signal
import threading
import time

from peers import dialogue, profiles
from peers.lab import Lab
from peers.playing import play
from peers.sides import Side

SERVICE = "early"


def _play(lab: Lab, sides: list[Side], text: str, client: str = "unlisted") -> list[tuple[str, list[str]]]:
    """Play a dialogue against each side at the same time, from new addresses; return those, and the transcripts."""
    number = len(lab.dialogues)  # no file has it
    parsed = dialogue.parse("here", number, f"profile: {SERVICE}\nclient: {client}\n{text}")
    fresh = [dataclasses.replace(parsed, round=next(lab.rounds)) for _ in sides]
    results = play(lab, list(zip(fresh, sides, strict=True)))
    for result in results:
        assert not result.missing, result.transcript
    return [(each.address(client), result.transcript) for each, result in zip(fresh, results, strict=True)]


def test_kept_answers(lab: Lab) -> None:
    """A second connection of a listed client asks no list again, and logs the same lines as postscreen's."""
    twice = "connect\n<- 220-\n<- 220 mx\nclose\n\nconnect\n<- 220-\n<- 220 mx\n"
    (ours,) = lab.fastscreen([SERVICE])
    listed = []
    played = _play(lab, [ours, lab.postscreen(SERVICE)], twice, "bl1")
    for (address, transcript), asked in zip(played, (1, 2), strict=True):
        question = ".".join([*reversed(address.split(".")), "bl1.rbl.test"])
        assert lab.nameserver.asked[question] == asked
        listed.append([line.replace(address, "CLIENT") for line in transcript if line.startswith("dnsblog: ")])
    assert listed[0] == listed[1] == ["dnsblog: addr CLIENT listed by domain bl1.rbl.test as 127.0.0.2"] * 2


def test_error_ttl(lab: Lab) -> None:
    """A client that passed while one list could not be asked has passed for the shortest time."""
    (side,) = lab.fastscreen(["failing-list"])
    [(address, transcript)] = _play(lab, [side], "connect\n<- 220-\n<- 220 mx\n-> QUIT\n<- 221\nclosed\n")
    assert sum(line.startswith("dnsblog: warning: ") for line in transcript) == 1
    stamps = lab.screener("failing-list").stamps_written(address)
    assert 0 < stamps[1] - time.time() <= 60


def test_reload_keeps_clients(lab: Lab) -> None:
    """A client under test notices no reload, and what it passed is remembered."""
    (side,) = lab.fastscreen([SERVICE])
    reload = threading.Timer(1.0, lab.screener(SERVICE).process.send_signal, [signal.SIGHUP])
    reload.start()
    try:
        text = "connect\n<- 220-\n<- 220 mx\n-> QUIT\n<- 221\nclosed\n\nconnect\n<- 220 mx\n-> QUIT\n<- 221\nclosed\n"
        [(_, transcript)] = _play(lab, [side], text)
    finally:
        reload.join()
    assert not any(line.startswith("2< 220-") for line in transcript)
    assert [line.split()[1:3] for line in transcript if " PASS " in line] == [["PASS", "NEW"], ["PASS", "OLD"]]
    assert any(line.text == "configuration reloaded" for line in side.lines())


def test_number_is_free() -> None:
    """Dialogues do not use the addresses of this file: one octet of theirs is the number of the dialogue file."""
    assert len(dialogue.load(profiles.DIALOGUES)) < 250
