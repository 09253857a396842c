"""Merging beads' JSONL into the embedded store: who wins, what survives, and that a second time changes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hew_loop.errors import HewError
from hew_loop.trackers.beads_file import BeadsFile, Snapshot
from hew_loop.trackers.beads_format import parse_line
from hew_loop.trackers.beads_import import Counts, Merged, merge, read_import
from tests.trackers.beads_files import NOON, edge, issue, lines, write

OLD, SAME, NEW = "2025-12-01T00:00:00Z", "2026-01-01T00:01:00Z", "2026-02-01T00:00:00Z"


def jsonl(*records: dict[str, Any]) -> bytes:
    return "".join(json.dumps(each) + "\n" for each in records).encode()


def take(directory: Path, *records: dict[str, Any]) -> Merged:
    """Import the records; the same once more must change nothing."""
    incoming = read_import(jsonl(*records), "in.jsonl")
    store = BeadsFile(directory)
    merged = store.update(lambda snapshot: merge(snapshot, incoming, NOON))
    before = store.path.read_bytes() if store.path.exists() else b""
    again = store.update(lambda snapshot: merge(snapshot, incoming, NOON))
    assert (store.path.read_bytes() if store.path.exists() else b"") == before
    assert (again.counts.created, again.counts.updated, again.counts.deleted, again.counts.memories) == (0, 0, 0, 0)
    return merged


def comment(text: str, number: int | str = 1, at: str = "2026-01-01T00:05:00Z") -> dict[str, Any]:
    return {"id": number, "issue_id": "tt-a", "author": "ann", "text": text, "created_at": at}


def test_a_file_fills_an_empty_store_line_by_line_as_it_is(tmp_path: Path) -> None:
    header = {"_schema": "beads-jsonl/1"}
    memory = {"_type": "memory", "key": "style", "value": "tabs"}
    records = [
        issue("zz-9", labels=["x"], metadata={"n": 1}, x_unknown=[1]),
        {"_type": "issue", **issue("tt-a", comments=[comment("hi", "01a1-uuid")]), "comment_count": 1},
        issue("tt-dead", status="tombstone", deleted_at=NEW),
    ]
    merged = take(tmp_path / "b", header, *records, memory)
    assert merged == Merged(Counts(created=2, deleted=1, memories=1))
    assert lines(tmp_path / "b") == [records[1], records[2], records[0], memory]


@pytest.mark.parametrize(
    ("updated_at", "title", "counts"),
    [
        (OLD, "ours", Counts(skipped=1)),
        (SAME, "theirs", Counts(updated=1)),
        ("2026-01-01T00:01:00.9Z", "theirs", Counts(updated=1)),
        ("2026-01-01T03:01:00+02:00", "theirs", Counts(updated=1)),
        (NEW, "theirs", Counts(updated=1)),
    ],
)
def test_the_newer_wins_in_whole_seconds_and_the_file_a_tie(
    updated_at: str, title: str, counts: Counts, tmp_path: Path
) -> None:
    write(tmp_path, [issue("tt-a", title="ours")])
    merged = take(tmp_path, issue("tt-a", title="theirs", updated_at=updated_at))
    assert (lines(tmp_path)[0]["title"], merged.counts) == (title, counts)
    assert merged.skipped == (("tt-a",) if counts.skipped else ())


def test_a_line_without_a_time_wins_and_moves_ours_on(tmp_path: Path) -> None:
    write(tmp_path, [issue("tt-a", title="ours")])
    theirs = issue("tt-a", title="theirs")
    del theirs["updated_at"]
    take(tmp_path, theirs)
    assert lines(tmp_path) == [issue("tt-a", title="theirs", updated_at="2026-06-01T12:00:00Z")]


def test_what_bd_can_clear_is_cleared_and_what_it_only_loses_stays(tmp_path: Path) -> None:
    ours = issue(
        "tt-a",
        description="d", notes="n", assignee="bob", due_at=NEW, defer_until=NEW, spec_id="s", external_ref="gh-1",
        estimated_minutes=5, metadata={"k": 1}, pinned=True, labels=["x"],
        owner="o@e", created_by="ann", source_system="jira", started_at=OLD, closed_by_session="s1", x_own={"k": 1.10},
    )  # fmt: skip
    write(tmp_path, [ours])
    take(tmp_path, issue("tt-a", updated_at=NEW, status="closed", closed_at=NEW))
    kept = {name: ours[name] for name in ("owner", "created_by", "source_system", "started_at", "closed_by_session")}
    assert lines(tmp_path) == [issue("tt-a", **kept, x_own={"k": 1.10}, updated_at=NEW, status="closed", closed_at=NEW)]
    take(tmp_path, issue("tt-a", updated_at="2026-03-01T00:00:00Z"))
    assert "closed_at" not in lines(tmp_path)[0]
    assert "closed_by_session" not in lines(tmp_path)[0]


def test_numbers_keep_their_spelling_on_both_sides(tmp_path: Path) -> None:
    (tmp_path / "issues.jsonl").write_text(
        '{"id":"tt-a","title":"a","priority":2,"x":1.10,"updated_at":"2026-01-01T00:01:00Z"}\n'
    )
    raw = b'{"id":"tt-a","title":"a","priority":2,"y":2.50,"updated_at":"2026-01-01T00:02:00Z"}'
    BeadsFile(tmp_path).update(lambda snapshot: merge(snapshot, read_import(raw, "in"), NOON))
    text = (tmp_path / "issues.jsonl").read_text()
    assert '"x":1.10' in text
    assert '"y":2.50' in text


def test_a_time_that_only_lost_its_fraction_stays(tmp_path: Path) -> None:
    fine = {"created_at": "2026-01-01T00:00:00.75Z", "updated_at": "2026-01-01T00:01:00.25Z"}
    write(tmp_path, [issue("tt-a", **fine)])
    merged = take(tmp_path, issue("tt-a", created_at="2026-01-01T00:00:01Z", updated_at="2026-01-01T00:01:00Z"))
    assert (lines(tmp_path), merged.counts) == ([issue("tt-a", **fine)], Counts(unchanged=1))


def test_labels_and_edges_go_with_the_winner_as_sets(tmp_path: Path) -> None:
    ours = issue("tt-a", labels=["x", "y"], dependencies=[edge("tt-a", "tt-b"), edge("tt-a", "tt-c", "related")])
    write(tmp_path, [ours])
    same = take(tmp_path, {**ours, "labels": ["y", "x"], "dependencies": ours["dependencies"][::-1]})
    assert (lines(tmp_path), same.counts) == ([ours], Counts(unchanged=1))
    theirs = issue("tt-a", labels=["z", "y"], dependencies=[edge("tt-a", "tt-d"), edge("tt-a", "tt-c", "related")])
    take(tmp_path, {**theirs, "updated_at": OLD})
    assert lines(tmp_path) == [ours]
    take(tmp_path, {**theirs, "updated_at": SAME})
    assert lines(tmp_path) == [{**theirs, "labels": ["y", "z"]}]


def test_an_edge_keeps_what_an_import_of_bd_has_emptied(tmp_path: Path) -> None:
    gate = edge("tt-a", "tt-b", "waits-for", metadata='{"gate":"any-children"}', thread_id="th")
    write(tmp_path, [issue("tt-a", dependencies=[gate])])
    emptied = edge("tt-a", "tt-b", "waits-for", metadata="{}", created_by="importer")
    assert take(tmp_path, issue("tt-a", dependencies=[emptied])).counts == Counts(unchanged=1)
    assert lines(tmp_path)[0]["dependencies"] == [gate]
    again = {**emptied, "created_at": "2026-05-01T00:00:00Z"}  # removed in bd, and added anew
    take(tmp_path, issue("tt-a", dependencies=[again]))
    assert lines(tmp_path)[0]["dependencies"] == [again]


@pytest.mark.parametrize("updated_at", [OLD, NEW])
def test_comments_of_both_sides_are_kept_whatever_their_ids(updated_at: str, tmp_path: Path) -> None:
    late = comment("late", 7, "2026-01-01T00:09:00Z")
    write(tmp_path, [issue("tt-a", comments=[comment("both", 5), late])])
    middle = comment("middle", "uuid-2", "2026-01-01T00:07:00Z")
    take(tmp_path, issue("tt-a", updated_at=updated_at, comments=[comment("both ", "uuid-1"), middle]))
    assert lines(tmp_path)[0]["comments"] == [comment("both", 5), middle, late]


@pytest.mark.parametrize(("updated_at", "lives"), [(OLD, True), (NEW, False)])
def test_a_tombstone_buries_only_what_is_not_newer(updated_at: str, lives: bool, tmp_path: Path) -> None:
    write(tmp_path, [issue("tt-a")])
    merged = take(tmp_path, issue("tt-a", status="tombstone", updated_at=updated_at))
    assert merged.counts == (Counts(skipped=1) if lives else Counts(deleted=1))
    assert (lines(tmp_path)[0]["status"] == "open") is lives
    assert (BeadsFile(tmp_path).read().tasks.keys() == {"tt-a"}) is lives


def test_memories_go_by_their_key(tmp_path: Path) -> None:
    memory = {"_type": "memory", "key": "style", "value": "tabs"}
    write(tmp_path, [memory, issue("tt-a")])
    assert take(tmp_path, memory).counts == Counts(unchanged=1)
    spaces, other = {**memory, "value": "spaces"}, {**memory, "key": "other"}
    assert take(tmp_path, spaces, other).counts == Counts(memories=2)
    assert lines(tmp_path) == [spaces, issue("tt-a"), other]


def test_wisp_of_the_oldest_files_is_ephemeral(tmp_path: Path) -> None:
    take(tmp_path, issue("tt-a", wisp=True))
    assert lines(tmp_path) == [issue("tt-a", wisp=True, ephemeral=True)]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{oops", "it is not JSON"),
        ("<<<<<<< HEAD", "it is a git conflict marker; resolve the merge first"),
        ("[]", "it is not a JSON object"),
        ('{"title":"x"}', "its id is missing"),
        ('{"id":"tt-a","priority":1}', "its id 'tt-a' stands in line 1 already"),
        ('{"id":"tt-b","updated_at":"soon"}', "'soon' is not a time"),
        ('{"id":"tt-b","status":"tombstone","updated_at":"soon"}', "'soon' is not a time"),
        ('{"id":"tt-b","comments":{}}', "its comments are not a list"),
        ('{"id":"tt-b","comments":["x"]}', "its comments are not a list of objects"),
        ('{"id":"tt-b","dependencies":[{"depends_on_id":"tt-a","created_at":1}]}', "1 is not a time"),
    ],
)
def test_a_bad_line_is_named_by_its_number(line: str, reason: str) -> None:
    with pytest.raises(HewError) as raised:
        read_import(jsonl(issue("tt-a")) + b"\n" + line.encode() + b"\n", "in.jsonl")
    assert raised.value.message.startswith(f"in.jsonl, line 3: {reason}")
    assert raised.value.exit_code == 1


def test_a_byte_order_mark_and_windows_line_ends_are_read() -> None:
    raw = b"\xef\xbb\xbf" + jsonl(issue("tt-a"), issue("tt-b")).replace(b"\n", b"\r\n")
    assert [(line.id, line.raw[-1:]) for line in read_import(raw, "in")] == [("tt-a", b"}"), ("tt-b", b"}")]


TIMES = st.sampled_from([OLD, SAME, "2026-01-01T00:01:00.5Z", NEW])
EDGES = st.lists(
    st.builds(
        lambda target, kind, meta, at: edge("tt-a", target, kind, **meta, created_at=at),
        st.sampled_from(["tt-b", "tt-c", "external:p:c"]),
        st.sampled_from(["blocks", "waits-for", "related"]),
        st.sampled_from([{}, {"metadata": "{}"}, {"metadata": '{"gate":"any-children"}'}, {"thread_id": "t"}]),
        TIMES,
    ),
    max_size=3,
)
ISSUES = st.fixed_dictionaries(
    {"id": st.just("tt-a"), "title": st.sampled_from(["one", "two"])},
    optional={
        "status": st.sampled_from(["open", "closed", "in_progress", "tombstone"]),
        "priority": st.integers(0, 4),
        "updated_at": TIMES,
        "closed_at": TIMES,
        "description": st.sampled_from(["", "d"]),
        "metadata": st.sampled_from([{}, {"k": 1.5}]),
        "pinned": st.booleans(),
        "labels": st.lists(st.sampled_from("xyz"), max_size=3),
        "dependencies": EDGES,
        "comments": st.lists(st.builds(comment, st.sampled_from("ab"), st.integers(1, 3), TIMES), max_size=3),
        "x_own": st.integers(0, 2),
    },
)


@given(ours=ISSUES, theirs=ISSUES)
def test_merging_twice_is_merging_once_and_no_unknown_member_is_lost(
    ours: dict[str, Any], theirs: dict[str, Any]
) -> None:
    before = Snapshot(b"", (parse_line(json.dumps(ours).encode()),))
    incoming = read_import(jsonl(theirs), "in")
    once = merge(before, incoming, NOON)
    after = Snapshot(b"", once.lines or before.lines)
    twice = merge(after, incoming, NOON)
    assert twice.lines == ()
    if "x_own" in ours and "tombstone" not in (ours.get("status"), theirs.get("status")):
        assert "x_own" in (after.lines[0].issue or {})
