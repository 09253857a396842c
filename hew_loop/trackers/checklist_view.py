"""What a checklist and the notes beside it say together: each item as a task, under an id that outlives edits."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Final

from hew_loop.core.mentions import mentioned
from hew_loop.core.task import NEEDS_HUMAN, PARENT_CHILD, Edge, Task, TaskText
from hew_loop.trackers.checklist_format import Checklist, Item
from hew_loop.trackers.checklist_notes import Bug, Notebook, encodable

TODO: Final = " "
DONE: Final = "x"
ASIDE: Final = "!"
_FIRST: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TITLE_LENGTH: Final = 500
# `- [ ] item  <- next` is still the item without its arrow (reference/regen.md, R-22).
_ARROW: Final = re.compile(r" (?:<-+|←)(?: .*)?$")


class View:
    """One moment of both. Ids are made of `namespace` and what the items say: neither marks nor order change them."""

    def __init__(self, checklist: Checklist, notes: Notebook, namespace: str) -> None:
        self.notes = notes
        self._items = checklist.items
        self._ids = _ids(checklist.items, namespace)
        self.index: Mapping[str, int] = {task_id: i for i, task_id in enumerate(self._ids)}

    @cached_property
    def tasks(self) -> Mapping[str, Task]:
        parents = {item.parent for item in self._items}
        aside: set[int] = set()
        tasks: dict[str, Task] = {}
        for i, item in enumerate(self._items):
            is_closed = item.mark in "xX"
            if item.mark == ASIDE or item.parent in aside:
                aside.add(i)
            assignee = "" if is_closed else self.notes.entry(self._ids[i]).assignee
            tasks[self._ids[i]] = Task(
                id=self._ids[i],
                title=_cut(item.title),
                # Among equal priorities the older task comes first.
                created_at=_FIRST + timedelta(seconds=i),
                status="closed" if is_closed else "in_progress" if assignee else "open",
                type="epic" if i in parents else "task",
                assignee=assignee,
                labels=(NEEDS_HUMAN,) if i in aside and not is_closed else (),
                edges=() if item.parent is None else (Edge(self._ids[item.parent], PARENT_CHILD),),
                mentions=mentioned(item.title, item.body),
            )
        return tasks

    def item(self, task_id: str) -> Item:
        return self._items[self.index[task_id]]

    def text(self, task_id: str, name: str) -> TaskText:
        item = self.item(task_id)
        above: list[str] = []
        parent = item.parent
        while parent is not None:
            above.append(self._items[parent].title)
            parent = self._items[parent].parent
        place = " / ".join((*item.section, *reversed(above)))
        parts = (
            item.title if len(item.title) > _TITLE_LENGTH else "",
            item.body,
            f"In {name} under: {place}" if place else "",
        )
        return TaskText(
            self.tasks[task_id],
            description="\n\n".join(part for part in parts if part),
            notes=self.notes.entry(task_id).notes,
        )

    def noted(self, task_id: str, text: str) -> Notebook:
        """The notes with `text` appended to those of the item, unless it is empty or there already."""
        old, new = self.notes.entry(task_id).notes, encodable(text)
        if not new or new in old:
            return self.notes
        return self.notes.with_entry(task_id, notes=f"{old}\n{new}" if old else new)

    def is_open(self, bug: Bug) -> bool:
        """Its item is set aside, and not for a later bug."""
        there = bug.item in self.index and self.item(bug.item).mark == ASIDE
        return there and self.notes.newest_bug(bug.item) == bug


def bug_text(bug: Bug, *, is_open: bool) -> TaskText:
    task = Task(
        id=bug.id,
        title=bug.title,
        created_at=_FIRST,
        status="open" if is_open else "closed",
        priority=bug.priority,
        type="bug",
        labels=bug.labels,
        mentions=mentioned(bug.title, bug.description),
    )
    return TaskText(task, description=bug.description)


def _ids(items: tuple[Item, ...], namespace: str) -> list[str]:
    digests: list[str] = []
    seen: dict[str, int] = {}
    for item in items:
        text = unicodedata.normalize("NFC", _ARROW.sub("", item.title))
        above = "" if item.parent is None else digests[item.parent]
        key = json.dumps([namespace, item.section, above, text])
        seen[key] = seen.get(key, 0) + 1
        digests.append(hashlib.sha256(f"{key}{seen[key]}".encode()).hexdigest())
    # Two that begin alike are told apart by their digests, not by their order in the file.
    short: dict[str, str] = {}
    for digest in sorted(digests):
        short.setdefault(digest[:8], digest)
    return [f"plan-{d[:8] if short[d[:8]] == d else d[:20]}" for d in digests]


def _cut(title: str) -> str:
    return title if len(title) <= _TITLE_LENGTH else title[: _TITLE_LENGTH - 1] + "…"
