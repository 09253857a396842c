"""Which tasks wait for which: the ready rule of bd 1.0.5 (reference/beads.md §2.1), and what hangs on what."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Final

from hew_loop.core.task import PARENT_CHILD, Edge, Task

WAITS_FOR: Final = "waits-for"
HARD: Final = frozenset({"blocks", "conditional-blocks"})
"""Edges that block by their target's status. bd 1.0.5 lifts the conditional kind by any close, like the other."""
BLOCKING: Final = HARD | {WAITS_FOR}
ANY_CHILD: Final = "any-children"
NOT_WORK: Final = frozenset({"merge-request", "gate", "molecule", "message", "agent", "role", "rig"})
"""Types that are never ready unless asked for by name."""
_SETTLED: Final = frozenset({"closed", "pinned"})


def blocked_ids(tasks: Mapping[str, Task]) -> frozenset[str]:
    """Every task that must not start yet: by an edge of its own, or because an ancestor is blocked.

    Settled tasks (closed, or with status pinned) are never blocked and block nobody. A target that is not in
    `tasks` (deleted, or `external:`) blocks nobody.
    """
    settled = {task.id for task in tasks.values() if task.status in _SETTLED}
    blocked: set[str] = set()
    below: dict[str, list[str]] = {}
    gates: list[tuple[str, Edge]] = []
    for task in tasks.values():
        for edge in task.edges:
            kind = edge.kind
            if kind in HARD:
                if edge.target in tasks and edge.target not in settled:
                    blocked.add(task.id)
            elif kind == PARENT_CHILD:
                below.setdefault(edge.target, []).append(task.id)
            elif kind == WAITS_FOR and edge.target in tasks:
                gates.append((task.id, edge))
    blocked.update(waiter for waiter, edge in gates if _gate_is_shut(edge, below.get(edge.target, ()), tasks))
    blocked -= settled
    spread = list(blocked)
    while spread:
        for child in below.get(spread.pop(), ()):
            if child not in blocked and child not in settled:
                blocked.add(child)
                spread.append(child)
    return frozenset(blocked)


def ready(
    tasks: Mapping[str, Task],
    now: datetime,
    *,
    kind: str = "",
    include_deferred: bool = False,
    include_ephemeral: bool = False,
) -> tuple[Task, ...]:
    """What may start now, in graph order: priority, oldest first, id. `kind` asks for exactly that type."""
    blocked = blocked_ids(tasks)
    asleep: frozenset[str] | set[str] = frozenset()
    if not include_deferred:
        asleep = {t.id for t in tasks.values() if t.defer_until is not None and t.defer_until > now}
    found = [
        task
        for task in tasks.values()
        if task.status == "open"
        and task.id not in blocked
        and not task.pinned
        and (include_ephemeral or not task.ephemeral)
        and (task.type == kind if kind else task.type not in NOT_WORK)
        # Only the direct parent's date counts; a grandparent's does not (vectors 25 and 26).
        and (not asleep or (task.id not in asleep and asleep.isdisjoint(task.parents)))
    ]
    return tuple(sorted(found, key=graph_order))


def graph_order(task: Task) -> tuple[int, datetime, str]:
    return (task.priority, task.created_at, task.id)


def dependencies(tasks: Mapping[str, Task], task_id: str) -> frozenset[str]:
    """Tasks whose code has to be there before `task_id` starts: what it and its open ancestors wait for directly.

    Of a gate that one child lifts (`any-children`) only the closed children count: the others may never come.
    """
    holders = [tasks[task_id], *(a for a in _ancestors(tasks, task_id) if a.status not in _SETTLED)]
    wanted = {e.target for holder in holders for e in holder.edges if e.kind in HARD and e.target in tasks}
    gates = [e for holder in holders for e in holder.edges if e.kind == WAITS_FOR]
    if gates:
        below = children(tasks)
        for gate in gates:
            for child in below.get(gate.target, ()):
                if gate.gate != ANY_CHILD or tasks[child].is_closed:
                    wanted.add(child)
    return frozenset(wanted - {task_id})


def children(tasks: Mapping[str, Task]) -> dict[str, tuple[str, ...]]:
    """Direct children by edge, in the order of `tasks`; a dotted id alone makes no child, nor is a task its own."""
    below: dict[str, list[str]] = {}
    for task in tasks.values():
        for edge in task.edges:
            if edge.kind == PARENT_CHILD and edge.target != task.id:
                below.setdefault(edge.target, []).append(task.id)
    return {parent: tuple(ids) for parent, ids in below.items()}


def descendants(tasks: Mapping[str, Task], roots: Iterable[str]) -> frozenset[str]:
    """Everything below `roots` at any depth, without the roots themselves; ends on cycles too."""
    below = children(tasks)
    start = frozenset(roots)
    seen = set(start)
    todo = list(start)
    while todo:
        for child in below.get(todo.pop(), ()):
            if child not in seen:
                seen.add(child)
                todo.append(child)
    return frozenset(seen - start)


