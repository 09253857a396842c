"""One task's story as a plain value: where it is now and why, what it hangs on, what was tried, what it changes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Literal

from hew_loop.core import touch
from hew_loop.core.actions import Claim, Why
from hew_loop.core.events import Intended, Stamped
from hew_loop.core.graph import BLOCKING, graph_order
from hew_loop.core.names import integration_branch
from hew_loop.core.startable import startable, why_not
from hew_loop.core.state import Iteration, RunState
from hew_loop.core.task import Task
from hew_loop.core.verdict import Verdict
from hew_loop.reports.outcomes import outcome_of
from hew_loop.reports.task_lines import TaskState, run_again, task_lines, task_state
from hew_loop.reports.text import between

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Other:
    """Another task, with its state in the run, else in the tracker."""

    task: str
    title: str
    state: str


@dataclass(frozen=True, slots=True)
class Meeting:
    task: str
    files: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pass:
    """`taken` was started although it was the turn of `passed`, because of `files`."""

    taken: str
    passed: str
    files: tuple[str, ...]
    at: datetime


@dataclass(frozen=True, slots=True)
class Told:
    """One iteration. `after`: the iteration that led to it, by its suggestion or because it went back; 0: none."""

    number: int
    attempt: int
    why: Why
    batch: int | None
    after: int
    slot: int
    runtime: str
    model: str | None
    started_at: datetime
    duration_s: float | None
    outcome: str
    reason: str
    files: tuple[str, ...]
    gate: Verdict | None
    commit: str
    branch: str


@dataclass(frozen=True, slots=True)
class Story:
    """Texts are as others wrote them; whoever prints one makes it harmless. `next` are whole command lines."""

    task: str
    title: str
    type: str
    priority: int | None
    run_id: str
    """Empty: told from the tracker alone."""
    state: TaskState | Literal["closed", "gone"]
    why: str
    attempts: int
    bug: str
    commit: str
    delivered: bool | None
    """Of a landed task: it is on the branch that the run started on."""
    next: tuple[str, ...]
    depends_on: tuple[Other, ...]
    needed_by: tuple[Other, ...]
    predicted: tuple[str, ...]
    meets: tuple[Meeting, ...]
    """What runs now or waits to land, and probably changes the same files."""
    passed: tuple[Pass, ...]
    iterations: tuple[Told, ...]


def tell(
    state: RunState, task_id: str, *, events: Iterable[Stamped] = (), now: datetime, died: bool = False
) -> Story | None:
    """The story of a task in a run; None when neither the run nor its tracker has heard of it.

    `events` are those of the run; without any, `state` only shows what the tracker holds, and no run is named.
    """
    stamped = tuple(events)
    task = state.backlog.tasks.get(task_id)
    record = state.records.get(task_id)
    if task is None and record is None:
        return None
    line = next((line for line in task_lines(state, now=now, died=died) if line.task == task_id), None)
    kind, why = (line.state, line.why) if line else _untaken(state, task, now)
    todo = line.next if line else ()
    if not stamped and task is not None and any(t.id == task_id for t in startable(state, now)):
        why, todo = "it is ready: the next run starts it", (run_again(state, task_id),)
    delivered = _is_delivered(state) if kind == "landed" else None
    predicted = touch.predicted(state, task_id)
    return Story(
        task=task_id,
        title=task.title if task else "",
        type=task.type if task else "",
        priority=task.priority if task else None,
        run_id=state.run_id if stamped else "",
        state=kind,
        why=why,
        attempts=record.attempts if record else 0,
        bug=record.bug if record else "",
        commit=record.landed if record else "",
        delivered=delivered,
        next=(*todo, *_deliver(state, delivered)),
        depends_on=tuple(_others(state, state.backlog.dependencies(task_id) if task else ())),
        needed_by=tuple(_others(state, _waiting_for(state, task_id))),
        predicted=tuple(sorted(predicted)),
        meets=tuple(
            Meeting(other, common)
            for other, files in touch.touching(state).items()
            if other != task_id and (common := touch.meeting(predicted, files))
        ),
        passed=tuple(p for p in _passes(stamped) if task_id in (p.taken, p.passed)),
        iterations=tuple(_told(state, state.iterations[n]) for n in (record.iterations if record else ())),
    )


def to_json(story: Story) -> str:
    """One object, ASCII only, with a line end; field names are those of `Story`."""
    return json.dumps({"schema_version": SCHEMA_VERSION, **asdict(story)}, indent=2, default=_iso) + "\n"


def _untaken(state: RunState, task: Task | None, now: datetime) -> tuple[TaskState | Literal["closed", "gone"], str]:
    """Of a task that the run has no line for: it is closed, no work, or not in its scope."""
    if task is None:
        return "gone", "it is no longer in the tracker"
    if task.is_closed:
        return "closed", "it was closed by somebody else"
    if task.status != "open":
        return "never_started", f"status {task.status}"
    return "never_started", why_not(state, task) or "it is not ready in the tracker"


def _is_delivered(state: RunState) -> bool:
    return state.delivery is not None and state.delivery.state == "merged"


def _deliver(state: RunState, delivered: bool | None) -> Iterator[str]:
    if delivered is False and state.ended:
        yield f"git log {integration_branch(state.run_id)}"
        yield f"loop deliver {state.run_id}"


def _others(state: RunState, ids: Iterable[str]) -> Iterator[Other]:
    tasks = state.backlog.tasks
    for task in sorted((tasks[t] for t in ids if t in tasks), key=graph_order):
        record = state.records.get(task.id)
        yield Other(task.id, task.title, task_state(record) if record else task.status)


def _waiting_for(state: RunState, task_id: str) -> Iterator[str]:
    """Tasks whose own edges wait for this one."""
    for task in state.backlog.tasks.values():
        if any(edge.target == task_id and edge.kind in BLOCKING for edge in task.edges):
            yield task.id


def _passes(events: Iterable[Stamped]) -> Iterator[Pass]:
    for stamped in events:
        action = stamped.event.action if isinstance(stamped.event, Intended) else None
        if isinstance(action, Claim) and action.passed:
            yield Pass(action.task, action.passed, action.meets, stamped.at)


def _told(state: RunState, iteration: Iteration) -> Told:
    spec, result = iteration.spec, iteration.result
    return Told(
        number=spec.number,
        attempt=spec.attempt,
        why=iteration.why,
        batch=iteration.batch,
        after=_after(state, iteration),
        slot=spec.slot,
        runtime=spec.runtime,
        model=(result.model if result else None) or spec.model,
        started_at=iteration.started_at,
        duration_s=between(iteration.started_at, iteration.ended_at) if iteration.ended_at else None,
        outcome=outcome_of(iteration, state).label,
        reason=iteration.note or (result.message if result else ""),
        files=result.files if result else (),
        gate=iteration.verdict,
        commit=iteration.landed,
        branch=spec.branch,
    )


def _after(state: RunState, iteration: Iteration) -> int:
    if iteration.why == "retry":
        earlier = [n for n in state.records[iteration.spec.task].iterations if n < iteration.spec.number]
        return max(earlier, default=0)
    return next((b.after for b in state.batches if b.number == iteration.batch), 0)


def _iso(value: object) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    raise TypeError(f"{type(value).__name__} has no place in a story")
