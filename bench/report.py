"""The results for reading, as Markdown: median (minimum to maximum)."""

from typing import Any

from bench.measure import UNHELD
from bench.results import SCREENERS
from bench.rows import OURS

_COUNTED = """\
## What is counted

CPU is the user and system time of every process that a screener needs: of Postfix its master, postscreen, dnsblog and
the log daemon, as fastscreen writes its log itself; dnsblog processes that ended during a round are "ended". The
kernel's work for the network that it does in the name of no process is nobody's; the load generator, the MTA's
stand-in behind the hand-off and the DNS server are not counted. Both screeners run at once, the one that is not
loaded is idle; the ratio is that of two samples taken one after the other. All of it shares the cores, so rates and
times to the client say less than the CPU does.

Of every client the load generator has seen the whole conversation and the log has the expected line; a round in which
one is missing is no result. Log lines, DNS lists, limits and tests are set alike. Known clients are handed on by
descriptor to a receiver that greets them. New ones come from addresses never used before in the run, at a steady
rate that both keep up with, and wait for 6 s, the default of both, so that thousands are held. postscreen's process
limit, which is the length of its listen queue and dnsblog's, is raised where the default would lose questions.

Few clients cost more each: every one is a wake-up of its own, of the screener and of who waits for it on the other
processor, and that costs either screener as much. Two rows show it, one known client at a time and 100 new ones a
second; they have no aim.

The view is `fastscreen tui` on a terminal of 120 × 36, attached and left alone in turn while one screener is loaded as
fast as it can take. All processes of the daemon are counted, that of the control socket too; the view is not.
"""

_COMPARED = {
    "relayed": """\
## Connected through to an MTA, beside HAProxy

Known clients (PASS OLD from the cache), `to = "proxy:..."`, and Debian's HAProxy in TCP mode with `send-proxy-v2`, as
it comes with `nbthread 1` (one worker of fastscreen) and with `option splice-auto` as well; the ratio is that with the
cheaper of the two. One and the same stand-in for the MTA is behind all of them; its CPU and the clients' is not
counted. HAProxy writes no log and tests nobody; fastscreen looks each client up and writes its usual lines.
An MB is 10^6 octets of messages; its share of connecting and of the dialogue is in it.
""",
    "continued": """\
## Continue

CPU for a new client until an MTA has its message: in one session, all of it relayed, or refused with 450 and back in a
second one, which is handed on by descriptor, so that nothing of it is relayed. That the one costs more than the other
is what sparing the client its second session costs.
""",
    "secured": """\
## STARTTLS

Clients under test, without a greet wait; TLS 1.3, a key on P-256, a full handshake each. The clients are a Python
program on the same cores, so connections a second say what came, not what is possible. A tlsproxy ends after some
clients and is "ended" then, as a dnsblog is. MB as above: its session passes the deep tests in TLS, goes on with
Continue and is relayed from there; beside it the same without TLS.
""",
}


def as_markdown(report: dict[str, Any]) -> str:
    lines = [
        "# fastscreen beside postscreen",
        "",
        f"Loaded in turn on one machine, {report['rounds']} rounds (memory and burst: at most 3); median (minimum to",
        "maximum). `make bench` measures all of it anew.",
        "",
        *_cpu(report["rows"]),
        *_figures(report),
        *_compared(report["compared"]),
        *_memory(report["memory"]),
        *_burst(report["burst"]),
        *_processes(report["rows"]),
        _COUNTED,
        "## The machine",
        "",
        *(f"* {name}: {value}" for name, value in report["machine"].items()),
        *_apart(report),
        "",
    ]
    return "\n".join(lines)


PARTS = ("rows", "memory", "burst", "compared", "figures")


def apart(report: dict[str, Any]) -> list[dict[str, Any]]:
    """What was not measured with the others."""
    return [entry for part in PARTS for entry in report[part] if "apart" in entry]


def _apart(report: dict[str, Any]) -> list[str]:
    return [
        f"* measured apart, {entry['apart']['time']}, {entry['apart']['processor']}, load before "
        f"{entry['apart']['load before']}: {entry['title']}"
        for entry in apart(report)
    ]


