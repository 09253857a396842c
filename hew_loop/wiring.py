"""The composition root: from settings to adapters to engine. Nothing else names a concrete adapter."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import anyio

from hew_loop import config
from hew_loop.config import nearest
from hew_loop.core import events as ev
from hew_loop.core.policy import Policy
from hew_loop.core.secrets import is_secret_name, without_secrets
from hew_loop.core.startable import unfinished
from hew_loop.core.state import FINAL, RunState
from hew_loop.core.transitions import apply, begin, replay
from hew_loop.engine import journal as journals
from hew_loop.engine import opening, recovery, run_folder, strays
from hew_loop.engine.context import KEEP, RunContext, SteadyClock, run_environment, utc_now
from hew_loop.engine.gate import GateCache
from hew_loop.engine.journal import Journal
from hew_loop.engine.lock import RunLock
from hew_loop.engine.loop import Loop, Observer
from hew_loop.engine.run_files import RunFiles
from hew_loop.engine.run_folder import RunFolder
from hew_loop.engine.tripwire import Tripwire
from hew_loop.engine.worker import Worker
from hew_loop.errors import AgentUnavailable, HewError, UsageError
from hew_loop.executors.local import LocalExecutor
from hew_loop.process import Guard
from hew_loop.repo.git import Git
from hew_loop.repo.worktrees import Pool
from hew_loop.runtimes.base import AgentRequest, Runtime
from hew_loop.runtimes.claude import RECORDED_VERSIONS, ClaudeRuntime, Version
from hew_loop.runtimes.command import CommandRuntime
from hew_loop.trackers.base import Tracker
from hew_loop.trackers.beads_store import BeadsStore
from hew_loop.trackers.choose import detect, refuse_bd, store_directory

PRIMER = ".hew/PRIME.md"

MakeObservers = Callable[[RunFolder], Sequence[Observer]]


def lock_path(git: Git) -> Path:
    return git.common_dir / "hew-loop" / "run.lock"


def embedded_tracker(git: Git, env: Mapping[str, str] = os.environ) -> BeadsStore:
    """The backlog of this repository; `BEADS_DIR` names another. Raises TrackerError for a store of bd's."""
    named = env.get("BEADS_DIR") or None
    directory = store_directory(git.root, named)
    if detect(git.root, named) == "bd":
        raise refuse_bd(directory)
    own = directory == git.root / ".beads"
    return BeadsStore(directory, exclude_file=git.common_dir / "info" / "exclude" if own else None)


def make_runtimes(policy: Policy) -> dict[str, Runtime]:
    """All runtimes by name; one of the configuration may replace a built-in one."""
    runtimes: dict[str, Runtime] = {"claude": ClaudeRuntime()}
    for settings in policy.runtimes:
        runtimes[settings.name] = CommandRuntime(settings)
    return runtimes


def agent_program(runtime: Runtime, worktree: Path) -> str:
    """What it starts: a name to be found on PATH, or a path."""
    return runtime.invocation(AgentRequest("probe", "", worktree / "prompt.md", worktree, None)).argv[0]


