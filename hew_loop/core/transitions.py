"""Fold events into the state. Used live and on replay, so both see the same run (P12)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

from hew_loop.core import events as ev
from hew_loop.core import retry
from hew_loop.core.actions import (
    Action,
    AskPlanner,
    Claim,
    CloseTask,
    FileBug,
    ReleaseTask,
    Remember,
    RunGate,
    StartIteration,
)
from hew_loop.core.actions import Verify as VerifyAction
from hew_loop.core.merge_queue import MergeQueue
from hew_loop.core.names import slug
from hew_loop.core.state import (
    BatchFacts,
    DeliveryFacts,
    GateFacts,
    Iteration,
    RunState,
    Suggestion,
    TaskRecord,
    VerifyFacts,
    View,
)
from hew_loop.core.transitions_iteration import end_iteration, spend
from hew_loop.core.transitions_landing import chain_built, gate_broken, gate_ended, landed, note

K = TypeVar("K")
V = TypeVar("V")


def replay(journal: Iterable[ev.Stamped]) -> RunState:
    """The state after these events. Raises ValueError when the first is not RunStarted."""
    lines = iter(journal)
    first = next(lines, None)
    if first is None or not isinstance(first.event, ev.RunStarted):
        raise ValueError("a journal begins with run_started")
    state = begin(first)
    for stamped in lines:
        state = apply(state, stamped)
    return state


def begin(stamped: ev.Stamped) -> RunState:
    start = stamped.event
    if not isinstance(start, ev.RunStarted):
        raise ValueError("a journal begins with run_started")
    return RunState(
        start=start,
        started_at=stamped.at,
        now=stamped.at,
        seq=stamped.seq,
        queue=MergeQueue(tip=start.base),
        launch_expected=start.launch_commit,
        step_until=0 if start.policy.step else None,
        onto=start.launch_branch if start.policy.deliver == "merge" else None,
    )


def apply(state: RunState, stamped: ev.Stamped) -> RunState:
    """The state after one more event; `state` is left as it is."""
    state = replace(state, now=stamped.at, seq=stamped.seq)
    event = stamped.event
    if isinstance(event, ev.Intended):
        return _intend(state, event)
    n = getattr(event, "n", None)
    action = state.intents.get(n) if n is not None else None
    if n is not None:
        if action is None:
            return state  # a result that came twice changes nothing
        state = replace(state, intents=_without(state.intents, n))
    match event:
        case ev.Resumed():
            return _resume(state, event)
        case ev.Abandoned():
            return _abandon(state, action)
        case ev.ViewRead():
            return _view(state, event)
        case ev.ViewFailed():
            failed = replace(state, view_failures=state.view_failures + 1, view_failed_at=state.now)
            return note(failed, f"tracker: {event.message}")
        case ev.Claimed() | ev.ClaimRefused():
            return _claim_ended(state, action, event)
        case ev.IterationEnded():
            return end_iteration(state, action, event.result) if isinstance(action, StartIteration) else state
        case ev.BatchPlanned():
            return _batch(state, event)
        case ev.ChainBuilt():
            return chain_built(state, event)
        case ev.GateEnded():
            return gate_ended(state, action, event)
        case ev.Landed():
            return landed(state, action)
        case ev.IntegrationFailed():
            return gate_broken(_abandon(state, action), event.message)
        case ev.LandRefused():
            refused = replace(state, queue=replace(state.queue, tip=event.tip, chain=None))
            return refused if event.found is None else note(refused, _moved_by_others(event.found))
        case _:
            return _late(state, action, event)


def _late(state: RunState, action: Action | None, event: ev.Event) -> RunState:
    """Events of the tracker and of the end of the run."""
    match event:
        case ev.TaskClosed() | ev.TaskReleased() | ev.BugFiled() | ev.TrackerWriteFailed():
            return _tracker_write(state, action, event)
        case ev.Remembered():
            text = action.text if isinstance(action, Remember) else ""
            state = replace(state, remembered=state.remembered | {text})
            return note(state, f"tracker: not remembered: {event.problem}") if event.problem else state
        case ev.Verified():
            facts = VerifyFacts(
                action.commit if isinstance(action, VerifyAction) else "",
                event.verdict, event.reason, event.command, event.log, event.tail, event.duration_s,
            )  # fmt: skip
            return replace(state, verify=facts)
        case ev.Delivered():
            return replace(state, delivery=DeliveryFacts("merged", event.commit), launch_expected=event.commit)
        case ev.LaunchMoved():
            if state.gate_broken:
                text = "the launch branch moved during the run, and the gate that its merge needs does not run"
                return replace(state, delivery=DeliveryFacts("refused", reason=text))
            return replace(state, launch_tip=event.tip, verify=None)
        case ev.DeliveryRefused():
            return replace(state, delivery=DeliveryFacts("refused", reason=event.reason))
        case ev.StopRequested():
            return replace(state, stop_request=_harder(state.stop_request, event))
        case ev.Stopping():
            return replace(state, stopping=event.reason, stop_detail=event.detail)
        case ev.Suspended():
            return replace(state, suspended=event.why)
        case ev.Noticed():
            return note(state, event.text, event.iterations)
        case ev.RunEnded():
            return replace(state, exit_code=event.exit_code)
        case _:
            return state


def _harder(old: ev.StopRequested | None, new: ev.StopRequested) -> ev.StopRequested:
    """A drain does not take back a `now`, and a stop file does not hide a person's cancel."""
    if old is None or (new.how == "now" and old.how == "drain"):
        return new
    return new if old.how == new.how and old.by == "stop_file" else old


