"""The files that all worktrees of a repository share: what an agent could have planted there, and locks left behind."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

_CONFIGURATION = ("config", "config.worktree", "info/attributes", "hooks")
OUR_REFS = ("refs/loop", "refs/heads/loop")


def state_hash(common_dir: Path) -> str:
    """A hash over shared configuration, attributes and hooks: names, modes and contents, links as links."""
    digest = hashlib.sha256()
    for name in _CONFIGURATION:
        top = common_dir / name
        for path in [top, *sorted(top.rglob("*"))] if top.is_dir() and not top.is_symlink() else [top]:
            digest.update(os.fsencode(path.relative_to(common_dir)) + b"\0" + _content(path) + b"\0")
    return digest.hexdigest()


def _content(path: Path) -> bytes:
    try:
        if path.is_symlink():
            return b"link " + os.fsencode(path.readlink())
        if path.is_dir():
            return b"directory"
        executable = b"x" if path.stat().st_mode & 0o111 else b"-"
        return executable + hashlib.sha256(path.read_bytes()).digest()
    except FileNotFoundError:
        return b"absent"
    except OSError as error:
        return b"unreadable " + str(error.errno).encode()


def stale_locks(common_dir: Path, *, older_than_s: float, prefixes: Sequence[str] = OUR_REFS) -> tuple[Path, ...]:
    """Lock files of our own refs, and of the packed refs, that nobody has touched for so long."""
    limit = time.time() - older_than_s
    return tuple(lock for lock in _locks(common_dir, prefixes) if _modified_at(lock) <= limit)


def _locks(common_dir: Path, prefixes: Sequence[str]) -> Iterator[Path]:
    for prefix in prefixes:
        yield from sorted((common_dir / prefix).rglob("*.lock"))
    yield common_dir / "packed-refs.lock"


def _modified_at(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:
        return float("inf")
