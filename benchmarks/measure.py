"""One number against its goal, and how a benchmark gets at it: medians of interleaved pairs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from benchmarks.ground import Spent


@dataclass(frozen=True, slots=True)
class Measurement:
    """`floor` is what `measured` is held against, `goal` how large their ratio may be."""

    name: str
    measured: str
    floor: str
    ratio: float
    goal: float
    note: str = ""

    @property
    def is_ok(self) -> bool:
        return self.ratio <= self.goal

    def line(self) -> str:
        verdict = "ok" if self.is_ok else "OVER"
        note = f"   ({self.note})" if self.note else ""
        return (
            f"{self.name:<26} {self.measured:>10}   floor {self.floor:>10}   "
            f"ratio {self.ratio:5.2f}   goal {self.goal:4.2f}   {verdict:<4}{note}"
        )


def within(name: str, spent: Spent, limit_s: float) -> Measurement:
    """A duration against its limit."""
    note = f"CPU {shown(spent.cpu_s)}"
    return Measurement(name, shown(spent.wall_s), shown(limit_s), spent.wall_s / limit_s, 1.0, note)


@dataclass(frozen=True, slots=True)
class Pairs:
    """Two programs, run A B A B: the ratio of each pair, and the medians."""

    ours: tuple[Spent, ...]
    theirs: tuple[Spent, ...]

    @property
    def wall_ratio(self) -> float:
        return median(a.wall_s / b.wall_s for a, b in zip(self.ours, self.theirs, strict=True))

    @property
    def cpu_ratio(self) -> float:
        return median(a.cpu_s / b.cpu_s for a, b in zip(self.ours, self.theirs, strict=True))

    def compare(self, name: str, goal: float) -> Measurement:
        ours, theirs = (median(s.wall_s for s in side) for side in (self.ours, self.theirs))
        cpu = [median(s.cpu_s for s in side) for side in (self.ours, self.theirs)]
        note = f"CPU {cpu[0]:.2f} s against {cpu[1]:.2f} s: {self.cpu_ratio:.2f}"
        return Measurement(name, shown(ours), shown(theirs), self.wall_ratio, goal, note)


def interleaved(ours: Callable[[], Spent], theirs: Callable[[], Spent], *, rounds: int) -> Pairs:
    """Alternate, so that what else the machine does falls on both."""
    pairs = [(ours(), theirs()) for _ in range(rounds)]
    return Pairs(tuple(a for a, _ in pairs), tuple(b for _, b in pairs))


def shown(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.2f} s"
