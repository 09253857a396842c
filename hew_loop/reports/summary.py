"""What a run amounts to, as one plain value made from its state alone (P12)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Literal

from hew_loop.core.events import StopReason
from hew_loop.core.names import integration_branch
from hew_loop.core.policy import PlannedCommand, Scope
from hew_loop.core.state import RunState
from hew_loop.core.touch import shared
from hew_loop.core.verdict import Verdict
from hew_loop.reports.outcomes import outcome_of
from hew_loop.reports.spend import Cost, ModelSpend, Tokens, by_model, cost, tokens
from hew_loop.reports.task_lines import ORDER, TaskLine, TaskState, task_lines
from hew_loop.reports.text import between, plural, word

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Planner:
    """Batch plans by source."""

    agent: int
    planner: int
    skipped: int


@dataclass(frozen=True, slots=True)
class GateRuns:
    """`commands` empty: no gate, nothing was tested before it landed. Runs do not count the one on the base."""

    commands: tuple[str, ...]
    origin: str
    runs: int
    verdicts: dict[str, int]
    cached: int
    time_s: float
    base: Verdict | None
    base_reason: str


@dataclass(frozen=True, slots=True)
class VerifyRun:
    verdict: Verdict
    reason: str
    command: str
    duration_s: float


@dataclass(frozen=True, slots=True)
class Delivery:
    """`next` is the command that brings the integration branch to the user; empty when there is nothing to bring."""

    state: Literal["merged", "refused", "kept", "not_delivered", "nothing", "pending"]
    branch: str = ""
    commit: str = ""
    reason: str = ""
    next: str = ""


Status = Literal["running", "suspended", "ended", "died"]
"""suspended: between two steps (`loop step`); nothing is in flight."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What git says landed: merges on the integration branch, and what they changed there."""

    merges: int
    files: int
    insertions: int
    deletions: int


