"""`memory`: what `loop` holds in memory over many iterations."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.ground import Ground, ground, task
from benchmarks.measure import Measurement

LIMIT_MIB = 120.0
FLAT = 1.10
"""The end against the value after warm-up: the journal's own state (a record per iteration) may grow, nothing else."""
SAMPLE_S = 0.1


def measure(*, quick: bool) -> Iterator[Measurement]:
    """Resident memory of the one process, sampled while it works; warm after a fifth of the iterations."""
    count = 20 if quick else 500
    with ground() as place:
        place.plan([task(number) for number in range(count)])
        watch = Watch(place)
        spent = place.run("--jobs", "4", "--no-gate", meanwhile=watch)
    warm = next(mib for done, mib in watch.samples if done >= count // 5)
    end = watch.samples[-1][1]
    top = max(mib for _, mib in watch.samples)
    note = f"{spent.wall_s / count * 1000:.0f} ms, {spent.cpu_s / count * 1000:.0f} ms CPU an iteration"
    yield Measurement("memory, most", _mib(top), _mib(LIMIT_MIB), top / LIMIT_MIB, 1.0, note)
    yield Measurement("memory, end against warm", _mib(end), _mib(warm), end / warm, FLAT)


@dataclass
class Watch:
    """Called with the process id: takes one sample of (iterations started, MiB) and waits a little."""

    place: Ground
    samples: list[tuple[int, float]] = field(default_factory=list[tuple[int, float]])

    def __call__(self, pid: int) -> None:
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            return
        kib = next((line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")), None)
        if kib is not None:
            done = sum(1 for _ in self.place.path.glob(".hew/loop/loop-*/iter-*.json"))
            self.samples.append((done, int(kib) / 1024))
        time.sleep(SAMPLE_S)


def _mib(value: float) -> str:
    return f"{value:.1f} MiB"
