"""What a run does at this moment, as plain values: the one picture behind the live view and `loop status`."""

from __future__ import annotations

import heapq
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from hew_loop.core import runtime_choice
from hew_loop.core.actions import LAUNCH, BuildChain, Deliver, Land, RunGate, Verify
from hew_loop.core.state import HOLDS_SLOT, RunState, TaskRecord
from hew_loop.reports.outcomes import outcome_of
from hew_loop.reports.spend import Cost, Tokens, cost, dollars, tokens
from hew_loop.reports.summary import Status, headline, status_of
from hew_loop.reports.task_lines import TaskState, task_state
from hew_loop.reports.text import between, clock, duration, plain, plural

RECENT = 5

Step = Literal["building", "gating", "landing", "verifying", "delivering"]


@dataclass(frozen=True, slots=True)
class Slot:
    """`task` empty: the slot is free. `quiet_s`: since its agent last printed something, None when not known."""

    slot: int
    task: str = ""
    title: str = ""
    phase: str = ""
    iteration: int | None = None
    attempt: int | None = None
    age_s: float | None = None
    quiet_s: float | None = None


@dataclass(frozen=True, slots=True)
class Queue:
    """`step` is what the merge queue does now, to the tasks `gated`; `waiting` are all that have not landed."""

    waiting: tuple[str, ...]
    step: Step | None
    gated: tuple[str, ...]
    gate: int | None
    age_s: float | None


@dataclass(frozen=True, slots=True)
class Hold:
    """A runtime that is not started before `until`; None: not again in this run."""

    runtime: str
    until: datetime | None
    reason: str


@dataclass(frozen=True, slots=True)
class Picture:
    run_id: str
    headline: str
    status: Status
    pid: int
    age_s: float
    stopping: str | None
    holds: tuple[Hold, ...]
    """Runtimes that are not started now."""
    slots: tuple[Slot, ...]
    queue: Queue
    tokens: Tokens
    cost: Cost
    recent: tuple[str, ...]
    """The newest things that happened, oldest first, with their time."""


def picture(state: RunState, *, now: datetime, last_output: Mapping[int, datetime], died: bool = False) -> Picture:
    """`last_output`: when each running iteration last printed something, by iteration number."""
    at = state.now if state.ended or died else now
    counts = Counter[TaskState](task_state(r) for r in state.records.values())
    in_slot = {r.slot: r for r in state.records.values() if r.phase in HOLDS_SLOT}
    return Picture(
        run_id=state.run_id,
        headline=headline(state, counts, died=died),
        status=status_of(state, died=died),
        pid=state.start.pid,
        age_s=round(between(state.started_at, at), 1),
        stopping=state.stopping,
        holds=() if state.ended else tuple(Hold(n, h.until, h.reason) for n, h in runtime_choice.held(state, at)),
        slots=tuple(_slot(state, n, in_slot.get(n), at, last_output) for n in range(state.policy.jobs)),
        queue=_queue(state, at),
        tokens=tokens(state),
        cost=cost(state),
        recent=_recent(state),
    )


def to_json(shown: Picture) -> str:
    return json.dumps(asdict(shown), indent=2, default=lambda at: at.astimezone(UTC).isoformat()) + "\n"


def to_text(shown: Picture) -> str:
    """The picture as plain lines, for a pipe and for a look without `--watch`."""
    lines = [plain(shown.headline), "", f"run    {shown.run_id}, {_state_words(shown)}, {duration(shown.age_s)}"]
    lines += [f"slot {slot.slot}  {slot_words(slot)}" for slot in shown.slots]
    lines += [f"queue  {queue_words(shown.queue)}", f"spend  {spend_words(shown)}"]
    lines += [f"hold   {hold_words(hold)}" for hold in shown.holds]
    if shown.recent:
        lines += ["", *(f"  {entry}" for entry in shown.recent)]
    return "\n".join(lines) + "\n"


def hold_words(hold: Hold) -> str:
    when = f"until {clock(hold.until)}" if hold.until else "for good"
    return f"{hold.runtime} {when}: {plain(hold.reason)}"


def slot_words(slot: Slot) -> str:
    if not slot.task:
        return "free"
    if slot.age_s is None:
        return f"{plain(slot.task)}  {slot.phase}"
    quiet = "" if slot.quiet_s is None else f", last output {duration(slot.quiet_s)} ago"
    return f"{plain(slot.task)}  iter {slot.iteration}, attempt {slot.attempt}, {duration(slot.age_s)}{quiet}"


