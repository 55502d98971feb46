"""What a run prints at its end."""

from __future__ import annotations

import json
from collections import defaultdict

from soak.faults import FAULTS
from soak.world import World


def table(world: World) -> list[str]:
    """Row of the failure table, fault, how often, worst recovery in s, problems."""
    by_fault: defaultdict[str, list[float]] = defaultdict(list)
    problems: defaultdict[str, set[str]] = defaultdict(set)
    for window in world.windows:
        by_fault[window.fault].append(window.recovery)
        if window.problem:
            problems[window.fault].add(window.problem)
    ordered = sorted(by_fault, key=lambda name: (FAULTS[name].row, name))
    lines = [f"{'row of the failure table':68} {'fault':32} {'count':>5} {'worst':>6}"]
    for name in ordered:
        worst = f"{max(by_fault[name]):.1f} s"
        text = f"{FAULTS[name].row:68} {name:32} {len(by_fault[name]):5} {worst:>6}  {'; '.join(problems[name])}"
        lines.append(text.rstrip())
    return lines


def show(world: World, facts: dict[str, object]) -> None:
    """Print it all; evidence that is larger stays in the folder."""
    print("\n".join(["", *table(world), ""]))
    for name, fact in facts.items():
        print(f"{name}: {json.dumps(fact, default=str)}")
    print(f"counts: {json.dumps(dict(sorted(world.counts.items())))}")
    output = (world.folder / "output").read_text(errors="replace").strip()
    if output:
        print(f"standard error of fastscreen: {output[-2000:]}")
    print(f"\nseed {world.options.seed}: {len(world.violations)} violations")
    for violation in world.violations[:50]:
        print(f" * {violation}")
