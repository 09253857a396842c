"""What has to be done in bd so that its store says what the embedded one does: a plan of plain `bd` commands.

`bd import` carries most; what it cannot (clearing, labels and edges taken out, deletion, dates, the gate of an edge)
goes before it as commands of its own. Commands that touch an issue move its `updated_at`, and an import skips what
looks older than bd's: so the import comes last, and its lines then carry a time that no version skips.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, cast

from hew_loop.trackers.beads_export import edge_for_bd, orphaned
from hew_loop.trackers.beads_file import Snapshot
from hew_loop.trackers.beads_format import Issue, Line, changed_line, read_time
from hew_loop.trackers.beads_issue import EXTERNAL
from hew_loop.trackers.to_bd_edges import EdgePlan, plan_edges
from hew_loop.trackers.to_bd_members import CONTENT, Difference, difference, lost_when_new, missing_comments, twins

Version = tuple[int, ...]
_BEGINNING = datetime(1, 1, 1, tzinfo=UTC)
_LATEST: Final = "9999-12-31T23:59:59Z"
"""0.49 takes only what is strictly newer, and then writes its own time instead."""


@dataclass(frozen=True, slots=True)
class Step:
    """One process: no shell, `stdin` fed to it."""

    argv: tuple[str, ...]
    stdin: bytes = b""


@dataclass(frozen=True, slots=True)
class Plan:
    steps: tuple[Step, ...]
    newer_in_bd: tuple[str, ...] = ()
    """Not touched: bd's issue is newer and differs."""
    only_in_bd: tuple[str, ...] = ()
    """Not deleted."""
    lost: tuple[str, ...] = ()
    """One sentence for each thing that bd has no way to take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """`version` is of the bd that will run the steps.

    `overwrite` also what is newer in bd; `delete` what only bd has.
    """

    version: Version
    overwrite: bool = False
    delete: bool = False

    @property
    def is_old(self) -> bool:
        """The SQLite era."""
        return self.version < (0, 50)


def plan(store: Snapshot, present: Sequence[Line], wish: Wish) -> Plan:
    """`present` is bd's own export: with it the steps are only those that are needed."""
    return _Planner(store, present, wish).plan()


def version_of(lines: Iterable[Line]) -> Version:
    """Which era wrote an export: 1.x gives every line a `_type`."""
    return (1, 0) if any("_type" in (line.issue or {}) for line in lines) else (0, 49)


