"""Which tasks the free slots take: those of the suggestion in force that may start, else the graph order.

Among equal priorities a slot prefers the first task that will probably change no file which something at work changes
too (`core.touch`). That only reorders, and it ends: of a task that is passed over, all others of its priority are
tried first at the worst, and no more than `MAX_PASSES` of them for each slot. A slot is never left free for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import islice
from typing import Final

from hew_loop.core import touch
from hew_loop.core.actions import Claim
from hew_loop.core.batch_plan import narrow
from hew_loop.core.graph import graph_order
from hew_loop.core.names import actor_name
from hew_loop.core.startable import lacks, new_left, startable
from hew_loop.core.state import RunState, TaskRecord
from hew_loop.core.task import Task

LOOKAHEAD: Final = 64
"""So many tasks are looked at for one slot."""
MAX_PASSES: Final = 16
"""A task that so many others for each slot were started before has its turn, whatever it meets."""
MAX_MEETS: Final = 5


def wanted(state: RunState, now: datetime, count: int) -> list[str]:
    """Startable tasks in the order in which they are taken; in steps, one that failed comes after all others."""
    if state.policy.step:
        failed = {t for t, r in state.records.items() if r.used}
        return sorted((t.id for t in startable(state, now)), key=failed.__contains__)[:count]
    if state.policy.avoid_conflicts:
        count += LOOKAHEAD
    return [t.id for t in islice(startable(state, now), None if state.suggestion else count)]


def claims(state: RunState, wanted: Sequence[str], free: Sequence[int]) -> list[Claim]:
    """A claim for each free slot, as long as there are tasks."""
    if not wanted:
        return []
    suggestion = state.suggestion
    claims: list[Claim] = []
    new = 0
    order = _Order(state)
    for slot in free:
        if not wanted:
            break
        picked = narrow(suggestion.ids if suggestion else (), wanted)
        task, passed, meets = order.first(picked.ids)
        suggested = suggestion is not None and picked.narrowed
        why = suggestion.source if suggestion is not None and suggested else "graph"
        batch = suggestion.number if suggestion is not None and suggested else None
        claims.append(Claim(task, slot, actor_name(state.run_id, slot), why, batch, passed, meets))
        new += task not in state.initial and task not in state.records
        full = new >= new_left(state)
        wanted = [t for t in wanted if t != task and not (full and t not in state.initial and t not in state.records)]
    return claims


def retries(state: RunState) -> list[TaskRecord]:
    """Tasks whose next attempt may start now.

    One that went back with a conflict waits while other work changes the same files: beside it, it would conflict again
    and be parked for it. It waits for what was started before its own attempt ended, so the wait has an end.
    """
    back = [r for r in state.in_phase("retry") if not lacks(state, r.task)]
    if not state.policy.avoid_conflicts or not any(_conflicted(state, r) for r in back):
        return back
    at_work = state.in_phase("running", "waiting")
    return [r for r in back if not (_conflicted(state, r) and any(_is_in_the_way(state, o, r) for o in at_work))]


def _is_in_the_way(state: RunState, other: TaskRecord, record: TaskRecord) -> bool:
    begun, ended = state.iterations[other.iterations[-1]].started_at, state.iterations[record.iterations[-1]].ended_at
    if ended is None or begun >= ended:
        return False
    task = state.backlog.tasks.get(other.task)
    theirs = (*touch.changed(state, other), *(task.mentions if task else ()))
    return bool(touch.meeting(touch.changed(state, record), theirs))


def _conflicted(state: RunState, record: TaskRecord) -> bool:
    return bool(record.iterations) and state.iterations[record.iterations[-1]].fate == "conflict"


class _Order:
    """Whose turn it is, slot after slot, given the files of what is at work."""

    def __init__(self, state: RunState) -> None:
        self._state = state
        self._is_on = state.policy.avoid_conflicts and not state.policy.step
        self._predict = touch.forecast(state)
        self._taken: set[str] = set[str]().union(*touch.touching(state).values()) if self._is_on else set()

    def first(self, ids: Sequence[str]) -> tuple[str, str, tuple[str, ...]]:
        """The task to start, and where that is not the first of `ids`: the first, and the files that it meets."""
        head = ids[0]
        if not self._is_on:
            return head, "", ()
        meets = self._meets(head)
        chosen = self._instead_of(head, ids[1:LOOKAHEAD]) if meets else None
        self._taken |= self._predict(chosen or head)
        return (chosen, head, meets[:MAX_MEETS]) if chosen is not None else (head, "", ())

    def _instead_of(self, head: str, others: Sequence[str]) -> str | None:
        tasks = self._state.backlog.tasks
        equal = (t for t in others if tasks[t].priority == tasks[head].priority)
        chosen = next((t for t in equal if not self._meets(t)), None)
        is_due = chosen is not None and _passes(self._state, tasks[head]) >= MAX_PASSES * self._state.policy.jobs
        return None if is_due else chosen

    def _meets(self, task_id: str) -> tuple[str, ...]:
        return touch.meeting(self._predict(task_id), self._taken)


def _passes(state: RunState, task: Task) -> int:
    """How many tasks behind `task` were started since it could have been: rather too many than too few.

    Counted in what has happened, so that it needs no place in the state: it could start when the last iteration of
    what it depends on had ended, or from the beginning.
    """
    tasks = state.backlog.tasks
    records = (state.records.get(t) for t in state.backlog.dependencies(task.id))
    ends = (state.iterations[r.iterations[-1]].ended_at for r in records if r is not None and r.iterations)
    since = max((end for end in ends if end is not None), default=state.started_at)
    return sum(
        i.started_at >= since and i.spec.attempt == 1 and _is_behind(tasks.get(i.spec.task), task)
        for i in state.iterations.values()
    )


def _is_behind(other: Task | None, task: Task) -> bool:
    return other is not None and other.priority == task.priority and graph_order(other) > graph_order(task)
