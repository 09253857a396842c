"""Who has the right to use a worktree: one small file beside it, written before the agent starts."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict, cast

SUFFIX = ".lease.json"


class Lease(TypedDict, total=False):
    run_id: str
    iter: int
    task: str
    attempt: int
    branch: str
    start: str
    pid: int
    pgid: int
    started_at: str
    mark: str


def write_lease(root: Path, name: str, lease: Lease | Mapping[str, object], *, durable: bool = True) -> None:
    """Whole or not at all. `durable`: on the disk when this returns; process ids mean nothing after a power cut."""
    aside = root / f".{name}.lease.partial"
    with aside.open("w", encoding="utf-8") as file:
        json.dump(lease, file, sort_keys=True)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    aside.replace(root / f"{name}{SUFFIX}")


def read_leases(root: Path) -> dict[str, Lease]:
    """By name of worktree. One that cannot be read is an empty lease: somebody had it, nothing else is known."""
    return {path.name.removesuffix(SUFFIX): _read(path) for path in sorted(root.glob(f"*{SUFFIX}"))}


def drop_lease(root: Path, name: str) -> None:
    (root / f"{name}{SUFFIX}").unlink(missing_ok=True)


def _read(path: Path) -> Lease:
    try:
        found: object = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return cast("Lease", found) if isinstance(found, dict) else {}