def _resume(state: RunState, event: ev.Resumed) -> RunState:
    """A resumed run forgets why it stopped; one that is only settled stops as cancelled. Refusals are tried again."""
    reason = (state.stopping or "cancelled") if event.settle else None
    detail = (state.stop_detail or "it died, and was settled later") if event.settle else ""
    refused = state.delivery is not None and state.delivery.state == "refused"
    if event.cut_bytes:
        torn = f"the last line of the journal was torn, and has been cut off ({event.cut_bytes} bytes)"
        state = note(state, torn)
    return replace(
        state,
        settle=event.settle,
        step_until=len(state.iterations) + 1 if state.policy.step else None,
        suspended="",
        resumes=state.resumes + 1,
        onto=event.onto or state.onto,
        stop_request=None,
        stopping=reason,
        stop_detail=detail,
        delivery=None if refused or event.onto or not event.settle else state.delivery,
        verify=None,
        view=None,
        refused={},
        gate_broken=False,
        # One that did not pass may have been cut off by the stop itself, or been mended outside of the tree since.
        base_gate=state.base_gate if event.settle or state.base_verdict in ("passed", "not_tested") else None,
        view_failures=0,
        write_failures=0,
        failures_in_a_row=0,
        # A limit outlasts a restart; whatever else there was, a person may have mended.
        health={name: replace(h, is_broken=False) for name, h in state.health.items() if retry.is_limited(h)},
        planner_asked_at=None,
        exit_code=None,
    )


def _intend(state: RunState, event: ev.Intended) -> RunState:
    action = event.action
    state = replace(state, intents={**state.intents, event.n: action}, next_n=event.n + 1)
    match action:
        case Claim():
            return _claim_begun(state, action)
        case StartIteration(spec=spec):
            record = replace(
                state.records[spec.task],
                phase="running", slot=spec.slot, attempts=spec.attempt,
                iterations=(*state.records[spec.task].iterations, spec.number),
            )  # fmt: skip
            iteration = Iteration(spec, action.why, action.batch, state.now)
            return replace(
                state,
                records={**state.records, spec.task: record},
                iterations={**state.iterations, spec.number: iteration},
                suggestion=_left(state.suggestion, (spec.task,)),
            )
        case AskPlanner():
            return replace(state, planner_asked_at=state.now)
        case RunGate():
            facts = GateFacts(action.number, action.purpose, action.commit, action.entries, state.now)
            state = replace(state, gates={**state.gates, action.number: facts})
            return replace(state, base_gate=facts) if action.purpose == "base" else state
        case ReleaseTask():
            record = state.records[action.task]
            record = replace(record, phase="releasing", then=record.then or "returned")
            return replace(state, records={**state.records, action.task: record})
        case _:
            return state


def _claim_begun(state: RunState, action: Claim) -> RunState:
    """A task that was given back is taken up again where it was left: attempts, work and evidence stay."""
    old = state.records.get(action.task)
    if old is not None:
        record = replace(
            old, phase="claiming", actor=action.actor, slot=action.slot, why=action.why, batch=action.batch, then=""
        )
        return replace(state, records={**state.records, action.task: record})
    record = TaskRecord(
        action.task, "claiming", action.actor, action.slot, action.why, action.batch,
        carry=dict(state.start.carries).get(slug(action.task)),
    )  # fmt: skip
    return replace(
        state,
        records={**state.records, action.task: record},
        new_started=state.new_started + (action.task not in state.initial),
    )


def _unclaimed(state: RunState, task_id: str) -> RunState:
    """The claim was not made after all."""
    record = state.records[task_id]
    if record.iterations:
        returned = replace(record, phase="returned", then="returned")
        return replace(state, records={**state.records, task_id: returned})
    return replace(
        state,
        records=_without(state.records, task_id),
        new_started=state.new_started - (task_id not in state.initial),
    )


def _to_be_released(state: RunState, task_id: str) -> RunState:
    record = replace(state.records[task_id], phase="releasing", then="returned")
    return replace(state, records={**state.records, task_id: record})


def _abandon(state: RunState, action: Action | None) -> RunState:
    """As if it had not been intended."""
    if isinstance(action, Claim):
        return _unclaimed(state, action.task)
    if isinstance(action, RunGate) and action.purpose == "base":
        return replace(state, base_gate=None)
    return state


