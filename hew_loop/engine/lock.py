"""The run lock: one run per repository. The lock is the kernel's (flock); the file's content only names its holder."""

from __future__ import annotations

import fcntl
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

from hew_loop.errors import LockHeld, RepoError

_PATIENCE_S = 0.5
"""A probe holds the lock for microseconds, a child that is just being started for milliseconds: neither is a run."""
_RETRY_S = 0.02


@dataclass(frozen=True, slots=True)
class Holder:
    """Who wrote the file last. Unreadable content is pid 0 and an empty run id."""

    pid: int
    run_id: str


class RunLock:
    """Held from `acquire` to the end of the `with` or of the process, however that comes. The file stays."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @classmethod
    def acquire(cls, path: Path, *, run_id: str) -> Self:
        """Blocks for at most half a second.

        Raises LockHeld, naming the run that holds it, and RepoError when the file cannot be made or locked.
        """
        give_up = time.monotonic() + _PATIENCE_S
        while True:
            fd = _open(path)
            try:
                if _lock(fd, path, fcntl.LOCK_EX) and _is_still_there(fd, path):
                    _write(fd, path, Holder(os.getpid(), run_id))
                    return cls(fd)
                if time.monotonic() >= give_up:
                    raise _held_by(_read(fd))
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)
            time.sleep(_RETRY_S)

    @staticmethod
    def holder(path: Path) -> Holder | None:
        """Who holds it now; None when nobody does. Writes nothing."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unusable(path, error) from error
        try:
            # Shared, so that two probes do not take each other for a run.
            return None if _lock(fd, path, fcntl.LOCK_SH) else _read(fd) or Holder(0, "")
        finally:
            os.close(fd)

    def release(self) -> None:
        """Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def _open(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise _unusable(path, error) from error


def _lock(fd: int, path: Path, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise _unusable(path, error) from error
    return True


def _is_still_there(fd: int, path: Path) -> bool:
    """A lock on a file that somebody removed meanwhile keeps nobody out."""
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def _write(fd: int, path: Path, holder: Holder) -> None:
    line = json.dumps({"pid": holder.pid, "run_id": holder.run_id}).encode() + b"\n"
    try:
        # Written over the old content before that is cut off: no moment at which a reader finds nothing.
        os.pwrite(fd, line, 0)
        os.ftruncate(fd, len(line))
    except OSError as error:
        raise _unusable(path, error) from error


def _read(fd: int) -> Holder | None:
    """None for an empty file."""
    line = os.pread(fd, 4096, 0).partition(b"\n")[0]
    if not line:
        return None
    try:
        data: Any = json.loads(line)
    except (ValueError, RecursionError):
        return Holder(0, "")
    fields = cast("dict[str, Any]", data) if isinstance(data, dict) else {}
    pid, run_id = fields.get("pid"), fields.get("run_id")
    return Holder(pid if isinstance(pid, int) else 0, run_id if isinstance(run_id, str) else "")


def _held_by(holder: Holder | None) -> LockHeld:
    if holder is None or not holder.run_id:
        return LockHeld("Another run holds the lock of this repository.", hint="wait, or: loop cancel")
    return LockHeld(
        f"Run {holder.run_id} (pid {holder.pid}) holds the lock of this repository.",
        hint=f"wait, or: loop cancel {holder.run_id}",
    )


def _unusable(path: Path, error: OSError) -> RepoError:
    return RepoError(
        f"The run lock {path} cannot be used: {error.strerror}.",
        hint="Make that folder writable for you, on a file system that knows locks.",
    )
