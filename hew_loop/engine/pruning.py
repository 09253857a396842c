"""What ended runs left behind in git and on the disk: each thing with whether it may go, and why."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import Literal

from hew_loop.core.names import slug
from hew_loop.core.task import Task
from hew_loop.core.transitions import replay
from hew_loop.engine import journal as journals
from hew_loop.engine import run_folder
from hew_loop.engine.landing import GATE_WORKTREE
from hew_loop.engine.run_folder import RUN_ID
from hew_loop.engine.standing import Standing, is_settled
from hew_loop.errors import HewError, RepoError
from hew_loop.repo.git import Git
from hew_loop.repo.unsaved import is_elsewhere, unsaved_files
from hew_loop.repo.worktrees import Pool, PooledWorktree

_BRANCHES = "refs/heads/"
_OURS = "refs/loop/"


@dataclass(frozen=True, slots=True)
class Thing:
    """`name`: a path, a branch, or the full name of a private ref. `fix`: what to type about one that stays."""

    kind: Literal["worktree", "branch", "ref"]
    name: str
    removable: bool
    reason: str
    fix: str = ""
    commit: str | None = None
    size_bytes: int | None = None


@dataclass(frozen=True)
class Survey:
    """Looks at everything, changes nothing."""

    git: Git
    runs: Mapping[str, Standing]
    tasks: Sequence[Task]
    """Of the tracker; a closed one gives up what its attempts left."""
    unlanded: bool = False
    """The person wants work that never landed to go as well."""
    _kept: list[str] = field(default_factory=list[str])

    def things(self) -> tuple[Thing, ...]:
        """In the order in which they can go: a branch that a worktree holds goes after it."""
        trees = tuple(self.worktrees())
        freed = frozenset(Path(tree.name) for tree in trees if tree.removable)
        return (*trees, *self.branches(freed), *self.private_refs())

    # -- worktrees

    def worktrees(self) -> Iterator[Thing]:
        for pool in Pool.all_of(self.git):
            is_own = pool.root == Pool.default_root(self.git).resolve()
            for tree in pool.listing():
                if is_own or tree.git_dir is not None:
                    why, fix = self._worktree_stays(tree)
                    size = tree.size_bytes()
                    yield Thing("worktree", str(tree.path), not why, why or "no run uses it", fix, tree.head, size)

    def _worktree_stays(self, tree: PooledWorktree) -> tuple[str, str]:
        """Why it must stay, and what to type; two empty strings when it may go."""
        if live := next((run for run, standing in self.runs.items() if standing == "live"), None):
            return f"{live} is alive", "loop status"
        if tree.lease is not None and (died := self._died(tree.lease.get("run_id"))):
            return f"{died} died while it used it", f"loop resume {died}"
        if tree.git_dir is None:
            is_empty = not any(tree.path.iterdir())
            return ("", "") if is_empty else ("git does not know it any more", f"ls -la {quote(str(tree.path))}")
        if tree.name == GATE_WORKTREE:
            return "", ""
        look = f"git -C {quote(str(tree.path))} status"
        try:
            files = self._unsaved(tree, tree.git_dir)
        except RepoError as error:
            return f"git cannot read it: {error.message}", f"ls -la {quote(str(tree.path))}"
        if files:
            more = f" and {len(files) - 3} more" if len(files) > 3 else ""
            return f"it holds files that no run accounts for: {', '.join(files[:3])}{more}", look
        if tree.head and not is_elsewhere(self.git, tree.head, outside=False) and tree.head not in self._accounted():
            return f"nothing else leads to its commit {tree.head[:12]}", f"git branch NAME {tree.head}"
        return "", ""

    def _unsaved(self, tree: PooledWorktree, git_dir: Path) -> tuple[str, ...]:
        if not tree.path.is_dir():
            return ()
        return unsaved_files(self.git, tree.path, git_dir, saved=list(self.git.refs(_OURS).values()))

    def _died(self, run_id: str | None) -> str | None:
        """The died run that a lease names; any, when the lease cannot be read."""
        died = [run for run, standing in self.runs.items() if standing == "died"]
        return run_id if run_id in died else next(iter(died), None) if run_id is None else None

    def _accounted(self) -> frozenset[str]:
        """Commits that a run has judged: what an attempt started from, and what it ended with."""
        commits: set[str | None] = set()
        for folder in run_folder.runs(self.git.root):
            try:
                state = replay(journals.read(folder.journal).events)
            except (HewError, ValueError):
                continue
            for iteration in state.iterations.values():
                result = iteration.result
                commits |= {iteration.spec.base, *((result.start, result.head) if result else ())}
        return frozenset(commit for commit in commits if commit)

    # -- branches and private refs

    def branches(self, freed: Container[Path] = ()) -> Iterator[Thing]:
        """The newest first: an attempt that a later one was built on is not lost with its own branch.

        What is checked out in one of the worktrees `freed` does not count as checked out.
        """
        checked_out = {branch: path for branch, path in self.git.checked_out().items() if path not in freed}
        for ref, commit in sorted(self.git.refs(f"{_BRANCHES}loop/").items(), key=_newest_first, reverse=True):
            branch = ref.removeprefix(_BRANCHES)
            run_id, _, name = branch.removeprefix("loop/").partition("/")
            if not RUN_ID.fullmatch(run_id) or not name:
                continue  # somebody else's
            if branch in checked_out and is_settled(self.runs, run_id):
                yield self._keep("branch", branch, commit, f"it is checked out in {checked_out[branch]}")
            else:
                yield self._ref("branch", branch, commit, run_id, name)

    def private_refs(self) -> Iterator[Thing]:
        for ref, commit in sorted(self.git.refs(_OURS).items()):
            run_id, _, name = ref.removeprefix(_OURS).partition("/")
            if run_id == "fetched":
                if all(is_settled(self.runs, run) for run in self.runs):
                    yield Thing("ref", ref, removable=True, reason="fetched for a run that is over", commit=commit)
            elif RUN_ID.fullmatch(run_id):
                yield self._ref("ref", ref, commit, run_id, name)

    def _ref(self, kind: Literal["branch", "ref"], shown: str, commit: str, run_id: str, name: str) -> Thing:
        if not is_settled(self.runs, run_id):
            if self.runs[run_id] == "live":
                return self._keep(kind, shown, commit, "its run is alive", "loop status")
            if self.runs[run_id] == "suspended":
                return self._keep(kind, shown, commit, "its run goes on with the next step", "loop step")
            return self._keep(kind, shown, commit, "its run died", f"loop resume {run_id}")
        if name == "candidate":
            return Thing(kind, shown, removable=True, reason="made anew when it is needed", commit=commit)
        if is_elsewhere(self.git, commit, also=self._kept):
            return Thing(kind, shown, removable=True, reason="its work is on other branches", commit=commit)
        if self.unlanded:
            return Thing(kind, shown, removable=True, reason="NOWHERE ELSE, removed on request", commit=commit)
        if name == "integration":
            return self._keep(kind, shown, commit, "its work was not delivered", f"loop deliver {run_id}")
        task = next((t for t in self.tasks if slug(t.id) == name.removeprefix("salvage/").rpartition(".")[0]), None)
        if task is not None and task.is_closed:
            reason = f"its work never landed, but {task.id} is closed"
            return Thing(kind, shown, removable=True, reason=reason, commit=commit)
        return self._keep(kind, shown, commit, "its work is nowhere else", f"git log -p {quote(f'HEAD..{shown}')}")

    def _keep(self, kind: Literal["branch", "ref"], shown: str, commit: str, reason: str, fix: str = "") -> Thing:
        self._kept.append(commit)
        return Thing(kind, shown, removable=False, reason=reason, fix=fix, commit=commit)


def remove(git: Git, things: Iterable[Thing]) -> Iterator[tuple[Thing, str]]:
    """Remove those that may go, and say for each why it could not be done (empty: it is gone). Under the run lock."""
    pools = {pool.root: pool for pool in Pool.all_of(git)}
    for thing in things:
        if thing.removable:
            try:
                yield thing, _remove(git, pools, thing)
            except HewError as error:
                yield thing, error.message
            except (OSError, ValueError) as error:
                yield thing, str(error)


def _remove(git: Git, pools: Mapping[Path, Pool], thing: Thing) -> str:
    if thing.kind == "worktree":
        path = Path(thing.name)
        pools[path.parent].remove(path.name)
        (path.parent / f"{path.name}.setup").unlink(missing_ok=True)  # what says that its set-up has run
        return ""
    ref = thing.name if thing.kind == "ref" else f"{_BRANCHES}{thing.name}"
    return "" if git.delete_ref(ref, old=thing.commit or "") else "somebody has moved it meanwhile"


def _newest_first(item: tuple[str, str]) -> tuple[str, bool, int, str]:
    run_id, _, name = item[0].removeprefix(f"{_BRANCHES}loop/").partition("/")
    attempt = name.rpartition(".")[2]
    return run_id, name == "integration", int(attempt) if attempt.isascii() and attempt.isdigit() else 0, name
