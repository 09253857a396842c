"""The archive of a finished plan: `.hew/history/<name>-<UTC>.md`, a checklist with counts."""

from __future__ import annotations

from pathlib import Path

from hew_loop.core.names import slug
from hew_loop.core.state import RunState
from hew_loop.core.step import remaining

MARKS = {"done": "x", "unchanged": "x", "parked": "!", "withdrawn": "!"}


def archive(root: Path, state: RunState, *, name: str, text: bytes | None) -> Path:
    """Write what became of the plan; `text` is the plan file as it is now, or None for one made from the tasks.

    The file is kept byte by byte below one line with the counts; items that only hold others are not counted.

    Raises OSError. An archive that is there already (a finish that was repeated) is written again.
    """
    folder = root / ".hew" / "history"
    folder.mkdir(parents=True, exist_ok=True)
    ignore = folder / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n")
    path = folder / f"{slug(name)}-{state.started_at:%Y%m%dT%H%M%SZ}.md"
    phases = [r.phase for r in state.records.values()]
    done = sum(p in ("done", "unchanged") for p in phases)
    aside = sum(p in ("parked", "withdrawn") for p in phases)
    head = (
        f"<!-- {state.run_id}: {done} done, {aside} set aside, {remaining(state)} left; "
        f"finished {state.now:%Y-%m-%dT%H:%M:%SZ} as {state.queue.tip[:12]} -->\n\n"
    )
    path.write_bytes(head.encode() + (text if text is not None else _rows(state).encode("utf-8", "surrogateescape")))
    return path


def _rows(state: RunState) -> str:
    rows: list[str] = []
    for task_id in sorted(state.initial):
        task, record = state.backlog.tasks.get(task_id), state.records.get(task_id)
        mark = MARKS.get(record.phase, " ") if record else "x" if task is None or task.is_closed else " "
        title = "".join(c if c.isprintable() else " " for c in task.title) if task else "(deleted)"
        landed = f" ({record.landed[:12]})" if record and record.landed else ""
        rows.append(f"- [{mark}] {task_id}: {title}{landed}\n")
    return "".join(rows)
