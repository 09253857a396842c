"""Beads' own JSONL taken into the embedded store: merged by id, the newer line wins, and nothing is lost.

Members go with the winner. Where it does not name one, ours goes only if bd has a command that clears it; any other
was lost on the way (each version of bd drops some) and stays. Labels and edges go with the winner as whole sets;
comments are never taken out, so both sides' are kept.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, cast

from hew_loop.errors import HewError
from hew_loop.trackers.beads_file import Edit, Snapshot
from hew_loop.trackers.beads_format import (
    BadLine,
    Issue,
    Line,
    changed_line,
    encode,
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
TIMES: Final = frozenset({"created_at", "updated_at", "started_at", "closed_at", "due_at", "defer_until"})
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
    """The issues and memories of a file; blank lines and a `_schema` header go. Raises HewError for a bad line."""
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
            lines.append(_plain(line))
    return tuple(lines)


def merge(snapshot: Snapshot, lines: Sequence[Line], now: datetime) -> Edit[Merged]:
    """What `lines` change in the store. Merging the same lines again changes nothing."""
    memories = {line.memory: line for line in snapshot.lines if line.memory}
    changed: list[Line] = []
    skipped: list[str] = []
    counts: Counter[str] = Counter()
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


def same_value(name: str, one: Any, other: Any) -> bool:
    """Whether a member says the same on both sides: absent is empty, and times may have lost their fraction."""
    if name in TIMES and one and other:
        one, other = read_time(one), read_time(other)
        if one.microsecond and not other.microsecond:
            return abs(one - other) < _SAME_S
        return one == other
    default = {"status": "open", "issue_type": "task"}.get(name)
    return (one or default) == (other or default) or not (one or default or other)


def edge_data(edge: Issue) -> Mapping[str, Any]:
    """An edge's data, however it is written; waiting for all children is what no data means."""
    value: object = edge.get("metadata")
    try:
        value = json.loads(value) if isinstance(value, str) and value else value
    except ValueError:
        return {"": value}
    members = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
    return {name: member for name, member in members.items() if (name, member) != ("gate", "all-children")}


def _issue(ours: Line | None, theirs: Line, now: datetime) -> tuple[Line | None, str]:
    """The line to keep (`ours` itself when nothing changes), and what to count it as."""
    is_dead = theirs.task is None
    if ours is None:
        return theirs, "deleted" if is_dead else "created"
    wins = _wins(theirs, ours)
    if is_dead or ours.task is None:
        # Of a deleted issue and a live one only one can be meant: nothing is mixed.
        if theirs.raw == ours.raw:
            return ours, "unchanged"
        return (theirs, "deleted" if is_dead else "updated") if wins else (ours, "skipped")
    changes = _differences(_members(ours), spelt_members(theirs))
    merged = ours
    if wins and changes:
        if not _members(theirs).get("updated_at"):
            changes["updated_at"] = moved_on(_members(ours), now)
        merged = changed_line(ours, changes)
    merged = _with_comments(merged, theirs)
    if merged is not ours:
        return merged, "updated"
    if _edges_mean(_members(ours)) == _edges_mean(_members(theirs)):
        changes.pop("dependencies", None)
    return ours, "unchanged" if wins or not changes.keys() - {"updated_at"} else "skipped"


def _memory(ours: Line | None, theirs: Line) -> tuple[Line | None, str]:
    """Memories carry no time: what is imported now is what is meant."""
    is_known = ours is not None and _members(ours).get("value") == _members(theirs).get("value")
    return (ours, "unchanged") if is_known else (theirs, "memories")


def _wins(theirs: Line, ours: Line) -> bool:
    """Newer, in whole seconds as bd compares them.

    Equal wins too: each change of ours moves `updated_at` on by a second, so ours was not changed since; but bd
    changes labels and edges without touching the time. So does a line without a time, as in bd 1.x.
    """
    their_time = read_time(_members(theirs).get("updated_at"))
    our_time = read_time(_members(ours).get("updated_at")) or _BEGINNING
    return their_time is None or their_time.replace(microsecond=0) >= our_time.replace(microsecond=0)


def _differences(old: Issue, new: Issue) -> dict[str, Any]:
    """What to change in `old` so that it says what `new` does; None takes a member out."""
    plain = new.keys() - DERIVED - {"dependencies", "labels", "comments"}
    changes = {name: new[name] for name in new if name in plain and not same_value(name, old.get(name), new[name])}
    gone = CLEARABLE if new.get("status") == "closed" else CLEARABLE | {"closed_by_session"}
    for name in old:
        if name in gone and new.get(name) is None and not same_value(name, old[name], None):
            changes[name] = None
    if (labels := set(new.get("labels") or ())) != set(old.get("labels") or ()):
        changes["labels"] = sorted(labels) or None
    edges = _records(old, "dependencies")
    if (merged := _merged_edges(edges, _records(new, "dependencies"))) != edges:
        changes["dependencies"] = merged or None
    return changes


def _merged_edges(ours: Sequence[Issue], theirs: Sequence[Issue]) -> list[Issue]:
    """Their edges; one that both have keeps what theirs has lost: an import of bd 1.x empties an edge's members."""
    left = {(edge.get("depends_on_id"), edge.get("type") or "blocks"): edge for edge in reversed(ours)}
    merged: list[Issue] = []
    for edge in theirs:
        old = left.pop((edge.get("depends_on_id"), edge.get("type") or "blocks"), None)
        merged.append(edge if old is None else _edge(old, edge))
    if len(merged) == len(ours) and all(edge in merged for edge in ours):
        return list(ours)  # in our order: bd exports edges in none
    return merged


def _edges_mean(issue: Issue) -> list[tuple[str, ...]]:
    edges = _records(issue, "dependencies")
    return sorted((str(e["depends_on_id"]), str(e.get("type") or "blocks"), encode(edge_data(e))) for e in edges)


def _edge(old: Issue, new: Issue) -> Issue:
    if not same_moment(old.get("created_at"), new.get("created_at")):
        return new  # taken out and added again
    given = {name: value for name, value in new.items() if not (name == "metadata" and value in ("", "{}", None))}
    kept = {name: old[name] for name in ("created_at", "created_by") if old.get(name)}
    return {**old, **given, **kept}


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


def _plain(line: Line) -> Line:
    """As it came; only `wisp`, which 0.35 to 0.37 wrote for `ephemeral`, is understood as bd 1.x does."""
    if line.task is not None and _members(line).get("wisp") is True and not line.task.ephemeral:
        return changed_line(line, {"ephemeral": True})
    return line


def _check_rest(line: Line) -> None:
    """What a line that the store itself reads need not hold, but a merge does. Raises BadLine."""
    if line.issue is None or not line.id:
        return
    for name in TIMES:
        read_time(line.issue.get(name))
    for name in ("comments", "dependencies"):
        value: object = line.issue.get(name)
        if value is not None and not isinstance(value, list):
            raise BadLine(f"its {name} are not a list")
        for record in cast("list[object]", value or ()):
            if not isinstance(record, dict):
                raise BadLine(f"its {name} are not a list of objects")
            read_time(cast("Issue", record).get("created_at"))


def _bad(name: str, number: int, reason: str) -> HewError:
    return HewError(f"{name}, line {number}: {reason}.", hint="Nothing was imported. Mend the line and try again.")


def _members(line: Line) -> Issue:
    return cast("Issue", line.issue)


def _records(issue: Mapping[str, Any], name: str) -> list[Issue]:
    return list(issue.get(name) or ())


def _stripped(comment: Issue) -> str:
    return str(comment.get("text") or "").strip()
