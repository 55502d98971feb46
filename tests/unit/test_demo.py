"""The parts of the demo, without its processes."""

from __future__ import annotations

import itertools
import tomllib
from collections import Counter
from ipaddress import IPv4Network, ip_address
from pathlib import Path
from random import Random

import dns.message
import dns.rcode
import dns.rdatatype
import pytest

from fastscreen import config
from fastscreen.cli import main
from fastscreen.demo import client_kinds, lists, load, names, nameserver, processes, settings, summary
from fastscreen.demo.clients import BEHAVIORS
from fastscreen.screening import policy


def test_its_configuration_is_one_and_what_it_names_opens_without_a_warning(tmp_path: Path) -> None:
    (tmp_path / settings.ACCESS).write_text(settings.access_list())
    (tmp_path / settings.SYSTEMS).write_text(settings.systems())
    file = tmp_path / "fastscreen.toml"
    file.write_text(settings.configuration(tmp_path, 5300))
    loaded = config.load(file)
    built = policy.build(loaded, "/nowhere", lambda text: None)
    assert built.warnings == ()
    assert loaded.listen.workers == settings.WORKERS
    assert tomllib.loads(file.read_text())["control"] == {"path": str(tmp_path / settings.CONTROL)}


def test_every_part_has_its_own_network_of_loopback_and_a_behaviour() -> None:
    networks = [IPv4Network(f"{kind.network}.0.0/16") for kind in client_kinds.CLIENT_KINDS]
    assert len(set(networks)) == len(client_kinds.CLIENT_KINDS)
    for kind, network in zip(client_kinds.CLIENT_KINDS, networks, strict=True):
        assert network.subnet_of(IPv4Network("127.0.0.0/8"))
        addresses = {kind.address(number) for number in range(kind.members)}
        assert len(addresses) == kind.members
        assert all(ip_address(address) in network for address in addresses)
    assert set(BEHAVIORS) == set(client_kinds.CLIENT_KINDS)
    assert sum(kind.share for kind in client_kinds.CLIENT_KINDS) == 100
    assert client_kinds.HTTP_PROBE.address(0) == "127.66.0.1"


def test_the_same_come_in_every_run_and_the_first_of_each_kind_at_once() -> None:
    def first(count: int) -> list[tuple[float, client_kinds.ClientKind, str]]:
        return list(itertools.islice(load.arrivals(Random(load.SEED)), count))

    arrivals = first(4000)
    assert arrivals == first(4000)
    regular = [kind for kind in client_kinds.CLIENT_KINDS if kind.share]
    assert {address for _, _, address in arrivals[: len(regular)]} == {kind.address(0) for kind in regular}
    counts = Counter(kind.name for _, kind, _ in arrivals)
    for kind in regular:
        assert counts[kind.name] == pytest.approx(40 * kind.share, rel=0.5)
    assert sum(pause for pause, _, _ in arrivals) == pytest.approx(4000 / load.RATE, rel=0.2)


def ask(name: str) -> dns.message.Message | None:
    """The answer of the name server, parsed by dnspython."""
    question = dns.message.make_query(name, "A", use_edns=False)
    packet = question.to_wire()
    read = nameserver.read_question(packet)
    assert read is not None
    assert read[0] == name.lower()
    reply = nameserver.NameServer(lists.LISTS)._reply(read[0])
    if reply is None:
        return None
    answer = dns.message.from_wire(nameserver.answer(packet, read[1], reply))
    assert question.is_response(answer)
    return answer


def test_answers_are_well_formed() -> None:
    listed = ask("1.0.50.127.SPAM.example")
    assert listed is not None
    assert [item.address for item in listed.answer[0]] == ["127.0.0.2"]
    free = ask("1.0.10.127.spam.example")
    assert free is not None
    assert (free.rcode(), free.answer) == (dns.rcode.NXDOMAIN, [])
    assert free.authority[0].rdtype == dns.rdatatype.SOA
    assert ask("1.0.50.127.elsewhere.example") is None


