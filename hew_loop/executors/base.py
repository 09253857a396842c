"""The seam to where workers run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

import anyio

from hew_loop.core.iteration import IterationResult, IterationSpec
from hew_loop.core.prompt import PromptInput


@dataclass(frozen=True, slots=True)
class WorkOrder:
    """One iteration and what its prompt is made of; plain values, so that it can travel."""

    spec: IterationSpec
    prompt: PromptInput
    model: str | None
    cut_off: bool = False
    """What it carries on was cut off by a limit of its runtime."""


Work = Callable[[WorkOrder, anyio.Event], Awaitable[IterationResult]]
"""The worker function; the event ends the agent early."""


class Executor(Protocol):
    async def run(self, order: WorkOrder, stop: anyio.Event) -> IterationResult:
        """Run one iteration to its end; never raises for what an agent does."""
        ...
