"""The sentences that a run leaves in the tracker: what they name is there to be looked at."""

from __future__ import annotations

from dataclasses import replace

from hew_loop.core.iteration import IterationResult
from hew_loop.core.outcome import park_bug, release_note
from tests.core.test_transitions import Story
from tests.support.world_parts import BASE, RUN_ID, policy, task

WORK = IterationResult("done", start=BASE, head="head", exit_code=0)
NOTHING = IterationResult("failed", "no_diff", "nothing has changed", start=BASE, head=BASE, exit_code=0)


def test_the_bug_of_a_park_names_the_newest_branch_that_holds_work_and_all_that_went_wrong() -> None:
    story = Story(task("a"), settings=policy(attempts=2))
    story.claim("a")
    story.work("a", WORK)
    story.chain(1)
    story.gate("c1", "failed", 1)
    story.gate("c1", "failed", 1, purpose="confirm", reason="make test: exit code 1", tail="1 failed")
    story.work("a", NOTHING)

    title, text = park_bug(story.state, story.state.records["a"])
    assert title == "[agent-failed] a: no_diff: nothing has changed"
    assert text.splitlines() == [
        f"The loop gave up on a after 2 attempts ({RUN_ID}).",
        "",
        "Reason: no_diff: nothing has changed",
        f"Branch: loop/{RUN_ID}/a.1",
        "",
        "Look at it:",
        f"    git log -p {BASE[:12]}..loop/{RUN_ID}/a.1",
        f"    loop logs {RUN_ID} --iter 2",
        "",
        "When it is mended, or the task may be tried again, close this bug: it blocks the task until then.",
        "",
        "What the last attempt was up against:",
        "",
        "The last attempt ended without changing anything. Change the code, or answer no_change."
        " It said: nothing has changed",
        "",
        "And before that:",
        "",
        "Merged with what landed meanwhile, your work fails the gate (make test: exit code 1). Its output ends with:",
        "1 failed",
    ]


def test_where_no_attempt_left_work_no_branch_is_named() -> None:
    story = Story(task("a"), settings=policy(attempts=1))
    story.claim("a")
    story.work("a", NOTHING)

    record = story.state.records["a"]
    _, text = park_bug(story.state, record)
    assert "Branch: none, no attempt left any work\n" in text
    assert "after 1 attempt (" in text
    assert "git log" not in text
    assert release_note(story.state, replace(record, then="returned")) == f"returned by {RUN_ID} after attempt 1"


def test_what_is_given_back_says_where_its_work_is() -> None:
    story = Story(task("a"))
    story.claim("a")
    story.work("a", WORK)

    record = replace(story.state.records["a"], then="returned")
    assert (
        release_note(story.state, record) == f"returned by {RUN_ID} after attempt 1; its work is on loop/{RUN_ID}/a.1"
    )
