"""What the simulated world consists of: its scenario, its agents, its git and its tracker, as values."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from hew_loop.core.iteration import FailureClass, Usage
from hew_loop.core.policy import GateSettings, PlannedCommand, PlannerSettings, Policy, VerifySettings
from hew_loop.core.task import Edge, Task
from hew_loop.core.verdict import Verdict

T0 = datetime(2026, 3, 1, 22, 0, tzinfo=UTC)
RUN_ID = "loop-20260301T220000Z-0123abcd"
BASE = "base"


def task(
    task_id: str,
    *after: str,
    priority: int = 2,
    status: str = "open",
    kind: str = "task",
    labels: tuple[str, ...] = (),
    parent: str = "",
    minutes: int = 0,
) -> Task:
    """A task that waits for those in `after`; `minutes` makes it younger."""
    edges = tuple(Edge(target) for target in after) + ((Edge(parent, "parent-child"),) if parent else ())
    return Task(
        task_id, f"Task {task_id}", T0 + timedelta(minutes=minutes - 600),
        status=status, priority=priority, type=kind, labels=labels, edges=edges,
    )  # fmt: skip


def policy(**changes: object) -> Policy:
    """Two slots, a gate, a verify, nobody who plans."""
    settings = Policy(
        jobs=2,
        runtime="fake",
        gate=GateSettings(commands=(PlannedCommand("make test"),)),
        verify=VerifySettings(commands=(PlannedCommand("make"),)),
        planner=PlannerSettings(enabled=False),
    )
    return replace(settings, **changes)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Agent:
    """What one iteration does. `trait`: red, hang, flaky, or the name of a shared file that it edits."""

    outcome: str = "done"
    failure: FailureClass | None = None
    trait: str = ""
    closes: tuple[str, ...] = ()
    creates: str = ""
    next_iteration: tuple[str, ...] | None = None
    usage: Usage | None = field(default_factory=lambda: Usage(100, 10))


@dataclass(frozen=True)
class Scenario:
    tasks: tuple[Task, ...]
    policy: Policy = field(default_factory=policy)
    agents: bytes = b""
    """Choices of the agents, one after another."""
    moves: bytes = b""
    """Which open action goes on next, what people do, what fails."""
    kills: tuple[int, ...] = ()
    """Kill after so many more events, each counted from the last kill."""
    settle_last: bool = False
    """After the last kill the run is only settled."""
    script: tuple[tuple[str, tuple[Agent, ...]], ...] = ()
    """Task -> what its first iterations do, instead of `agents`."""
    base_verdict: Verdict = "passed"
    gate_dies_after: int | None = None
    """So many gate runs work; then it does not run any more, on whatever tree."""
    verify_verdict: Verdict | None = None
    """None: `moves` choose."""
    refuses: str = ""
    """A task that the tracker shows as free, and whose claim it always refuses."""
    launch_branch: str | None = "main"


class Choices:
    """Numbers out of a byte string; 0, the straight way, when it is used up."""

    def __init__(self, data: bytes) -> None:
        self._data = iter(data)

    def pick(self, options: int) -> int:
        return next(self._data, 0) % options

    def one_in(self, options: int) -> bool:
        return self.pick(options) == options - 1


class Git:
    """Commits are values: an id and the ids of all its ancestors, itself among them."""

    def __init__(self) -> None:
        self.ancestors: dict[str, frozenset[str]] = {BASE: frozenset((BASE,))}
        self.traits: dict[str, str] = {}
        self.owner: dict[str, str] = {}
        self.integration = BASE
        self.launch = BASE

    def commit(self, name: str, *parents: str) -> str:
        self.ancestors[name] = frozenset((name,)).union(*(self.ancestors[p] for p in parents))
        return name

    def work(self, name: str, owner: str, trait: str, *parents: str) -> str:
        """A commit with content of its own."""
        self.owner[name], self.traits[name] = owner, trait
        return self.commit(name, *parents)

    def contains(self, commit: str, other: str) -> bool:
        return other in self.ancestors[commit]

    def content(self, commit: str) -> frozenset[str]:
        return frozenset(w for w in self.ancestors[commit] if w in self.owner)

    def tree(self, commit: str) -> str:
        return _digest("tree", *sorted(self.content(commit)))

    def clashes(self, ours: str, theirs: str) -> tuple[str, ...]:
        """Shared files that both sides changed since they parted."""
        mine, its = self.content(ours) - self.content(theirs), self.content(theirs) - self.content(ours)
        return tuple(sorted(self._files(mine) & self._files(its)))

    def merge(self, ours: str, theirs: str) -> str | None:
        """The merge commit, the same for the same parents; None for a conflict."""
        return None if self.clashes(ours, theirs) else self.commit(_digest("merge", ours, theirs), ours, theirs)

    def _files(self, works: Iterable[str]) -> set[str]:
        return {self.traits[w] for w in works if self.traits[w].startswith("file")}


class Tracker:
    def __init__(self, tasks: Iterable[Task]) -> None:
        self.tasks = {t.id: t for t in tasks}
        self.bugs: dict[str, str] = {}
        self.notes: list[tuple[str, str]] = []

    def put(self, task_id: str, **changes: object) -> None:
        self.tasks[task_id] = replace(self.tasks[task_id], **changes)  # type: ignore[arg-type]

    def claim(self, task_id: str, actor: str) -> str:
        t = self.tasks[task_id]
        if (t.status, t.assignee) not in (("open", ""), ("in_progress", actor)):
            return f"{t.status}, {t.assignee or 'nobody'}"
        self.put(task_id, status="in_progress", assignee=actor)
        return ""

    def release(self, task_id: str, actor: str, note: str) -> None:
        t = self.tasks[task_id]
        if note and (task_id, note) not in self.notes:
            self.notes.append((task_id, note))
        if t.assignee == actor or t.is_closed:
            self.put(task_id, status="open", assignee="")

    def file_bug(self, task_id: str, reference: str) -> str:
        if reference not in self.bugs:
            bug = f"bug-{len(self.bugs) + 1}"
            self.bugs[reference] = bug
            self.tasks[bug] = replace(task(bug, minutes=500), type="bug", labels=("needs-human",))
            self.put(task_id, edges=(*self.tasks[task_id].edges, Edge(bug)))
        return self.bugs[reference]


def _digest(kind: str, *parts: str) -> str:
    return f"{kind}-{hashlib.sha256('|'.join(parts).encode()).hexdigest()[:12]}"
