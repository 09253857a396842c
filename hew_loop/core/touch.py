"""Which files tasks change: what git says of those that were worked on, and a guess for those that wait."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Final

from hew_loop.core.state import RunState, TaskRecord

_AT_WORK: Final = frozenset({"claiming", "claimed", "running", "retry"})
"""What went back takes the next free slot before anything new: it is at work, too."""


def predicted(state: RunState, task_id: str) -> frozenset[str]:
    """What a task will probably change; empty where nothing tells. For many tasks of one state: `forecast`.

    The paths that its text names, and what finished iterations of this run changed: its own, those of its siblings
    (tasks with the same parent) and those of the tasks that it depends on.
    """
    return forecast(state)(task_id)


def forecast(state: RunState) -> Callable[[str], frozenset[str]]:
    """`predicted` for any task of `state`; what was changed so far is looked through once."""
    by_task: dict[str, set[str]] = {}
    for iteration in state.iterations.values():
        if iteration.result is not None and iteration.result.files:
            # Whether it landed or not: a task that is tried again changes the same files.
            by_task.setdefault(iteration.spec.task, set()).update(iteration.result.files)
    by_parent: dict[str, set[str]] = {}
    tasks = state.backlog.tasks
    for task_id, files in by_task.items():
        for parent in tasks[task_id].parents if task_id in tasks else ():
            by_parent.setdefault(parent, set()).update(files)

    def predict(task_id: str) -> frozenset[str]:
        own = by_task.get(task_id, ())
        task = tasks.get(task_id)
        if task is None or not by_task:
            return frozenset(own if task is None else task.mentions)
        siblings = (by_parent.get(parent, ()) for parent in task.parents)
        needed = (by_task.get(other, ()) for other in state.backlog.dependencies(task_id))
        return frozenset(task.mentions).union(own, *siblings, *needed)

    return predict


def touching(state: RunState) -> dict[str, frozenset[str]]:
    """Task -> files of everything whose work is not in the base of what is started now: it runs, or waits to land.

    What runs is predicted; of what waits its own changes are known besides.
    """
    predict = forecast(state)
    alive = {r.task for r in state.records.values() if r.phase in _AT_WORK}
    alive.update(i.spec.task for i in state.iterations.values() if i.fate == "waiting")
    return {task: predict(task) for task in sorted(alive)}


def changed(state: RunState, record: TaskRecord) -> tuple[str, ...]:
    """What a task's newest work changes: its last iteration, and those on whose work that one was built. Sorted."""
    files: set[str] = set()
    wanted: str | None = None
    for number in reversed(record.iterations):
        spec, result = state.iterations[number].spec, state.iterations[number].result
        if result is not None and (number == record.iterations[-1] or (wanted and result.head == wanted)):
            files.update(result.files)
            wanted = spec.carry
    return tuple(sorted(files))


def shared(state: RunState) -> dict[str, tuple[str, ...]]:
    """Path -> tasks, in the order of their first work on it, for each file that several tasks changed. Sorted."""
    by_path: dict[str, dict[str, None]] = {}
    for iteration in state.iterations.values():
        for path in iteration.result.files if iteration.result else ():
            by_path.setdefault(path, {})[iteration.spec.task] = None
    return {path: tuple(tasks) for path, tasks in sorted(by_path.items()) if len(tasks) > 1}


def meeting(ours: Collection[str], theirs: Collection[str]) -> tuple[str, ...]:
    """The paths that both change, sorted. A directory (it ends with a slash) meets whatever lies below it."""
    theirs = theirs if isinstance(theirs, set | frozenset) else frozenset(theirs)
    common = {path for path in ours if path in theirs or any(parent in theirs for parent in _parents(path))}
    directories = {path for path in ours if path.endswith("/")}
    if directories:
        common.update(path for path in theirs if any(parent in directories for parent in _parents(path)))
    return tuple(sorted(common))


def _parents(path: str) -> Iterator[str]:
    end = path.find("/")
    while 0 <= end < len(path) - 1:
        yield path[: end + 1]
        end = path.find("/", end + 1)
