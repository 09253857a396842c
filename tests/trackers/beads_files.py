"""Builders for beads files in tests: issue objects, stores, and the vectors with their times filled in."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from hew_loop.trackers.beads_store import BeadsStore

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)


def issue(task_id: str, **members: Any) -> dict[str, Any]:
    """An issue as bd exports it, P2, open, created in January 2026."""
    return {
        "id": task_id,
        "title": f"T {task_id}",
        "status": "open",
        "priority": 2,
        "issue_type": "task",
        "created_at": "2026-01-01T00:01:00Z",
        "updated_at": "2026-01-01T00:01:00Z",
        **members,
    }


def edge(task_id: str, target: str, kind: str = "blocks", **members: Any) -> dict[str, Any]:
    made = {"created_at": "2026-01-01T00:01:00Z", "created_by": "tester"}
    return {"issue_id": task_id, "depends_on_id": target, "type": kind, **made, **members}


def write(directory: Path, issues: list[dict[str, Any]]) -> Path:
    """`issues.jsonl` in `directory`, compact as beads writes it."""
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / "issues.jsonl"
    file.write_text("".join(json.dumps(i, separators=(",", ":"), ensure_ascii=False) + "\n" for i in issues))
    return file


def lines(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "issues.jsonl").read_text().splitlines()]


def store(directory: Path, **options: Any) -> BeadsStore:
    """A store whose clock stands at noon."""
    return BeadsStore(directory, **{"clock": lambda: NOON, **options})


def with_times(text: str, now: datetime) -> str:
    """`@-200h` in a vector is so many hours before the test."""
    return re.sub(r"@-(\d+)h", lambda m: (now - timedelta(hours=int(m[1]))).strftime("%Y-%m-%dT%H:%M:%SZ"), text)
