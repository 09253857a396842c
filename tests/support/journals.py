"""Build a journal one fact at a time: what happened, without the bookkeeping of intents and times."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

from hew_loop.core import actions as ac
from hew_loop.core import events as ev
from hew_loop.core.iteration import IterationResult, IterationSpec, Usage
from hew_loop.core.names import actor_name, branch_name
from hew_loop.core.policy import GateSettings, PlannedCommand, Policy, VerifySettings
from hew_loop.core.state import RunState
from hew_loop.core.task import Edge, Task
from hew_loop.core.transitions import apply, begin
from hew_loop.core.verdict import Verdict
from hew_loop.engine import run_folder
from hew_loop.engine.journal import Journal
from hew_loop.engine.run_folder import RunFolder

START = datetime(2026, 3, 1, 22, 0, 0, tzinfo=UTC)
RUN_ID = "loop-20260301T220000Z-0badcafe"
TEST = PlannedCommand("just test")
GATED = Policy(gate=GateSettings((TEST,), origin="justfile"), verify=VerifySettings(commands=(TEST,)))


def commit_id(name: str | int) -> str:
    """40 hexadecimal digits that a reader recognises: the number, or the letters, and zeros."""
    text = f"{name:x}" if isinstance(name, int) else name
    return text.ljust(40, "0")


def task(task_id: str, title: str = "", *, after: Iterable[str] = (), **fields: Any) -> Task:
    edges = (*(Edge(target) for target in after), *fields.pop("edges", ()))
    return Task(task_id, title or f"Title of {task_id}", START - timedelta(days=1), edges=edges, **fields)


class JournalBuilder:
    """Every method but `state` and `write` adds events and gives the builder back. Each event takes a second."""

    def __init__(self, policy: Policy = GATED, *, run_id: str = RUN_ID, at: datetime = START, **start: Any) -> None:
        self.now = at
        self.events: list[ev.Stamped] = []
        self._state: RunState | None = None
        self._commits = 0
        first: dict[str, Any] = {
            "run_id": run_id, "base": commit_id("ba5e"), "policy": policy, "launch_branch": "main",
            "launch_commit": commit_id("ba5e"), "tracker": "beads", "store": "/repo/.beads", "pid": 4121,
        }  # fmt: skip
        self.add(ev.RunStarted(**{**first, **start}))

    @property
    def state(self) -> RunState:
        assert self._state is not None
        return self._state

    def write(self, root: Path, *, torn: bytes = b"") -> RunFolder:
        """Make the run folder below `root`, with the journal and the link to the newest run."""
        folder = run_folder.create(root, self.state.run_id)
        times = iter([stamped.at for stamped in self.events])
        with Journal(folder.journal, seq=0, clock=lambda: next(times)) as journal:
            for stamped in self.events:
                journal.append(stamped.event)
        with folder.journal.open("ab") as file:
            file.write(torn)
        run_folder.point_latest(folder)
        return folder

    def add(self, *events: ev.Event) -> Self:
        for event in events:
            stamped = ev.Stamped(len(self.events) + 1, self.now, event)
            self._state = begin(stamped) if self._state is None else apply(self._state, stamped)
            self.events.append(stamped)
            self.wait(1)
        return self

    def wait(self, seconds: float) -> Self:
        self.now += timedelta(seconds=seconds)
        return self

    def view(self, *tasks: Task, removed: tuple[str, ...] = ()) -> Self:
        n = self.intend(ac.ReadTasks())
        return self.add(ev.ViewRead(n, self.now, tasks, removed))

    def base_gate(self, verdict: Verdict = "passed", reason: str = "") -> Self:
        return self._gate("base", self.state.start.base, (), verdict, reason=reason)

    def start(
        self, task_id: str, *, slot: int = 0, why: ac.Why = "graph", batch: int | None = None, runtime: str = "claude"
    ) -> Self:
        """Claim the task if it is not ours yet, and start its next iteration."""
        if task_id not in self.state.records or self.state.records[task_id].phase == "returned":
            n = self.intend(ac.Claim(task_id, slot, actor_name(self.state.run_id, slot), why, batch))
            self.add(ev.Claimed(n))
        record = self.state.records[task_id]
        attempt = record.attempts + 1
        spec = IterationSpec(
            run_id=self.state.run_id, number=len(self.state.iterations) + 1, task=task_id, attempt=attempt, slot=slot,
            base=self.state.queue.tip, branch=branch_name(self.state.run_id, task_id, attempt), actor=record.actor,
            runtime=runtime, carry=record.carry, evidence=record.evidence,
        )  # fmt: skip
        first = attempt == 1
        self.intend(ac.StartIteration(spec, why if first else "retry", batch if first else None))
        return self

    def end(self, task_id: str, outcome: str = "done", *, after_s: float = 60, **fields: Any) -> Self:
        """The task's running iteration ends: with a head of its own when it is done."""
        n, action = next(
            (n, a) for n, a in self.state.intents.items() if isinstance(a, ac.StartIteration) and a.spec.task == task_id
        )
        self.wait(after_s - 1)
        values: dict[str, Any] = {"start": action.spec.base, "exit_code": 0, "duration_s": after_s}
        if outcome == "done":
            values["head"] = commit_id(0xA00 + action.spec.number)
        return self.add(ev.IterationEnded(n, IterationResult(outcome, **{**values, **fields})))  # type: ignore[arg-type]

    def work(self, task_id: str, *, slot: int = 0, usage: Usage | None = None, cost: float | None = None) -> Self:
        """Start and end one iteration that leaves a commit."""
        return self.start(task_id, slot=slot).end(task_id, usage=usage, cost_usd=cost)

    def chain(self, **back: tuple[ev.SentBack, ...]) -> Self:
        """Build the candidate of all that waits, but for what goes `back` (conflicts, refused, withdrawn)."""
        waiting = self.state.queue.waiting
        entries = tuple(ac.ChainEntry(n, self.state.iterations[n].spec.task, "", "") for n in waiting)
        n = self.intend(ac.BuildChain(self.state.queue.tip, entries))
        gone = {entry.number for entries in back.values() for entry in entries}
        links = tuple(self._link(number) for number in waiting if number not in gone)
        return self.add(ev.ChainBuilt(n, links, **back))

    def gate(self, verdict: Verdict = "passed", **fields: Any) -> Self:
        """Gate what the queue asks to be gated next."""
        chain = self.state.queue.chain
        assert chain is not None
        entries = tuple(link.number for link in chain.links[chain.landed : chain.target])
        return self._gate(chain.purpose, chain.links[chain.target - 1].commit, entries, verdict, **fields)

    def land(self) -> Self:
        """Land what has passed (without a gate: the whole chain), and close its tasks."""
        chain = self.state.queue.chain
        assert chain is not None
        upto = chain.passed or len(chain.links)
        entries = tuple(link.number for link in chain.links[chain.landed : upto])
        n = self.intend(ac.Land(self.state.queue.tip, chain.links[upto - 1].commit, entries))
        self.add(ev.Landed(n))
        for number in entries:
            self.close(self.state.iterations[number].spec.task)
        return self

    def gate_and_land(self) -> Self:
        return self.chain().gate().land()

    def close(self, task_id: str) -> Self:
        n = self.intend(ac.CloseTask(task_id, "landed"))
        return self.add(ev.TaskClosed(n))

    def park(self, task_id: str, bug: str) -> Self:
        """File the bug of a task that is out of attempts, and give it back."""
        record = self.state.records[task_id]
        n = self.intend(ac.FileBug(task_id, record.attempts, record.kind, "title", "description"))
        return self.add(ev.BugFiled(n, bug)).release(task_id)

    def release(self, task_id: str) -> Self:
        n = self.intend(ac.ReleaseTask(task_id, self.state.records[task_id].actor, "note"))
        return self.add(ev.TaskReleased(n))

    def verify(self, verdict: Verdict = "passed", **fields: Any) -> Self:
        n = self.intend(ac.Verify(self.state.queue.tip))
        return self.add(ev.Verified(n, verdict, command="just test", log="verify.log", duration_s=12.0, **fields))

    def deliver(self, *, refused: str = "") -> Self:
        tip = self.state.queue.tip
        n = self.intend(ac.Deliver("main", self.state.launch_expected, tip))
        return self.add(ev.DeliveryRefused(n, refused) if refused else ev.Delivered(n, tip))

    def plan(self, source: str, *ids: str, after: int = 0, reason: str = "") -> Self:
        number = len(self.state.batches) + 1
        return self.add(ev.BatchPlanned(number, source, ids, reason=reason, after=after))  # type: ignore[arg-type]

    def stop(self, reason: ev.StopReason = "ready_empty", detail: str = "") -> Self:
        return self.add(ev.Stopping(reason, detail))

    def finish(self, exit_code: int = 0) -> Self:
        return self.add(ev.RunEnded(exit_code))

    def intend(self, action: ac.Action) -> int:
        n = self.state.next_n
        self.add(ev.Intended(n, action))
        return n

    def _gate(
        self, purpose: ac.GatePurpose, commit: str, entries: tuple[int, ...], verdict: Verdict, **fields: Any
    ) -> Self:
        number = len(self.state.gates) + 1
        n = self.intend(ac.RunGate(number, commit, commit, purpose, entries))
        values: dict[str, Any] = {"log": f"gates/gate-{number:03d}.log", "duration_s": 20.0, **fields}
        self.wait(values["duration_s"] - 1)
        return self.add(ev.GateEnded(n, verdict, **values))

    def _link(self, number: int) -> ev.Link:
        self._commits += 1
        commit = commit_id(0xC0DE00 + self._commits)
        return ev.Link(number, commit, commit)


