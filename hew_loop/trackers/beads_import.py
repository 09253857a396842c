"""Beads' own JSONL taken into the embedded store: merged by id, the newer line wins, and nothing is lost.

Members go with the winner. Where it does not name one, ours goes only if bd has a command that clears it; any other
was lost on the way (each version of bd drops some) and stays. Labels and edges go with the winner as whole sets;
comments are never taken out, so both sides' are kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, cast

from hew_loop.errors import UsageError
from hew_loop.trackers.beads_file import Edit, Snapshot
from hew_loop.trackers.beads_format import (
    TOMBSTONE,
    BadLine,
    Issue,
    Line,
    changed_line,
    moved_on,
    parse_line,
    read_time,
    spelt_members,
)

CLEARABLE: Final = frozenset({
    "description", "design", "acceptance_criteria", "notes", "spec_id", "status", "priority", "issue_type", "assignee",
    "estimated_minutes", "due_at", "defer_until", "closed_at", "close_reason", "external_ref", "metadata", "pinned",
    "ephemeral", "no_history", "labels", "dependencies",
})  # fmt: skip
"""Absent in what bd writes, these are empty (status, priority and type: open, 0 and task)."""
DERIVED: Final = frozenset({"dependency_count", "dependent_count", "comment_count", "_type"})
"""bd 1.x adds them to what it exports, and nobody reads them back."""
_BOM = b"\xef\xbb\xbf"
_BEGINNING = datetime(1, 1, 1, tzinfo=UTC)
_SAME_S = timedelta(seconds=1)
"""bd 1.x keeps whole seconds, rounded: the same moment may come back as the second before or after."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of the file's lines; `deleted` are tombstones that took effect or are kept for later."""

    created: int = 0
    updated: int = 0
    unchanged: int = 0
    skipped: int = 0
    deleted: int = 0
    memories: int = 0


@dataclass(frozen=True, slots=True)
class Merged:
    counts: Counts
    skipped: tuple[str, ...] = ()
    """Ids where the store's issue is newer and differs: the file's was not taken."""


def read_import(raw: bytes, name: str) -> tuple[Line, ...]:
    """The issues and memories of a file; blank lines and a `_schema` header go. Raises UsageError for a bad line."""
    lines: list[Line] = []
    number_of: dict[str, int] = {}
    for number, piece in enumerate(raw.removeprefix(_BOM).split(b"\n"), start=1):
        try:
            line = parse_line(piece.removesuffix(b"\r"))
            _check_rest(line)
        except BadLine as error:
            raise _bad(name, number, str(error)) from error
        if line.id in number_of:
            raise _bad(name, number, f"its id {line.id!r} stands in line {number_of[line.id]} already")
        if line.id:
            number_of[line.id] = number
        if line.id or line.memory:
            lines.append(line)
    return tuple(lines)


def merge(snapshot: Snapshot, lines: Sequence[Line], now: datetime) -> Edit[Merged]:
    """What `lines` change in the store. Merging the same lines again changes nothing."""
    memories = {line.memory: line for line in snapshot.lines if line.memory}
    changed: list[Line] = []
    skipped: list[str] = []
    counts = dict.fromkeys(("created", "updated", "unchanged", "skipped", "deleted", "memories"), 0)
    for line in lines:
        ours = snapshot.by_id.get(line.id) if line.id else memories.get(line.memory)
        merged, what = _memory(ours, line) if line.memory else _issue(ours, line, now)
        counts[what] += 1
        if merged is not ours and merged is not None:
            changed.append(merged)
        elif what == "skipped":
            skipped.append(line.id)
    return Edit(Merged(Counts(**counts), tuple(skipped)), tuple(changed))


def same_comment(one: Issue, other: Issue) -> bool:
    """Ids do not count: 0.49 numbers comments anew at import."""
    if one.get("author") != other.get("author") or _stripped(one) != _stripped(other):
        return False
    return same_moment(one.get("created_at"), other.get("created_at"))


def same_moment(one: object, other: object) -> bool:
    return abs((read_time(one) or _BEGINNING) - (read_time(other) or _BEGINNING)) <= _SAME_S


def _issue(ours: Line | None, theirs: Line, now: datetime) -> tuple[Line | None, str]:
    """The line to keep (`ours` itself when nothing changes), and what to count it as."""
    is_dead = theirs.task is None
    if ours is None or ours.issue is None:
        return _plain(theirs), "deleted" if is_dead else "created"
    if not _wins(theirs, ours):
        kept = ours if is_dead or ours.task is None else _with_comments(ours, theirs)
        if kept is not ours:
            return kept, "updated"
        return ours, "unchanged" if _merged(ours, theirs, now) is ours else "skipped"
    if is_dead or ours.task is None:
        # Dead and live do not mix: of a deleted issue and its successor only one can be meant.
        if theirs.raw == ours.raw:
            return ours, "unchanged"
        return _plain(theirs), "deleted" if is_dead else "updated"
    merged = _merged(ours, theirs, now)
    return merged, "unchanged" if merged is ours else "updated"


def _memory(ours: Line | None, theirs: Line) -> tuple[Line | None, str]:
    """Memories carry no time: what is imported now is what is meant."""
    if ours is not None and ours.issue is not None and theirs.issue is not None:
        if ours.issue.get("value") == theirs.issue.get("value"):
            return ours, "unchanged"
    return theirs, "memories"


