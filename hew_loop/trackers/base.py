"""The seam to where tasks live. Methods block; the engine calls them in a thread, one at a time."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from hew_loop.core.task import Task, TaskText


@dataclass(frozen=True, slots=True)
class BugReport:
    """A bug that blocks a parked task until a person closes it."""

    title: str
    description: str
    blocks: str
    """Id of the parked task: it gets a `blocks` edge to the bug."""
    external_ref: str
    """`loop:<run>/<task>.<attempt>`: filing the same reference twice returns the first bug's id."""
    labels: tuple[str, ...] = ()
    priority: int = 2


class Tracker(Protocol):
    """Every method raises `TrackerError` when the store cannot be trusted; none returns half an answer."""

    @property
    def kind(self) -> str:
        """`beads` (embedded), `bd` or `checklist`."""
        ...

    @property
    def store(self) -> str:
        """Absolute path of the store, for `BEADS_DIR` and for messages."""
        ...

    def read(self) -> tuple[Task, ...]:
        """All tasks, closed ones too, in any order."""
        ...

    def show(self, task_id: str) -> TaskText | None:
        """The task with its texts as they are now; None when there is no such id."""
        ...

    def briefs(self, ids: Collection[str]) -> Mapping[str, str]:
        """How their descriptions begin, as of the last `read` or newer; those without one may be left out."""
        ...

    def claim(self, task_id: str, actor: str) -> str:
        """Take the task: status `in_progress`, assignee `actor`, read back. Empty string, or why it is not ours.

        Refused unless the task is `open` and unassigned, or already in progress by the same actor. Closed: refused.
        """
        ...

    def release(self, task_id: str, actor: str, note: str) -> None:
        """Give it back: `open`, no assignee, `note` appended to its notes. Only if still ours; idempotent."""
        ...

    def close(self, task_id: str, reason: str) -> None:
        """Close it and clear the claim; idempotent."""
        ...

    def reopen(self, task_id: str, reason: str) -> None:
        """Open and unassigned again, `reason` appended to its notes; idempotent."""
        ...

    def file_bug(self, bug: BugReport) -> str:
        """Create the bug with its edge, or find the one with the same `external_ref`; returns its id."""
        ...

    def note(self, task_id: str, text: str) -> None:
        """Append `text` to the notes, once: a text that is already there is not repeated."""
        ...

    def remember(self, text: str) -> None:
        """Keep a memory (`bd remember`)."""
        ...
