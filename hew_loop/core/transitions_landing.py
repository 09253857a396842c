"""What the merge queue's events do to the state: a chain, a verdict, a landing."""

from __future__ import annotations

from dataclasses import replace

from hew_loop.core import events as ev
from hew_loop.core import merge_queue, verdict
from hew_loop.core.actions import LAUNCH, Action, Land, RunGate
from hew_loop.core.state import DeliveryFacts, GateFacts, Notice, RunState
from hew_loop.core.transitions_iteration import send_back


def chain_built(state: RunState, event: ev.ChainBuilt) -> RunState:
    queue = merge_queue.start_chain(state.queue, event.links)
    back = (*event.conflicts, *event.refused, *event.withdrawn)
    state = replace(state, queue=merge_queue.drop(queue, tuple(b.number for b in back)))
    for entry in event.conflicts:
        state = send_back(state, entry.number, "conflict", entry.reason, files=entry.files)
    for entry in event.refused:
        state = send_back(state, entry.number, "refused", entry.reason)
    for entry in event.withdrawn:
        state = send_back(state, entry.number, "withdrawn", entry.reason)
    return state


def gate_ended(state: RunState, action: Action | None, event: ev.GateEnded) -> RunState:
    if not isinstance(action, RunGate):
        return state
    judged = event.verdict
    base = state.base_gate
    if action.purpose != "base" and base is not None and base.verdict is not None:
        mine = verdict.GateVerdict(event.verdict, event.tests)
        judged = verdict.judge_gate(mine, verdict.GateVerdict(base.verdict, base.tests))
    lands = judged in ("passed", "not_tested")
    facts = replace(
        state.gates[action.number],
        verdict=judged, log=event.log, duration_s=event.duration_s, cached=event.cached, tests=event.tests,
        reason=event.reason if judged == event.verdict else f"tests that ran on the base did not run ({event.reason})",
        tail="" if lands else event.tail,
    )  # fmt: skip
    state = replace(state, gates={**state.gates, action.number: facts})
    if action.purpose == "base":
        return replace(state, base_gate=facts)
    if state.stop_now or state.queue.chain is None:
        return state
    if lands and action.purpose == "confirm":
        state = note(state, f"flaky: the same tree failed and then passed ({event.log})", action.entries)
    after = merge_queue.after_gate(state.queue, judged)
    iterations = dict(state.iterations)
    for number in action.entries if action.purpose != "tip" else ():
        if number in iterations:
            iterations[number] = replace(iterations[number], verdict=judged, gate_log=event.log)
    state = replace(state, queue=after.queue, iterations=iterations)
    if after.broken:
        return gate_broken(state, event.reason or "the gate does not run")
    if after.sent_back is not None:
        blamed = facts if action.purpose != "tip" else _last_gate(state, after.sent_back)
        return send_back(state, after.sent_back, "gate_failed", blamed.reason, tail=blamed.tail)
    return state


def _last_gate(state: RunState, number: int) -> GateFacts:
    """The newest run over a tree with this entry: what the tip printed, where the gate works, is not its fault."""
    return next(g for g in reversed(tuple(state.gates.values())) if g.purpose != "tip" and number in g.entries)


def gate_broken(state: RunState, reason: str) -> RunState:
    """It does not run on the integration tip either: nobody's fault here, and no verdict can be had."""
    state = replace(state, queue=replace(state.queue, chain=None))
    if state.launch_tip is not None:
        refused = DeliveryFacts(
            "refused", reason=f"the gate does not run on the merge with the launch branch: {reason}"
        )
        return replace(state, launch_tip=None, delivery=refused)
    state = replace(state, gate_broken=True)
    return state if state.stopping == "cancelled" else replace(state, stopping="gate_error", stop_detail=reason)


def landed(state: RunState, action: Action | None) -> RunState:
    if not isinstance(action, Land):
        return state
    queue, _ = merge_queue.after_landing(state.queue)
    queue = merge_queue.drop(replace(queue, tip=action.new), action.entries)
    iterations, records = dict(state.iterations), dict(state.records)
    for number in action.entries:
        if number == LAUNCH:
            state = replace(state, launch_expected=state.launch_tip or state.launch_expected, launch_tip=None)
            continue
        iteration = iterations[number]
        iterations[number] = replace(iteration, fate="landed", landed=action.new)
        record = records[iteration.spec.task]
        records[iteration.spec.task] = replace(record, phase="landed", landed=action.new)
    return replace(state, queue=queue, iterations=iterations, records=records, failures_in_a_row=0)


def note(state: RunState, text: str, iterations: tuple[int, ...] = ()) -> RunState:
    return replace(state, notices=(*state.notices, Notice(state.now, text, iterations)))
