"""What a run leaves in the tracker for whoever works there next: failed gates and a failed verify, in hew's words."""

from __future__ import annotations

from collections.abc import Iterator

from hew_loop.core.actions import Remember
from hew_loop.core.state import Iteration, RunState


def due(state: RunState) -> Iterator[Remember]:
    """What is not remembered yet, oldest first; the same text each time it is asked for."""
    for number, iteration in state.iterations.items():
        if iteration.fate == "gate_failed":
            memory = Remember(_failed_gate(state, number, iteration))
            if memory.text not in state.remembered:
                yield memory
    verify = state.verify
    if verify is not None and verify.verdict in ("failed", "could_not_run"):
        said = f"{verify.verdict.replace('_', ' ')}: {verify.reason or verify.command}"
        memory = Remember(
            f"STATUS:loop-verify-failed:{state.run_id}\n{said}\ntree: {verify.commit}\nsee: loop summary {state.run_id}"
        )
        if memory.text not in state.remembered:
            yield memory


def _failed_gate(state: RunState, number: int, iteration: Iteration) -> str:
    at = iteration.ended_at or iteration.started_at
    return (
        f"STATUS:loop-iter-failed:{state.run_id}:{number}:{at:%Y-%m-%dT%H:%M:%SZ}\n"
        f"task: {iteration.spec.task}\nreasons: {iteration.note}"
    )
