"""A free slot waits for the planner once, and only as long as its answers are of use."""

from __future__ import annotations

from datetime import timedelta

import pytest

from hew_loop.core import actions as ac
from hew_loop.core import events as ev
from hew_loop.core import planning, recovery, runtime_choice
from hew_loop.core.policy import PlannerSettings, Policy
from tests.support.journals import JournalBuilder, task


def silent(night: JournalBuilder, name: str, *, batch: int | None = None) -> None:
    """An iteration that ends without a suggestion."""
    night.start(name, batch=batch, why="planner" if batch else "graph").end(name)


def ask(night: JournalBuilder) -> int:
    """The planner is asked; the intent."""
    (question,) = planning.plan(night.state, night.now)
    assert isinstance(question, ac.AskPlanner)
    return night.intend(question)


def answer(night: JournalBuilder, n: int, *ids: str, took_s: float = 2, reason: str = "") -> None:
    number = len(night.state.batches) + 1
    source = "skipped" if reason else "planner"
    night.add(
        ev.BatchPlanned(number, source, ids, reason=reason, n=n, after=len(night.state.iterations), took_s=took_s)
    )


def is_awaited(night: JournalBuilder) -> bool:
    return planning.is_awaited(night.state, night.now)


@pytest.fixture
def night() -> JournalBuilder:
    return JournalBuilder(Policy(runtime="claude", jobs=1)).view(*(task(f"t-{n}") for n in range(9)))


def test_a_planner_whose_suggestion_was_taken_is_waited_for_again(night: JournalBuilder) -> None:
    silent(night, "t-0")
    n = ask(night)
    assert is_awaited(night)
    answer(night, n, "t-3")
    silent(night, "t-3", batch=1)
    ask(night)
    assert is_awaited(night)
    night.wait(20)
    assert not is_awaited(night)


@pytest.mark.parametrize(
    ("ids", "fields"),
    [((), {}), (("t-0",), {}), (("t-3",), {"took_s": 30}), ((), {"reason": "parse_error: none"})],
    ids=["names none", "names what is finished", "was too slow", "failed"],
)
def test_after_an_answer_in_vain_nobody_waits_for_the_next_one(
    night: JournalBuilder, ids: tuple[str, ...], fields: dict[str, float]
) -> None:
    silent(night, "t-0")
    answer(night, ask(night), *ids, **fields)  # type: ignore[arg-type]
    silent(night, "t-3", batch=1 if fields.get("took_s") else None)
    ask(night)
    assert not is_awaited(night)


def test_an_agent_that_suggests_while_the_planner_thinks_does_not_take_its_number() -> None:
    night = JournalBuilder(Policy(runtime="claude", jobs=3)).view(*(task(f"t-{n}") for n in range(9)))
    night.start("t-0").start("t-1", slot=1).start("t-2", slot=2).end("t-0")
    n = ask(night)
    for name in ("t-1", "t-2"):
        night.end(name, next_iteration=("t-5",), after_s=2)
        (suggested,) = planning.plan(night.state, night.now)
        assert isinstance(suggested, ev.BatchPlanned)
        night.add(suggested)
    night.add(ev.BatchPlanned(1, "planner", ("t-7",), after=1, n=n, took_s=3))
    assert [(batch.number, batch.source) for batch in night.state.batches] == [
        (2, "agent"),
        (3, "agent"),
        (1, "planner"),
    ]


def test_a_runtime_that_is_held_back_is_not_asked_before_an_iteration_has_ended_well_and_has_not_failed() -> None:
    night = JournalBuilder(
        Policy(runtime="claude", fallback_runtime="codex", planner=PlannerSettings(runtime="claude"))
    )
    night.view(*(task(f"t-{n}") for n in range(20))).start("t-0")
    night.end("t-0", "failed", failure="usage_limit", reset_at=night.now + timedelta(hours=1))
    for n in range(1, 7):
        (skipped,) = planning.plan(night.state, night.now)
        assert isinstance(skipped, ev.BatchPlanned)
        assert skipped.reason == "planner_disabled: claude is held back: usage_limit"
        runtime = runtime_choice.choose(night.state, night.now)
        assert runtime is not None
        assert runtime == ("codex" if n < 6 else "claude")
        night.add(skipped).start(f"t-{n}", runtime=runtime).end(f"t-{n}")
        night.wait(7200 if n == 5 else 0)  # its hold is over, and nothing has ended well behind it
    ask(night)


def test_what_a_planner_used_that_died_with_the_loop_is_unknown_and_not_nothing(night: JournalBuilder) -> None:
    silent(night, "t-0")
    before = night.state.spend
    n = ask(night)
    night.add(recovery.settled(n, night.state.intents[n], recovery.Found()))
    after = night.state.spend
    assert (after.unknown_usage, after.unknown_cost) == (before.unknown_usage + 1, before.unknown_cost + 1)
