"""A process that uses the cache like a worker: a loop that looks up and stores clients, and a writer thread.

`cacheuser.py PATH` reads one command per line: `store HEX` or `find HEX`, and answers `find` with 1 or 0. Between
commands it looks up and stores other clients.
"""

from __future__ import annotations

import os
import random
import select
import sys
from collections import deque
from collections.abc import Callable

from fastscreen.cache.lmdb_cache import LmdbCache

NOBODY = 65534


def main(path: str) -> None:
    """Until standard input ends."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    calls: deque[Callable[[], None]] = deque()
    until = (2_000_000_000, 1, 1, 1, 1)

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    cache = LmdbCache(path, warn=say, log=say, wake=calls.append)
    cache.open()
    cache.start()
    print("ready", flush=True)
    rest = b""
    while True:
        ready, _, _ = select.select([0], [], [], 0.01)
        while calls:
            calls.popleft()()
        for _ in range(5):
            cache.lookup(random.randbytes(4))
            cache.store(b"\x0a" + random.randbytes(3), until)
        if ready:
            data = os.read(0, 65536)
            if not data:
                break
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                command, _, key = line.decode().partition(" ")
                if command == "store":
                    cache.store(bytes.fromhex(key), until)
                else:
                    # Not what this process keeps in memory: what any process finds in the file.
                    found = cache.lookup(bytes.fromhex(key)) is not None
                    print(int(found), flush=True)
        cache.end_batch()
    cache.close()
    calls.clear()


if __name__ == "__main__":
    main(sys.argv[1])
