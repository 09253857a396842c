"""Actions on the integration branch: build a candidate, gate it, land it, verify the end, deliver."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from hew_loop.core import actions as ac
from hew_loop.core import events as ev
from hew_loop.core.actions import LAUNCH, ChainEntry
from hew_loop.core.names import branch_name, candidate_ref, integration_ref, one_line, salvage_ref
from hew_loop.core.state import RunState
from hew_loop.engine import worktree_setup
from hew_loop.engine.context import RunContext
from hew_loop.engine.gate import GateRun, command_text, gate_digest, run_commands
from hew_loop.engine.tracking import withdrawn
from hew_loop.engine.worker import SETUP_TIMEOUT_S, in_thread
from hew_loop.errors import HewError, RepoError
from hew_loop.repo.delivery import Delivered, LaunchMoved, Refused
from hew_loop.repo.delivery import deliver as fast_forward
from hew_loop.repo.merge import Conflict, CouldNotMerge, Merged, merge

GATE_WORKTREE = "gate"


async def build_chain(context: RunContext, state: RunState, n: int, action: ac.BuildChain) -> ev.Event:
    """Merge the entries one after another; an entry that conflicts only with one ahead of it is left out and waits."""
    tasks = tuple(e.task for e in action.entries if e.number != LAUNCH)
    taken_back = await withdrawn(context, state, tasks)
    entries = [e for e in action.entries if e.task not in taken_back]
    gone = tuple(ev.SentBack(e.number, taken_back[e.task]) for e in action.entries if e.task in taken_back)
    merged = await in_thread(partial(_merge_all, context, state, action.tip, entries))
    return ev.ChainBuilt(n, tuple(merged.links), tuple(merged.conflicts), tuple(merged.refused), gone)


@dataclass(frozen=True, slots=True)
class _MergedChain:
    links: list[ev.Link]
    conflicts: list[ev.SentBack]
    refused: list[ev.SentBack]


def _merge_all(context: RunContext, state: RunState, tip: str, entries: Sequence[ChainEntry]) -> _MergedChain:
    chain = _MergedChain([], [], [])
    top = tip
    for entry in entries:
        message = _merge_message(state, entry)
        result = merge(context.git, tip=top, head=entry.head, message=message, keep=context.keep)
        if isinstance(result, Conflict) and top != tip:
            alone = merge(context.git, tip=tip, head=entry.head, message=message, keep=context.keep)
            if isinstance(alone, Merged):
                continue
            result = alone
        match result:
            case Merged(commit, tree):
                chain.links.append(ev.Link(entry.number, commit, tree))
                top = commit
            case Conflict(files):
                chain.conflicts.append(ev.SentBack(entry.number, "conflicts with what has landed", files))
            case CouldNotMerge(why):
                chain.refused.append(ev.SentBack(entry.number, why))
    if top != tip:
        ref = candidate_ref(context.run_id)
        context.git.update_ref(ref, top, old=context.git.commit_id(ref))
    return chain


def _merge_message(state: RunState, entry: ChainEntry) -> str:
    if entry.number == LAUNCH:
        return f"Merge {state.start.launch_branch} as it was when {state.run_id} ended\n\nRun: {state.run_id}\n"
    task = state.backlog.tasks.get(entry.task)
    title = one_line(task.title)[:60] if task else ""
    attempt = state.iterations[entry.number].spec.attempt
    name = one_line(entry.task)
    return f"Land {name}: {title}\n\nTask: {name}\nRun: {state.run_id}\nAttempt: {attempt}\n"


async def run_gate(context: RunContext, state: RunState, n: int, action: ac.RunGate) -> ev.Event:
    """Gate one tree, from kept results where that is allowed."""
    settings = context.policy.gate
    tree = action.tree or await in_thread(context.git.tree_id, action.commit)
    digest = await in_thread(partial(gate_digest, settings.commands, env=context.env, worktree=context.policy.worktree))
    kept = None if action.fresh else await in_thread(context.cache.get, tree, digest)
    # A red base may have been mended outside of the tree since; asking again costs one run.
    if kept is not None and (action.purpose != "base" or kept.verdict != "failed"):
        return ev.GateEnded(n, kept.verdict, "the same tree was gated before", cached=True, tests=kept.tests)
    log = context.folder.gate_log(action.number)
    prepared = await _prepare(context, action.commit, log, mark=context.mark(f"gate-{action.number}"))
    if isinstance(prepared, str):
        return ev.GateEnded(n, "could_not_run", prepared, log=_below(context, log))
    ran = await run_commands(
        settings.commands,
        worktree=prepared,
        env=_gate_env(context, f"gate-{action.number}"),
        log=log,
        mark=context.mark(f"gate-{action.number}"),
        timeout_s=settings.timeout_s,
        stop=context.stop_now,
    )
    if not context.stop_now.is_set():
        await in_thread(context.cache.keep, tree, digest, ran.gate_verdict)
    return ev.GateEnded(
        n, ran.verdict, _reason(ran), ran.evidence, _below(context, log), ran.duration_s, tests=ran.gate_verdict.tests
    )


async def land(context: RunContext, state: RunState, n: int, action: ac.Land) -> ev.Event:
    """Move the integration ref; what is there afterwards decides, not the exit code."""
    ref = integration_ref(context.run_id)

    def move() -> ev.Event:
        moved = context.git.update_ref(ref, action.new, old=action.old)
        there = context.git.commit_id(ref)
        if not moved and there != action.new:
            _put_back(context, n, there, action.old)
            return ev.LandRefused(n, action.old, found=there or "")
        tasks = {state.iterations[e].spec.task for e in action.entries if e != LAUNCH}
        _drop_branches(context, state, tasks, action.new)
        return ev.Landed(n)

    return await in_thread(move)


def _put_back(context: RunContext, n: int, there: str | None, tip: str) -> None:
    """The ref is ours alone, and only gated work lands: what an agent put there is kept, and does not count."""
    ref = integration_ref(context.run_id)
    if there is not None and not context.git.is_ancestor(there, tip):
        context.git.update_ref(salvage_ref(context.run_id, "integration", n), there, old=None)
    context.git.update_ref(ref, tip, old=there)


def _drop_branches(context: RunContext, state: RunState, tasks: set[str], tip: str) -> None:
    """Remove the tasks' branches whose work has landed; one that holds anything else stays."""
    attempts = ((task, attempt) for task in tasks for attempt in range(1, state.records[task].attempts + 1))
    theirs = {f"refs/heads/{branch_name(context.run_id, task, attempt)}" for task, attempt in attempts}
    try:
        landed = context.git.refs_merged_into(tip, f"refs/heads/loop/{context.run_id}/")
        context.git.delete_refs({ref: head for ref, head in landed.items() if ref in theirs})
    except RepoError:
        return  # the work has landed all the same; `loop prune` finds what is left


