"""Look-ups in the memory of offenses: how long one takes when the memory has ten million networks.

    python -m bench.offense_lookups [--entries N] [--folder DIR]

A worker does what is measured here for each client that it tests: it reads the record of the client's network in the
transaction of a batch, and counts the addresses in it. The clients are random, so most pages of the file are not in
the processor's caches. What is printed is processor time, so that other processes count less. Building the file takes
two minutes, and 1.1 GB in DIR.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from fastscreen.cache import lmdb_file
from fastscreen.core import AsTable, OffenseRules, offense_add, seen_in
from fastscreen.offenses.reader import OffenseReader
from fastscreen.offenses.size import map_size

TODAY = 20_000
ROUNDS = 100
LOOKUPS = 3200  # per round
BATCH = 16  # look-ups per transaction: clients that end their greet wait in one batch of events
_NETWORKS = 1 << 24


def main() -> None:
    """Build the file, and print what a look-up takes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=10_000_000, help="networks, at most 16,777,216")
    parser.add_argument("--folder", type=Path, help="where the file is built; default: a temporary folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fastscreen-bench-", dir=arguments.folder) as folder:
        path = Path(folder) / "offenses"
        size = build(path, arguments.entries)
        print(f"{arguments.entries:,} networks, {size / 1e6:,.0f} MB")
        for title, share in (("known networks", 1.0), ("unknown networks", 0.0), ("half of each", 0.5)):
            seconds = measured(path, OffenseRules(), clients(arguments.entries, share))
            print(f"{title:<18} {1e6 * statistics.median(seconds):.2f} µs per look-up, fastest round "
                  f"{1e6 * min(seconds):.2f} µs")  # fmt: skip
    table = as_table(500_000)
    found = as_lookups(table)
    print(f"AS of an address   {1e6 * found:.2f} µs among {len(table):,} ranges")


def build(path: Path, entries: int) -> int:
    """Networks all over IPv4, in random order; return the size of the file in bytes."""
    chance = random.Random(1)
    return write(path, [number * _NETWORKS // entries for number in chance.sample(range(entries), entries)], TODAY)


def write(path: Path, networks: Sequence[int], today: int) -> int:
    """Networks (the first 3 bytes as a number) with one or two addresses, few with many; return the file's bytes."""
    file = lmdb_file.open_file(path, map_size(len(networks)), time.time, print, kind=lmdb_file.MEMORY)
    rules, chance = OffenseRules(), random.Random(1)
    values = [_value(rules, chance, today) for _ in range(1000)]
    chunk: list[tuple[bytes, bytes]] = []
    for network in networks:
        chunk.append((b"4" + network.to_bytes(3), values[network % 1000]))
        if len(chunk) == 100_000:
            _put(file.environment, chunk)
            chunk = []
    _put(file.environment, chunk)
    size = file.size
    file.close()
    return size


def _value(rules: OffenseRules, chance: random.Random, today: int) -> bytes:
    value = None
    for number in chance.sample(range(256), chance.choices((1, 2, 3, 5, 20), (70, 15, 8, 5, 2))[0]):
        value, _, _ = offense_add(value, 1, number, 256 * chance.randrange(2), chance.randrange(3),
                                  today - chance.randrange(60), rules)  # fmt: skip
    assert value is not None
    return value


def _put(environment: object, chunk: list[tuple[bytes, bytes]]) -> None:
    with environment.begin(write=True) as transaction, transaction.cursor() as cursor:  # type: ignore[attr-defined]
        cursor.putmulti(sorted(chunk))


def clients(entries: int, share: float) -> list[str]:
    """Addresses, of which this share is in known networks."""
    chance = random.Random(2)
    found = []
    for _ in range(ROUNDS * LOOKUPS):
        network = chance.randrange(entries) * _NETWORKS // entries
        if chance.random() >= share:
            network = (network + 1) % _NETWORKS if entries < _NETWORKS // 2 else chance.randrange(_NETWORKS)
        octets = network.to_bytes(3)
        found.append(f"{octets[0]}.{octets[1]}.{octets[2]}.{chance.randrange(256)}")
    return found


def measured(path: Path, rules: OffenseRules, addresses: list[str]) -> list[float]:
    """Seconds of processor time per look-up, by round."""
    reader = OffenseReader(path)
    reader.check()
    assert reader.is_open
    for address in addresses[::10]:
        seen_in(reader, rules, address, TODAY)
    found = []
    for begin in range(0, len(addresses), LOOKUPS):
        some = addresses[begin : begin + LOOKUPS]
        started = time.thread_time()
        for at in range(0, LOOKUPS, BATCH):
            for address in some[at : at + BATCH]:
                seen_in(reader, rules, address, TODAY)
            reader.end_batch()
        found.append((time.thread_time() - started) / LOOKUPS)
    reader.close()
    return found


def as_table(ranges: int) -> AsTable:
    """A table as large as that of the Internet."""
    return AsTable(as_lines(ranges).encode(), "as.csv")


def as_lines(ranges: int) -> str:
    """All of IPv4 in ranges of one size, each with an AS of its own."""
    step = (1 << 32) // ranges
    lines = []
    for number in range(ranges):
        first = number * step
        lines.append(f"{_dotted(first)},{_dotted(first + step - 1)},{number + 1}")
    return "\n".join(lines)


def _dotted(number: int) -> str:
    return ".".join(str(octet) for octet in number.to_bytes(4))


def as_lookups(table: AsTable) -> float:
    """Seconds per look-up."""
    chance = random.Random(3)
    wanted = [chance.randbytes(4) for _ in range(200_000)]
    started = time.thread_time()
    for client in wanted:
        table.lookup(client)
    return (time.thread_time() - started) / len(wanted)


if __name__ == "__main__":
    main()