def summary(report: dict[str, Any]) -> str:
    """The README's table."""
    lines = [
        "| CPU of all of a screener's processes, µs a connection | postscreen | fastscreen | ratio | aim |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in report["rows"]:
        if row["main"] and "problem" in row:
            lines.append(f"| {row['title']} | not measured: {row['problem']} | | | |")
        elif row["main"]:
            lines.append(
                f"| {row['title']} | {row['postscreen']['cpu_us']['median']:,.0f} "
                f"| {row['fastscreen']['cpu_us']['median']:,.1f} | **{row['ratio']['median']:.2f}** | {_aim(row)} |"
            )
    lines += [
        "",
        "| memory of a held client, kB | postscreen | fastscreen | ratio | aim |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in report["memory"]:
        if "problem" in row:
            lines.append(f"| {row['title']} | not measured: {row['problem']} | | | |")
        else:
            theirs, ours = row["postscreen"]["median"], row["fastscreen"]["median"]
            lines.append(
                f"| {row['title']} | {theirs:.2f} | {ours:.2f} | **{ours / theirs:.2f}** | {_memory_aim(row)} |"
            )
    for row in report["burst"]:
        lines += ["", f"| {row['clients']:,} {row['title']} | greeted within 1 s | lost or turned away | slowest |"]
        lines.append("| --- | --- | --- | --- |")
        if "problem" in row:
            lines.append(f"| not measured: {row['problem']} | | | |")
        for name, side in row.get("sides", {}).items():
            lines.append(
                f"| {name} | {side['within_second']['median']:,.0f} "
                f"| {row['clients'] - side['greeted']['median']:,.0f} | {side['max_us']['median'] / 1e6:.2f} s |"
            )
    relayed = [row for row in report["compared"] if row["main"]]
    if relayed:
        lines += ["", "| CPU of what is connected through, µs | HAProxy | fastscreen | ratio | aim |"]
        lines.append("| --- | --- | --- | --- | --- |")
    for row in relayed:
        title = f"{row['title']}: a {row['per']}"
        if "problem" in row:
            lines.append(f"| {title} | not measured: {row['problem']} | | | |")
        else:
            theirs, ours = (row["sides"][name]["cpu_us"]["median"] for name in (row["cheapest"], OURS))
            lines.append(
                f"| {title} | {theirs:,.1f} | {ours:,.1f} | **{row['ratio']['median']:.2f}** | {_at_most(row)} |"
            )
    return "\n".join(lines)


def _cpu(rows: list[dict[str, Any]]) -> list[str]:
    if not rows:
        return []
    lines = [
        "## CPU, in µs a connection",
        "",
        "| clients | postscreen | fastscreen | ratio | aim | met |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        if "problem" in row:
            lines.append(f"| {row['title']} | not measured: {row['problem']} | | | {_aim(row)} | |")
            continue
        theirs, ours = _range(row["postscreen"]["cpu_us"], 1), _range(row["fastscreen"]["cpu_us"], 1)
        ratio = _range(row["ratio"], 3)
        lines.append(f"| {row['title']} | {theirs} | {ours} | **{ratio}** | {_aim(row)} | {_met(row['met'])} |")
    return [*lines, ""]


def _figures(report: dict[str, Any]) -> list[str]:
    if not report["figures"] and not report["problems"]:
        return []
    lines = ["## Single figures", "", "| figure | value | aim | met | |", "| --- | --- | --- | --- | --- |"]
    for figure in report["figures"]:
        value = f"{figure['value']:,.3g}" if abs(figure["value"]) < 1000 else f"{figure['value']:,.0f}"
        lines.append(
            f"| {figure['title']} | {value} {figure['unit']} | {figure['aim']} | {_met(figure['met'])} "
            f"| {figure['detail']} |"
        )
    lines += [f"| {name} | not measured: {problem} | | | |" for name, problem in report["problems"].items()]
    return [*lines, ""]


def _memory(rows: list[dict[str, Any]]) -> list[str]:
    if not rows:
        return []
    lines = [
        "## Memory of a held client, in kB",
        "",
        "Growth of RssAnon ÷ clients: of postscreen's own process, of all of fastscreen's; a new process each time.",
        "",
        "| held clients | postscreen | fastscreen | aim | met |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        title = f"{row['clients']:,} {row['title']}"
        if "problem" in row:
            lines.append(f"| {title} | not measured: {row['problem']} | | {_memory_aim(row)} | |")
            continue
        ours, theirs = _range(row["fastscreen"], 2), _range(row["postscreen"], 2)
        lines.append(f"| {title} | {theirs} | {ours} | {_memory_aim(row)} | {_met(row['met'])} |")
    return [*lines, ""]


def _compared(rows: list[dict[str, Any]]) -> list[str]:
    lines = []
    for part, text in _COMPARED.items():
        among = [row for row in rows if row["part"] == part]
        if not among:
            continue
        lines += [text, "| clients | side | CPU, µs | ratio | aim | met | µs by process | connections/s |"]
        lines.append("| --- | --- | --- | --- | --- | --- | --- | --- |")
        for row in among:
            if "problem" in row:
                lines.append(f"| {row['title']} | not measured: {row['problem']} | | | {_at_most(row)} | | | |")
            for number, (name, side) in enumerate(row.get("sides", {}).items()):
                processes = ", ".join(f"{process} {used:,.1f}" for process, used in side["cpu_us_by_process"].items())
                verdict = (
                    f"**{_range(row['ratio'], 3)}** | {_at_most(row)} | {_met(row['met'])}" if not number else "| |"
                )
                lines.append(
                    f"| {row['title']} | {name} | {_range(side['cpu_us'], 1)} a {row['per']} | {verdict} "
                    f"| {processes} | {side['rate']['median']:,.0f} |"
                )
        lines.append("")
    return lines


def _at_most(row: dict[str, Any]) -> str:
    return f"≤ {row['aim']:g}" if row["aim"] else ""


def _burst(rows: list[dict[str, Any]]) -> list[str]:
    lines = []
    for row in rows:
        lines += [f"## Burst: {row['clients']:,} {row['title']}", ""]
        if "problem" in row:
            lines += [f"Not measured: {row['problem']}", ""]
            continue
        lines += [
            "Each from an address of its own, evenly over the second. From connect to the teaser, in ms; lost: without",
            f"a teaser after {row['seconds']} s, and not told 421. All of them may be held: no limit turns any away.",
            "",
            "| screener | within 1 s | lost | 421 | p50 | p99 | slowest | connects took |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
        ]
        for name, side in row["sides"].items():
            lost = row["clients"] - side["greeted"]["median"] - side["turned_away"]["median"]
            times = " | ".join(_range(side[key], 1, 1e-3) for key in ("p50_us", "p99_us", "max_us"))
            lines.append(
                f"| {name} | {_range(side['within_second'], 0)} | {lost:,.0f} "
                f"| {side['turned_away']['median']:,.0f} | {times} | {side['begun_in_s']['median']:.2f} s |"
            )
        lines += ["", f"Aim: all within 1 s, none lost. Met: {_met(row['met'])}.", ""]
    return lines


def _processes(rows: list[dict[str, Any]]) -> list[str]:
    """By process; and what the client sees."""
    lines = []
    for row in rows:
        for name in (*SCREENERS, UNHELD):
            if name in row:
                one = row[name]
                parts = ", ".join(f"{process} {used:.1f}" for process, used in one["cpu_us_by_process"].items())
                load = f"{row['rate']:,} a second" if row["rate"] else f"{row['together']} together"
                lines.append(
                    f"| {row['title']} | {name} | {parts} | {row['clients']:,}, {load} | {one['rate']['median']:,.0f} "
                    f"| {_milliseconds(one['first_byte_us'])} | {_milliseconds(one['end_us'])} |"
                )
    if not lines:
        return []
    return [
        "## By process, and what the client sees",
        "",
        "Times are ms from connect, p50 / p99: to the first line (a known client's is the MTA's banner, others' the",
        "teaser), and to the end of the connection.",
        "",
        "| clients | screener | µs by process | load | connections/s | first line | end |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *lines,
        "",
    ]


def _milliseconds(times: dict[str, float]) -> str:
    return f"{times['p50'] / 1e3:,.2f} / {times['p99'] / 1e3:,.2f}"


def _aim(row: dict[str, Any]) -> str:
    return f"≤ 1/{1 / row['aim']:.0f}" if row["aim"] else ""


def _memory_aim(row: dict[str, Any]) -> str:
    return f"≤ {row['aim']} kB"


def _met(met: bool | None) -> str:
    return "" if met is None else "yes" if met else "**no**"


def _range(values: dict[str, float], digits: int, scale: float = 1) -> str:
    middle, least, most = (f"{values[name] * scale:,.{digits}f}" for name in ("median", "min", "max"))
    return f"{middle} ({least} to {most})"
