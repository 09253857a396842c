"""One line of `.beads/issues.jsonl`: understood as a task, changed member by member, written as beads writes it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NoReturn, cast

from hew_loop.core.graph import WAITS_FOR
from hew_loop.core.mentions import mentioned
from hew_loop.core.task import Edge, Task

Issue = dict[str, Any]
"""A line's own JSON object. Members that we do not know stay in it, in their place."""

TOMBSTONE: Final = "tombstone"
_BEGINNING = datetime(1, 1, 1, tzinfo=UTC)  # what beads itself reads where a time is missing
_CONFLICT_MARKERS = (b"<<<<<<<", b"=======", b">>>>>>>", b"|||||||")
_MEMBERS = (
    "_type", "id", "title", "description", "design", "acceptance_criteria", "notes", "spec_id", "status", "priority",
    "issue_type", "assignee", "owner", "estimated_minutes", "created_at", "created_by", "updated_at", "started_at",
    "closed_at", "close_reason", "closed_by_session", "due_at", "defer_until", "external_ref", "source_system",
    "metadata", "compaction_level", "compacted_at", "compacted_at_commit", "original_size", "labels", "dependencies",
    "comments", "sender", "ephemeral", "no_history", "wisp_type", "pinned", "is_template", "bonded_from",
    "await_type", "await_id", "timeout", "waiters", "source_formula", "source_location", "mol_type", "work_type",
    "event_kind", "actor", "target", "payload", "dependency_count", "dependent_count", "comment_count",
)  # fmt: skip
_PLANS = ("title", "description", "design", "acceptance_criteria")
"""Texts that say what is to be done; notes say what was done."""
_RANK = {name: rank for rank, name in enumerate(_MEMBERS)}
_ESCAPED = re.compile("[<>&\u2028\u2029\ud800-\udfff]")


class BadLine(ValueError):
    """The line is not what beads reads; the text says why, without the line's number."""


@dataclass(frozen=True, slots=True)
class Line:
    """`raw` is the line as it stands in the file, without its newline. `id` is empty where it is no issue."""

    raw: bytes
    id: str = ""
    issue: Issue | None = None
    task: Task | None = None
    """None for a tombstone too: a deleted issue is no task, but its line stays."""

    @property
    def memory(self) -> str:
        """The key of a memory; empty for every other line."""
        members = {} if self.id or self.issue is None else self.issue
        return str(members.get("key", "")) if members.get("_type") == "memory" else ""


def parse_line(raw: bytes) -> Line:
    """Raises `BadLine`. Blank lines, a `_schema` header and memories are lines without an id."""
    text = raw.strip()
    if not text:
        return Line(raw)
    issue = _load(text, raw)
    if "_schema" in issue or issue.get("_type", "issue") != "issue":
        return Line(raw, issue=issue)
    return Line(raw, id=_text(issue, "id", required=True), issue=issue, task=task_of(issue))


def new_line(members: Issue) -> Line:
    """A line in beads' own order of members, without those that are empty."""
    ordered = sorted(members.items(), key=lambda item: _RANK.get(item[0], len(_RANK)))
    return parse_line(encode({k: v for k, v in ordered if v not in (None, "", [])}).encode())


def changed_line(line: Line, changes: Mapping[str, Any]) -> Line:
    """The line with members set, or taken out where the new value is None; all else stays as it is written."""
    members = spelt_members(line)
    for name, value in changes.items():
        if value is None:
            members.pop(name, None)
        elif name in members:
            members[name] = value
        else:
            members = _inserted(members, name, value)
    ending = b"\r" if line.raw.endswith(b"\r") else b""
    try:
        return parse_line(_encode_spelt(members).encode() + ending)
    except RecursionError:
        raise BadLine("it is nested too deeply") from None


def spelt_members(line: Line) -> Issue:
    """The line's object, to be written again: numbers as they are spelt, so that 1.10 does not come back as 1.1."""
    return cast("Issue", json.loads(line.raw, parse_float=_Spelt))


def encode(value: Any) -> str:
    """JSON as beads writes it: no spaces, text as it is, but `<`, `>`, `&` and what JavaScript trips over escaped."""
    # None of these characters stands outside a text in JSON, so the whole document can be escaped at once.
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return _ESCAPED.sub(lambda m: f"\\u{ord(m[0]):04x}", text)


def task_of(issue: Issue, *, is_file: bool = True) -> Task | None:
    """The task that an issue object tells of; None for a tombstone. Raises `BadLine`.

    Of a file, edges are taken as bd imports them; bd's own answers may hold several kinds of edge for one pair, and
    hold edges and labels in no order.
    """
    status = _text(issue, "status") or "open"
    if status == TOMBSTONE:
        return None
    read_time(issue.get("updated_at"))
    priority = issue.get("priority", 0)  # an absent priority means 0 (beads.md §3.1)
    if type(priority) is not int:
        raise BadLine(f"its priority {priority!r} is not a number from 0 to 4")
    labels = _labels(issue.get("labels"))
    edges = _edges(issue) if issue.get("dependencies") else ()
    return Task(
        id=issue["id"],
        title=_text(issue, "title"),
        created_at=read_time(issue.get("created_at")) or _BEGINNING,
        status=status,
        priority=priority,
        type=_text(issue, "issue_type") or "task",
        assignee=_text(issue, "assignee"),
        labels=labels if is_file else tuple(sorted(labels)),
        edges=_first_of_pair(edges) if is_file else tuple(sorted(set(edges), key=lambda e: (e.target, e.kind))),
        defer_until=read_time(issue.get("defer_until")),
        pinned=issue.get("pinned") is True,
        ephemeral=issue.get("ephemeral") is True,
        mentions=mentioned(*(text for name in _PLANS if isinstance(text := issue.get(name), str))),
    )


