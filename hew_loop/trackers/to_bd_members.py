"""Which members of an issue differ from bd's, and by which way of bd's each of them can be sent there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from hew_loop.trackers.beads_format import Issue, Line, encode
from hew_loop.trackers.beads_import import DERIVED, same_comment, same_value

CONTENT = ("title", "description", "design", "acceptance_criteria", "notes", "priority", "issue_type", "assignee")
_APART = DERIVED | {"id", "updated_at", "labels", "dependencies", "comments"}
_IMPORTED_OLD = frozenset({*CONTENT, "status", "external_ref", "closed_at"})
_IMPORTED = _IMPORTED_OLD | {"estimated_minutes", "started_at", "close_reason", "metadata"}
_FLAGS = {"due_at": "--due", "defer_until": "--defer", "spec_id": "--spec-id"}
_FLAGS_OLD = {**_FLAGS, "estimated_minutes": "--estimate", "metadata": "--metadata", "status": "--status"}
_NEVER_KEPT = frozenset({"closed_by_session"})
_NEVER_KEPT_OLD = _NEVER_KEPT | {"source_system", "started_at"}


@dataclass(frozen=True, slots=True)
class Difference:
    """Names of members, by the way that carries them; `closing` is 0.49's own way with a closed issue."""

    imported: frozenset[str] = frozenset()
    flags: tuple[str, ...] = ()
    closing: bool = False
    lost: tuple[str, ...] = ()

    @property
    def can_be_sent(self) -> bool:
        return bool(self.imported or self.flags or self.closing)


def difference(old: Issue, new: Issue, *, old_era: bool) -> Difference:
    """What bd's issue `old` needs to say what `new` says; labels, edges and comments are not looked at."""
    names = {name for name in (old.keys() | new.keys()) - _APART if not same_value(name, old.get(name), new.get(name))}
    imported = names & (_IMPORTED_OLD if old_era else _IMPORTED)
    by_flag = names & (_FLAGS_OLD if old_era else _FLAGS).keys() - {"status"} | names & {"ephemeral"}
    closing = False
    if old_era:
        if new.get("pinned"):
            imported |= names & {"pinned"}  # an import sets it, and never takes it away
        if new.get("status") != "closed":
            # An import opens an issue and leaves its reason for closing; an update takes both.
            by_flag |= names & {"status", "close_reason"} if old.get("status") == "closed" else set()
        elif names & {"closed_at", "close_reason"}:
            closing = bool(new.get("close_reason")) or "close_reason" not in names
            by_flag |= {"close_reason"} if closing else set()
    return Difference(
        imported=frozenset(imported),
        flags=tuple(_flag(name, new.get(name)) for name in sorted(by_flag - {"close_reason"})),
        closing=closing,
        lost=tuple(f"{name} cannot be changed" for name in sorted(names - imported - by_flag)),
    )


def lost_when_new(issue: Issue, *, old_era: bool) -> list[str]:
    """Members that bd does not keep of an issue which it creates."""
    return [f"{name} is not kept" for name in sorted((_NEVER_KEPT_OLD if old_era else _NEVER_KEPT) & issue.keys())]


def missing_comments(present: Sequence[Issue], wanted: Sequence[Issue]) -> list[Issue]:
    """Without their ids: every version then gives one, and a number of ours may be taken there."""
    left = list(present)
    missing: list[Issue] = []
    for comment in wanted:
        found = next((i for i, other in enumerate(left) if same_comment(comment, other)), None)
        if found is None:
            missing.append({name: value for name, value in comment.items() if name != "id"})
        else:
            del left[found]
    return missing


def twins(lines: Sequence[Line]) -> set[str]:
    """Ids of issues with the same words as an issue of another id."""
    words = {line.id: tuple(str(_issue(line).get(name) or "") for name in CONTENT) for line in lines}
    count = Counter(words.values())
    return {task_id for task_id in words if count[words[task_id]] > 1}


def _flag(name: str, value: object) -> str:
    if name == "ephemeral":
        return "--ephemeral" if value else "--persistent"
    text = value if isinstance(value, str) else "" if value is None else encode(value)
    empty = {"metadata": "{}", "estimated_minutes": "0"}.get(name, "")
    return f"{_FLAGS_OLD[name]}={text or empty}"


def _issue(line: Line) -> Issue:
    return cast("Issue", line.issue)
