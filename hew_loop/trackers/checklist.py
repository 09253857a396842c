"""The checklist tracker: a person's markdown file, in which the loop changes the marks in the boxes and nothing else.

`[ ]` is open, `[x]` and `[X]` are closed, `[!]` is set aside: open, with the label that the dispatcher holds back,
until a person writes `[ ]` again. The order of the file is the order of work; items do not wait for one another. An
item that others stand below is an epic, never started itself; `[!]` on it sets all of them aside.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Generic, TypeVar

from hew_loop.core.task import NEEDS_HUMAN, Task, TaskText, brief
from hew_loop.errors import EXIT_FAILED, TrackerError
from hew_loop.trackers.base import BugReport
from hew_loop.trackers.checklist_format import marked, parse
from hew_loop.trackers.checklist_notes import Bug, Notebook, encodable, read_notebook, write_notebook
from hew_loop.trackers.checklist_view import ASIDE, DONE, TODO, View, bug_text
from hew_loop.trackers.whole_file import Signature, locked, replace_file, signature

T = TypeVar("T")
_RETRIES: Final = 20


class GoneItem(TrackerError):
    """The checklist has no such item, or no longer has it."""

    exit_code = EXIT_FAILED


class ChecklistTracker:
    """`Tracker` on the markdown file `path`; what has no place in it lives in `state` (see `state_file`).

    Ids are made of the name of `state`, the headings and items above an item, and its text, and a number where all
    that is the same: neither marks nor the order of the others change them, a renamed item is a new one.
    """

    kind = "checklist"

    def __init__(self, path: Path, *, state: Path) -> None:
        self.path = path
        self.state = state

    @property
    def store(self) -> str:
        return str(self.path.absolute())

    def read(self) -> tuple[Task, ...]:
        """All items in the order of the file. Bugs are no tasks here: an item's mark says that it is set aside."""
        return tuple(self._view().tasks.values())

    def show(self, task_id: str) -> TaskText | None:
        view = self._view()
        if task_id in view.index:
            return view.text(task_id, self.path.name)
        bug = next((bug for bug in view.notes.bugs if bug.id == task_id), None)
        return None if bug is None else bug_text(bug, is_open=view.is_open(bug))

    def briefs(self, ids: Collection[str]) -> dict[str, str]:
        view = self._view()
        return {i: brief(view.text(i, self.path.name).description) for i in ids if i in view.index}

    def unclear(self) -> tuple[tuple[int, str], ...]:
        """Number and text of each line that looks like an item and is none, for a warning: nobody works on it."""
        return parse(self._read()[1]).unclear

    def claim(self, task_id: str, actor: str) -> str:
        def change(view: View) -> _Edit[str]:
            task = view.tasks.get(task_id)
            if task is None:
                return _Edit(f"there is no task {task_id}")
            if task.assignee and task.assignee != actor:
                return _Edit(f"already claimed by {task.assignee}")
            if task.is_closed:
                return _Edit("its status is closed")
            if NEEDS_HUMAN in task.labels:
                return _Edit("it is set aside with [!]: a person has to look at it")
            return _Edit("", view.notes.with_entry(task_id, assignee=actor))

        return self._update(change)

    def release(self, task_id: str, actor: str, note: str) -> None:
        """The mark stays as it is: `[!]` too."""

        def change(view: View) -> _Edit[None]:
            if view.notes.entry(task_id).assignee != actor:
                return _Edit(None)
            is_there = task_id in view.tasks and not view.tasks[task_id].is_closed
            notes = view.noted(task_id, note) if is_there else view.notes
            return _Edit(None, notes.with_entry(task_id, assignee=""))

        self._update(change)

    def close(self, task_id: str, reason: str) -> None:
        """Tick the item. To close a bug is to put its item back: `[!]` becomes `[ ]`."""

        def change(view: View) -> _Edit[None]:
            bug = next((bug for bug in view.notes.bugs if bug.id == task_id), None)
            if bug is not None:
                return _Edit(None, marks={bug.item: TODO} if view.is_open(bug) else {})
            if self._known(view, task_id).is_closed:
                return _Edit(None, view.notes.with_entry(task_id, assignee=""))
            notes = view.notes.with_entry(task_id, assignee="", close_reason=reason or "Closed")
            return _Edit(None, notes, {task_id: DONE})

        self._update(change)

    def reopen(self, task_id: str, reason: str) -> None:
        """`[x]` becomes `[ ]`; an item that is set aside stays so."""

        def change(view: View) -> _Edit[None]:
            marks = {task_id: TODO} if self._known(view, task_id).is_closed else {}
            return _Edit(None, view.noted(task_id, reason).with_entry(task_id, assignee="", close_reason=""), marks)

        self._update(change)

    def file_bug(self, bug: BugReport) -> str:
        """Sets the item aside with `[!]` and keeps the bug beside the file, even when the item is gone."""

        def change(view: View) -> _Edit[str]:
            # The mark is written before the bug: a bug that is there was marked, and a person may have changed it.
            found = next((one for one in view.notes.bugs if one.external_ref == bug.external_ref), None)
            if found is not None:
                return _Edit(found.id)
            filed = _bug(bug, number=1 + sum(one.item == bug.blocks for one in view.notes.bugs))
            notes = view.notes.model_copy(update={"bugs": (*view.notes.bugs, filed)})
            return _Edit(filed.id, notes, {bug.blocks: ASIDE} if bug.blocks in view.index else {})

        return self._update(change)

    def note(self, task_id: str, text: str) -> None:
        def change(view: View) -> _Edit[None]:
            self._known(view, task_id)
            return _Edit(None, view.noted(task_id, text))

        self._update(change)

    def remember(self, text: str) -> None:
        def change(view: View) -> _Edit[None]:
            memories = tuple(dict.fromkeys((*view.notes.memories, encodable(text))))
            return _Edit(None, view.notes.model_copy(update={"memories": memories}))

        self._update(change)

    def _known(self, view: View, task_id: str) -> Task:
        task = view.tasks.get(task_id)
        if task is None:
            raise GoneItem(
                f"{self.path} has no item {task_id}.", hint="It was removed or renamed: a renamed item is a new one."
            )
        return task

    def _view(self) -> View:
        """Raises TrackerError. Takes no lock: a mark is written before what belongs to it in the notes."""
        try:
            notes = read_notebook(self.state)
        except OSError as error:
            raise TrackerError(f"Cannot read {self.state}: {error.strerror}.") from error
        return View(parse(self._read()[1]), notes, self.state.stem)

    def _read(self) -> tuple[Signature | None, bytes]:
        try:
            if not stat.S_ISREG(self.path.stat().st_mode):
                raise TrackerError(f"{self.path} is not a file.", hint="Name a markdown file: --checklist PLAN.md")
            seen, raw = signature(self.path), self.path.read_bytes()
        except FileNotFoundError:
            raise TrackerError(
                f"There is no checklist {self.path}.", hint="Write one, with a line `- [ ] TEXT` for each task."
            ) from None
        except OSError as error:
            raise TrackerError(f"Cannot read {self.path}: {error.strerror}.") from error
        if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise TrackerError(f"{self.path} is written in UTF-16.", hint="Save it as UTF-8.")
        return seen, raw

    def _update(self, change: Callable[[View], _Edit[T]]) -> T:
        """Write what `change` makes of the newest file; asked again when a person saves the file meanwhile."""
        try:
            self._prepare()
            with locked(self.state.with_name(f"{self.state.name}.lock")):
                for _ in range(_RETRIES):
                    seen, raw = self._read()
                    view = View(parse(raw), read_notebook(self.state), self.state.stem)
                    edit = change(view)
                    after = marked(raw, {view.item(task_id).at: mark for task_id, mark in edit.marks.items()})
                    if after != raw and not replace_file(self.path, after, seen=seen):
                        continue
                    if edit.notes is not None and edit.notes != view.notes:
                        write_notebook(self.state, edit.notes)
                    return edit.result
        except OSError as error:
            raise TrackerError(
                f"Cannot write {error.filename or self.path}: {error.strerror}.",
                hint="Mend the file system or its permissions, then run the command again.",
            ) from error
        raise TrackerError(f"Another program keeps changing {self.path}. Nothing was changed.")

    def _prepare(self) -> None:
        """A directory that we make hides itself from git."""
        if not self.state.parent.is_dir():
            self.state.parent.mkdir(parents=True, exist_ok=True)
            (self.state.parent / ".gitignore").write_text("*\n")


@dataclass(frozen=True, slots=True)
class _Edit(Generic[T]):
    """What to return, and what to write: other notes, other marks by id."""

    result: T
    notes: Notebook | None = None
    marks: Mapping[str, str] = field(default_factory=dict[str, str])


def _bug(report: BugReport, *, number: int) -> Bug:
    return Bug(
        id=f"{report.blocks}-bug{number}",
        item=report.blocks,
        external_ref=report.external_ref,
        title=encodable(report.title),
        description=encodable(report.description),
        labels=tuple(map(encodable, report.labels)),
        priority=report.priority,
    )
