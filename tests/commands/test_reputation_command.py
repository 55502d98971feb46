"""fastscreen reputation."""

from __future__ import annotations

import json
from typing import Any

import pytest

from commands.conftest import Ask, Server
from commands.fakeserver import Error
from fastscreen.cli import reputation

DAY = 1_796_083_200.0  # 2026-12-01
ADDRESS = {"subject": "192.0.2.1", "kind": "address", "bad": 2.4, "good": 0.3, "is_bad": True, "last_bad": DAY}
MEMBERS = [
    {"subject": "192.0.2.1", "bad": 2.4, "good": 0.3, "is_bad": True, "last_bad": DAY, "last_good": DAY - 86400},
    {"subject": "192.0.2.2", "bad": 0.0, "good": 1.0, "is_bad": False, "last_bad": 0.0, "last_good": DAY},
]
NETWORK = {
    "subject": "192.0.2.0/24", "kind": "network", "bad_members": 7, "known_members": 9, "is_bad": True,
    "last_bad": DAY, "last_good": DAY,
}  # fmt: skip
WIDE = {"subject": "2001:db8:1::/48", "kind": "network", "bad_members": 1, "known_members": 4, "last_good": DAY}
SYSTEM = {"subject": "AS64500", "kind": "as", "bad_members": 1200, "known_members": 60_000, "last_bad": DAY}
EVIDENCE = {"scorer": "seen_network", "weight": 2, "text": "192.0.2.0/24: 6 of 8 addresses bad in 28 days"}


def answer(*reputations: Any, **more: Any) -> dict[str, Any]:
    return {"reputations": list(reputations), "days": 28, **more}


def test_get(server: Server, ask: Ask) -> None:
    daemon = server({"reputation.get": answer(ADDRESS, NETWORK, WIDE, SYSTEM, evidence=[EVIDENCE])})
    code, printed, _ = ask("reputation", "get", "192.0.2.1")
    assert code == 0
    assert printed.splitlines() == [
        "192.0.2.1              bad  bad 2.4, good 0.3, last bad 2026-12-01",
        "192.0.2.0/24           bad  7 of 9 addresses bad, good share 22 %, last bad 2026-12-01, last good 2026-12-01",
        "2001:db8:1::/48        -    1 of 4 /64 bad, good share 75 %, last good 2026-12-01",
        "AS64500                -    1,200 of 60,000 addresses bad, good share 98 %, last bad 2026-12-01",
        "seen_network +2: 192.0.2.0/24: 6 of 8 addresses bad in 28 days",
    ]
    assert daemon.asked == [{"do": "reputation.get", "subject": "192.0.2.1"}]
    found = json.loads(ask("reputation", "get", "192.0.2.1", "--json")[1])
    assert found["evidence"] == [EVIDENCE]


def test_members_of_a_network(server: Server, ask: Ask) -> None:
    server({"reputation.get": answer({**NETWORK, "members": MEMBERS})})
    assert ask("reputation", "get", "192.0.2.0/24")[1].splitlines()[1:] == [
        "  192.0.2.1            bad  bad 2.4, good 0.3, last bad 2026-12-01, last good 2026-11-30",
        "  192.0.2.2            -    bad 0.0, good 1.0, last good 2026-12-01",
    ]


def test_an_empty_list_says_so(server: Server, ask: Ask) -> None:
    server({"reputation.list": answer()})
    assert ask("reputation", "list") == (0, "", "no network with a bad address is known\n")
    assert ask("reputation", "list", "--as") == (0, "", "no AS with a bad address is known\n")
    assert ask("reputation", "list", "AS64500") == (0, "", "no network of AS64500 with a bad address is known\n")


def test_get_of_what_is_not_known(server: Server, ask: Ask) -> None:
    server({"reputation.get": answer()})
    assert ask("reputation", "get", "as64500") == (1, "", "nothing is known of AS64500\n")


@pytest.mark.parametrize("subject", ["nonsense", "192.0.2.1/24", "AS", "ASX", "192.0.2.300", ""])
def test_wrong_subjects(ask: Ask, capsys: pytest.CaptureFixture[str], subject: str) -> None:
    with pytest.raises(SystemExit) as ended:
        ask("reputation", "get", subject)
    assert ended.value.code == 2
    assert "examples: 192.0.2.1, 192.0.2.0/24, AS64500" in " ".join(capsys.readouterr().err.split())


def test_list(server: Server, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reputation, "LIST_SECONDS", 0.0)
    daemon = server({"reputation.list": answer(NETWORK, WIDE, more=True)})
    code, printed, said = ask("reputation", "list", "-n", "7")
    assert code == 0
    assert [line.split()[0] for line in printed.splitlines()] == ["192.0.2.0/24", "2001:db8:1::/48"]
    assert said == "fastscreen: time ran out before all entries were read\n"
    assert [json.loads(line)["subject"] for line in ask("reputation", "list", "--as", "--json")[1].splitlines()]
    assert daemon.asked == [
        {"do": "reputation.list", "limit": 7},
        {"do": "reputation.list", "kind": "as"},
    ]
    for wrong in ("0", "1001", "x", "-1"):
        with pytest.raises(SystemExit):
            ask("reputation", "list", "-n", wrong)


def test_list_waits_for_the_whole_memory(server: Server, ask: Ask) -> None:
    answers = iter([answer(WIDE, more=True), answer(WIDE, more=True), answer(NETWORK)])
    daemon = server({"reputation.list": lambda request: next(answers)})
    code, printed, said = ask("reputation", "list", "AS64500", "--sort", "recent")
    assert (code, printed.split()[0], said) == (0, "192.0.2.0/24", "")
    assert daemon.asked == [{"do": "reputation.list", "within": "AS64500", "sort": "recent"}] * 3
    code, printed, said = ask("reputation", "list", "--as", "AS64500")
    assert (code, printed, said) == (2, "", "fastscreen: --as lists all AS; expected no NETWORK or AS with it\n")


def test_delete(server: Server, ask: Ask) -> None:
    daemon = server({"reputation.delete": {"deleted": 1, "more": True, "cluster": None}})
    assert ask("reputation", "delete", "192.0.2.0/24") == (
        0,
        "1 entry changed or deleted; time ran out, run it again for the rest\n",
        "",
    )
    assert daemon.asked == [{"do": "reputation.delete", "subject": "192.0.2.0/24"}]


def test_export_page_by_page(server: Server, ask: Ask) -> None:
    def page(request: dict[str, Any]) -> dict[str, Any]:
        if not request.get("after"):
            return answer({**NETWORK, "members": MEMBERS}, next="34c00002", more=True)
        assert request["after"] == "34c00002"
        return answer(SYSTEM)

    server({"reputation.export": page})
    code, printed, _ = ask("reputation", "export")
    assert code == 0
    first, second = map(json.loads, printed.splitlines())
    assert (first["subject"], len(first["members"]), second["subject"]) == ("192.0.2.0/24", 2, "AS64500")


def test_no_memory(server: Server, ask: Ask) -> None:
    server({"reputation.get": Error("memory of offenses: disabled (score.memory is empty)")})
    assert ask("reputation", "get", "192.0.2.1")[0] == 1
