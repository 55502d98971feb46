"""The simulator of a cluster: the model against traces worked out by hand, a formula, and its own samples."""

import json
import math
import random
from dataclasses import fields
from pathlib import Path

import pytest

from bench import cluster_sim, cluster_sizes
from bench.cluster_model import DAY, HOUR, Counts, Crowd, Rules, follow, host_of

ROOT = Path(__file__).parents[2]
PREGREET = Rules(("pregreet",))
BOTH = Rules(("pregreet", "dnsbl"))


def counted(visits: list[tuple[float, int]], rules: Rules, hosts: int, *, since: float = 0, until: float) -> Counts:
    counts = Counts(hosts, since, until)
    follow(visits, rules, counts)
    return counts


def test_lifetimes_are_the_defaults_of_the_configuration() -> None:
    rules = Rules(("pregreet", "dnsbl", "pipelining", "score"))
    assert rules.lifetimes == (DAY, HOUR, 30 * DAY, 30 * DAY)
    assert rules.deep == {2, 3}
    assert (rules.wait, rules.delay([0, 1]), rules.delay([1, 2])) == (6, 6, 306)


# A pass of the pregreet test lasts for a day from the end of its greet wait of 6 s.
TRACE = [
    (0.0, 0),  # new: tested, passes at 6, valid until 86406
    (3.0, 1),  # no host knows it yet: tested, passes at 9, valid until 86409
    (10.0, 0),  # known here
    (100.0, 2),  # tested without a cluster (until 86506); with it: a hit, valid until 86409
    (86407.0, 0),  # expired here; host 1 still knows it: tested without a cluster; with it: a hit
    (86410.0, 2),  # known here without a cluster; with it: expired everywhere, tested
]


def test_a_trace_by_hand() -> None:
    counts = counted(TRACE, PREGREET, 3, until=100_000)
    assert counts.visits == [3, 1, 2]
    assert (counts.tested_alone, counts.known_elsewhere, counts.delay_alone) == (4, 2, 24)
    assert counts.looked_up == [2, 1, 2]
    assert (counts.hits, counts.tested, counts.delay, counts.stores) == (2, 3, 18, 3)
    assert counts.most_stored() == 1
    # In the server from 6 until 86409, and from 86416 on: at all full hours from 1 to 27.
    assert [hour for hour, change in enumerate(counts.changes) if change] == [1, 28]


def test_visits_of_the_warm_up_fill_the_caches_but_do_not_count() -> None:
    counts = counted(TRACE, PREGREET, 3, since=50, until=90_000)
    assert counts.visits == [1, 0, 2]
    assert (counts.tested_alone, counts.known_elsewhere, counts.delay_alone) == (2, 2, 12)
    assert (counts.looked_up, counts.hits, counts.tested, counts.stores) == ([1, 0, 2], 2, 1, 1)


def test_a_renewed_pass_of_one_test_reaches_the_other_hosts() -> None:
    """The DNSBL test alone is due after an hour. Its new stamp is not the latest of the record."""
    visits = [
        (0.0, 0),  # until 86406 and 3606
        (7200.0, 0),  # only the DNSBL test: until 86406 and 10806
        (7300.0, 1),  # all that host 0 knows is valid
        (10_000.0, 1),  # and known here now
        (10_810.0, 1),  # the DNSBL test has expired everywhere
        (10_820.0, 0),  # no longer here, but at host 1
    ]
    counts = counted(visits, BOTH, 2, until=20_000)
    assert (counts.tested_alone, counts.known_elsewhere) == (4, 2)  # 0, 7200, 7300 and 10,820
    assert (counts.looked_up, counts.hits, counts.tested, counts.stores) == ([3, 2], 2, 3, 3)


def test_a_pass_of_some_tests_is_not_enough() -> None:
    counts = counted([(0.0, 0), (4000.0, 1)], BOTH, 2, until=5000)
    assert (counts.tested_alone, counts.known_elsewhere, counts.hits, counts.tested) == (2, 0, 0, 2)
    # Host 1 has repeated only the DNSBL test: the other one's pass is that of host 0.
    counts = counted([(0.0, 0), (4000.0, 1), (86407.0, 1)], BOTH, 2, until=90_000)
    assert counts.tested == 3


