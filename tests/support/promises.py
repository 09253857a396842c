"""The promises of product.md §1 as checks on a simulated world, asked at every step of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hew_loop.core import actions as ac
from hew_loop.core import picking, planning, runtime_choice
from hew_loop.core.retry import Health
from hew_loop.core.startable import startable
from hew_loop.core.state import FINAL, HOLDS_SLOT
from tests.support.world_parts import T0

if TYPE_CHECKING:
    from tests.support.world import World


def check_state(world: World) -> None:
    """P6: one live iteration per task, no two tasks in one slot."""
    state = world.state
    held = [r for r in state.records.values() if r.phase in HOLDS_SLOT]
    assert len({r.slot for r in held}) == len(held) <= state.policy.jobs
    assert all(0 <= r.slot < state.policy.jobs for r in held)
    running = [i.spec.task for i in state.iterations.values() if i.fate == "running"]
    assert sorted(running) == sorted(r.task for r in held if r.phase == "running")
    landings = [i.spec.task for i in state.iterations.values() if i.fate == "landed"]
    assert len(set(landings)) == len(landings), "landed twice"
    waiting = {n for n, i in state.iterations.items() if i.fate == "waiting"}
    assert waiting == set(state.queue.waiting)


def check_action(world: World, action: ac.Action) -> None:
    state, git = world.state, world.git
    match action:
        case ac.Claim():
            assert not state.stopping
            may_start = [t.id for t in startable(state, world.now)]
            assert action.task in may_start
            assert state.base_verdict in ("passed", "not_tested") or not state.policy.gate.commands
            suggested = state.suggestion.ids if state.suggestion else ()
            if not set(suggested).isdisjoint(may_start):
                source = state.suggestion.source if state.suggestion else ""
                assert (action.task in suggested, action.why) == (True, source), "a suggested task comes first"
        case ac.StartIteration(spec=spec):
            assert not state.stopping
            assert tracker_holds(world, spec.task, spec.actor), "started without a claim"
            assert git.contains(git.integration, spec.base)
            check_base(world, spec.task, spec.base)
            check_runtime(world, spec.runtime)
        case ac.Land():
            if state.policy.gate.commands:
                assert action.new in world.gated, "landed without a gate"
                verdict = world.gated[action.new][-1]
                assert verdict == "passed" or verdict == world.scenario.base_verdict == "not_tested"
        case ac.Deliver():
            verify = state.verify
            assert verify is not None
            assert (verify.commit, action.new) == (git.integration, git.integration)
            assert verify.verdict in ("passed", "not_tested")
        case _:
            pass


def tracker_holds(world: World, task_id: str, actor: str) -> bool:
    """The claim is ours as far as the loop can know: nobody took it since."""
    t = world.tracker.tasks[task_id]
    return t.assignee == actor or t.is_closed or t.assignee == "a person" or world.people_at > T0


def check_base(world: World, task_id: str, base: str) -> None:
    """P2: what it depends on and was worked on here is in its base; nothing of it is under way."""
    for dependency in world.state.backlog.dependencies(task_id):
        record = world.state.records.get(dependency)
        if record is not None:
            assert record.phase in ("landed", "done", "accepted", "unchanged"), f"{dependency} is {record.phase}"
            works = [i for i in record.iterations if world.state.iterations[i].fate == "landed"]
            assert works or dependency in world.no_change
            for number in works:
                result = world.state.iterations[number].result
                assert result is not None
                assert result.head is not None
                assert world.git.contains(base, result.head)
        elif dependency in world.closed_by:
            by = world.state.iterations[world.closed_by[dependency]]
            assert by.fate not in ("running", "waiting"), f"{dependency} was closed by an agent that has not landed"


def check_runtime(world: World, name: str) -> None:
    """No start before the end of a hold, and behind it one at a time until one has ended well."""
    state = world.state
    health = state.health.get(name, Health())
    assert name in (state.policy.runtime, state.policy.fallback_runtime)
    assert not health.given_up
    if health.until is not None and health.since is not None:
        assert world.now >= health.until
        since = health.since
        probes = [i for i in state.iterations.values() if i.spec.runtime == name and i.started_at >= since]
        assert not [i for i in probes if i.result is None], f"{name} is tried with more than one"


def check_close(world: World, task_id: str) -> None:
    """P3: closed by us only when its work is on the integration branch, or no change was accepted."""
    mine = [w for w, owner in world.git.owner.items() if owner == task_id]
    landed = any(world.git.contains(world.git.integration, w) for w in mine)
    assert landed or (task_id in world.no_change and world.state.policy.accept_no_change)


def check_rest(world: World) -> None:
    """P8: at rest no slot is free while something could start."""
    state = world.state
    if state.stopping or state.view is None or runtime_choice.choose(state, world.now) is None:
        return
    if planning.is_awaited(state, world.now):
        return
    if any(h.until is not None for h in state.health.values()) and state.in_phase("claiming", "claimed"):
        return  # a runtime that was held back is tried with a single iteration
    if state.write_failures:
        return
    if state.base_gate is not None and state.base_gate.verdict is None:
        return
    used = sum(1 for r in state.records.values() if r.phase in HOLDS_SLOT)
    limit = state.policy.max_iter
    starting = len(state.in_phase("claiming", "claimed"))
    if used < state.policy.jobs and (limit is None or len(state.iterations) + starting < limit):
        idle = [t.id for t in startable(state, world.now)]
        assert not idle, f"a slot stays free while {idle} could start"
        assert not picking.retries(state)
        alive = state.in_phase("claiming", "claimed", "running", "waiting")
        assert alive or not state.in_phase("retry"), "what went back waits for nothing"
    assert not [r for r in state.in_phase("claimed") if limit is None]


def check_end(world: World) -> None:
    state, tracker, git = world.state, world.tracker, world.git
    assert not world.open
    written = state.write_failures < 5
    ours = [t.id for t in tracker.tasks.values() if t.status != "open" and t.assignee.startswith("loop/")]
    if written:
        assert not [t for t in ours if not tracker.tasks[t].is_closed], f"claims are left: {ours}"
        assert all(r.phase in FINAL for r in state.records.values())
    elif any(r.phase not in FINAL for r in state.records.values()):
        assert state.stopping == "cancelled" or state.exit_code == 69
    assert state.stopping is not None
    assert state.stopping != "stuck"
    assert state.exit_code != 70
    for record in state.records.values():
        check_nothing_lost(world, record.task)
    if state.stopping == "ready_empty" and world.people_at < world.read_at:
        assert state.backlog.tasks == tracker.tasks
        assert not list(startable(state, world.now))
    if state.delivery and state.delivery.state == "merged":
        assert git.contains(git.launch, state.delivery.commit)
    check_exit_code(world)


def check_nothing_lost(world: World, task_id: str) -> None:
    record = world.state.records[task_id]
    results = [(n, world.state.iterations[n]) for n in record.iterations]
    landed = [n for n, i in results if i.fate == "landed"]
    for n, iteration in results:
        head = iteration.result.head if iteration.result else None
        assert head is None or head in world.git.ancestors
        if n in landed:
            assert head is not None
            assert world.git.contains(world.git.integration, head)
    if not landed and record.phase in ("done", "unchanged"):
        assert task_id in world.no_change
    if record.phase in ("parked", "returned") and world.people_at == T0 and task_id not in world.closed_by:
        assert not world.tracker.tasks[task_id].is_closed
    if record.phase == "parked":
        assert record.bug in world.tracker.bugs.values()


def check_exit_code(world: World) -> None:
    state = world.state
    parked = [r for r in state.records.values() if r.phase == "parked"]
    red = state.verify is not None and state.verify.verdict in ("failed", "could_not_run")
    refused = state.delivery is not None and state.delivery.state == "refused"
    if state.exit_code == 0:
        assert not parked
        assert not red
        assert not refused
        assert state.stopping == "ready_empty"
        assert all(r.phase in ("done", "unchanged", "withdrawn") for r in state.records.values())
        if state.landed_something and state.start.launch_branch:
            assert state.delivery is not None
            assert world.git.contains(world.git.launch, world.git.integration)
    if state.stopping == "ready_empty":
        assert state.exit_code == (1 if parked or red or refused else 4 if state.in_phase("returned") else 0)
