"""What follows a failed iteration: one table from failure class to consequence (runtimes.md RT-25, RT-26)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from hew_loop.core.iteration import FailureClass, IterationResult

Consequence = Literal["task", "later", "run", "cancelled", "lost", "withdrawn"]
"""task: it counts as the task's attempt. later: the runtime waits, no attempt is used up. run: no task can be worked
on, the run stops. cancelled: we ended it. lost: we died under it. withdrawn: a person took the task back."""

_LATER: frozenset[FailureClass] = frozenset(
    ("rate_limit", "usage_limit", "overloaded", "server_error", "network", "timeout", "bad_response")
)
_RUN: frozenset[FailureClass] = frozenset(
    ("auth", "credit", "model_not_found", "usage_error", "session", "spawn_error")
)

MAX_LOST_IN_A_ROW = 3
FARTHEST_RESET = timedelta(days=8)
BACKOFF_MINUTES = (1, 2, 4, 8, 16, 30)


def consequence(failure: FailureClass) -> Consequence:
    if failure in _LATER:
        return "later"
    if failure in _RUN:
        return "run"
    if failure in ("cancelled", "lost", "withdrawn"):
        return failure
    return "task"


@dataclass(frozen=True, slots=True)
class Hold:
    """No start on the runtime before `until`; `step` is how many limits without a known end came in a row."""

    until: datetime
    step: int
    reason: str


def hold_after(result: IterationResult, now: datetime, step: int) -> Hold:
    """When the runtime may be tried again: at the reset that its adapter read, else after 1, 2, 4 … 30 minutes."""
    reason = f"{result.failure}: {result.message}" if result.message else str(result.failure)
    reset = result.reset_at
    if reset is not None and now < reset <= now + FARTHEST_RESET:
        return Hold(reset, step, reason)
    minutes = BACKOFF_MINUTES[min(step, len(BACKOFF_MINUTES) - 1)]
    return Hold(now + timedelta(minutes=minutes), step + 1, reason)


def evidence_of(result: IterationResult, branch: str) -> str:
    """What the next attempt is told about the last one."""
    said = f" It said: {result.message}" if result.message else ""
    left = ""
    if result.head and result.head != result.start:
        left = f" What it left is on the branch {branch}; look at it with git, nothing of it is in your tree."
    match result.failure:
        case "no_diff":
            return "The last attempt ended without changing anything. Change the code, or answer no_change." + said
        case "unmerged":
            return f"The last attempt left conflict markers in: {', '.join(result.files) or 'the tree'}. Resolve them."
        case "timed_out":
            return "The last attempt was ended at its deadline. Do the task in fewer steps." + left
        case "stalled":
            return "The last attempt was ended because it printed nothing for too long." + left
        case "foreign_work":
            return (
                f"The last attempt was refused: {result.message}. Work on top of the commit that you start from, on "
                "your own task only: merge no other branch, and do not amend or rebase what you find." + left
            )
        case _:
            return f"The last attempt failed ({result.failure}).{said}{left}"
