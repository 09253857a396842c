"""The first runtime is sticky, the fallback takes over, and what was held back is tried gently."""

from __future__ import annotations

import pytest

from hew_loop.core import actions as ac
from hew_loop.core import dispatcher, retry, runtime_choice, step
from hew_loop.core import events as ev
from hew_loop.core.iteration import FailureClass
from hew_loop.core.policy import ModelSettings, PlannerSettings, Policy
from tests.support.journals import JournalBuilder, task


def at_night(*, jobs: int = 1, **settings: object) -> JournalBuilder:
    policy = Policy(runtime="claude", jobs=jobs, planner=PlannerSettings(enabled=False), **settings)  # type: ignore[arg-type]
    return JournalBuilder(policy).view(*(task(f"t-{n}") for n in range(9)))


def turn(night: JournalBuilder, name: str, failure: FailureClass | None = None) -> JournalBuilder:
    """One iteration, on the runtime that is chosen now."""
    runtime = runtime_choice.choose(night.state, night.now)
    assert runtime is not None
    night.start(name, runtime=runtime)
    return night.end(name, "failed", failure=failure) if failure else night.end(name)


def chosen(night: JournalBuilder) -> str | None:
    return runtime_choice.choose(night.state, night.now)


def test_without_a_fallback_the_run_waits_and_tries_with_one() -> None:
    night = turn(at_night(jobs=3), "t-1", "rate_limit")
    assert (chosen(night), runtime_choice.open_slots(night.state, night.now)) == (None, [])
    until = runtime_choice.opens_at(night.state, night.now)
    assert until is not None
    assert dispatcher.next_wake(night.state, night.now) == until
    night.wait((until - night.now).total_seconds() + 1)
    assert (chosen(night), runtime_choice.open_slots(night.state, night.now)) == ("claude", [0])
    night.start("t-2")
    assert chosen(night) is None, "one at a time"
    night.end("t-2")
    assert runtime_choice.open_slots(night.state, night.now) == [0, 1, 2]


def test_the_fallback_takes_over_for_its_turns_and_then_the_first_is_tried() -> None:
    night = turn(at_night(fallback_runtime="codex", fallback_cooldown_iters=2), "t-1", "overloaded")
    order: list[str | None] = []
    for n in range(2, 6):
        night.wait(300)
        order.append(chosen(night))
        turn(night, f"t-{n}")
    assert order == ["codex", "codex", "claude", "claude"]


def test_a_failure_of_the_fallback_starts_the_count_anew() -> None:
    night = turn(at_night(fallback_runtime="codex", fallback_cooldown_iters=2), "t-1", "server_error")
    turn(night, "t-2")
    turn(night, "t-3", "rate_limit")
    assert night.state.health["claude"].cooling == 2
    night.wait(10)
    assert chosen(night) == "claude", "the fallback is held back, and the first one's hold is over"


def test_only_what_ends_well_on_the_fallback_is_one_of_its_turns() -> None:
    night = turn(at_night(fallback_runtime="codex", fallback_cooldown_iters=2), "t-1", "overloaded")
    failures: tuple[FailureClass | None, ...] = ("agent_failed", "killed", None, "no_diff")
    left: list[int] = []
    for n, failure in enumerate(failures, 2):
        turn(night, f"t-{n}", failure)
        left.append(night.state.health["claude"].cooling)
    assert left == [2, 2, 1, 0]


def test_when_both_are_held_back_the_run_sleeps_to_the_earlier_end() -> None:
    night = turn(at_night(fallback_runtime="codex"), "t-1", "rate_limit")
    turn(night, "t-2", "server_error")
    night.wait(600)
    turn(night, "t-3", "rate_limit")
    turn(night, "t-4", "rate_limit")
    ends = [h.until for _, h in runtime_choice.held(night.state, night.now)]
    assert len(ends) == 2
    assert runtime_choice.opens_at(night.state, night.now) == min(e for e in ends if e is not None)


def test_a_task_that_takes_its_runtime_down_each_time_does_not_keep_the_others_from_being_worked_on() -> None:
    night = turn(at_night(), "t-0", "server_error")
    order: list[str] = []
    while len(order) < 24:
        until = runtime_choice.opens_at(night.state, night.now)
        night.wait((until - night.now).total_seconds() + 1 if until else 0)
        assert not dispatcher.stop(night.state, night.now), order
        if not (decisions := dispatcher.start(night.state, night.now)):
            break
        (decision,) = decisions
        assert isinstance(decision, ac.Claim | ac.StartIteration)
        order.append(decision.task if isinstance(decision, ac.Claim) else decision.spec.task)
        turn(night, order[-1], "server_error" if order[-1] == "t-0" else None)
    assert [name for name in order if name != "t-0"] == [f"t-{n}" for n in range(1, 9)]
    assert (order.count("t-0"), night.state.records["t-0"].phase) == (4, "parking")


def test_of_several_tasks_that_went_back_the_one_tried_longest_ago_comes_first() -> None:
    night = at_night(jobs=2).start("t-0").start("t-1", slot=1)
    night.end("t-0", "failed", failure="network").end("t-1", "failed", failure="network", after_s=2).wait(120)
    turn(night, "t-0", "network").wait(600)
    (decision,) = dispatcher.start(night.state, night.now)
    assert isinstance(decision, ac.StartIteration)
    assert decision.spec.task == "t-1"


