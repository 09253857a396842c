"""The journal's vocabulary: every line of `events.jsonl` is one `Stamped` event (docs/journal.md)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from hew_loop.core.actions import Action
from hew_loop.core.iteration import IterationResult, Usage
from hew_loop.core.policy import Policy
from hew_loop.core.task import Task
from hew_loop.core.verdict import Verdict

SCHEMA_VERSION = 1

StopReason = Literal[
    "cancelled", "stop_file", "budget_tokens", "budget_usd", "budget_wall", "max_iter", "all_limited", "runtime_error",
    "tracker_error", "gate_error", "guard_trip", "stuck", "ready_empty",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class RunStarted:
    run_id: str
    base: str
    policy: Policy
    launch_branch: str | None
    """Short name; None when HEAD was detached and nothing is merged back."""
    launch_commit: str
    tracker: str
    store: str
    held: tuple[tuple[str, str], ...] = ()
    """(task, run id): landed in an earlier run whose commits are not in `base`; its dependants wait."""
    carries: tuple[tuple[str, str], ...] = ()
    """(task slug, commit): newest head that an earlier run left unlanded."""
    dirty: tuple[str, ...] = ()
    """Paths modified in the user's checkout at the start: agents do not see them."""
    schema_version: int = SCHEMA_VERSION
    version: str = ""
    pid: int = 0
    type: Literal["run_started"] = "run_started"


@dataclass(frozen=True, slots=True)
class Resumed:
    """A run is carried on; `settle` starts nothing new: what waits is gated, landed, verified and delivered."""

    settle: bool
    onto: str | None = None
    """Deliver to this branch, whatever the policy says (`loop deliver`)."""
    pid: int = 0
    cut_bytes: int = 0
    """Length of a torn last line that was cut from the journal."""
    type: Literal["resumed"] = "resumed"


@dataclass(frozen=True, slots=True)
class Intended:
    n: int
    action: Action
    type: Literal["intended"] = "intended"


@dataclass(frozen=True, slots=True)
class Abandoned:
    """The intent left nothing behind, or doing it again is the same: it is decided anew."""

    n: int
    type: Literal["abandoned"] = "abandoned"


@dataclass(frozen=True, slots=True)
class ViewRead:
    """The tracker's tasks as a difference to the last view."""

    n: int
    began_at: datetime
    changed: tuple[Task, ...] = ()
    removed: tuple[str, ...] = ()
    type: Literal["view_read"] = "view_read"


@dataclass(frozen=True, slots=True)
class ViewFailed:
    n: int
    message: str
    type: Literal["view_failed"] = "view_failed"


@dataclass(frozen=True, slots=True)
class Claimed:
    n: int
    type: Literal["claimed"] = "claimed"


@dataclass(frozen=True, slots=True)
class ClaimRefused:
    n: int
    reason: str
    tracker_failed: bool = False
    """Not refused: the tracker did not work."""
    unclear: bool = False
    """It may have been made all the same, and could not be taken back: it is still to be released."""
    type: Literal["claim_refused"] = "claim_refused"


@dataclass(frozen=True, slots=True)
class IterationEnded:
    n: int
    result: IterationResult
    type: Literal["iteration_ended"] = "iteration_ended"


@dataclass(frozen=True, slots=True)
class BatchPlanned:
    """A suggestion of what to start next. `dropped`: ids that the tracker does not know."""

    number: int
    source: Literal["agent", "planner", "skipped"]
    task_ids: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    reason: str = ""
    after: int = 0
    """Iteration after which it was made."""
    covers: tuple[int, ...] = ()
    """Other iterations that ended in silence before."""
    n: int | None = None
    """The intent to ask a planner that this answers; None when none was asked."""
    usage: Usage | None = None
    cost_usd: float | None = None
    model: str | None = None
    took_s: float | None = None
    """How long the planner took; None when no process was started."""
    type: Literal["batch_planned"] = "batch_planned"


@dataclass(frozen=True, slots=True)
class Link:
    """One merge of a chain: everything up to and including iteration `number`, as a commit."""

    number: int
    commit: str
    tree: str


@dataclass(frozen=True, slots=True)
class SentBack:
    """An entry that cannot land as it is; `files` are the conflicting ones."""

    number: int
    reason: str
    files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ChainBuilt:
    n: int
    links: tuple[Link, ...] = ()
    conflicts: tuple[SentBack, ...] = ()
    refused: tuple[SentBack, ...] = ()
    """Heads that must not land at all: foreign work, or not descended from their start."""
    withdrawn: tuple[SentBack, ...] = ()
    """A person took the task back meanwhile."""
    type: Literal["chain_built"] = "chain_built"


@dataclass(frozen=True, slots=True)
class GateEnded:
    n: int
    verdict: Verdict
    reason: str = ""
    tail: str = ""
    """The part of the output that belongs into a retry's prompt."""
    log: str = ""
    """Path below the run folder."""
    duration_s: float = 0.0
    cached: bool = False
    tests: tuple[Verdict, ...] = ()
    """The verdict of each test command, so that one package's tests cannot vanish behind another's."""
    type: Literal["gate_ended"] = "gate_ended"


