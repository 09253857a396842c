"""The index of a worktree as a commit: what an agent left, after it was staged."""

from __future__ import annotations

from hew_loop.errors import RepoError
from hew_loop.repo import admin
from hew_loop.repo.admin import Worktree
from hew_loop.repo.command import refusal
from hew_loop.repo.git import Git


def commit_index(git: Git, worktree: Worktree, *, on: str, message: str) -> str:
    """The commit on top of HEAD, which is at `on`; `on` itself when nothing is staged. Moves no branch of its own.

    Without `git commit`, which looks at every file once more; but that one knows how to end a merge.
    """
    env = {**worktree.env(git), **git.identity_env()}
    text = message.encode("utf-8", "backslashreplace")
    if (worktree.git_dir / "MERGE_HEAD").exists():
        return _end_merge(git, worktree, on, env, text)
    tree = git.must("write-tree", cwd=worktree.path, env=env).decode().strip()
    if tree == git.tree_id(on):
        return on  # only a status that `add` could not or need not follow
    return git.must("commit-tree", tree, "-p", on, "-F", "-", cwd=worktree.path, env=env, stdin=text).decode().strip()


def _end_merge(git: Git, worktree: Worktree, on: str, env: dict[str, str], text: bytes) -> str:
    options = ("-q", "--no-verify", "--cleanup=verbatim", "-F", "-")
    done = git.call("commit", *options, cwd=worktree.path, env=env, stdin=text)
    head = _head(git, worktree)
    staged = ("diff", "--cached", "--name-only", "-z", "HEAD")
    if not done.ok and (head != on or git.must(*staged, cwd=worktree.path, env=env)):
        raise refusal(done, f"commit in {worktree.path}")
    return head


def _head(git: Git, worktree: Worktree) -> str:
    text = admin.read_head(worktree) or ""
    ref = text.removeprefix("ref: ")
    found = git.commit_id(ref) if ref != text else text
    if not found:
        raise RepoError(f"HEAD of {worktree.path} cannot be read.")
    return found
