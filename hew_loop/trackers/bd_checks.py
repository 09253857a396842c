"""Doubts about bd that no single answer raises: an id that is none, a store that was lost, a version nobody knows."""

from __future__ import annotations

import re
from collections.abc import Container
from typing import Final

from hew_loop.core.task import Task
from hew_loop.errors import TrackerError
from hew_loop.trackers.bd_call import Answer, Bd
from hew_loop.trackers.choose import live_lines

KNOWN_VERSIONS: Final = ((0, 49), (1, 0), (1, 1), (1, 2), (1, 3))
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def check_id(task_id: str, *, seen: Container[str]) -> None:
    """Raises TrackerError: without an id bd acts on the issue touched last, with a part of one on whatever it fits.

    An id without a hyphen is taken for a part, unless bd itself has shown it.
    """
    is_full = "-" in task_id.strip() or task_id in seen
    if not task_id.strip() or task_id.startswith("-") or _CONTROL.search(task_id) or not is_full:
        raise TrackerError(f"{task_id!r} is not a full task id.", hint="Full ids: bd list --all --limit 0 --json")


def check_state(task: Task, *, status: str, assignee: str | None = None) -> None:
    """Raises TrackerError when the task is not what a write should have made of it."""
    if task.status != status or (assignee is not None and task.assignee != assignee):
        owner = f", assigned to {task.assignee}" if task.assignee else ""
        raise TrackerError(
            f"{task.id} should be {status} now, but bd shows it {task.status}{owner}.", hint=f"bd show {task.id}"
        )


def doubt_emptiness(bd: Bd, *, seen: int) -> None:
    """Raises TrackerError for an empty store that cannot be one: a lost database is made anew without a word.

    `seen` is how many tasks there were before.
    """
    if seen:
        raise TrackerError(
            f"bd suddenly shows no task in {bd.directory}; a moment ago there were {seen}.",
            hint="Look at the store: bd where, bd list --all",
        )
    if not bd.call("where").object().get("prefix"):
        raise TrackerError(
            f"The database in {bd.directory} is gone; bd has made an empty one in its place.",
            hint="Bring it back from a backup, or begin anew: bd init --force",
        )
    lines = live_lines(bd.directory / "issues.jsonl")
    if lines:
        raise TrackerError(
            f"bd shows an empty store, but {bd.directory / 'issues.jsonl'} holds {lines} issues.",
            hint="Is the file right? bd import -i FILE (1.x: bd import FILE). Else move it away.",
        )


def is_unknown(answer: Answer, task_id: str) -> bool:
    """bd says that no issue has this id, or that it fits several; anything else is a store that cannot be read."""
    text = f"{answer.error}\n{answer.warning}"
    return f'no issue found matching "{task_id}"' in text or f'ambiguous ID "{task_id}"' in text


def version_note(version: str) -> str:
    """What doctor says about a version that is none of those the adapter was built on; else empty."""
    numbers = tuple(int(n) for n in re.findall(r"\d+", version)[:2])
    if numbers in KNOWN_VERSIONS:
        return ""
    known = ", ".join(f"{major}.{minor}.x" for major, minor in KNOWN_VERSIONS)
    return f"bd {version} is none of the versions that this was built on ({known}); it is used all the same"
