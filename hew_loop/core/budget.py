"""What a run has spent, and whether it has to stop: budgets hold over the whole run (P10)."""

from __future__ import annotations

from datetime import datetime, timedelta

from hew_loop.core.events import StopReason
from hew_loop.core.state import RunState

UNKNOWN_TOKENS = 50_000
"""What an iteration that reports no usage counts as, against a token budget: unknown is not zero."""
UNKNOWN_USD = 0.50


def tokens_spent(state: RunState) -> int:
    return state.spend.usage.total + state.spend.unknown_usage * UNKNOWN_TOKENS


def usd_spent(state: RunState) -> float:
    return state.spend.cost_usd + state.spend.unknown_cost * UNKNOWN_USD


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
    if state.hold is not None and end is not None and state.hold.until >= end and state.hold.until > now:
        return "all_limited", state.hold.reason
    return None
