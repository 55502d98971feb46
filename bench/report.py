"""The results as Markdown for readers: median (minimum to maximum)."""

from typing import Any

from bench.measure import UNHELD
from bench.results import SCREENERS
from bench.rows import FASTSCREEN

_COUNTED = """\
## What is counted

**CPU** is the user and system time of every process that a screener needs. For Postfix these are master, postscreen,
dnsblog and the log daemon, because fastscreen writes its log itself. dnsblog processes that ended during a round appear
as "ended". Not counted are: work for the network that the kernel does outside any process, the load generator, the
stand-in for the MTA that receives the hand-offs, and the DNS server.

**Rounds.** Both screeners run at the same time, and the one that is not loaded is idle. The ratio compares two samples
taken one after the other. All programs share the same cores, so rates and the times that clients see are less
meaningful than the CPU.

**Checks.** The load generator checks the whole conversation of every client, and the log must have the expected line
for each of them. If one is missing, the measurement is discarded. Log lines, DNS lists, limits and tests are configured
the same way for both screeners.

**Clients.** Known clients are handed off by descriptor to a receiver that greets them. New clients use addresses that
were never used before in the run, arrive at a steady rate that both screeners keep up with, and wait for 6 s, the
default of both. Thousands of them are therefore held at a time. postscreen's process limit also sets the length of its
listen queue and of dnsblog's; it is raised where the default would lose queries.

**Low rates.** With few clients, each of them costs more in both screeners: every client wakes up the screener, and
then a process on the other processor that waits for it. Two rows show this: one known client at a time, and 100 new
clients per second. No goal is set for these rows.

**The live view** is `fastscreen tui` on a terminal of 120 × 36. Rounds with and without it alternate, while one
screener is loaded at full speed. All processes of the daemon are counted, including the control server; the view itself
is not.
"""

_COMPARED = {
    "relayed": """\
## Relayed to an MTA, compared with HAProxy

Known clients (PASS OLD from the cache) are relayed with `to = "proxy:..."`. Debian's HAProxy does the same in TCP mode
with `send-proxy-v2`: as installed with `nbthread 1` (fastscreen has one worker), and with `option splice-auto` too. The
ratio refers to the cheaper of these two. All use the same stand-in for the MTA; its CPU and that of the clients are not
counted. HAProxy writes no log and tests no client; fastscreen looks up each client and writes its usual lines. 1 MB is
10^6 bytes of messages, including their share of the connection and the dialogue.
""",
    "continued": """\
## Continue

CPU per new client until an MTA has its message. With Continue, the client needs one session, and all of it is relayed.
With 450, the client comes back for another session, which is handed off by descriptor, so nothing is relayed. Continue
costs more CPU; in return, the client does not need to connect again.
""",
    "secured": """\
## STARTTLS

Clients under test, without a greet wait: TLS 1.3, a P-256 key, a full handshake each. The clients are a Python program
on the same cores, so connections/s is the rate at which they arrived, not the highest possible one. A tlsproxy process
ends after some clients and then appears as "ended", like dnsblog. In the rows per MB, the session passes the deep tests
in TLS, continues with the MTA (Continue) and is relayed from there; the last row is the same without TLS.
""",
}


