"""docs/glossary.md lists the names that programs see, as they are; the other pages use no other ones."""

import json
import re
from pathlib import Path

import pytest

from fastscreen.cli.explain import VERDICTS
from fastscreen.cluster.records import Reason
from fastscreen.control import messages
from fastscreen.control.commands import COMMANDS
from fastscreen.control.metrics import Snapshot, Worker
from fastscreen.core import EVENTS, FINDINGS, HISTORY_MARKS, HISTORY_OUTCOMES, STAGES
from fastscreen.history import fields

DOCS = Path(__file__).resolve().parents[2] / "docs"
GLOSSARY = (DOCS / "glossary.md").read_text()
FORMER = (
    "spared", "in_spite", "turned_away", "lists_out", "lost_log_lines", "neighbour", "talkers", "fastscreen-hub",
    "timed_out", "bypass_until_seconds",
)  # fmt: skip


def section(title: str) -> str:
    return GLOSSARY.partition(f"## {title}\n")[2].partition("\n## ")[0]


def named(title: str) -> set[str]:
    """The names in the first columns of a section's table."""
    rows = [line.split("|")[1] for line in section(title).splitlines() if line.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`([\w.:]+)`", row)}


def test_commands() -> None:
    assert named("Commands of the control protocol") == set(COMMANDS)


def test_events() -> None:
    assert named("Events") == {kind for kind in EVENTS if kind not in ("", "session")} | {"rejected"}


def test_words() -> None:
    words = named("Words in filters and answers")
    failed = set(FINDINGS) - {"pregreet", "pipelining", "non_smtp_command", "bare_newline", "denylisted"}
    assert words >= set(STAGES[:-1]) | failed | set(VERDICTS)


def test_fields_of_a_session() -> None:
    """All of them, in the order in which they are printed."""
    rows = [line.split("|")[1] for line in section("Fields of a session").splitlines() if line.startswith("| `")]
    assert [name for row in rows for name in re.findall(r"`(\w+)`", row)] == list(fields.NAMES)


def test_values_in_a_session() -> None:
    marks = {fields.MARKS.get(mark, mark) for mark in HISTORY_MARKS}
    assert named("Values in a session") >= marks | set(HISTORY_OUTCOMES)


def test_terms_are_in_order() -> None:
    terms = [line.split("|")[1].strip().lower() for line in section("Terms").splitlines()[4:] if line.startswith("| ")]
    assert terms == sorted(terms)


def test_labels_of_metrics() -> None:
    counts = dict.fromkeys([kind for kind in EVENTS if kind] + ["rejected"], 0)
    lists = [messages.DnsblList("x", state="ok", p50=0.1, p95=0.1)]
    worker = messages.Worker(1, 2, stages={"greet": 1})
    cluster = messages.Cluster(running=True, ignored={"bad_mac": 0}, peers=[messages.ClusterPeer("mx2", 1.0)])
    status = messages.Status(
        1.0, 0.0, "1", "mx", 1, counts=counts, workers=[worker], limits={"pre_queue": 1, "post_queue": 1},
        cluster=cluster, history=messages.Recorder(running=True),
    )  # fmt: skip
    numbers = dict.fromkeys(("queries", "answers", "listed", "unique", "timeouts", "errors"), 0)
    details = {
        "busy": {"connection_rate": 0},
        "limits": {"time": 0},
        "passed_new": 0,
        "rejected": {"450": 0},
        "ranks": [0] * 12,
        "rank_sum": 0,
        "evidence": {"helo_reserved": 0},
    }
    asked = dict.fromkeys([f"cluster_{name}" for name in ("asked", "found", "ended", "late", "dropped")], 0)
    snapshot = Snapshot(status, messages.Dnsbl(lists=lists), details, {"1": Worker(asked, {"x": numbers})})
    samples = [sample for family in snapshot.collect() for sample in family.samples]
    labels = {label for sample in samples for label in sample.labels} - {"le", "quantile", "version"}
    assert labels == named("Metrics")
    page = (DOCS / "metrics.md").read_text()
    plain = {
        re.sub(r"_(total|sum|count|bucket|created)$", "", sample.name.removeprefix("fastscreen_")) for sample in samples
    }
    assert [name for name in sorted(plain) if not is_on(page, name)] == []


def test_why_records_of_a_cluster_are_ignored() -> None:
    reasons = {reason.label for reason in Reason} | {"oversized"}
    glossary = section("Metrics").partition("`cluster_records_ignored`")[2].partition("\n")[0]
    assert set(re.findall(r"`(\w+)`", glossary)) == reasons
    row = (DOCS / "metrics.md").read_text().partition("`cluster_records_ignored_total`")[2].partition("| records")[0]
    assert set(re.findall(r"`(\w+)`", row)) == reasons | {"reason"}


def is_on(page: str, name: str) -> bool:
    """By itself, or as the end of a row's first name: `dnsbl_queries_total`, `_answers_`."""
    return any(form in page for form in (name, f"`_{name.rpartition('_')[2]}_`", f"_{'_'.join(name.split('_')[1:])}_"))


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_no_page_uses_a_former_name(page: Path) -> None:
    text = page.read_text()
    assert [name for name in FORMER if re.search(rf"`[^`\n]*\b{name}\b[^`\n]*`|\"{name}\"", text)] == []


def test_the_board_asks_for_documented_metrics() -> None:
    board = json.dumps(json.loads((DOCS.parent / "contrib/grafana.json").read_text()))
    page = (DOCS / "metrics.md").read_text()
    for name in set(re.findall(r"fastscreen_([a-z_]+)", board)):
        assert is_on(page, re.sub(r"_(total|sum|count|bucket)$", "", name)), name
