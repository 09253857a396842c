"""Which tasks the free slots take: those of the suggestion in force that may start, else the graph order."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import islice

from hew_loop.core.actions import Claim
from hew_loop.core.batch_plan import narrow
from hew_loop.core.names import actor_name
from hew_loop.core.startable import new_left, startable
from hew_loop.core.state import RunState


def wanted(state: RunState, now: datetime, count: int) -> list[str]:
    """Startable tasks in the order in which they are taken; in steps, one that failed comes after all others."""
    if state.policy.step:
        failed = {t for t, r in state.records.items() if r.used}
        return sorted((t.id for t in startable(state, now)), key=failed.__contains__)[:count]
    return [t.id for t in islice(startable(state, now), None if state.suggestion else count)]


def claims(state: RunState, wanted: Sequence[str], free: Sequence[int]) -> list[Claim]:
    """A claim for each free slot, as long as there are tasks."""
    suggestion = state.suggestion
    claims: list[Claim] = []
    new = 0
    for slot in free:
        if not wanted:
            break
        picked = narrow(suggestion.ids if suggestion else (), wanted)
        task = picked.ids[0]
        suggested = suggestion is not None and picked.narrowed
        why = suggestion.source if suggestion is not None and suggested else "graph"
        batch = suggestion.number if suggestion is not None and suggested else None
        claims.append(Claim(task, slot, actor_name(state.run_id, slot), why, batch))
        new += task not in state.initial and task not in state.records
        full = new >= new_left(state)
        wanted = [t for t in wanted if t != task and not (full and t not in state.initial and t not in state.records)]
    return claims
