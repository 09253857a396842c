"""A worktree of ours and its directory inside git (`<common>/worktrees/<x>`): found, checked and mended as files,
because an agent can take git's own way from one to the other apart."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hew_loop.repo.git import Git

LOCKS = ("index.lock", "HEAD.lock")
UNFINISHED = {
    "rebase-merge": "rebase",
    "rebase-apply": "rebase",
    "sequencer": "cherry-pick",
    "BISECT_START": "bisect",
}
"""What git leaves while an operation with more than one commit is under way."""
_LEFT_OVER = (*UNFINISHED, "MERGE_HEAD", "MERGE_MODE", "MERGE_MSG", "MERGE_RR", "AUTO_MERGE", "SQUASH_MSG",
              "CHERRY_PICK_HEAD", "REVERT_HEAD", "REBASE_HEAD", "BISECT_LOG", "BISECT_NAMES", "BISECT_TERMS",
              "BISECT_ANCESTORS_OK", "BISECT_EXPECTED_REV", "BISECT_FIRST_PARENT",
              "refs/bisect", "refs/rewritten")  # fmt: skip
_OWN_SETTINGS = ("config.worktree", "info/sparse-checkout")


@dataclass(frozen=True, slots=True)
class Worktree:
    name: str
    path: Path
    git_dir: Path
    """Its own directory inside git: `<common>/worktrees/<x>`."""

    def env(self, git: Git) -> dict[str, str]:
        """Binds a git process to this worktree, whatever its `.git` file says by now."""
        return {
            "GIT_DIR": str(self.git_dir),
            "GIT_WORK_TREE": str(self.path),
            "GIT_COMMON_DIR": str(git.common_dir),
        }


def find_admin(git: Git, path: Path) -> Path | None:
    """The directory inside git that says it belongs to the worktree at `path`."""
    for record in sorted((git.common_dir / "worktrees").glob("*/gitdir")):
        if recorded_path(record.parent) == path:
            return record.parent
    return None


def recorded_path(admin: Path) -> Path | None:
    try:
        text = os.fsdecode((admin / "gitdir").read_bytes()).rstrip("\n")
    except OSError:
        return None
    return Path(os.path.normpath(admin / text)).parent if text else None


def is_sound(git: Git, worktree: Worktree) -> bool:
    """Whether a reset can be trusted here: no lock of a killed git, whole links, no settings of its own."""
    admin = worktree.git_dir
    return (
        worktree.path.is_dir()
        and not worktree.path.is_symlink()
        and not any((admin / lock).exists() for lock in LOCKS)
        and _text(admin / "locked") != "initializing"
        and names_admin(worktree)
        and Path(os.path.normpath(admin / (_text(admin / "commondir") or "?"))) == git.common_dir
        and all(_bytes(admin / name) == _bytes(git.common_dir / name) for name in _OWN_SETTINGS)
    )


def names_admin(worktree: Worktree) -> bool:
    """Whether the `.git` file is one, and still leads to our repository."""
    link = worktree.path / ".git"
    text = _text(link) if link.is_file() and not link.is_symlink() else None
    return (
        text is not None
        and text.startswith("gitdir: ")
        and Path(os.path.normpath(worktree.path / text.removeprefix("gitdir: "))) == worktree.git_dir
    )


def write_link(worktree: Worktree) -> None:
    (worktree.path / ".git").write_bytes(b"gitdir: " + os.fsencode(worktree.git_dir) + b"\n")


def rebuild_admin(git: Git, worktree: Worktree, *, head: str) -> None:
    """Write anew what git needs to know of the worktree; `head` is a commit id or `ref: <full ref>`. No index."""
    worktree.git_dir.mkdir(parents=True, exist_ok=True)
    (worktree.git_dir / "commondir").write_text("../..\n")
    (worktree.git_dir / "gitdir").write_bytes(os.fsencode(worktree.path / ".git") + b"\n")
    (worktree.git_dir / "index").unlink(missing_ok=True)
    write_head(worktree, head)


def write_head(worktree: Worktree, head: str) -> None:
    # As a file: git does not even see a repository where HEAD is unreadable.
    aside = worktree.git_dir / "HEAD.hew-loop"
    aside.write_text(head + "\n")
    aside.replace(worktree.git_dir / "HEAD")


def read_head(worktree: Worktree) -> str | None:
    """The text of HEAD: a commit id, or `ref: <full ref>`."""
    return _text(worktree.git_dir / "HEAD")


def unfinished(worktree: Worktree) -> str | None:
    """`rebase`, `cherry-pick` or `bisect` while one is under way. A merge alone is none: a commit ends it."""
    return next((what for name, what in UNFINISHED.items() if (worktree.git_dir / name).exists()), None)


def forget_operations(worktree: Worktree) -> None:
    for name in _LEFT_OVER:
        remove_tree(worktree.git_dir / name)


def remove_tree(path: Path) -> None:
    """Delete a file, a link (never what it leads to) or a whole directory, read-only directories in it too."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    shutil.rmtree(path, onerror=_unlock_and_retry)


def _unlock_and_retry(delete: Callable[[str], object], name: str, error: object) -> None:
    """Package caches make their directories read-only; a name that is gone already is as good as deleted."""
    for place in (Path(name).parent, Path(name)):
        if place.is_dir() and not place.is_symlink():
            place.chmod(place.stat().st_mode | stat.S_IRWXU)
    try:
        if Path(name).is_dir() and not Path(name).is_symlink():
            shutil.rmtree(name)
        else:
            Path(name).unlink()
    except FileNotFoundError:
        return


def _bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _text(path: Path) -> str | None:
    found = _bytes(path)
    return None if found is None else os.fsdecode(found).rstrip("\n")
