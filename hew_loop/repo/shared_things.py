"""Ignored files of the main checkout that worktrees need too (`.env`, `node_modules`): copied, or linked."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from hew_loop.errors import RepoError, UsageError
from hew_loop.repo.admin import Worktree, remove_tree
from hew_loop.repo.git import Git


def link_and_copy(git: Git, worktree: Worktree, *, copy: Sequence[str], link: Sequence[str]) -> None:
    """See `Pool.link_and_copy`. What is there already and the same is left alone."""
    for name in copy:
        source, target = _ends(git, worktree, name)
        made = source.is_dir() and not source.is_symlink() and not target.exists()
        if made:
            target.mkdir(parents=True)  # `build/` in a .gitignore matches directories only, so there must be one
        if not _is_ignored(git, worktree, name):
            if made:
                target.rmdir()
            raise _not_ignored("copy", name)
        _copy(source, target)
    for name in link:
        source, target = _ends(git, worktree, name)
        if target.is_symlink() and target.readlink() == source:
            continue
        if target.is_dir() and not target.is_symlink() and _is_ignored(git, worktree, name):
            remove_tree(target)  # made by a set-up before this was linked
        if not _is_ignored(git, worktree, name):
            raise _not_ignored("link", name)
        remove_tree(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(source)


def check(git: Git, *, copy: Sequence[str], link: Sequence[str]) -> None:
    """Say before a run what would fail in every worktree. Raises UsageError or RepoError, as `link_and_copy` does.

    Asked of the main checkout, whose ignore rules are those of the base but for what is not committed.
    """
    for verb, names in (("copy", copy), ("link", link)):
        for name in names:
            source = _source(git, name)
            # A link in a worktree is no directory for git; only a pattern without a slash at its end matches it.
            asked = f"{name.rstrip('/')}/" if verb == "copy" and source.is_dir() else name.rstrip("/")
            done = git.call("check-ignore", "-q", "--no-index", "--stdin", stdin=f"{asked}\n".encode())
            if done.exit_code == 1 or (verb == "link" and _only_as_directory(git, name)):
                raise _not_ignored(verb, name)


def _only_as_directory(git: Git, name: str) -> bool:
    """The rule that ignores it ends in a slash."""
    done = git.call("check-ignore", "-v", "-z", "--no-index", "--stdin", stdin=f"{name.rstrip('/')}\n".encode())
    rule = done.stdout.split(b"\0")
    return len(rule) > 2 and rule[2].endswith(b"/")


def _source(git: Git, name: str) -> Path:
    path = PurePosixPath(name)
    if path.is_absolute() or not path.parts or ".." in path.parts or path.parts[0] in (".git", "~"):
        raise UsageError(f"[worktree] {name!r} is not a path inside the repository.")
    source = git.root / path
    if not os.path.lexists(source):
        raise RepoError(
            f"[worktree] {name!r} is not in {git.root}.",
            hint="Create it there, or take it out of [worktree] in .hew.toml.",
        )
    return source


def _ends(git: Git, worktree: Worktree, name: str) -> tuple[Path, Path]:
    source = _source(git, name)
    target = worktree.path / name
    for top, end in ((git.root, source), (worktree.path, target)):
        if not end.parent.resolve().is_relative_to(top.resolve()):
            raise UsageError(f"[worktree] {name!r} leads out of {top} through a link.")
    return source, target


def _is_ignored(git: Git, worktree: Worktree, name: str) -> bool:
    done = git.call("check-ignore", "-q", "--", name.rstrip("/"), cwd=worktree.path, env=worktree.env(git))
    return done.exit_code == 0


def _not_ignored(verb: str, name: str) -> UsageError:
    bare = name.strip("/")
    why = " A link is not a directory for git: a pattern with a slash at its end misses it." if verb == "link" else ""
    return UsageError(
        f"[worktree] {verb}: {name!r} is not ignored by git, so it would be committed.{why}",
        hint=f"Add the line /{bare} to .gitignore and commit it.",
    )


def _copy(source: Path, target: Path) -> None:
    if source.is_symlink() or not source.is_dir():
        if not _same(source, target):
            remove_tree(target)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)
        return
    if target.is_symlink() or not target.is_dir():
        remove_tree(target)
        target.mkdir(parents=True)
    for entry in sorted(source.iterdir()):
        _copy(entry, target / entry.name)


def _same(source: Path, target: Path) -> bool:
    if source.is_symlink():
        return target.is_symlink() and target.readlink() == source.readlink()
    if target.is_symlink() or not target.is_file():
        return False
    here, there = source.stat(), target.stat()
    return (here.st_size, here.st_mtime_ns, here.st_mode) == (there.st_size, there.st_mtime_ns, there.st_mode)
