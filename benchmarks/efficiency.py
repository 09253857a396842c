"""`efficiency`: how near a run comes to the time that its agents need anyway; nothing waits for a wave to end."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence

from benchmarks.ground import ground, task
from benchmarks.measure import Measurement, shown

GOAL = 1.15


def measure(*, quick: bool) -> Iterator[Measurement]:
    """Start and delivery count."""
    yield _one("efficiency, even", [1] * 8 if quick else [2] * 64, jobs=4 if quick else 16)
    yield _one("efficiency, 1,1,1,4", [1, 1, 1, 4] * (1 if quick else 8), jobs=4)


def _one(name: str, seconds: Sequence[int], *, jobs: int) -> Measurement:
    ideal_s = ideal(seconds, jobs)
    with ground() as place:
        place.plan([task(number, seconds=s) for number, s in enumerate(seconds)])
        spent = place.run("--jobs", str(jobs), "--no-gate")
    waves = sum(max(seconds[i : i + jobs]) for i in range(0, len(seconds), jobs))
    note = (
        f"in waves it would take {waves} s; CPU {spent.cpu_s:.2f} s, {spent.cpu_s / len(seconds) * 1000:.0f} ms a task"
    )
    return Measurement(name, shown(spent.wall_s), shown(ideal_s), spent.wall_s / ideal_s, GOAL, note)


def ideal(seconds: Sequence[int], jobs: int) -> float:
    """The makespan when each slot takes the next task in order the moment it is free, and nothing else takes time."""
    slots = [0.0] * jobs
    for duration in seconds:
        heapq.heapreplace(slots, slots[0] + duration)
    return max(slots)
