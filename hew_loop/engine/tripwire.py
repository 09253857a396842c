"""Notices when the user's checkout or the shared git configuration changed while agents ran (P1, MQ-37)."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from hew_loop.errors import RepoError
from hew_loop.repo.git import Git
from hew_loop.repo.porcelain import is_under


class Tripwire:
    """Compares with what it saw last, so that each change is told once. Safe from several threads; `ended` blocks."""

    def __init__(self, git: Git, keep: Sequence[str]) -> None:
        self._git = git
        self._keep = tuple(keep)
        self._lock = threading.Lock()
        self._running: frozenset[int] = frozenset()
        self._running_lock = threading.Lock()
        self._looked_at = time.monotonic()
        self._seen = self._look()

    def began(self, iteration: int) -> None:
        """From now on a change may be its work."""
        with self._running_lock:
            self._running |= {iteration}

    def ended(self, iteration: int) -> tuple[str, ...]:
        """Sentences about what changed since the last look, with all iterations that ran; empty almost always.

        Of many that end at once only some look: one look that began after the end of several does for all of them.
        """
        asked_at = time.monotonic()
        with self._lock:
            before = self._seen
            if self._looked_at < asked_at:
                self._looked_at = time.monotonic()
                self._seen = self._look()
            after = self._seen
        with self._running_lock:
            numbers = ", ".join(map(str, sorted(self._running | {iteration})))
            self._running -= {iteration}
        ran = f"while iteration {numbers} ran" if numbers.isdigit() else f"while the iterations {numbers} ran"
        told: list[str] = []
        if changed := {path for path, _ in before[0] ^ after[0]}:
            names = ", ".join(sorted(changed)[:10])
            told.append(f"the main checkout changed {ran}: {names}")
        if before[1] != after[1]:
            told.append(f"HEAD of the main checkout moved {ran}: {before[1]} to {after[1]}")
        if before[2] != after[2]:
            told.append(f"the shared git configuration or hooks changed {ran}")
        return tuple(told)

    def _look(self) -> tuple[frozenset[tuple[str, str]], str, str]:
        top = self._git.launch_root
        try:
            status = self._git.status(top)
            touched = (e for e in status.entries if not is_under(e.path, self._keep))
            dirty = frozenset((e.path, _stamp(top / os.fsdecode(e.raw))) for e in touched)
            at = f"{status.branch or 'detached'}@{(status.commit or 'unborn')[:12]}"
        except RepoError as error:
            dirty, at = frozenset[tuple[str, str]](), f"unreadable ({error.message})"
        return dirty, at, self._git.shared_state()


def _stamp(path: Path) -> str:
    try:
        info = path.lstat()
    except OSError:
        return ""
    return f"{info.st_mtime_ns}/{info.st_size}"