async def verify(context: RunContext, n: int, action: ac.Verify) -> ev.Event:
    """The whole tree, for real, in a worktree without left-over build products."""
    settings = context.policy.verify
    log = context.folder.path / "verify.log"
    if not settings.commands:
        return ev.Verified(n, "not_tested", "no test command is known")
    mark = context.mark("verify")
    prepared = await _prepare(context, action.commit, log, mark=mark, pristine=True)
    if isinstance(prepared, str):
        return ev.Verified(n, "could_not_run", prepared, log=log.name)
    ran = await run_commands(
        settings.commands,
        worktree=prepared,
        env=_gate_env(context, "verify"),
        log=log,
        mark=mark,
        timeout_s=settings.timeout_s,
        stop=context.stop_now,
    )
    command = ran.failing or " && ".join(command_text(c) for c in settings.commands)
    return ev.Verified(n, ran.verdict, _reason(ran), command, ran.evidence, log.name, ran.duration_s)


async def deliver(context: RunContext, n: int, action: ac.Deliver) -> ev.Event:
    try:
        move = partial(fast_forward, branch=action.branch, expected=action.expected, new=action.new, keep=context.keep)
        end = await in_thread(move, context.git)
    except (HewError, OSError) as error:
        return ev.DeliveryRefused(n, str(error))
    match end:
        case Delivered(commit, moved_checkout):
            return ev.Delivered(n, commit, moved_checkout)
        case LaunchMoved(tip):
            return ev.LaunchMoved(n, tip)
        case Refused(reason):
            return ev.DeliveryRefused(n, reason)


async def _prepare(context: RunContext, commit: str, log: Path, *, mark: str, pristine: bool = False) -> Path | str:
    """The gate worktree at `commit`, set up like the agents'; or why that could not be done."""
    settings = context.policy.worktree

    def make() -> Path:
        worktree = context.pool.prepare(GATE_WORKTREE, commit, pristine=pristine or settings.pristine)
        if settings.copy or settings.link:
            context.pool.link_and_copy(worktree, copy=settings.copy, link=settings.link)
        return worktree.path

    stamp = context.pool.root / f"{GATE_WORKTREE}.setup"
    try:
        if pristine:
            await in_thread(partial(stamp.unlink, missing_ok=True))
        path = await in_thread(make)
    except (HewError, OSError) as error:
        return f"the gate worktree cannot be prepared: {error}"
    end = await worktree_setup.set_up(
        path,
        settings,
        env=_gate_env(context, GATE_WORKTREE),
        log=log,
        mark=mark,
        timeout_s=SETUP_TIMEOUT_S,
        stamp=stamp,
        stop=context.stop_now,
    )
    return path if end.ok else end.message


def _gate_env(context: RunContext, what: str) -> dict[str, str]:
    return {**context.env, **dict(context.policy.worktree.env), "HEW_GATE": what}


def _reason(ran: GateRun) -> str:
    return f"{ran.failing}: {ran.reason}" if ran.failing else ran.reason


def _below(context: RunContext, log: Path) -> str:
    return str(log.relative_to(context.folder.path))