def test_names_lead_back_to_the_address_but_an_impostors() -> None:
    for kind in client_kinds.CLIENT_KINDS:
        address = kind.address(kind.members - 1)
        question = dns.message.make_query(ip_address(address).reverse_pointer, "PTR", use_edns=False)
        packet = question.to_wire()
        read = nameserver.read_question(packet)
        assert read is not None
        answer = dns.message.from_wire(nameserver.pointer(packet, read[1], names.pointer_of(read[0])))
        assert question.is_response(answer)
        if not answer.answer:
            assert answer.rcode() == dns.rcode.NXDOMAIN
            continue
        name = answer.answer[0][0].target.to_text(omit_final_dot=True)
        forward = ask(name)
        assert forward is not None
        same = forward.answer[0][0].address == address
        assert same == (kind is not client_kinds.IMPATIENT)
    assert names.pointer_of(ip_address(client_kinds.SENDER.address(0)).reverse_pointer) == "host-0-1.post.example"
    for none in ("host-300-1.post.example", "host-0-1.elsewhere.example", "post.example", "1.0.10.127.in-addr.example"):
        assert names.address(none) is names.pointer_of(none) is None


def test_what_is_no_question_is_not_answered() -> None:
    packet = dns.message.make_query("1.0.50.127.spam.example", "A", use_edns=False).to_wire()
    for end in range(len(packet)):
        assert nameserver.read_question(packet[:end]) is None
    assert nameserver.read_question(dns.message.make_query("spam.example", "TXT").to_wire()) is None
    assert nameserver.read_question(b"\0\0\x80" + packet[3:]) is None
    assert nameserver.read_question(packet[:12] + b"\xc0\x0c\0\1\0\1") is None


def score(address: str, found: config.Config) -> int:
    """By the demo's lists; a silent one counts 0."""
    total = 0
    for each, site in zip(lists.LISTS, found.dnsbl.sites, strict=True):
        reply = each.rule(address)
        addresses = reply.addresses if reply is not None else ()
        total += site.weight if any(site.matches(ip_address(one).packed) for one in addresses) else 0
    return total


def test_lists_know_whom_they_should(tmp_path: Path) -> None:
    file = tmp_path / "fastscreen.toml"
    file.write_text(settings.configuration(tmp_path, 5300))
    found = config.load(file)

    def scores(kind: client_kinds.ClientKind) -> list[int]:
        return [score(kind.address(number), found) for number in range(kind.members)]

    assert min(scores(client_kinds.LISTED)) >= lists.THRESHOLD
    assert max(scores(client_kinds.SENDER)) < lists.THRESHOLD
    assert set(scores(client_kinds.LARGE_SENDER)) == {-4}
    assert lists.ALLOWLIST_THRESHOLD >= -4


def test_the_key_in_a_lists_name_is_masked(tmp_path: Path) -> None:
    file = tmp_path / "fastscreen.toml"
    file.write_text(settings.configuration(tmp_path, 5300))
    from fastscreen.tables import open_table

    table = open_table(config.load(file).dnsbl.reply_map, "dnsbl.reply_map")
    shown = [table.lookup(each.domain) for each in lists.LISTS]
    assert "dq.example" in shown
    assert all(name and lists.SECRET not in name for name in shown)


def test_a_long_place_for_temporary_files_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for length, expected in ((50, None), (51, "/tmp")):
        name = "/" + "x" * (length - 1)
        monkeypatch.setattr("tempfile.gettempdir", lambda name=name: name)
        assert processes.temporary_folder() == (expected or name)
    deepest = f"{'x' * processes.MAX_TMPDIR}/fastscreen-demo-12345678/fastscreen-sink-12345678/smtpd"
    assert len(deepest) < 108


def test_what_is_missing_is_told() -> None:
    assert summary.missing(dict.fromkeys(summary.EXPECTED, 1)) == []
    assert summary.missing({**dict.fromkeys(summary.EXPECTED, 1), "cached": 0}) == ["cached"]
    assert len(list(summary.lines({}))) == len(summary.EXPECTED)


@pytest.mark.parametrize("words", [["--seconds", "5"], [], ["--headless", "--seconds", "0"]])
def test_wrong_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The standard input of the tests is not a terminal."""
    try:
        code = main(["demo", *words])
    except SystemExit as stopped:
        code = int(stopped.code or 0)
    assert code == 2
    assert "fastscreen" in capsys.readouterr().err