def _view(state: RunState, event: ev.ViewRead) -> RunState:
    """Take the tracker's word, but for what we wrote after its read began."""
    newer = {t for t, at in state.written.items() if at >= event.began_at}
    put = [t for t in event.changed if t.id not in newer]
    closed = {t.id for t in put if t.is_closed and not _was_closed(state, t.id)}
    ours = {r.task for r in state.records.values() if r.phase in ("done", "unchanged")}
    alive = state.alive()
    backlog = state.backlog.changed(put, event.removed) if put or event.removed else state.backlog
    new = replace(
        state,
        backlog=backlog,
        view=View((state.view.number if state.view else 0) + 1, event.began_at),
        view_failures=0,
        closed_meanwhile={**state.closed_meanwhile, **{t: alive for t in closed - ours if alive}},
        suggestion=_left(state.suggestion, [*closed, *event.removed]),
    )
    if state.view is None and not state.initial:
        scope = state.policy.scope
        return replace(
            new,
            initial=frozenset(
                t.id for t in backlog.tasks.values() if not t.is_closed and backlog.is_in_scope(t.id, scope)
            ),
        )
    return new


def _was_closed(state: RunState, task_id: str) -> bool:
    old = state.backlog.tasks.get(task_id)
    return old is None or old.is_closed


def _claim_ended(state: RunState, action: Action | None, event: ev.Event) -> RunState:
    if not isinstance(action, Claim):
        return state
    if isinstance(event, ev.ClaimRefused):
        number = state.view.number if state.view else 0
        state = replace(
            _to_be_released(state, action.task) if event.unclear else _unclaimed(state, action.task),
            refused={**state.refused, action.task: number},
            last_write_at=state.now,
        )
        if event.tracker_failed:
            return replace(state, write_failures=state.write_failures + 1, write_failed_at=state.now)
        return replace(state, refusals={**state.refusals, action.task: state.refusals.get(action.task, 0) + 1})
    record = replace(state.records[action.task], phase="claimed")
    task = state.backlog.tasks.get(action.task)
    backlog = state.backlog
    if task is not None:
        backlog = backlog.taken(replace(task, status="in_progress", assignee=action.actor))
    state = replace(state, backlog=backlog, records={**state.records, action.task: record}, write_failures=0)
    return _wrote(state, action.task)


def _batch(state: RunState, event: ev.BatchPlanned) -> RunState:
    facts = BatchFacts(
        event.number, event.source, event.task_ids, event.dropped, event.reason, event.after, state.now,
        event.covers, event.usage, event.took_s, event.model, event.cost_usd,
    )  # fmt: skip
    state = replace(state, batches=(*state.batches, facts))
    ran = event.took_s is not None
    state = spend(state, usage=event.usage, cost_usd=event.cost_usd, model=event.model, ran=ran)
    if event.source == "skipped" or not event.task_ids:
        return state
    tasks = state.backlog.tasks
    gone = [t for t in event.task_ids if t in state.records or t not in tasks or tasks[t].is_closed]
    return replace(state, suggestion=_left(Suggestion(event.number, event.source, event.task_ids), gone))


def _tracker_write(state: RunState, action: Action | None, event: ev.Event) -> RunState:
    if not isinstance(action, CloseTask | ReleaseTask | FileBug):
        return state
    record = state.records[action.task]
    if isinstance(event, ev.TrackerWriteFailed):
        failed = replace(state, write_failures=state.write_failures + 1, write_failed_at=state.now)
        return note(failed, f"tracker: {event.message}")
    state = replace(state, write_failures=0)
    if isinstance(event, ev.BugFiled):
        record = replace(record, phase="releasing", then="parked", bug=event.bug)
        return replace(state, records={**state.records, action.task: record}, last_write_at=state.now)
    task = state.backlog.tasks.get(action.task)
    if isinstance(event, ev.TaskClosed):
        phase = "done" if record.phase == "landed" else "unchanged"
        changed = replace(task, status="closed", assignee="") if task else None
    else:
        # A landing that was in flight when it was given back has overtaken it: the task is still to be closed.
        phase = record.then or "returned" if record.phase == "releasing" else record.phase
        changed = replace(task, status="open", assignee="") if task else None
    backlog = state.backlog.changed((changed,)) if changed else state.backlog
    records = {**state.records, action.task: replace(record, phase=phase)}
    return _wrote(replace(state, backlog=backlog, records=records), action.task)


def _wrote(state: RunState, task_id: str) -> RunState:
    return replace(state, last_write_at=state.now, written={**state.written, task_id: state.now})


def _moved_by_others(found: str) -> str:
    what = f"was moved to {found[:12]}" if found else "was deleted"
    return f"the private integration ref {what} by something else than this run, and has been put back"


def _left(suggestion: Suggestion | None, gone: Iterable[str]) -> Suggestion | None:
    """The suggestion without these ids; an empty one is no longer in force."""
    if suggestion is None:
        return None
    leaving = set(gone)
    ids = tuple(t for t in suggestion.ids if t not in leaving)
    return replace(suggestion, ids=ids) if ids else None


def _without(mapping: Mapping[K, V], key: K) -> dict[K, V]:
    return {k: v for k, v in mapping.items() if k != key}
