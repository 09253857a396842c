"""The promises P2, P3, P6, P7, P8, P12, one landing per task and termination, over runs that nobody scripted.

The checks themselves are in `support.world`; here is what is drawn, and that the world can catch a broken rule.
"""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hew_loop.core.policy import GateSettings
from hew_loop.core.task import Task
from tests.support.world import Scenario, World, policy, task

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
    }
    return Scenario(
        tasks=draw(backlogs()),
        policy=policy(jobs=draw(st.integers(1, 4)), attempts=draw(st.integers(1, 3)), gate=gate, **bounds),
        agents=draw(st.binary(min_size=20, max_size=60)),
        moves=draw(st.binary(min_size=40, max_size=200)),
        kills=tuple(draw(st.lists(st.integers(0, 30), max_size=4))) if kills else (),
        settle_last=draw(st.booleans()),
        base_verdict=draw(st.sampled_from(("passed",) * 6 + ("not_tested", "failed", "could_not_run"))),
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