@dataclass(frozen=True, slots=True)
class Note:
    text: str
    at: datetime | None = None
    iterations: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Summary:
    """Texts are as others wrote them; whoever prints one makes it harmless."""

    run_id: str
    headline: str
    status: Status
    exit_code: int | None
    started_at: datetime
    ended_at: datetime | None
    duration_s: float
    resumes: int
    iterations: int
    outcomes: dict[str, int]
    task_counts: dict[str, int]
    scope: str
    in_scope_at_start: int
    planner: Planner
    gate: GateRuns
    verify: VerifyRun | None
    delivery: Delivery
    tokens: Tokens
    cache_read_percent: float | None
    """Measured cache reads in a hundred tokens of all input."""
    cost: Cost
    models: tuple[ModelSpend, ...]
    stop_reason: StopReason | None
    stop_detail: str
    notices: tuple[Note, ...]
    tasks: tuple[TaskLine, ...]
    changes: Changes | None = None
    """None: nothing landed, or nobody asked git."""
    shared_files: dict[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    """Path -> tasks, of the files that several tasks changed."""


def summarise(state: RunState, *, now: datetime, died: bool = False, changes: Changes | None = None) -> Summary:
    """The summary of a run that ended, runs, or `died`: it has no end in its journal, and no process any more."""
    lines = task_lines(state, now=now, died=died)
    counts = Counter[TaskState](line.state for line in lines)
    until = state.now if state.ended or died else now
    used = tokens(state)
    return Summary(
        run_id=state.run_id,
        headline=headline(state, counts, died=died),
        status=status_of(state, died=died),
        exit_code=state.exit_code,
        started_at=state.started_at,
        ended_at=state.now if state.ended else None,
        duration_s=between(state.started_at, until),
        resumes=state.resumes,
        iterations=len(state.iterations),
        outcomes=dict(sorted(Counter(outcome_of(i, state).label for i in state.iterations.values()).items())),
        task_counts={s: counts[s] for s in ORDER if counts[s]},
        scope=scope_text(state.policy.scope),
        in_scope_at_start=len(state.initial),
        planner=_planner(state),
        gate=_gate(state),
        verify=VerifyRun(v.verdict, v.reason, v.command, v.duration_s) if (v := state.verify) else None,
        delivery=_delivery(state),
        tokens=used,
        cache_read_percent=used.cached_percent,
        cost=cost(state),
        models=by_model(state),
        stop_reason=state.stopping,
        stop_detail=state.stop_detail,
        notices=_notices(state),
        tasks=lines,
        changes=changes,
        shared_files=shared(state),
    )


def status_of(state: RunState, *, died: bool) -> Status:
    if state.ended:
        return "ended"
    if state.suspended:
        return "suspended"
    return "died" if died else "running"


def headline(state: RunState, counts: Mapping[TaskState, int], *, died: bool = False) -> str:
    """The truth in one line; a run that took tasks and landed none says so first (P-4)."""
    words: dict[TaskState, str] = {
        "unchanged": "closed without change", "never_started": "never started", "retry": "to be tried again"
    }  # fmt: skip
    parts = {s: f"{counts[s]} {words.get(s, s)}" for s in ORDER if counts.get(s)}
    if not state.ended:
        parts.pop("never_started", None)
        return f"{status_of(state, died=died)}: {', '.join(parts.values()) or 'no task taken yet'}"
    if not state.records:
        why = "nothing was ready" if state.stopping == "ready_empty" else f"no task taken: {_stop_words(state)}"
        return "; ".join((why, *parts.values()))
    text = ", ".join(parts.values())
    if not counts.get("landed"):
        text = f"{plural(len(state.records), 'task')} taken, none landed: {text}"
    if state.verify is not None and state.verify.verdict in ("failed", "could_not_run"):
        text += f"; verify {state.verify.verdict.replace('_', ' ')}"
    return text + ("; not delivered" if _delivery(state).state in ("refused", "not_delivered") else "")


def to_json(summary: Summary) -> str:
    """One object, ASCII only, with a line end; field names are those of `Summary`."""
    value = {"schema_version": SCHEMA_VERSION, **asdict(summary)}
    return json.dumps(value, indent=2, default=_iso) + "\n"


def scope_text(scope: Scope) -> str:
    what = f"epics {', '.join(scope.epics)}" if scope.kind == "epics" else "ready"
    return f"{what}, only {', '.join(scope.tasks)}" if scope.tasks else what


def _stop_words(state: RunState) -> str:
    return f"{state.stopping} ({state.stop_detail})" if state.stop_detail else state.stopping or "it ended early"


def _planner(state: RunState) -> Planner:
    sources = Counter(b.source for b in state.batches)
    return Planner(sources["agent"], sources["planner"], sources["skipped"])


def _gate(state: RunState) -> GateRuns:
    gates = [g for g in state.gates.values() if g.purpose != "base" and g.verdict is not None]
    settings, base = state.policy.gate, state.base_gate
    return GateRuns(
        commands=tuple(_command(planned) for planned in settings.commands),
        origin=settings.origin,
        runs=len(gates),
        verdicts=dict(sorted(Counter(str(g.verdict) for g in gates).items())),
        cached=sum(g.cached for g in gates),
        time_s=round(sum(g.duration_s for g in gates if not g.cached), 3),
        base=base.verdict if base else None,
        base_reason=base.reason if base else "",
    )


def _command(planned: PlannedCommand) -> str:
    command = planned.command
    text = command if isinstance(command, str) else " ".join(word(w) for w in command)
    return f"{text} (in {planned.directory})" if planned.directory else text


def _delivery(state: RunState) -> Delivery:
    target = state.onto or ""
    kept = integration_branch(state.run_id)
    again = f"loop deliver {state.run_id}"
    facts = state.delivery
    if facts is not None and facts.state == "merged":
        return Delivery("merged", target, facts.commit)
    if facts is not None and facts.state == "refused":
        return Delivery("refused", kept, state.queue.tip, facts.reason, again)
    if not state.landed_something:
        return Delivery("nothing") if state.ended else Delivery("pending", target)
    if not state.ended:
        return Delivery("pending", target)
    if state.verify is not None and state.verify.verdict in ("failed", "could_not_run"):
        return Delivery("not_delivered", kept, state.queue.tip, "verify did not pass", again)
    if (facts is not None and facts.state == "kept") or not target:
        return Delivery("kept", kept, state.queue.tip, facts.reason if facts else "", again)
    return Delivery("not_delivered", kept, state.queue.tip, _stop_words(state), again)


def _notices(state: RunState) -> tuple[Note, ...]:
    notes = [Note(n.text, n.at, n.iterations) for n in state.notices]
    dirty = state.start.dirty
    if dirty:
        more = f" and {len(dirty) - 5} more" if len(dirty) > 5 else ""
        text = f"modified in your checkout at the start, so agents did not see it: {', '.join(dirty[:5])}{more}"
        notes.insert(0, Note(text, state.started_at))
    return tuple(notes)


def _iso(value: object) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    raise TypeError(f"{type(value).__name__} has no place in a summary")
