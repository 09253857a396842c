"""What the bd adapter makes of single answers: refusals, damaged stores, other shapes. Recorded ones, replayed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from hew_loop.core.task import Edge
from hew_loop.errors import TrackerError
from hew_loop.trackers.bd import BdTracker
from hew_loop.trackers.bd_call import Bd
from hew_loop.trackers.bd_checks import version_note
from hew_loop.trackers.bd_json import tasks_of, text_of
from tests.support.stub_bd import VERSIONS, Step, normal_form, recorded, replaying

Played = Callable[..., AbstractContextManager[Bd]]


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def playing(tmp_path: Path) -> Played:
    """A bd that gives these answers, each once, and fails the test for any other call."""

    @contextmanager
    def play(steps: list[Step], **settings: Any) -> Iterator[Bd]:
        (tmp_path / "repo" / ".beads").mkdir(parents=True)
        with replaying(tmp_path / "bin", steps, repo=tmp_path / "repo"):
            yield Bd(str(tmp_path / "bin" / "bd"), tmp_path / "repo" / ".beads", dict(os.environ), **settings)

    return play


def said(*words: str, out: str = "", err: str = "", code: int = 0) -> Step:
    """An answer that nobody has recorded: of a version that could not be run, or of an unlucky moment."""
    return {"argv": list(words), "env": {}, "stdout": out, "stderr": err, "exit_code": code}


LIST = ("list", "--all", "--limit", "0", "--sort", "id")


def test_the_call_of_a_replay_must_be_the_recorded_one(playing: Played) -> None:
    with pytest.raises(AssertionError, match="recorded is"), playing([said("show", "tt-a")]) as bd:
        bd.call("show", "tt-b")


def test_options_are_the_same_in_any_order_and_spelling() -> None:
    first = normal_form(["create", "--json", "-t", "bug", "--title=-x", "-l", "a,b", "--force"])
    assert first == normal_form(["create", "--labels=a,b", "--force", "--title", "-x", "--type", "bug"])
    assert first != normal_form(["create", "--labels=b,a", "--force", "--title", "-x", "--type", "bug"])


def test_a_list_of_either_version_gives_the_same_tasks(version: str, playing: Played) -> None:
    with playing(recorded(version, "list_:16")) as bd:
        tasks = BdTracker(bd).read()
    assert [(t.id, t.status, t.assignee, t.labels, t.edges) for t in tasks] == [
        ("tt-a", "open", "bob", ("x",), ()),
        ("tt-b", "open", "", (), ()),
        ("tt-c", "in_progress", "ann", (), ()),
        ("tt-d", "closed", "", (), ()),
        ("tt-e", "open", "", ("x", "y"), ()),
        ("tt-f", "blocked", "", (), ()),
        ("tt-g", "deferred", "", (), (Edge("tt-e", "parent-child"),)),
    ]


def test_a_claim_is_read_back(version: str, playing: Played) -> None:
    with playing(recorded(version, "happy_path:6", "happy_path:7", "happy_path:8")) as bd:
        assert BdTracker(bd).claim("tt-a", "loop/w1") == ""


def test_a_claim_that_another_got_first_is_refused(version: str, playing: Played) -> None:
    before = recorded(version, "happy_path:6")
    with playing([*before, *recorded(version, "claim_again:5", "claim_again:6")]) as bd:
        assert BdTracker(bd).claim("tt-a", "loop/w2") == "already claimed by loop/w1"


def test_a_claim_that_failed_although_nobody_else_has_it_is_an_error(version: str, playing: Played) -> None:
    look = recorded(version, "happy_path:6")
    failed = {**said("update", "tt-a", "--claim", err="Error: disk full", code=1), "env": {"BD_ACTOR": "loop/w1"}}
    with playing([*look, failed, *look]) as bd, pytest.raises(TrackerError, match="bd update tt-a: disk full"):
        BdTracker(bd).claim("tt-a", "loop/w1")


def test_a_missing_task_is_told_from_a_store_that_cannot_be_read(version: str, playing: Played) -> None:
    with playing(recorded(version, "show:9")) as bd:
        (missing,) = (step["argv"][1] for step in recorded(version, "show:9"))
        assert BdTracker(bd).show(missing) is None


@pytest.mark.parametrize("where", ["corrupted:5", "readonly_store:5", "no_workspace:3"])
def test_a_store_that_cannot_be_read_is_an_error(version: str, where: str, playing: Played) -> None:
    with playing(recorded(version, where)) as bd, pytest.raises(TrackerError) as caught:
        BdTracker(bd).show("tt-a")
    assert (caught.value.exit_code, caught.value.hint != "") == (69, True)


def test_a_part_of_an_id_is_no_id(version: str, playing: Played) -> None:
    with playing(recorded(version, "show_abbreviated:6")) as bd:
        assert BdTracker(bd).show("tt-abc") is None


@pytest.mark.parametrize("task_id", ["", " ", "abc", "-x", "--claim", "tt-a\n"])
def test_what_is_no_full_id_never_reaches_bd(task_id: str, playing: Played) -> None:
    calls: list[Callable[[BdTracker], object]] = [
        lambda bd: bd.show(task_id),
        lambda bd: bd.claim(task_id, "loop/w1"),
        lambda bd: bd.release(task_id, "loop/w1", ""),
        lambda bd: bd.close(task_id, "x"),
        lambda bd: bd.reopen(task_id, "x"),
        lambda bd: bd.note(task_id, "x"),
    ]
    with playing([]) as bd:
        for call in calls:
            with pytest.raises(TrackerError, match="is not a full task id"):
                call(BdTracker(bd))


def test_an_id_without_a_hyphen_is_full_once_bd_has_shown_it(playing: Played) -> None:
    shown = '[{"id":"abc","title":"T","status":"open","priority":2,"created_at":"2026-01-01T00:00:00Z"}]'
    with playing([said(*LIST, out=shown), said("show", "abc", out=shown)]) as bd:
        tracker = BdTracker(bd)
        assert tracker.read()[0].id == "abc"
        assert tracker.show("abc") is not None


def test_a_change_of_another_task_is_an_error(version: str, playing: Played) -> None:
    (look,) = recorded(version, "happy_path:6")
    other = look["stdout"].replace("tt-a", "tt-abc")
    with (
        playing([look, said("close", "tt-a", "--reason", "x", out=other)]) as bd,
        pytest.raises(TrackerError, match=r"meant for 'tt-a', but bd changed \['tt-abc'\]"),
    ):
        BdTracker(bd).close("tt-a", "x")


def test_a_change_that_did_not_happen_is_an_error(version: str, playing: Played) -> None:
    (look,) = recorded(version, "happy_path:6")
    with (
        playing([look, said("close", "tt-a", "--reason", "x", out=look["stdout"])]) as bd,
        pytest.raises(TrackerError, match="tt-a should be closed now, but bd shows it open"),
    ):
        BdTracker(bd).close("tt-a", "x")


def test_a_refusal_with_exit_code_0_and_nothing_on_stdout_is_seen(playing: Played) -> None:
    (look,) = recorded("0.49.5", "happy_path:6")
    refused = said("update", "tt-a", "--append-notes", "x", err="Error updating tt-a: no\n")
    with playing([look, refused]) as bd, pytest.raises(TrackerError, match="bd update tt-a: Error updating tt-a: no"):
        BdTracker(bd).note("tt-a", "x")


def test_a_version_that_cannot_append_notes_gets_them_whole(playing: Played) -> None:
    (look,) = recorded("0.49.5", "happy_path:6")
    unknown = said("update", "tt-a", "--append-notes", "x", err="Error: unknown flag: --append-notes\nUsage:", code=1)
    with playing([look, unknown, said("update", "tt-a", "--notes", "x", out=look["stdout"])]) as bd:
        BdTracker(bd).note("tt-a", "x")


def test_the_envelope_of_later_versions_is_taken_off(version: str, playing: Played) -> None:
    with playing(recorded(version, "json_forms:7", "json_forms:8")) as bd:
        tracker = BdTracker(bd)
        found = tracker.show("tt-a")
        assert found is not None
        assert found.task.title == "Task a"
        assert tracker.show("tt-zzz") is None


def test_a_store_out_of_sync_is_asked_again_a_bounded_number_of_times(playing: Played) -> None:
    (stale,) = recorded("0.49.5", "stale_jsonl:6")
    good = recorded("0.49.5", "happy_path:6")[0]
    look = {**stale, "argv": good["argv"]}
    with playing([look, look, good], pauses_s=(0.0, 0.0, 0.0)) as bd:
        assert BdTracker(bd).show("tt-a") is not None


def test_a_store_that_stays_out_of_sync_is_an_error_with_the_way_out(playing: Played) -> None:
    stale = recorded("0.49.5", "stale_jsonl:6")
    with playing(stale * 3, pauses_s=(0.0, 0.0)) as bd, pytest.raises(TrackerError, match="out of sync") as caught:
        BdTracker(bd).show("tt-hand")
    assert "bd sync --import-only" in caught.value.hint


def test_a_call_that_does_not_end_is_ended_at_our_deadline(version: str, playing: Played) -> None:
    with (
        playing(recorded(version, "locked"), timeout_s=0.5) as bd,
        pytest.raises(TrackerError, match=r"bd update tt-a did not end within 0.5 s"),
    ):
        bd.call("update", "tt-a", "--claim", actor="loop/w1")


def test_an_empty_list_with_a_warning_is_no_empty_backlog(playing: Played) -> None:
    odd = said(*LIST, out="[]\n", err="warning: something is wrong with the store\n")
    with playing([odd]) as bd, pytest.raises(TrackerError, match="warning: something is wrong with the store"):
        BdTracker(bd).read()


def test_an_empty_list_with_a_harmless_warning_is_an_empty_backlog(playing: Played) -> None:
    err = "Warning: /x/.beads has permissions 0755 (recommended: 0700). Run: chmod 700 /x/.beads\n"
    with playing([said(*LIST, out="[]\n", err=err), said("where", out='{"prefix": "tt"}')]) as bd:
        assert BdTracker(bd).read() == ()


def test_an_empty_database_beside_a_full_export_is_no_empty_backlog(tmp_path: Path, playing: Played) -> None:
    with playing([said(*LIST, out="[]\n"), said("where", out='{"prefix": "tt"}')]) as bd:
        (bd.directory / "issues.jsonl").write_text('{"id":"tt-a"}\n{"id":"tt-b","status":"tombstone"}\n')
        with pytest.raises(TrackerError, match="holds 1 issues"):
            BdTracker(bd).read()


def test_tasks_that_all_vanish_at_once_are_not_believed(playing: Played) -> None:
    shown = '[{"id":"tt-a","title":"T","status":"open","priority":2}]'
    with playing([said(*LIST, out=shown), said(*LIST, out="[]\n")]) as bd:
        tracker = BdTracker(bd)
        assert len(tracker.read()) == 1
        with pytest.raises(TrackerError, match="suddenly shows no task"):
            tracker.read()


@pytest.mark.parametrize("out", ["", "null", "{}", "no json", '["tt-a"]', '[{"title":"without id"}]'])
def test_what_is_no_list_of_issues_is_an_error(out: str, playing: Played) -> None:
    with playing([said(*LIST, out=out)]) as bd, pytest.raises(TrackerError):
        BdTracker(bd).read()


def test_two_kinds_of_edge_to_one_task_both_count() -> None:
    edges = [{"depends_on_id": "tt-b", "type": kind} for kind in ("related", "blocks")]
    (task,) = tasks_of([{"id": "tt-a", "title": "T", "priority": 1, "dependencies": edges}])
    assert task.edges == (Edge("tt-b", "blocks"), Edge("tt-b", "related"))


def test_the_order_of_edges_and_labels_does_not_make_another_task() -> None:
    def seen(*, turned: bool) -> Any:
        edges = [{"depends_on_id": name, "type": "blocks"} for name in ("tt-b", "tt-c")]
        issue = {"id": "tt-a", "title": "T", "labels": ["x", "y"], "dependencies": edges}
        return tasks_of([{k: v[::-1] if turned and k in ("labels", "dependencies") else v for k, v in issue.items()}])

    assert seen(turned=False) == seen(turned=True)


def test_edges_of_show_may_be_issues_or_records() -> None:
    base = {"id": "tt-a", "title": "T", "created_at": "2026-01-01T00:00:00.123456789Z"}
    whole = text_of({**base, "dependencies": [{"id": "tt-b", "title": "B", "dependency_type": "blocks"}]})
    record = text_of({**base, "dependencies": [{"issue_id": "tt-a", "depends_on_id": "tt-b", "type": "blocks"}]})
    assert whole == record
    assert whole is not None
    assert whole.task.edges == (Edge("tt-b"),)
    assert replace(whole.task, edges=()).created_at == datetime(2026, 1, 1, 0, 0, 0, 123456, tzinfo=UTC)


@pytest.mark.parametrize(
    ("version", "known"),
    [("0.49.0", True), ("1.0.5", True), ("1.3.2", True), ("1.2.0-rc1", True), ("0.55.4", False), ("2.0.0", False)],
)
def test_a_version_that_nobody_has_tried_is_named(version: str, known: bool) -> None:
    assert (version_note(version) == "") == known


def test_a_version_with_a_v_is_read(playing: Played) -> None:
    with playing([said("version", out='{"build":"x","version":"v1.3.1"}')]) as bd:
        assert BdTracker(bd).version() == "1.3.1"


def test_another_store_in_the_environment_does_not_win(playing: Played, tmp_path: Path) -> None:
    with playing([]) as bd:
        named = replace(bd, program="env", env={"BEADS_DB": "/other", "BD_DB": "/other", "PATH": os.environ["PATH"]})
        answer = named.call("-0")
    assert answer.value is None
    assert "/other" not in str(named._environment("x"))


def test_without_bd_on_path_its_store_is_an_error_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(TrackerError, match="belongs to bd, and there is no bd on PATH") as caught:
        BdTracker.open(tmp_path, {"PATH": str(tmp_path)})
    assert caught.value.exit_code == 69
    assert "crontab" in caught.value.hint
