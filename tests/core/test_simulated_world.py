"""The promises P2, P3, P6, P7, P8, P12, one landing per task and termination, over runs that nobody scripted.

The checks themselves are in `support.promises`; here is what is drawn, and that the world can catch a broken rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hew_loop.core import actions as ac
from hew_loop.core import dispatcher, merge_queue, picking, recovery, runtime_choice, startable, transitions
from hew_loop.core import events as ev
from hew_loop.core.iteration import IterationResult
from hew_loop.core.policy import GateSettings, ModelSettings, PlannerSettings
from hew_loop.core.state import RunState
from hew_loop.core.task import Task
from tests.support.world import World
from tests.support.world_parts import Scenario, policy, task

WORLDS = settings(deadline=None, max_examples=120, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def backlogs(draw: st.DrawFn) -> tuple[Task, ...]:
    """Up to seven tasks; each waits for some of those before it, some are closed, labelled, or children of an epic."""
    tasks: list[Task] = []
    if draw(st.booleans()):
        tasks.append(task("epic", kind="epic"))
    count = draw(st.integers(1, 6))
    for i in range(count):
        before = [f"t{j}" for j in range(i)]
        after = draw(st.lists(st.sampled_from(before), max_size=2, unique=True)) if before else []
        kind = draw(st.sampled_from(("plain",) * 7 + ("closed", "needs-human", "child")))
        tasks.append(
            task(
                f"t{i}",
                *after,
                priority=draw(st.integers(0, 2)),
                status="closed" if kind == "closed" else "open",
                labels=("needs-human",) if kind == "needs-human" else (),
                parent="epic" if kind == "child" and tasks and tasks[0].id == "epic" else "",
                minutes=i,
            )
        )
    return tuple(tasks)


@st.composite
def scenarios(draw: st.DrawFn, *, kills: bool = True) -> Scenario:
    gate = policy().gate if draw(st.integers(0, 4)) else GateSettings()
    bounds = {
        "max_iter": draw(st.sampled_from((None, None, None, 3))),
        "budget_tokens": draw(st.sampled_from((None, None, None, 60_000))),
        "budget_wall_s": draw(st.sampled_from((None, None, None, 600.0))),
        "accept_no_change": draw(st.sampled_from((True, True, True, False))),
        "max_new": draw(st.sampled_from((None, None, 1))),
        "guard_trip": draw(st.sampled_from((5, 5, 2))),
        "fallback_runtime": draw(st.sampled_from((None, "codex"))),
        "planner": PlannerSettings(enabled=draw(st.booleans())),
        "model": ModelSettings(fallback=draw(st.sampled_from((None, "small")))),
    }
    return Scenario(
        tasks=draw(backlogs()),
        policy=policy(jobs=draw(st.integers(1, 4)), attempts=draw(st.integers(1, 3)), gate=gate, **bounds),
        agents=draw(st.binary(min_size=20, max_size=60)),
        moves=draw(st.binary(min_size=40, max_size=200)),
        kills=tuple(draw(st.lists(st.integers(0, 30), max_size=4))) if kills else (),
        settle_last=draw(st.booleans()),
        base_verdict=draw(st.sampled_from(("passed",) * 6 + ("not_tested", "failed", "could_not_run"))),
        gate_dies_after=draw(st.sampled_from((None, None, None, None, 0, 2))),
        launch_branch=draw(st.sampled_from(("main", "main", "main", None))),
    )


@WORLDS
@given(scenario=scenarios(kills=False))
def test_a_run_keeps_its_promises_in_any_order_of_answers(scenario: Scenario) -> None:
    World(scenario).run()


@WORLDS
@given(scenario=scenarios())
def test_a_run_keeps_its_promises_when_it_is_killed_after_any_event(scenario: Scenario) -> None:
    World(scenario).run()


Breaker = Callable[[pytest.MonkeyPatch], None]


def _ignore_dependencies(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(startable, "_not_in_base", lambda state, dependency, held: None)


def _close_before_landing(patch: pytest.MonkeyPatch) -> None:
    tell = dispatcher._tell_tracker  # pyright: ignore[reportPrivateUsage]
    early = {"waiting": "landed"}
    patch.setattr(
        dispatcher, "_tell_tracker", lambda state, r: tell(state, replace(r, phase=early.get(r.phase, r.phase)))
    )


def _keep_claims(patch: pytest.MonkeyPatch) -> None:
    tell = dispatcher._tell_tracker  # pyright: ignore[reportPrivateUsage]
    patch.setattr(dispatcher, "_tell_tracker", lambda state, r: None if state.stopping else tell(state, r))


def _one_slot_only(patch: pytest.MonkeyPatch) -> None:
    slots = RunState.free_slots
    patch.setattr(RunState, "free_slots", lambda state: [s for s in slots(state) if s == 0])


def _obey_the_suggestion(patch: pytest.MonkeyPatch) -> None:
    def starved(state: RunState, now: datetime) -> Iterator[Task]:
        wanted = state.suggestion.ids if state.suggestion else None
        return (t for t in startable.startable(state, now) if wanted is None or t.id in wanted)

    patch.setattr(dispatcher, "startable", starved)
    patch.setattr(picking, "startable", starved)


def _ignore_holds(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(runtime_choice, "_is_open", lambda state, name, now: True)


def _all_at_once_behind_a_hold(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(runtime_choice, "is_gentle", lambda state, name: False)


def _land_without_a_verdict(patch: pytest.MonkeyPatch) -> None:
    step = merge_queue.next_step
    patch.setattr(merge_queue, "next_step", lambda queue, gated: step(queue, gated=False))


def _a_claim_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    settled = recovery.settled

    def forgetful(n: int, action: ac.Action, found: recovery.Found) -> ev.Event:
        return settled(n, action, recovery.Found() if isinstance(action, ac.Claim) else found)

    patch.setattr(recovery, "settled", forgetful)


def _time_in_the_state(patch: pytest.MonkeyPatch) -> None:
    end = transitions.end_iteration

    def impure(state: RunState, action: ac.StartIteration, result: IterationResult) -> RunState:
        ended = end(state, action, result)
        return replace(ended, stop_detail=str(id(result)))

    patch.setattr(transitions, "end_iteration", impure)


@pytest.mark.parametrize(
    "breaks",
    [
        _ignore_dependencies,
        _close_before_landing,
        _keep_claims,
        _one_slot_only,
        _obey_the_suggestion,
        _ignore_holds,
        _all_at_once_behind_a_hold,
        _land_without_a_verdict,
        _a_claim_is_forgotten,
        _time_in_the_state,
    ],
)
def test_the_world_notices_a_broken_rule(breaks: Breaker, monkeypatch: pytest.MonkeyPatch) -> None:
    breaks(monkeypatch)

    with pytest.raises(AssertionError):
        run_many(400)


def run_many(seeds: int) -> None:
    for seed in range(seeds):
        World(chaos(seed)).run()


def chaos(seed: int) -> Scenario:
    """A scenario that needs no hypothesis: the same for the same seed."""
    random = Random(seed)
    names = [f"t{i}" for i in range(random.randint(2, 6))]
    return Scenario(
        tuple(task(t, *random.sample(names[:i], min(i, random.randint(0, 2))), minutes=i) for i, t in enumerate(names)),
        policy(
            jobs=random.randint(1, 4),
            max_iter=random.choice((None, None, 4)),
            fallback_runtime=random.choice((None, "codex")),
            planner=PlannerSettings(enabled=random.random() < 0.5),
            model=ModelSettings(fallback=random.choice((None, "small"))),
        ),
        agents=random.randbytes(40),
        moves=random.randbytes(120),
        kills=tuple(random.randint(0, 30) for _ in range(random.randint(0, 3))),
    )
