"""What bd prints, as tasks: `list` gives edges as records, `show` as whole issues."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from hew_loop.core.task import Task, TaskText
from hew_loop.errors import TrackerError
from hew_loop.trackers.beads_format import BadLine, Issue, task_of


def tasks_of(issues: Sequence[Issue]) -> tuple[Task, ...]:
    """The tasks of a list, without tombstones. Raises TrackerError."""
    return tuple(task for issue in issues if (task := read_task(issue)) is not None)


def text_of(issue: Issue) -> TaskText | None:
    """The task of `bd show`; None for a tombstone. Its edges carry no gate: `show` does not print one."""
    task = read_task(issue)
    if task is None:
        return None
    return TaskText(
        task,
        description=_text(issue, "description"),
        design=_text(issue, "design"),
        acceptance=_text(issue, "acceptance_criteria"),
        notes=_text(issue, "notes"),
    )


def read_task(issue: Issue) -> Task | None:
    """Raises TrackerError for an object that is no issue."""
    try:
        if not isinstance(issue.get("id"), str) or not issue["id"]:
            raise BadLine("it has no id")
        return task_of({**issue, "dependencies": _edge_records(issue)}, is_file=False)
    except BadLine as error:
        raise TrackerError(f"bd shows an issue that cannot be read ({issue.get('id')!r}): {error}.") from error


def _edge_records(issue: Issue) -> list[Issue]:
    """Records, made of whole issues with a `dependency_type` where need be; any answer may hold either."""
    edges: list[Any] = issue.get("dependencies") or []
    return [
        edge
        if not isinstance(edge, dict) or "depends_on_id" in edge
        else {"depends_on_id": cast("Issue", edge).get("id"), "type": cast("Issue", edge).get("dependency_type")}
        for edge in edges
    ]


def _text(issue: Issue, name: str) -> str:
    value = issue.get(name)
    return value if isinstance(value, str) else ""
