"""What became of one iteration, in the few words that summary, graph and live view share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hew_loop.core.state import Iteration, RunState
from hew_loop.reports.text import plain

Kind = Literal[
    "running", "waiting", "landed", "unchanged", "conflict", "gate_failed", "refused", "withdrawn", "left", "failed",
    "blocked", "cancelled", "lost",
]  # fmt: skip

_WORDS: dict[Kind, str] = {"gate_failed": "gate failed", "left": "not landed"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """`label` is harmless and names the failure class too."""

    kind: Kind
    label: str


def outcome_of(iteration: Iteration, state: RunState) -> Outcome:
    kind = _kind(iteration, state)
    failure = iteration.result.failure if iteration.result else None
    if kind == "failed":
        refused = iteration.result is not None and iteration.result.outcome == "no_change"
        return Outcome(kind, f"failed: {'no_change is not accepted' if refused else failure or 'unknown'}")
    return Outcome(kind, _WORDS.get(kind, kind))


def why_of(iteration: Iteration) -> str:
    """The reason behind an outcome that did not land; empty when there is none."""
    said = iteration.note or (iteration.result.message if iteration.result else "")
    return plain(said, max_chars=200)


def _kind(iteration: Iteration, state: RunState) -> Kind:
    record = state.records.get(iteration.spec.task)
    match iteration.fate:
        case "waiting" if record is not None and record.phase != "waiting":
            return "left"  # given back while it waited: after `cancel --now`, or with a gate that does not run
        case "failed" if iteration.result is not None:
            if iteration.result.outcome == "blocked":
                return "blocked"
            if iteration.result.failure == "cancelled":
                return "cancelled"
            return "lost" if iteration.result.failure == "lost" else "failed"
        case fate:
            return fate
