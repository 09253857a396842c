"""The ways into a run: start one, carry one on, deliver one, take one step."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import anyio

from hew_loop import config
from hew_loop.core import events as ev
from hew_loop.core.actions import ReadTasks
from hew_loop.core.policy import Policy
from hew_loop.core.secrets import is_secret_name, without_secrets
from hew_loop.core.startable import startable, unfinished
from hew_loop.core.state import FINAL, RunState
from hew_loop.core.step import NOTHING, Step, describe
from hew_loop.core.transitions import apply, begin, replay
from hew_loop.engine import history, opening, prefix, recovery, run_folder, stops, strays
from hew_loop.engine import journal as journals
from hew_loop.engine.context import SteadyClock, utc_now
from hew_loop.engine.journal import Journal
from hew_loop.engine.loop import Loop, Observer
from hew_loop.engine.run_files import RunFiles
from hew_loop.engine.run_folder import RunFolder
from hew_loop.errors import HewError, UsageError
from hew_loop.repo import shared_things
from hew_loop.repo.git import Git
from hew_loop.trackers.base import Tracker
from hew_loop.wiring import NoTracker, Session, check_runtime, check_scope, own_files, session, tracker_of

MakeObservers = Callable[[RunFolder], Sequence[Observer]]


def start(
    git: Git,
    policy: Policy,
    tracker: Tracker,
    *,
    run_id: str | None,
    base: str | None,
    observers: MakeObservers,
    settled: Callable[[RunState], None],
    env: Mapping[str, str] = os.environ,
) -> RunState:
    """A whole run: settle dead ones first, open, drive, close. Raises HewError for what ends it before its time."""
    _check(git, policy, tracker, base=base)
    if run_id is not None:
        run_folder.check_new(git.root, run_id)
    run_id = run_id or run_folder.new_run_id(utc_now(), root=git.root)
    with session(git, run_id, tracker, env) as held:
        told = _settle(held, observers, settled)
        told = (*told, *strays.gather(git, held.pool, held.tracker, but=run_id))
        where = opening.ground(git, policy, base=base)  # only now: settling may have delivered
        prefix.skill(git, policy, where.base)  # on this base too
        policy = opening.detected(git, policy, where.base)
        folder = run_folder.create(git.root, run_id)
        started = opening.open_run(
            git,
            folder,
            policy=without_secrets(policy),
            where=where,
            tracker=tracker.kind,
            store=tracker.store,
            keep=own_files(git, tracker),
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
            state = _tell(journal, state, listeners, [ev.Noticed(text) for text in (*told, *context.problems)])
            return _drive(git, Loop(context, journal, state, listeners))


@dataclass(frozen=True, slots=True)
class Plan:
    """What a first `loop step` pins."""

    policy: Policy
    tracker: Tracker
    base: str | None


def step(
    git: Git,
    plan: Callable[[], Plan],
    *,
    store: str | None,
    observers: MakeObservers,
    settled: Callable[[RunState], None],
) -> Step:
    """Exactly one transition: plan, work on one task, or finish. `plan` is asked only when no run of steps is open.

    Raises UsageError when the one that is open works on another store than `store`, where that is named.
    """
    folder = open_steps(git)
    if folder is None:
        wanted = plan()
        policy = replace(wanted.policy, step=True, jobs=1, max_new=0)
        if not any(startable(look_ahead(git, policy, wanted.tracker, base=wanted.base), utc_now())):
            return NOTHING
        state = start(git, policy, wanted.tracker, run_id=None, base=wanted.base, observers=observers, settled=settled)
        return describe(None, state)
    before = replay(journals.read(folder.journal).events)
    if store not in (None, before.start.store):
        raise UsageError(
            f"the steps of {folder.run_id} are not over, and work on {before.start.store}",
            hint=f"go on with them: loop step. Or end them: loop cancel {folder.run_id} && loop step",
        )
    with session(git, folder.run_id, tracker_of(git, before.start)) as held:
        state = _carry_on(held, folder, settle=False, onto=None, observers=observers)
        if state.ended:
            _archive(git, state)
    return describe(before, state)


def open_steps(git: Git) -> RunFolder | None:
    """The newest run of steps that has not finished."""
    for folder in reversed(run_folder.runs(git.root)):
        if (folder.path / "manifest.json").exists():
            continue
        try:
            state = replay(journals.read(folder.journal).events)
        except HewError:
            continue
        if state.policy.step and not state.ended:
            return folder
    return None


def look_ahead(git: Git, policy: Policy, tracker: Tracker, *, base: str | None) -> RunState:
    """The state of a run that had just read its tasks; nothing is written. Raises HewError for what cannot work."""
    _check(git, policy, tracker, base=base)
    where = opening.ground(git, policy, base=base)
    policy = opening.detected(git, policy, where.base)
    now = utc_now()
    started = ev.RunStarted(
        run_id="look-ahead",
        base=where.base,
        policy=policy,
        launch_branch=where.branch,
        launch_commit=where.launch_commit,
        tracker=tracker.kind,
        store=tracker.store,
        held=opening.held(git, git.root, where.base),
    )
    state = begin(ev.Stamped(1, now, started))
    for event in (ev.Intended(1, ReadTasks()), ev.ViewRead(1, now, tracker.read())):
        state = apply(state, ev.Stamped(state.seq + 1, now, event))
    return state


def _archive(git: Git, state: RunState) -> None:
    """Raises HewError when it cannot be written; the run has ended all the same."""
    source = Path(state.start.store) if state.start.tracker == "checklist" else None
    try:
        text = source.read_bytes() if source else None
        history.archive(git.root, state, name=source.stem if source else "plan", text=text)
    except OSError as error:
        raise HewError(f"the finished plan cannot be archived in .hew/history: {error.strerror}") from error


def _check(git: Git, policy: Policy, tracker: Tracker, *, base: str | None) -> None:
    """What cannot work is said before anything is claimed, written or settled."""
    where = opening.ground(git, policy, base=base)
    prefix.skill(git, policy, where.base)  # that it is there
    shared_things.check(git, copy=policy.worktree.copy, link=policy.worktree.link)
    check_runtime(policy, git.root)
    check_scope(tracker, policy)


def _settle(held: Session, observers: MakeObservers, settled: Callable[[RunState], None]) -> tuple[str, ...]:
    """Settle the dead runs; sentences about those whose tracker is not there any more."""
    told: list[str] = []
    for dead in dead_runs(held.git):
        try:
            settled(_carry_on(held, dead, settle=True, onto=None, observers=observers))
        except NoTracker as error:
            told.append(f"{dead.run_id} died and cannot be settled: {error.message}")
    return tuple(told)


def resume(git: Git, run: str | None, *, observers: MakeObservers) -> RunState:
    """Carry a dead run on, same id, same budgets. Raises UsageError when it is not to be resumed."""
    folder = run_folder.find(git.root, run) if run else _newest_dead(git)
    tracker = tracker_of(git, replay(journals.read(folder.journal).events).start)
    with session(git, folder.run_id, tracker) as held:
        if folder == run_folder.runs(git.root)[-1]:
            run_folder.point_latest(folder)  # it may have died before it was pointed at
        if replay(journals.read(folder.journal).events).ended:
            raise UsageError(f"{folder.run_id} has ended", hint=f"see: loop summary {folder.run_id}")
        return _carry_on(held, folder, settle=False, onto=None, observers=observers)


def deliver(git: Git, run: str, *, onto: str | None, observers: MakeObservers) -> RunState:
    """Verify and deliver what an ended run kept. Raises UsageError when there is nothing to deliver or nowhere."""
    folder = run_folder.find(git.root, run)
    tracker = tracker_of(git, replay(journals.read(folder.journal).events).start)
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
        if state.suspended:
            continue  # between two steps: alive without a process
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
    if (state.start.tracker, state.start.store) != (held.tracker.kind, held.tracker.store):
        held = replace(held, tracker=tracker_of(held.git, state.start, held.env))
    clock = SteadyClock(after=state.now)
    context = held.context(folder, _with_secrets(held, state.policy), state.start.base, clock)
    # Between two steps a stop file is an order for the next one; who carries a dead run on has changed their mind.
    stop = stops.requested_in(folder.stop_file) if state.suspended else None
    folder.stop_file.unlink(missing_ok=True)
    (folder.path / "manifest.json").unlink(missing_ok=True)  # it stands for a run that has ended
    files = RunFiles(folder)
    listeners: tuple[Observer, ...] = (files, *observers(folder))
    with Journal.reopen(folder.journal, text, clock=clock) as journal:
        told = strays.gather(held.git, held.pool, held.tracker, but=folder.run_id)
        found = recovery.recover(context, state)
        resumed = ev.Resumed(settle=settle, onto=onto, pid=os.getpid(), cut_bytes=text.torn_bytes)
        asked = () if stop is None else (stop,)
        notices = (ev.Noticed(text) for text in (*told, *context.problems))
        state = _tell(journal, state, listeners, [*found, resumed, *asked, *notices])
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
    if not state.ended:
        return state
    merged = state.delivery is not None and state.delivery.state == "merged"
    opening.close_refs(git, run_id=state.run_id, tip=state.queue.tip, base=state.start.base, merged=merged)
    return state
