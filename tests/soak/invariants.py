"""What must hold, whatever happened."""

from __future__ import annotations

from collections import Counter, defaultdict

from soak import logs
from soak.bots import REJECTED
from soak.faults import FAULTS
from soak.monitor import Sample
from soak.neighbor_faults import DNS_GRACE
from soak.world import World

QUIET_SECONDS = 0.25
"""99 of 100 known clients have their greeting so soon (on a busy machine, too)."""
_MEMORY_SLACK = 60 << 20  # bytes
_DESCRIPTORS_SLACK = 8
_CLOSING = {"restarted", "restarted_at_once", "supervisor_killed"}
_KILLED_LINES = 50  # that a process has not written yet when it is killed: of one batch
_IDLE_SHARE = 0.05  # of a core


class Journal:
    """What the MTA was given: clients as (via, ip, port, time), messages by name."""

    def __init__(self, world: World) -> None:
        self.clients: list[tuple[str, str, str, float]] = []
        self.accepted: Counter[str] = Counter()
        self.sums: defaultdict[str, set[str]] = defaultdict(set)
        for line in (world.folder / "journal").read_text().splitlines():
            words = line.split()
            if words[0] == "M":
                self.accepted[words[1]] += 1
                self.sums[words[1]].add(words[2])
            else:
                self.clients.append((words[1], words[2], words[3], float(words[4])))


def messages(world: World, journal: Journal) -> dict[str, int]:
    """No accepted message is lost, none is there more often than it was sent, none is changed."""
    lost = [message for message in world.messages if message.accepted and not journal.accepted[message.name]]
    doubled = [message for message in world.messages if journal.accepted[message.name] > max(message.sent, 1)]
    changed = [message for message in world.messages if journal.sums[message.name] - {message.sum}]
    for what, some in (("lost", lost), ("doubled", doubled), ("changed", changed)):
        if some:
            world.violate(f"messages: {len(some)} {what}: {', '.join(message.name for message in some[:5])}")
    accepted = sum(bool(message.accepted) for message in world.messages)
    return {"messages": len(world.messages), "accepted": accepted, "lost": len(lost), "doubled": len(doubled)}


def bots(world: World, journal: Journal) -> None:
    """No bot reaches the MTA. A listed one may while the lists cannot be asked, which is what the settings say."""
    for via, address, _, when in journal.clients:
        kind = world.kinds.get(address, "")
        if kind not in REJECTED:
            continue
        during = world.fault_at(when, DNS_GRACE if kind == "listed" else 15.0)
        excused = kind == "listed" and any(FAULTS[name].grace == DNS_GRACE for name in during.split("+") if name)
        if excused:
            world.counts["listed bots handed off while the lists failed"] += 1
        else:
            world.violate(f"bot ({kind}) {address} handed off by {via}; faults then: {during or 'none'}")


def refusals(world: World) -> None:
    """A good client never gets a 5xx, and a new one without a failure gets nothing but a 450. The port refuses
    connections only when fastscreen ends and another one starts."""
    for refusal in world.refusals:
        during = world.fault_at(refusal.at)
        lists = world.fault_at(refusal.at, DNS_GRACE)
        who = f"good client ({refusal.kind}) got {refusal.code or 'nothing'}"
        if refusal.code >= 500 and "dns_lists_the_world" not in lists:
            world.violate(f"{who}: {refusal.text}; faults: {during or 'none'}")
        elif "ConnectionRefusedError" in refusal.text and not _CLOSING & set(during.split("+")):
            world.violate(f"{who}: the port refused; faults: {during or 'none'}")
        elif not during and not (refusal.code == 450 and refusal.kind != "known"):
            world.violate(f"{who} without a fault: {refusal.text}")


def latency(world: World) -> dict[str, float]:
    """Known clients are served at once, whatever happens to what they do not need."""
    quiet = sorted(took for when, took in world.waits if _leaves_known_clients_alone(world.fault_at(when)))
    if len(quiet) < 100:
        return {}
    p50, p99 = quiet[len(quiet) // 2], quiet[len(quiet) * 99 // 100]
    if p99 > QUIET_SECONDS:
        world.violate(f"known clients under faults of others: 99 % have the greeting within {p99:.3f} s only")
    return {"clients": len(quiet), "p50 ms": round(1e3 * p50, 1), "p99 ms": round(1e3 * p99, 1)}


def _leaves_known_clients_alone(faults: str) -> bool:
    return all(FAULTS[name].spares_known for name in faults.split("+") if name)


def flat(world: World, first: dict[int, Sample], last: dict[int, Sample]) -> dict[str, dict[str, list[int]]]:
    """As many processes as at first, and memory and descriptors do not grow."""
    found: dict[str, dict[str, list[int]]] = {}
    for kind in ("supervisor", "worker", "tls", "control"):
        before = [each for each in first.values() if each.kind == kind]
        after = [each for each in last.values() if each.kind == kind]
        if len(before) != len(after):
            world.violate(f"{kind}: {len(before)} processes at first, {len(after)} at the end")
        found[kind] = {}
        for what, slack in (("memory", _MEMORY_SLACK), ("descriptors", _DESCRIPTORS_SLACK)):
            values = [max((getattr(each, what) for each in some), default=0) for some in (before, after)]
            found[kind][what] = values
            if values[1] > values[0] + slack:
                world.violate(f"{kind}: {what} grew from {values[0]} to {values[1]}")
    if zombies := sum(each.state == "Z" for each in last.values()):
        world.violate(f"{zombies} zombies")
    return found


def idle(world: World, before: dict[int, Sample], after: dict[int, Sample], seconds: float) -> None:
    """Without clients nothing is done."""
    for pid in before.keys() & after.keys():
        share = (after[pid].cpu - before[pid].cpu) / seconds
        if share > _IDLE_SHARE:
            world.violate(f"{after[pid].kind} {pid} uses {100 * share:.0f} % of a core without clients")


def log(world: World, journal: Journal, connects: int | None) -> logs.LogCheck:
    """Lines are whole and in balance, but for what a process had not written when it was killed, or no disk took.

    connects: events of that kind since the last restart, as `status` counts them.
    """
    found = logs.check(world, {f"[{address}]:{port}" for _, address, port, _ in journal.clients})
    if found.torn:
        world.violate(f"log: {len(found.torn)} lines are torn: {found.torn[:2]}")
    gone = world.gone | (world.workers - set(world.processes("worker")))
    excused = found.lost + sum(window.fault.startswith("log") for window in world.windows) * 1000
    living = {pid: count for pid, count in found.open.items() if pid not in gone}
    if sum(living.values()) > excused:
        world.violate(f"log: connections without an end, though their worker lives: {living}")
    if len(found.orphans) > excused:
        world.violate(f"log: {len(found.orphans)} ends without a CONNECT: {found.orphans[:2]}")
    unwritten = found.lost + _KILLED_LINES * len(gone - world.former)
    if connects is None or abs(connects - found.since_start) > unwritten:
        world.violate(f"log: {found.since_start} CONNECT lines, {connects} events; {found.lost} lines counted as lost")
    return found
