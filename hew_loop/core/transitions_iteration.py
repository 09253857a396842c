"""What the end of an iteration, or its way back from the merge queue, does to its task."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from hew_loop.core import retry, runtime_choice
from hew_loop.core.actions import LAUNCH, StartIteration
from hew_loop.core.iteration import IterationResult, Usage
from hew_loop.core.prices import estimated_usd
from hew_loop.core.state import DeliveryFacts, Fate, Iteration, Notice, RunState, Spend, TaskRecord

MAX_EVIDENCE = 4
"""So many of the newest pieces of evidence go into a retry's prompt."""

PARK_KIND = {"conflict": "merge-conflict", "gate_failed": "gate-failed", "refused": "agent-failed"}


def end_iteration(state: RunState, action: StartIteration, result: IterationResult) -> RunState:
    """The agent is gone; its slot is free at once."""
    spec = action.spec
    iteration = replace(state.iterations[spec.number], ended_at=state.now, result=result)
    record = replace(state.records[spec.task], summary=result.summary or state.records[spec.task].summary)
    state = spend(
        state,
        usage=result.usage,
        cost_usd=result.cost_usd,
        model=result.model or spec.model,
        ran=result.has_run,
    )
    for warning in result.warnings:
        state = replace(state, notices=(*state.notices, Notice(state.now, warning, (spec.number,))))
    if model := _other_model(state, record, iteration):
        return _put(state, replace(_cut_off(record, iteration, result), model=model), iteration, "failed")
    state = runtime_choice.after_iteration(state, iteration, result)
    match result.outcome:
        case "done" if result.head:
            queue = replace(state.queue, waiting=(*state.queue.waiting, spec.number))
            record = replace(record, phase="waiting", carry=result.head, lost=0)
            return _put(replace(state, queue=queue), record, iteration, "waiting")
        case "no_change" if state.policy.accept_no_change:
            record = replace(record, phase="accepted", lost=0)
            return _put(replace(state, failures_in_a_row=0), record, iteration, "unchanged")
        case "blocked":
            reason = result.message or result.summary or "the agent says that it cannot go on"
            record = replace(record, phase="parking", kind="blocked", reason=reason)
            return _put(state, record, iteration, "failed")
        case "no_change":
            refused = replace(result, failure="no_diff", message="no_change is not accepted here")
            return _failed(state, record, iteration, refused)
        case _:
            return _failed(state, record, iteration, result)


def send_back(
    state: RunState,
    number: int,
    why: Literal["conflict", "gate_failed", "refused", "withdrawn"],
    reason: str,
    *,
    files: tuple[str, ...] = (),
    tail: str = "",
) -> RunState:
    """A finished iteration does not land: its task is tried again with the evidence, parked, or left to a person."""
    if number == LAUNCH:
        return _launch_failed(state, why, reason, files)
    iteration = replace(state.iterations[number], note=reason)
    record = state.records[iteration.spec.task]
    if why == "withdrawn":
        return _put(state, _withdrawn(record, reason), iteration, "withdrawn")
    if why == "conflict":
        evidence = f"Your work conflicts with what landed meanwhile, in: {', '.join(files)}. The merge is in progress."
    elif why == "gate_failed":
        evidence = (
            f"Merged with what landed meanwhile, your work fails the gate ({reason}). Its output ends with:\n{tail}"
        )
    else:
        evidence = f"Your work could not be taken: {reason}. Start again from the tree that you find."
        record = replace(record, carry=None)
    if why != "conflict":
        state = replace(state, failures_in_a_row=state.failures_in_a_row + 1)
    detail = f"{reason}: {', '.join(files)}" if files else reason
    record = _try_again(state, record, evidence, kind=PARK_KIND[why], reason=detail)
    return _put(state, record, iteration, why)