class _Planner:
    def __init__(self, store: Snapshot, present: Sequence[Line], wish: Wish) -> None:
        self._wish = wish
        self._store = store
        self._wanted = {line.id: line for line in store.by_id.values() if line.task is not None}
        self._present = {line.id: line for line in present if line.task is not None}
        self._buried = {line.id for line in present if line.id and line.task is None}
        self._memories = {line.memory: line for line in present if line.memory}
        self._first: list[Step] = []
        self._lines: list[Line] = []
        self._after: list[Step] = []
        self._again: list[Line] = []
        self._dead: set[str] = set()
        self._there: set[str] = set()
        self._touched: set[str] = set()
        self._is_unblocking = False
        """bd 1.x moves the time of whatever a deletion or a removed edge unblocks, too."""
        self._newer: list[str] = []
        self._lost: list[tuple[str, str]] = []

    def plan(self) -> Plan:
        only_in_bd = self._deletions()
        self._there = self._wanted.keys() | self._present.keys() - self._dead
        orphans = orphaned(self._there)
        for task_id, line in sorted(self._wanted.items()):
            if task_id in self._buried and task_id not in self._present:
                self._lost.append(("a deleted issue cannot be brought back", task_id))
            elif task_id in orphans and not self._wish.is_old:
                self._lost.append(("a child without its parent is refused", task_id))
            elif (old := self._present.get(task_id)) is None:
                self._new(line)
            else:
                self._changed(old, line)
        memories = self._remembered()
        steps = [*self._first, *self._import(memories), *self._after]
        if self._again:
            steps.append(self._import_step([_without(line, "updated_at") for line in self._again]))
        return Plan(tuple(steps), tuple(self._newer), only_in_bd, _sentences(self._lost, self._wish.version))

    def _deletions(self) -> tuple[str, ...]:
        """Plans them, and gives the ids that only bd has and keeps."""
        missing: list[str] = []
        for task_id in sorted(self._present.keys() - self._wanted.keys()):
            tombstone = self._store.by_id.get(task_id)
            if tombstone is None and not self._wish.delete:
                missing.append(task_id)
            elif tombstone is not None and not self._may_write(self._present[task_id], tombstone):
                self._newer.append(task_id)
            else:
                self._dead.add(task_id)
        self._first += [Step(_on(task_id, "delete", "--force")) for task_id in sorted(self._dead)]
        self._is_unblocking = bool(self._dead)
        return tuple(missing)

    def _new(self, line: Line) -> None:
        edges = plan_edges((), self._wanted_edges(line), old_era=self._wish.is_old)
        self._gates(line, edges)
        self._lost += [(what, line.id) for what in lost_when_new(_issue(line), old_era=self._wish.is_old)]
        self._lines.append(_sent(line, edges.imported, missing_comments((), _records(line, "comments"))))

    def _wanted_edges(self, line: Line) -> list[Issue]:
        """Those that bd can hold: it drops an edge to an issue that is not there."""
        edges = [
            edge
            for edge in _records(line, "dependencies")
            if edge.get("depends_on_id") in self._there or str(edge.get("depends_on_id")).startswith(EXTERNAL)
        ]
        if len(edges) < len(_records(line, "dependencies")):
            self._lost.append(("an edge to what is not there is dropped", line.id))
        return edges

    def _changed(self, old: Line, line: Line) -> None:
        members = difference(_issue(old), _issue(line), old_era=self._wish.is_old)
        added, taken = set(_labels(line)) - set(_labels(old)), set(_labels(old)) - set(_labels(line))
        edges = plan_edges(
            [edge for edge in _records(old, "dependencies") if edge.get("depends_on_id") not in self._dead],
            self._wanted_edges(line),
            old_era=self._wish.is_old,
        )
        comments = missing_comments(_records(old, "comments"), _records(line, "comments"))
        # Deleting an issue writes `[deleted:ID]` into the texts that name it.
        named = any(gone in str(_issue(line).get(name)) for gone in self._dead for name in CONTENT)
        self._lost += [(what, line.id) for what in (*members.lost, *edges.lost)]
        if not (members.can_be_sent or added or taken or edges.can_be_sent or comments or named):
            return
        if not self._may_write(old, line):
            self._newer.append(line.id)
            return
        self._first += [Step(("bd", "label", "remove", *_words(line.id, label))) for label in sorted(taken)]
        self._edges_removed(line, edges)
        self._gates(line, edges)
        self._by_flag(line, members)
        is_moved = any(flag.startswith("--defer") for flag in members.flags)  # which may change the status too
        if members.imported or members.closing or added or edges.imported or comments or named or is_moved:
            self._lines.append(_sent(line, edges.imported, comments))

    def _edges_removed(self, line: Line, edges: EdgePlan) -> None:
        for target in edges.removed:
            if self._wish.is_old and target not in self._present:
                self._lost.append(("an edge to what bd does not hold cannot be removed", line.id))
            else:
                self._first.append(Step(("bd", "dep", "remove", *_words(line.id, target))))
                self._is_unblocking = True

    def _by_flag(self, line: Line, members: Difference) -> None:
        if members.flags:
            self._first.append(Step(_on(line.id, "update", *members.flags)))
            self._touched.add(line.id)
        if members.closing:
            # 0.49 sets a reason only while closing, and then its own time; an import brings ours, but only together
            # with something else that changes.
            if reason := _issue(line).get("close_reason"):
                self._first.append(Step(_on(line.id, "close", f"--reason={reason}", "--force")))
            other = 0 if _issue(line).get("priority") else 1
            self._first.append(Step(_on(line.id, "update", f"--priority={other}")))

    def _gates(self, line: Line, edges: EdgePlan) -> None:
        """bd 1.x sets the gate of a waits-for edge only while it creates an issue: over the one that is there."""
        for target, gate in edges.gates:
            title = f"--title={_issue(line).get('title') or ''}"
            words = (title, f"--id={line.id}", "--force", f"--waits-for={target}", f"--waits-for-gate={gate}")
            self._after.append(Step(("bd", "create", *words)))
        if edges.gates:
            self._again.append(_sent(line, (), ()))

    def _may_write(self, old: Line, line: Line) -> bool:
        return self._wish.overwrite or _second(old) <= _second(line)

    def _remembered(self) -> list[Line]:
        ours = {line.memory: line for line in self._store.lines if line.memory}
        if self._wish.is_old:
            self._lost += [("memories are not kept", key) for key in ours]
            return []
        if self._wish.delete:
            gone = sorted(self._memories.keys() - ours.keys())
            self._first += [Step(("bd", "forget", *_words(key))) for key in gone]
        return [
            line
            for key, line in sorted(ours.items())
            if key not in self._memories or _issue(self._memories[key]).get("value") != _issue(line).get("value")
        ]

    def _import(self, memories: list[Line]) -> list[Step]:
        lines: list[Line] = []
        renotes: list[Step] = []
        alike = twins([*self._wanted.values(), *self._present.values()]) if self._wish.is_old else set[str]()
        for line in self._lines:
            if line.id in self._present:
                line = self._forced(line)
            if line.id in alike:
                # 0.49 takes an issue with the words of another for that one under a new id, and deletes the other.
                notes = str(_issue(line).get("notes") or "")
                renotes.append(Step(_on(line.id, "update", f"--notes={notes}")))
                line = changed_line(line, {"notes": f"{notes}\n{line.id}"})
            lines.append(line)
        return [self._import_step([*lines, *memories]), *renotes] if lines or memories else []

    def _forced(self, line: Line) -> Line:
        """The line so that bd takes it over its own, keeping our time where that is possible."""
        if self._wish.is_old:
            return changed_line(line, {"updated_at": _LATEST})
        is_older = _second(line) < _second(self._present[line.id])
        return _without(line, "updated_at") if is_older or self._is_unblocking or line.id in self._touched else line

    def _import_step(self, lines: list[Line]) -> Step:
        argv = ("bd", "import") if self._wish.is_old else ("bd", "import", "-")
        return Step(argv, b"".join(line.raw.strip() + b"\n" for line in lines))


