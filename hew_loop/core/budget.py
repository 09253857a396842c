"""What a run has spent, and whether it has to stop: budgets hold over the whole run (P10)."""

from __future__ import annotations

from datetime import datetime, timedelta

from hew_loop.core import runtime_choice
from hew_loop.core.events import StopReason
from hew_loop.core.state import RunState


def tokens_spent(state: RunState) -> int:
    """As they count: cache reads at their weight, and an iteration of unknown usage as configured, never as nothing."""
    policy, spend = state.policy, state.spend
    without_reads = spend.usage.total - spend.usage.cache_read
    reads = round(spend.usage.cache_read * policy.cache_read_weight)
    return without_reads + reads + spend.unknown_usage * policy.unknown_tokens


def usd_spent(state: RunState) -> float:
    """What agents reported, what was estimated from prices, and the configured guess for the rest."""
    spend = state.spend
    return spend.cost_usd + spend.estimated_usd + spend.unknown_cost * state.policy.unknown_usd


def wall_end(state: RunState) -> datetime | None:
    budget_s = state.policy.budget_wall_s
    return None if budget_s is None else state.started_at + timedelta(seconds=budget_s)


def exceeded(state: RunState, now: datetime) -> tuple[StopReason, str] | None:
    """The first budget that is used up, in the order of precedence of the stop reasons."""
    policy = state.policy
    if policy.budget_tokens is not None and tokens_spent(state) >= policy.budget_tokens:
        return "budget_tokens", f"{tokens_spent(state):,} of {policy.budget_tokens:,} tokens"
    if policy.budget_usd is not None and usd_spent(state) >= policy.budget_usd:
        return "budget_usd", f"${usd_spent(state):.2f} of ${policy.budget_usd:.2f}"
    end = wall_end(state)
    if end is not None and now >= end:
        return "budget_wall", f"{policy.budget_wall_s:g} s are over"
    if policy.max_iter is not None and len(state.iterations) >= policy.max_iter:
        return "max_iter", f"{len(state.iterations)} iterations"
    opens = runtime_choice.opens_at(state, now)
    if opens is not None and end is not None and opens >= end:
        return "all_limited", "; ".join(f"{name}: {h.reason}" for name, h in runtime_choice.held(state, now))
    return None
