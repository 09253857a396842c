"""What `loop doctor` finds in a repository: checks that change nothing, and findings that say how to mend them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Literal

from hew_loop.core.policy import WorktreeSettings
from hew_loop.core.task import Task
from hew_loop.engine.lock import RunLock
from hew_loop.engine.pruning import Survey, Thing
from hew_loop.engine.run_folder import loop_dir
from hew_loop.engine.standing import Standing, is_settled
from hew_loop.errors import HewError
from hew_loop.repo.git import Git
from hew_loop.repo.worktrees import Pool

Level = Literal["ok", "warn", "error"]
MOST_OF_A_KIND = 20
LOCK_IS_STALE_S = 60.0
_PRUNE = "loop prune --apply"


@dataclass(frozen=True, slots=True)
class Finding:
    """`fix`: the command, or the line of configuration, that mends it."""

    check: str
    level: Level
    text: str
    fix: str = ""


def checked(name: str, look: Callable[[], Iterable[Finding]]) -> tuple[Finding, ...]:
    """What `look` finds; when it breaks down half way, that is a finding behind those that it had already."""
    found: list[Finding] = []
    try:
        found.extend(look())
    except HewError as error:
        found.append(Finding(name, "error", error.message, error.hint))
    except Exception as error:  # a check that is broken itself must not hide the others
        found.append(Finding(name, "error", f"the check broke down: {type(error).__name__}: {error}"))
    return tuple(found)


def git_findings(git: Git) -> Iterator[Finding]:
    head = git.head()
    if head.commit is None:
        yield Finding("git", "error", "the repository has no commit yet", 'git add -A && git commit -m "Begin"')
    elif head.branch is None:
        text = "HEAD is detached: a run has no branch to deliver to"
        yield Finding("git", "warn", text, "git switch BRANCH, or: loop run --deliver branch")
    else:
        yield Finding("git", "ok", f"on the branch {head.branch} of {git.root}")
    if (blocking := git.blocking_branch()) is not None:
        text = f"the branch {blocking!r} blocks every branch below loop/"
        yield Finding("git", "error", text, f"git branch -m {quote(blocking)} {quote(blocking)}-old")
    if git.identity_env():
        text = "no identity is configured: commits will be by hew-loop"
        yield Finding("git", "warn", text, "git config --global user.name NAME; git config --global user.email ADDRESS")


def hook_findings(git: Git, settings: WorktreeSettings) -> Iterator[Finding]:
    """Hooks in a directory that is not in the history are not there in an agent's worktree, and git says nothing."""
    path = _hooks_path(git)
    if not path or Path(path).expanduser().is_absolute():
        return
    name = path.strip("/").removeprefix("./")
    covered = settings.setup is not None or any(
        name == p or name.startswith(f"{p}/") for p in (q.strip("/") for q in (*settings.copy, *settings.link))
    )
    if covered or git.call("cat-file", "-e", f"HEAD:{name}").ok:
        yield Finding("hooks", "ok", f"hooks are in {name}")
        return
    text = f"hooks are in {name}, which is not there in a fresh worktree: agents commit without them"
    yield Finding("hooks", "warn", text, f'in .hew.toml: [worktree] link = ["{name}"], or setup = "COMMAND"')


def _hooks_path(git: Git) -> str:
    """Of the user's configuration: the one that our own git calls are given has the scope `command`."""
    done = git.call("config", "--null", "--show-scope", "--get-all", "core.hooksPath")
    words = os.fsdecode(done.stdout).split("\0")
    pairs = zip(words[::2], words[1::2], strict=False)
    return next((value for scope, value in reversed(list(pairs)) if scope != "command"), "")


def claim_findings(tasks: Sequence[Task], runs: Mapping[str, Standing], *, tracker: str) -> Iterator[Finding]:
    """Claims by our actors that nobody works on: such a task is never started again. `tracker` is its kind."""
    for task in tasks:
        name, _, rest = task.assignee.partition("/")
        run_id = rest.partition("/")[0]
        if name != "loop" or task.is_closed or runs.get(run_id) == "live":
            continue
        died = runs.get(run_id) == "died"
        reopen = 'bd update {} --status open --assignee ""' if tracker == "bd" else "loop task reopen {}"
        fix = f"loop resume {run_id}" if died else reopen.format(quote(task.id))
        text = f"{task.id} is claimed by {task.assignee}, " + ("which died" if died else "which is over")
        yield Finding("claims", "warn", text, fix)


