"""Workers on this machine: the worker function is awaited where the engine runs."""

from __future__ import annotations

import anyio

from hew_loop.core.iteration import IterationResult
from hew_loop.executors.base import Work, WorkOrder


class LocalExecutor:
    def __init__(self, work: Work) -> None:
        self._work = work

    async def run(self, order: WorkOrder, stop: anyio.Event) -> IterationResult:
        return await self._work(order, stop)
