"""`loop explain`, whole: a task's story from the state and the events of a run."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from hew_loop.core import actions as ac
from hew_loop.core import events as ev
from hew_loop.core.names import actor_name
from hew_loop.core.policy import Policy
from hew_loop.reports.explain import to_text
from hew_loop.reports.story import Story, tell, to_json
from tests.support.golden import golden
from tests.support.journals import GATED, RUN_ID, JournalBuilder, a_night, task

HOSTILE = "x\x1b[31m\x1b]0;title\x07 \u202eback\nsecond line"


def story_of(journal: JournalBuilder, task_id: str, **how: Any) -> Story:
    story = tell(journal.state, task_id, events=journal.events, now=journal.now, **how)
    assert story is not None
    return story


def text_of(journal: JournalBuilder, task_id: str, **how: Any) -> str:
    return to_text(story_of(journal, task_id, **how))


def crowded() -> JournalBuilder:
    """t-1 works on src/a.py; t-2 names it too and was passed over for t-3."""
    journal = JournalBuilder(replace(GATED, jobs=2))
    journal.view(
        task("t-1", "Change a", mentions=("src/a.py",)),
        task("t-2", "Change a again", mentions=("src/a.py", "docs/a.md")),
        task("t-3", "Change b", mentions=("src/b.py",)),
    )
    journal.base_gate().start("t-1")
    claim = ac.Claim("t-3", 1, actor_name(RUN_ID, 1), "graph", passed="t-2", meets=("src/a.py",))
    journal.add(ev.Claimed(journal.intend(claim)))
    return journal.start("t-3", slot=1)


def test_every_task_of_a_night_has_its_story() -> None:
    text = "\n".join(text_of(a_night(), f"t-{n}") for n in range(1, 9))
    assert text == golden(__file__, "stories.txt", text)


def test_the_json_holds_the_same_facts() -> None:
    text = to_json(story_of(a_night(), "t-2"))
    assert text == golden(__file__, "story.json", text)


def test_a_task_that_was_passed_over_is_told_for_which_one_and_which_files_meet() -> None:
    text = text_of(crowded(), "t-2")
    assert text == golden(__file__, "story-passed-over.txt", text)


def test_a_task_that_was_started_in_the_place_of_another_says_so() -> None:
    text = text_of(crowded().end("t-3", files=tuple(f"src/b{i}.py" for i in range(12))), "t-3")
    assert text == golden(__file__, "story-in-the-place.txt", text)


def test_the_predicted_files_and_those_that_meet_are_in_the_json() -> None:
    value = json.loads(to_json(story_of(crowded(), "t-2")))
    assert value["predicted"] == ["docs/a.md", "src/a.py"]
    assert value["meets"] == [{"task": "t-1", "files": ["src/a.py"]}]
    assert [(p["taken"], p["passed"], p["files"]) for p in value["passed"]] == [("t-3", "t-2", ["src/a.py"])]


def test_without_events_it_is_the_tracker_that_tells() -> None:
    journal = JournalBuilder(Policy()).view(task("t-1"), task("t-2", after=["t-1"]), task("t-3", status="closed"))
    stories = [tell(journal.state, t, now=journal.now) for t in ("t-1", "t-2", "t-3")]
    assert [(s.run_id, s.state, s.why, s.next) for s in stories if s] == [
        ("", "never_started", "it is ready: the next run starts it", ("loop run --scope ready --task t-1",)),
        ("", "never_started", "waits for t-1", ()),
        ("", "closed", "it was closed by somebody else", ()),
    ]
    assert tell(journal.state, "t-9", now=journal.now) is None


def test_a_task_that_left_the_tracker_keeps_its_story() -> None:
    journal = a_night().view(removed=("t-1",))
    assert story_of(journal, "t-1").state == "landed"


def test_what_landed_and_was_not_delivered_says_so_and_how_to_deliver_it() -> None:
    journal = (
        JournalBuilder().view(task("t-1")).base_gate().work("t-1").gate_and_land().stop().verify("failed").finish(1)
    )
    story = story_of(journal, "t-1")
    assert story.delivered is False
    assert story.next[-1] == f"loop deliver {RUN_ID}"
    assert "not delivered yet" in to_text(story)


def test_hostile_texts_reach_neither_the_terminal_nor_the_layout() -> None:
    journal = JournalBuilder(Policy()).view(
        task(HOSTILE, HOSTILE, type=HOSTILE, mentions=(HOSTILE,)), task("t-2", after=[HOSTILE])
    )
    journal.start(HOSTILE).end(HOSTILE, "failed", failure="unknown", message=HOSTILE, files=(HOSTILE,), model=HOSTILE)
    for task_id in (HOSTILE, "t-2"):
        text = text_of(journal, task_id)
        assert all(line.isprintable() for line in text.splitlines())
        assert "\nsecond line" not in text


def test_a_narrow_terminal_folds_sentences_but_never_a_command() -> None:
    story = story_of(a_night(), "t-5")
    folded = to_text(story, width=60).splitlines()
    commands = {f"  {command}" for command in story.next}
    assert commands <= set(folded)
    assert all(len(line) <= 60 for line in folded if line not in commands)