def test_steps_wait_for_a_runtime_only_while_something_could_start() -> None:
    night = at_night(step=True).view(*(task(f"t-{n}", status="closed") for n in range(1, 9)))
    night.add(ev.Suspended("planned"), ev.Resumed(settle=False)).view()
    turn(night, "t-0", "rate_limit").release("t-0").plan("skipped", after=1)
    night.add(ev.Suspended("stepped"), ev.Resumed(settle=False)).view()
    assert dispatcher.decide(night.state, night.now) == (ev.Suspended("cooling"),)
    told = step.describe(night.state, night.state)
    assert (told.mode, told.result, told.exit_code) == (
        "none",
        "waiting until 2026-03-01 22:02Z: claude: rate_limit",
        3,
    )
    night.view(task("t-0", status="closed"))
    assert dispatcher.decide(night.state, night.now) == (ev.Stopping("ready_empty"),)


def test_a_broken_runtime_stops_the_run_unless_another_one_takes_over() -> None:
    alone = turn(at_night(), "t-1", "auth")
    assert dispatcher.decide(alone.state, alone.now)[0] == ev.Stopping("runtime_error", "auth")
    helped = turn(at_night(fallback_runtime="codex"), "t-1", "auth")
    helped.wait(7200)
    assert (chosen(helped), runtime_choice.given_up(helped.state)) == ("codex", "")
    turn(helped, "t-2", "credit")
    assert runtime_choice.given_up(helped.state) == "claude: auth; codex: credit"


def test_one_outage_among_iterations_that_end_well_is_an_accident() -> None:
    night = turn(turn(at_night(), "t-1"), "t-2", "bad_response")
    assert (night.state.health, night.state.records["t-2"].phase) == ({}, "retry")
    turn(night, "t-2", "bad_response")
    assert chosen(night) is None, "twice in a row is none, and it is tried once a minute"
    fresh = turn(at_night(), "t-1", "bad_response")
    assert chosen(fresh) is None, "nothing has ended well before"
    limited = turn(turn(at_night(), "t-1"), "t-2", "rate_limit")
    assert chosen(limited) is None, "a limit is everybody's"


def test_a_task_that_alone_meets_outages_is_parked_for_them() -> None:
    night = turn(at_night(attempts=3), "t-1")
    for other in ("t-3", "t-4", "t-5"):
        turn(night, "t-2", "server_error")
        night.wait(200)
        turn(night, other)
        night.wait(200)
    assert night.state.records["t-2"].phase == "parking"
    alone = at_night(attempts=3)
    for _ in range(5):
        turn(alone, "t-2", "server_error")
        alone.wait(3600)
    assert alone.state.records["t-2"].phase == "retry", "nothing else shows that the runtime works"


def test_in_a_real_outage_the_task_that_tries_it_is_not_blamed() -> None:
    night = at_night(jobs=3, attempts=2).start("t-1").start("t-2", slot=1)
    night.end("t-1", "failed", failure="server_error").end("t-2")
    for _ in range(4):
        night.wait(3600)
        turn(night, "t-1", "server_error")
    assert night.state.records["t-1"].phase == "retry"


def test_a_limit_outlasts_a_restart_of_the_loop_and_nothing_else_does() -> None:
    limited = turn(at_night(), "t-1", "rate_limit")
    held = limited.state.health
    assert limited.add(ev.Resumed(settle=False)).state.health == held
    dead = turn(at_night(), "t-1", "auth")
    assert dead.add(ev.Resumed(settle=False)).state.health == {}


def test_a_login_that_dies_behind_a_limit_is_named_and_may_be_mended_for_a_resume() -> None:
    night = at_night(jobs=2).start("t-1").start("t-2", slot=1)
    night.end("t-1", "failed", failure="rate_limit").end("t-2", "failed", failure="auth", message="401", after_s=2)
    assert dispatcher.stop(night.state, night.now) == (ev.Stopping("runtime_error", "auth: 401; rate_limit"),)
    night.add(ev.Resumed(settle=False))
    assert (runtime_choice.given_up(night.state), chosen(night)) == ("", None), "the limit is waited for all the same"


def test_an_overloaded_model_is_replaced_at_once_and_once() -> None:
    night = turn(at_night(model=ModelSettings(fallback="small")), "t-1", "overloaded")
    record = night.state.records["t-1"]
    assert (record.phase, record.model, record.used, night.state.health) == ("retry", "small", 0, {})
    again = dispatcher.start(night.state, night.now)[0]
    assert isinstance(again, ac.StartIteration)
    assert again.spec.model == "small"
    turn(night, "t-1", "overloaded")
    assert "claude" in night.state.health


def test_an_error_that_nobody_knows_is_tried_once_more_and_then_parked() -> None:
    night = turn(at_night(attempts=9), "t-1", "unknown")
    assert night.state.records["t-1"].phase == "retry"
    turn(night, "t-1", "unknown")
    assert night.state.records["t-1"].phase == "parking"


def test_what_was_committed_before_a_limit_is_carried_on() -> None:
    night = at_night().start("t-1")
    night.end("t-1", "failed", failure="usage_limit", start="a" * 40, head="b" * 40, sound=True)
    assert night.state.records["t-1"].carry == "b" * 40
    stolen = at_night().start("t-1")
    stolen.end("t-1", "failed", failure="usage_limit", start="a" * 40, head="b" * 40, sound=False)
    assert stolen.state.records["t-1"].carry is None


@pytest.mark.parametrize("failure", ["overloaded", "auth", "credit"])
def test_so_is_what_was_committed_before_another_model_or_runtime_takes_over(failure: FailureClass) -> None:
    night = at_night(model=ModelSettings(fallback="small"), fallback_runtime="codex").start("t-1")
    night.end("t-1", "failed", failure=failure, start="a" * 40, head="b" * 40, sound=True)
    record = night.state.records["t-1"]
    assert (record.phase, record.carry, record.evidence, record.used) == ("retry", "b" * 40, (retry.CUT_OFF,), 0)
