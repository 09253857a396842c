from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from hew_loop.core import actions as ac
from hew_loop.core import budget
from hew_loop.core import events as ev
from hew_loop.core.iteration import Usage
from hew_loop.core.policy import Policy, Price
from hew_loop.core.retry import Health
from hew_loop.core.state import RunState, Spend
from hew_loop.core.transitions import begin
from tests.support.journals import JournalBuilder
from tests.support.world import intended, run
from tests.support.world_parts import BASE, RUN_ID, T0, Agent, policy, task

LATER = T0 + timedelta(hours=1)


def state(spend: Spend | None = None, held: Health | None = None, **bounds: object) -> RunState:
    start = ev.RunStarted(RUN_ID, BASE, policy(**bounds), "main", BASE, "fake", "store")
    return replace(begin(ev.Stamped(1, T0, start)), spend=spend or Spend(), health={"fake": held} if held else {})


def test_without_budgets_nothing_is_exceeded() -> None:
    assert budget.exceeded(state(Spend(Usage(10**9), 1e6)), LATER) is None


@pytest.mark.parametrize(
    ("spend", "bounds", "reason"),
    [
        (Spend(Usage(600, 300, 50, 50)), {"budget_tokens": 1000}, ("budget_tokens", "1,000 of 1,000 tokens")),
        (Spend(Usage(999)), {"budget_tokens": 1000}, None),
        (Spend(unknown_usage=2), {"budget_tokens": 100_000}, ("budget_tokens", "100,000 of 100,000 tokens")),
        (Spend(cost_usd=2.0), {"budget_usd": 2.0}, ("budget_usd", "$2.00 of $2.00")),
        (Spend(unknown_cost=3), {"budget_usd": 1.5}, ("budget_usd", "$1.50 of $1.50")),
        (Spend(unknown_cost=3), {"budget_usd": 1.6}, None),
        (Spend(), {"budget_wall_s": 3600.0}, ("budget_wall", "3600 s are over")),
        (Spend(), {"budget_wall_s": 3601.0}, None),
        (Spend(), {"max_iter": 0}, ("max_iter", "0 iterations")),
    ],
)
def test_a_budget_is_used_up_when_it_is_reached(
    spend: Spend, bounds: dict[str, object], reason: tuple[str, str] | None
) -> None:
    assert budget.exceeded(state(spend, **bounds), LATER) == reason


def test_the_first_reason_in_the_order_of_precedence_is_named() -> None:
    everything = {"budget_tokens": 1, "budget_usd": 0.1, "budget_wall_s": 1.0, "max_iter": 0}
    spent = Spend(Usage(5), 5.0)
    named: list[str] = []

    while over := budget.exceeded(state(spent, **everything), LATER):
        named.append(over[0])
        del everything[{"budget_wall": "budget_wall_s"}.get(over[0], over[0])]

    assert named == ["budget_tokens", "budget_usd", "budget_wall", "max_iter"]


def test_a_limit_that_outlasts_the_wall_budget_stops_the_run() -> None:
    limited = Health(until=LATER + timedelta(hours=2), reason="usage_limit")

    assert budget.exceeded(state(held=limited, budget_wall_s=7200.0), LATER) == ("all_limited", "fake: usage_limit")
    assert budget.exceeded(state(held=limited, budget_wall_s=14_400.0), LATER) is None
    assert budget.exceeded(state(held=limited), LATER) is None
    fallback = {"fallback_runtime": "other", "budget_wall_s": 7200.0}
    assert budget.exceeded(state(held=limited, **fallback), LATER) is None, "the other one is open"


def test_a_run_starts_nothing_more_once_its_tokens_are_spent() -> None:
    tasks = [task(f"t{i}", minutes=i) for i in range(8)]

    world = run(tasks, policy=policy(jobs=2, budget_tokens=300))

    # 110 tokens each: two, two more while 220 were spent, and those that ran then end.
    assert len(intended(world, ac.StartIteration)) == 4
    assert world.state.spend.usage.total == 440
    assert (world.state.stopping, world.state.exit_code) == ("budget_tokens", 4)


def test_unknown_usage_counts_against_a_token_budget() -> None:
    silent = Agent(usage=None)

    world = run(
        [task(t) for t in "abc"], script={t: [silent] for t in "abc"}, policy=policy(jobs=1, budget_tokens=60_000)
    )

    assert world.state.spend.unknown_usage == 2
    assert (world.state.stopping, world.state.exit_code) == ("budget_tokens", 4)


@pytest.mark.parametrize(
    ("spend", "bounds", "tokens", "usd"),
    [
        (Spend(Usage(600, 300, 1000, 50), 2.0), {}, 1950, 2.0),
        (Spend(Usage(600, 300, 1000, 50)), {"cache_read_weight": 0.1}, 1050, 0.0),
        (Spend(Usage(600, 300, 1000, 50)), {"cache_read_weight": 0.0}, 950, 0.0),
        (Spend(unknown_usage=2, unknown_cost=3), {"unknown_tokens": 7, "unknown_usd": 0.25}, 14, 0.75),
        (Spend(unknown_usage=2, unknown_cost=3), {"unknown_tokens": 0, "unknown_usd": 0.0}, 0, 0.0),
        (Spend(cost_usd=1.0, estimated_usd=0.5, unknown_cost=1), {}, 0, 2.0),
    ],
)
def test_cache_reads_have_their_weight_and_the_unknown_its_configured_guess(
    spend: Spend, bounds: dict[str, object], tokens: int, usd: float
) -> None:
    known = state(spend, **bounds)

    assert (budget.tokens_spent(known), budget.usd_spent(known)) == (tokens, usd)


def test_an_iteration_with_an_estimated_cost_is_not_an_unknown_one() -> None:
    priced = Policy(prices=(("m", Price(input=10_000.0)),), budget_usd=2.0)
    journal = JournalBuilder(priced).view(task("a"), task("b"), task("c")).start("a").start("b").start("c")

    journal.end("a", model="m", usage=Usage(100)).end("b", model="m", usage=Usage(50), cost_usd=0.25)
    assert journal.state.spend == Spend(Usage(150), 0.25, estimated_usd=1.0)
    journal.end("c", model="another", usage=Usage(100))
    assert journal.state.spend == Spend(Usage(250), 0.25, unknown_cost=1, estimated_usd=1.0)
    assert budget.usd_spent(journal.state) == 1.75
