"""The composition root: from settings to adapters to engine. Nothing else names a concrete adapter."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from hew_loop.config import nearest
from hew_loop.core.events import RunStarted
from hew_loop.core.policy import Policy
from hew_loop.engine.context import KEEP, RunContext, SteadyClock, run_environment
from hew_loop.engine.gate import GateCache
from hew_loop.engine.lock import RunLock
from hew_loop.engine.run_folder import RunFolder
from hew_loop.engine.tripwire import Tripwire
from hew_loop.engine.worker import Worker
from hew_loop.errors import AgentUnavailable, UsageError
from hew_loop.executors.local import LocalExecutor
from hew_loop.process import Guard
from hew_loop.repo.git import Git
from hew_loop.repo.worktrees import Pool
from hew_loop.runtimes import claude, codex, gemini, opencode
from hew_loop.runtimes.base import AgentRequest, Runtime
from hew_loop.runtimes.claude import ClaudeRuntime, Version
from hew_loop.runtimes.codex import CodexRuntime
from hew_loop.runtimes.command import CommandRuntime
from hew_loop.runtimes.gemini import GeminiRuntime
from hew_loop.runtimes.opencode import OpencodeRuntime
from hew_loop.trackers.base import Tracker
from hew_loop.trackers.bd import BdTracker
from hew_loop.trackers.beads_store import BeadsStore
from hew_loop.trackers.checklist import ChecklistTracker
from hew_loop.trackers.checklist_notes import state_file
from hew_loop.trackers.choose import detect, no_bd_store, refuse_bd, store_directory

PRIMER = ".hew/PRIME.md"


def lock_path(git: Git) -> Path:
    return git.common_dir / "hew-loop" / "run.lock"


def open_tracker(git: Git, kind: str = "auto", env: Mapping[str, str] = os.environ) -> BeadsStore | BdTracker:
    """The backlog of this repository: with `auto` the store decides whose it is; `BEADS_DIR` names another.

    Raises TrackerError for a `kind` that the store is not of, and for a store of bd's where there is no bd.
    """
    named = env.get("BEADS_DIR") or None
    if kind == "beads" or (kind == "auto" and detect(git.root, named) == "beads"):
        return embedded_tracker(git, env)
    directory = store_directory(git.root, named)
    if detect(git.root, named) != "bd":
        raise no_bd_store(directory)
    return BdTracker.open(directory, env)


class NoTracker(UsageError):
    """The file that holds the tasks is not there."""


def checklist_tracker(git: Git, path: Path) -> ChecklistTracker:
    """Raises NoTracker when there is no such file."""
    if not path.is_file():
        raise NoTracker(f"there is no checklist {path}", hint="--checklist takes a markdown file with `- [ ]` items")
    return ChecklistTracker(path.resolve(), state=state_file(git.root, path))


def own_files(git: Git, tracker: Tracker) -> tuple[str, ...]:
    """What the tracker keeps in the repository, relative to its root: a ticked plan is no change of anybody's."""
    if tracker.kind != "checklist" or not Path(tracker.store).is_relative_to(git.root):
        return KEEP
    return (*KEEP, str(Path(tracker.store).relative_to(git.root)))


def tracker_of(git: Git, started: RunStarted, env: Mapping[str, str] = os.environ) -> Tracker:
    """The tracker that a run was started on, whatever the environment says by now."""
    if started.tracker == "checklist":
        return checklist_tracker(git, Path(started.store))
    return open_tracker(git, started.tracker, {**env, "BEADS_DIR": started.store})


def embedded_tracker(git: Git, env: Mapping[str, str] = os.environ) -> BeadsStore:
    """The backlog in `issues.jsonl`, there yet or not. Raises TrackerError for a store of bd's."""
    named = env.get("BEADS_DIR") or None
    directory = store_directory(git.root, named)
    if detect(git.root, named) == "bd":
        raise refuse_bd(directory)
    own = directory == git.root / ".beads"
    return BeadsStore(directory, exclude_file=git.common_dir / "info" / "exclude" if own else None)


def make_runtimes(policy: Policy) -> dict[str, Runtime]:
    """All runtimes by name; one of the configuration may replace a built-in one."""
    built_in = (ClaudeRuntime(), CodexRuntime(), OpencodeRuntime(), GeminiRuntime())
    runtimes: dict[str, Runtime] = {runtime.name: runtime for runtime in built_in}
    for settings in policy.runtimes:
        runtimes[settings.name] = CommandRuntime(settings)
    return runtimes


