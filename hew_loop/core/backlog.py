"""The tracker's newest view with the indexes that scheduling asks for, each computed once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import cached_property

from hew_loop.core import graph
from hew_loop.core.policy import Scope
from hew_loop.core.task import Task


class Backlog:
    """An immutable map of tasks. Changing it gives a new one; indexes that a change cannot touch are carried over."""

    def __init__(self, tasks: Mapping[str, Task] | None = None) -> None:
        self.tasks: Mapping[str, Task] = {} if tasks is None else tasks
        self._ready: tuple[datetime, datetime | None, tuple[Task, ...]] | None = None
        self._scope: tuple[Scope, frozenset[str]] | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Backlog) and self.tasks == other.tasks

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Backlog({len(self.tasks)} tasks)"

    def changed(self, put: Iterable[Task] = (), removed: Iterable[str] = ()) -> Backlog:
        tasks = dict(self.tasks)
        for task in put:
            tasks[task.id] = task
        for task_id in removed:
            tasks.pop(task_id, None)
        return Backlog(tasks)

    def taken(self, task: Task) -> Backlog:
        """`task` went from open to in progress: it alone leaves the ready set, nothing else changes."""
        new = self.changed((task,))
        new.__dict__.update({k: self.__dict__[k] for k in ("children", "_dependencies") if k in self.__dict__})
        new._scope = self._scope
        if self._ready is not None:
            as_of, until, ready = self._ready
            new._ready = (as_of, until, tuple(t for t in ready if t.id != task.id))
        return new

    @cached_property
    def children(self) -> dict[str, tuple[str, ...]]:
        return graph.children(self.tasks)

    def ready(self, now: datetime) -> tuple[Task, ...]:
        """The ready set in graph order: priority, age, id."""
        if self._ready is not None:
            as_of, until, ready = self._ready
            if as_of <= now and (until is None or now < until):
                return ready
        ready = graph.ready(self.tasks, now)
        deferred = [t.defer_until for t in self.tasks.values() if t.defer_until is not None and t.defer_until > now]
        self._ready = (now, min(deferred, default=None), ready)
        return ready

    def dependencies(self, task_id: str) -> frozenset[str]:
        if task_id not in self._dependencies:
            self._dependencies[task_id] = graph.dependencies(self.tasks, task_id)
        return self._dependencies[task_id]

    @cached_property
    def _dependencies(self) -> dict[str, frozenset[str]]:
        return {}

    def is_in_scope(self, task_id: str, scope: Scope) -> bool:
        if scope.tasks and task_id not in scope.tasks:
            return False
        if scope.kind == "ready":
            return True
        if self._scope is None or self._scope[0] != scope:
            self._scope = (scope, graph.descendants(self.tasks, scope.epics))
        return task_id in self._scope[1]
