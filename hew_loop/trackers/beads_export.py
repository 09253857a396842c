"""The embedded store as a file that bd imports: what 0.49 and 1.x both read, sorted by id, the same bytes each time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from hew_loop.core.graph import WAITS_FOR
from hew_loop.trackers.beads_file import Snapshot
from hew_loop.trackers.beads_format import Issue, Line, changed_line, encode


@dataclass(frozen=True, slots=True)
class Exported:
    """`left_out` are ids of issues that would make bd 1.x refuse the whole file: children without their parent."""

    raw: bytes
    issues: int
    memories: int
    left_out: tuple[str, ...] = ()


def export(snapshot: Snapshot, *, everything: bool = False) -> Exported:
    """All issues as lines; with `everything` also memories, deleted issues and what bd would refuse."""
    live = {line.id: line for line in snapshot.by_id.values() if line.task is not None}
    orphans = orphaned(live)
    chosen = snapshot.by_id if everything else {key: live[key] for key in live if key not in orphans}
    lines = [line for _, line in sorted(chosen.items())]
    memories = sorted((line for line in snapshot.lines if line.memory), key=lambda line: line.memory)
    kept = memories if everything else []
    left_out = () if everything else tuple(sorted(orphans))
    raw = b"".join(line.raw.strip() + b"\n" for line in (*for_bd(lines), *kept))
    return Exported(raw, len(lines), len(kept), left_out)


def orphaned(ids: Iterable[str]) -> frozenset[str]:
    """Ids `X.N` whose `X` is not there, or is orphaned too: bd 1.x wants the parent's row for each of them."""
    present = set(ids)
    gone: set[str] = set()
    for task_id in sorted(present, key=len):
        parent, dot, number = task_id.rpartition(".")
        if dot and number.isdecimal() and (parent not in present or parent in gone):
            gone.add(task_id)
    return frozenset(gone)


def for_bd(lines: list[Line]) -> list[Line]:
    """The lines with what some version could not read put right; a line that needs nothing stays as it is written."""
    ids = _comment_ids(lines)
    waiting = Counter(edge["depends_on_id"] for line in lines for edge in _blocking(line))
    return [_readable(line, ids[line.id], waiting[line.id]) for line in lines]


def _readable(line: Line, comment_ids: list[int], dependents: int) -> Line:
    issue = cast("Issue", line.issue)
    comments: list[Issue] = issue.get("comments") or []
    fixed: dict[str, Any] = {
        # 0.49 reads whole numbers only, and 1.x wants each only once in all issues.
        "comments": [{**comment, "id": number} for comment, number in zip(comments, comment_ids, strict=True)],
        "dependencies": [edge_for_bd(edge) for edge in issue.get("dependencies") or ()],
        # bd 1.x writes these three; after a change of ours they would be wrong.
        "dependency_count": len(_blocking(line)),
        "dependent_count": dependents,
        "comment_count": len(comments),
    }
    if issue.get("status") not in ("closed", "tombstone"):
        fixed["closed_at"] = None  # bd refuses the whole file for one
    changes = {name: value for name, value in fixed.items() if issue.get(name) and value != issue[name]}
    changes |= {name: fixed[name] for name in _COUNTS if name in issue and issue[name] != fixed[name]}
    return changed_line(line, changes) if changes else line


_COUNTS = ("dependency_count", "dependent_count", "comment_count")


def edge_for_bd(edge: Issue) -> Issue:
    """Metadata is a text that holds JSON, or absent; 0.49 fails on a waits-for edge without it."""
    metadata = edge.get("metadata")
    if isinstance(metadata, str) and metadata:
        return edge
    if metadata:
        return {**edge, "metadata": encode(metadata)}
    rest = {name: value for name, value in edge.items() if name != "metadata"}
    return {**rest, "metadata": "{}"} if edge.get("type") == WAITS_FOR else rest


def _comment_ids(lines: list[Line]) -> Mapping[str, list[int]]:
    """A number for each comment: its own where that is one and no other comment has it, else the next free one."""
    given = {line.id: [_number(comment.get("id")) for comment in _comments(line)] for line in lines}
    last = max((number for numbers in given.values() for number in numbers), default=0)
    taken: set[int] = set()
    for numbers in given.values():
        for i, number in enumerate(numbers):
            if number < 1 or number in taken:
                last += 1
                numbers[i] = last
            taken.add(numbers[i])
    return given


def _number(value: object) -> int:
    """0 for what is no number; one that 0.49 could not hold is none."""
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 16:
        return int(value)
    return value if type(value) is int and value < 10**16 else 0


def _comments(line: Line) -> list[Issue]:
    return cast("Issue", line.issue).get("comments") or []


def _blocking(line: Line) -> list[Issue]:
    return [edge for edge in cast("Issue", line.issue).get("dependencies") or () if edge.get("type") == "blocks"]