def _sent(line: Line, edges: Sequence[Issue], comments: Sequence[Issue]) -> Line:
    changes: dict[str, Any] = {
        "dependencies": [edge_for_bd(edge) for edge in edges] or None,
        "comments": list(comments) or None,
    }
    if _issue(line).get("status") != "closed":
        changes["closed_at"] = None  # bd refuses the whole file for one
    return changed_line(line, changes)


def _without(line: Line, name: str) -> Line:
    return changed_line(line, {name: None})


def _on(task_id: str, verb: str, *flags: str) -> tuple[str, ...]:
    """An id that looks like an option stays an id."""
    return ("bd", verb, *flags, "--", task_id) if task_id.startswith("-") else ("bd", verb, task_id, *flags)


def _words(*words: str) -> tuple[str, ...]:
    return ("--", *words) if any(word.startswith("-") for word in words) else words


def _sentences(lost: Iterable[tuple[str, str]], version: Version) -> tuple[str, ...]:
    ids: dict[str, list[str]] = {}
    for what, task_id in lost:
        ids.setdefault(what, []).append(task_id)
    name = "bd " + ".".join(map(str, version[:2]))
    return tuple(f"{name}: {what} ({', '.join(sorted(set(found)))})" for what, found in sorted(ids.items()))


def _second(line: Line) -> datetime:
    return (read_time(_issue(line).get("updated_at")) or _BEGINNING).replace(microsecond=0)


def _issue(line: Line) -> Issue:
    return cast("Issue", line.issue)


def _labels(line: Line) -> list[str]:
    return _issue(line).get("labels") or []


def _records(line: Line, name: str) -> list[Issue]:
    return _issue(line).get(name) or []
