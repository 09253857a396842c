"""The state of a run: what the journal says so far, as values. `core.transitions` folds events into it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from hew_loop.core.actions import Action, AskPlanner, GatePurpose, Why
from hew_loop.core.backlog import Backlog
from hew_loop.core.events import RunStarted, StopReason, StopRequested
from hew_loop.core.iteration import IterationResult, IterationSpec, Usage
from hew_loop.core.merge_queue import MergeQueue
from hew_loop.core.policy import Policy
from hew_loop.core.retry import Health
from hew_loop.core.verdict import Verdict

Phase = Literal[
    "claiming",  # the claim is in flight; a slot is reserved
    "claimed",  # ours; the iteration starts next
    "running",  # an agent works on it
    "waiting",  # finished, in the merge queue
    "landed",  # on the integration branch; to be closed
    "accepted",  # its no-change answer was accepted; to be closed
    "retry",  # went back; the next attempt starts when a slot is free
    "parking",  # out of attempts, or blocked; its bug is to be filed
    "releasing",  # to be given back to the tracker; `then` says as what
    "done",
    "unchanged",
    "parked",
    "returned",
    "withdrawn",
]
FINAL: frozenset[Phase] = frozenset(("done", "unchanged", "parked", "returned", "withdrawn"))
HOLDS_SLOT: frozenset[Phase] = frozenset(("claiming", "claimed", "running"))

Fate = Literal[
    "running", "waiting", "landed", "unchanged", "failed", "conflict", "gate_failed", "refused", "withdrawn", "left"
]


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """What this run did with one task."""

    task: str
    phase: Phase
    actor: str
    slot: int
    why: Why = "graph"
    batch: int | None = None
    attempts: int = 0
    """Iterations started; the newest one's attempt number."""
    used: int = 0
    """Attempts that count against `--attempts`."""
    lost: int = 0
    """Iterations lost in a row because `loop` died."""
    carry: str | None = None
    model: str | None = None
    """`loop.model.fallback`, once its own was overloaded or not known."""
    evidence: tuple[str, ...] = ()
    iterations: tuple[int, ...] = ()
    kind: str = ""
    """`merge-conflict`, `gate-failed`, `agent-failed` or `blocked`, once it is being parked."""
    reason: str = ""
    bug: str = ""
    then: Literal["parked", "returned", "withdrawn", ""] = ""
    landed: str = ""
    summary: str = ""


@dataclass(frozen=True, slots=True)
class Iteration:
    spec: IterationSpec
    why: Why
    batch: int | None
    started_at: datetime
    ended_at: datetime | None = None
    result: IterationResult | None = None
    fate: Fate = "running"
    landed: str = ""
    verdict: Verdict | None = None
    """Of the gate run that decided it."""
    gate_log: str = ""
    note: str = ""

    @property
    def has_work(self) -> bool:
        """Its branch holds something beyond the commit that it started from; a branch without that is removed."""
        result = self.result
        return result is not None and result.head is not None and result.head != (result.start or self.spec.base)


@dataclass(frozen=True, slots=True)
class GateFacts:
    number: int
    purpose: GatePurpose
    commit: str
    entries: tuple[int, ...]
    started_at: datetime
    verdict: Verdict | None = None
    reason: str = ""
    log: str = ""
    duration_s: float = 0.0
    cached: bool = False
    tests: tuple[Verdict, ...] = ()
    tail: str = ""
    """The end of the output, of a tree that did not pass."""


@dataclass(frozen=True, slots=True)
class BatchFacts:
    number: int
    source: Literal["agent", "planner", "skipped"]
    task_ids: tuple[str, ...]
    dropped: tuple[str, ...]
    reason: str
    after: int
    at: datetime
    covers: tuple[int, ...] = ()
    """The other iterations that ended in silence before it was made."""
    usage: Usage | None = None
    took_s: float | None = None
    """How long the planner took; None when none was asked."""
    model: str | None = None
    cost_usd: float | None = None


@dataclass(frozen=True, slots=True)
class Suggestion:
    """The batch plan in force: the ids of it that were not started, closed or unknown."""

    number: int
    source: Literal["agent", "planner"]
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class View:
    number: int
    began_at: datetime


@dataclass(frozen=True, slots=True)
class Spend:
    usage: Usage = field(default_factory=Usage)
    cost_usd: float = 0.0
    unknown_usage: int = 0
    """Iterations whose tokens nobody knows."""
    unknown_cost: int = 0
    estimated_usd: float = 0.0
    """Of iterations that reported tokens and no cost, from the configured prices; not in `cost_usd`."""


@dataclass(frozen=True, slots=True)
class VerifyFacts:
    commit: str
    verdict: Verdict
    reason: str
    command: str
    log: str
    tail: str
    duration_s: float


