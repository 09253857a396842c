"""The embedded tracker: `.beads/issues.jsonl` read and written directly, in beads' own format."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from hew_loop.core.task import Edge, Task, TaskText, brief
from hew_loop.errors import HewError, UsageError
from hew_loop.trackers.base import BugReport
from hew_loop.trackers.beads_checks import check_kind, check_texts, check_title, check_type, cut_title, new_memory_key
from hew_loop.trackers.beads_file import BeadsFile, Edit, Snapshot
from hew_loop.trackers.beads_format import Issue, Line, changed_line, moved_on, new_line, time_text
from hew_loop.trackers.beads_issue import (
    EXTERNAL,
    Made,
    NewIssue,
    edge_record,
    edge_records,
    issue_line,
    known,
    refuse_deadlock,
    shown,
)


class BeadsStore:
    """`Tracker` on the beads directory `directory`, which is made with the first write.

    `exclude_file` is git's `info/exclude` of the repository, or None where the directory lies in none. `actor` signs
    what the loop itself files.
    """

    kind = "beads"

    def __init__(
        self,
        directory: Path,
        *,
        exclude_file: Path | None = None,
        actor: str = "loop",
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.directory = directory
        self._file = BeadsFile(directory, exclude_file=exclude_file)
        self._actor = actor
        self._clock = clock

    @property
    def store(self) -> str:
        return str(self.directory.absolute())

    def read(self) -> tuple[Task, ...]:
        return tuple(self.tasks().values())

    def tasks(self) -> Mapping[str, Task]:
        """All tasks by id, in the order of the file."""
        return self._file.read().tasks

    def issues(self, task_ids: Sequence[str]) -> list[Issue]:
        """Issue objects as `bd ready --json` shows them, in the order asked for. Raises `UnknownTask`."""
        return shown(self._file.read(), task_ids)

    def show(self, task_id: str) -> TaskText | None:
        """Its edges are those of its line, a ring-closing one included: finding rings takes a look at all tasks."""
        line = self._file.read().by_id.get(task_id)
        if line is None or line.task is None:
            return None
        issue = _issue(line)
        return TaskText(
            line.task,
            description=issue.get("description") or "",
            design=issue.get("design") or "",
            acceptance=issue.get("acceptance_criteria") or "",
            notes=issue.get("notes") or "",
        )

    def briefs(self, ids: Collection[str]) -> dict[str, str]:
        lines = self._file.read().by_id
        return {i: brief(_issue(lines[i]).get("description") or "") for i in ids if i in lines}

    def claim(self, task_id: str, actor: str) -> str:
        def change(snapshot: Snapshot) -> Edit[str]:
            line = snapshot.by_id.get(task_id)
            if line is None or line.task is None:
                return Edit(f"there is no task {task_id}")
            task = line.task
            if task.assignee and task.assignee != actor:
                return Edit(f"already claimed by {task.assignee}")
            if task.status == "in_progress" and task.assignee == actor:
                return Edit("")
            if task.status != "open":
                return Edit(f"its status is {task.status}")
            started = _issue(line).get("started_at") or time_text(self._clock())
            members = {"status": "in_progress", "assignee": actor, "started_at": started}
            return Edit("", (self._changed(line, members),))

        refusal = self._file.update(change)
        if refusal:
            return refusal
        # A program that takes no lock may have written in between.
        line = self._file.read().by_id.get(task_id)
        task = line.task if line is not None else None
        is_ours = task is not None and task.status == "in_progress" and task.assignee == actor
        return "" if is_ours else "another program changed it while it was being claimed"

    def release(self, task_id: str, actor: str, note: str) -> None:
        """A status that somebody gave it meanwhile (blocked, deferred) stays; only the claim goes."""

        def change(snapshot: Snapshot) -> Edit[None]:
            line = snapshot.by_id.get(task_id)
            if line is None or line.task is None or line.task.assignee != actor or line.task.is_closed:
                return Edit(None)
            status = "open" if line.task.status == "in_progress" else line.task.status
            return Edit(None, (self._changed(line, {"status": status, "assignee": None, **_noted(line, note)}),))

        self._file.update(change)

    def close(self, task_id: str, reason: str) -> None:
        def change(snapshot: Snapshot) -> Edit[None]:
            line = known(snapshot, task_id)
            if line.task is None or line.task.is_closed:
                return Edit(None)
            end = {"closed_at": time_text(self._clock()), "close_reason": reason or "Closed"}
            return Edit(None, (self._changed(line, {"status": "closed", "assignee": None, **end}),))

        self._file.update(change)

    def reopen(self, task_id: str, reason: str) -> None:
        def change(snapshot: Snapshot) -> Edit[None]:
            line = known(snapshot, task_id)
            note = _noted(line, reason)
            if line.task is None or (line.task.status == "open" and not line.task.assignee and not note):
                return Edit(None)
            none = dict.fromkeys(("assignee", "closed_at", "close_reason", "closed_by_session"))
            return Edit(None, (self._changed(line, {"status": "open", **none, **note}),))

        self._file.update(change)

    def file_bug(self, bug: BugReport) -> str:
        """The bug is filed even when the parked task is gone from the store."""

        def change(snapshot: Snapshot) -> Edit[str]:
            parked = snapshot.by_id.get(bug.blocks)
            for line in snapshot.by_id.values():
                if line.task is not None and _issue(line).get("external_ref") == bug.external_ref:
                    return Edit(line.id, self._held_by(parked, line.id))
            new = NewIssue(
                title=cut_title(bug.title),
                description=bug.description,
                type="bug",
                priority=bug.priority,
                labels=bug.labels,
                external_ref=bug.external_ref,
            )
            line = issue_line(snapshot, new, self._made(self._actor), self.directory)
            return Edit(line.id, (line, *self._held_by(parked, line.id)))

        return self._file.update(change)

    def note(self, task_id: str, text: str) -> None:
        def change(snapshot: Snapshot) -> Edit[None]:
            line = known(snapshot, task_id)
            note = _noted(line, text)
            return Edit(None, (self._changed(line, note),) if note else ())

        self._file.update(change)

    def remember(self, text: str) -> None:
        def change(snapshot: Snapshot) -> Edit[None]:
            memories = [line.issue for line in snapshot.lines if not line.id and line.issue]
            if any(memory.get("value") == text for memory in memories):
                return Edit(None)
            key = new_memory_key(text, taken={str(memory.get("key")) for memory in memories})
            return Edit(None, (new_line({"_type": "memory", "key": key, "value": text}),))

        self._file.update(change)

    def add(self, new: NewIssue, *, creator: str) -> str:
        """Create an issue and return its id. Raises `UsageError` for a value that beads would not take."""
        check_title(new.title)
        check_texts(new.description, new.design, new.acceptance, new.notes, *new.labels, creator)
        check_type(new.type, self.directory)
        if not 0 <= new.priority <= 4:
            raise UsageError(f"A priority is 0 (most urgent) to 4, not {new.priority}.")

        def change(snapshot: Snapshot) -> Edit[str]:
            line = issue_line(snapshot, new, self._made(creator), self.directory)
            return Edit(line.id, (line,))

        return self._file.update(change)

    def add_edge(self, task_id: str, edge: Edge, *, creator: str) -> None:
        """Make `task_id` wait for the edge's target (or be its child); idempotent.

        Raises `UnknownTask`, and `HewError` for an edge after which a task could never start.
        """
        check_kind(edge.kind)

        def change(snapshot: Snapshot) -> Edit[None]:
            line = known(snapshot, task_id)
            if not edge.target.startswith(EXTERNAL):
                known(snapshot, edge.target)
            records = edge_records(line)
            present = [r.get("type") or "blocks" for r in records if r["depends_on_id"] == edge.target]
            if edge.kind in present:
                return Edit(None)
            refuse_deadlock(snapshot.tasks, task_id, edge)
            if present:
                raise HewError(
                    f"{task_id} has an edge to {edge.target} already ({present[0]}); beads keeps one for each pair.",
                    hint=f"Remove it first: loop task dep remove {task_id} {edge.target}",
                )
            record = edge_record(task_id, edge, self._made(creator))
            return Edit(None, (self._changed(line, {"dependencies": [*records, record]}),))

        self._file.update(change)

    def remove_edge(self, task_id: str, target: str) -> bool:
        """Remove every edge from `task_id` to `target`; False when there was none. Raises `UnknownTask`."""

        def change(snapshot: Snapshot) -> Edit[bool]:
            line = known(snapshot, task_id)
            before = edge_records(line)
            after = [record for record in before if record["depends_on_id"] != target]
            if len(after) == len(before):
                return Edit(False)
            return Edit(True, (self._changed(line, {"dependencies": after or None}),))

        return self._file.update(change)

    def _held_by(self, parked: Line | None, bug_id: str) -> tuple[Line, ...]:
        """The parked task's line with its edge to the bug; nothing to change when it has it."""
        if parked is None or parked.task is None:
            return ()
        records = edge_records(parked)
        if any(record["depends_on_id"] == bug_id for record in records):
            return ()
        record = edge_record(parked.id, Edge(bug_id), self._made(self._actor))
        return (self._changed(parked, {"dependencies": [*records, record]}),)

    def _made(self, by: str) -> Made:
        return Made(by, self._clock())

    def _changed(self, line: Line, changes: Mapping[str, Any]) -> Line:
        return changed_line(line, {**changes, "updated_at": moved_on(_issue(line), self._clock())})


def _issue(line: Line) -> Issue:
    return cast("Issue", line.issue)


def _noted(line: Line, text: str) -> dict[str, str]:
    """The change that appends `text` to the notes; none when it is empty or there already."""
    notes: str = _issue(line).get("notes") or ""
    if not text or text in notes:
        return {}
    return {"notes": f"{notes}\n{text}" if notes else text}
