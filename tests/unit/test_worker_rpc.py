"""The requests of the control server to the workers."""

from __future__ import annotations

import asyncio
from typing import Any

from fastscreen.control import worker_rpc
from fastscreen.control.worker_rpc import RequestHandler, WorkerRpc


def test_an_end_whose_other_end_is_closed_is_not_watched() -> None:
    """After a restart, the former processes lose each other one by one: none of them spins."""

    async def work() -> None:
        loop = asyncio.get_running_loop()
        server, worker = worker_rpc.pair()
        nothing: Any = None
        handler = RequestHandler(worker, nothing, nothing, nothing, nothing)
        loop.add_reader(worker.fileno(), handler.serve)
        server.close()
        await asyncio.sleep(0.01)
        assert not loop.remove_reader(worker.fileno())
        server, worker = worker_rpc.pair()
        rpc = WorkerRpc([server])
        worker.close()
        await asyncio.sleep(0.01)
        assert not loop.remove_reader(server.fileno())
        rpc.close()

    asyncio.run(asyncio.wait_for(work(), 10))