def time_text(moment: datetime) -> str:
    """Whole seconds, UTC: what every version of beads reads back unchanged."""
    return moment.astimezone(UTC).replace(microsecond=0, tzinfo=None).isoformat() + "Z"


def read_time(value: object) -> datetime | None:
    """None for an absent time; raises `BadLine`."""
    if value is None or value == "":
        return None
    try:
        if not isinstance(value, str):
            raise TypeError
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is UTC:
            return moment
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        raise BadLine(f"{value!r} is not a time") from None


def moved_on(issue: Issue, now: datetime) -> str:
    """The next `updated_at`: now, but at least a second later than the last, since imports compare whole seconds."""
    last = read_time(issue.get("updated_at"))
    return time_text(now if last is None else max(now, last.replace(microsecond=0) + timedelta(seconds=1)))


def _encode_spelt(value: Any) -> str:
    """`encode`, with each number as it was written."""
    match value:
        case dict():
            pairs = cast("dict[str, Any]", value).items()
            return "{" + ",".join(f"{encode(name)}:{_encode_spelt(member)}" for name, member in pairs) + "}"
        case list():
            return "[" + ",".join(_encode_spelt(item) for item in cast("list[Any]", value)) + "]"
        case _Spelt():
            return value.spelling
        case _:
            return encode(value)


class _Spelt(float):
    """A number that remembers how it was written."""

    spelling: str

    def __new__(cls, spelling: str) -> _Spelt:
        number = super().__new__(cls, spelling)
        number.spelling = spelling
        return number


def _load(text: bytes, raw: bytes) -> Issue:
    try:
        value: Issue = _DECODER.decode(text.decode())
    except UnicodeDecodeError:
        raise BadLine("it is not UTF-8") from None
    except (ValueError, RecursionError) as error:
        if raw.startswith(_CONFLICT_MARKERS):
            raise BadLine("it is a git conflict marker; resolve the merge first") from None
        raise BadLine(f"it is not JSON ({error})") from None
    if type(value) is not dict:
        raise BadLine("it is not a JSON object")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


_DECODER = json.JSONDecoder(parse_constant=_no_constant)


def _text(issue: Issue, name: str, *, required: bool = False) -> str:
    value = issue.get(name)
    if value is None and not required:
        return ""
    if not isinstance(value, str) or (required and not value):
        raise BadLine(f"its {name} is {'missing' if value in (None, '') else 'not a text'}")
    return value


def _labels(value: object) -> tuple[str, ...]:
    if not value:
        return ()
    if not isinstance(value, list) or not all(isinstance(label, str) for label in cast("list[object]", value)):
        raise BadLine("its labels are not a list of texts")
    return tuple(cast("list[str]", value))


def _edges(issue: Issue) -> tuple[Edge, ...]:
    """All but an edge to itself, which bd drops."""
    edges: list[Edge] = []
    try:
        for record in cast("list[Issue]", issue["dependencies"]):
            target: object = record["depends_on_id"]
            kind: object = record.get("type") or "blocks"
            if not isinstance(target, str) or not isinstance(kind, str):
                raise TypeError
            if target != issue["id"]:
                edges.append(Edge(target, kind, _gate(record.get("metadata")) if kind == WAITS_FOR else ""))
    except (TypeError, KeyError, AttributeError):
        raise BadLine("its dependencies are not a list of edges") from None
    return tuple(edges)


def _first_of_pair(edges: tuple[Edge, ...]) -> tuple[Edge, ...]:
    """As bd imports them: one edge for each pair, the first."""
    first: dict[str, Edge] = {}
    for edge in edges:
        first.setdefault(edge.target, edge)
    return tuple(first.values())


def _gate(metadata: object) -> str:
    """The gate of a waits-for edge; beads keeps an edge's metadata as a text that holds JSON."""
    try:
        value: object = json.loads(metadata) if isinstance(metadata, str) and metadata else metadata
    except ValueError:
        return ""
    gate = cast("Issue", value).get("gate") if isinstance(value, dict) else ""
    return gate if isinstance(gate, str) else ""


def _inserted(members: Issue, name: str, value: Any) -> Issue:
    """`members` with a new one where beads would write it: behind the last that beads writes earlier."""
    rank = _RANK.get(name, len(_RANK))
    earlier = [i for i, other in enumerate(members) if _RANK.get(other, len(_RANK)) < rank]
    items = list(members.items())
    items.insert(earlier[-1] + 1 if earlier else 0, (name, value))
    return dict(items)
