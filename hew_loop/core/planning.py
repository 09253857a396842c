"""Batch plans: one for what each agent suggested, and a planner's for those that ended in silence.

A planner only suggests. It is asked when there is a choice to make and no suggestion in force that names something
startable; a free slot waits for it for a short while only, and not at all once it was too slow, failed or of no use.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import Final

from hew_loop.core import events as ev
from hew_loop.core import runtime_choice
from hew_loop.core.actions import AskPlanner
from hew_loop.core.startable import startable
from hew_loop.core.state import BatchFacts, RunState

MAX_FAILURES: Final = 3
"""A planner that fails so often in a row is not asked again in this run."""

DISABLED: Final = "planner_disabled"
NO_CHOICE: Final = "no_choice"
"""Until the run ended there were never more startable tasks than free slots."""


def plan(state: RunState, now: datetime) -> Sequence[AskPlanner | ev.BatchPlanned]:
    """What the agents suggested, one at a time; then one question to the planner for all that said nothing."""
    number = _next_number(state)
    open_ = _unplanned(state)
    for n in open_:
        if (said := _said(state, n)) is not None:
            known = state.backlog.tasks
            ids, dropped = tuple(t for t in said if t in known), tuple(t for t in said if t not in known)
            return (ev.BatchPlanned(number, "agent", ids, dropped, after=n),)
    if not open_:
        return ()
    runtime = state.policy.planner_runtime
    if runtime is None or _has_given_up(state):
        why = DISABLED if runtime is None else f"{DISABLED}: it failed {MAX_FAILURES} times in a row"
        return (ev.BatchPlanned(number, "skipped", reason=why, after=open_[0]),)
    *covers, newest = open_
    if state.flying(AskPlanner):
        return ()
    if state.stopping:
        return (ev.BatchPlanned(number, "skipped", reason=NO_CHOICE, after=newest, covers=tuple(covers)),)
    if not _has_choice(state, now):
        return ()
    health = state.health.get(runtime)
    if health is not None and (health.given_up or health.until is not None):
        # Behind a hold it is tried with one start, and that is an iteration's.
        reason = f"{DISABLED}: {runtime} is held back: {health.reason}"
        return (ev.BatchPlanned(number, "skipped", reason=reason, after=newest, covers=tuple(covers)),)
    return (AskPlanner(number, runtime, newest, tuple(covers)),)


def is_awaited(state: RunState, now: datetime) -> bool:
    """A slot that would take a task now waits for the planner instead, which may advise against that task."""
    until = _awaited_until(state)
    return until is not None and now < until and _has_choice(state, now)


def wakes(state: RunState) -> Sequence[datetime]:
    """When a free slot no longer waits."""
    until = _awaited_until(state)
    return () if until is None else (until,)


def is_failure(batch: BatchFacts) -> bool:
    """A planner was asked in vain."""
    return batch.source == "skipped" and batch.reason.startswith(("runtime_error", "parse_error"))


def _awaited_until(state: RunState) -> datetime | None:
    if state.planner_asked_at is None or not state.flying(AskPlanner) or _was_in_vain(state):
        return None
    return state.planner_asked_at + timedelta(seconds=state.policy.planner.wait_s)


def _was_in_vain(state: RunState) -> bool:
    """The last one was too slow, failed, or named nothing that was started: nobody waits for the next one."""
    last = next((b for b in reversed(state.batches) if b.took_s is not None), None)
    if last is None:
        return False
    is_slow = is_failure(last) or (last.took_s or 0.0) > state.policy.planner.wait_s
    return is_slow or all(r.batch != last.number for r in state.records.values())


def _has_given_up(state: RunState) -> bool:
    asked = [b for b in state.batches if b.source == "planner" or is_failure(b)][-MAX_FAILURES:]
    return len(asked) == MAX_FAILURES and all(map(is_failure, asked))


def _has_choice(state: RunState, now: datetime) -> bool:
    """A slot is free, more tasks could start than slots are free, and nothing in force says which."""
    if state.view is None or not (free := len(runtime_choice.open_slots(state, now))):
        return False
    if state.suggestion is not None:
        named = frozenset(state.suggestion.ids)
        if any(t.id in named for t in startable(state, now)):
            return False
    return len(list(islice(startable(state, now), free + 1))) > free


def _next_number(state: RunState) -> int:
    """Behind those that were made and the one that is asked for: an agent may suggest while a planner thinks."""
    asked = (action.number for action in state.intents.values() if isinstance(action, AskPlanner))
    return max((*(batch.number for batch in state.batches), *asked), default=0) + 1


def _unplanned(state: RunState) -> tuple[int, ...]:
    """Finished iterations without a batch plan, oldest first."""
    planned = {n for b in state.batches for n in (b.after, *b.covers)}
    return tuple(n for n, i in state.iterations.items() if i.result is not None and n not in planned)


def _said(state: RunState, number: int) -> tuple[str, ...] | None:
    result = state.iterations[number].result
    return result.next_iteration if result else None
