"""`gate`: what a gate costs a run when everything that waits is gated together."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.ground import Spent, ground, task
from benchmarks.measure import Measurement, interleaved

GOAL = 1.2


def measure(*, quick: bool) -> Iterator[Measurement]:
    """A gate half as long as a task, eight slots: with one gate run for each task it would take four times as long."""
    count, seconds, jobs, rounds = (4, 1, 4, 1) if quick else (64, 4, 8, 1)

    def run(*gate: str) -> Spent:
        with ground() as place:
            place.plan([task(number, seconds=seconds) for number in range(count)])
            return place.run("--jobs", str(jobs), *gate)

    yield interleaved(lambda: run("--gate", "sleep 2"), lambda: run("--no-gate"), rounds=rounds).compare("gate", GOAL)
