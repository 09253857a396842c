"""What one `loop step` did, for whoever called it: a person, a cron line, or a small model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hew_loop.core import runtime_choice
from hew_loop.core.names import one_line
from hew_loop.core.outcome import exit_code
from hew_loop.core.startable import cools_until
from hew_loop.core.state import RunState
from hew_loop.core.task import NEEDS_HUMAN, Task
from hew_loop.errors import EXIT_FAILED, EXIT_LIMIT, EXIT_NOTHING_TO_DO, EXIT_OK

Mode = Literal["plan", "execute", "finish", "none"]

_DONE = ("done", "unchanged")
_OVER = (*_DONE, "parked", "withdrawn")


@dataclass(frozen=True, slots=True)
class Step:
    """`remaining` counts the planned tasks that are neither closed nor set aside."""

    mode: Mode
    item: str | None
    result: str
    remaining: int
    exit_code: int


NOTHING = Step("none", None, "nothing to do", 0, EXIT_NOTHING_TO_DO)


def describe(before: RunState | None, state: RunState) -> Step:
    """The transition from the state that a step found (None: no run was open) to the one that it left."""
    left = remaining(state)
    if state.ended:
        merged = state.delivery is not None and state.delivery.state == "merged"
        result = "delivered" if merged else _why_kept(state)
        return Step("finish", None, result, left, exit_code(state))
    if before is None:
        return Step("plan", None, "planned", left, EXIT_OK)
    new = [n for n in state.iterations if n not in before.iterations]
    if not new:
        return Step("none", None, _cooling(state), left, EXIT_NOTHING_TO_DO)
    task = state.iterations[new[-1]].spec.task
    record = state.records[task]
    result = "landed" if record.phase == "done" else record.phase
    if record.phase == "returned":
        fate = state.iterations[new[-1]].result
        result = f"failed: {fate.failure}" if fate and fate.failure else f"failed: {state.iterations[new[-1]].fate}"
    code = EXIT_OK if record.phase in _DONE else EXIT_LIMIT if record.phase == "withdrawn" else EXIT_FAILED
    return Step("execute", task, result, left, code)


def remaining(state: RunState) -> int:
    over = {t for t, r in state.records.items() if r.phase in _OVER}
    items = (t for t in state.initial if t not in over and t not in state.backlog.children)
    return sum(1 for t in items if _is_left(state.backlog.tasks.get(t)))


def _is_left(task: Task | None) -> bool:
    return task is not None and not task.is_closed and task.type != "epic" and NEEDS_HUMAN not in task.labels


def _cooling(state: RunState) -> str:
    waiting = {t: until for t, r in state.records.items() if (until := cools_until(state, r))}
    if not waiting:
        held = "; ".join(f"{name}: {health.reason}" for name, health in runtime_choice.held(state, state.now))
        until = runtime_choice.opens_at(state, state.now)
        return f"waiting until {until:%Y-%m-%d %H:%MZ}: {one_line(held)[:200]}" if until else "nothing to do"
    task, until = min(waiting.items(), key=lambda item: item[1])
    return f"waiting: {task} cools down until {until:%Y-%m-%d %H:%MZ}"


def _why_kept(state: RunState) -> str:
    if state.delivery is not None and state.delivery.reason:
        return f"not delivered: {state.delivery.reason}"
    if state.verify is not None and state.verify.verdict in ("failed", "could_not_run"):
        return f"not delivered: verify {state.verify.verdict.replace('_', ' ')}"
    if not state.landed_something:
        return f"nothing landed ({state.stopping})"
    return f"kept on loop/{state.run_id}/integration"
