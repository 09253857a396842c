"""`backlog`: one tick over ten thousand tasks with twenty thousand edges, `loop task ready`, and `loop --help`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta

from benchmarks.ground import LOOP, Spent, ground, task
from benchmarks.measure import Measurement, within
from hew_loop.core import actions as ac
from hew_loop.core import events as ev
from hew_loop.core.dispatcher import decide
from hew_loop.core.iteration import IterationResult
from hew_loop.core.policy import PlannerSettings, Policy
from hew_loop.core.task import Task
from hew_loop.core.transitions import apply, begin
from hew_loop.engine.loop import EVENTS
from hew_loop.trackers.beads_store import BeadsStore

TICK_S = 0.050
LINE_S = 0.100
"""Once a run: what the first view costs as a line of the journal. No promise of the product; ours to notice growth."""
READY_S = 0.600
HELP_S = 0.150
TICKS = 200
VIEW_LINE = "first view as a line"
POLICY = Policy(jobs=8, planner=PlannerSettings(enabled=False))
BEGAN = datetime(2026, 2, 1, tzinfo=UTC)


def measure(*, quick: bool) -> Iterator[Measurement]:
    """Each task but the first two waits for two earlier ones, half of them are closed; fifty share each file."""
    count, rounds = (200, 1) if quick else (10_000, 7)
    with ground() as place:
        place.plan([_task(number) for number in range(count)])
        tasks = BeadsStore(place.path / ".beads").read()
        ticks = [_ticks(tasks) for _ in range(rounds)]
        for name in ticks[0]:
            yield within(name, _best([t[name] for t in ticks]), LINE_S if name == VIEW_LINE else TICK_S)
        for limit_s, command in ((READY_S, ("task", "ready", "--json")), (HELP_S, ("--help",))):
            spent = [place.spend(*LOOP, *command) for _ in range(rounds)]
            yield within(f"loop {' '.join(command)}", _best(spent), limit_s)


def _task(number: int) -> dict[str, object]:
    earlier = [number // 2, number // 3] if number > 3 else []
    is_closed = number % 2 == 0
    made = task(number, waits_for=earlier, priority=number % 5)
    made["description"] = f"Change `{_file(number)}`, nothing else."
    return made | ({"status": "closed"} if is_closed else {})


def _file(number: int) -> str:
    return f"src/part{number // 50}.py"


def _best(rounds: Sequence[Spent]) -> Spent:
    """The quickest: what disturbs one process comes from outside."""
    return min(rounds, key=lambda spent: spent.wall_s)


def _ticks(tasks: tuple[Task, ...]) -> dict[str, Spent]:
    """A tick: the event folded in, the rules asked until none says more, and the intents folded in."""
    core = CoreAlone(tasks)
    first = core.answer()
    line = _timed(lambda: ev.to_line(core.stamp(first)))
    cold = _timed(lambda: core.tick(first))
    others = sorted((_timed(lambda: core.tick(core.answer())) for _ in range(TICKS)), key=lambda spent: spent.wall_s)
    return {
        VIEW_LINE: line,
        "tick on first view": cold,
        "tick, median of others": others[TICKS // 2],
        "tick, slowest of others": others[-1],
    }


def _timed(work: Callable[[], object]) -> Spent:
    began, began_cpu = time.perf_counter(), time.process_time()
    work()
    return Spent(time.perf_counter() - began, time.process_time() - began_cpu)


class CoreAlone:
    """The pure core over a whole backlog: each intent is answered as if all went well, the oldest first."""

    def __init__(self, tasks: tuple[Task, ...]) -> None:
        self._tasks = tasks
        self._seq = 0
        self._now = BEGAN
        started = ev.RunStarted("loop-20260201T000000Z-00000000", _id(0), POLICY, "main", _id(0), "beads", "")
        self.state = begin(self.stamp(started))
        self._decide()

    def tick(self, event: ev.Event) -> None:
        self.state = apply(self.state, self.stamp(event))
        self._decide()

    def answer(self) -> ev.Event:
        n, action = next(iter(self.state.intents.items()))
        match action:
            case ac.ReadTasks():
                return ev.ViewRead(n, self._now, self._tasks if self.state.view is None else ())
            case ac.Claim():
                return ev.Claimed(n)
            case ac.StartIteration(spec=spec):
                files = (_file(spec.number), "CHANGELOG.md")
                result = IterationResult("done", start=spec.base, head=_id(spec.number), files=files, exit_code=0)
                return ev.IterationEnded(n, result)
            case ac.BuildChain(entries=entries):
                return ev.ChainBuilt(
                    n, tuple(ev.Link(e.number, _id(e.number, "c"), _id(e.number, "7")) for e in entries)
                )
            case ac.Land():
                return ev.Landed(n)
            case ac.CloseTask():
                return ev.TaskClosed(n)
            case _:
                raise AssertionError(f"not expected here: {action}")

    def _decide(self) -> None:
        while decisions := decide(self.state, self._now):
            for decision in decisions:
                event = decision if isinstance(decision, EVENTS) else ev.Intended(self.state.next_n, decision)
                self.state = apply(self.state, self.stamp(event))

    def stamp(self, event: ev.Event) -> ev.Stamped:
        self._seq += 1
        self._now += timedelta(milliseconds=50)
        return ev.Stamped(self._seq, self._now, event)


def _id(number: int, kind: str = "a") -> str:
    return f"{kind}{number:039x}"
