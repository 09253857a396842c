"""Rules of the dispatcher, each in a small run whose answers come in order, or in a run that is driven by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise

import pytest

from hew_loop.core import actions as ac
from hew_loop.core import dispatcher
from hew_loop.core import events as ev
from hew_loop.core.dispatcher import decide, next_wake
from hew_loop.core.iteration import FailureClass, IterationResult, Usage
from hew_loop.core.policy import GateSettings, VerifySettings
from hew_loop.core.startable import held_back
from hew_loop.core.state import RunState
from hew_loop.core.task import Edge, Task
from tests.support import promises
from tests.support.world import World, events, intended, run
from tests.support.world_parts import BASE, RUN_ID, Agent, Scenario, policy, task


class ByHand(World):
    """A world in which the test says which action comes back, and with what."""

    def __init__(self, *tasks: Task, **changes: object) -> None:
        super().__init__(Scenario(tuple(tasks), script=(("", ()),), **changes))  # type: ignore[arg-type]
        self.append(ev.RunStarted(RUN_ID, BASE, self.scenario.policy, "main", BASE, "fake", "store"))
        self.tick()

    def of(self, kind: type) -> list[int]:
        return [n for n, o in sorted(self.open.items()) if isinstance(o.action, kind)]

    def finish(self, kind: type, result: Callable[[int], ev.Event] | None = None) -> None:
        """The oldest open action of this kind comes back; the dispatcher is asked what follows."""
        n = self.of(kind)[0]
        under_way = self.open.pop(n)
        if result is None:
            self.effect(n, under_way)
            assert under_way.result is not None
            self.append(self.view(under_way) or under_way.result)
        else:
            self.append(result(n))
        self.tick()

    def fail(self, failure: FailureClass, **fields: object) -> None:
        answer = IterationResult("failed", failure, start=BASE, exit_code=1, **fields)  # type: ignore[arg-type]
        self.finish(ac.StartIteration, lambda n: ev.IterationEnded(n, answer))

    def until(self, kind: type) -> None:
        """Let everything come back until an action of this kind is open."""
        for _ in range(100):
            if self.of(kind):
                return
            self.step()
            self.tick()
        raise AssertionError(f"no {kind.__name__}")

    def to_the_end(self) -> RunState:
        for _ in range(500):
            if self.state.ended:
                promises.check_end(self)
                return self.state
            self.step()
            self.tick()
        raise AssertionError("the run does not end")


def many(count: int) -> Sequence[Task]:
    return [task(f"t{i}", minutes=i) for i in range(count)]


# -- starting ------------------------------------------------------------------------------------------------------


def test_a_slot_is_refilled_as_soon_as_it_frees() -> None:
    world = ByHand(*many(4), policy=policy(jobs=2))
    world.finish(ac.ReadTasks)
    world.finish(ac.RunGate)
    world.finish(ac.Claim)
    world.finish(ac.Claim)

    world.finish(ac.StartIteration)

    assert [world.open[n].action for n in world.of(ac.Claim)] == [ac.Claim("t2", 0, f"loop/{RUN_ID}/0", "graph")]
    assert len(world.of(ac.StartIteration)) == 1


def test_landing_does_not_hold_a_slot() -> None:
    world = ByHand(*many(3), policy=policy(jobs=1))
    world.until(ac.StartIteration)
    world.finish(ac.StartIteration)
    world.finish(ac.Claim)

    assert len(world.of(ac.BuildChain)) == len(world.of(ac.StartIteration)) == 1


def test_a_dependant_starts_when_its_dependency_has_landed_and_is_closed() -> None:
    world = run([task("a"), task("b", "a")])

    kinds = [type(a) for a in intended(world, ac.Claim, ac.Land, ac.CloseTask)]
    assert kinds == [ac.Claim, ac.Land, ac.CloseTask, ac.Claim, ac.Land, ac.CloseTask]
    assert world.starts[1].spec.base == world.state.iterations[1].landed


def test_a_dependency_that_its_own_agent_closed_is_waited_for_until_it_has_landed() -> None:
    world = ByHand(task("a"), task("b", "a"), policy=policy(jobs=2), launch_branch="main")
    world.until(ac.StartIteration)
    world.tracker.put("a", status="closed")
    world.now += timedelta(seconds=11)
    world.tick()
    world.finish(ac.ReadTasks)

    assert not world.of(ac.Claim)
    assert held_back(world.state, world.now) == (("b", "depends on a, which has not landed (running)"),)


def test_dependants_of_what_an_agent_closed_wait_until_those_agents_have_landed() -> None:
    world = ByHand(task("a"), task("x", status="in_progress"), task("b", "x"), policy=policy(jobs=2))
    world.until(ac.StartIteration)
    world.tracker.put("x", status="closed")
    world.now += timedelta(seconds=11)
    world.tick()
    world.finish(ac.ReadTasks)
    assert not world.of(ac.Claim)

    world.finish(ac.StartIteration)
    assert not world.of(ac.Claim)
    world.until(ac.Claim)

    assert world.state.iterations[1].fate == "landed"


@pytest.mark.parametrize("kind", ["claimed", "retry"])
def test_a_dependency_that_is_added_late_gives_the_task_back_until_it_has_landed(kind: str) -> None:
    world = ByHand(task("a"), task("b", minutes=1), policy=policy(jobs=2))
    world.finish(ac.ReadTasks)
    world.finish(ac.RunGate)
    world.finish(ac.Claim)
    if kind == "retry":
        world.finish(ac.Claim)
    waiting_claims = world.of(ac.Claim)
    world.tracker.put("b", edges=(Edge("a"),))
    view = ev.ViewRead(99, world.now + timedelta(seconds=1), (world.tracker.tasks["b"],))
    world.append(ev.Intended(99, ac.ReadTasks()))
    world.append(view)
    if kind == "retry":
        n = max(world.of(ac.StartIteration))
        del world.open[n]
        world.append(ev.IterationEnded(n, IterationResult("failed", "max_turns", start=BASE, exit_code=1)))
        world.tick()
    else:
        assert waiting_claims
        world.finish(ac.Claim)

    assert world.state.records["b"].phase == "releasing"
    state = world.to_the_end()

    assert (state.records["b"].phase, state.exit_code) == ("done", 0)
    assert [s.spec.base for s in world.starts if s.spec.task == "b"][-1] == state.iterations[1].landed


def test_nothing_is_claimed_before_the_gate_has_passed_on_the_base() -> None:
    world = ByHand(*many(2))
    world.finish(ac.ReadTasks)

    assert [type(o.action) for o in world.open.values()] == [ac.RunGate]
    assert world.open[2].action == ac.RunGate(1, BASE, "", "base")


@pytest.mark.parametrize(("verdict", "exit_code"), [("failed", 1), ("could_not_run", 69)])
def test_a_base_that_does_not_pass_refuses_before_anything_is_claimed(verdict: str, exit_code: int) -> None:
    world = run(many(2), base_verdict=verdict)

    assert (world.state.stopping, world.state.exit_code) == ("gate_error", exit_code)
    assert not intended(world, ac.Claim)


def test_the_base_is_not_gated_when_nothing_could_start() -> None:
    world = run([task("a", status="closed"), task("b", labels=("needs-human",))])

    assert (world.state.stopping, world.state.exit_code) == ("ready_empty", 0)
    assert not intended(world, ac.RunGate, ac.Verify, ac.Deliver)


def test_an_untested_base_lets_untested_work_land() -> None:
    world = run(many(1), base_verdict="not_tested")

    assert [i.fate for i in world.state.iterations.values()] == ["landed"]


def test_what_a_suggestion_names_starts_first_and_the_rest_after_it() -> None:
    said = Agent(next_iteration=("t3", "t2", "nonsense-9"))

    world = run(many(5), policy=policy(jobs=1), script={"t0": [said]})

    claims = intended(world, ac.Claim)
    assert [(c.task, c.why, c.batch) for c in claims if isinstance(c, ac.Claim)] == [
        ("t0", "graph", None),
        ("t2", "agent", 1),
        ("t3", "agent", 1),
        ("t1", "graph", None),
        ("t4", "graph", None),
    ]
    assert world.state.batches[0].dropped == ("nonsense-9",)


def test_a_suggestion_of_blocked_tasks_starves_nobody_and_stays_in_force() -> None:
    said = Agent(next_iteration=("t9",))

    world = run([*many(9), task("t9", "t1", priority=4)], policy=policy(jobs=1), script={"t0": [said]})

    claims = [(c.task, c.why) for c in intended(world, ac.Claim) if isinstance(c, ac.Claim)]
    assert [c for c in claims if c[0] != "t9"] == [(f"t{i}", "graph") for i in range(9)]
    # By priority it would be the last; it comes as soon as its dependency has landed.
    assert ("t1", "graph") in claims[: claims.index(("t9", "agent"))]
    assert claims[-1] == ("t8", "graph")


@pytest.mark.parametrize("empty", [None, (), ("nonsense-1",)])
def test_an_empty_or_absent_suggestion_is_recorded_and_replaces_nothing(empty: tuple[str, ...] | None) -> None:
    script = {"t0": [Agent(next_iteration=("t3", "t4"))], "t3": [Agent(next_iteration=empty)]}

    world = run(many(5), policy=policy(jobs=1), script=script)

    starts = [s.spec.task for s in world.starts]
    assert starts == ["t0", "t3", "t4", "t1", "t2"]
    assert len(world.state.batches) == 5


def test_as_many_new_tasks_start_as_the_policy_says() -> None:
    script = {"t0": [Agent(creates="t0")], "t1": [Agent(creates="t1")], "t2": [Agent(creates="t2")]}

    world = run(many(3), policy=policy(jobs=4, max_new=1), script=script)

    started = [s.spec.task for s in world.starts]
    assert [t for t in started if t.startswith("new-")] == ["new-1"]
    assert [t for t, _ in held_back(world.state, world.now)] == ["new-2", "new-3"]


# -- retries -------------------------------------------------------------------------------------------------------


def test_a_retry_goes_before_new_tasks_and_carries_the_evidence() -> None:
    world = run(many(2), policy=policy(jobs=1), script={"t0": [Agent("failed", "max_turns")]})

    assert [(s.spec.task, s.spec.attempt, s.why) for s in world.starts] == [
        ("t0", 1, "graph"),
        ("t0", 2, "retry"),
        ("t1", 1, "graph"),
    ]
    assert world.starts[1].spec.evidence[0].startswith("The last attempt failed (max_turns). It said: said so")


def test_out_of_attempts_a_task_is_parked_with_its_bug_and_released() -> None:
    world = run([task("a")], script={"a": [Agent("failed", "max_turns")] * 3})

    record = world.state.records["a"]
    assert (record.phase, record.attempts, record.kind, record.bug) == ("parked", 3, "agent-failed", "bug-1")
    assert (world.tracker.tasks["a"].status, world.tracker.tasks["a"].assignee) == ("open", "")
    assert world.tracker.bugs == {f"loop:{RUN_ID}/a.3": "bug-1"}
    assert world.state.exit_code == 1


def test_blocked_parks_at_once() -> None:
    world = run([task("a")], script={"a": [Agent("blocked")]})

    assert (world.state.records["a"].attempts, world.state.records["a"].kind) == (1, "blocked")


def test_a_limited_runtime_is_waited_for_and_uses_up_no_attempt() -> None:
    world = run([task("a")], policy=policy(attempts=1), script={"a": [Agent("failed", "rate_limit")] * 3})

    started = [
        s.at
        for s in world.journal
        if isinstance(s.event, ev.Intended) and isinstance(s.event.action, ac.StartIteration)
    ]
    waits = [round((b - a).total_seconds() / 60) for a, b in pairwise(started)]
    assert waits == [1, 2, 4]
    assert (world.state.exit_code, world.state.records["a"].used) == (0, 0)


def test_a_third_loss_in_a_row_parks_the_task() -> None:
    world = ByHand(task("a"))
    world.until(ac.StartIteration)
    world.fail("lost")
    world.fail("lost")
    world.fail("lost")

    assert (world.state.records["a"].phase, world.state.records["a"].used) == ("parking", 0)
    assert world.state.spend.unknown_usage == 3


def test_what_a_person_took_back_is_released_and_never_parked() -> None:
    world = ByHand(task("a"))
    world.until(ac.StartIteration)
    world.finish(ac.StartIteration)
    world.tracker.put("a", defer_until=world.now + timedelta(days=1))
    state = world.to_the_end()

    assert (state.records["a"].phase, state.iterations[1].fate) == ("withdrawn", "withdrawn")
    assert (world.tracker.tasks["a"].status, world.tracker.tasks["a"].assignee) == ("open", "")
    assert not world.tracker.bugs


# -- stopping ------------------------------------------------------------------------------------------------------


def test_the_run_ends_only_after_a_view_that_began_after_its_last_write() -> None:
    world = run([task("a")])

    last_write = max(s.at for s in world.journal if isinstance(s.event, ev.TaskClosed))
    stopped = next(i for i, s in enumerate(world.journal) if isinstance(s.event, ev.Stopping))
    view = world.journal[stopped - 1].event
    assert isinstance(view, ev.ViewRead)
    assert view.began_at > last_write


def test_a_task_that_appears_at_the_last_moment_is_still_done() -> None:
    world = ByHand(task("a"))
    world.until(ac.CloseTask)
    world.finish(ac.CloseTask)
    world.create("a")

    assert world.to_the_end().records.keys() == {"a", "new-1"}


def test_without_until_empty_the_tracker_is_polled_until_another_reason_stops_the_run() -> None:
    world = ByHand(task("a"), policy=policy(until_empty=False, poll_s=10.0, budget_wall_s=60.0))

    state = world.to_the_end()

    assert (state.stopping, state.exit_code) == ("budget_wall", 4)
    assert len(intended(world, ac.ReadTasks)) >= 6


@pytest.mark.parametrize(
    ("by", "how", "exit_code"),
    [("SIGINT", "drain", 130), ("SIGTERM", "drain", 143), ("cancel", "drain", 4), ("stop_file", "drain", 4)],
)
def test_a_drain_lands_what_runs_and_starts_nothing(by: str, how: str, exit_code: int) -> None:
    world = ByHand(*many(3), policy=policy(jobs=1))
    world.until(ac.StartIteration)
    world.append(ev.StopRequested("drain", by))
    world.tick()
    state = world.to_the_end()

    assert [i.fate for i in state.iterations.values()] == ["landed"]
    assert (state.stopping, state.exit_code) == ("stop_file" if by == "stop_file" else "cancelled", exit_code)
    assert state.delivery is not None
    assert state.delivery.state == "merged"


def test_cancel_now_keeps_what_waits_on_its_branch_and_releases_it() -> None:
    world = ByHand(*many(2), policy=policy(jobs=2))
    world.until(ac.StartIteration)
    world.until(ac.BuildChain)
    world.append(ev.StopRequested("now", "SIGINT"))
    world.tick()
    state = world.to_the_end()

    assert {r.phase for r in state.records.values()} == {"returned"}
    assert not intended(world, ac.Land, ac.Verify, ac.Deliver)
    assert state.exit_code == 130


def test_a_drain_that_comes_later_does_not_take_back_a_now() -> None:
    world = ByHand(*many(2))
    world.until(ac.StartIteration)
    world.append(ev.StopRequested("now", "SIGINT"))
    world.append(ev.StopRequested("drain", "stop_file"))

    assert world.state.stop_now
    assert world.state.stop_request == ev.StopRequested("now", "SIGINT")


def test_a_cancel_while_the_run_ends_by_itself_is_the_reason_that_counts() -> None:
    world = ByHand(task("a"))
    world.until(ac.Verify)
    world.append(ev.StopRequested("now", "SIGINT"))
    state = world.to_the_end()

    assert (state.stopping, state.exit_code, state.delivery) == ("cancelled", 130, None)


def test_stop_reasons_come_in_their_order() -> None:
    state = ByHand(task("a")).state
    over = replace(
        state,
        stop_request=ev.StopRequested("drain", "stop_file"),
        failures_in_a_row=9,
        view_failures=9,
        start=replace(state.start, policy=policy(max_iter=0, budget_tokens=0, budget_usd=0.0, budget_wall_s=0.0)),
    )
    lifted: list[tuple[str, dict[str, object]]] = [
        ("stop_file", {"stop_request": None}),
        ("budget_tokens", {"start": replace(over.start, policy=replace(over.policy, budget_tokens=None))}),
    ]

    for reason, change in lifted:
        decisions = dispatcher.stop(over, world_end(over))
        assert [d.reason for d in decisions if isinstance(d, ev.Stopping)] == [reason]
        over = replace(over, **change)  # type: ignore[arg-type]
    over = replace(over, start=replace(over.start, policy=policy()))

    assert dispatcher.stop(over, world_end(over)) == (ev.Stopping("tracker_error", ""),)
    assert dispatcher.stop(replace(over, view_failures=0), world_end(over)) == (
        ev.Stopping("guard_trip", "9 failures in a row"),
    )


def world_end(state: RunState) -> datetime:
    return state.now + timedelta(hours=1)


def test_failures_in_a_row_trip_the_guard() -> None:
    script = {f"t{i}": [Agent("failed", "max_turns")] * 9 for i in range(4)}

    world = run(many(4), policy=policy(jobs=1, attempts=2, guard_trip=3), script=script)

    assert (world.state.stopping, world.state.stop_detail, world.state.exit_code) == (
        "guard_trip",
        "3 failures in a row",
        1,
    )
    assert len(world.starts) == 3


def test_an_agent_without_credentials_stops_the_run_and_gives_the_task_back() -> None:
    world = run(many(3), policy=policy(jobs=1), script={"t0": [Agent("failed", "auth")]})

    assert (world.state.stopping, world.state.stop_detail, world.state.exit_code) == (
        "runtime_error",
        "auth: said so",
        69,
    )
    assert world.state.records["t0"].phase == "returned"


def test_a_gate_that_stops_working_keeps_the_queue_and_ends_even_while_draining() -> None:
    world = World(Scenario(tuple(many(3)), script=(("", ()),), gate_dies_after=0))
    state = world.run()

    assert (state.stopping, state.exit_code) == ("gate_error", 69)
    assert {r.phase for r in state.records.values()} == {"returned"}
    assert state.queue.waiting

    by_hand = ByHand(*many(3), gate_dies_after=0)
    by_hand.until(ac.StartIteration)
    by_hand.append(ev.StopRequested("drain", "SIGTERM"))
    by_hand.tick()

    assert (by_hand.to_the_end().stopping, by_hand.state.exit_code) == ("cancelled", 143)


def test_a_resume_gates_what_a_broken_gate_left_waiting() -> None:
    world = World(Scenario(tuple(many(2)), script=(("", ()),), gate_dies_after=0))
    world.run()
    world.scenario = replace(world.scenario, gate_dies_after=None)

    world.append(ev.Resumed(settle=False))
    for _ in range(200):
        world.tick()
        if world.state.ended:
            break
        world.step()

    assert world.state.exit_code == 0
    assert {r.phase for r in world.state.records.values()} == {"done"}
    assert len(world.starts) == 2


def test_a_claim_that_is_always_refused_does_not_keep_the_run_going() -> None:
    world = run(many(2), policy=policy(jobs=1), refuses="t0")

    assert [c.task for c in intended(world, ac.Claim) if isinstance(c, ac.Claim)].count("t0") == 3
    assert (world.state.stopping, world.state.records.keys()) == ("ready_empty", {"t1"})


def test_a_tracker_that_cannot_be_read_stops_the_run_after_some_patience() -> None:
    world = ByHand(*many(1))
    asked = [world.now]
    for _ in range(4):
        world.finish(ac.ReadTasks, lambda n: ev.ViewFailed(n, "no such database"))
        if world.state.ended:
            break
        wake = next_wake(world.state, world.now)
        assert wake is not None
        world.now = wake
        asked.append(wake)
        world.tick()

    assert [round((b - a).total_seconds()) for a, b in pairwise(asked)] == [2, 4, 8]
    assert (world.state.stopping, world.state.exit_code) == ("tracker_error", 69)


def test_a_last_look_that_fails_is_repeated_later_before_the_run_says_that_nothing_is_left() -> None:
    world = ByHand(task("a"))
    world.until(ac.CloseTask)
    world.finish(ac.CloseTask)
    world.finish(ac.ReadTasks, lambda n: ev.ViewFailed(n, "locked"))

    assert (world.of(ac.ReadTasks), world.state.stopping) == ([], None)
    assert next_wake(world.state, world.now) == world.state.now + timedelta(seconds=2)
    assert world.to_the_end().stopping == "ready_empty"


def test_a_view_that_fails_does_not_keep_claims_that_can_be_released() -> None:
    world = ByHand(*many(2), policy=policy(jobs=2))
    world.until(ac.StartIteration)
    world.append(ev.Intended(world.state.next_n, ac.ReadTasks()))
    world.append(ev.ViewFailed(world.state.next_n - 1, "locked"))
    world.live = replace(world.state, view_failures=dispatcher.MAX_VIEW_FAILURES)
    world.tick()
    state = world.to_the_end()

    assert state.stopping == "tracker_error"
    assert not [t for t in world.tracker.tasks.values() if t.assignee.startswith("loop/")]


def test_a_write_that_fails_is_repeated_later_and_other_events_do_not_put_it_off() -> None:
    world = ByHand(task("a"))
    world.until(ac.CloseTask)
    world.finish(ac.CloseTask, lambda n: ev.TrackerWriteFailed(n, "locked"))
    failed_at = world.state.write_failed_at
    assert failed_at is not None
    world.now += timedelta(seconds=0.9)
    world.append(ev.Noticed("something else"))
    world.tick()
    assert not world.of(ac.CloseTask)
    world.now = failed_at + timedelta(seconds=1)
    world.tick()

    assert world.of(ac.CloseTask)


def test_a_tracker_that_takes_no_writes_ends_the_run_with_its_own_exit_code() -> None:
    world = ByHand(task("a"))
    for _ in range(dispatcher.MAX_WRITE_FAILURES):
        world.until(ac.CloseTask)
        world.finish(ac.CloseTask, lambda n: ev.TrackerWriteFailed(n, "read-only"))
        if not world.state.ended and not world.open:
            world.step()
            world.tick()
    state = world.to_the_end()

    assert (state.stopping, state.exit_code) == ("tracker_error", 69)
    assert state.records["a"].phase == "landed"


def test_a_limit_does_not_hide_that_the_tracker_could_not_be_told() -> None:
    world = ByHand(*many(2), policy=policy(jobs=1, max_iter=1))
    for _ in range(dispatcher.MAX_WRITE_FAILURES):
        world.until(ac.CloseTask)
        world.finish(ac.CloseTask, lambda n: ev.TrackerWriteFailed(n, "read-only"))

    assert (world.to_the_end().stopping, world.state.exit_code) == ("max_iter", 69)


def test_stuck_is_a_named_stop_and_not_a_hang() -> None:
    world = ByHand(task("a"), policy=policy(jobs=1))
    world.until(ac.StartIteration)
    broken = replace(world.state, intents={})

    assert decide(broken, broken.now) == (ev.Stopping("stuck", "tasks wait, nothing is in flight, and no rule acts"),)
    assert decide(replace(broken, stopping="stuck"), broken.now) == (ev.RunEnded(70),)


def test_an_ended_run_decides_nothing() -> None:
    state = run([task("a")]).state

    assert decide(state, world_end(state)) == ()


# -- verify and deliver --------------------------------------------------------------------------------------------


def test_a_green_run_is_verified_and_delivered() -> None:
    world = run(many(2))

    tip = world.git.integration
    assert intended(world, ac.Verify, ac.Deliver) == [ac.Verify(tip), ac.Deliver("main", BASE, tip)]
    assert world.git.launch == tip


@pytest.mark.parametrize("verdict", ["failed", "could_not_run"])
def test_what_does_not_verify_is_not_delivered(verdict: str) -> None:
    world = run(many(2), verify_verdict=verdict)

    assert not intended(world, ac.Deliver)
    assert (world.state.stopping, world.state.exit_code, world.git.launch) == ("ready_empty", 1, BASE)


def test_without_verify_the_work_is_delivered_as_it_landed() -> None:
    world = ByHand(task("a"), policy=policy(verify=VerifySettings(enabled=False)))
    world.until(ac.Land)
    world.finish(ac.Land)

    assert not world.of(ac.Verify)


def test_a_launch_branch_that_moved_is_merged_gated_verified_and_then_delivered() -> None:
    world = ByHand(task("a"))
    world.until(ac.Deliver)
    world.git.launch = world.git.work("people-1", "people", "", BASE)
    world.finish(ac.Deliver)
    chain = world.open[world.of(ac.BuildChain)[0]].action
    assert chain == ac.BuildChain(world.git.integration, (ac.ChainEntry(ac.LAUNCH, "", "people-1", "people-1"),))
    state = world.to_the_end()

    after = [type(s.event.action) for s in world.journal if isinstance(s.event, ev.Intended)][-6:]
    assert after == [ac.Deliver, ac.BuildChain, ac.RunGate, ac.Land, ac.Verify, ac.Deliver]
    assert (state.exit_code, world.git.launch) == (0, world.git.integration)
    assert world.git.contains(world.git.launch, "people-1")


@pytest.mark.parametrize("trait", ["red", "file-a", "hang"])
def test_a_launch_branch_that_does_not_fit_refuses_the_delivery(trait: str) -> None:
    world = ByHand(task("a"))
    world.scenario = replace(world.scenario, script=(("a", (Agent(trait="file-a"),)),))
    world.until(ac.Deliver)
    world.git.launch = world.git.work("people-1", "people", trait, BASE)
    state = world.to_the_end()

    assert state.delivery is not None
    assert (state.delivery.state, state.exit_code) == ("refused", 1)
    assert "the launch branch moved during the run" in state.delivery.reason
    assert world.git.launch == "people-1"


def test_a_launch_branch_that_moved_while_the_gate_is_broken_refuses_the_delivery() -> None:
    world = ByHand(*many(2), policy=policy(jobs=1))
    world.until(ac.CloseTask)
    world.scenario = replace(world.scenario, gate_dies_after=0)
    world.git.launch = world.git.work("people-1", "people", "", BASE)
    state = world.to_the_end()

    assert state.delivery is not None
    assert (state.stopping, state.delivery.state, state.exit_code) == ("gate_error", "refused", 69)


def test_nothing_is_delivered_when_the_run_has_no_launch_branch() -> None:
    world = run(many(1), launch_branch=None)

    assert not intended(world, ac.Deliver)
    assert world.state.exit_code == 0


def test_a_resumed_run_delivers_what_it_lands_after_a_first_delivery() -> None:
    world = ByHand(task("a"))
    world.until(ac.Deliver)
    n = world.of(ac.Deliver)[0]
    under_way = world.open.pop(n)
    world.effect(n, under_way)
    assert under_way.result is not None
    world.append(under_way.result)
    world.append(ev.Resumed(settle=False))
    world.create("a")
    world.create("a")
    world.tick()
    state = world.to_the_end()

    assert len([i for i in state.iterations.values() if i.fate == "landed"]) > 1
    assert world.git.launch == world.git.integration
    assert state.exit_code == 0


def test_what_was_returned_before_a_resume_is_taken_up_where_it_was_left() -> None:
    world = ByHand(*many(1), policy=policy(jobs=1))
    world.until(ac.StartIteration)
    world.append(ev.StopRequested("drain", "SIGTERM"))
    world.fail("max_turns", usage=Usage(1))
    world.until(ac.ReleaseTask)
    world.finish(ac.ReleaseTask)
    assert world.state.exit_code == 143
    world.append(ev.Resumed(settle=False))
    world.tick()
    state = world.to_the_end()

    assert [i.spec.attempt for i in state.iterations.values()] == [1, 2]
    assert (state.records["t0"].phase, state.records["t0"].used, state.exit_code) == ("done", 1, 0)


def test_a_settled_run_starts_nothing_and_lands_what_waits() -> None:
    world = ByHand(*many(4), policy=policy(jobs=2))
    world.until(ac.RunGate)
    world.finish(ac.RunGate)
    world.until(ac.RunGate)
    world.open.clear()
    world.append(ev.Resumed(settle=True))
    for n, action in sorted(world.state.intents.items()):
        lost = IterationResult("failed", "lost", start=BASE)
        result = ev.IterationEnded(n, lost) if isinstance(action, ac.StartIteration) else ev.Abandoned(n)
        world.append(result)
    before = len(world.state.iterations)
    world.tick()
    state = world.to_the_end()

    assert len(state.iterations) == before
    assert "landed" in {i.fate for i in state.iterations.values()}
    assert state.stopping == "cancelled"


def test_an_ungated_run_gates_nothing() -> None:
    world = run(many(3), policy=policy(gate=GateSettings()))

    assert not intended(world, ac.RunGate)
    assert {i.fate for i in world.state.iterations.values()} == {"landed"}
    assert events(world, ev.Noticed) == []
