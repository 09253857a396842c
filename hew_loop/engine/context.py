"""What the engine acts with: built once by `wiring`, handed to everything that performs an action."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import anyio

from hew_loop.core.policy import Policy
from hew_loop.engine.gate import GateCache
from hew_loop.engine.run_folder import RunFolder
from hew_loop.engine.tripwire import Tripwire
from hew_loop.executors.base import Executor
from hew_loop.process import child_environment
from hew_loop.repo.git import Git
from hew_loop.repo.worktrees import Pool
from hew_loop.runtimes.base import Runtime
from hew_loop.trackers.base import Tracker

KEEP = (".beads",)
"""The embedded tracker's and bd's own files: never dirt, never part of a landed change. A checklist adds itself."""


def utc_now() -> datetime:
    return datetime.now(UTC)


class SteadyClock:
    """UTC that always moves forward, whatever the machine's clock does: "after our last write" must mean that."""

    def __init__(self, after: datetime | None = None) -> None:
        self._last = after or datetime.min.replace(tzinfo=UTC)

    def __call__(self) -> datetime:
        self._last = max(utc_now(), self._last + timedelta(microseconds=1))
        return self._last


@dataclass(frozen=True)
class RunContext:
    run_id: str
    policy: Policy
    git: Git
    pool: Pool
    tracker: Tracker
    executor: Executor
    runtimes: Mapping[str, Runtime]
    folder: RunFolder
    keep: tuple[str, ...]
    """The tracker's own files, relative to the repository."""
    env: Mapping[str, str]
    """Environment of every child, without an iteration's own variables."""
    skill: str
    """How to work, for every prompt: the built-in text, or the file that replaces it."""
    primer: str
    """What the project says about itself, for every prompt."""
    cache: GateCache
    tripwire: Tripwire
    stop_now: anyio.Event = field(default_factory=anyio.Event)
    stop_planner: anyio.Event = field(default_factory=anyio.Event)
    """The run stops: nobody needs advice any more."""
    tracker_lock: anyio.Lock = field(default_factory=anyio.Lock)
    clock: Callable[[], datetime] = field(default_factory=SteadyClock)
    problems: tuple[str, ...] = ()
    """What could not be had for it, to be told."""

    def mark(self, what: str) -> str:
        """The mark by which the processes of one activity are found."""
        return f"{self.run_id}:{what}"


def run_environment(
    *,
    run_id: str,
    guard: Mapping[str, str],
    beads_dir: str | None,
    settings: Mapping[str, str],
    base: Mapping[str, str],
) -> dict[str, str]:
    """What all children of a run share: the user's environment, git without background work, the one true store."""
    return child_environment(
        {
            **settings,
            **guard,
            "HEW_RUN_ID": run_id,
            **({"BEADS_DIR": beads_dir} if beads_dir else {}),
            "GIT_TERMINAL_PROMPT": "0",
            # A `gc --prune=now` beside committing worktrees corrupted a repository (merge-queue.md §5). By environment,
            # so that it holds in the agent's own git calls too.
            "GIT_CONFIG_COUNT": "2",
            "GIT_CONFIG_KEY_0": "gc.auto",
            "GIT_CONFIG_VALUE_0": "0",
            "GIT_CONFIG_KEY_1": "maintenance.auto",
            "GIT_CONFIG_VALUE_1": "false",
        },
        base=base,
    )
