"""The end-of-run test of the integrated tree: always for real, never from the cache of results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import anyio

from hew_loop.core.policy import PlannedCommand
from hew_loop.engine.gate import GateRun, run_commands


async def verify(
    commands: Sequence[PlannedCommand],
    *,
    worktree: Path,
    env: Mapping[str, str],
    log: Path,
    mark: str,
    timeout_s: float,
    stop: anyio.Event | None = None,
) -> GateRun:
    """Run the commands in `worktree`; their whole output is appended to `log` (verify.log), also after a time-out.

    The caller has checked out the integration tip there, cleaned ignored files as well, and may have logged its set-up.
    """
    return await run_commands(commands, worktree=worktree, env=env, log=log, mark=mark, timeout_s=timeout_s, stop=stop)
