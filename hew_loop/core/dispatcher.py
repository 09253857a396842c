"""What to do next: an ordered list of small rules, read top down; the first that says something is followed.

The engine asks again until no rule says anything, so each rule sees the state with the intents of those before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from itertools import islice

from hew_loop.core import budget, memories, merge_queue, picking, planning, runtime_choice
from hew_loop.core import events as ev
from hew_loop.core.actions import (
    LAUNCH,
    Action,
    BuildChain,
    ChainEntry,
    CloseTask,
    Deliver,
    FileBug,
    Land,
    ReadTasks,
    ReleaseTask,
    Remember,
    RunGate,
    StartIteration,
    Verify,
)
from hew_loop.core.iteration import IterationSpec
from hew_loop.core.names import branch_name
from hew_loop.core.outcome import close_reason, exit_code, park_bug, release_note
from hew_loop.core.startable import is_cooling, lacks, startable, unfinished
from hew_loop.core.state import RunState, TaskRecord
from hew_loop.errors import EXIT_BUG

Decision = Action | ev.BatchPlanned | ev.Stopping | ev.Suspended | ev.RunEnded

MAX_VIEW_FAILURES = 4
MAX_WRITE_FAILURES = 5
RETRY_WRITE_S = (1.0, 2.0, 4.0, 8.0, 16.0)
GATHER_S = 0.3
"""So long a gate waits for iterations that end together with the first that is ready: one gate run for all of them."""


def decide(state: RunState, now: datetime) -> Sequence[Decision]:
    """The next decisions, in order; empty when there is nothing to do before another event or `next_wake`."""
    if state.ended or state.suspended:
        return ()
    for rule in RULES:
        if decisions := rule(state, now):
            return decisions
    return ()


def next_wake(state: RunState, now: datetime) -> datetime | None:
    """The earliest time at which `decide` may say something new without an event."""
    times: list[datetime] = []
    if state.write_failures:
        times.append(_write_due(state))
    times += runtime_choice.wakes(state)
    times += planning.wakes(state)
    if not state.stopping:
        if (end := budget.wall_end(state)) is not None:
            times.append(end)
        if (state.view is None or state.free_slots()) and not state.flying(ReadTasks):
            times.append(_next_poll(state))
    elif state.view_failures:
        times.append(_next_poll(state))
    times.append(_gathered_at(state))
    return min((t for t in times if t > now), default=None)


def stop(state: RunState, now: datetime) -> Sequence[Decision]:
    """Stop for the first reason in the order of precedence (product.md §3); a cancel outranks what came before it."""
    if state.stop_request is not None and state.stopping != "cancelled":
        reason = "stop_file" if state.stop_request.by == "stop_file" else "cancelled"
        if not state.stopping or reason == "cancelled":
            return (ev.Stopping(reason, state.stop_request.by),)
    if state.stopping:
        return ()
    if over := budget.exceeded(state, now):
        return (ev.Stopping(*over),)
    if reason := runtime_choice.given_up(state):
        return (ev.Stopping("runtime_error", reason),)
    if state.view_failures >= MAX_VIEW_FAILURES or state.write_failures >= MAX_WRITE_FAILURES:
        return (ev.Stopping("tracker_error", state.notices[-1].text if state.notices else ""),)
    gate = state.base_gate
    if gate is not None and gate.verdict in ("failed", "could_not_run"):
        verb = "fails" if gate.verdict == "failed" else "does not run"
        return (ev.Stopping("gate_error", f"the gate {verb} on the base commit: {gate.reason}"),)
    if state.failures_in_a_row >= state.policy.guard_trip:
        return (ev.Stopping("guard_trip", f"{state.failures_in_a_row} failures in a row"),)
    return ()


def land(state: RunState, now: datetime) -> Sequence[Decision]:
    """Take the merge queue one step further."""
    if state.stop_now or state.gate_broken or state.flying(BuildChain, RunGate, Land):
        return ()
    queue = state.queue
    if queue.chain is None and not queue.waiting and state.launch_tip is not None:
        head = state.launch_tip
        return (BuildChain(queue.tip, (ChainEntry(LAUNCH, "", head, head),)),)
    match merge_queue.next_step(queue, gated=bool(state.policy.gate.commands)):
        case merge_queue.Build() if now < _gathered_at(state):
            return ()
        case merge_queue.Build(entries):
            return (BuildChain(queue.tip, tuple(_chain_entry(state, n) for n in entries)),)
        case merge_queue.Gate(link, purpose, entries) as gate:
            commit, tree = (link.commit, link.tree) if link else (queue.tip, "")
            number = len(state.gates) + 1
            return (RunGate(number, commit, tree, purpose, entries, fresh=gate.fresh),)
        case merge_queue.LandPrefix(link, entries):
            return (Land(queue.tip, link.commit, entries),)
        case None:
            return ()


def settle(state: RunState, now: datetime) -> Sequence[Decision]:
    """Tell the tracker what became of the tasks."""
    if state.write_failures >= MAX_WRITE_FAILURES or now < _write_due(state):
        return ()
    busy = state.busy_tasks()
    decisions = (_tell_tracker(state, r) for r in state.records.values() if r.task not in busy)
    return tuple(d for d in decisions if d is not None)


def remember(state: RunState, now: datetime) -> Sequence[Decision]:
    """One memory at a time; a tracker that fails is not asked to keep any."""
    if state.flying(Remember) or state.stop_now or state.stopping == "tracker_error" or now < _write_due(state):
        return ()
    return tuple(islice(memories.due(state), 1))


def start(state: RunState, now: datetime) -> Sequence[Decision]:
    """Fill free slots: what is claimed, then what went back, then new tasks from the suggestion or the graph."""
    if state.stopping or state.view is None or (runtime := runtime_choice.choose(state, now)) is None:
        return ()
    claimed = [r for r in state.in_phase("claimed") if not lacks(state, r.task)]
    if claimed and state.iterations_left() > 0:
        return (_start(state, claimed[0], claimed[0].slot, runtime),)
    free = runtime_choice.open_slots(state, now)
    if not free:
        return ()
    # Who was tried longest ago: a task whose own fault an outage is must not be all that a runtime is tried with.
    back = sorted(picking.retries(state), key=lambda r: r.iterations[-1:])
    if back and not (_is_in_vain(state, back[0], runtime) and any(startable(state, now))):
        return (_start(state, back[0], free[0], runtime),)
    if now < _write_due(state) or planning.is_awaited(state, now):
        return ()
    chosen = picking.wanted(state, now, len(free))
    if chosen and state.policy.gate.commands and state.base_verdict is None:
        return _gate_base(state)
    return tuple(picking.claims(state, chosen, free))


def read(state: RunState, now: datetime) -> Sequence[Decision]:
    """Look at the tracker: at first, while a slot is free, and before the run may say that nothing is left."""
    if state.flying(ReadTasks) or state.stopping == "tracker_error":
        return ()
    if state.view is None:
        return (ReadTasks(),) if now >= _view_due(state) and not state.stopping else ()
    if state.stopping:
        return ()
    idle = not unfinished(state) and not state.at_work
    if (idle and _is_stale(state) and now >= _view_due(state)) or (state.free_slots() and now >= _next_poll(state)):
        return (ReadTasks(),)
    return ()


def suspend(state: RunState, now: datetime) -> Sequence[Decision]:
    """A step ends when its one iteration has landed or gone back, or when all that is left cools down."""
    if not state.policy.step or state.stopping or state.at_work or unfinished(state) or state.view is None:
        return ()
    if state.step_is_over:
        return (ev.Suspended("stepped" if state.step_until else "planned"),)
    waits = runtime_choice.choose(state, now) is None if any(startable(state, now)) else is_cooling(state)
    return (ev.Suspended("cooling"),) if waits else ()


def drained(state: RunState, now: datetime) -> Sequence[Decision]:
    """Nothing runs, waits or could start, and the tracker was looked at after our last write: the queue is empty."""
    if state.stopping or state.at_work or unfinished(state) or state.view is None or _is_stale(state):
        return ()
    waits = runtime_choice.choose(state, now) is None or now < _write_due(state)
    waits = waits or planning.is_awaited(state, now)
    if waits and any(startable(state, now)):
        return ()
    if any(startable(state, now)):
        return (ev.Stopping("stuck", "something could start, nothing is in flight, and no rule acts"),)
    if not state.policy.until_empty:
        return ()
    return (ev.Stopping("ready_empty"),)


def verify(state: RunState, now: datetime) -> Sequence[Decision]:
    """Test the integrated tree once everything has landed or gone back."""
    if not _at_rest(state) or not state.landed_something or not state.policy.verify.enabled:
        return ()
    if state.stop_now or state.delivery is not None:
        return ()
    if state.verify is None or state.verify.commit != state.queue.tip:
        return (Verify(state.queue.tip),)
    return ()


def deliver(state: RunState, now: datetime) -> Sequence[Decision]:
    """Bring the integration branch to the launch branch, unless verify says no."""
    if not _at_rest(state) or state.delivery is not None or not state.landed_something or state.stop_now:
        return ()
    if state.onto is None:
        return ()
    if state.verify is not None and state.verify.verdict in ("failed", "could_not_run"):
        return ()
    return (Deliver(state.onto, state.launch_expected, state.queue.tip),)


def finish(state: RunState, now: datetime) -> Sequence[Decision]:
    return (ev.RunEnded(exit_code(state)),) if _at_rest(state) else ()


def stuck(state: RunState, now: datetime) -> Sequence[Decision]:
    """Nothing is in flight, nothing is due, and no rule acts: a bug, said as one instead of hanging."""
    if state.intents or next_wake(state, now) is not None:
        return ()
    if state.stopping:
        return (ev.RunEnded(EXIT_BUG),)
    return (ev.Stopping("stuck", "tasks wait, nothing is in flight, and no rule acts"),)


Rule = Callable[[RunState, datetime], Sequence[Decision]]
RULES: tuple[Rule, ...] = (
    stop,
    land,
    settle,
    remember,
    planning.plan,
    start,
    suspend,
    read,
    drained,
    verify,
    deliver,
    finish,
    stuck,
)


def _at_rest(state: RunState) -> bool:
    """The run stops, and nothing of it is in flight or to be settled any more."""
    if not state.stopping or state.intents:
        return False
    if state.launch_tip is not None and not state.stop_now:
        return False
    return state.write_failures >= MAX_WRITE_FAILURES or not unfinished(state)


def _tell_tracker(state: RunState, record: TaskRecord) -> Decision | None:
    """What the tracker is still to be told about a task; a stopping run gives back what it will not try again."""
    match record.phase:
        case "landed" | "accepted":
            return CloseTask(record.task, close_reason(state, record))
        case "parking":
            title, description = park_bug(state, record)
            return FileBug(record.task, record.attempts, record.kind, title, description)
        case "releasing":
            return ReleaseTask(record.task, record.actor, release_note(state, record))
        case "retry" | "claimed" if state.stopping or state.step_is_over or lacks(state, record.task):
            return ReleaseTask(record.task, record.actor, release_note(state, record))
        case "waiting" if (state.stop_now or state.gate_broken) and not state.flying(Land):
            return ReleaseTask(record.task, record.actor, release_note(state, record))
        case _:
            return None


def _chain_entry(state: RunState, number: int) -> ChainEntry:
    iteration = state.iterations[number]
    result = iteration.result
    head = (result.head if result else None) or iteration.spec.base
    begun = (result.start if result else None) or iteration.spec.base
    return ChainEntry(number, iteration.spec.task, head, begun)


def _gate_base(state: RunState) -> Sequence[Decision]:
    if state.base_gate is not None or state.flying(RunGate):
        return ()
    return (RunGate(len(state.gates) + 1, state.start.base, "", "base"),)


def _start(state: RunState, record: TaskRecord, slot: int, runtime: str) -> StartIteration:
    attempt = record.attempts + 1
    spec = IterationSpec(
        run_id=state.run_id,
        number=len(state.iterations) + 1,
        task=record.task,
        attempt=attempt,
        slot=slot,
        base=state.queue.tip,
        branch=branch_name(state.run_id, record.task, attempt),
        actor=record.actor,
        runtime=runtime,
        model=record.model if runtime == state.policy.runtime else None,
        carry=record.carry,
        evidence=record.evidence,
    )
    return StartIteration(spec, record.why if attempt == 1 else "retry", record.batch if attempt == 1 else None)


def _is_in_vain(state: RunState, record: TaskRecord, runtime: str) -> bool:
    """The runtime was held back twice in a row, the last time by this task: another one may do better."""
    return runtime_choice.health_of(state, runtime).tries > 1 and record.iterations[-1:] == (len(state.iterations),)


def _gathered_at(state: RunState) -> datetime:
    """From when on a prefix is frozen: at once where nothing else runs or nothing is gated."""
    waiting = state.queue.waiting
    first = state.iterations[waiting[0]].ended_at if waiting else None
    if first is None or not state.policy.gate.commands or not state.flying(StartIteration):
        return state.started_at
    return first + timedelta(seconds=GATHER_S)


def _is_stale(state: RunState) -> bool:
    """The view began before our last write: what that write made ready may not be in it."""
    return state.last_write_at is not None and state.view is not None and state.view.began_at <= state.last_write_at


def _next_poll(state: RunState) -> datetime:
    began = state.view.began_at if state.view else state.started_at
    return _view_due(state) if state.view_failures else began + timedelta(seconds=state.policy.poll_s)


def _view_due(state: RunState) -> datetime:
    """After a failed read the next ones wait 2, 4, 8 seconds."""
    if state.view_failed_at is None or not state.view_failures:
        return state.started_at
    return state.view_failed_at + timedelta(seconds=2.0**state.view_failures)


def _write_due(state: RunState) -> datetime:
    if state.write_failed_at is None or not state.write_failures:
        return state.started_at
    return state.write_failed_at + timedelta(seconds=RETRY_WRITE_S[min(state.write_failures, len(RETRY_WRITE_S)) - 1])
