"""Whose turn it is: the graph order, and among equal priorities what changes no file of what is at work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hew_loop.core import picking
from hew_loop.core.actions import Claim
from hew_loop.core.events import SentBack
from hew_loop.core.policy import Policy
from hew_loop.core.state import RunState
from hew_loop.core.task import Task
from tests.support.journals import JournalBuilder
from tests.support.world_parts import task


def backlog(*files: str, priorities: Sequence[int] = ()) -> list[Task]:
    """t0, t1, … in graph order among equal priorities; each names its file, an empty one none."""
    levels = priorities or [2] * len(files)
    return [
        replace(task(f"t{i}", minutes=i, priority=p), mentions=(name,) if name else ())
        for i, (name, p) in enumerate(zip(files, levels, strict=True))
    ]


def picked(state: RunState, slots: Sequence[int]) -> list[Claim]:
    return picking.claims(state, picking.wanted(state, state.now, len(slots)), slots)


def brief(claims: Sequence[Claim]) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(c.task, c.passed, c.meets) for c in claims]


def test_tasks_of_the_same_file_are_not_started_together_while_another_could_be() -> None:
    state = JournalBuilder(Policy(jobs=2)).view(*backlog("a.py", "a.py", "b.py")).state
    assert brief(picked(state, [0, 1])) == [("t0", "", ()), ("t2", "t1", ("a.py",))]


def test_what_runs_counts_and_so_does_what_waits_to_land() -> None:
    journal = JournalBuilder(Policy(jobs=2)).view(*backlog("a.py", "a.py", "b.py")).start("t0")
    assert brief(picked(journal.state, [1])) == [("t2", "t1", ("a.py",))]
    journal.end("t0")
    assert brief(picked(journal.state, [0])) == [("t2", "t1", ("a.py",))]
    journal.chain().land()
    assert brief(picked(journal.state, [0])) == [("t1", "", ())]


def test_what_an_iteration_changed_counts_although_no_text_named_it() -> None:
    journal = JournalBuilder(Policy(jobs=2)).view(*backlog("", "src/a.py", "b.py"))
    journal.start("t0").end("t0", files=("src/a.py",))
    assert brief(picked(journal.state, [0])) == [("t2", "t1", ("src/a.py",))]


def test_when_all_meet_the_graph_order_holds_and_no_slot_stays_free() -> None:
    state = JournalBuilder(Policy(jobs=3)).view(*backlog("a.py", "a.py", "a.py")).state
    assert brief(picked(state, [0, 1, 2])) == [("t0", "", ()), ("t1", "", ()), ("t2", "", ())]


def test_a_lower_priority_never_goes_before_a_higher_one() -> None:
    tasks = backlog("a.py", "a.py", "b.py", priorities=(1, 1, 2))
    state = JournalBuilder(Policy(jobs=2)).view(*tasks).state
    assert [c.task for c in picked(state, [0, 1])] == ["t0", "t1"]


def test_a_suggestion_comes_first_and_is_reordered_in_the_same_way() -> None:
    journal = JournalBuilder(Policy(jobs=2)).view(*backlog("a.py", "a.py", "a.py", "b.py", "c.py")).start("t0")
    journal.plan("agent", "t1", "t3")
    assert brief(picked(journal.state, [1])) == [("t3", "t1", ("a.py",))]
    only = JournalBuilder(Policy(jobs=2)).view(*backlog("a.py", "a.py", "b.py")).start("t0").plan("planner", "t1")
    assert [(c.task, c.why, c.passed) for c in picked(only.state, [1])] == [("t1", "planner", "")]


def test_a_few_of_many_common_files_are_told() -> None:
    names = tuple(f"src/f{i}.py" for i in range(9))
    tasks = [replace(t, mentions=names if t.id != "t2" else ()) for t in backlog("", "", "")]
    state = JournalBuilder(Policy(jobs=2)).view(*tasks).state
    assert picked(state, [0, 1])[1].meets == names[: picking.MAX_MEETS]


def test_a_conflict_is_tried_again_when_what_ran_beside_it_is_over() -> None:
    journal = JournalBuilder(Policy(jobs=3)).view(*backlog("a.py", "a.py", "b.py", "a.py"))
    for name in ("t0", "t1", "t2"):
        journal.start(name, slot=int(name[1]))
    journal.end("t0", files=("a.py",))
    journal.chain(conflicts=(SentBack(1, "conflicts", ("a.py",)),))
    assert [r.task for r in picking.retries(journal.state)] == [], "t1 changes the same file"
    journal.start("t3", slot=0)
    journal.end("t2", files=("b.py",)).end("t1", "failed", failure="no_diff")
    assert sorted(r.task for r in picking.retries(journal.state)) == ["t0", "t1"], "what began later is not waited for"


def test_it_can_be_switched_off() -> None:
    state = JournalBuilder(Policy(jobs=2, avoid_conflicts=False)).view(*backlog("a.py", "a.py", "b.py")).state
    assert brief(picked(state, [0, 1])) == [("t0", "", ()), ("t1", "", ())]


def test_only_so_many_tasks_are_looked_at() -> None:
    state = JournalBuilder(Policy(jobs=2)).view(*backlog(*["a.py"] * (picking.LOOKAHEAD + 1), "b.py")).state
    assert [c.task for c in picked(state, [0, 1])] == ["t0", "t1"]


@pytest.mark.parametrize("others", [picking.MAX_PASSES - 1, picking.MAX_PASSES])
def test_a_task_that_was_passed_over_often_enough_has_its_turn(others: int) -> None:
    """`t0` works on for long; `t1` meets it, and what comes behind is started again and again."""
    files = ["a.py", "a.py", *["b.py"] * (picking.MAX_PASSES + 1)]
    journal = JournalBuilder(Policy(jobs=1)).view(*backlog(*files)).start("t0")
    for i in range(2, 2 + others):
        journal.start(f"t{i}", slot=1).end(f"t{i}").chain().land()
    expected = "t1" if others == picking.MAX_PASSES else f"t{2 + others}"
    assert [c.task for c in picked(journal.state, [1])] == [expected]


def test_what_was_started_before_a_task_could_be_does_not_count_as_passing_it_over() -> None:
    late = replace(task("t1", "t0", minutes=1), mentions=("a.py",))
    tasks = [t for t in backlog("z.py", "", *["b.py"] * 40, "a.py") if t.id != "t1"]
    journal = JournalBuilder(Policy(jobs=1)).view(*tasks, late)
    for i in range(2, 22):
        journal.start(f"t{i}", slot=1).end(f"t{i}").chain().land()
    journal.start("t0").end("t0").chain().land()
    journal.start("t42")
    assert brief(picked(journal.state, [0])) == [("t22", "t1", ("a.py",))]


FILES = st.lists(st.sampled_from(["", "a.py", "b.py", "c.py", "d/", "d/e.py"]), min_size=1, max_size=12)


@given(FILES, st.data(), st.integers(1, 6))
def test_the_order_is_one_of_equal_priorities_and_every_slot_is_filled(
    files: list[str], data: st.DataObject, slots: int
) -> None:
    priorities = [data.draw(st.integers(0, 2)) for _ in files]
    state = JournalBuilder(Policy(jobs=slots)).view(*backlog(*files, priorities=priorities)).state
    free = list(range(slots))
    ours = picked(state, free)
    plain = picked(without_predictions(state), free)
    assert len(ours) == len(plain) == len({c.task for c in ours})
    tasks = state.backlog.tasks
    assert [tasks[c.task].priority for c in ours] == [tasks[c.task].priority for c in plain]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.integers(1, 6))
def test_without_a_prediction_the_order_is_that_of_the_graph(priorities: list[int], slots: int) -> None:
    state = JournalBuilder(Policy(jobs=slots)).view(*backlog(*[""] * len(priorities), priorities=priorities)).state
    order = [t.id for t in state.backlog.ready(state.now)]
    assert brief(picked(state, list(range(slots)))) == [(t, "", ()) for t in order[:slots]]


@given(FILES)
def test_a_run_that_goes_on_takes_every_task_in_the_end(files: list[str]) -> None:
    journal = JournalBuilder(Policy(jobs=1)).view(*backlog("a.py", *files)).start("t0")
    taken: list[str] = []
    while claims := picked(journal.state, [1]):
        taken.append(claims[0].task)
        journal.start(claims[0].task, slot=1).end(claims[0].task).chain().land()
    assert sorted(taken) == sorted(f"t{i + 1}" for i in range(len(files)))


def without_predictions(state: RunState) -> RunState:
    plain = state.backlog.changed(replace(t, mentions=()) for t in state.backlog.tasks.values())
    return replace(state, backlog=plain)
