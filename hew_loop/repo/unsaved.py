"""What would be lost with a worktree or a ref: files that no commit has, commits that nothing else leads to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hew_loop.repo.admin import Worktree
from hew_loop.repo.git import Git


def unsaved_files(git: Git, path: Path, git_dir: Path, *, saved: Sequence[str]) -> tuple[str, ...]:
    """The paths in the worktree that differ from its HEAD; none when one of the commits `saved` has them all.

    Ignored files never count. Raises RepoError when git cannot read the worktree.
    """
    env = Worktree(path.name, path, git_dir).env(git)
    entries = git.status(path, untracked="all", env=env).entries
    if not entries:
        return ()
    if all(entry.kind != "?" for entry in entries):
        same = ("diff", "--quiet", "--no-ext-diff", "--no-textconv")
        if any(git.call(*same, commit, "--", cwd=path, env=env).exit_code == 0 for commit in saved):
            return ()
    return tuple(entry.path for entry in entries)


def is_elsewhere(git: Git, commit: str, *, also: Sequence[str] = (), outside: bool = True) -> bool:
    """Whether a branch, a tag or the user's HEAD leads to `commit`, or one of the commits `also` does.

    `outside`: refs that the loop made do not count.
    """
    ours = ("--exclude=refs/heads/loop/loop-*", "--exclude=refs/loop/*") if outside else ()
    # Else the HEAD of every pooled worktree would count, and hold what it is to be removed with.
    done = git.must("rev-list", "-n", "1", "--single-worktree", commit, "--not", *also, *ours, "--all")
    return not done.strip()
