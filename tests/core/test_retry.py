from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hew_loop.core import retry
from hew_loop.core.iteration import FailureClass, IterationResult
from hew_loop.core.retry import BACKOFF_MINUTES, TABLE, Consequence, Health, after_failure, after_success, evidence_of

NOW = datetime(2026, 3, 1, 23, 0, tzinfo=UTC)
DOCS = Path(__file__).parents[2] / "docs" / "agents.md"

CONSEQUENCES: dict[Consequence, set[FailureClass]] = {
    "later": {"rate_limit", "usage_limit", "overloaded", "server_error", "network", "timeout", "bad_response"},
    "run": {"auth", "credit", "model_not_found", "usage_error", "session", "spawn_error"},
    "cancelled": {"cancelled"},
    "lost": {"lost"},
    "withdrawn": {"withdrawn"},
    "park": {"agent_blocked"},
    "task": {
        "empty", "permission_denied", "bad_request", "prompt_too_long", "refusal", "incomplete", "max_turns",
        "budget", "killed", "truncated", "unknown", "stalled", "timed_out", "agent_failed",
        "no_diff", "unmerged", "foreign_work", "setup_failed", "worktree_broken",
    },
}  # fmt: skip


def failed(failure: FailureClass, **fields: object) -> IterationResult:
    return IterationResult("failed", failure, **fields)  # type: ignore[arg-type]


def after(health: Health, failure: FailureClass, *, started: datetime = NOW, **fields: object) -> Health:
    return after_failure(health, failed(failure, **fields), started=started, now=NOW, seed="a run:claude:7")


def test_every_failure_class_has_the_consequence_of_the_table() -> None:
    expected = {failure: follows for follows, failures in CONSEQUENCES.items() for failure in failures}

    assert {failure: row.then for failure, row in TABLE.items()} == expected
    assert set(TABLE) == set(get_args(FailureClass))


def test_every_row_of_the_table_stands_in_the_documentation() -> None:
    lines = DOCS.read_text().splitlines()

    assert [f for f, row in TABLE.items() if f"| `{f}` | {row.then} | {row.about} |" not in lines] == []


def test_a_named_reset_is_waited_for_with_a_little_jitter() -> None:
    reset = NOW + timedelta(hours=3)
    held = after(Health(tries=2), "usage_limit", message="limit", reset_at=reset, reset_from="rate_limit_event")

    assert held.until is not None
    assert timedelta() <= held.until - reset <= timedelta(seconds=15)
    assert held == Health(
        until=held.until, since=NOW, failure="usage_limit", reason="usage_limit: limit", read_from="rate_limit_event"
    )


@pytest.mark.parametrize(
    "reset", [None, NOW, NOW - timedelta(hours=1), NOW + timedelta(days=9)], ids=["none", "now", "past", "too far"]
)
def test_without_a_credible_reset_the_wait_grows(reset: datetime | None) -> None:
    held = after(Health(), "rate_limit", reset_at=reset)

    assert held.until is not None
    assert timedelta(minutes=1) <= held.until - NOW <= timedelta(minutes=1.1)
    assert (held.tries, held.outages, held.read_from) == (1, 0, "")


@pytest.mark.parametrize(("failure", "gives_up"), [("overloaded", None), ("network", 10)])
def test_waits_grow_to_half_an_hour_and_an_outage_is_given_up_after_three_hours(
    failure: FailureClass, gives_up: int | None
) -> None:
    health, minutes = Health(), list[int]()
    for tried in range(1, 15):
        health = after(health, failure)
        assert health.until is not None
        waited = (health.until - NOW).total_seconds() / 60
        minutes.append(next(m for m in BACKOFF_MINUTES if m <= waited <= 1.1 * m))
        assert health.given_up == (gives_up is not None and tried >= gives_up)

    assert minutes[: len(BACKOFF_MINUTES)] == list(BACKOFF_MINUTES)
    assert set(minutes[len(BACKOFF_MINUTES) :]) == {30}


def test_what_was_started_before_the_hold_neither_lengthens_nor_ends_it() -> None:
    held = after(Health(), "rate_limit")
    early = NOW - timedelta(seconds=30)

    assert after(held, "rate_limit", started=early) == held
    assert after_success(held, started=early) == held
    assert after_success(held, started=NOW + timedelta(minutes=2)) == Health()


def test_a_late_news_of_a_farther_reset_is_believed() -> None:
    held = after(Health(), "rate_limit")
    reset = NOW + timedelta(hours=2)
    farther = after(held, "usage_limit", started=NOW - timedelta(seconds=30), reset_at=reset)

    assert farther.until is not None
    assert farther.until >= reset
    assert farther.since == held.since


def test_one_crash_is_the_tasks_and_three_in_a_row_are_the_runtimes() -> None:
    once = after(Health(), "killed")
    twice = after(once, "truncated")
    thrice = after(twice, "killed")

    assert (once, twice) == (Health(crashes=1), Health(crashes=2))
    assert thrice.until is not None
    assert after(Health(), "no_diff") == Health()


def test_a_runtime_that_works_for_no_task_is_given_up_at_once() -> None:
    assert after(Health(), "auth").given_up
    assert not after(Health(), "rate_limit").given_up


@given(
    st.sampled_from(get_args(FailureClass)),
    st.integers(0, 20),
    st.integers(0, 5),
    st.one_of(st.none(), st.integers(-(10**6), 10**7)),
    st.text(max_size=20),
)
def test_a_hold_lasts_a_minute_at_least_or_until_the_reset(
    failure: FailureClass, tries: int, crashes: int, reset_s: int | None, seed: str
) -> None:
    reset = None if reset_s is None else NOW + timedelta(seconds=reset_s)
    before = Health(tries=tries, crashes=crashes)
    held = after_failure(before, failed(failure, reset_at=reset), started=NOW, now=NOW, seed=seed)

    if held.until is not None:
        credible = reset is not None and NOW < reset <= NOW + retry.FARTHEST_RESET
        earliest = reset if credible and reset is not None else NOW + timedelta(minutes=1)
        assert earliest <= held.until <= NOW + retry.FARTHEST_RESET + timedelta(seconds=15)
    assert held == after_failure(before, failed(failure, reset_at=reset), started=NOW, now=NOW, seed=seed)


@pytest.mark.parametrize("failure", get_args(FailureClass))
def test_every_failure_leaves_a_sentence_for_the_next_attempt(failure: FailureClass) -> None:
    text = evidence_of(failed(failure), "loop/r/t.1")

    assert text.startswith("The last attempt ")
    assert text.endswith(".")


def test_evidence_names_the_branch_of_what_was_left() -> None:
    left = evidence_of(failed("timed_out", start="a", head="b"), "loop/r/t.1")
    nothing = evidence_of(failed("timed_out", start="a", head="a"), "loop/r/t.1")

    assert "loop/r/t.1" in left
    assert "loop/r/t.1" not in nothing


def test_evidence_names_the_files_with_markers_and_what_the_agent_said() -> None:
    assert "a.py, b.py" in evidence_of(failed("unmerged", files=("a.py", "b.py")), "x")
    assert evidence_of(failed("max_turns", message="50 turns"), "x") == (
        "The last attempt failed (max_turns). It said: 50 turns"
    )