@dataclass(frozen=True, slots=True)
class Landed:
    n: int
    type: Literal["landed"] = "landed"


@dataclass(frozen=True, slots=True)
class LandRefused:
    """The integration ref was not where it was expected; `tip` is where it is now."""

    n: int
    tip: str
    found: str | None = None
    """Where somebody else had put it; empty: it was deleted. It has been put back to `tip`."""
    type: Literal["land_refused"] = "land_refused"


@dataclass(frozen=True, slots=True)
class IntegrationFailed:
    """git did not do what landing needs: nobody's fault here, so the run stops and keeps the queue."""

    n: int
    message: str
    type: Literal["integration_failed"] = "integration_failed"


@dataclass(frozen=True, slots=True)
class TaskClosed:
    n: int
    type: Literal["task_closed"] = "task_closed"


@dataclass(frozen=True, slots=True)
class TaskReleased:
    n: int
    type: Literal["task_released"] = "task_released"


@dataclass(frozen=True, slots=True)
class BugFiled:
    n: int
    bug: str
    type: Literal["bug_filed"] = "bug_filed"


@dataclass(frozen=True, slots=True)
class Remembered:
    """`problem`: the tracker did not take it. It is not worth a second try, nor the run."""

    n: int
    problem: str = ""
    type: Literal["remembered"] = "remembered"


@dataclass(frozen=True, slots=True)
class TrackerWriteFailed:
    n: int
    message: str
    type: Literal["tracker_write_failed"] = "tracker_write_failed"


@dataclass(frozen=True, slots=True)
class Verified:
    n: int
    verdict: Verdict
    reason: str = ""
    command: str = ""
    tail: str = ""
    log: str = ""
    duration_s: float = 0.0
    type: Literal["verified"] = "verified"


@dataclass(frozen=True, slots=True)
class Delivered:
    n: int
    commit: str
    moved_checkout: bool = False
    type: Literal["delivered"] = "delivered"


@dataclass(frozen=True, slots=True)
class LaunchMoved:
    """People worked meanwhile: the launch branch is at `tip`, which the integration branch does not contain."""

    n: int
    tip: str
    type: Literal["launch_moved"] = "launch_moved"


@dataclass(frozen=True, slots=True)
class DeliveryRefused:
    n: int
    reason: str
    type: Literal["delivery_refused"] = "delivery_refused"


@dataclass(frozen=True, slots=True)
class StopRequested:
    """`drain`: finish what runs. `now`: end what runs. `by`: `SIGINT`, `SIGTERM`, `SIGHUP`, `cancel` or `stop_file`."""

    how: Literal["drain", "now"]
    by: str
    type: Literal["stop_requested"] = "stop_requested"


@dataclass(frozen=True, slots=True)
class Stopping:
    """Nothing new is started from here on."""

    reason: StopReason
    detail: str = ""
    type: Literal["stopping"] = "stopping"


@dataclass(frozen=True, slots=True)
class Suspended:
    """A step is over and nothing is in flight or claimed; the next `loop step` goes on from here."""

    why: Literal["planned", "stepped", "cooling"]
    type: Literal["suspended"] = "suspended"


@dataclass(frozen=True, slots=True)
class Noticed:
    """Something a person should know; changes no decision."""

    text: str
    iterations: tuple[int, ...] = ()
    type: Literal["noticed"] = "noticed"


@dataclass(frozen=True, slots=True)
class RunEnded:
    exit_code: int
    type: Literal["run_ended"] = "run_ended"


Event = Annotated[
    RunStarted
    | Resumed
    | Intended
    | Abandoned
    | ViewRead
    | ViewFailed
    | Claimed
    | ClaimRefused
    | IterationEnded
    | BatchPlanned
    | ChainBuilt
    | GateEnded
    | Landed
    | LandRefused
    | IntegrationFailed
    | TaskClosed
    | TaskReleased
    | BugFiled
    | Remembered
    | TrackerWriteFailed
    | Verified
    | Delivered
    | LaunchMoved
    | DeliveryRefused
    | StopRequested
    | Stopping
    | Suspended
    | Noticed
    | RunEnded,
    Field(discriminator="type"),
]


@dataclass(frozen=True, slots=True)
class Stamped:
    """One line of the journal. `seq` counts from 1 without a gap."""

    seq: int
    at: datetime
    event: Event


_LINE: TypeAdapter[Stamped] = TypeAdapter(Stamped)


def to_line(stamped: Stamped) -> bytes:
    """The event as one line of JSON, newline included."""
    return _LINE.dump_json(stamped, exclude_defaults=False) + b"\n"


def from_line(line: bytes) -> Stamped:
    """Raises pydantic's ValidationError for anything that is not an event of this version."""
    return _LINE.validate_json(line)
