"""Which runtime the next iteration runs on: the first one, or the fallback while the first is held back.

hew's rule, for many slots at once: the first is sticky; when it fails, the fallback takes over for so many good
iterations of its own, and then the first is tried again, with one iteration only, until one of it ends well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from itertools import pairwise

from hew_loop.core import retry
from hew_loop.core.actions import StartIteration
from hew_loop.core.iteration import IterationResult
from hew_loop.core.policy import Policy
from hew_loop.core.retry import Health
from hew_loop.core.state import Iteration, RunState, TaskRecord

GOOD = Health()
MIN_ALONE = 3
"""So often, at the least, a task has to meet alone what others do not, before it is blamed."""


def runtimes(policy: Policy) -> tuple[str, ...]:
    """The first one, then the fallback."""
    fallback = policy.fallback_runtime
    return (policy.runtime,) if fallback in (None, policy.runtime) else (policy.runtime, fallback)


def choose(state: RunState, now: datetime) -> str | None:
    """The runtime for one more start; None while all are held back."""
    names = runtimes(state.policy)
    free = [name for name in names if _may_start(state, name, now)]
    cooled = [name for name in free if health_of(state, name).cooling == 0]
    return next(iter(cooled or free), None)


def is_gentle(state: RunState, name: str) -> bool:
    """It was held back and has not ended well since: one start at a time."""
    return health_of(state, name).until is not None


def open_slots(state: RunState, now: datetime) -> list[int]:
    """Free slots that a start may fill now: within the iterations that are left and what the runtimes take."""
    names = [name for name in runtimes(state.policy) if _may_start(state, name, now)]
    left = state.iterations_left()
    room = min(left, sum(1 if is_gentle(state, name) else left for name in names))
    return state.free_slots()[: max(room - len(state.in_phase("claiming", "claimed")), 0)]


def opens_at(state: RunState, now: datetime) -> datetime | None:
    """When a runtime may be tried again; None when one is open, or none will be."""
    names = runtimes(state.policy)
    if any(_is_open(state, name, now) for name in names):
        return None
    times = [until for name in names if (until := health_of(state, name).until) and not health_of(state, name).given_up]
    return min(times, default=None)


def wakes(state: RunState) -> Sequence[datetime]:
    """Times at which a runtime opens."""
    return [until for name in runtimes(state.policy) if (until := health_of(state, name).until) is not None]


def given_up(state: RunState) -> str:
    """Why no runtime is worth waiting for; empty while one is."""
    healths = [health_of(state, name) for name in runtimes(state.policy)]
    if not all(health.given_up for health in healths):
        return ""
    names = runtimes(state.policy)
    return "; ".join(
        health.reason if len(names) == 1 else f"{n}: {health.reason}" for n, health in zip(names, healths, strict=True)
    )


def held(state: RunState, now: datetime) -> tuple[tuple[str, Health], ...]:
    """The runtimes that are not started now, with why and until when."""
    return tuple((n, health_of(state, n)) for n in runtimes(state.policy) if not _is_open(state, n, now))


def health_of(state: RunState, name: str) -> Health:
    return state.health.get(name, GOOD)


def blames_the_task(state: RunState, record: TaskRecord, iteration: Iteration) -> bool:
    """A limit or an outage met as often as there are attempts, and in between each time another task began and ended
    well on the same runtime: what happens to nobody else is the task's own."""
    if not _is_later(iteration.result):
        return False
    runtime = iteration.spec.runtime
    mine = (state.iterations[n] for n in record.iterations[:-1])
    hit = [*(i for i in mine if i.spec.runtime == runtime and _is_later(i.result)), iteration]
    good = [
        (i.started_at, i.ended_at)
        for i in state.iterations.values()
        if i.ended_at and i.spec.task != record.task and i.spec.runtime == runtime and _is_good(i.result)
    ]
    between = [(first.ended_at, second.started_at) for first, second in pairwise(hit)]
    alone = sum(any(begun >= end and ended <= start for begun, ended in good) for end, start in between if end)
    return alone + 1 >= max(state.policy.attempts, MIN_ALONE)


def after_iteration(state: RunState, iteration: Iteration, result: IterationResult) -> RunState:
    """What the end of an iteration says about its runtime and about the one that it stood in for.

    One outage among iterations that end well is an accident: its task is tried again at once, and nothing is held back.
    """
    name, started, failure = iteration.spec.runtime, iteration.started_at, result.failure
    known = None if failure is None else retry.row(failure)
    if known is not None and known.then in ("cancelled", "lost", "withdrawn"):
        return state
    if failure == "model_not_found":  # often one task's own label: the person who reads the reason wants to know which
        result = replace(result, message=f"{iteration.spec.task}: {result.message}")
    before = health_of(state, name)
    after = before
    if known is None or known.did_its_part:
        after = retry.after_success(before, started=started)
    elif (known.is_crash or known.then in ("later", "run")) and not _is_lone(state, iteration):
        seed = f"{state.run_id}:{name}:{state.seq}"
        after = retry.after_failure(before, result, started=started, now=state.now, seed=seed)
    health = {**state.health, name: after}
    first, *others = runtimes(state.policy)
    if others:
        is_held_anew = after.until is not None and after.until != before.until
        window = state.policy.fallback_cooldown_iters
        waiting = health.get(first, GOOD)
        is_good = known is None or known.did_its_part
        if name == first and is_held_anew:
            health[first] = replace(after, cooling=window)
        elif name != first and waiting.cooling:
            health[first] = replace(waiting, cooling=window if is_held_anew else waiting.cooling - is_good)
    return replace(state, health={n: h for n, h in health.items() if h != GOOD})


def _is_lone(state: RunState, iteration: Iteration) -> bool:
    """An outage that one iteration of many has seen: the one that ended before it was well, and so was its task."""
    if not _is_outage(iteration.result) or is_gentle(state, iteration.spec.runtime):
        return False
    others = [i for i in state.iterations.values() if i.spec.runtime == iteration.spec.runtime and i.ended_at]
    newest = max(others, key=lambda i: i.ended_at or i.started_at, default=None)
    mine = [i for i in others if i.spec.task == iteration.spec.task]
    return newest is not None and _is_good(newest.result) and not (mine and _is_outage(mine[-1].result))


def _is_outage(result: IterationResult | None) -> bool:
    """A failure of the runtime of which nothing says that it ends by itself."""
    return _is_later(result) and not (result and result.failure and retry.row(result.failure).is_limit)


def _is_later(result: IterationResult | None) -> bool:
    return result is not None and result.failure is not None and retry.row(result.failure).then == "later"


def _is_good(result: IterationResult | None) -> bool:
    return result is not None and (result.failure is None or retry.row(result.failure).did_its_part)


def _is_open(state: RunState, name: str, now: datetime) -> bool:
    health = health_of(state, name)
    return not health.given_up and (health.until is None or now >= health.until)


def _may_start(state: RunState, name: str, now: datetime) -> bool:
    if not _is_open(state, name, now):
        return False
    if not is_gentle(state, name):
        return True
    since = health_of(state, name).since
    return not any(
        isinstance(a, StartIteration) and a.spec.runtime == name and _began(state, a) >= (since or state.started_at)
        for a in state.intents.values()
    )


def _began(state: RunState, action: StartIteration) -> datetime:
    iteration = state.iterations.get(action.spec.number)
    return iteration.started_at if iteration else state.now
