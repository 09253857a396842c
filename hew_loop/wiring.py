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
from hew_loop.engine import prefix
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
from hew_loop.runtimes.aider import AiderRuntime
from hew_loop.runtimes.base import AgentRequest, Runtime
from hew_loop.runtimes.claude import ClaudeRuntime
from hew_loop.runtimes.codex import CodexRuntime
from hew_loop.runtimes.command import CommandRuntime
from hew_loop.runtimes.gemini import GeminiRuntime
from hew_loop.runtimes.opencode import OpencodeRuntime
from hew_loop.runtimes.reset_time import zone_of
from hew_loop.trackers.base import Tracker
from hew_loop.trackers.bd import BdTracker
from hew_loop.trackers.beads_store import BeadsStore
from hew_loop.trackers.checklist import ChecklistTracker
from hew_loop.trackers.checklist_notes import state_file
from hew_loop.trackers.choose import detect, no_bd_store, refuse_bd, store_directory


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
    zone = zone_of(dict(policy.worktree.env).get("TZ"))
    built_in = (ClaudeRuntime(), CodexRuntime(zone=zone), OpencodeRuntime(), GeminiRuntime(), AiderRuntime())
    runtimes: dict[str, Runtime] = {runtime.name: runtime for runtime in built_in}
    for settings in policy.runtimes:
        runtimes[settings.name] = CommandRuntime(settings)
    return runtimes


def agent_program(runtime: Runtime, worktree: Path) -> str:
    """What it starts: a name to be found on PATH, or a path."""
    return runtime.invocation(AgentRequest("probe", "", worktree / "prompt.md", worktree, None)).argv[0]


def check_runtime(policy: Policy, worktree: Path) -> None:
    """Raises UsageError for a name that nobody knows, AgentUnavailable for a program that is not there.

    A planner's program may be missing: it only suggests.
    """
    runtimes = make_runtimes(policy)
    named = {"runtime": policy.runtime, "fallback-runtime": policy.fallback_runtime}
    for option, name in {**named, "planner-runtime": policy.planner.runtime}.items():
        if name is not None and name not in runtimes:
            known = ", ".join(sorted(runtimes))
            raise UsageError(
                f"there is no runtime {name!r} for --{option} (known: {known})",
                hint=f"did you mean {nearest(name, runtimes)}? Others are [runtime.NAME] tables of .hew.toml",
            )
    if policy.fallback_runtime == policy.runtime:
        raise UsageError(f"the fallback runtime is {policy.runtime} itself", hint="name another --fallback-runtime")
    for option, name in named.items():
        program = agent_program(runtimes[name], worktree) if name else ""
        # A relative path with a slash is relative to a worktree that is not there yet.
        if name and ("/" not in program or program.startswith("/")) and shutil.which(program) is None:
            raise AgentUnavailable(
                f"the agent program {program!r} of the runtime {name} is not on PATH",
                hint=f"install it, or name another: --{option} NAME (see loop doctor)",
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
        runtimes = make_runtimes(policy)
        worker = Worker(self.git, self.pool, runtimes, folder, policy, env, tripwire, keep)
        ask = self.tracker.primer if isinstance(self.tracker, BdTracker) else None
        primer, problem = prefix.primer(self.git, folder, base, ask)
        return RunContext(
            run_id=folder.run_id,
            policy=policy,
            git=self.git,
            pool=self.pool,
            tracker=self.tracker,
            executor=LocalExecutor(worker),
            runtimes=runtimes,
            folder=folder,
            keep=keep,
            env=env,
            skill=prefix.skill(self.git, policy, base),
            primer=primer,
            problems=(problem,) if problem else (),
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