def as_markdown(report: dict[str, Any]) -> str:
    lines = [
        "# fastscreen compared with postscreen",
        "",
        f"Both were loaded in turn on one machine, in {report['rounds']} rounds (memory and burst: at most 3). Values",
        "are medians (minimum to maximum). `make bench` repeats all measurements. *Ratio* is fastscreen's value",
        "divided by postscreen's, or by that of the other program in the same table.",
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
    """The entries that were measured in a separate run."""
    return [entry for part in PARTS for entry in report[part] if "apart" in entry]


def _apart(report: dict[str, Any]) -> list[str]:
    return [
        f"* measured separately, {entry['apart']['time']}, {entry['apart']['processor']}, load before "
        f"{entry['apart']['load before']}: {entry['title']}"
        for entry in apart(report)
    ]


def summary(report: dict[str, Any]) -> str:
    """The tables in README."""
    lines = [
        "| CPU of all processes of a screener, µs per connection | postscreen | fastscreen | ratio | goal |",
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
        "| memory per held client, kB | postscreen | fastscreen | ratio | goal |",
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
        lines += ["", f"| {row['clients']:,} {row['title']} | greeted within 1 s | lost or rejected | slowest |"]
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
        lines += ["", "| CPU of relayed sessions, µs | HAProxy | fastscreen | ratio | goal |"]
        lines.append("| --- | --- | --- | --- | --- |")
    for row in relayed:
        title = f"{row['title']}; per {row['per']}"
        if "problem" in row:
            lines.append(f"| {title} | not measured: {row['problem']} | | | |")
        else:
            theirs, ours = (row["sides"][name]["cpu_us"]["median"] for name in (row["cheapest"], FASTSCREEN))
            lines.append(
                f"| {title} | {theirs:,.1f} | {ours:,.1f} | **{row['ratio']['median']:.2f}** | {_at_most(row)} |"
            )
    return "\n".join(lines)


def _cpu(rows: list[dict[str, Any]]) -> list[str]:
    if not rows:
        return []
    lines = [
        "## CPU, in µs per connection",
        "",
        "| clients | postscreen | fastscreen | ratio | goal | met |",
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
    lines = ["## Single figures", "", "| figure | value | goal | met | details |", "| --- | --- | --- | --- | --- |"]
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
        "## Memory per held client, in kB",
        "",
        "Growth of RssAnon (anonymous memory, as the kernel reports it) ÷ number of clients: of postscreen's own",
        "process, and of all of fastscreen's processes. Each measurement uses new processes.",
        "",
        "| held clients | postscreen | fastscreen | goal | met |",
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
        lines += [text, "| clients | program | CPU, µs | ratio | goal | met | µs by process | connections/s |"]
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
                    f"| {row['title']} | {name} | {_range(side['cpu_us'], 1)} per {row['per']} | {verdict} "
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
            "Each client has its own address, and the connections are spread evenly over the second. Times are in ms,",
            "from the connection to the teaser. Lost clients had neither a teaser nor a 421 after "
            f"{row['seconds']} s. The limits",
            "permit all of them to be held.",
            "",
            "| screener | greeted within 1 s | lost | 421 | p50 | p99 | slowest | connecting took |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
        ]
        for name, side in row["sides"].items():
            lost = row["clients"] - side["greeted"]["median"] - side["turned_away"]["median"]
            times = " | ".join(_range(side[key], 1, 1e-3) for key in ("p50_us", "p99_us", "max_us"))
            lines.append(
                f"| {name} | {_range(side['within_second'], 0)} | {lost:,.0f} "
                f"| {side['turned_away']['median']:,.0f} | {times} | {side['begun_in_s']['median']:.2f} s |"
            )
        lines += ["", f"Goal: all within 1 s, none lost. Met: {_met(row['met'])}.", ""]
    return lines


def _processes(rows: list[dict[str, Any]]) -> list[str]:
    """CPU by process, and what clients see."""
    lines = []
    for row in rows:
        for name in (*SCREENERS, UNHELD):
            if name in row:
                one = row[name]
                parts = ", ".join(f"{process} {used:.1f}" for process, used in one["cpu_us_by_process"].items())
                load = f"{row['rate']:,} per second" if row["rate"] else f"{row['concurrent']} at a time"
                lines.append(
                    f"| {row['title']} | {name} | {parts} | {row['clients']:,}, {load} | {one['rate']['median']:,.0f} "
                    f"| {_milliseconds(one['first_byte_us'])} | {_milliseconds(one['end_us'])} |"
                )
    if not lines:
        return []
    return [
        "## By process, and what clients see",
        "",
        "Times are in ms from the connection, p50 / p99: until the first line (for a known client the MTA's banner,",
        "for others the teaser), and until the end of the connection.",
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
