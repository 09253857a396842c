"""The export that bd imports: what is put right, what is left out, and that it is the same bytes each time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hew_loop.trackers.beads_export import export
from hew_loop.trackers.beads_file import BeadsFile
from tests.trackers.beads_files import edge, issue, write


def exported(directory: Path, *, everything: bool = False) -> list[dict[str, Any]]:
    raw = export(BeadsFile(directory).read(), everything=everything).raw
    assert raw.endswith(b"\n") or not raw
    return [json.loads(line) for line in raw.splitlines()]


def comment(number: object, text: str = "t") -> dict[str, Any]:
    return {"id": number, "issue_id": "x", "author": "ann", "text": text, "created_at": "2026-01-01T00:05:00Z"}


def test_lines_that_need_nothing_leave_as_they_are_written_sorted_by_id(tmp_path: Path) -> None:
    (tmp_path / "issues.jsonl").write_bytes(
        b'{"title": "b", "id": "tt-b", "x": 1.10}\r\n\n{"_schema":"s"}\n{"id":"tt-a","title":"\xc3\xa4 \\u003c"}\n'
    )
    found = export(BeadsFile(tmp_path).read())
    assert found.raw == b'{"id":"tt-a","title":"\xc3\xa4 \\u003c"}\n{"title": "b", "id": "tt-b", "x": 1.10}\n'
    assert (found.issues, found.memories, found.left_out) == (2, 0, ())


def test_deleted_issues_memories_and_orphans_leave_only_with_everything(tmp_path: Path) -> None:
    memory = {"_type": "memory", "key": "k", "value": "v"}
    stay = [issue("tt-e"), issue("tt-e.1"), issue("tt-e.x")]
    gone = [issue("tt-dead", status="tombstone"), issue("tt-dead.1"), issue("tt-dead.1.2")]
    write(tmp_path, [memory, *gone, *stay])
    assert exported(tmp_path) == stay
    assert exported(tmp_path, everything=True) == [*gone, *stay, memory]
    found = export(BeadsFile(tmp_path).read())
    assert found.left_out == ("tt-dead.1", "tt-dead.1.2")


def test_comment_ids_are_numbers_each_once_in_the_whole_file(tmp_path: Path) -> None:
    first = issue("tt-a", comments=[comment(1), comment("uuid"), comment("7")])
    second = issue("tt-b", comments=[comment(1), {**comment(0), "id": None}])
    write(tmp_path, [first, second])
    assert [[c["id"] for c in each["comments"]] for each in exported(tmp_path)] == [[1, 8, 7], [9, 10]]


def test_edge_metadata_is_a_text_or_absent_and_closing_times_belong_to_closed_issues(tmp_path: Path) -> None:
    edges = [
        edge("tt-a", "tt-b", metadata=""),
        edge("tt-a", "tt-c", "waits-for"),
        edge("tt-a", "tt-d", metadata={"k": 1}),
    ]
    write(tmp_path, [issue("tt-a", dependencies=edges, closed_at="2026-01-01T00:05:00Z")])
    (found,) = exported(tmp_path)
    assert [each.get("metadata") for each in found["dependencies"]] == [None, "{}", '{"k":1}']
    assert "closed_at" not in found


def test_the_counts_of_bd_1_x_are_counted_anew_where_they_stand(tmp_path: Path) -> None:
    zero = {"dependency_count": 0, "dependent_count": 0, "comment_count": 3}
    write(tmp_path, [issue("tt-a", **zero), issue("tt-b", dependencies=[edge("tt-b", "tt-a")])])
    first, second = exported(tmp_path)
    assert (first["dependency_count"], first["dependent_count"], first["comment_count"]) == (0, 1, 0)
    assert "dependency_count" not in second
