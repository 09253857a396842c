"""`bd ready` with bd 1.0.5's own options and order, on the ready rule that the dispatcher uses too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from hew_loop.core.graph import descendants, ready
from hew_loop.core.task import PARENT_CHILD, Task

Sort = Literal["priority", "hybrid", "oldest"]
_RECENT = timedelta(hours=48)
_ALIASES = {
    "mr": "merge-request", "feat": "feature", "mol": "molecule", "enhancement": "feature", "dec": "decision",
    "adr": "decision",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ReadyQuery:
    """The options of `bd ready`; all that are given must hold."""

    limit: int = 0
    """0 means all."""
    sort: Sort = "priority"
    type: str = ""
    """Exactly this type, the ones that are otherwise no work included; `exclude_types` has no say then."""
    exclude_types: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    any_labels: tuple[str, ...] = ()
    exclude_labels: tuple[str, ...] = ()
    assignee: str = ""
    unassigned: bool = False
    """Wins over `assignee`."""
    priority: int | None = None
    parent: str = ""
    """Below this one at any depth, and ids `PARENT.…` that have no parent edge."""
    include_deferred: bool = False
    include_ephemeral: bool = False


def ready_tasks(tasks: Mapping[str, Task], query: ReadyQuery, now: datetime) -> tuple[Task, ...]:
    """What `bd ready` answers, in its order."""
    kind = full_type(query.type)
    found = ready(
        tasks,
        now,
        kind=kind,
        include_deferred=query.include_deferred,
        include_ephemeral=query.include_ephemeral,
    )
    if kind:
        unwanted: frozenset[str] = frozenset()
    else:
        unwanted = frozenset(full_type(t) for t in query.exclude_types)
    below = _below(tasks, query.parent) if query.parent else None
    kept = [
        task
        for task in found
        if task.type not in unwanted and _matches(task, query) and (below is None or task.id in below)
    ]
    kept.sort(key=_order(query.sort, now))
    return tuple(kept[: query.limit] if query.limit else kept)


def listing_order(task: Task) -> tuple[Any, ...]:
    """The order of `bd list`: priority, newest first, id."""
    return (task.priority, -_stored(task).timestamp(), task.id)


def full_type(name: str) -> str:
    """bd's short names of types written out."""
    return _ALIASES.get(name.lower(), name)


def _matches(task: Task, query: ReadyQuery) -> bool:
    labels = task.labels
    return (
        (not query.unassigned or not task.assignee)
        and (query.unassigned or not query.assignee or task.assignee == query.assignee)
        and (query.priority is None or task.priority == query.priority)
        and all(label in labels for label in query.labels)
        and (not query.any_labels or any(label in labels for label in query.any_labels))
        and not any(label in labels for label in query.exclude_labels)
    )


def _below(tasks: Mapping[str, Task], parent: str) -> frozenset[str]:
    head = parent + "."
    dotted = {
        task.id
        for task in tasks.values()
        if task.id.startswith(head) and not any(edge.kind == PARENT_CHILD for edge in task.edges)
    }
    return descendants(tasks, [parent]) | dotted


def _order(sort: Sort, now: datetime) -> Callable[[Task], tuple[Any, ...]]:
    match sort:
        case "priority":
            return listing_order
        case "oldest":
            return lambda task: (_stored(task), task.id)
        case "hybrid":
            since = now - _RECENT

            def recent_first(task: Task) -> tuple[Any, ...]:
                created = _stored(task)
                is_recent = created >= since
                return (not is_recent, task.priority if is_recent else 0, created, task.id)

            return recent_first


def _stored(task: Task) -> datetime:
    """The creation time as bd keeps it: whole seconds, half up, so that times within one second tie."""
    created = task.created_at
    if not created.microsecond:
        return created
    return created.replace(microsecond=0) + timedelta(seconds=created.microsecond >= 500_000)
