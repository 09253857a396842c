"""One agent process on one task: what it was asked, how it ended. Both travel as JSON (journal, remote workers)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

FailureClass = Literal[
    # names of the recorded runs (reference/runtimes.md), so that a class means the same everywhere
    "empty", "permission_denied", "auth", "credit", "rate_limit", "usage_limit", "overloaded", "server_error",
    "network", "timeout", "bad_response", "bad_request", "prompt_too_long", "model_not_found", "refusal",
    "incomplete", "max_turns", "budget", "session", "usage_error", "spawn_error", "cancelled", "killed",
    "truncated", "unknown",
    # ours
    "stalled", "timed_out", "agent_failed", "agent_blocked", "no_diff", "unmerged", "foreign_work", "setup_failed",
    "lost", "worktree_broken", "withdrawn",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens. `input` never contains the cached ones (codex counts them in; its adapter takes them out)."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_create: int = 0

    @property
    def total(self) -> int:
        return self.input + self.output + self.cache_read + self.cache_create

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input + other.input,
            self.output + other.output,
            self.cache_read + other.cache_read,
            self.cache_create + other.cache_create,
        )


@dataclass(frozen=True, slots=True)
class AgentReport:
    """What the runtime read from the agent's output. `failure` is None only where its own rule of success holds."""

    failure: FailureClass | None = None
    message: str = ""
    """Evidence for the failure in the agent's own words, at most 2,000 characters."""
    final_text: str = ""
    usage: Usage | None = None
    """None is unknown, which is not zero."""
    cost_usd: float | None = None
    model: str | None = None
    denials: tuple[str, ...] = ()
    """Names of refused tools, as far as the stream says."""
    reset_at: datetime | None = None
    """When a rate or usage limit ends, if the agent said so."""
    reset_from: str = ""
    """Where `reset_at` was read: the name of an event or a header, or `text`."""


@dataclass(frozen=True, slots=True)
class IterationSpec:
    """Everything that a worker needs to run one iteration; serialisable."""

    run_id: str
    number: int
    task: str
    attempt: int
    slot: int
    base: str
    """Commit id of the integration tip at the decision."""
    branch: str
    """Full branch name without `refs/heads/`."""
    actor: str
    runtime: str
    model: str | None = None
    carry: str | None = None
    """Newest head that this task really finished with, to be merged on `base` first."""
    evidence: tuple[str, ...] = ()
    """What went wrong before, newest last, as sentences and output tails for the prompt."""


Outcome = Literal["done", "no_change", "blocked", "failed"]


@dataclass(frozen=True, slots=True)
class IterationResult:
    """How one iteration ended. Every path of the worker returns one; none raises into the engine."""

    outcome: Outcome
    failure: FailureClass | None = None
    message: str = ""
    start: str | None = None
    """Commit the agent started from (base, or base merged with `carry`)."""
    head: str | None = None
    """Commit that its branch holds now; equal to `start` when nothing was left."""
    sound: bool = False
    """`head` descends from `start` and holds neither conflict markers nor unlanded work of other tasks."""
    salvage: str | None = None
    """Full ref that keeps a tree which must not be on the branch (unmerged paths, conflict markers)."""
    files: tuple[str, ...] = ()
    summary: str = ""
    next_iteration: tuple[str, ...] | None = None
    """None: the agent said nothing; empty: it said `nothing`; else ids as given, unchecked."""
    usage: Usage | None = None
    cost_usd: float | None = None
    model: str | None = None
    exit_code: int | None = None
    duration_s: float = 0.0
    leftovers: int = 0
    """Processes that outlived the agent and were killed."""
    reset_at: datetime | None = None
    reset_from: str = ""
    """Where `reset_at` was read: the name of an event or a header, or `text`."""
    prompt_hash: str = ""
    prompt_parts: tuple[tuple[str, int], ...] = ()
    """Names and estimated tokens of what the prompt was made of."""
    warnings: tuple[str, ...] = ()
    """Things a person should know: the main checkout changed, shared git config changed, output was cut."""

    @property
    def has_run(self) -> bool:
        """There was an agent process: what it does not tell of its usage is unknown, not zero."""
        return self.exit_code is not None or self.usage is not None or self.failure == "lost"
