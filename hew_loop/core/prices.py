"""What an iteration cost: what its agent says, else what its tokens come to at the configured prices."""

from __future__ import annotations

from hew_loop.core.iteration import IterationResult, Usage
from hew_loop.core.policy import Policy

_PER = 1_000_000


def estimated_usd(policy: Policy, model: str | None, usage: Usage | None) -> float | None:
    """None where the tokens, the model or its price are not known."""
    price = dict(policy.prices).get(model) if model else None
    if price is None or usage is None:
        return None
    return (
        usage.input * price.input
        + usage.output * price.output
        + usage.cache_read * price.cache_read
        + usage.cache_create * price.cache_create
    ) / _PER


def cost_of(policy: Policy, result: IterationResult, model: str | None) -> tuple[float | None, bool]:
    """US dollars, None for unknown, and whether they are estimated; `model` is what it was to run with."""
    if result.cost_usd is not None:
        return result.cost_usd, False
    estimate = estimated_usd(policy, result.model or model, result.usage)
    return estimate, estimate is not None
