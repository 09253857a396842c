"""A task as the tracker shows it, without its long texts: what scheduling needs and nothing more."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

PARENT_CHILD = "parent-child"
NEEDS_HUMAN = "needs-human"


@dataclass(frozen=True, slots=True)
class Edge:
    """A dependency record of the task that holds it: it waits for `target` (or is its child)."""

    target: str
    kind: str = "blocks"
    gate: str = ""
    """`all-children` or `any-children`, from the metadata of a `waits-for` edge; else empty."""


@dataclass(frozen=True, slots=True)
class Task:
    """One issue. Field names and meanings are beads' own (reference/beads.md §3.1); times are aware UTC."""

    id: str
    title: str
    created_at: datetime
    status: str = "open"
    priority: int = 2
    type: str = "task"
    assignee: str = ""
    labels: tuple[str, ...] = ()
    edges: tuple[Edge, ...] = ()
    defer_until: datetime | None = None
    pinned: bool = False
    ephemeral: bool = False
    mentions: tuple[str, ...] = ()
    """Paths that its texts name, its notes aside: a guess at what it will change."""

    @property
    def is_closed(self) -> bool:
        return self.status == "closed"

    @property
    def parents(self) -> tuple[str, ...]:
        return tuple(e.target for e in self.edges if e.kind == PARENT_CHILD)


@dataclass(frozen=True, slots=True)
class TaskText:
    """The texts of one task, read anew for each prompt, so that what a person wrote a minute ago counts."""

    task: Task
    description: str = ""
    design: str = ""
    acceptance: str = ""
    notes: str = ""


MAX_BRIEF = 200


def brief(description: str) -> str:
    """How a description begins, on one line: enough to tell what the task is about."""
    return " ".join(description[: 4 * MAX_BRIEF].split())[:MAX_BRIEF]
