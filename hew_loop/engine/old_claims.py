"""Claims that ended runs of this repository could not give back, because the tracker failed them: settled first (P6)."""

from __future__ import annotations

import json
from typing import Any, cast

from hew_loop.core.task import Task
from hew_loop.engine.run_folder import RunFolder, runs
from hew_loop.repo.git import Git
from hew_loop.trackers.base import Tracker


def settle(git: Git, tracker: Tracker, base: str) -> tuple[str, ...]:
    """Close what had landed and is in `base`, release the rest; what was done, as sentences. Blocking.

    Only under the run lock: then no claim by an actor of a run whose folder is here is alive. Raises TrackerError.
    """
    folders = {folder.run_id: folder for folder in runs(git.root)}
    held = [(t, run) for t in tracker.read() if not t.is_closed and (run := _run_of(t.assignee)) in folders]
    return tuple(_settle(git, tracker, task, folders[run], base) for task, run in held)


def _run_of(assignee: str) -> str:
    who, _, rest = assignee.partition("/")
    return rest.partition("/")[0] if who == "loop" else ""


def _settle(git: Git, tracker: Tracker, task: Task, folder: RunFolder, base: str) -> str:
    run = folder.run_id
    commit = _landed(folder).get(task.id)
    if isinstance(commit, str) and git.commit_id(commit) is not None and git.is_ancestor(commit, base):
        tracker.close(task.id, f"landed as {commit[:12]} by {run}")
        return f"{task.id} had landed in {run} without being closed: it was closed now"
    tracker.release(task.id, task.assignee, f"{run} ended without giving it back")
    return f"{task.id} was still claimed by {run}, which has ended: it was released"


def _landed(folder: RunFolder) -> dict[str, Any]:
    try:
        facts: object = json.loads((folder.path / "run.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return cast("dict[str, Any]", facts).get("landed") or {} if isinstance(facts, dict) else {}
