"""Bringing the integration branch to the user: by fast-forward only, over nothing that they have touched."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hew_loop.repo.checkout import Checkout, forget_killed
from hew_loop.repo.git import Git
from hew_loop.repo.porcelain import shown


@dataclass(frozen=True, slots=True)
class Delivered:
    commit: str
    """What the branch holds now: the new commit, or one that contains it."""
    moved_checkout: bool


@dataclass(frozen=True, slots=True)
class LaunchMoved:
    """Somebody committed on the branch meanwhile; the new commit does not descend from its tip."""

    tip: str


@dataclass(frozen=True, slots=True)
class Refused:
    reason: str


def deliver(
    git: Git, *, branch: str, expected: str, new: str, keep: Sequence[str] = (".beads",)
) -> Delivered | LaunchMoved | Refused:
    """Move `branch` forward to `new`, and the checkout that holds it along; all of it or nothing.

    Where a crash left it half done, calling again completes it. Files at and below `keep` never count as dirt, and
    one that the user has changed stays as it is. Called under the run lock. `expected` is where the branch was cut.
    """
    for git_dir in _git_dirs(git):
        forget_killed(git_dir)
    ref = f"refs/heads/{branch}"
    tip = git.commit_id(ref)
    if tip is None:
        return Refused(f"the branch {branch} does not exist any more")
    if git.is_ancestor(new, tip):
        return Delivered(commit=tip, moved_checkout=False)
    if not git.is_ancestor(tip, new):
        return LaunchMoved(tip=tip)
    if tip != expected and git.is_ancestor(tip, expected):
        return Refused(
            f"{branch} was moved back behind {expected[:12]}; a fast-forward would bring back what was dropped"
        )
    if git.call("symbolic-ref", "-q", ref).ok:
        return Refused(f"{branch} is only another name for another branch (git symbolic-ref {ref})")
    if not _sees_checkout(git):
        return Refused(f"git does not see the checkout {git.root} any more: core.bare or core.worktree was changed")
    holders = [tree.path for tree in git.worktrees() if tree.branch == branch and not tree.missing]
    busy = _held_by_operation(git, branch)
    if busy is not None:
        return Refused(busy)
    if len(holders) > 1:
        return Refused(f"{branch} is checked out more than once: {', '.join(map(str, holders))}")
    if holders:
        return _with_checkout(Checkout(git, holders[0], keep), branch=branch, old=tip, new=new)
    if git.update_ref(ref, new, old=tip):
        return Delivered(commit=new, moved_checkout=False)
    return LaunchMoved(tip=git.commit_id(ref) or tip)


def _with_checkout(checkout: Checkout, *, branch: str, old: str, new: str) -> Delivered | LaunchMoved | Refused:
    ref = f"refs/heads/{branch}"
    blocked = checkout.fast_forward(ref, old=old, new=new)
    if blocked is None:
        return Delivered(commit=new, moved_checkout=True)
    return Refused(blocked.reason) if blocked.tip is None else LaunchMoved(tip=blocked.tip)


def _sees_checkout(git: Git) -> bool:
    """An agent's `git config core.bare true` hides the main checkout: its branch would be moved under it."""
    done = git.call("rev-parse", "--show-toplevel", cwd=git.root)
    return done.ok and Path(os.fsdecode(done.stdout).rstrip("\n")).resolve() == git.root.resolve()


def _held_by_operation(git: Git, branch: str) -> str | None:
    """A rebase or bisect that began on the branch has it in its hands, although nobody has it checked out."""
    for admin in _git_dirs(git):
        for name in ("rebase-merge/head-name", "rebase-apply/head-name", "BISECT_START"):
            if _line(admin / name).removeprefix("refs/heads/") == branch:
                return f"{branch} is being worked on by a {name.partition('/')[0]} ({admin / name})"
    return None


def _git_dirs(git: Git) -> list[Path]:
    return [git.common_dir, *sorted((git.common_dir / "worktrees").glob("*"))]


def _line(path: Path) -> str:
    try:
        return shown(path.read_bytes()).strip()
    except OSError:
        return ""
