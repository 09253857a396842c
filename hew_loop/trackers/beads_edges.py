"""Edges that close a ring: bd skips them at import, so the embedded store does not follow them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from hew_loop.core.graph import HARD
from hew_loop.core.task import Edge, Task
from hew_loop.trackers.beads_format import Issue, read_time

_BEGINNING = datetime(1, 1, 1, tzinfo=UTC)


def without_closing_edges(tasks: dict[str, Task], issue_of: Callable[[str], Issue]) -> dict[str, Task]:
    """`tasks` without each edge that closed a ring when it was added; the same mapping when there is no ring.

    Which one closed it is told by the edges' own times, then by their place in the file: sorting the file anew
    must not turn the answer round. As in bd, only `blocks` and `conditional-blocks` make rings.
    """
    ringed = _left_over(tasks)
    if not ringed:
        return tasks
    added: list[tuple[datetime, int, str, Edge]] = []
    for task_id in tasks:
        if task_id in ringed:
            times = _times(issue_of(task_id))
            for edge in tasks[task_id].edges:
                if edge.kind in HARD and edge.target in ringed:
                    added.append((times.get(edge.target, _BEGINNING), len(added), task_id, edge))
    kept: dict[str, list[str]] = {}
    dropped: dict[str, set[Edge]] = {}
    for _, _, task_id, edge in sorted(added, key=lambda entry: entry[:2]):
        if _reaches(kept, edge.target, task_id):
            dropped.setdefault(task_id, set()).add(edge)
        else:
            kept.setdefault(task_id, []).append(edge.target)
    changed = {
        task_id: replace(tasks[task_id], edges=tuple(e for e in tasks[task_id].edges if e not in edges))
        for task_id, edges in dropped.items()
    }
    return {**tasks, **changed}


def _left_over(tasks: Mapping[str, Task]) -> set[str]:
    """Tasks that stay when those that wait for nothing left are taken away again and again."""
    waiters: defaultdict[str, list[str]] = defaultdict(list)
    count: dict[str, int] = {}
    for task in tasks.values():
        targets = [edge.target for edge in task.edges if edge.kind in HARD and edge.target in tasks]
        if targets:
            count[task.id] = len(targets)
            for target in targets:
                waiters[target].append(task.id)
    free = [target for target in waiters if target not in count]
    while free:
        for waiter in waiters.get(free.pop(), ()):
            count[waiter] -= 1
            if not count[waiter]:
                free.append(waiter)
    return {task_id for task_id, n in count.items() if n}


def _reaches(kept: Mapping[str, list[str]], start: str, goal: str) -> bool:
    seen = {start}
    todo = [start]
    while todo:
        here = todo.pop()
        if here == goal:
            return True
        for step in kept.get(here, ()):
            if step not in seen:
                seen.add(step)
                todo.append(step)
    return False


def _times(issue: Issue) -> dict[str, datetime]:
    records: list[dict[str, Any]] = issue["dependencies"]
    return {r["depends_on_id"]: read_time(r.get("created_at")) or _BEGINNING for r in reversed(records)}
