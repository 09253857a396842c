from __future__ import annotations

import pytest

from hew_loop.core.iteration import IterationResult, Usage
from hew_loop.core.policy import Policy, Price
from hew_loop.core.prices import cost_of, estimated_usd

PRICED = Policy(prices=(("gpt-5-codex", Price(1.25, 10.0, 0.125, 2.0)), ("free", Price())))
USAGE = Usage(input=1_000_000, output=100_000, cache_read=2_000_000, cache_create=500_000)


@pytest.mark.parametrize(
    ("model", "usage", "usd"),
    [
        ("gpt-5-codex", USAGE, 3.5),
        ("free", USAGE, 0.0),
        ("gpt-5-codex", None, None),
        ("gpt-5", USAGE, None),
        (None, USAGE, None),
    ],
)
def test_a_cost_is_estimated_where_tokens_and_price_are_known(
    model: str | None, usage: Usage | None, usd: float | None
) -> None:
    assert estimated_usd(PRICED, model, usage) == usd


@pytest.mark.parametrize(
    ("result", "cost"),
    [
        (IterationResult("done", usage=USAGE, cost_usd=7.0, model="gpt-5-codex"), (7.0, False)),
        (IterationResult("done", usage=USAGE, cost_usd=0.0, model="gpt-5-codex"), (0.0, False)),
        (IterationResult("done", usage=USAGE), (3.5, True)),
        (IterationResult("done", usage=USAGE, model="another"), (None, False)),
        (IterationResult("done"), (None, False)),
    ],
)
def test_what_the_agent_says_of_its_cost_beats_an_estimate(
    result: IterationResult, cost: tuple[float | None, bool]
) -> None:
    assert cost_of(PRICED, result, "gpt-5-codex") == cost
