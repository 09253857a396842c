"""What the dispatcher can ask the engine to do. Each is journalled as an intent before it is performed.

Every class here has a row in `core.recovery.CRASH_TABLE`; a test fails for one without.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from hew_loop.core.iteration import IterationSpec

Why = Literal["agent", "planner", "graph", "retry"]
"""Why a task was started: a suggestion named it, the graph order came to it, or its last attempt went back."""

GatePurpose = Literal["base", "prefix", "again", "tip", "confirm"]

LAUNCH = 0
"""Iteration number that stands for the launch branch's own tip in a chain."""


@dataclass(frozen=True, slots=True)
class ReadTasks:
    """Read the whole tracker; the view carries the time at which its read began."""

    type: Literal["read_tasks"] = "read_tasks"


@dataclass(frozen=True, slots=True)
class Claim:
    task: str
    slot: int
    actor: str
    why: Why
    batch: int | None = None
    """Number of the batch plan in force that named it."""
    passed: str = ""
    """The task whose turn it was; it was passed over because of `meets`."""
    meets: tuple[str, ...] = ()
    """Files that `passed` will probably change, and so does something at work; a few of them."""
    type: Literal["claim"] = "claim"


@dataclass(frozen=True, slots=True)
class AskPlanner:
    """Ask an agent which of the startable tasks to take next; its answer only suggests."""

    number: int
    """Of the batch plan that it makes."""
    runtime: str
    after: int
    """The newest iteration that ended without a suggestion; `covers` are the others."""
    covers: tuple[int, ...] = ()
    type: Literal["ask_planner"] = "ask_planner"


@dataclass(frozen=True, slots=True)
class StartIteration:
    spec: IterationSpec
    why: Why
    batch: int | None = None
    type: Literal["start_iteration"] = "start_iteration"


@dataclass(frozen=True, slots=True)
class ChainEntry:
    """A finished iteration that waits to land: `number` is its iteration, `LAUNCH` the launch branch."""

    number: int
    task: str
    head: str
    start: str


@dataclass(frozen=True, slots=True)
class BuildChain:
    """Merge the frozen prefix, one after another, on the integration tip; keep the last under the candidate ref."""

    tip: str
    entries: tuple[ChainEntry, ...]
    type: Literal["build_chain"] = "build_chain"


@dataclass(frozen=True, slots=True)
class RunGate:
    number: int
    """Counts the gate runs of a run; names the log `gates/gate-NNN.log`."""
    commit: str
    tree: str
    purpose: GatePurpose
    entries: tuple[int, ...] = ()
    fresh: bool = False
    """A kept result does not do: the tree is really gated."""
    type: Literal["run_gate"] = "run_gate"


@dataclass(frozen=True, slots=True)
class Land:
    """Move the integration ref from `old` to `new`: the one commit point."""

    old: str
    new: str
    entries: tuple[int, ...]
    type: Literal["land"] = "land"


@dataclass(frozen=True, slots=True)
class CloseTask:
    task: str
    reason: str
    type: Literal["close_task"] = "close_task"


@dataclass(frozen=True, slots=True)
class ReleaseTask:
    """Give the task back: open and unassigned. Reopened first if its own agent had closed it."""

    task: str
    actor: str
    note: str
    type: Literal["release_task"] = "release_task"


@dataclass(frozen=True, slots=True)
class FileBug:
    """File the bug that blocks a parked task until a person closes it."""

    task: str
    attempt: int
    kind: str
    title: str
    description: str
    type: Literal["file_bug"] = "file_bug"


@dataclass(frozen=True, slots=True)
class Remember:
    """Keep a memory in the tracker; the same text is kept once."""

    text: str
    type: Literal["remember"] = "remember"


@dataclass(frozen=True, slots=True)
class Verify:
    commit: str
    type: Literal["verify"] = "verify"


@dataclass(frozen=True, slots=True)
class Deliver:
    """Bring `new` to the launch branch, which is expected at `expected`."""

    branch: str
    expected: str
    new: str
    type: Literal["deliver"] = "deliver"


Action = Annotated[
    ReadTasks
    | Claim
    | AskPlanner
    | StartIteration
    | BuildChain
    | RunGate
    | Land
    | CloseTask
    | ReleaseTask
    | FileBug
    | Remember
    | Verify
    | Deliver,
    Field(discriminator="type"),
]
