"""One line per task: where it ended or is now, why, and the command that a person types next."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from hew_loop.core.graph import NOT_WORK, graph_order
from hew_loop.core.outcome import newest_work
from hew_loop.core.startable import held_back, lacks, startable
from hew_loop.core.state import Iteration, Phase, RunState, TaskRecord
from hew_loop.core.task import Task
from hew_loop.core.touch import changed
from hew_loop.reports.text import between, duration, plain, plural, utc, word

TaskState = Literal[
    "landed", "unchanged", "parked", "returned", "withdrawn", "starting", "running", "waiting", "retry", "never_started"
]
ORDER: tuple[TaskState, ...] = (
    "landed", "unchanged", "parked", "returned", "withdrawn", "waiting", "running", "starting", "retry", "never_started"
)  # fmt: skip

_STATE_OF: dict[Phase, TaskState] = {
    "claiming": "starting", "claimed": "starting", "running": "running", "waiting": "waiting", "retry": "retry",
    "landed": "landed", "done": "landed", "accepted": "unchanged", "unchanged": "unchanged",
    "parking": "parked", "parked": "parked", "returned": "returned", "withdrawn": "withdrawn",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TaskLine:
    """`next` are whole command lines, in the order in which a person types them."""

    task: str
    title: str
    state: TaskState
    why: str
    tested: bool | None = None
    """Of a landed task: a gate passed on it."""
    attempts: int = 0
    iterations: tuple[int, ...] = ()
    commit: str = ""
    branch: str = ""
    """Keeps its newest work, when that has not landed."""
    kind: str = ""
    bug: str = ""
    next: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    """What landed of it changes these."""


def task_lines(state: RunState, *, now: datetime, died: bool = False) -> tuple[TaskLine, ...]:
    """Every task that the run took, in the order of `ORDER`, then those in its scope that it never started."""
    at = state.now if state.ended or died else now
    taken = [_taken(state, record, at) for record in state.records.values()]
    return (*sorted(taken, key=lambda line: ORDER.index(line.state)), *_never_started(state, at, died))


def run_again(state: RunState, *tasks: str) -> str:
    """The command that starts a run (or, after a run of steps, the next one) of the same scope, or of these tasks."""
    scope = state.policy.scope
    ids = ",".join(scope.epics)
    where = f"--scope epics --epics {word(ids)}" if scope.kind == "epics" else "--scope ready"
    if state.start.tracker == "checklist":
        where += f" --checklist {word(state.start.store)}"
    only = "".join(f" --task {word(t)}" for t in tasks or scope.tasks)
    return f"loop {'step' if state.policy.step else 'run'} {where}{only}"


def task_state(record: TaskRecord) -> TaskState:
    if record.phase == "releasing":
        return record.then or "returned"
    return _STATE_OF[record.phase]


def _taken(state: RunState, record: TaskRecord, now: datetime) -> TaskLine:
    kind = task_state(record)
    work = None if kind in ("landed", "unchanged") else newest_work(state, record)
    return TaskLine(
        task=record.task,
        title=_title(state, record.task),
        state=kind,
        why=_why(state, record, kind, now),
        tested=_is_tested(state, record) if kind == "landed" else None,
        attempts=record.attempts,
        iterations=record.iterations,
        commit=record.landed,
        branch=work.spec.branch if work else "",
        kind=record.kind if kind == "parked" else "",
        bug=record.bug,
        next=tuple(_next(state, record, kind, work)),
        files=changed(state, record) if kind == "landed" else (),
    )


def _why(state: RunState, record: TaskRecord, kind: TaskState, now: datetime) -> str:
    last = state.iterations.get(record.iterations[-1]) if record.iterations else None
    match kind:
        case "landed":
            open_yet = "; not closed in the tracker" if state.ended and record.phase == "landed" else ""
            return f"as {record.landed[:12]}{open_yet}"
        case "unchanged":
            return record.summary or "no change was needed"
        case "parked":
            gone = " (the tracker took no bug)" if state.ended and not record.bug else ""
            return f"{record.kind}: {record.reason}{gone}"
        case "returned":
            said = f"; last: {record.reason}" if record.reason else ""
            return _returned(state, record) + said
        case "running" if last is not None:
            age = duration(between(last.started_at, now))
            return f"in slot {record.slot} for {age}, iter {last.spec.number}"
        case "waiting" if last is not None and last.ended_at is not None:
            return f"to land, for {duration(between(last.ended_at, now))}"
        case "starting":
            return f"in slot {record.slot}"
        case "retry":
            said = f": {record.reason}" if record.reason else ""
            return f"attempt {record.attempts + 1} comes next{said}"
        case _:
            return record.reason


def _returned(state: RunState, record: TaskRecord) -> str:
    if reason := lacks(state, record.task):
        return f"given back: {reason}"
    return f"the run stopped first ({state.stopping})" if state.stopping else "given back"


def _next(state: RunState, record: TaskRecord, kind: TaskState, work: Iteration | None) -> Iterator[str]:
    last = state.iterations.get(record.iterations[-1]) if record.iterations else None
    if kind == "landed" and state.ended and record.phase == "landed":
        yield _close(state, record.task)
    if kind in ("running", "retry") and last is not None:
        yield f"loop logs {state.run_id} --iter {last.spec.number}"
    if kind not in ("parked", "returned", "withdrawn"):
        return
    if work is not None:
        yield f"git log -p {work.spec.base[:12]}..{word(work.spec.branch)}"
    elif last is not None:
        yield f"loop logs {state.run_id} --iter {last.spec.number}"
    if last is not None and last.result is not None and last.result.salvage:
        yield f"git show {word(last.result.salvage)}"
    if record.bug:
        yield _close(state, record.bug)
    if kind != "withdrawn":
        yield run_again(state, record.task) if kind == "parked" else run_again(state)


def _close(state: RunState, task: str) -> str:
    if state.start.tracker == "checklist":  # no command: a person writes it
        return f"in {plain(state.start.store)}: {'[x]' if task in state.records else '[ ] in place of [!]'}"
    return f"{'bd close' if state.start.tracker == 'bd' else 'loop task close'} {word(task)}"


def _is_tested(state: RunState, record: TaskRecord) -> bool:
    return any(
        state.iterations[n].fate == "landed" and state.iterations[n].verdict == "passed" for n in record.iterations
    )


def _title(state: RunState, task_id: str) -> str:
    task = state.backlog.tasks.get(task_id)
    return task.title if task else ""


def _never_started(state: RunState, at: datetime, died: bool) -> Iterator[TaskLine]:
    """What the run left in its scope: first what it could have started, then what was in the way of the rest."""
    bugs = {record.bug for record in state.records.values()}
    if state.stopping or died:
        free, todo = f"the run {'stopped' if state.stopping else 'died'} first", (run_again(state),)
        free += f" ({state.stopping})" if state.stopping else ""
    else:
        free, todo = "ready; starts when a slot is free", ()
    for task in startable(state, at):
        if task.id not in state.records:
            yield TaskLine(task.id, task.title, "never_started", free, next=todo)
    tasks = state.backlog.tasks
    for task_id, why in held_back(state, at):
        if task_id not in bugs and not _has_open_children(state, task_id):
            yield TaskLine(task_id, tasks[task_id].title, "never_started", why)
    ready = {task.id for task in state.backlog.ready(at)}
    for task in sorted((t for t in tasks.values() if t.id not in ready), key=graph_order):
        if task.id not in bugs and _is_work(state, task):
            yield TaskLine(task.id, task.title, "never_started", _not_ready(state, task, at))


def _is_work(state: RunState, task: Task) -> bool:
    """Somebody's open work in the scope of this run that the run has not taken."""
    if task.id in state.records or task.status in ("closed", "pinned") or task.pinned or task.ephemeral:
        return False
    if task.type in NOT_WORK or task.type == "epic" or _has_open_children(state, task.id):
        return False
    return state.backlog.is_in_scope(task.id, state.policy.scope)


def _has_open_children(state: RunState, task_id: str) -> bool:
    tasks = state.backlog.tasks
    return any(not tasks[c].is_closed for c in state.backlog.children.get(task_id, ()))


def _not_ready(state: RunState, task: Task, at: datetime) -> str:
    if task.status != "open":
        return f"{task.status}, assigned to {task.assignee}" if task.assignee else f"status {task.status}"
    tasks = state.backlog.tasks
    waits = [d for d in sorted(state.backlog.dependencies(task.id)) if d in tasks and not tasks[d].is_closed]
    if waits:
        more = f" and {plural(len(waits) - 3, 'other')}" if len(waits) > 3 else ""
        return f"waits for {', '.join(_with_state(state, d) for d in waits[:3])}{more}"
    if task.defer_until is not None and task.defer_until > at:
        return f"deferred until {utc(task.defer_until)}"
    return "not ready in the tracker"


def _with_state(state: RunState, task_id: str) -> str:
    record = state.records.get(task_id)
    return f"{plain(task_id)} ({task_state(record)})" if record else plain(task_id)
