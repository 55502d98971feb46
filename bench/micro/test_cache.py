"""The cache as the core calls it, and its records. Files of all sizes, in processes of their own: see cache.py."""

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
    """Sixteen look-ups a read transaction, which is begun and ended in the same time."""
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

    title = f"cache of {entries:,}: a look-up, {'known' if known else 'unknown'} client"
    found = measure(title, COUNT, look_up)
    cache.close()
    missing = found.count(None)
    assert missing == 0 if known else missing > 0.9 * COUNT


def test_decode(measure: Measure) -> None:
    values = records()
    decoded = measure("cache: a record decoded", len(values), lambda: list(map(parse_stamps, values)))
    assert list(map(pack_stamps, decoded)) == values


def test_encode(measure: Measure) -> None:
    values = records()
    stamps = list(map(parse_stamps, values))
    assert measure("cache: a record encoded", len(values), lambda: list(map(pack_stamps, stamps))) == values