def agent_program(runtime: Runtime, worktree: Path) -> str:
    """What it starts: a name to be found on PATH, or a path."""
    return runtime.invocation(AgentRequest("probe", "", worktree / "prompt.md", worktree, None)).argv[0]


def recorded_versions(runtime: Runtime) -> tuple[Version, Version] | None:
    """The oldest and the newest version whose output its adapter was built on; None for a command of the user's."""
    match runtime:
        case ClaudeRuntime():
            return claude.RECORDED_VERSIONS
        case CodexRuntime():
            return codex.RECORDED_VERSIONS
        case OpencodeRuntime():
            return opencode.RECORDED_VERSIONS
        case GeminiRuntime():
            return gemini.RECORDED_VERSIONS
        case _:
            return None


def check_runtime(policy: Policy, worktree: Path) -> None:
    """Raises UsageError for a name that nobody knows, AgentUnavailable for a program that is not there."""
    runtimes = make_runtimes(policy)
    runtime = runtimes.get(policy.runtime)
    if runtime is None:
        known = ", ".join(sorted(runtimes))
        raise UsageError(
            f"there is no runtime {policy.runtime!r} (known: {known})",
            hint=f"did you mean {nearest(policy.runtime, runtimes)}? Others are [runtime.NAME] tables of .hew.toml",
        )
    program = agent_program(runtime, worktree)
    # A relative path with a slash is relative to a worktree that is not there yet.
    if ("/" not in program or program.startswith("/")) and shutil.which(program) is None:
        raise AgentUnavailable(
            f"the agent program {program!r} of the runtime {policy.runtime} is not on PATH",
            hint="install it, or name another: --runtime NAME (see loop doctor)",
        )


@dataclass(frozen=True)
class Session:
    """One process that holds the run lock and whose children cannot outlive it."""

    git: Git
    tracker: Tracker
    guard: Guard
    env: Mapping[str, str]
    """The user's environment: what agents get, and where the worktrees are."""

    @cached_property
    def pool(self) -> Pool:
        return Pool(self.git, Pool.default_root(self.git, self.env))

    def context(self, folder: RunFolder, policy: Policy, base: str, clock: SteadyClock) -> RunContext:
        env = run_environment(
            run_id=folder.run_id,
            guard=self.guard.env,
            beads_dir=None if self.tracker.kind == "checklist" else self.tracker.store,
            settings=dict(self.git.identity_env()),
            base=self.env,
        )
        keep = own_files(self.git, self.tracker)
        tripwire = Tripwire(self.git, keep)
        worker = Worker(self.git, self.pool, make_runtimes(policy), folder, policy, env, tripwire, keep)
        primer = self.git.read_file_at(base, PRIMER)
        return RunContext(
            run_id=folder.run_id,
            policy=policy,
            git=self.git,
            pool=self.pool,
            tracker=self.tracker,
            executor=LocalExecutor(worker),
            folder=folder,
            keep=keep,
            env=env,
            primer=primer.decode("utf-8", "replace") if primer else "",
            cache=GateCache(self.git.common_dir / "hew-loop" / "gate-cache.json"),
            tripwire=tripwire,
            clock=clock,
        )


@contextmanager
def session(git: Git, run_id: str, tracker: Tracker, env: Mapping[str, str] = os.environ) -> Generator[Session]:
    """Hold the run lock. Raises LockHeld, naming the run that holds it."""
    with RunLock.acquire(lock_path(git), run_id=run_id), Guard.start(run_id) as guard:
        guarded = tracker.carrying(guard.env) if isinstance(tracker, BdTracker) else tracker
        yield Session(git, guarded, guard, env)


def check_scope(tracker: Tracker, policy: Policy) -> None:
    """Raises UsageError for ids that do not exist, and for epics that are none or closed."""
    wanted = (*policy.scope.epics, *policy.scope.tasks)
    if not wanted:
        return
    tasks = {t.id: t for t in tracker.read()}
    command = "bd" if tracker.kind == "bd" else "loop task"
    for task_id in wanted:
        if task_id not in tasks:
            raise UsageError(f"there is no task {task_id!r}", hint=f"see: {command} list --all")
    for epic in policy.scope.epics:
        if tasks[epic].type != "epic":
            raise UsageError(
                f"{epic} is no epic, but a {tasks[epic].type}", hint=f"loop run --scope ready --task {epic}"
            )
        if tasks[epic].is_closed:
            raise UsageError(f"the epic {epic} is closed", hint=f"{command} reopen {epic}")
