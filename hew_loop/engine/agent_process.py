"""One agent program from its start to its report: the same for a task and for a plan."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import anyio

from hew_loop import process
from hew_loop.core.iteration import AgentReport
from hew_loop.core.secrets import StreamMask, secret_values
from hew_loop.runtimes.base import AgentRequest, Runtime

LIMIT_S = 75.0
"""So long an agent may wait for a limit in its slot. claude waits for up to 60 s as it is told, codex for hours; by
then the dispatcher should know, so that no other slot runs into the same limit and a fallback takes over (RT-27)."""


@dataclass(frozen=True, slots=True)
class Bounds:
    timeout_s: float
    stall_s: float
    output_bytes: int
    """What the log keeps."""


async def run_agent(
    runtime: Runtime,
    request: AgentRequest,
    *,
    env: Mapping[str, str],
    log: Path,
    mark: str,
    bounds: Bounds,
    stop: anyio.Event,
    on_start: Callable[[int], None] | None = None,
) -> tuple[AgentReport, process.Ended]:
    """Run it in the request's worktree; when this returns, it and all that carries `mark` are gone.

    Raises UsageError for a prompt that the runtime cannot take, before anything is started.
    """
    call = runtime.invocation(request)
    reader = runtime.reader()
    env = {**env, **dict(call.env)}
    ended = await process.stream(
        process.Job(
            argv=call.argv,
            cwd=request.worktree,
            env=env,
            log=log,
            mark=mark,
            stdin=call.stdin,
            timeout_s=bounds.timeout_s,
            stall_s=bounds.stall_s,
            limit_s=LIMIT_S,
            max_log_bytes=bounds.output_bytes,
            mask=partial(StreamMask, secret_values(env)),
            stop_signal=signal.Signals(call.stop_signal),
        ),
        on_stdout=reader.feed,
        is_final=lambda: reader.is_final,
        is_progress=lambda: reader.is_progress,
        is_limited=lambda: reader.is_limited,
        on_start=on_start,
        stop=stop,
    )
    report = reader.report(
        ending=ended.reason, exit_code=ended.exit_code, stderr_tail=ended.stderr_tail or ended.error.encode()
    )
    if report.failure in ("timed_out", "stalled"):
        report = replace(report, message=_deadline(report, bounds, ended.tail, waits=not reader.is_progress))
    return report, ended


def _deadline(report: AgentReport, bounds: Bounds, tail: bytes, *, waits: bool) -> str:
    lines = (line.strip() for line in reversed(tail.decode("utf-8", "replace").splitlines()))
    last = next(filter(None, lines), "")[-200:]
    said = f"; the last that it printed: {last}" if last else ""
    if report.failure == "stalled":
        printed = "nothing but notices that it waits" if waits else "nothing"
        return f"it printed {printed} for {bounds.stall_s:g} s and was ended{said}"
    return f"it was ended at its deadline of {bounds.timeout_s:g} s{said}"