def _failed(state: RunState, record: TaskRecord, iteration: Iteration, result: IterationResult) -> RunState:
    failure = result.failure or "unknown"
    evidence = retry.evidence_of(result, iteration.spec.branch)
    iteration = replace(iteration, note=result.message)
    row = retry.row(failure)
    then = row.then
    if runtime_choice.blames_the_task(state, record, iteration):
        then, record = "task", replace(record, used=state.policy.attempts - 1)
    match then:
        case "later" if not (result.sound and iteration.has_work):
            record = replace(record, phase="retry", evidence=_newest(record, evidence))
        case "later" | "run":
            record = _cut_off(record, iteration, result)
        case "cancelled":
            record = replace(record, phase="retry")
        case "withdrawn":
            return _put(state, _withdrawn(record, result.message), iteration, "withdrawn")
        case "lost":
            record = replace(record, phase="retry", lost=record.lost + 1)
            if record.lost >= retry.MAX_LOST_IN_A_ROW:
                reason = f"{record.lost} iterations in a row were lost because the loop itself died"
                record = replace(record, phase="parking", kind="agent-failed", reason=reason)
        case "task" | "park":
            state = replace(state, failures_in_a_row=state.failures_in_a_row + 1)
            kind = "merge-conflict" if failure == "unmerged" else "agent-failed"
            reason = f"{failure}: {result.message}" if result.message else failure
            record = _try_again(state, replace(record, lost=0), evidence, kind=kind, reason=reason)
            if record.phase != "parking" and row.most is not None and _times(state, record, failure) >= row.most - 1:
                record = replace(record, phase="parking", kind=kind)
    return _put(state, record, iteration, "failed")


def _cut_off(record: TaskRecord, iteration: Iteration, result: IterationResult) -> TaskRecord:
    """It ended without the task's fault, perhaps in the middle: what it had committed is not paid twice."""
    if not result.sound or not iteration.has_work:
        return replace(record, phase="retry")
    return replace(record, phase="retry", carry=result.head, evidence=_newest(record, retry.CUT_OFF))


def _other_model(state: RunState, record: TaskRecord, iteration: Iteration) -> str | None:
    """The model with which the task goes on at once, because its own is overloaded or not known to the server."""
    spec, result, other = iteration.spec, iteration.result, state.policy.model.fallback
    if other is None or record.model is not None or spec.runtime != state.policy.runtime:
        return None
    if result is None or result.failure is None or result.model == other or not retry.row(result.failure).other_model:
        return None
    return other


def _try_again(state: RunState, record: TaskRecord, evidence: str, *, kind: str, reason: str) -> TaskRecord:
    record = replace(record, used=record.used + 1, evidence=_newest(record, evidence))
    if record.used >= state.policy.attempts:
        return replace(record, phase="parking", kind=kind, reason=reason)
    # What was given back while it waited is claimed anew before its next attempt.
    return replace(record, phase="returned" if record.phase == "returned" else "retry", reason=reason)


def _withdrawn(record: TaskRecord, reason: str) -> TaskRecord:
    """A person took the task back; the claim, as far as it is still ours, goes back too."""
    return replace(record, phase="releasing", then="withdrawn", reason=reason)


def _launch_failed(state: RunState, why: str, reason: str, files: tuple[str, ...]) -> RunState:
    what = f"conflicts in {', '.join(files)}" if files else reason
    text = f"the launch branch moved during the run, and merging it back {why.replace('_', ' ')}: {what}"
    return replace(state, launch_tip=None, delivery=DeliveryFacts("refused", reason=text))


def _newest(record: TaskRecord, evidence: str) -> tuple[str, ...]:
    return (*record.evidence, evidence)[-MAX_EVIDENCE:]


def _put(state: RunState, record: TaskRecord, iteration: Iteration, fate: Fate) -> RunState:
    return replace(
        state,
        records={**state.records, record.task: record},
        iterations={**state.iterations, iteration.spec.number: replace(iteration, fate=fate)},
    )


def spend(state: RunState, *, usage: Usage | None, cost_usd: float | None, model: str | None, ran: bool) -> RunState:
    """With what one agent process used; `ran`: there was one, so that what it does not tell is unknown, not zero."""
    spent = state.spend
    estimate = estimated_usd(state.policy, model, usage) if cost_usd is None else None
    return replace(
        state,
        spend=Spend(
            usage=spent.usage + usage if usage else spent.usage,
            cost_usd=spent.cost_usd + (cost_usd or 0.0),
            unknown_usage=spent.unknown_usage + (ran and usage is None),
            unknown_cost=spent.unknown_cost + (ran and cost_usd is None and estimate is None),
            estimated_usd=spent.estimated_usd + (estimate or 0.0),
        ),
    )


def _times(state: RunState, record: TaskRecord, failure: str) -> int:
    """How often the task's iterations before this one ended so."""
    results = (state.iterations[n].result for n in record.iterations[:-1])
    return sum(result is not None and result.failure == failure for result in results)
