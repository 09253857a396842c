"""What a new issue and a new edge look like in the store, and which ones are refused; how an issue is shown."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, cast

from hew_loop.core import graph, ids
from hew_loop.core.task import PARENT_CHILD, Edge, Task
from hew_loop.errors import EXIT_FAILED, HewError, TrackerError
from hew_loop.trackers.beads_checks import config_value
from hew_loop.trackers.beads_file import Snapshot
from hew_loop.trackers.beads_format import Issue, Line, new_line, time_text

EXTERNAL: Final = "external:"
"""Targets in other projects: stored, but they block nobody."""


class UnknownTask(TrackerError):
    """No task has this id; the hint names the nearest."""

    exit_code = EXIT_FAILED


@dataclass(frozen=True, slots=True)
class NewIssue:
    """What a person gives for a new issue; the store adds id, times and edges."""

    title: str
    description: str = ""
    design: str = ""
    acceptance: str = ""
    notes: str = ""
    type: str = "task"
    priority: int = 2
    labels: tuple[str, ...] = ()
    parent: str = ""
    waits_for: tuple[str, ...] = ()
    """Ids that block it."""
    external_ref: str = ""


@dataclass(frozen=True, slots=True)
class Made:
    """Who makes an issue or an edge, and when."""

    by: str
    at: datetime


def known(snapshot: Snapshot, task_id: str) -> Line:
    """The line of a task that is there; raises `UnknownTask`."""
    line = snapshot.by_id.get(task_id)
    if line is None or line.task is None:
        near = difflib.get_close_matches(task_id, snapshot.tasks, n=3, cutoff=0.6)
        hint = f"Nearest: {', '.join(near)}" if near else "See all: loop task list --all"
        raise UnknownTask(f"There is no task {task_id!r}.", hint=hint)
    return line


def issue_line(snapshot: Snapshot, new: NewIssue, made: Made, directory: Path) -> Line:
    """The line of a new issue, under a new id. Raises `UnknownTask` for a parent or blocker that is not there."""
    if new.parent:
        known(snapshot, new.parent)
        task_id = ids.child_id(new.parent, _mentioned(snapshot))
    else:
        seed = ids.Seed(new.title, new.description, made.by, made.at)
        count = sum("." not in task_id for task_id in snapshot.by_id)
        task_id = ids.new_id(_prefix(snapshot, directory), seed, taken=snapshot.by_id, count=count)
    edges = [edge_record(task_id, Edge(new.parent, PARENT_CHILD), made)] if new.parent else []
    for blocker in dict.fromkeys(new.waits_for):
        if not blocker.startswith(EXTERNAL):
            known(snapshot, blocker)
        if new.parent and blocker in {new.parent, *graph.ancestors(snapshot.tasks, new.parent)}:
            raise HewError(f"A task cannot wait for {blocker}, which it is a part of.")
        edges.append(edge_record(task_id, Edge(blocker), made))
    return new_line(
        {
            "id": task_id,
            "title": new.title,
            "description": new.description,
            "design": new.design,
            "acceptance_criteria": new.acceptance,
            "notes": new.notes,
            "status": "open",
            "priority": new.priority,
            "issue_type": new.type,
            "created_at": time_text(made.at),
            "created_by": made.by,
            "updated_at": time_text(made.at),
            "external_ref": new.external_ref,
            "labels": sorted(set(new.labels)),
            "dependencies": edges,
        }
    )


def edge_record(task_id: str, edge: Edge, made: Made) -> Issue:
    # Never without metadata: 0.49 fails on a waits-for edge that has none.
    made_by = {"created_at": time_text(made.at), "created_by": made.by, "metadata": "{}"}
    return {"issue_id": task_id, "depends_on_id": edge.target, "type": edge.kind, **made_by}


def edge_records(line: Line) -> list[Issue]:
    return list((line.issue or {}).get("dependencies") or ())


def refuse_deadlock(tasks: Mapping[str, Task], task_id: str, edge: Edge) -> None:
    """Raises `HewError` for an edge after which a task could never start."""
    if edge.target == task_id:
        raise HewError(f"{task_id} cannot wait for itself.")
    if edge.kind not in graph.BLOCKING and edge.kind != PARENT_CHILD:
        return
    if edge.kind in graph.BLOCKING and edge.target in graph.ancestors(tasks, task_id):
        raise HewError(f"{task_id} cannot wait for {edge.target}, which it is a part of.")
    starts = graph.children(tasks).get(edge.target, ()) if edge.kind == graph.WAITS_FOR else (edge.target,)
    for start in starts:
        path = (start,) if start == task_id else graph.waiting_path(tasks, start, task_id)
        if path:
            raise HewError(
                f"That edge would close a ring: {' waits for '.join((task_id, *path))}.",
                hint="Tasks in a ring can never start. Remove one of the edges first: loop task dep remove ID BLOCKER",
            )


def shown(snapshot: Snapshot, task_ids: Sequence[str]) -> list[Issue]:
    """As `bd ready --json` of 1.0.5 shows issues: without comments, with counts (`blocks` edges only) and parent.

    Raises `UnknownTask`.
    """
    lines = [known(snapshot, task_id) for task_id in task_ids]
    dependents: dict[str, int] = {}
    for line in snapshot.by_id.values():
        for edge in line.task.edges if line.task else ():
            if edge.kind == "blocks":
                dependents[edge.target] = dependents.get(edge.target, 0) + 1
    return [_shown(line, dependents.get(line.id, 0)) for line in lines]


def _shown(line: Line, dependent_count: int) -> Issue:
    issue = cast("Issue", line.issue)
    view = {name: value for name, value in issue.items() if name not in ("_type", "comments")}
    edges = edge_records(line)
    view["dependency_count"] = sum(edge.get("type") == "blocks" for edge in edges)
    view["dependent_count"] = dependent_count
    view["comment_count"] = len(issue.get("comments") or ())
    parents = sorted(edge["depends_on_id"] for edge in edges if edge.get("type") == PARENT_CHILD)
    if parents:
        view["parent"] = parents[0]
    return view


def _prefix(snapshot: Snapshot, directory: Path) -> str:
    """That of most issues, else the configured one, else the name of the directory that holds the store."""
    count: dict[str, int] = {}
    for task_id in snapshot.by_id:
        prefix = ids.prefix_of(task_id)
        count[prefix] = count.get(prefix, 0) + 1
    count.pop("", None)
    if count:
        return max(count, key=lambda prefix: count[prefix])
    configured = config_value(directory, "issue-prefix").rstrip("-")
    return configured or ids.clean_prefix(directory.absolute().parent.name)


def _mentioned(snapshot: Snapshot) -> set[str]:
    """Ids of all lines and of all targets: a child that was deleted by hand may still be waited for."""
    return set(snapshot.by_id).union(
        edge.target for line in snapshot.lines if line.task is not None for edge in line.task.edges
    )