def _wins(theirs: Line, ours: Line) -> bool:
    """Newer, in whole seconds as bd compares them.

    Equal wins too: each change of ours moves `updated_at` on by a second, so ours was not changed since; but bd
    changes labels and edges without touching the time. So does a line without a time, as in bd 1.x.
    """
    their_time = read_time(_members(theirs).get("updated_at"))
    our_time = read_time(_members(ours).get("updated_at")) or _BEGINNING
    return their_time is None or their_time.replace(microsecond=0) >= our_time.replace(microsecond=0)


def _merged(ours: Line, theirs: Line, now: datetime) -> Line:
    """Ours with what theirs says; ours itself when that is the same."""
    old, new = _members(ours), spelt_members(theirs)
    changes: dict[str, Any] = {}
    for name, value in new.items():
        if name in DERIVED or name in ("dependencies", "labels", "comments") or _is_same(name, old.get(name), value):
            continue
        changes[name] = value
    gone = {name for name in old if name in CLEARABLE and new.get(name) is None}
    if new.get("status") != "closed":
        gone |= {"closed_by_session"} & old.keys()
    changes |= dict.fromkeys(gone)
    if set(new.get("labels") or ()) != set(old.get("labels") or ()):
        changes["labels"] = sorted(set(new.get("labels") or ())) or None
    edges = merged_edges(_records(old, "dependencies"), _records(new, "dependencies"))
    if edges != _records(old, "dependencies"):
        changes["dependencies"] = edges or None
    if changes and not new.get("updated_at"):
        changes["updated_at"] = moved_on(old, now)
    return _with_comments(changed_line(ours, changes) if changes else ours, theirs)


def merged_edges(ours: Sequence[Issue], theirs: Sequence[Issue]) -> list[Issue]:
    """Their edges; one that both have keeps what theirs has lost: an import of bd 1.x empties an edge's members."""
    left = {(edge.get("depends_on_id"), edge.get("type") or "blocks"): edge for edge in reversed(ours)}
    merged: list[Issue] = []
    for edge in theirs:
        old = left.pop((edge.get("depends_on_id"), edge.get("type") or "blocks"), None)
        merged.append(edge if old is None else _edge(old, edge))
    if len(merged) == len(ours) and all(edge in merged for edge in ours):
        return list(ours)  # in our order: bd exports edges in none
    return merged


def _edge(old: Issue, new: Issue) -> Issue:
    if not same_moment(old.get("created_at"), new.get("created_at")):
        old = {name: value for name, value in old.items() if name == "metadata"}  # taken out and added again
    given = {name: value for name, value in new.items() if not (name == "metadata" and value in ("", "{}", None, {}))}
    kept = {name: old[name] for name in ("created_at", "created_by") if old.get(name)}
    return {**old, **given, **kept} if old else new


def _with_comments(ours: Line, theirs: Line) -> Line:
    have = _records(_members(ours), "comments")
    left = list(have)
    new: list[Issue] = []
    for comment in _records(_members(theirs), "comments"):
        found = next((i for i, other in enumerate(left) if same_comment(comment, other)), None)
        if found is None:
            new.append(comment)
        else:
            del left[found]
    if not new:
        return ours
    both = sorted([*have, *new], key=lambda comment: read_time(comment.get("created_at")) or _BEGINNING)
    return changed_line(ours, {"comments": both})


def _is_same(name: str, old: Any, new: Any) -> bool:
    if name == "issue_type" or name == "status":
        return (old or {"issue_type": "task", "status": "open"}[name]) == new
    if name.endswith("_at") or name == "defer_until":
        try:
            return old == new or (bool(old) and bool(new) and read_time(old) == read_time(new))
        except BadLine:
            return False
    return old == new or (old in (None, "", False) and new in (None, "", False))


def _plain(theirs: Line) -> Line:
    """As it came; only `wisp`, which 0.35 to 0.37 wrote for `ephemeral`, is understood as bd 1.x does."""
    members = _members(theirs)
    if members.get("wisp") is True and not members.get("ephemeral"):
        return changed_line(theirs, {"ephemeral": True})
    return theirs


def _check_rest(line: Line) -> None:
    """What a line that the store itself reads need not hold, but a merge does. Raises BadLine."""
    if line.issue is None or not line.id:
        return
    if line.issue.get("status") == TOMBSTONE:
        read_time(line.issue.get("updated_at"))
    for name in ("comments", "dependencies"):
        value: object = line.issue.get(name)
        if value is not None and not isinstance(value, list):
            raise BadLine(f"its {name} are not a list")
        for record in cast("list[object]", value or ()):
            if not isinstance(record, dict):
                raise BadLine(f"its {name} are not a list of objects")
            read_time(cast("Issue", record).get("created_at"))


def _bad(name: str, number: int, reason: str) -> UsageError:
    return UsageError(f"{name}, line {number}: {reason}.", hint="Nothing was imported. Mend the line and try again.")


def _members(line: Line) -> Issue:
    return cast("Issue", line.issue)


def _records(issue: Mapping[str, Any], name: str) -> list[Issue]:
    return list(issue.get(name) or ())


def _stripped(comment: Issue) -> str:
    return str(comment.get("text") or "").strip()
