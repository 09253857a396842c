from __future__ import annotations

from dataclasses import replace

import pytest

from hew_loop.core.agent_answer import AgentAnswer
from hew_loop.core.iteration import AgentReport
from hew_loop.engine.judging import verdict_on
from hew_loop.repo.worktrees import Collected

LEFT = Collected(head="b" * 40, dirty=False, unmerged=(), salvage=None, descends=True)
FILES = ("a.txt",)

VERDICTS: dict[str, tuple[AgentReport, AgentAnswer, Collected, tuple[str, ...], tuple[str, ...], bool, object]] = {
    "a diff is done": (AgentReport(), AgentAnswer(), LEFT, FILES, (), False, ("done", None)),
    "a diff beats the word": (AgentReport(), AgentAnswer("no_change"), LEFT, FILES, (), False, ("done", None)),
    "nothing is never done": (AgentReport(), AgentAnswer("done"), LEFT, (), (), False, ("failed", "no_diff")),
    "no_change is taken": (AgentReport(), AgentAnswer("no_change"), LEFT, (), (), False, ("no_change", None)),
    "no_change over carried work": (AgentReport(), AgentAnswer("no_change"), LEFT, (), (), True, ("done", None)),
    "done over carried work": (AgentReport(), AgentAnswer("done"), LEFT, (), (), True, ("failed", "no_diff")),
    "refused tools over carried work": (AgentReport(denials=("Bash",)), AgentAnswer(), LEFT, (), (), True,
                                        ("failed", "permission_denied")),
    "blocked, with a diff": (AgentReport(), AgentAnswer("blocked"), LEFT, FILES, (), False,
                             ("blocked", "agent_blocked")),
    "failed by its own word": (AgentReport(), AgentAnswer("failed"), LEFT, FILES, (), False,
                               ("failed", "agent_failed")),
    "a failed program, with a diff": (AgentReport("killed"), AgentAnswer("done"), LEFT, FILES, (), False,
                                      ("failed", "killed")),
    "an empty stream, with a diff": (AgentReport("empty"), AgentAnswer(), LEFT, FILES, (), False, ("done", None)),
    "an empty stream": (AgentReport("empty"), AgentAnswer(), LEFT, (), (), False, ("failed", "empty")),
    "refused tools": (AgentReport(denials=("Bash",)), AgentAnswer(), LEFT, (), (), False,
                      ("failed", "permission_denied")),
    "markers": (AgentReport(), AgentAnswer("done"), replace(LEFT, unmerged=("a.txt",)), FILES, (), False,
                ("failed", "unmerged")),
    "a rewritten past": (AgentReport(), AgentAnswer("done"), replace(LEFT, descends=False), FILES, (), False,
                         ("failed", "foreign_work")),
    "another's work": (AgentReport(), AgentAnswer("done"), LEFT, FILES, ("loop/r/x.1",), False,
                       ("failed", "foreign_work")),
}  # fmt: skip


@pytest.mark.parametrize("case", VERDICTS)
def test_a_verdict_is_given_by_the_diff_then_by_the_word(case: str) -> None:
    report, answer, left, files, foreign, carried, expected = VERDICTS[case]
    outcome, failure, _ = verdict_on(
        report=report, answer=answer, left=left, files=files, foreign=foreign, carried=carried, cut_off=False
    )
    assert (outcome, failure) == expected


@pytest.mark.parametrize(("refused", "expected"), [((), "done"), (("Bash",), "failed")])
def test_an_agent_that_goes_on_from_what_a_limit_cut_off_may_find_it_complete(
    refused: tuple[str, ...], expected: str
) -> None:
    report = AgentReport(denials=refused)
    outcome, _, _ = verdict_on(
        report=report, answer=AgentAnswer(), left=LEFT, files=(), foreign=(), carried=True, cut_off=True
    )
    assert outcome == expected
