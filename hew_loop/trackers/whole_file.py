"""Files that are only ever replaced whole: a lock with a deadline, and writing aside, to disk, under the name."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Generator
from pathlib import Path
from typing import TypeAlias

from hew_loop.errors import TrackerError

Signature: TypeAlias = tuple[int, ...]
_LOCK_TIMEOUT_S = 30.0
_LOCK_POLL_S = 0.005


def signature(path: Path) -> Signature | None:
    """What changes when somebody writes the file or puts another in its place; None when there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def replace_file(path: Path, raw: bytes, *, seen: Signature | None) -> bool:
    """Write `raw`, keeping the permissions; False, and nothing changed, when the file is not the one that was seen.

    A link stays a link: what it leads to is replaced. Raises OSError, for a file that its owner made read-only too.
    """
    target = path.resolve()
    aside = target.with_name(f".{target.name}.hew-loop")
    try:
        with open(aside, "wb") as file:
            if seen is not None:
                os.fchmod(file.fileno(), _mode(target))
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        if signature(path) != seen:
            return False
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)
    _sync_directory(target.parent)
    return True


@contextlib.contextmanager
def locked(lock: Path) -> Generator[None]:
    """Hold `lock`, a file beside the one that it guards and never removed. Raises TrackerError after half a minute."""
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        _wait_for(descriptor, lock)
        yield
    finally:
        os.close(descriptor)


def _wait_for(descriptor: int, lock: Path) -> None:
    """Polls, because a lock without a deadline would wait for a stopped process for ever."""
    deadline = time.monotonic() + _LOCK_TIMEOUT_S
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise TrackerError(
                    f"Another process has held {lock} for {_LOCK_TIMEOUT_S:.0f} s.",
                    hint=f"See which one: fuser -v {lock}",
                ) from None
            time.sleep(_LOCK_POLL_S)


def _mode(path: Path) -> int:
    if not os.access(path, os.W_OK):
        raise PermissionError(13, "The file is read-only", str(path))
    return stat.S_IMODE(path.stat().st_mode)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
