"""What follows a failed iteration: one table from failure class to consequence (runtimes.md RT-24 to RT-26)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Literal

from hew_loop.core.iteration import FailureClass, IterationResult

Consequence = Literal["task", "park", "later", "run", "cancelled", "lost", "withdrawn"]
"""task: it counts as the task's attempt. park: the task is parked at once. later: the runtime waits, another one takes
over, no attempt is used up. run: the runtime works for no task; another one takes over, and without one the run stops.
cancelled: we ended it. lost: we died under it. withdrawn: a person took the task back."""


@dataclass(frozen=True, slots=True)
class Row:
    then: Consequence
    about: str
    other_model: bool = False
    """With `loop.model.fallback` the task goes on with that model at once, instead of what `then` says."""
    is_limit: bool = False
    """It ends by itself: waited for as long as the budgets allow."""
    is_crash: bool = False
    """The program itself went wrong: several in a row hold the runtime back as well."""
    did_its_part: bool = False
    """The program ran and the server answered: as good as a success, as far as the runtime goes."""
    most: int | None = None
    """So many of these park a task, however many attempts there are."""


TABLE: Final[dict[FailureClass, Row]] = {
    "rate_limit": Row("later", "wait for its end; others of this runtime too", is_limit=True),
    "usage_limit": Row("later", "wait for the reset; others of this runtime too", is_limit=True),
    "overloaded": Row("later", "back off; another model may have room", other_model=True, is_limit=True),
    "server_error": Row("later", "back off"),
    "network": Row("later", "back off"),
    "timeout": Row("later", "back off: the server was silent"),
    "bad_response": Row("later", "back off: the server's answer was no answer"),
    "auth": Row("run", "nobody can log in at night"),
    "credit": Row("run", "nobody can pay at night"),
    "model_not_found": Row("run", "every task with this model would fail alike", other_model=True),
    "usage_error": Row("run", "the CLI refuses how it is started: another version?"),
    "session": Row("run", "the CLI refuses the session"),
    "spawn_error": Row("run", "the program is not there, or cannot be started"),
    "prompt_too_long": Row("task", "the task is too big for the model", did_its_part=True),
    "refusal": Row("task", "the model will not do it", did_its_part=True),
    "bad_request": Row("task", "the server refuses what this task led to", did_its_part=True),
    "max_turns": Row("task", "it needs more turns than it may take", did_its_part=True),
    "budget": Row("task", "it needs more money than it may take", did_its_part=True),
    "incomplete": Row("task", "the answer was cut off at the model's limit", did_its_part=True),
    "empty": Row("task", "it ended well and said nothing"),
    "permission_denied": Row("task", "tools that it needs were refused", did_its_part=True),
    "truncated": Row("task", "its output ends without a final event", is_crash=True),
    "killed": Row("task", "a signal that was not ours ended it", is_crash=True),
    "unknown": Row("task", "an error that nobody has recorded: tried once more at most", is_crash=True, most=2),
    "stalled": Row("task", "it printed nothing, or only that it waits, for the stall deadline", is_crash=True),
    "timed_out": Row("task", "it was ended at its deadline"),
    "agent_failed": Row("task", "it says so, or its exit code does"),
    "no_diff": Row("task", "it ended well and changed nothing", did_its_part=True),
    "unmerged": Row("task", "it left conflict markers", did_its_part=True),
    "foreign_work": Row("task", "it took work in that has not landed", did_its_part=True),
    "setup_failed": Row("task", "the worktree's set-up command failed"),
    "worktree_broken": Row("task", "git or the disk refused its worktree"),
    "agent_blocked": Row("park", "it says that a person has to decide", did_its_part=True),
    "cancelled": Row("cancelled", "we ended it: the task goes back"),
    "lost": Row("lost", "the loop died under it; three in a row park the task"),
    "withdrawn": Row("withdrawn", "a person took the task back"),
}

MAX_LOST_IN_A_ROW = 3
MAX_CRASHES_IN_A_ROW = 3
"""So many ends of the program itself, without a good one between them, hold a runtime back like an outage."""
MAX_OUTAGES = 10
"""So many tries in vain, over three hours, and the runtime is given up."""
FARTHEST_RESET = timedelta(days=8)
BACKOFF_MINUTES = (1, 2, 4, 8, 16, 30)


@dataclass(frozen=True, slots=True)
class Health:
    """What a run knows of one runtime since its last good iteration."""

    until: datetime | None = None
    """No start before; afterwards one at a time, until one ends well."""
    since: datetime | None = None
    """When it was held back: what was started earlier can say nothing new about it."""
    tries: int = 0
    """Holds without a known end, in a row: how far the back-off has come."""
    outages: int = 0
    """Those of them in a row that are no limits: nothing says that they end by themselves."""
    crashes: int = 0
    failure: FailureClass | None = None
    reason: str = ""
    read_from: str = ""
    """Where the end of the limit was read (RT-32); empty when it is our own back-off."""
    is_broken: bool = False
    """It works for no task, and waiting does not change that."""
    cooling: int = 0
    """So many good iterations of the other runtime before this one is tried again."""

    @property
    def given_up(self) -> bool:
        return self.is_broken or self.outages >= MAX_OUTAGES


def row(failure: FailureClass) -> Row:
    return TABLE[failure]


def after_failure(health: Health, result: IterationResult, *, started: datetime, now: datetime, seed: str) -> Health:
    """The runtime's health behind one more failure; `seed` decides the jitter, so that a replay waits as long.

    A limit is waited out until the reset that its adapter read, else 1, 2, 4 … 30 minutes.
    """
    failure = result.failure or "unknown"
    known = row(failure)
    late = health.since is not None and started < health.since
    if known.then == "task" and known.is_crash and not late:
        health = replace(health, crashes=health.crashes + 1)
        if health.crashes < MAX_CRASHES_IN_A_ROW:
            return health
    elif known.then not in ("later", "run"):
        return health
    reason = f"{failure}: {result.message}" if result.message else failure
    reset = result.reset_at
    if reset is not None and now < reset <= now + FARTHEST_RESET:
        until = reset + _jitter(timedelta(seconds=15), seed)
        if late and health.until is not None and until <= health.until:
            return health
        return replace(
            health, until=until, since=health.since if late else now, tries=0, outages=0,
            failure=failure, reason=reason, read_from=result.reset_from or "the agent's output",
        )  # fmt: skip
    if late:
        if known.then != "run" or health.is_broken:
            return health
        return replace(health, is_broken=True, reason=f"{reason}; {health.reason}")
    wait = timedelta(minutes=BACKOFF_MINUTES[min(health.tries, len(BACKOFF_MINUTES) - 1)])
    return replace(
        health, until=now + wait + _jitter(wait / 10, seed), since=now, tries=health.tries + 1,
        outages=0 if known.is_limit else health.outages + 1,
        failure=failure, reason=reason, read_from="", is_broken=known.then == "run",
    )  # fmt: skip


def after_success(health: Health, *, started: datetime) -> Health:
    """Open again; but what was started before the hold says nothing about it."""
    if health.since is not None and started < health.since:
        return health
    return Health()


def is_limited(health: Health) -> bool:
    """Held back by a limit: that outlasts a restart of the loop, while a person may have mended anything else."""
    return health.failure is not None and row(health.failure).is_limit


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


CUT_OFF = (
    "The last attempt was cut off by a limit of its runtime, in the middle of its work. What it had done until then "
    "is in your tree: look at it, and go on from there. If it is complete as it is, answer no_change."
)


def _jitter(most: timedelta, seed: str) -> timedelta:
    return most * (int.from_bytes(hashlib.sha256(seed.encode("utf-8", "replace")).digest()[:4]) / 2**32)