def a_night(**start: Any) -> JournalBuilder:
    """A run with one of everything: landed alone and together, a conflict, unchanged, parked, held back."""
    usage = Usage(input=1000, output=200, cache_read=30000, cache_create=500)
    night = JournalBuilder(replace(GATED, jobs=2, attempts=2), **start)
    night.view(
        task("t-1", "Add the parser", priority=0),
        task("t-2", "Write the docs", priority=1),
        task("t-3", "Mend the build", after=["t-1"]),
        task("t-4", "Rename a function", priority=3),
        task("t-5", "Look at the logs", priority=3),
        task("t-6", "Uses what t-5 makes", after=["t-5"]),
        task("t-7", "A decision is needed", labels=("needs-human",)),
        task("t-8", "Nothing to do here", priority=4),
    )
    night.base_gate()
    night.start("t-1", slot=0).start("t-2", slot=1)
    night.end("t-1", usage=usage, cost_usd=0.25).plan("agent", "t-3", "t-4", after=1)
    night.end("t-2", usage=usage, cost_usd=0.25, after_s=5).plan("skipped", after=2, reason="planner_disabled")
    night.chain(conflicts=(ev.SentBack(2, "conflict", ("README.md",)),)).gate().land()
    night.start("t-2", slot=1).start("t-3", slot=0, why="agent", batch=1)
    night.end("t-3", usage=usage, cost_usd=0.5).end("t-2", after_s=10)
    night.gate_and_land()
    night.start("t-4", slot=0, why="agent", batch=1).start("t-5", slot=1)
    night.end("t-4", "no_change", summary="it has that name already").close("t-4")
    night.end("t-5", warnings=("the agent changed the main checkout: notes.txt",))
    for _ in range(2):
        if night.state.records["t-5"].phase == "retry":
            night.start("t-5", slot=1).end("t-5", usage=usage, cost_usd=0.25)
        night.chain().gate("failed", reason="exit code 1", tail="1 failed", duration_s=30)
        night.gate("failed", reason="exit code 1", tail="1 failed", duration_s=30)
    night.park("t-5", "bug-1")
    return night.stop("max_iter", "7 iterations").verify().deliver().finish(1)
