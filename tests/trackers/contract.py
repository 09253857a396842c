"""What every tracker keeps, whatever its store: inherit `TrackerContract` and say how a store is made and opened."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from hew_loop.core import graph
from hew_loop.core.task import NEEDS_HUMAN
from hew_loop.errors import TrackerError
from hew_loop.trackers.base import BugReport, Tracker

ME = "loop/run-1/0"
TITLES = ("Brew the tea", "Warm the pot", "Lay the table")


class TrackerContract:
    def fill(self, directory: Path) -> None:
        """Make a store in `directory` with one open task for each of `TITLES`, in this order."""
        raise NotImplementedError

    def open(self, directory: Path) -> Tracker:
        """A tracker on the store in `directory`, as another process would open it."""
        raise NotImplementedError

    @pytest.fixture
    def tracker(self, tmp_path: Path) -> Tracker:
        self.fill(tmp_path)
        return self.open(tmp_path)

    @pytest.fixture
    def other(self, tracker: Tracker, tmp_path: Path) -> Tracker:
        return self.open(tmp_path)

    def test_a_fresh_store_shows_its_tasks_in_the_order_of_work(self, tracker: Tracker) -> None:
        tasks = tracker.read()
        ordered = sorted(tasks, key=graph.graph_order)
        assert [(t.title, t.status, t.assignee, t.is_closed) for t in ordered] == [
            (title, "open", "", False) for title in TITLES
        ]
        assert len({t.id for t in tasks}) == len(TITLES)
        assert all(t.created_at.tzinfo is not None for t in tasks)
        assert Path(tracker.store).is_absolute()
        assert [tracker.show(t.id).task for t in tasks] == list(tasks)  # type: ignore[union-attr]

    def test_a_task_that_is_not_there_is_an_answer_or_an_error_and_never_a_guess(self, tracker: Tracker) -> None:
        before = tracker.read()
        assert tracker.show("no-such") is None
        assert tracker.show("") is None
        assert tracker.claim("no-such", ME)
        tracker.release("no-such", ME, "note")
        for act in (tracker.close, tracker.reopen, tracker.note):
            with pytest.raises(TrackerError):
                act("no-such", "text")
        assert tracker.read() == before

    def test_a_claim_is_seen_by_others_and_refused_to_them(self, tracker: Tracker, other: Tracker) -> None:
        first, second, third = by_title(tracker)
        assert tracker.claim(first, ME) == ""
        assert tracker.claim(first, ME) == ""
        assert (shown(other, first).status, shown(other, first).assignee) == ("in_progress", ME)
        assert other.claim(first, "loop/run-2/0")
        assert shown(tracker, first).assignee == ME
        assert [t.id for t in ready(other)] == [second, third]

    def test_a_closed_task_is_not_claimed(self, tracker: Tracker) -> None:
        first = by_title(tracker)[0]
        tracker.close(first, "landed")
        assert tracker.claim(first, ME)
        assert shown(tracker, first).is_closed

    def test_release_gives_back_our_own_claim_with_its_note_once(self, tracker: Tracker, other: Tracker) -> None:
        first = by_title(tracker)[0]
        tracker.claim(first, ME)
        other.release(first, "loop/run-2/0", "not mine")
        assert shown(tracker, first).assignee == ME
        tracker.release(first, ME, "the run stopped")
        tracker.release(first, ME, "the run stopped")
        found = other.show(first)
        assert found is not None
        assert (found.task.status, found.task.assignee, found.notes) == ("open", "", "the run stopped")
        assert other.claim(first, "loop/run-2/0") == ""

    def test_close_ends_the_claim_and_reopen_gives_the_task_back(self, tracker: Tracker, other: Tracker) -> None:
        first, second, third = by_title(tracker)
        tracker.claim(first, ME)
        for _ in range(2):
            tracker.close(first, "landed abc")
        assert (shown(other, first).status, shown(other, first).assignee) == ("closed", "")
        assert [t.id for t in ready(other)] == [second, third]
        for _ in range(2):
            tracker.reopen(first, "did not land")
        found = other.show(first)
        assert found is not None
        assert (found.task.status, found.task.assignee, found.notes) == ("open", "", "did not land")
        assert [t.id for t in ready(other)] == [first, second, third]

    def test_a_note_stands_once(self, tracker: Tracker, other: Tracker) -> None:
        first = by_title(tracker)[0]
        for text in ("one", "two", "one"):
            tracker.note(first, text)
        found = other.show(first)
        assert found is not None
        assert found.notes == "one\ntwo"

    def test_a_bug_holds_its_task_back_until_it_is_closed(self, tracker: Tracker, other: Tracker) -> None:
        first, second, third = by_title(tracker)
        tracker.claim(first, ME)
        bug = tracker.file_bug(report(first))
        tracker.release(first, ME, "parked")
        assert other.file_bug(report(first)) == bug
        filed = other.show(bug)
        assert filed is not None
        assert (filed.task.title, filed.task.status, filed.task.type) == ("[blocked] no tea", "open", "bug")
        assert filed.description == "The tin is empty."
        assert [t.id for t in ready(other) if NEEDS_HUMAN not in t.labels] == [second, third]
        other.close(bug, "bought some")
        assert [t.id for t in ready(tracker)] == [first, second, third]
        assert tracker.claim(first, ME) == ""

    def test_a_memory_is_no_task(self, tracker: Tracker) -> None:
        before = tracker.read()
        tracker.remember("the kettle is slow")
        tracker.remember("the kettle is slow")
        assert tracker.read() == before


def by_title(tracker: Tracker) -> list[str]:
    ids = {t.title: t.id for t in tracker.read()}
    return [ids[title] for title in TITLES]


def shown(tracker: Tracker, task_id: str) -> Any:
    found = tracker.show(task_id)
    assert found is not None
    assert found.task == next(t for t in tracker.read() if t.id == task_id)
    return found.task


def ready(tracker: Tracker) -> list[Any]:
    return list(graph.ready({t.id: t for t in tracker.read()}, datetime.now(UTC)))


def report(task_id: str) -> BugReport:
    return BugReport(
        title="[blocked] no tea",
        description="The tin is empty.",
        blocks=task_id,
        external_ref=f"loop:run-1/{task_id}.1",
        labels=(NEEDS_HUMAN, "blocked"),
    )
