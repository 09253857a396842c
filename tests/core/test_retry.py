from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest

from hew_loop.core.iteration import FailureClass, IterationResult
from hew_loop.core.retry import BACKOFF_MINUTES, Consequence, Hold, consequence, evidence_of, hold_after

NOW = datetime(2026, 3, 1, 23, 0, tzinfo=UTC)

CONSEQUENCES: dict[Consequence, set[FailureClass]] = {
    "later": {"rate_limit", "usage_limit", "overloaded", "server_error", "network", "timeout", "bad_response"},
    "run": {"auth", "credit", "model_not_found", "usage_error", "session", "spawn_error"},
    "cancelled": {"cancelled"},
    "lost": {"lost"},
    "withdrawn": {"withdrawn"},
    "task": {
        "empty", "permission_denied", "bad_request", "prompt_too_long", "refusal", "incomplete", "max_turns",
        "budget", "killed", "truncated", "unknown", "stalled", "timed_out", "agent_failed", "agent_blocked",
        "no_diff", "unmerged", "foreign_work", "setup_failed", "worktree_broken",
    },
}  # fmt: skip


def failed(failure: FailureClass, **fields: object) -> IterationResult:
    return IterationResult("failed", failure, **fields)  # type: ignore[arg-type]


def test_every_failure_class_has_the_consequence_of_the_table() -> None:
    expected = {failure: follows for follows, failures in CONSEQUENCES.items() for failure in failures}

    assert {failure: consequence(failure) for failure in get_args(FailureClass)} == expected


def test_a_named_reset_is_waited_for() -> None:
    reset = NOW + timedelta(hours=3)

    assert hold_after(failed("usage_limit", message="limit", reset_at=reset), NOW, 2) == Hold(
        reset, 2, "usage_limit: limit"
    )


@pytest.mark.parametrize(
    "reset", [None, NOW, NOW - timedelta(hours=1), NOW + timedelta(days=9)], ids=["none", "now", "past", "too far"]
)
def test_without_a_credible_reset_the_wait_grows(reset: datetime | None) -> None:
    hold = hold_after(failed("rate_limit", reset_at=reset), NOW, 0)

    assert hold == Hold(NOW + timedelta(minutes=1), 1, "rate_limit")


def test_waits_grow_to_half_an_hour_and_stay_there() -> None:
    step, minutes = 0, list[float]()
    for _ in range(len(BACKOFF_MINUTES) + 2):
        hold = hold_after(failed("overloaded"), NOW, step)
        minutes.append((hold.until - NOW).total_seconds() / 60)
        step = hold.step

    assert minutes == [1, 2, 4, 8, 16, 30, 30, 30]


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