@dataclass(frozen=True, slots=True)
class DeliveryFacts:
    """`state`: merged, refused, or kept (as a branch, by request or because nothing could be merged)."""

    state: Literal["merged", "refused", "kept"]
    commit: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Notice:
    at: datetime
    text: str
    iterations: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class RunState:
    start: RunStarted
    started_at: datetime
    now: datetime
    """Time of the newest event."""
    seq: int
    queue: MergeQueue
    backlog: Backlog = field(default_factory=Backlog)
    view: View | None = None
    initial: frozenset[str] = frozenset()
    """Ids that were open and in scope in the first view."""
    new_started: int = 0
    last_write_at: datetime | None = None
    written: Mapping[str, datetime] = field(default_factory=dict[str, datetime])
    """When we last wrote to a task: a view that began before it does not know of it."""
    closed_meanwhile: Mapping[str, frozenset[int]] = field(default_factory=dict[str, frozenset[int]])
    """Tasks closed by somebody else during the run, and the iterations that were alive then."""
    refused: Mapping[str, int] = field(default_factory=dict[str, int])
    """Task -> number of the view after which its claim was refused."""
    refusals: Mapping[str, int] = field(default_factory=dict[str, int])
    """Task -> how often its claim was refused."""
    records: Mapping[str, TaskRecord] = field(default_factory=dict[str, TaskRecord])
    iterations: Mapping[int, Iteration] = field(default_factory=dict[int, Iteration])
    gates: Mapping[int, GateFacts] = field(default_factory=dict[int, GateFacts])
    batches: tuple[BatchFacts, ...] = ()
    suggestion: Suggestion | None = None
    intents: Mapping[int, Action] = field(default_factory=dict[int, Action])
    next_n: int = 1
    base_gate: GateFacts | None = None
    gate_broken: bool = False
    """It does not run on the integration tip either: the queue is kept, and nothing more lands."""
    remembered: frozenset[str] = frozenset()
    """Texts that the tracker keeps, or would not take."""
    spend: Spend = field(default_factory=Spend)
    health: Mapping[str, Health] = field(default_factory=dict[str, Health])
    """By runtime; those that nothing is known against are not in it."""
    planner_asked_at: datetime | None = None
    failures_in_a_row: int = 0
    view_failures: int = 0
    write_failures: int = 0
    view_failed_at: datetime | None = None
    write_failed_at: datetime | None = None
    launch_tip: str | None = None
    """Tip of a launch branch that moved meanwhile, still to be merged."""
    launch_expected: str = ""
    stop_request: StopRequested | None = None
    stopping: StopReason | None = None
    stop_detail: str = ""
    settle: bool = False
    step_until: int | None = None
    """In steps: how many iterations there may be before this process suspends the run."""
    suspended: str = ""
    onto: str | None = None
    """The branch to deliver to; None: by policy it stays a branch of its own."""
    verify: VerifyFacts | None = None
    delivery: DeliveryFacts | None = None
    notices: tuple[Notice, ...] = ()
    resumes: int = 0
    exit_code: int | None = None

    @property
    def policy(self) -> Policy:
        return self.start.policy

    @property
    def run_id(self) -> str:
        return self.start.run_id

    @property
    def ended(self) -> bool:
        return self.exit_code is not None

    @property
    def step_is_over(self) -> bool:
        return self.step_until is not None and len(self.iterations) >= self.step_until

    @property
    def stop_now(self) -> bool:
        return self.stop_request is not None and self.stop_request.how == "now"

    @property
    def base_verdict(self) -> Verdict | None:
        return self.base_gate.verdict if self.base_gate else None

    @property
    def landed_something(self) -> bool:
        return self.queue.tip != self.start.base

    @property
    def at_work(self) -> bool:
        """Something is in flight that the run's end has to wait for; a planner's advice is not."""
        return any(not isinstance(action, AskPlanner) for action in self.intents.values())

    def flying(self, *kinds: type) -> bool:
        """An intent of one of these kinds has no result yet."""
        return any(isinstance(action, kinds) for action in self.intents.values())

    def busy_tasks(self) -> frozenset[str]:
        """Tasks with an intent in flight."""
        return frozenset(t for a in self.intents.values() if (t := getattr(a, "task", "")))

    def in_phase(self, *phases: Phase) -> tuple[TaskRecord, ...]:
        return tuple(r for r in self.records.values() if r.phase in phases)

    def free_slots(self) -> list[int]:
        used = {r.slot for r in self.records.values() if r.phase in HOLDS_SLOT}
        return [slot for slot in range(self.policy.jobs) if slot not in used]

    def iterations_left(self) -> int:
        """At most; without a limit as many as there are slots."""
        limits = [limit for limit in (self.policy.max_iter, self.step_until) if limit is not None]
        return min(limits) - len(self.iterations) if limits else self.policy.jobs

    def alive(self) -> frozenset[int]:
        """Iterations that run, or wait to land."""
        return frozenset(n for n, i in self.iterations.items() if i.fate in ("running", "waiting"))