def test_a_deep_test_delays_until_the_client_returns() -> None:
    counts = counted([(0.0, 0), (400.0, 1)], Rules(("pregreet", "bare_newline")), 2, until=5000)
    assert (counts.delay_alone, counts.delay) == (612, 306)


def test_passes_in_the_server_at_full_hours() -> None:
    counts = Counts(1, 2 * HOUR, 10 * HOUR)
    for _ in range(3):
        counts.stored(0, HOUR + 1)  # at the hours 0 and 1, which do not count
    counts.stored(HOUR, 3 * HOUR)  # 1 and 2: no longer at 3
    counts.stored(2 * HOUR - 1, 20 * HOUR)
    assert counts.most_stored() == 2
    assert Counts(1, 0, HOUR).most_stored() == 0


@pytest.mark.parametrize("hosts", [2, 10])
def test_a_client_that_comes_at_random_times(hosts: int) -> None:
    """As renewal theory has it: without a cluster, a host tests once in a lifetime and a mean pause between visits."""
    number, pause = 40_000, 3 * HOUR
    chance = random.Random(1).random
    times = sorted(chance() * number * pause for _ in range(number))
    counts = counted(
        [(time, host_of(chance(), hosts, ordered=False)) for time in times], PREGREET, hosts, until=number * pause
    )
    lifetime = DAY + PREGREET.wait
    alone = hosts * number * pause / (lifetime + hosts * pause)
    assert counts.tested_alone == pytest.approx(alone, rel=0.02)
    cycles = number * pause / (lifetime + pause)
    assert counts.tested == pytest.approx(cycles, rel=0.02)
    # In each cycle, every host but the one that tested looks the client up at most once.
    assert counts.hits == pytest.approx(cycles * (hosts - 1) * (1 - math.exp(-DAY / pause / hosts)), rel=0.02)
    assert sum(counts.looked_up) == counts.hits + counts.tested


def test_the_choice_of_a_host() -> None:
    assert [host_of(at, 4, ordered=False) for at in (0.0, 0.2499, 0.25, 0.9999)] == [0, 0, 1, 3]
    assert [host_of(at, 3, ordered=True) for at in (0.0, 0.899, 0.901, 0.989, 0.991, 0.99999)] == [0, 0, 1, 1, 2, 2]
    assert host_of(0.99999, 1, ordered=True) == 0


# ---- generated clients


def test_the_number_of_visits_has_a_heavy_tail() -> None:
    crowd = Crowd(100_000, 30 * DAY, tail=1.5)
    visits = [crowd.visits_of(rank) for rank in range(1, crowd.clients + 1)]
    for often in (1, 2, 3, 10, 100):
        assert sum(number >= often for number in visits) == pytest.approx(100_000 * often**-1.5, abs=1)
    assert max(visits) == int(100_000 ** (1 / 1.5))
    assert Crowd(10**8, DAY).visits_of(1) == DAY / 10


@pytest.mark.parametrize(("clients", "seconds"), [(1, DAY), (3, DAY), (100_000, DAY), (100_000, 8 * DAY)])
def test_the_classes_are_all_clients(clients: int, seconds: float) -> None:
    crowd = Crowd(clients, seconds)
    ranks = [rank for number, ranks in crowd.classes() for rank in ranks]
    assert sorted(ranks) == list(range(1, clients + 1))
    for number, members in list(crowd.classes())[:-1]:
        # rounding may put a client at a limit into the class before
        assert {crowd.visits_of(rank) for rank in members} <= set(range(2**number, 2 ** (number + 1) + 1))


def test_only_a_sample_of_many_clients_is_simulated() -> None:
    crowd = Crowd(10**9, 8 * DAY)
    assert crowd.simulated() < 50_000
    assert Crowd(1000, DAY, sample=0).simulated() == 1000
    assert Crowd(1000, DAY).simulated() == 1000  # all of few


