"""Notices when the user's checkout or the shared git configuration changed while agents ran (P1, MQ-37)."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from hew_loop.repo.git import Git


class Tripwire:
    """Compares with what it saw last, so that each change is told once. Blocking; safe from several threads."""

    def __init__(self, git: Git, keep: Sequence[str]) -> None:
        self._git = git
        self._keep = tuple(keep)
        self._lock = threading.Lock()
        self._seen = self._look()

    def changes(self) -> tuple[str, ...]:
        """Sentences about what changed since the last call; empty almost always."""
        with self._lock:
            before, self._seen = self._seen, self._look()
            after = self._seen
        told: list[str] = []
        if new := [p for p in after[0] if p not in before[0]]:
            names = ", ".join(sorted(new)[:10])
            told.append(f"the main checkout changed while this iteration ran: {names}")
        if before[1] != after[1]:
            told.append(f"HEAD of the main checkout moved while this iteration ran: {before[1]} to {after[1]}")
        if before[2] != after[2]:
            told.append("the shared git configuration or hooks changed while this iteration ran")
        return tuple(told)

    def _look(self) -> tuple[frozenset[str], str, str]:
        dirty = frozenset(p.path for p in self._git.dirty_paths(self._git.launch_root, exclude=self._keep))
        head = self._git.head()
        return dirty, f"{head.branch or 'detached'}@{(head.commit or 'unborn')[:12]}", self._git.shared_state()
