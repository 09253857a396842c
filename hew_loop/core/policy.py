"""Every knob of a run, frozen: built once from the configuration, journalled, and the same again on resume."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Command = str | tuple[str, ...]
"""A string runs through `sh -c`; a tuple is an argv."""


Kind = Literal["test", "lint"]


@dataclass(frozen=True, slots=True)
class PlannedCommand:
    """One command of a gate. What a person gave with `--gate` is a test: only that makes a tree tested."""

    command: Command
    kind: Kind = "test"
    directory: str = ""
    """Where it runs, relative to the root of the worktree; empty is the root."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Which ready tasks count. `tasks` narrows further: only these ids."""

    kind: Literal["ready", "epics"] = "ready"
    epics: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WorktreeSettings:
    setup: Command | None = None
    setup_inputs: tuple[str, ...] = ()
    copy: tuple[str, ...] = ()
    link: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    pristine: bool = False


@dataclass(frozen=True, slots=True)
class GateSettings:
    """`commands` empty means: no gate, and everything that lands is shown as not tested."""

    commands: tuple[PlannedCommand, ...] = ()
    timeout_s: float = 1800.0
    origin: str = ""
    """Where the commands come from, for people: `--gate`, `.hew.toml`, `justfile`, `--no-gate`, …"""


@dataclass(frozen=True, slots=True)
class VerifySettings:
    enabled: bool = True
    commands: tuple[PlannedCommand, ...] = ()
    timeout_s: float = 600.0
    origin: str = ""


@dataclass(frozen=True, slots=True)
class RuntimeSettings:
    """A `[runtime.NAME]` table of the configuration: any program as an agent."""

    name: str
    command: tuple[str, ...]
    prompt: Literal["stdin", "file", "arg"] = "stdin"
    success: tuple[int, ...] = (0,)


@dataclass(frozen=True, slots=True)
class ModelSettings:
    forced: str | None = None
    default: str | None = None
    by_priority: tuple[tuple[str, str], ...] = ()
    by_type: tuple[tuple[str, str], ...] = ()
    fallback: str | None = None


@dataclass(frozen=True, slots=True)
class PlannerSettings:
    """`runtime` None: the run's own plans, see `Policy.planner_runtime`."""

    enabled: bool = True
    runtime: str | None = None
    model: str | None = None
    budget_tokens: int = 10_000
    wait_s: float = 20.0
    timeout_s: float = 120.0


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars for a million tokens."""

    input: float = 0.0
    output: float = 0.0
    cache_read: float = 0.0
    cache_create: float = 0.0


@dataclass(frozen=True, slots=True)
class Policy:
    """Durations in seconds, money in US dollars. `None` as a budget means: no limit."""

    scope: Scope = field(default_factory=Scope)
    jobs: int = 1
    runtime: str = "claude"
    runtimes: tuple[RuntimeSettings, ...] = ()
    fallback_runtime: str | None = None
    fallback_cooldown_iters: int = 3
    model: ModelSettings = field(default_factory=ModelSettings)
    planner: PlannerSettings = field(default_factory=PlannerSettings)
    prices: tuple[tuple[str, Price], ...] = ()
    """By model; for runtimes that report tokens and no cost."""
    prompt_file: str | None = None
    """Replaces the built-in instructions; relative to the repository's root."""
    attempts: int = 3
    iter_timeout_s: float = 3600.0
    stall_timeout_s: float = 900.0
    max_iter: int | None = None
    budget_tokens: int | None = None
    budget_usd: float | None = None
    budget_wall_s: float | None = None
    cache_read_weight: float = 1.0
    unknown_tokens: int = 50_000
    unknown_usd: float = 0.5
    guard_trip: int = 5
    max_new: int | None = None
    """How many tasks created during the run may be started; None: as many as were in scope at its start."""
    poll_s: float = 10.0
    until_empty: bool = True
    avoid_conflicts: bool = True
    """Among equal priorities, what will probably change no file of what is at work goes first."""
    accept_no_change: bool = True
    deliver: Literal["merge", "branch"] = "merge"
    gate: GateSettings = field(default_factory=GateSettings)
    verify: VerifySettings = field(default_factory=VerifySettings)
    worktree: WorktreeSettings = field(default_factory=WorktreeSettings)
    step: bool = False
    """The run goes on one transition at a time (`loop step`): each process plans, works on one task, or finishes."""
    cooldown_s: float = 3600.0
    """In steps: how long a task that failed waits before it is tried again."""
    max_output_bytes: int = 64 * 1024 * 1024
    """What `output.log` keeps of one agent; the rest is counted, read by the runtime and dropped."""

    @property
    def planner_runtime(self) -> str | None:
        """Who is asked what to start next. A command of the user's only where it is named for it, since nobody knows
        what it would make of such a prompt; in steps nobody, since there is nothing to choose beside."""
        planner = self.planner
        if not planner.enabled or not planner.budget_tokens or self.step:
            return None
        own = None if any(r.name == self.runtime for r in self.runtimes) else self.runtime
        return planner.runtime or own
