"""What a run used and cost, as a whole and by model: measured, estimated, or unknown, and never one for the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hew_loop.core.iteration import Usage
from hew_loop.core.prices import cost_of, estimated_usd
from hew_loop.core.state import RunState
from hew_loop.reports.text import plural

PLANNER = "planner"


@dataclass(frozen=True, slots=True)
class Tokens:
    """None is unknown, which is not zero; `unknown_iterations` said nothing about theirs."""

    total: int | None
    input: int | None
    output: int | None
    cache_read: int | None
    cache_create: int | None
    unknown_iterations: int

    @property
    def cached_percent(self) -> float | None:
        """Measured cache reads in a hundred tokens of all input; None when nothing is known of it."""
        every = (self.input or 0) + (self.cache_read or 0) + (self.cache_create or 0)
        return round(100 * (self.cache_read or 0) / every, 1) if every else None


@dataclass(frozen=True, slots=True)
class Cost:
    """`usd` holds what was estimated, too."""

    usd: float | None
    estimated_usd: float
    """Of those that reported tokens and no cost, from `loop.prices`."""
    unknown_iterations: int


@dataclass(frozen=True, slots=True)
class ModelSpend:
    """What one model of one runtime used. `model` None: the runtime's own, and it does not say which."""

    model: str | None
    runtime: str
    """Or `planner`, whose calls count as iterations here."""
    iterations: int
    tasks: int
    tokens: Tokens
    cost: Cost


def tokens(state: RunState) -> Tokens:
    spend = state.spend
    known = not spend.unknown_usage or any(use.usage is not None for use in _uses(state))
    return _tokens(spend.usage if known else None, spend.unknown_usage)


def cost(state: RunState) -> Cost:
    spend = state.spend
    known = not spend.unknown_cost or any(use.usd is not None for use in _uses(state))
    return _cost(spend.cost_usd, spend.estimated_usd, spend.unknown_cost, known=known)


def by_model(state: RunState) -> tuple[ModelSpend, ...]:
    """Ended iterations and planner calls, the planner last, else in the order of their first one."""
    used: dict[tuple[str, str | None], list[_Use]] = {}
    for use in sorted(_uses(state), key=lambda use: use.runtime == PLANNER):
        used.setdefault((use.runtime, use.model), []).append(use)
    return tuple(_model_spend(runtime, model, uses) for (runtime, model), uses in used.items())


def dollars(cost: Cost) -> str:
    """`$1.25`, `~$1.25` when some of it is estimated, `unknown`."""
    if cost.usd is None:
        return "unknown"
    return f"{'~' if cost.estimated_usd else ''}${cost.usd:,.2f}"


def tokens_words(tokens: Tokens) -> str:
    if tokens.total is None:
        return _nobody_knows(tokens.unknown_iterations)
    kinds = ("input", tokens.input), ("output", tokens.output), ("cache read", tokens.cache_read)
    each = ", ".join(f"{name} {count or 0:,}" for name, count in (*kinds, ("cache create", tokens.cache_create)))
    return f"{tokens.total:,} ({each})" + _and_unknown(tokens.unknown_iterations)


def cost_words(cost: Cost) -> str:
    if cost.usd is None:
        return _nobody_knows(cost.unknown_iterations)
    estimated = f", of which ${cost.estimated_usd:,.2f} is estimated from prices" if cost.estimated_usd else ""
    return dollars(cost) + estimated + _and_unknown(cost.unknown_iterations)


@dataclass(frozen=True, slots=True)
class _Use:
    """One agent process that ran."""

    runtime: str
    model: str | None
    task: str
    usage: Usage | None
    usd: float | None
    is_estimated: bool


def _uses(state: RunState) -> Iterator[_Use]:
    policy = state.policy
    for iteration in state.iterations.values():
        spec, result = iteration.spec, iteration.result
        if result is None or not result.has_run:
            continue
        usd, is_estimated = cost_of(policy, result, spec.model)
        yield _Use(spec.runtime, result.model or spec.model, spec.task, result.usage, usd, is_estimated)
    for batch in state.batches:
        if batch.took_s is None:
            continue
        estimate = estimated_usd(policy, batch.model, batch.usage) if batch.cost_usd is None else None
        usd = batch.cost_usd if estimate is None else estimate
        yield _Use(PLANNER, batch.model, "", batch.usage, usd, estimate is not None)


def _model_spend(runtime: str, model: str | None, uses: list[_Use]) -> ModelSpend:
    usages = [use.usage for use in uses if use.usage is not None]
    total = sum(usages, Usage()) if usages else None
    reported = sum((use.usd or 0.0 for use in uses if not use.is_estimated), 0.0)
    estimated = sum((use.usd or 0.0 for use in uses if use.is_estimated), 0.0)
    unknown = sum(use.usd is None for use in uses)
    return ModelSpend(
        model=model,
        runtime=runtime,
        iterations=len(uses),
        tasks=len({use.task for use in uses if use.task}),
        tokens=_tokens(total, len(uses) - len(usages)),
        cost=_cost(reported, estimated, unknown, known=unknown < len(uses)),
    )


def _tokens(usage: Usage | None, unknown: int) -> Tokens:
    if usage is None:
        return Tokens(None, None, None, None, None, unknown)
    return Tokens(usage.total, usage.input, usage.output, usage.cache_read, usage.cache_create, unknown)


def _cost(reported: float, estimated: float, unknown: int, *, known: bool) -> Cost:
    return Cost(round(reported + estimated, 6) if known else None, round(estimated, 6), unknown)


def _nobody_knows(iterations: int) -> str:
    return f"unknown ({plural(iterations, 'iteration')} did not say)"


def _and_unknown(iterations: int) -> str:
    return f", and unknown for {plural(iterations, 'iteration')}" if iterations else ""
