"""Actions on the tracker: one at a time, beside the dispatcher."""

from __future__ import annotations

from collections.abc import Callable

from hew_loop.core import actions as ac
from hew_loop.core import events as ev
from hew_loop.core.names import bug_ref
from hew_loop.core.state import RunState
from hew_loop.core.task import NEEDS_HUMAN, Task
from hew_loop.engine.context import RunContext
from hew_loop.engine.worker import in_thread
from hew_loop.errors import TrackerError
from hew_loop.trackers.base import BugReport


async def read_tasks(context: RunContext, state: RunState, n: int) -> ev.Event:
    """The view as a difference to what the state knows."""
    began = context.clock()
    known = state.backlog.tasks

    def read() -> tuple[tuple[Task, ...], tuple[str, ...]]:
        tasks = context.tracker.read()
        changed = tuple(t for t in tasks if known.get(t.id) != t)
        there = {t.id for t in tasks}
        return changed, tuple(t for t in known if t not in there)

    try:
        async with context.tracker_lock:
            changed, removed = await in_thread(read)
    except TrackerError as error:
        return ev.ViewFailed(n, error.message)
    return ev.ViewRead(n, began, changed, removed)


async def claim(context: RunContext, n: int, action: ac.Claim) -> ev.Event:
    try:
        async with context.tracker_lock:
            why_not = await in_thread(context.tracker.claim, action.task, action.actor)
    except TrackerError as error:
        return ev.ClaimRefused(n, error.message, tracker_failed=True, unclear=not await _took_back(context, action))
    return ev.ClaimRefused(n, why_not) if why_not else ev.Claimed(n)


async def close(context: RunContext, n: int, action: ac.CloseTask) -> ev.Event:
    def end() -> None:
        # Who deleted the task meanwhile wants nothing written to it.
        if context.tracker.show(action.task) is not None:
            context.tracker.close(action.task, action.reason)

    return await _write(context, n, ev.TaskClosed(n), end)


async def release(context: RunContext, n: int, action: ac.ReleaseTask) -> ev.Event:
    def give_back() -> None:
        found = context.tracker.show(action.task)
        if found is None:
            return
        if found.task.is_closed:
            # Only its own agent can have closed it: a task is ours until it is closed after landing, or given back.
            context.tracker.reopen(action.task, action.note or "it was closed without having landed")
        else:
            context.tracker.release(action.task, action.actor, action.note)

    return await _write(context, n, ev.TaskReleased(n), give_back)


async def file_bug(context: RunContext, n: int, action: ac.FileBug) -> ev.Event:
    bug = BugReport(
        title=action.title,
        description=action.description,
        blocks=action.task,
        external_ref=bug_ref(context.run_id, action.task, action.attempt),
        labels=(NEEDS_HUMAN, action.kind),
    )
    try:
        async with context.tracker_lock:
            return ev.BugFiled(n, await in_thread(context.tracker.file_bug, bug))
    except TrackerError as error:
        return ev.TrackerWriteFailed(n, error.message)


async def remember(context: RunContext, n: int, action: ac.Remember) -> ev.Event:
    try:
        async with context.tracker_lock:
            await in_thread(context.tracker.remember, action.text)
    except TrackerError as error:
        return ev.Remembered(n, error.message)
    return ev.Remembered(n)


async def withdrawn(context: RunContext, state: RunState, tasks: tuple[str, ...]) -> dict[str, str]:
    """Of these finished tasks, the ones that a person took back meanwhile, and how; none that the tracker can tell of
    where it does not answer: what it is told next says so, and ends the run as a failure of the tracker."""

    def look() -> dict[str, str]:
        # One call for all of them: each one costs a program's start on some trackers.
        found = {task.id: task for task in context.tracker.read()}
        return {t: why for t in tasks if (why := _taken_back(found.get(t), state.records[t].actor))}

    try:
        async with context.tracker_lock:
            return await in_thread(look)
    except TrackerError:
        return {}


def _taken_back(task: Task | None, actor: str) -> str:
    if task is None:
        return "it was deleted"
    if task.is_closed:
        return ""
    if task.status == "deferred" or NEEDS_HUMAN in task.labels:
        return f"a person set it to {task.status}" if task.status == "deferred" else f"a person gave it {NEEDS_HUMAN}"
    if task.assignee and task.assignee != actor:
        return f"it was assigned to {task.assignee}"
    return ""


async def _write(context: RunContext, n: int, done: ev.Event, write: Callable[[], None]) -> ev.Event:
    try:
        async with context.tracker_lock:
            await in_thread(write)
    except TrackerError as error:
        return ev.TrackerWriteFailed(n, error.message)
    return done


async def _took_back(context: RunContext, action: ac.Claim) -> bool:
    """The claim failed in an unclear way: if it was made, take it back."""
    try:
        async with context.tracker_lock:
            await in_thread(context.tracker.release, action.task, action.actor, "")
    except TrackerError:
        return False
    return True
