"""The worktree pool: reusable worktrees outside the repository, made or reset for each iteration, verified, leased."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from hew_loop.errors import RepoError
from hew_loop.repo import admin, collecting, leases, shared_things
from hew_loop.repo.admin import Worktree
from hew_loop.repo.collecting import Collected
from hew_loop.repo.command import refusal
from hew_loop.repo.git import Git
from hew_loop.repo.leases import Lease
from hew_loop.repo.porcelain import fields, is_under, shown

__all__ = ["Collected", "Lease", "Pool", "PooledWorktree", "Worktree"]

_LOCK_REASON = "pool of hew-loop (see: loop prune)"


@dataclass(frozen=True, slots=True)
class PooledWorktree:
    name: str
    path: Path
    git_dir: Path | None
    """None: git does not know it (any more)."""
    head: str | None
    lease: Lease | None

    def size_bytes(self) -> int:
        """What its files take up; walks the whole tree."""
        total = 0
        for top, _, names in os.walk(self.path):
            for name in names:
                try:
                    total += (Path(top) / name).lstat().st_size
                except OSError:
                    continue
        return total


class Pool:
    """The worktrees `<root>/<name>` of one repository. Blocking; safe between threads and between processes."""

    def __init__(self, git: Git, root: Path) -> None:
        self._git = git
        self.root = root.expanduser().resolve()  # git records real paths
        self._lock = threading.Lock()

    @staticmethod
    def default_root(git: Git, env: Mapping[str, str] = os.environ) -> Path:
        """`$HEW_WORKTREE_ROOT` or the user's cache directory, and in it a directory for this repository alone."""
        top = env.get("HEW_WORKTREE_ROOT") or str(platformdirs.user_cache_path("hew-loop"))
        readable = re.sub(r"[^A-Za-z0-9._-]+", "-", git.root.name).strip("-.") or "repository"
        key = hashlib.sha256(os.fsencode(git.common_dir)).hexdigest()[:10]
        return Path(top).expanduser().absolute() / f"{readable[:40]}-{key}"

    @classmethod
    def all_of(cls, git: Git) -> tuple[Pool, ...]:
        """The pool of the present settings, and those that were filled under another HEW_WORKTREE_ROOT."""
        locked = (tree.path.parent for tree in git.worktrees() if tree.lock_reason == _LOCK_REASON)
        pools = [cls(git, root) for root in (cls.default_root(git), *locked)]
        return tuple({pool.root: pool for pool in pools}.values())

    def prepare(self, name: str, commit: str, *, branch: str | None = None, pristine: bool = False) -> Worktree:
        """The worktree `name` at `commit`, with nothing of its last user but ignored build products (`pristine`: not
        those either); HEAD detached, or on the new branch `branch`.

        Raises RepoError when the branch exists. What the last user left is gone afterwards: `collect` it first.
        """
        worktree = self._existing(name)
        made_branch = False
        if worktree is not None and admin.is_sound(self._git, worktree):
            admin.forget_operations(worktree)
            made_branch = self._check_out(worktree, commit, branch) is None
            if made_branch and self._clean(worktree, commit, branch, pristine=pristine) is None:
                return worktree
        worktree = self._add(name, commit)
        why = self._check_out(worktree, commit, branch, is_made=made_branch)
        why = why or self._clean(worktree, commit, branch, pristine=False)
        if why is not None:
            raise why
        return worktree

    def start_merge(self, worktree: Worktree, head: str, *, keep: Sequence[str] = (".beads",)) -> tuple[str, ...]:
        """Merge `head` on top. Clean: committed, and an empty tuple. Else the files in conflict; the merge is left in
        progress for the agent. The paths of `keep` stay as they were on our side and are never in conflict."""
        env = {**worktree.env(self._git), **self._git.identity_env()}
        options = ("--no-ff", "--no-edit", "--no-autostash", "--no-verify", "-q")
        done = self._git.call("merge", *options, head, cwd=worktree.path, env=env)
        if done.ok:
            return ()
        listed = fields(self._git.must("diff", "--name-only", "-z", "--diff-filter=U", cwd=worktree.path, env=env))
        conflicts = sorted({shown(name) for name in listed})
        if not conflicts:
            raise refusal(done, f"merge {head}")
        rest = tuple(path for path in conflicts if not is_under(path, keep))
        if len(rest) < len(conflicts):
            self._keep_ours(worktree, keep, env)
            if not rest:
                self._git.must("commit", "-q", "--no-edit", "--no-verify", cwd=worktree.path, env=env)
        return rest

    def collect(
        self,
        worktree: Worktree,
        *,
        branch: str,
        message: str,
        salvage_ref: str,
        start: str,
        aside: Path,
        litter: tuple[str, ...] = (),
    ) -> Collected:
        """Keep all that the agent left but `litter`, on `branch` or (what must not be on it) under `salvage_ref`.

        Afterwards nobody has the branch checked out. Whatever had to be put out of the way is moved into `aside`.
        Raises RepoError when something could not be saved: then the worktree must not be used again.
        """
        left = collecting.Left(
            branch=branch, message=message, salvage_ref=salvage_ref, start=start, aside=aside, litter=litter
        )
        return collecting.collect(self._git, worktree, left)

    def detach(self, worktree: Worktree) -> None:
        """Leave the branch, so that nobody has it checked out; files and index stay as they are."""
        env = worktree.env(self._git)
        self._git.must("update-ref", "--no-deref", "HEAD", "HEAD^0", cwd=self.root, env=env)

    def set_aside(self, worktree: Worktree, label: str) -> Path:
        """Move what could not be saved out of the pool, where the next user would clear it away; gives its new place.

        By a rename inside the pool's own directory: a full disk is the usual reason why it could not be saved.
        """
        kept = self.root / ".aside" / label
        try:
            self.detach(worktree)
            kept.parent.mkdir(exist_ok=True)
            worktree.path.rename(kept)
        except (RepoError, OSError) as error:
            raise RepoError(f"its files could not be moved out of {worktree.path}: {error}") from error
        return kept

    def remove(self, name: str) -> None:
        """Delete the worktree, its directory inside git and its lease. Links in it are deleted, not followed."""
        with self._alone():
            self._remove(name)
        self.drop_lease(name)

    def listing(self) -> tuple[PooledWorktree, ...]:
        """Every worktree of this pool: those that git knows, and directories that it does not know any more."""
        held = self.read_leases()
        listed = {tree.path: tree for tree in self._git.worktrees() if tree.path.parent == self.root}
        there = {path for path in self.root.glob("*") if path.is_dir() and not path.name.startswith(".")}
        return tuple(
            PooledWorktree(
                name=path.name,
                path=path,
                git_dir=admin.find_admin(self._git, path),
                head=listed[path].commit if path in listed else None,
                lease=held.get(path.name),
            )
            for path in sorted(there | set(listed))
        )

    def is_ours(self, path: Path) -> bool:
        return path.resolve().is_relative_to(self.root.resolve())

    def write_lease(self, name: str, lease: Lease | Mapping[str, object], *, durable: bool = True) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        leases.write_lease(self.root, name, lease, durable=durable)

    def read_leases(self) -> dict[str, Lease]:
        return leases.read_leases(self.root)

    def drop_lease(self, name: str) -> None:
        leases.drop_lease(self.root, name)

    def link_and_copy(self, worktree: Worktree, *, copy: Sequence[str], link: Sequence[str]) -> None:
        """Bring ignored files of the main checkout along. Raises UsageError for a path that is not ignored (it would
        be committed) or leads out of the tree, RepoError for one that is not there."""
        shared_things.link_and_copy(self._git, worktree, copy=copy, link=link)

    def _existing(self, name: str) -> Worktree | None:
        path = self._path(name)
        git_dir = admin.find_admin(self._git, path)
        return None if git_dir is None else Worktree(name=name, path=path, git_dir=git_dir)

    def _path(self, name: str) -> Path:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
            raise ValueError(f"not a name for a worktree: {name!r}")
        return self.root / name

    def _check_out(
        self, worktree: Worktree, commit: str, branch: str | None, *, is_made: bool = False
    ) -> RepoError | None:
        """None when files and HEAD are switched; `is_made`: the branch is there, and ours. Raises when it is not."""
        if branch is None:
            where = ("--detach", commit)
        else:
            where = (branch,) if is_made else ("--no-track", "-b", branch, commit)
        done = self._git.call("checkout", "-q", "-f", *where, cwd=worktree.path, env=worktree.env(self._git))
        if done.ok:
            return None
        if branch is not None and not is_made and self._git.commit_id(f"refs/heads/{branch}") is not None:
            raise RepoError(f"The branch {branch} exists already.", hint=f"git branch -m {branch} <another name>")
        return refusal(done, f"checkout in {worktree.path}")

    def _clean(self, worktree: Worktree, commit: str, branch: str | None, *, pristine: bool) -> RepoError | None:
        """None when nothing untracked is left, and HEAD is where it should be."""
        # Twice -f: repositories that an agent made inside. The pool is ours, and they have been salvaged.
        options = "-ffdxq" if pristine else "-ffdq"
        done = self._git.call("clean", options, cwd=worktree.path, env=worktree.env(self._git))
        if not done.ok:
            return refusal(done, f"clean in {worktree.path}")
        wanted = commit if branch is None else f"ref: refs/heads/{branch}"
        at = commit if branch is None else self._git.commit_id(f"refs/heads/{branch}")
        if admin.read_head(worktree) != wanted or at != commit:
            return RepoError(f"{worktree.path} is not at {commit} after a reset.")
        return None

    def _add(self, name: str, commit: str) -> Worktree:
        path = self._path(name)
        with self._alone():
            self._remove(name)
            # From a commit id: a remote-tracking start point writes .git/config and races. The files come later,
            # outside the lock.
            options = ("--detach", "--no-checkout", "--lock", "--reason", _LOCK_REASON)
            self._git.must("worktree", "add", "-q", *options, str(path), commit)
        git_dir = admin.find_admin(self._git, path)
        if git_dir is None:
            raise RepoError(f"git made no worktree at {path}.")
        return Worktree(name=name, path=path, git_dir=git_dir)

    def _remove(self, name: str) -> None:
        path = self._path(name)
        git_dir = admin.find_admin(self._git, path)
        try:
            admin.remove_tree(path)
            if git_dir is not None:
                admin.remove_tree(git_dir)
        except OSError as error:
            raise RepoError(f"{path} cannot be removed: {error.strerror}", hint=f"rm -rf {path}") from error

    def _keep_ours(self, worktree: Worktree, keep: Sequence[str], env: Mapping[str, str]) -> None:
        for path in keep:
            spec = f":(top,literal){path.strip('/')}"
            self._git.call("rm", "-r", "-q", "-f", "--ignore-unmatch", "--", spec, cwd=worktree.path, env=env)
            if self._git.call("rev-parse", "-q", "--verify", f"HEAD:{path.strip('/')}", cwd=worktree.path, env=env).ok:
                self._git.must("checkout", "-q", "HEAD", "--", spec, cwd=worktree.path, env=env)

    @contextmanager
    def _alone(self) -> Generator[None]:
        """One at a time, among our threads and among processes."""
        with self._lock:
            try:
                self.root.mkdir(parents=True, exist_ok=True)
                file = (self.root / ".lock").open("w")
            except OSError as error:
                raise RepoError(
                    f"The worktrees cannot be kept in {self.root}: {error.strerror}",
                    hint="Set HEW_WORKTREE_ROOT to a directory that can be written.",
                ) from error
            with file:
                fcntl.flock(file, fcntl.LOCK_EX)
                yield
