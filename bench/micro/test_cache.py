"""The cache as the core calls it, and its records. cache.py measures files of all sizes, in separate processes."""

from itertools import islice
from pathlib import Path

import pytest

from bench.micro import cachefile
from bench.micro.conftest import Measure
from bench.micro.lookups import BATCH
from bench.micro.samples import absent, present, records
from fastscreen.cache.lmdb_cache import LmdbCache
from fastscreen.cache.stamps import Stamps, pack_stamps, parse_stamps

COUNT = 160 * BATCH


@pytest.mark.parametrize("entries", [10_000, 1_000_000])
@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
def test_lookup(measure: Measure, tmp_path: Path, entries: int, known: bool) -> None:
    """Sixteen lookups per read transaction, including its begin and end."""
    path = tmp_path / "cache"
    cachefile.build(path, entries)
    cache = LmdbCache(path, warn=print, log=print, wake=lambda call: call(), cleanup_interval=0)
    cache.open()
    keys = list(islice(present() if known else absent(), COUNT))
    batches = [keys[at : at + BATCH] for at in range(0, COUNT, BATCH)]

    def look_up() -> list[Stamps | None]:
        found: list[Stamps | None] = []
        for batch in batches:
            found += map(cache.lookup, batch)
            cache.end_batch()
        return found

    title = f"cache of {entries:,} clients: one lookup, {'known' if known else 'unknown'} client"
    found = measure(title, COUNT, look_up)
    cache.close()
    missing = found.count(None)
    assert missing == 0 if known else missing > 0.9 * COUNT


def test_decode(measure: Measure) -> None:
    values = records()
    decoded = measure("cache: decoding a record", len(values), lambda: list(map(parse_stamps, values)))
    assert list(map(pack_stamps, decoded)) == values


def test_encode(measure: Measure) -> None:
    values = records()
    stamps = list(map(parse_stamps, values))
    assert measure("cache: encoding a record", len(values), lambda: list(map(pack_stamps, stamps))) == values