def test_a_sample_has_the_visits_of_a_hundred_million_clients() -> None:
    """Their number is the sum over n of the clients that come n times or more."""
    seconds = 2 * DAY
    (counts,) = Crowd(10**8, seconds, sample=2000).run([2], PREGREET, 0)
    expected = 10**8 * sum(often**-1.2 for often in range(1, seconds // 10 + 1))
    assert sum(counts.visits) == pytest.approx(expected, rel=0.005)


def test_a_sample_agrees_with_all_clients() -> None:
    clients = 200_000
    rows = []
    for sample in (0, 20_000):
        (counts,) = Crowd(clients, 2 * DAY, 3, tail=1.5, sample=sample).run([5], BOTH, DAY)
        rows.append(cluster_sim.summary(clients, counts, BOTH, 0.5, 246))
    for field in fields(rows[0]):
        exact, sampled = (getattr(row, field.name) for row in rows)
        assert sampled == pytest.approx(exact, rel=0.02), field.name


# ---- the row


def test_a_row_by_hand() -> None:
    """The trace above twice in three days, once of a client that never passes."""
    counts = counted(TRACE, PREGREET, 3, until=100_000)
    row = cluster_sim.summary(2, counts, PREGREET, 0.5, 200)
    assert row.visits == pytest.approx(6 / 100_000)
    assert row.tested_alone == pytest.approx((0.5 * 4 + 0.5 * 6) / 6)
    assert row.known_elsewhere == pytest.approx(0.5 * 2 / 5)
    assert row.tested == pytest.approx((0.5 * 3 + 0.5 * 6) / 6)
    assert row.hit_ratio == pytest.approx(0.5 * 2 / (0.5 * 5 + 0.5 * 6))
    assert row.looked_up == pytest.approx(5.5 / 100_000)
    assert row.looked_up_host == pytest.approx(row.looked_up / 3)
    assert cluster_sim.summary(2, counts, PREGREET, 0, 200, ordered=True).looked_up_host == pytest.approx(2 / 100_000)
    assert row.stores == pytest.approx(1.5 / 100_000)
    assert (row.passes, row.memory) == (0.5, 100)
    assert row.saved == pytest.approx(0.5 * 6 / 100_000 * DAY)


def test_sizes() -> None:
    assert cluster_sizes.request(b"MGET", b"ab") == b"*2\r\n$4\r\nMGET\r\n$2\r\nab\r\n"
    assert cluster_sizes.key_of(bytes([192, 0, 2, 1])) == b"fastscreen:p:c0000201"
    assert len(cluster_sizes.value_of(PREGREET)) == 1 + 1 + 4 + 4 + 1 + 15 + (1 + 5 + 4) + 16
    assert len(cluster_sizes.value_of(BOTH)) == len(cluster_sizes.value_of(PREGREET)) + 4
    assert cluster_sizes.per_batch(1, 0.005, 100) == pytest.approx(1, rel=0.01)
    assert cluster_sizes.per_batch(2000, 0.005, 100) == pytest.approx(2000 / 11)
    assert cluster_sizes.per_batch(1e6, 0.005, 100) == pytest.approx(1e4)


def test_traffic_of_each_look_up_and_store() -> None:
    """At full batches: so much for a key that is missing, for one that is found, and for a record."""
    idle = cluster_sizes.traffic([0.0], 0, 0, PREGREET)
    key, value = 5 + 47 + 2, 5 + 52 + 2
    missing = cluster_sizes.traffic([1e6], 0, 0, PREGREET)
    batch = 52 + len("*101\r\n$4\r\nMGET\r\n")
    assert missing.to_server - idle.to_server == pytest.approx(1e6 * key + 1e4 * batch, rel=1e-3)
    assert missing.from_server - idle.from_server == pytest.approx(1e6 * 5 + 1e4 * (52 + 6), rel=1e-3)
    found = cluster_sizes.traffic([1e6], 1, 0, PREGREET)
    assert found.to_server == missing.to_server
    assert found.from_server - missing.from_server == pytest.approx(1e6 * (value - 5))
    stored = cluster_sizes.traffic([1e6], 0, 1e5, PREGREET)
    record = key + value + len("0")
    assert (stored.to_server - missing.to_server) / 1e5 == pytest.approx(record, rel=0.03)


# ---- the command

LINES = """\
{"time": 1000, "ip": "192.0.2.1"}
{"time": "1970-01-01T00:17:40+00:00", "host": "mx", "event": "connect", "client": "192.0.2.1", "port": 5}
{"time": 1060.5, "kind": "connect", "address": "2001:db8::1"}
{"time": 1050, "kind": "connect", "address": "2001:db8::2"}
{"time": 1070, "kind": "passed", "address": "192.0.2.3"}
{"time": 1070, "event": "pass_new", "client": "192.0.2.3"}
{"lost": 17}
{"time": "noon", "ip": "192.0.2.3"}
{"time": true, "ip": "192.0.2.3"}
{"time": 1070, "ip": "a name"}
{"time": 1070, "ip": 17}
{"time": 1070}
17
not JSON
"""


def test_recorded_clients() -> None:
    """In order; addresses of one /64 are one client; other lines are ignored."""
    found = cluster_sim.recorded(LINES.splitlines())
    assert {key.hex(): list(times) for key, times in found.items()} == {
        "c0000201": [1000, 1060],
        "20010db8" + "00" * 12 + "40": [1050, 1060.5],
    }


def table(text: str) -> list[dict[str, str]]:
    head, _, *rows = ([cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if "|" in line)
    return [dict(zip(head, row, strict=True)) for row in rows]


def test_replay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "clients.json"
    visits = [("192.0.2.1", 0), ("192.0.2.1", 7), ("192.0.2.1", 50), ("192.0.2.2", 80), ("192.0.2.1", 94)]
    trace.write_text("".join(json.dumps({"time": 5000 + time, "ip": ip}) + "\n" for ip, time in visits))
    assert cluster_sim.main(["--replay", str(trace), "--hosts", "1"]) == 0
    (row,) = table(capsys.readouterr().out)
    # 5 visits in 94 s and a greet wait, two of them by a client that was not known
    assert (row["clients"], row["hosts"]) == ("2", "1")
    assert row["visits per s"] == "0.05"
    assert row["tested, no cluster"] == row["tested, cluster"] == "40.0%"
    assert row["of these, known elsewhere"] == row["hit ratio"] == "0.0%"
    assert row["look-ups per s"] == row["stores per s"] == "0.02"


def test_a_file_without_clients(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "log").write_text("not JSON\n")
    assert cluster_sim.main(["--replay", str(tmp_path / "log")]) == 1
    assert "no clients found; expected JSON lines with time and ip" in capsys.readouterr().err
    assert cluster_sim.main(["--replay", str(tmp_path / "missing")]) == 1
    assert "missing" in capsys.readouterr().err


SMALL = ("--hosts", "2,5", "--clients", "1e4", "--days", "1", "--sample", "500")


def test_the_same_seed_prints_the_same_table(capsys: pytest.CaptureFixture[str]) -> None:
    printed = []
    for more in ((), (), ("--seed", "2")):
        assert cluster_sim.main([*SMALL, *more]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] != printed[2]
    assert [row["hosts"] for row in table(printed[0])] == ["2", "5"]


def test_the_published_table(capsys: pytest.CaptureFixture[str]) -> None:
    """A row of it: `python -m bench.cluster_sim` prints them all."""
    assert cluster_sim.main(["--hosts", "5", "--clients", "1e6"]) == 0
    head, rule, row = capsys.readouterr().out.splitlines()[:3]
    page = (ROOT / "docs" / "cluster.md").read_text().splitlines()
    first = page.index(head)
    assert page[first + 1] == rule
    assert row in page[first + 2 : first + 17], "the page has an older table: run the command again"


def test_more_hosts_share_more(capsys: pytest.CaptureFixture[str]) -> None:
    assert cluster_sim.main(["--hosts", "1,2,10", *SMALL[2:]]) == 0
    ratios = [float(row["hit ratio"].rstrip("%")) for row in table(capsys.readouterr().out)]
    assert 0 == ratios[0] < ratios[1] < ratios[2]


@pytest.mark.parametrize(
    "wrong",
    [
        ["--hosts", "0"],
        ["--hosts", "2,x"],
        ["--hosts", "1.5"],
        ["--clients", "nan"],
        ["--clients", "inf"],
        ["--clients", "1e11"],
        ["--tests", "pregreet,none"],
        ["--tests", ""],
        ["--days", "0"],
        ["--days", "inf"],
        ["--warm-up", "-1"],
        ["--failing", "1"],
        ["--sample", "-1"],
    ],
)
def test_wrong_arguments(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cluster_sim.main(wrong)
    assert stopped.value.code == 2
    assert "error: argument" in capsys.readouterr().err
