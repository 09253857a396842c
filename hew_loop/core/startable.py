"""Why a ready task may not be started now, or that it may: the one rule behind dispatch, summary and explain."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from hew_loop.core.state import FINAL, RunState, TaskRecord
from hew_loop.core.task import NEEDS_HUMAN, Task


def startable(state: RunState, now: datetime) -> Iterator[Task]:
    """Tasks that may be started now, in graph order."""
    return (t for t in state.backlog.ready(now) if why_not(state, t) is None)


def held_back(state: RunState, now: datetime) -> tuple[tuple[str, str], ...]:
    """(task, what it waits for) of every ready task in scope that this run has not taken and may not start."""
    rows = ((t.id, why_not(state, t)) for t in state.backlog.ready(now) if t.id not in state.records)
    return tuple((t, why) for t, why in rows if why is not None and why != OUT_OF_SCOPE)


OUT_OF_SCOPE = "not in scope"
MAX_REFUSALS = 3
"""A tracker that shows a task as free and yet refuses each claim does not keep the run going for ever."""


def why_not(state: RunState, task: Task) -> str | None:
    """Why a task of the ready set is not started; None when nothing is in its way.

    It starts only when the code of everything that it depends on is in its base (P2): what was worked on in this run
    must have landed, and what an earlier run landed elsewhere holds it back.
    """
    policy = state.policy
    record = state.records.get(task.id)
    if record is not None and (record.phase != "returned" or waits_to_land(state, record)):
        return f"{record.phase} in this run"
    if record is not None and (until := cools_until(state, record)) is not None:
        return f"failed, and cools down until {until:%Y-%m-%d %H:%MZ}"
    if not state.backlog.is_in_scope(task.id, policy.scope):
        return OUT_OF_SCOPE
    if task.type == "epic" or task.id in state.backlog.children:
        return _children_of(state, task)
    if NEEDS_HUMAN in task.labels:
        return f"label {NEEDS_HUMAN}: a person has to look at it"
    if task.assignee:
        return f"assigned to {task.assignee}"
    if state.view is not None and state.refused.get(task.id) == state.view.number:
        return "somebody else claimed it"
    if state.refusals.get(task.id, 0) >= MAX_REFUSALS:
        return f"its claim was refused {MAX_REFUSALS} times"
    held = dict(state.start.held)
    if task.id in held:
        return f"its work landed in {held[task.id]}, which is not in this base: loop deliver {held[task.id]}, or --base"
    for dependency in sorted(state.backlog.dependencies(task.id)):
        if reason := _not_in_base(state, dependency, held):
            return reason
    if record is None and task.id not in state.initial and new_left(state) <= 0:
        if policy.step:
            return "added after the plan was made: the next one takes it"
        return f"created during the run, and {state.new_started} such tasks were started already (loop.max_new)"
    return None


def cools_until(state: RunState, record: TaskRecord) -> datetime | None:
    """In steps, a task that failed loses its place for a while, so that it cannot poison the head of the queue."""
    if not state.policy.step or not record.used or not record.iterations:
        return None
    ended = state.iterations[record.iterations[-1]].ended_at or state.now
    until = ended + timedelta(seconds=state.policy.cooldown_s)
    return until if until > state.now else None


def is_cooling(state: RunState) -> bool:
    return any(r.phase == "returned" and cools_until(state, r) for r in state.records.values())


def _children_of(state: RunState, task: Task) -> str:
    children = state.backlog.children.get(task.id, ())
    if not children:
        return "an epic is not worked on itself"
    waiting = [c for c in children if not state.backlog.tasks[c].is_closed]
    if waiting:
        return f"has {len(waiting)} open children"
    how = {"bd": f"bd close {task.id}", "checklist": "tick it"}.get(state.start.tracker, f"loop task close {task.id}")
    return f"all its children are closed: {how}"


def _not_in_base(state: RunState, dependency: str, held: dict[str, str]) -> str | None:
    record = state.records.get(dependency)
    if record is not None:
        done = record.phase in ("landed", "done", "accepted", "unchanged")
        return None if done else f"depends on {dependency}, which has not landed ({record.phase})"
    if dependency in held:
        return f"depends on {dependency}, landed only in {held[dependency]}: loop deliver {held[dependency]}, or --base"
    if state.closed_meanwhile.get(dependency, frozenset()) & state.alive():
        return f"depends on {dependency}, closed while agents that may have done it have not landed"
    return None


def lacks(state: RunState, task_id: str) -> str | None:
    """Why a task of ours must not go on although it was startable once: a dependency was added meanwhile (P2)."""
    held = dict(state.start.held)
    if task_id not in state.backlog.tasks:
        return None
    for dependency in sorted(state.backlog.dependencies(task_id)):
        if reason := _not_in_base(state, dependency, held):
            return reason
        if dependency not in state.records and state.backlog.tasks[dependency].status not in ("closed", "pinned"):
            return f"depends on {dependency}, which is open"
    return None


def waits_to_land(state: RunState, record: TaskRecord) -> bool:
    return any(state.iterations[n].fate == "waiting" for n in record.iterations)


def new_left(state: RunState) -> int:
    """So many tasks that were created during the run may still be started."""
    limit = state.policy.max_new
    return (len(state.initial) if limit is None else limit) - state.new_started


def unfinished(state: RunState) -> bool:
    """Some task of this run has not come to its end."""
    return any(r.phase not in FINAL for r in state.records.values())
