"""Edges that bd skips when it imports a file: the embedded store does not follow them either."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace

from hew_loop.core.graph import HARD
from hew_loop.core.task import Edge, Task


def imported_edges(tasks: dict[str, Task], wisps: AbstractSet[str]) -> dict[str, Task]:
    """`tasks` in the order of the file with the edges that bd would keep; the same mapping when it would keep all.

    bd keeps no edge between a wisp (an issue of its own table: ephemeral, or without history) and another issue, and
    none that closes a ring. Of a ring, that edge closes it which comes last in the file, whatever the edges' times
    say. As in bd, only `blocks` and `conditional-blocks` make rings.
    """
    tasks = _without_crossing_edges(tasks, wisps)
    ringed = _left_over(tasks)
    kept: dict[str, list[str]] = {}
    dropped: dict[str, set[Edge]] = {}
    for task_id in tasks:
        if task_id in ringed:
            for edge in tasks[task_id].edges:
                if edge.kind not in HARD or edge.target not in ringed:
                    continue
                if _reaches(kept, edge.target, task_id):
                    dropped.setdefault(task_id, set()).add(edge)
                else:
                    kept.setdefault(task_id, []).append(edge.target)
    return _without(tasks, dropped)


def _without_crossing_edges(tasks: dict[str, Task], wisps: AbstractSet[str]) -> dict[str, Task]:
    if not wisps:
        return tasks
    crossing: dict[str, set[Edge]] = {}
    for task in tasks.values():
        for edge in task.edges:
            if edge.target in tasks and (task.id in wisps) != (edge.target in wisps):
                crossing.setdefault(task.id, set()).add(edge)
    return _without(tasks, crossing)


def _without(tasks: dict[str, Task], dropped: Mapping[str, set[Edge]]) -> dict[str, Task]:
    if not dropped:
        return tasks
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
