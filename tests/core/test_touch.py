"""Which files tasks change: known from iterations, guessed for what waits, and where two of them meet."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hew_loop.core import events as ev
from hew_loop.core.policy import Policy
from hew_loop.core.task import PARENT_CHILD, Edge
from hew_loop.core.touch import changed, forecast, meeting, predicted, shared, touching
from tests.support.journals import JournalBuilder, task


def a_run() -> JournalBuilder:
    """`one` has changed src/one.py; `two` is its sibling, `late` waits for it, `other` has nothing to do with it."""
    journal = JournalBuilder(Policy(jobs=2))
    journal.view(
        task("epic", type="epic"),
        task("one", edges=child_of("epic"), mentions=("docs/one.md",)),
        task("two", edges=child_of("epic"), mentions=("src/two.py",)),
        task("late", after=["one"], mentions=("src/late.py",)),
        task("other", mentions=("src/other.py",)),
        task("silent"),
    )
    return journal.start("one").end("one", files=("src/one.py", "CHANGELOG.md"))


def child_of(parent: str) -> tuple[Edge, ...]:
    return (Edge(parent, PARENT_CHILD),)


def test_a_waiting_task_is_predicted_from_its_text_its_siblings_and_what_it_depends_on() -> None:
    state = a_run().state
    done = {"src/one.py", "CHANGELOG.md"}
    assert {t: set(predicted(state, t)) for t in ("one", "two", "late", "other", "silent", "gone")} == {
        "one": {"docs/one.md", *done},
        "two": {"src/two.py", *done},
        "late": {"src/late.py", *done},
        "other": {"src/other.py"},
        "silent": set(),
        "gone": set(),
    }


def test_many_tasks_are_predicted_as_each_of_them_alone() -> None:
    state = a_run().state
    predict = forecast(state)
    assert {t: predict(t) for t in state.backlog.tasks} == {t: predicted(state, t) for t in state.backlog.tasks}


def test_all_attempts_of_a_task_count_also_those_that_failed() -> None:
    journal = a_run().chain().land()
    journal.start("other").end("other", "failed", failure="agent_failed", files=("src/a.py",))
    journal.start("other").end("other", files=("src/b.py",))
    assert predicted(journal.state, "other") == {"src/other.py", "src/a.py", "src/b.py"}


def test_a_task_that_vanished_from_the_tracker_keeps_what_it_changed() -> None:
    journal = a_run().view(removed=("one",))
    assert predicted(journal.state, "one") == {"src/one.py", "CHANGELOG.md"}
    assert predicted(journal.state, "two") == {"src/two.py"}


def test_touching_holds_what_runs_and_what_waits_to_land_and_nothing_that_has_landed() -> None:
    journal = a_run().start("other", slot=1)
    waiting = {"one": {"docs/one.md", "src/one.py", "CHANGELOG.md"}, "other": {"src/other.py"}}
    assert touching(journal.state) == waiting
    journal.chain().land()
    assert touching(journal.state) == {"other": {"src/other.py"}}


def test_touching_holds_what_went_back_and_comes_next() -> None:
    journal = a_run().chain().land()
    journal.start("other").end("other", "failed", failure="agent_failed")
    assert touching(journal.state) == {"other": {"src/other.py"}}


@pytest.mark.parametrize(
    ("ours", "theirs", "common"),
    [
        (["a.py"], ["a.py", "b.py"], ("a.py",)),
        (["src/"], ["src/a.py", "srcs/b.py", "src"], ("src/a.py",)),
        (["src/core/a.py", "b.py"], ["src/"], ("src/core/a.py",)),
        (["src/"], ["src/core/", "src/"], ("src/", "src/core/")),
        (["src/core/"], ["src/a.py"], ()),
        (["a.py"], ["b/a.py"], ()),
        ([], ["a.py"], ()),
    ],
)
def test_a_directory_meets_what_is_below_it(ours: list[str], theirs: list[str], common: tuple[str, ...]) -> None:
    assert meeting(ours, theirs) == common


PATHS = st.frozensets(st.sampled_from(["a/", "a/b/", "a/b/c.py", "a/d.py", "b/c.py", "b/", "c.py"]))


@given(PATHS, PATHS)
def test_a_meeting_is_the_same_from_both_sides(ours: frozenset[str], theirs: frozenset[str]) -> None:
    common = meeting(ours, theirs)
    assert common == meeting(theirs, ours) == tuple(sorted(common))
    assert set(common) <= ours | theirs
    assert ours & theirs <= set(common)


def test_a_task_changes_what_its_last_iteration_does_and_those_that_it_was_built_on() -> None:
    journal = JournalBuilder(Policy(jobs=2)).view(task("one"))
    journal.start("one").end("one", "failed", failure="agent_failed", files=("thrown/away.py",))
    journal.start("one").end("one", files=("src/a.py",))
    journal.chain(conflicts=(ev.SentBack(2, "conflict", ("src/a.py",)),))
    journal.start("one").end("one", files=("src/b.py",))
    assert changed(journal.state, journal.state.records["one"]) == ("src/a.py", "src/b.py")


def test_shared_files_are_those_that_several_tasks_changed() -> None:
    journal = a_run().start("other", slot=1).end("other", files=("CHANGELOG.md", "src/other.py"))
    assert shared(journal.state) == {"CHANGELOG.md": ("one", "other")}
