from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hew_loop.core.batch_plan import BatchPlan, BatchPlanError, Pick, PlannerTokens, narrow, read_batch_plan

AT = datetime(2026, 3, 1, 4, 5, 6, tzinfo=UTC)


def test_a_plan_is_written_without_what_it_does_not_have() -> None:
    plan = BatchPlan(iter_number=7, task_ids=("a", "b"), source="agent", created_at=AT)

    assert json.loads(plan.to_json()) == {
        "schema_version": 1,
        "iter_number": 7,
        "task_ids": ["a", "b"],
        "source": "agent",
        "created_at": "2026-03-01T04:05:06Z",
    }
    assert plan.to_json().endswith("}\n")


@pytest.mark.parametrize(
    "plan",
    [
        BatchPlan(iter_number=0, source="skipped", reason="planner_disabled", created_at=AT),
        BatchPlan(
            iter_number=1, task_ids=("a",), source="planner", created_at=AT, planner_tokens=PlannerTokens(input=3)
        ),
    ],
)
def test_a_plan_that_was_written_is_read_back(plan: BatchPlan) -> None:
    assert read_batch_plan(plan.to_json()) == plan


def test_members_of_a_later_hew_are_passed_over() -> None:
    assert read_batch_plan(member(note="new")) == BatchPlan(iter_number=1, source="agent", created_at=AT)


def member(**changes: Any) -> str:
    return json.dumps(
        {"schema_version": 1, "iter_number": 1, "source": "agent", "created_at": "2026-03-01T04:05:06Z"} | changes
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (member(schema_version=2), "has schema_version 2; this program reads 1"),
        (member(schema_version="1"), "has schema_version '1'; this program reads 1"),
        (member(schema_version=True), "has schema_version True; this program reads 1"),
        ("{}", "has schema_version None; this program reads 1"),
        ("[]", "not a JSON object"),
        ("", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        (member(source="oracle"), "damaged: source: "),
        (member(created_at="2026-03-01T04:05:06"), "damaged: created_at: "),
        (member(task_ids=[1]), "damaged: task_ids.0: "),
    ],
)
def test_what_is_no_plan_of_this_version_is_refused(text: str, message: str) -> None:
    with pytest.raises(BatchPlanError, match=message) as refused:
        read_batch_plan(text)
    assert refused.value.hint


def test_a_suggestion_narrows_what_is_startable_in_graph_order() -> None:
    assert narrow(["c", "x", "a"], ["a", "b", "c"]) == Pick(("a", "c"), narrowed=True)


@pytest.mark.parametrize("plan_ids", [(), ("x",)])
def test_a_suggestion_without_a_startable_task_holds_nothing_back(plan_ids: tuple[str, ...]) -> None:
    assert narrow(plan_ids, ["a", "b"]) == Pick(("a", "b"), narrowed=False)


tasks = st.lists(st.sampled_from("abcdef"), unique=True)


@settings(deadline=None)
@given(st.lists(st.sampled_from("abcdefxy")), tasks)
def test_no_suggestion_starves_a_startable_task(plan_ids: list[str], startable: list[str]) -> None:
    left, taken = list(startable), list[str]()
    while left:
        pick = narrow(plan_ids, left)
        taken.append(pick.ids[0])
        left.remove(pick.ids[0])

    suggested = [task for task in startable if task in plan_ids]
    assert taken == suggested + [task for task in startable if task not in plan_ids]
