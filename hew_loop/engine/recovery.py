"""After a crash: end what still runs, save what it left, and find out what became of each open intent."""

from __future__ import annotations

from hew_loop import process
from hew_loop.core import actions as ac
from hew_loop.core import events as ev
from hew_loop.core.iteration import IterationResult, IterationSpec
from hew_loop.core.names import integration_ref, one_line, salvage_ref
from hew_loop.core.recovery import Found, looks, settled
from hew_loop.core.state import RunState
from hew_loop.engine.context import RunContext
from hew_loop.errors import RepoError
from hew_loop.repo.worktrees import Worktree


def recover(context: RunContext, state: RunState) -> tuple[ev.Event, ...]:
    """The events that close every open intent. Blocking; only under the run lock. Raises HewError."""
    for _, action, _ in looks(state):
        process.sweep(context.mark(_activity(action)))
    context.git.remove_stale_locks(older_than_s=0)
    _restore_integration(context, state)
    return tuple(settled(n, action, _find(context, state, action, look)) for n, action, look in looks(state))


def _activity(action: ac.Action) -> str:
    match action:
        case ac.StartIteration(spec=spec):
            return f"iter-{spec.number}"
        case ac.AskPlanner(number=number):
            return f"planner-{number}"
        case ac.RunGate(number=number):
            return f"gate-{number}"
        case _:
            return "verify"


def _restore_integration(context: RunContext, state: RunState) -> None:
    """The private ref, where an ended run gave it up for a branch: it is carried on."""
    ref = integration_ref(state.run_id)
    if context.git.commit_id(ref) is None:
        context.git.update_ref(ref, state.queue.tip, old=None)


def _find(context: RunContext, state: RunState, action: ac.Action, look: str) -> Found:
    match look, action:
        case "claim", ac.Claim():
            found = context.tracker.show(action.task)
            return Found(
                found is not None and found.task.assignee == action.actor and found.task.status == "in_progress"
            )
        case "status", ac.CloseTask():
            found = context.tracker.show(action.task)
            return Found(found is None or found.task.is_closed)
        case "tip", ac.Land():
            there = context.git.commit_id(integration_ref(state.run_id))
            return Found(there is not None and context.git.is_ancestor(action.new, there))
        case "iteration", ac.StartIteration():
            return Found(result=_salvage(context, action.spec))
        case _:
            return Found()


def _salvage(context: RunContext, spec: IterationSpec) -> IterationResult:
    """Commit what a lost iteration left on its branch, and free its worktree."""
    name = f"w{spec.slot}"
    message = "the loop died while it ran"
    lease = context.pool.read_leases().get(name)
    pooled = next((w for w in context.pool.listing() if w.name == name), None)
    ours = lease is not None and (lease.get("run_id"), lease.get("iter")) == (spec.run_id, spec.number)
    if not ours or pooled is None or pooled.git_dir is None:
        head = context.git.commit_id(f"refs/heads/{spec.branch}")
        return IterationResult("failed", "lost", message, start=spec.base, head=head)
    try:
        left = context.pool.collect(
            Worktree(name, pooled.path, pooled.git_dir),
            branch=spec.branch,
            message=f"{one_line(spec.task)}: what a lost attempt left\n\n"
            f"Task: {one_line(spec.task)}\nRun: {spec.run_id}\nAttempt: {spec.attempt}\n",
            salvage_ref=salvage_ref(spec.run_id, spec.task, spec.attempt),
            start=spec.base,
            aside=context.folder.iteration(spec.number) / "aside",
        )
    except (RepoError, OSError) as error:
        kept = context.pool.set_aside(Worktree(name, pooled.path, pooled.git_dir), f"{spec.run_id}-iter-{spec.number}")
        context.pool.drop_lease(name)
        text = f"{message}; {error}; its files are kept in {kept}"
        return IterationResult("failed", "lost", text, start=spec.base, warnings=(text,))
    context.pool.drop_lease(name)
    if left.head == spec.base:
        context.git.delete_ref(f"refs/heads/{spec.branch}", old=left.head)
    return IterationResult(
        "failed", "lost", message, start=spec.base, head=left.head, salvage=left.salvage, warnings=left.repaired
    )