def queue_words(queue: Queue) -> str:
    if queue.step in ("verifying", "delivering"):
        return queue.step + (f", for {duration(queue.age_s)}" if queue.age_s is not None else "")
    if queue.step is None:
        return f"{plural(len(queue.waiting), 'task')} waiting: {_names(queue.waiting)}" if queue.waiting else "empty"
    number = f" (gate {queue.gate})" if queue.gate else ""
    age = f", for {duration(queue.age_s)}" if queue.age_s is not None else ""
    behind = [t for t in queue.waiting if t not in queue.gated]
    also = f"; {plural(len(behind), 'task')} behind: {_names(behind)}" if behind else ""
    return f"{queue.step} {_names(queue.gated)}{number}{age}{also}"


def spend_words(shown: Picture) -> str:
    spent, paid = shown.tokens, shown.cost
    tokens_known = (
        "tokens unknown" if spent.total is None else f"{spent.total:,} tokens{_plus(spent.unknown_iterations)}"
    )
    cost_known = "cost unknown" if paid.usd is None else f"{dollars(paid)}{_plus(paid.unknown_iterations)}"
    return f"{tokens_known}, {cost_known}"


def _plus(unknown: int) -> str:
    return f" (+ {unknown} unknown)" if unknown else ""


def _state_words(shown: Picture) -> str:
    if shown.status == "died":
        return f"died; carry it on: loop resume {shown.run_id}"
    if shown.status == "suspended":
        return "between two steps; the next one: loop step"
    return f"stopping ({shown.stopping})" if shown.stopping and shown.status == "running" else shown.status


def _names(tasks: tuple[str, ...] | list[str]) -> str:
    more = f" and {len(tasks) - 8} more" if len(tasks) > 8 else ""
    return ", ".join(plain(t) for t in tasks[:8]) + more


def _slot(
    state: RunState, number: int, record: TaskRecord | None, now: datetime, last_output: Mapping[int, datetime]
) -> Slot:
    if record is None:
        return Slot(number)
    task = state.backlog.tasks.get(record.task)
    title = task.title if task else ""
    if record.phase != "running":
        return Slot(number, record.task, title, record.phase)
    iteration = state.iterations[record.iterations[-1]]
    heard = last_output.get(iteration.spec.number)
    return Slot(
        number, record.task, title, record.phase, iteration.spec.number, iteration.spec.attempt,
        age_s=round(between(iteration.started_at, now), 1),
        quiet_s=None if heard is None else round(between(heard, now), 1),
    )  # fmt: skip


def _queue(state: RunState, now: datetime) -> Queue:
    waiting = tuple(state.iterations[n].spec.task for n in state.queue.waiting)
    step, entries, gate, since = _step(state)
    gated = tuple("the launch branch" if n == LAUNCH else state.iterations[n].spec.task for n in entries)
    return Queue(waiting, step, gated, gate, None if since is None else round(between(since, now), 1))


def _step(state: RunState) -> tuple[Step | None, tuple[int, ...], int | None, datetime | None]:
    for action in state.intents.values():
        match action:
            case RunGate(number=number, entries=entries):
                return "gating", entries, number, state.gates[number].started_at
            case BuildChain(entries=entries):
                return "building", tuple(e.number for e in entries), None, None
            case Land(entries=entries):
                return "landing", entries, None, None
            case Verify():
                return "verifying", (), None, None
            case Deliver():
                return "delivering", (), None, None
            case _:
                pass
    return None, (), None, None


def _recent(state: RunState) -> tuple[str, ...]:
    newest = heapq.nlargest(RECENT, _happened(state), key=lambda entry: entry[0])
    return tuple(f"{clock(at)} {text}" for at, text in reversed(newest))


def _happened(state: RunState) -> Iterator[tuple[datetime, str]]:
    for number, iteration in state.iterations.items():
        task = plain(iteration.spec.task)
        if iteration.ended_at is None:
            yield iteration.started_at, f"iter {number} {task} started"
        else:
            yield iteration.ended_at, f"iter {number} {task} ended: {outcome_of(iteration, state).label}"
    for gate in state.gates.values():
        if gate.verdict is not None:
            ended = gate.started_at + timedelta(seconds=gate.duration_s)
            yield ended, f"gate {gate.number} {gate.verdict.replace('_', ' ')} in {duration(gate.duration_s)}"
    for notice in state.notices:
        yield notice.at, plain(notice.text, max_chars=200)
