"""What became of intents whose results were never journalled: look for their effect, then record it or do it again.

The crash table of architecture.md as data. The engine (and the simulated world of the tests) looks; this decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hew_loop.core import actions as ac
from hew_loop.core import events as ev
from hew_loop.core.iteration import IterationResult
from hew_loop.core.state import RunState

Look = Literal["nothing", "claim", "iteration", "tip", "status"]

CRASH_TABLE: dict[type, Look] = {
    ac.ReadTasks: "nothing",  # reads leave nothing behind
    ac.Claim: "claim",  # the claim in the tracker, by our actor name
    ac.AskPlanner: "nothing",  # its process died with the loop; a batch plan that was skipped
    ac.StartIteration: "iteration",  # lease and branch: stop the group, salvage the tree
    ac.BuildChain: "nothing",  # the same dates give the same candidate ids
    ac.RunGate: "nothing",
    ac.Land: "tip",  # is the candidate an ancestor of the integration tip?
    ac.CloseTask: "status",
    ac.ReleaseTask: "nothing",  # releasing twice is the same as once
    ac.FileBug: "nothing",  # its external_ref finds the first one
    ac.Remember: "nothing",  # the same text is kept once
    ac.Verify: "nothing",
    ac.Deliver: "nothing",  # a branch that contains the commit is delivered
}


@dataclass(frozen=True, slots=True)
class Found:
    """What was found of one intent: `exists` means that its effect is there."""

    exists: bool = False
    result: IterationResult | None = None
    """Of a lost iteration: what was salvaged."""


def looks(state: RunState) -> tuple[tuple[int, ac.Action, Look], ...]:
    """The open intents in order, and what to look for."""
    return tuple((n, action, CRASH_TABLE[type(action)]) for n, action in sorted(state.intents.items()))


def settled(n: int, action: ac.Action, found: Found) -> ev.Event:
    """The event that closes the open intent `n`."""
    match action:
        case ac.StartIteration():
            lost = IterationResult("failed", "lost", "the loop died while it ran", start=action.spec.base)
            return ev.IterationEnded(n, found.result or lost)
        case ac.AskPlanner():
            # Nobody knows what it used, which is not nothing.
            reason = "runtime_error: lost: the loop died while it ran"
            return ev.BatchPlanned(
                action.number, "skipped", reason=reason, after=action.after, covers=action.covers, n=n, took_s=0.0
            )
        case ac.Claim() if found.exists:
            return ev.Claimed(n)
        case ac.Land() if found.exists:
            return ev.Landed(n)
        case ac.CloseTask() if found.exists:
            return ev.TaskClosed(n)
        case _:
            return ev.Abandoned(n)
