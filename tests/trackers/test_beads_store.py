"""The embedded store as a tracker: what each method leaves in the file, and what it never loses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from hew_loop.core.task import Edge, Task, TaskText
from hew_loop.errors import HewError, TrackerError, UsageError
from hew_loop.trackers import beads_file
from hew_loop.trackers.base import BugReport, Tracker
from hew_loop.trackers.beads_file import LOCK_NAME
from hew_loop.trackers.beads_issue import NewIssue, UnknownTask
from hew_loop.trackers.beads_store import BeadsStore
from tests.trackers.beads_files import NOON, edge, issue, lines, store, write

ROOT = Path(__file__).parents[2]
NOW = "2026-06-01T12:00:00Z"


@pytest.fixture
def beads(tmp_path: Path) -> Path:
    return tmp_path / "shop" / ".beads"


def test_it_is_a_tracker(beads: Path) -> None:
    tracker: Tracker = store(beads)
    assert (tracker.kind, tracker.store) == ("beads", str(beads))


def test_a_store_that_is_not_there_is_empty_and_reading_makes_nothing(beads: Path) -> None:
    tracker = store(beads)
    assert tracker.read() == ()
    assert tracker.show("shop-abc") is None
    with pytest.raises(UnknownTask):
        tracker.close("shop-abc", "done")
    assert tracker.claim("shop-abc", "me") == "there is no task shop-abc"
    assert not beads.exists()


def test_a_task_is_read_with_everything_that_scheduling_needs(beads: Path) -> None:
    full = issue(
        "tt-a",
        title="Ünï",
        status="in_progress",
        priority=0,
        issue_type="bug",
        assignee="ann",
        labels=["x", "y"],
        created_at="2026-06-01T14:00:00.123456789+02:00",
        defer_until=NOW,
        pinned=True,
        ephemeral=True,
        description="D",
        design="E",
        acceptance_criteria="A",
        notes="N",
        dependencies=[
            edge("tt-a", "tt-b"),
            edge("tt-a", "tt-e", "parent-child"),
            edge("tt-a", "tt-s", "waits-for", metadata='{"gate": "any-children"}'),
        ],
    )
    write(beads, [full, issue("tt-dead", status="tombstone")])
    expected = Task(
        id="tt-a",
        title="Ünï",
        created_at=NOON + timedelta(microseconds=123456),
        status="in_progress",
        priority=0,
        type="bug",
        assignee="ann",
        labels=("x", "y"),
        edges=(Edge("tt-b"), Edge("tt-e", "parent-child"), Edge("tt-s", "waits-for", "any-children")),
        defer_until=NOON,
        pinned=True,
        ephemeral=True,
    )
    assert store(beads).read() == (expected,)
    assert store(beads).show("tt-a") == TaskText(expected, description="D", design="E", acceptance="A", notes="N")


def test_claim_release_close_reopen_leave_beads_members(beads: Path) -> None:
    write(beads, [issue("tt-a", notes="first")])
    tracker = store(beads)
    assert tracker.claim("tt-a", "loop/r/1") == ""
    claimed = issue("tt-a", notes="first", status="in_progress", assignee="loop/r/1", updated_at=NOW, started_at=NOW)
    assert lines(beads) == [claimed]
    tracker.release("tt-a", "loop/r/1", "came back")
    later = "2026-06-01T12:00:01Z"
    released = issue("tt-a", notes="first\ncame back", updated_at=later, started_at=NOW)
    assert lines(beads) == [released]
    tracker.close("tt-a", "landed abc")
    closed = {**released, "status": "closed", "updated_at": "2026-06-01T12:00:02Z"}
    assert lines(beads) == [{**closed, "closed_at": NOW, "close_reason": "landed abc"}]
    tracker.reopen("tt-a", "did not land")
    reopened = {**released, "notes": "first\ncame back\ndid not land", "updated_at": "2026-06-01T12:00:03Z"}
    assert lines(beads) == [reopened]


@pytest.mark.parametrize(
    ("members", "refusal"),
    [
        ({"status": "closed"}, "its status is closed"),
        ({"status": "blocked"}, "its status is blocked"),
        ({"status": "deferred"}, "its status is deferred"),
        ({"status": "in_progress"}, "its status is in_progress"),
        ({"status": "in_progress", "assignee": "bob"}, "already claimed by bob"),
        ({"assignee": "bob"}, "already claimed by bob"),
        ({"status": "in_progress", "assignee": "me"}, ""),
    ],
)
def test_a_claim_is_refused_unless_the_task_is_free_or_ours(beads: Path, members: dict[str, Any], refusal: str) -> None:
    before = write(beads, [issue("tt-a", **members)]).read_bytes()
    assert store(beads).claim("tt-a", "me") == refusal
    assert (beads / "issues.jsonl").read_bytes() == before


def test_release_touches_only_our_own_claim_and_keeps_a_status_that_somebody_gave(beads: Path) -> None:
    others = [
        issue("tt-a", status="in_progress", assignee="bob"),
        issue("tt-b", status="closed", assignee="me"),
        issue("tt-c"),
    ]
    file = write(beads, [*others, issue("tt-d", status="deferred", assignee="me")])
    tracker = store(beads)
    for task_id in ("tt-a", "tt-b", "tt-c", "tt-gone"):
        tracker.release(task_id, "me", "note")
    tracker.release("tt-d", "me", "")
    assert lines(beads) == [*others, issue("tt-d", status="deferred", updated_at=NOW)]
    once = file.read_bytes()
    tracker.release("tt-d", "me", "")
    assert file.read_bytes() == once


def test_close_reopen_and_note_are_idempotent(beads: Path) -> None:
    file = write(beads, [issue("tt-a", status="in_progress", assignee="me")])
    tracker = store(beads)
    for act in (
        lambda: tracker.close("tt-a", "done"),
        lambda: tracker.reopen("tt-a", "not landed"),
        lambda: tracker.note("tt-a", "remember this"),
    ):
        act()
        once = file.read_bytes()
        act()
        assert file.read_bytes() == once
    assert lines(beads) == [issue("tt-a", notes="not landed\nremember this", updated_at="2026-06-01T12:00:02Z")]


def test_updated_at_moves_on_by_a_second_even_when_the_clock_is_behind(beads: Path) -> None:
    write(beads, [issue("tt-a", updated_at="2027-01-01T00:00:00.9+00:00")])
    store(beads).note("tt-a", "x")
    assert lines(beads)[0]["updated_at"] == "2027-01-01T00:00:01Z"


def test_a_bug_is_filed_once_and_blocks_its_task(beads: Path) -> None:
    write(beads, [issue("tt-a")])
    tracker = store(beads, actor="loop/r")
    report = BugReport(
        title="[gate-failed] " + "é" * 300,
        description="what happened",
        blocks="tt-a",
        external_ref="loop:r/tt-a.3",
        labels=("needs-human",),
        priority=1,
    )
    bug = tracker.file_bug(report)
    held = edge("tt-a", bug, created_at=NOW, created_by="loop/r", metadata="{}")
    filed = {line["id"]: line for line in lines(beads)}
    assert filed["tt-a"] == issue("tt-a", updated_at=NOW, dependencies=[held])
    assert len(filed[bug]["title"].encode()) <= 500
    assert filed[bug] == {
        "id": bug,
        "title": filed[bug]["title"],
        "description": "what happened",
        "status": "open",
        "priority": 1,
        "issue_type": "bug",
        "created_at": NOW,
        "created_by": "loop/r",
        "updated_at": NOW,
        "external_ref": "loop:r/tt-a.3",
        "labels": ["needs-human"],
    }
    once = (beads / "issues.jsonl").read_bytes()
    assert tracker.file_bug(report) == bug
    assert (beads / "issues.jsonl").read_bytes() == once
    tracker.remove_edge("tt-a", bug)
    tracker.file_bug(report)
    assert tracker.tasks()["tt-a"].edges == (Edge(bug),)


def test_a_bug_is_filed_even_when_its_task_is_gone(beads: Path) -> None:
    report = BugReport(title="[blocked] x", description="", blocks="tt-gone", external_ref="loop:r/x.1")
    assert [t.id for t in store(beads).read()] == []
    bug = store(beads).file_bug(report)
    assert [line["id"] for line in lines(beads)] == [bug]
    assert bug.startswith("shop-")


def test_a_memory_is_kept_once_beside_the_issues(beads: Path) -> None:
    write(beads, [issue("tt-a")])
    tracker = store(beads)
    tracker.remember("Run the tests with -n 2!")
    tracker.remember("Run the tests with -n 2!")
    tracker.remember("Run the tests with -n 2?")
    assert lines(beads) == [
        issue("tt-a"),
        {"_type": "memory", "key": "run-the-tests-with-n-2", "value": "Run the tests with -n 2!"},
        {"_type": "memory", "key": "run-the-tests-with-n-2-2", "value": "Run the tests with -n 2?"},
    ]
    assert [task.id for task in tracker.read()] == ["tt-a"]


def test_a_new_issue_has_beads_members_in_beads_order_and_nothing_empty(beads: Path) -> None:
    tracker = store(beads)
    blocker = tracker.add(NewIssue("First"), creator="ann")
    new = NewIssue(
        'A "b" <c> & é 日本\u2028',
        description="D",
        design="E",
        acceptance="A",
        notes="N",
        type="epic",
        priority=0,
        labels=("y", "x", "y"),
        parent=blocker,
        waits_for=("external:shop:x",),
    )
    child = tracker.add(new, creator="ann")
    assert child == f"{blocker}.1"
    raw = (beads / "issues.jsonl").read_text().split("\n")
    made = f'"created_at":"{NOW}","created_by":"ann"'
    assert raw == [
        f'{{"id":"{blocker}","title":"First","status":"open","priority":2,"issue_type":"task",{made},'
        f'"updated_at":"{NOW}"}}',
        f'{{"id":"{child}","title":"A \\"b\\" \\u003cc\\u003e \\u0026 é 日本\\u2028","description":"D","design":"E",'
        f'"acceptance_criteria":"A","notes":"N","status":"open","priority":0,"issue_type":"epic",{made},'
        f'"updated_at":"{NOW}","labels":["x","y"],"dependencies":['
        f'{{"issue_id":"{child}","depends_on_id":"{blocker}","type":"parent-child",{made},"metadata":"{{}}"}},'
        f'{{"issue_id":"{child}","depends_on_id":"external:shop:x","type":"blocks",{made},"metadata":"{{}}"}}]}}',
        "",
    ]


def test_children_are_numbered_and_a_number_never_comes_back(beads: Path) -> None:
    waiting = issue("tt-x", dependencies=[edge("tt-x", "tt-e.7")])
    write(beads, [issue("tt-e"), issue("tt-e.2", status="tombstone"), waiting])
    tracker = store(beads)
    assert tracker.add(NewIssue("c", parent="tt-e"), creator="ann") == "tt-e.8"
    assert tracker.add(NewIssue("c", parent="tt-e.8"), creator="ann") == "tt-e.8.1"


def test_the_prefix_is_that_of_most_issues_then_configured_then_the_directory(beads: Path) -> None:
    def prefix() -> str:
        return store(beads).add(NewIssue("x"), creator="ann").rpartition("-")[0]

    assert prefix() == "shop"
    (beads / "issues.jsonl").unlink()
    (beads / "config.yaml").write_text("# issue-prefix: no\nissue-prefix: 'my-app' # ours\n")
    assert prefix() == "my-app"
    write(beads, [issue("gh-1"), issue("tt-abc"), issue("tt-abd")])
    assert prefix() == "tt"


@pytest.mark.parametrize(
    ("new", "sentence"),
    [
        (NewIssue(" "), "A title cannot be empty."),
        (NewIssue("é" * 251), "A title has at most 500 bytes, this one has 502."),
        (NewIssue("\udcff"), "A text holds bytes that are not UTF-8."),
        (NewIssue("x", description="\udcff"), "A text holds bytes that are not UTF-8."),
        (NewIssue("x", priority=5), "A priority is 0 (most urgent) to 4, not 5."),
        (NewIssue("x", type="nosuch"), "There is no issue type 'nosuch'."),
    ],
)
def test_what_beads_would_not_take_is_refused_and_nothing_is_made(beads: Path, new: NewIssue, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        store(beads).add(new, creator="ann")
    assert caught.value.message == sentence
    assert not beads.exists()


def test_types_of_the_configuration_are_taken(beads: Path) -> None:
    beads.mkdir(parents=True)
    (beads / "config.yaml").write_text('types.custom: "agent,role"\n')
    store(beads).add(NewIssue("x", type="role"), creator="ann")
    assert lines(beads)[0]["issue_type"] == "role"


def test_an_edge_is_added_once_and_removed(beads: Path) -> None:
    write(beads, [issue("tt-a"), issue("tt-b")])
    tracker = store(beads)
    for _ in range(2):
        tracker.add_edge("tt-b", Edge("tt-a"), creator="ann")
    made = edge("tt-b", "tt-a", created_at=NOW, created_by="ann", metadata="{}")
    assert lines(beads) == [issue("tt-a"), issue("tt-b", updated_at=NOW, dependencies=[made])]
    with pytest.raises(HewError, match=r"tt-b has an edge to tt-a already \(blocks\)"):
        tracker.add_edge("tt-b", Edge("tt-a", "related"), creator="ann")
    assert [tracker.remove_edge("tt-b", "tt-a"), tracker.remove_edge("tt-b", "tt-a")] == [True, False]
    assert lines(beads) == [issue("tt-a"), issue("tt-b", updated_at="2026-06-01T12:00:01Z")]


@pytest.mark.parametrize(
    ("task_id", "new_edge", "sentence"),
    [
        ("tt-a", Edge("tt-a"), "tt-a cannot wait for itself."),
        ("tt-a", Edge("tt-c"), "That edge would close a ring: tt-a waits for tt-c waits for tt-b waits for tt-a."),
        ("tt-e", Edge("tt-k"), "That edge would close a ring: tt-e waits for tt-k waits for tt-e."),
        ("tt-k", Edge("tt-e"), "tt-k cannot wait for tt-e, which it is a part of."),
        (
            "tt-k",
            Edge("tt-e", "waits-for"),
            "tt-k cannot wait for tt-e, which it is a part of.",
        ),
        ("tt-e", Edge("tt-k", "parent-child"), "That edge would close a ring: tt-e waits for tt-k waits for tt-e."),
        ("tt-a", Edge("tt-b", "parent-child"), "That edge would close a ring: tt-a waits for tt-b waits for tt-a."),
        ("tt-a", Edge("tt-gone"), "There is no task 'tt-gone'."),
        ("tt-gone", Edge("tt-a"), "There is no task 'tt-gone'."),
    ],
)
def test_an_edge_after_which_a_task_could_never_start_is_refused(
    beads: Path, task_id: str, new_edge: Edge, sentence: str
) -> None:
    file = write(
        beads,
        [
            issue("tt-a"),
            issue("tt-b", dependencies=[edge("tt-b", "tt-a")]),
            issue("tt-c", dependencies=[edge("tt-c", "tt-b")]),
            issue("tt-e"),
            issue("tt-k", dependencies=[edge("tt-k", "tt-e", "parent-child")]),
        ],
    )
    before = file.read_bytes()
    with pytest.raises(HewError) as caught:
        store(beads).add_edge(task_id, new_edge, creator="ann")
    assert (caught.value.message, caught.value.exit_code) == (sentence, 1)
    assert file.read_bytes() == before


def test_edges_that_block_nobody_may_form_rings(beads: Path) -> None:
    write(beads, [issue("tt-a"), issue("tt-b", dependencies=[edge("tt-b", "tt-a")])])
    store(beads).add_edge("tt-a", Edge("tt-b", "related"), creator="ann")
    assert store(beads).tasks()["tt-a"].edges == (Edge("tt-b", "related"),)


def test_an_unknown_id_names_the_nearest(beads: Path) -> None:
    write(beads, [issue("tt-abc"), issue("tt-zzz")])
    with pytest.raises(UnknownTask) as caught:
        store(beads).close("tt-abd", "")
    assert (caught.value.message, caught.value.hint) == ("There is no task 'tt-abd'.", "Nearest: tt-abc")


def test_shown_issues_carry_bd_counts_and_parent(beads: Path) -> None:
    comments = [{"id": 1, "issue_id": "tt-b", "author": "a", "text": "t", "created_at": NOW}]
    edges = [edge("tt-b", "tt-a"), edge("tt-b", "tt-e", "parent-child"), edge("tt-b", "tt-x", "conditional-blocks")]
    write(
        beads,
        [
            {"_type": "issue", **issue("tt-a"), "dependency_count": 9, "dependent_count": 9, "comment_count": 9},
            issue("tt-b", dependencies=edges, comments=comments),
            issue("tt-e"),
        ],
    )
    none = {"dependency_count": 0, "dependent_count": 0, "comment_count": 0}
    counted = {"dependency_count": 1, "dependent_count": 0, "comment_count": 1, "parent": "tt-e"}
    assert store(beads).issues(["tt-b", "tt-a", "tt-e"]) == [
        {**issue("tt-b", dependencies=edges), **counted},
        {**issue("tt-a"), **none, "dependent_count": 1},
        {**issue("tt-e"), **none},
    ]


ADD = (
    "import sys\nfrom pathlib import Path\nfrom hew_loop.trackers.beads_store import BeadsStore\n"
    "from hew_loop.trackers.beads_issue import NewIssue\n"
    "store = BeadsStore(Path(sys.argv[1]))\n"
    "for n in range(200):\n    store.add(NewIssue(f'{sys.argv[2]} {n}'), creator='x')\n"
)


def test_two_processes_that_add_200_tasks_each_lose_none(beads: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    running = [
        subprocess.Popen([sys.executable, "-c", ADD, str(beads), name], env=env, stdin=subprocess.DEVNULL)
        for name in ("one", "two")
    ]
    assert [process.wait(timeout=120) for process in running] == [0, 0]
    written = lines(beads)
    expected = {f"{name} {n}" for name in ("one", "two") for n in range(200)}
    assert {line["title"] for line in written} == expected
    assert len(written) == 400
    assert [line["id"] for line in written] == sorted(line["id"] for line in written)
    assert sorted(path.name for path in beads.iterdir()) == [LOCK_NAME, "issues.jsonl"]


CLAIM = (
    "import sys\nfrom pathlib import Path\nfrom hew_loop.trackers.beads_store import BeadsStore\n"
    "store = BeadsStore(Path(sys.argv[1]))\n"
    "print(*[i for i in sorted(store.tasks()) if store.claim(i, sys.argv[2]) == ''])\n"
)


def test_every_task_is_claimed_by_exactly_one_of_several_processes(beads: Path) -> None:
    write(beads, [issue(f"tt-{n:03d}") for n in range(40)])
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", CLAIM, str(beads), f"loop/r/{slot}"],
            env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
        )
        for slot in range(3)
    ]  # fmt: skip
    won = [process.communicate(timeout=60)[0].split() for process in running]
    assert sorted(task_id for ids in won for task_id in ids) == [f"tt-{n:03d}" for n in range(40)]
    owner = {line["id"]: line["assignee"] for line in lines(beads)}
    assert owner == {task_id: f"loop/r/{slot}" for slot, ids in enumerate(won) for task_id in ids}


def test_an_unchanged_file_is_not_parsed_again(beads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(beads, [issue("tt-a"), issue("tt-b")])
    parsed: list[bytes] = []
    parse = beads_file.parse_line
    monkeypatch.setattr(beads_file, "parse_line", lambda raw: (parsed.append(raw), parse(raw))[1])
    tracker = store(beads)
    first = tracker.read()
    assert tracker.read() == first
    assert len(parsed) == 2
    other = store(beads)
    other.note("tt-b", "from elsewhere")
    parsed.clear()
    assert tracker.show("tt-b") == TaskText(first[1], notes="from elsewhere")
    assert [json.loads(raw)["id"] for raw in parsed] == ["tt-b"]


def test_a_change_by_a_program_that_takes_no_lock_is_not_overwritten(beads: Path) -> None:
    write(beads, [issue("tt-a"), issue("tt-b")])
    calls: list[int] = []

    def clock() -> Any:
        """Somebody saves the file in an editor just while the first claim is being worked out."""
        calls.append(1)
        if len(calls) == 1:
            write(beads, [issue("tt-a"), issue("tt-b", title="edited by hand")])
        return NOON

    assert BeadsStore(beads, clock=clock).claim("tt-a", "me") == ""
    assert [(line["id"], line["title"], line["status"]) for line in lines(beads)] == [
        ("tt-a", "T tt-a", "in_progress"),
        ("tt-b", "edited by hand", "open"),
    ]


def test_a_full_disk_leaves_the_old_file_whole(beads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(beads, [issue("tt-a")])
    before = file.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(beads_file.os, "fsync", full)
    with pytest.raises(TrackerError) as caught:
        store(beads).claim("tt-a", "me")
    assert caught.value.message == f"Cannot write {file}: No space left on device. Nothing was changed."
    assert file.read_bytes() == before
    assert sorted(path.name for path in beads.iterdir()) == [LOCK_NAME, "issues.jsonl"]


def test_a_directory_in_place_of_the_file_is_a_sentence(beads: Path) -> None:
    (beads / "issues.jsonl").mkdir(parents=True)
    with pytest.raises(TrackerError, match=r"Cannot read .*issues\.jsonl: Is a directory\."):
        store(beads).read()


def test_a_lock_that_is_held_too_long_is_a_sentence(beads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(beads, [issue("tt-a")])
    monkeypatch.setattr(beads_file, "_LOCK_TIMEOUT_S", 0.0)
    monkeypatch.setattr(beads_file, "_LOCK_POLL_S", 0.0)
    refusals: list[str] = []

    def clock() -> Any:
        """Called under the lock: another handle of the same store gets nowhere meanwhile."""
        with pytest.raises(TrackerError) as caught:
            store(beads).claim("tt-a", "other")
        refusals.append(caught.value.message)
        return NOON

    assert BeadsStore(beads, clock=clock).claim("tt-a", "me") == ""
    assert refusals[0] == f"Another process has held the lock of {beads / 'issues.jsonl'} for 0 s."
    assert store(beads).tasks()["tt-a"].assignee == "me"


def test_a_directory_that_we_make_is_hidden_from_git_and_one_that_is_there_is_not(tmp_path: Path) -> None:
    exclude = tmp_path / "git" / "info" / "exclude"
    store(tmp_path / "a" / ".beads", exclude_file=exclude).add(NewIssue("x"), creator="ann")
    assert exclude.read_text() == "/.beads/\n"
    exclude.write_text("# mine")
    there = tmp_path / "b" / ".beads"
    there.mkdir(parents=True)
    for title in ("x", "y"):
        store(there, exclude_file=exclude).add(NewIssue(title), creator="ann")
    assert exclude.read_text() == "# mine\n/.beads/.hew-loop.*\n"


def test_permissions_and_a_link_to_the_file_survive(beads: Path, tmp_path: Path) -> None:
    real = write(tmp_path / "elsewhere", [issue("tt-a")])
    real.chmod(0o640)
    beads.mkdir(parents=True)
    (beads / "issues.jsonl").symlink_to(real)
    store(beads).note("tt-a", "x")
    assert (beads / "issues.jsonl").is_symlink()
    assert real.stat().st_mode & 0o777 == 0o640
    assert lines(tmp_path / "elsewhere")[0]["notes"] == "x"