def waiting_path(tasks: Mapping[str, Task], start: str, goal: str) -> tuple[str, ...]:
    """The shortest chain by which `start` waits for `goal`, both ends named; empty when it does not.

    A child waits for whatever its parent waits for, so parents are steps of the chain.
    """
    return _path(tasks, start, goal, children(tasks))


def cycles(tasks: Mapping[str, Task]) -> tuple[tuple[str, ...], ...]:
    """Rings of tasks that wait for one another, none of which can ever start; each task is named in one at most."""
    below = {parent: tuple(sorted(ids)) for parent, ids in children(tasks).items()}
    waits = {task.id: set(_steps(tasks, task.id, below)) for task in tasks.values()}
    found: list[tuple[str, ...]] = []
    named: set[str] = set()
    for start in sorted(_rings(waits)):
        ring = () if start in named else _path(tasks, start, start, below)
        if ring and named.isdisjoint(ring) and _blocks_itself(tasks, ring, below):
            first = ring.index(min(ring))  # not `start`, where the ring of a smaller member was one of parents alone
            found.append((*ring[first:-1], *ring[:first]))
            named.update(ring)
    return tuple(found)


def ancestors(tasks: Mapping[str, Task], task_id: str) -> frozenset[str]:
    """Parents, their parents and so on; ends on cycles too."""
    seen: set[str] = set()
    todo = [task_id]
    while todo:
        task = tasks.get(todo.pop())
        for parent in task.parents if task else ():
            if parent not in seen:
                seen.add(parent)
                todo.append(parent)
    return frozenset(seen)


def _gate_is_shut(edge: Edge, below: Iterable[str], tasks: Mapping[str, Task]) -> bool:
    statuses = [tasks[child].status for child in below]
    if edge.gate == ANY_CHILD and "closed" in statuses:
        return False
    return any(status not in _SETTLED for status in statuses)


def _ancestors(tasks: Mapping[str, Task], task_id: str) -> Iterator[Task]:
    """Those that pass blocking down to `task_id`: the chain ends at a settled parent."""
    seen = {task_id}
    todo = [task_id]
    while todo:
        for parent in tasks[todo.pop()].parents:
            above = tasks.get(parent)
            if above is not None and parent not in seen and above.status not in _SETTLED:
                seen.add(parent)
                todo.append(parent)
                yield above


def _steps(tasks: Mapping[str, Task], task_id: str, below: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
    """What `task_id` waits for in one step."""
    task = tasks.get(task_id)
    for edge in task.edges if task else ():
        if edge.kind == WAITS_FOR:
            yield from below.get(edge.target, ())
        elif edge.target in tasks and (edge.kind in HARD or (edge.kind == PARENT_CHILD and edge.target != task_id)):
            yield edge.target


def _path(tasks: Mapping[str, Task], start: str, goal: str, below: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    came_from: dict[str, str] = {}
    todo = [start]
    for here in todo:
        for step in _steps(tasks, here, below):
            if step == goal:
                chain = [goal, here]
                while chain[-1] != start:
                    chain.append(came_from[chain[-1]])
                return tuple(reversed(chain))
            if step not in came_from:
                came_from[step] = here
                todo.append(step)
    return ()


def _rings(waits: Mapping[str, set[str]]) -> set[str]:
    """Tasks on a ring, or on a way from one ring to another: what stays when loose ends are cut off from both sides."""
    waiters: dict[str, set[str]] = {}
    for task_id, targets in waits.items():
        for target in targets:
            waiters.setdefault(target, set()).add(task_id)
    left = _without_ends(waits, waiters)
    return left & _without_ends(waiters, waits)


def _without_ends(ahead: Mapping[str, set[str]], behind: Mapping[str, set[str]]) -> set[str]:
    """Members of `ahead` from which one can walk on for ever."""
    count = {here: len(steps) for here, steps in ahead.items()}
    ends = [*(here for here, n in count.items() if n == 0), *(here for here in behind if here not in count)]
    while ends:
        for here in behind.get(ends.pop(), ()):
            count[here] -= 1
            if count[here] == 0:
                ends.append(here)
    return {here for here, n in count.items() if n > 0}


def _blocks_itself(tasks: Mapping[str, Task], ring: tuple[str, ...], below: Mapping[str, tuple[str, ...]]) -> bool:
    """A ring of parents alone blocks nobody."""
    for here, step in itertools.pairwise(ring):
        for edge in tasks[here].edges:
            if (edge.kind in HARD and edge.target == step) or (
                edge.kind == WAITS_FOR and step in below.get(edge.target, ())
            ):
                return True
    return False