def lock_findings(path: Path) -> Iterator[Finding]:
    holder = RunLock.holder(path)
    if holder is None:
        yield Finding("lock", "ok", "no run is alive")
    elif holder.pid and not _is_alive(holder.pid):
        text = f"the lock is held, but who took it (pid {holder.pid}, {holder.run_id}) is gone"
        yield Finding("lock", "warn", text, f"fuser -v {quote(str(path))}")
    else:
        yield Finding("lock", "ok", f"{holder.run_id or 'a run'} is alive (pid {holder.pid})")


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def run_findings(git: Git, runs: Mapping[str, Standing]) -> Iterator[Finding]:
    for run_id, standing in runs.items():
        if standing == "died":
            yield Finding("runs", "warn", f"{run_id} was interrupted", f"loop resume {run_id}")
        elif standing == "stillborn":
            folder = loop_dir(git.root) / run_id
            yield Finding("runs", "warn", f"{run_id} died before it began", f"rm -r {quote(str(folder))}")
    ended = sum(standing == "ended" for standing in runs.values())
    yield Finding("runs", "ok", f"{ended} ended {'run' if ended == 1 else 'runs'}")


def place_findings(git: Git) -> Iterator[Finding]:
    """Whether worktrees can be made where they belong."""
    root = Pool.default_root(git)
    there = next(path for path in (root, *root.parents) if path.exists())
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
        yield Finding("worktrees", "ok", f"they are kept in {root}")
    else:
        text = f"no worktree can be made in {root}: {there} cannot be written"
        yield Finding("worktrees", "error", text, "set HEW_WORKTREE_ROOT to a directory that can be written")


def lease_findings(git: Git, runs: Mapping[str, Standing]) -> Iterator[Finding]:
    for pool in Pool.all_of(git):
        for tree in pool.listing():
            run_id = tree.lease.get("run_id") if tree.lease is not None else None
            if tree.lease is not None and (run_id is None or is_settled(runs, run_id)):
                text = f"{tree.path} is still leased" + (f" by {run_id}, which is over" if run_id else "")
                yield Finding("leases", "warn", text, _PRUNE)


def leftover_findings(survey: Survey) -> Iterator[Finding]:
    """What `loop prune` would take, and what it would not, but for what a run that is not over still needs."""
    things = survey.things()
    trees = [t for t in things if t.kind == "worktree" and t.removable]
    if trees:
        amount = sum(t.size_bytes or 0 for t in trees) / 1e6
        text = f"{len(trees)} kept for the next run (their build caches are warm); they take up {amount:,.1f} MB"
        yield Finding("worktrees", "ok", text, _PRUNE)
    refs = [t for t in things if t.kind != "worktree" and t.removable]
    if refs:
        text = f"{len(refs)} branches or refs of ended runs are not needed any more"
        yield Finding("branches", "warn", text, _PRUNE)
    stays = [t for t in things if not t.removable and not t.fix.startswith(("loop resume", "loop status", "loop step"))]
    for thing in stays[:MOST_OF_A_KIND]:
        yield Finding(_check_of(thing), "warn", f"{thing.name}: {thing.reason}", thing.fix)
    if (more := len(stays) - MOST_OF_A_KIND) > 0:
        yield Finding("branches", "warn", f"{more} more like these", "loop prune")


def _check_of(thing: Thing) -> str:
    return {"worktree": "worktrees", "branch": "branches", "ref": "refs"}[thing.kind]


def stale_lock_findings(git: Git, runs: Mapping[str, Standing]) -> Iterator[Finding]:
    if "live" not in runs.values():
        for path in git.stale_locks(older_than_s=LOCK_IS_STALE_S):
            text = f"{path} was left by a git that was killed; no ref below it can move"
            yield Finding("refs", "error", text, f"rm {quote(str(path))}")
