"""What runs left behind that nothing will settle: their journal is gone, or they died just before or behind it.

A worktree of theirs is not used again before its files are saved, a claim is given back, what landed becomes a branch.
"""

from __future__ import annotations

from hew_loop import process
from hew_loop.core.names import branch_name, candidate_ref, integration_branch, integration_ref, one_line, salvage_ref
from hew_loop.engine.run_folder import RUN_ID
from hew_loop.engine.standing import is_settled, standings
from hew_loop.errors import RepoError
from hew_loop.repo.git import Git
from hew_loop.repo.leases import Lease
from hew_loop.repo.unsaved import is_elsewhere
from hew_loop.repo.worktrees import Pool, PooledWorktree, Worktree
from hew_loop.trackers.base import Tracker


def gather(git: Git, pool: Pool, tracker: Tracker, *, but: str) -> tuple[str, ...]:
    """Save and give back what any run but `but` left; what a person should know, in sentences. Blocking.

    Only under the run lock, when those runs are settled that can be. Raises HewError when something cannot be saved.
    """
    leases = {name: lease for name, lease in pool.read_leases().items() if lease.get("run_id") != but}
    told = [_save(git, pool, name, lease) for name, lease in leases.items()]
    owners = {ref.split("/")[2] for ref in git.refs("refs/loop/") if ref.endswith(("/integration", "/candidate"))}
    owners |= {lease.get("run_id", "") for lease in leases.values() if _is_whole(git, lease)}
    owners.discard(but)
    if not owners:
        return tuple(filter(None, told))
    known = standings(git.root, live=but)
    told += _release(tracker, tuple(run_id for run_id in owners if known.get(run_id) in (None, "stillborn")))
    for run_id in sorted(owners):
        if is_settled(known, run_id):
            told.append(_close_refs(git, run_id))
        elif known[run_id] == "died":
            told.append(f"{run_id} died, and is not settled: loop resume {run_id}")
    return tuple(filter(None, told))


def _save(git: Git, pool: Pool, name: str, lease: Lease) -> str:
    """Commit what the lost iteration left in its worktree, on its own branch, and free the worktree."""
    if _is_whole(git, lease):
        process.sweep(f"{lease.get('run_id')}:iter-{lease.get('iter')}")
    pooled = next((w for w in pool.listing() if w.name == name), None)
    if pooled is None or pooled.git_dir is None:
        pool.drop_lease(name)
        return ""
    worktree = Worktree(name, pooled.path, pooled.git_dir)
    lease = _completed(git, pooled, lease)
    run_id, task, attempt = lease.get("run_id", ""), lease.get("task", ""), lease.get("attempt", 1)
    branch, start = lease.get("branch", ""), lease.get("start", "")
    try:
        left = pool.collect(
            worktree,
            branch=branch,
            message=f"{one_line(task)}: what a lost attempt left\n\n"
            f"Task: {one_line(task)}\nRun: {run_id}\nAttempt: {attempt}\n",
            salvage_ref=salvage_ref(run_id, task, attempt),
            start=start,
            aside=pool.root / ".aside" / f"{run_id}-{name}",
        )
    except (RepoError, OSError) as error:
        place = pool.set_aside(worktree, f"{run_id}-{name}-files")
        pool.drop_lease(name)
        return f"what {run_id} left of {task} could not be saved ({error}); its files are kept in {place}"
    pool.drop_lease(name)
    if left.head == start:
        git.delete_ref(f"refs/heads/{branch}", old=left.head)
    kept = [f"the branch {branch}"] if left.head != start else []
    kept += [left.salvage] if left.salvage else []
    return f"what {run_id} left of {task} in {name} is kept: {' and '.join(kept)}" if kept else ""


def _completed(git: Git, pooled: PooledWorktree, lease: Lease) -> Lease:
    """A lease that cannot be read says nothing: then the worktree itself tells what it is on."""
    if _is_whole(git, lease):
        return lease
    head = pooled.head or git.head().commit or ""
    taken = git.refs("refs/heads/loop/unknown/")
    number = next(n for n in range(1, len(taken) + 2) if f"refs/heads/loop/unknown/{pooled.name}.{n}" not in taken)
    branch = f"loop/unknown/{pooled.name}.{number}"
    return Lease(run_id="unknown", task=pooled.name, attempt=number, branch=branch, start=head)


def _is_whole(git: Git, lease: Lease) -> bool:
    """It lies where an agent can write: what it names is used only when it is what we would have written."""
    run_id, task, attempt, start = (lease.get(key) for key in ("run_id", "task", "attempt", "start"))
    return (
        isinstance(run_id, str)
        and RUN_ID.fullmatch(run_id) is not None
        and isinstance(task, str)
        and isinstance(attempt, int)
        and lease.get("branch") == branch_name(run_id, task, attempt)
        and isinstance(start, str)
        and git.commit_id(start) == start
    )


def _release(tracker: Tracker, gone: tuple[str, ...]) -> list[str]:
    told: list[str] = []
    for task in tracker.read() if gone else ():
        run_id = next((r for r in gone if task.assignee.startswith(f"loop/{r}/")), None)
        if run_id is not None and not task.is_closed:
            tracker.release(task.id, task.assignee, f"given back: {run_id} died, and its journal is gone")
            told.append(f"{task.id} was still claimed by {run_id}, whose journal is gone; it has been given back")
    return told


def _close_refs(git: Git, run_id: str) -> str:
    """The private refs go; what no branch holds becomes the branch that a refused delivery would have left."""
    candidate = git.commit_id(candidate_ref(run_id))
    if candidate is not None:
        git.delete_ref(candidate_ref(run_id), old=candidate)
    tip = git.commit_id(integration_ref(run_id))
    if tip is None:
        return ""
    told = ""
    branch = integration_branch(run_id)
    there = git.commit_id(f"refs/heads/{branch}")
    if not is_elsewhere(git, tip) and (there is None or not git.is_ancestor(tip, there)):
        if there is not None and not git.is_ancestor(there, tip):
            return f"{integration_ref(run_id)} and the branch {branch} differ; both are left as they are"
        git.update_ref(f"refs/heads/{branch}", tip, old=there)
        told = f"what {run_id} landed was never delivered: it is on the branch {branch}"
    git.delete_ref(integration_ref(run_id), old=tip)
    return told