def recorded_versions(runtime: Runtime) -> tuple[Version, Version] | None:
    """The oldest and the newest version whose output its adapter was built on; None for a command of the user's."""
    return RECORDED_VERSIONS if isinstance(runtime, ClaudeRuntime) else None


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
            tracker_store=self.tracker.store,
            settings=dict(self.git.identity_env()),
            base=self.env,
        )
        tripwire = Tripwire(self.git, KEEP)
        worker = Worker(self.git, self.pool, make_runtimes(policy), folder, policy, env, tripwire, KEEP)
        primer = self.git.read_file_at(base, PRIMER)
        return RunContext(
            run_id=folder.run_id,
            policy=policy,
            git=self.git,
            pool=self.pool,
            tracker=self.tracker,
            executor=LocalExecutor(worker),
            folder=folder,
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
        yield Session(git, tracker, guard, env)


def start(
    git: Git,
    policy: Policy,
    *,
    run_id: str | None,
    base: str | None,
    observers: MakeObservers,
    settled: Callable[[RunState], None],
    env: Mapping[str, str] = os.environ,
) -> RunState:
    """A whole run: settle dead ones first, open, drive, close. Raises HewError for what ends it before its time."""
    tracker = embedded_tracker(git, env)
    opening.ground(git, policy, base=base)
    check_runtime(policy, git.root)
    check_scope(tracker, policy)
    run_id = run_id or run_folder.new_run_id(utc_now())
    with session(git, run_id, tracker, env) as held:
        for dead in dead_runs(git):
            settled(_carry_on(held, dead, settle=True, onto=None, observers=observers))
        told = strays.gather(git, held.pool, tracker, but=run_id)
        where = opening.ground(git, policy, base=base)  # only now: settling may have delivered
        policy = opening.detected(git, policy, where.base)
        folder = run_folder.create(git.root, run_id)
        started = opening.open_run(
            git,
            folder,
            policy=without_secrets(policy),
            where=where,
            tracker=tracker.kind,
            store=tracker.store,
            pid=os.getpid(),
        )
        clock = SteadyClock()
        with Journal(folder.journal, seq=0, clock=clock) as journal:
            stamped = journal.append(started)
            journal.sync()
            run_folder.point_latest(folder)
            listeners = (RunFiles(folder), *observers(folder))
            state = begin(stamped)
            for listener in listeners:
                listener(stamped, state, state)
            context = held.context(folder, policy, where.base, clock)
            state = _tell(journal, state, listeners, [ev.Noticed(text) for text in told])
            return _drive(git, Loop(context, journal, state, listeners))


def resume(git: Git, run: str | None, *, observers: MakeObservers) -> RunState:
    """Carry a dead run on, same id, same budgets. Raises UsageError when it is not to be resumed."""
    tracker = embedded_tracker(git)
    folder = run_folder.find(git.root, run) if run else _newest_dead(git)
    with session(git, folder.run_id, tracker) as held:
        if folder == run_folder.runs(git.root)[-1]:
            run_folder.point_latest(folder)  # it may have died before it was pointed at
        if replay(journals.read(folder.journal).events).ended:
            raise UsageError(f"{folder.run_id} has ended", hint=f"see: loop summary {folder.run_id}")
        return _carry_on(held, folder, settle=False, onto=None, observers=observers)


def deliver(git: Git, run: str, *, onto: str | None, observers: MakeObservers) -> RunState:
    """Verify and deliver what an ended run kept. Raises UsageError when there is nothing to deliver or nowhere."""
    tracker = embedded_tracker(git)
    folder = run_folder.find(git.root, run)
    with session(git, folder.run_id, tracker) as held:
        state = replay(journals.read(folder.journal).events)
        if not state.landed_something:
            raise UsageError(f"nothing landed in {folder.run_id}", hint=f"see: loop summary {folder.run_id}")
        if state.delivery is not None and state.delivery.state == "merged":
            raise UsageError(f"{folder.run_id} was delivered already, as {state.delivery.commit[:12]}")
        branch = onto or state.start.launch_branch or git.head().branch
        if branch is None or git.commit_id(f"refs/heads/{branch}") is None:
            raise UsageError("there is no branch to deliver to", hint=f"loop deliver {folder.run_id} --onto BRANCH")
        return _carry_on(held, folder, settle=True, onto=branch, observers=observers)


def dead_runs(git: Git) -> tuple[RunFolder, ...]:
    """Runs to be settled, oldest first: those that never ended, and those that ended before the tracker could be told
    what became of their tasks. Call it under the run lock: then they are dead."""
    found: list[RunFolder] = []
    for folder in run_folder.runs(git.root):
        if _is_told(folder):
            continue
        try:
            state = replay(journals.read(folder.journal).events)
        except HewError:
            continue  # doctor names it: a run that died before its first event left nothing to settle
        if not state.ended or (unfinished(state) and state.stopping != "stuck"):
            found.append(folder)
    return tuple(found)


def _is_told(folder: RunFolder) -> bool:
    """The manifest is written with the last event: cheaper to read than a journal."""
    try:
        tasks = json.loads((folder.path / "manifest.json").read_bytes())["tasks"].values()
        return all(task["phase"] in FINAL for task in tasks)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def check_scope(tracker: Tracker, policy: Policy) -> None:
    """Raises UsageError for ids that do not exist, and for epics that are none or closed."""
    wanted = (*policy.scope.epics, *policy.scope.tasks)
    if not wanted:
        return
    tasks = {t.id: t for t in tracker.read()}
    for task_id in wanted:
        if task_id not in tasks:
            raise UsageError(f"there is no task {task_id!r}", hint="see: loop task list --all")
    for epic in policy.scope.epics:
        if tasks[epic].type != "epic":
            raise UsageError(
                f"{epic} is no epic, but a {tasks[epic].type}", hint=f"loop run --scope ready --task {epic}"
            )
        if tasks[epic].is_closed:
            raise UsageError(f"the epic {epic} is closed", hint=f"loop task reopen {epic}")


def _newest_dead(git: Git) -> RunFolder:
    dead = dead_runs(git)
    if not dead:
        raise UsageError("no run was interrupted", hint="see: loop list")
    return dead[-1]


def _carry_on(
    held: Session, folder: RunFolder, *, settle: bool, onto: str | None, observers: MakeObservers
) -> RunState:
    """Recover, then drive to the end again: with `settle`, without starting anything."""
    text = journals.read(folder.journal)
    state = replay(text.events)
    clock = SteadyClock(after=state.now)
    context = held.context(folder, _with_secrets(held, state.policy), state.start.base, clock)
    folder.stop_file.unlink(missing_ok=True)
    (folder.path / "manifest.json").unlink(missing_ok=True)  # it stands for a run that has ended
    files = RunFiles(folder)
    listeners: tuple[Observer, ...] = (files, *observers(folder))
    with Journal.reopen(folder.journal, text, clock=clock) as journal:
        told = strays.gather(held.git, held.pool, held.tracker, but=folder.run_id)
        found = recovery.recover(context, state)
        resumed = ev.Resumed(settle=settle, onto=onto, pid=os.getpid(), cut_bytes=text.torn_bytes)
        state = _tell(journal, state, listeners, [*found, resumed, *(ev.Noticed(text) for text in told)])
        files.write_all(state)
        return _drive(held.git, Loop(context, journal, state, listeners))


def _with_secrets(held: Session, policy: Policy) -> Policy:
    """The journal holds no secret, so a run that is carried on reads `worktree.env` from the configuration again."""
    if not any(is_secret_name(name) for name, _ in policy.worktree.env):
        return policy
    now = config.load(held.git.root, held.env).policy().worktree
    return replace(policy, worktree=replace(policy.worktree, env=now.env))


def _tell(journal: Journal, state: RunState, listeners: Sequence[Observer], events: Sequence[ev.Event]) -> RunState:
    for event in events:
        stamped = journal.append(event)
        before, state = state, apply(state, stamped)
        for listener in listeners:
            listener(stamped, before, state)
    return state


def _drive(git: Git, loop: Loop) -> RunState:
    state = anyio.run(loop.run)
    merged = state.delivery is not None and state.delivery.state == "merged"
    opening.close_refs(git, run_id=state.run_id, tip=state.queue.tip, base=state.start.base, merged=merged)
    return state
