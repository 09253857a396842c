"""The morning summary, whole: what landed, what did not and why, what it cost, and what to type next."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from hew_loop.core import events as ev
from hew_loop.core.iteration import Usage
from hew_loop.core.policy import Policy, Price, Scope, VerifySettings
from hew_loop.core.task import Edge
from hew_loop.reports.picture import picture, spend_words
from hew_loop.reports.summary import summarise, to_json
from hew_loop.reports.summary_text import to_text
from tests.support.golden import golden
from tests.support.journals import GATED, JournalBuilder, a_night, task

HOSTILE = 'x" onload=1 \x1b[31m\x1b]0;title\x07 <b>`$(reboot)`</b> %%{init}%% \u202eback\nsecond line'


def text_of(journal: JournalBuilder, *, width: int = 200, died: bool = False) -> str:
    return to_text(summarise(journal.state, now=journal.now, died=died), width=width)


def headline_of(journal: JournalBuilder) -> str:
    return summarise(journal.state, now=journal.now).headline


def value_of(journal: JournalBuilder) -> dict[str, Any]:
    return json.loads(to_json(summarise(journal.state, now=journal.now)))


def two_ready(policy: Policy = GATED, **start: Any) -> JournalBuilder:
    return JournalBuilder(policy, **start).view(task("t-1", "First"), task("t-2", "Second"))


def test_a_whole_night_is_told_task_by_task() -> None:
    text = text_of(a_night())
    assert text == golden(__file__, "night.txt", text)


def test_a_narrow_terminal_folds_texts_but_never_a_command() -> None:
    text = text_of(a_night(), width=70)
    assert text == golden(__file__, "night-narrow.txt", text)


def test_the_json_holds_the_same_facts() -> None:
    text = to_json(summarise(a_night().state, now=a_night().now))
    assert text == golden(__file__, "night.json", text)


def test_it_tells_a_run_that_still_works() -> None:
    journal = a_run_at_work()
    text = text_of(journal.wait(30))
    assert text == golden(__file__, "at-work.txt", text)


def test_a_run_that_died_is_told_up_to_its_last_event_with_the_way_on() -> None:
    journal = a_run_at_work().wait(3600)
    text = text_of(journal, died=True)
    assert text == golden(__file__, "died.txt", text)


def a_run_at_work() -> JournalBuilder:
    journal = JournalBuilder(replace(GATED, jobs=2))
    journal.view(task("t-1", "One"), task("t-2", "Two"), task("t-3", "Three"), task("t-4", "Four", after=["t-1"]))
    return journal.base_gate().start("t-1").start("t-2", slot=1).end("t-1", cost_usd=0.5).start("t-3")


def test_foreign_texts_are_one_line_and_steer_no_terminal() -> None:
    journal = JournalBuilder(replace(GATED, attempts=1)).view(task("t-1", HOSTILE)).base_gate()
    journal.start("t-1").end("t-1", "blocked", message=HOSTILE, warnings=(HOSTILE,)).park("t-1", "b; reboot")
    text = text_of(journal.stop().finish(1))
    assert all(c == "\n" or c.isprintable() for c in text)
    assert text == golden(__file__, "hostile.txt", text)


def test_a_night_that_landed_nothing_says_so_first() -> None:
    journal = two_ready(replace(GATED, attempts=1)).base_gate()
    journal.start("t-1").end("t-1", "failed", failure="no_diff").park("t-1", "bug-1")
    journal.start("t-2").end("t-2", "no_change").close("t-2").stop().finish(1)
    assert headline_of(journal) == "2 tasks taken, none landed: 1 closed without change, 1 parked"


def test_a_night_without_ready_tasks_says_so() -> None:
    journal = JournalBuilder().view(task("t-1", labels=("needs-human",))).stop().finish()
    assert headline_of(journal) == "nothing was ready; 1 never started"


def test_a_base_on_which_the_gate_fails_is_the_headline() -> None:
    journal = two_ready().base_gate("failed", "exit code 1")
    journal.stop("gate_error", "the gate fails on the base commit: exit code 1").finish(1)
    expected = "no task taken: gate_error (the gate fails on the base commit: exit code 1); 2 never started"
    assert headline_of(journal) == expected
    assert value_of(journal)["gate"]["base"] == "failed"


def test_work_that_verify_refused_is_not_called_delivered() -> None:
    journal = two_ready().base_gate().work("t-1").gate_and_land().stop()
    journal.verify("failed", reason="exit code 2").finish(1)
    value = value_of(journal)
    assert value["headline"] == "1 landed, 1 never started; verify failed; not delivered"
    assert value["delivery"] == {
        "state": "not_delivered",
        "branch": f"loop/{value['run_id']}/integration",
        "commit": journal.state.queue.tip,
        "reason": "verify did not pass",
        "next": f"loop deliver {value['run_id']}",
    }


def test_a_refused_delivery_is_in_the_headline_with_its_reason_and_command() -> None:
    journal = two_ready().base_gate().work("t-1").gate_and_land().stop().verify()
    text = text_of(journal.deliver(refused="app.py is modified in the checkout").finish(1))
    assert text == golden(__file__, "refused.txt", text)


def test_a_run_that_delivers_a_branch_keeps_it_and_is_no_failure() -> None:
    policy = replace(GATED, deliver="branch", verify=VerifySettings(enabled=False))
    journal = two_ready(policy).base_gate().work("t-1").gate_and_land().stop("max_iter").finish(4)
    value = value_of(journal)
    assert (value["headline"], value["delivery"]["state"]) == ("1 landed, 1 never started", "kept")


def test_what_landed_without_a_gate_is_shown_as_not_tested() -> None:
    journal = two_ready(Policy()).work("t-1").work("t-2").chain().land().stop().deliver().finish()
    text = text_of(journal)
    assert text == golden(__file__, "ungated.txt", text)


def test_a_gate_that_collected_nothing_is_not_tested_either() -> None:
    journal = two_ready().base_gate("not_tested").work("t-1").chain().gate("not_tested").land().stop().finish()
    (landed,) = (t for t in value_of(journal)["tasks"] if t["state"] == "landed")
    assert landed["tested"] is False


@pytest.mark.parametrize(
    ("spent", "tokens", "cost"),
    [
        ([], "0 (input 0, output 0, cache read 0, cache create 0)", "$0.00"),
        ([(None, None)], "unknown (1 iteration did not say)", "unknown (1 iteration did not say)"),
        (
            [(Usage(1000, 200, 30, 4), 0.125), (None, None)],
            "1,234 (input 1,000, output 200, cache read 30, cache create 4), and unknown for 1 iteration",
            "$0.12, and unknown for 1 iteration",
        ),
    ],
)
def test_unknown_spend_is_unknown_and_never_zero(
    spent: list[tuple[Usage | None, float | None]], tokens: str, cost: str
) -> None:
    journal = two_ready().base_gate()
    for number, (usage, usd) in enumerate(spent, 1):
        journal.work(f"t-{number}", usage=usage, cost=usd)
    lines = dict(line.split(maxsplit=1) for line in text_of(journal).splitlines() if " " in line)
    assert (lines["tokens"], lines["cost"]) == (tokens, cost)


PRICED = replace(GATED, prices=(("gpt-5-codex", Price(1.25, 10.0, cache_read=0.125)),))


def a_night_of_models() -> JournalBuilder:
    """Two models with a price of their own or ours, one that nobody knows the price of, one that says nothing."""
    journal = JournalBuilder(PRICED).view(*(task(f"t-{n}") for n in range(1, 6))).base_gate()
    usage = Usage(input=100_000, output=20_000, cache_read=400_000)
    journal.start("t-1").end("t-1", model="opus", usage=Usage(3000, 800, 96_000, 1000), cost_usd=1.5)
    journal.start("t-2").end("t-2", model="gpt-5-codex", usage=usage)
    journal.start("t-3").end("t-3", "failed", failure="killed", model="gpt-5-codex")
    journal.start("t-4").end("t-4", model="\x1b[31mmystery", usage=Usage(2000, 100))
    planned = ev.BatchPlanned(1, "planner", ("t-5",), after=4, usage=Usage(900, 50), model="haiku", took_s=2.0)
    journal.add(planned).start("t-5").end("t-5", "failed", failure="setup_failed", exit_code=None)
    return journal.stop("budget_usd").finish(1)


def test_each_model_has_its_tokens_and_its_cost_measured_estimated_or_unknown() -> None:
    text = text_of(a_night_of_models())
    assert text == golden(__file__, "models.txt", text)
    assert "~$1.88" in text


def test_the_spend_of_a_run_at_work_is_marked_in_the_same_way() -> None:
    journal = a_night_of_models()
    shown = picture(journal.state, now=journal.now, last_output={})
    assert spend_words(shown) == "623,850 tokens (+ 1 unknown), ~$1.88 (+ 3 unknown)"


def test_the_rows_of_all_models_add_up_to_the_whole() -> None:
    value = value_of(a_night_of_models())
    rows = value["models"]
    for key, total in value["tokens"].items():
        assert sum(row["tokens"][key] or 0 for row in rows) == total
    for key, total in value["cost"].items():
        assert sum(row["cost"][key] or 0 for row in rows) == pytest.approx(total)
    # What the summary adds up from its rows is what the budgets counted.
    assert value["cost"] == {"usd": 1.875, "estimated_usd": 0.375, "unknown_iterations": 3}
    assert value["cache_read_percent"] == 82.3
    assert [(r["runtime"], r["model"], r["iterations"], r["tasks"]) for r in rows] == [
        ("claude", "opus", 1, 1),
        ("claude", "gpt-5-codex", 2, 2),
        ("claude", "\x1b[31mmystery", 1, 1),
        ("planner", "haiku", 1, 0),
    ]


def test_returned_tasks_share_the_one_command_that_takes_them_up_again() -> None:
    journal = two_ready(replace(GATED, jobs=2)).base_gate().start("t-1").start("t-2", slot=1)
    journal.add(ev.StopRequested("now", "cancel")).stop("cancelled", "cancel")
    journal.end("t-1", "failed", failure="cancelled").end("t-2").release("t-1").release("t-2").finish(4)
    text = text_of(journal)
    assert text == golden(__file__, "returned.txt", text)


def test_a_task_that_a_person_took_back_is_withdrawn_with_its_work() -> None:
    journal = two_ready().base_gate().work("t-1").chain(withdrawn=(ev.SentBack(1, "assigned to alice"),))
    journal.release("t-1").stop().finish()
    withdrawn = value_of(journal)["tasks"][0]
    branch = f"loop/{journal.state.run_id}/t-1.1"
    assert (withdrawn["state"], withdrawn["why"], withdrawn["branch"]) == ("withdrawn", "assigned to alice", branch)
    assert withdrawn["next"] == [f"git log -p ba5e00000000..{branch}"]


def test_a_bd_tracker_is_told_with_its_own_command() -> None:
    journal = two_ready(replace(GATED, attempts=1), tracker="bd").base_gate()
    journal.start("t-1").end("t-1", "failed", failure="no_diff").park("t-1", "bd-7").stop("max_iter").finish(1)
    assert value_of(journal)["tasks"][0]["next"] == [
        f"loop logs {journal.state.run_id} --iter 1",
        "bd close bd-7",
        "loop run --scope ready --task t-1",
    ]


def test_a_checklist_is_told_with_its_marks_and_its_file() -> None:
    policy = replace(GATED, attempts=1, step=True, max_new=0)
    journal = JournalBuilder(policy, tracker="checklist", store="/p/PLAN 1.md")
    parent = (Edge("t-3", "parent-child"),)
    journal.view(task("t-1", "First"), task("t-3", type="epic"), task("t-4", edges=parent, status="closed"))
    journal.base_gate().start("t-1").end("t-1", "failed", failure="no_diff").park("t-1", "t-1-bug1")
    journal.view(*journal.state.backlog.tasks.values(), task("t-5")).stop("ready_empty").finish(1)
    parked, *others = value_of(journal)["tasks"]
    assert parked["next"] == [
        f"loop logs {journal.state.run_id} --iter 1",
        "in /p/PLAN 1.md: [ ] in place of [!]",
        "loop step --scope ready --checklist '/p/PLAN 1.md' --task t-1",
    ]
    assert {(t["task"], t["why"]) for t in others} == {
        ("t-3", "all its children are closed: tick it"),
        ("t-5", "added after the plan was made: the next one takes it"),
    }


def test_the_next_run_has_the_scope_of_this_one() -> None:
    policy = replace(GATED, scope=Scope("epics", ("e-1", "e 2")))
    child = (Edge("e-1", "parent-child"),)
    journal = JournalBuilder(policy).view(task("e-1", type="epic"), task("t-1", edges=child), task("t-9"))
    journal.stop("max_iter").finish(4)
    assert [(t["task"], t["next"]) for t in value_of(journal)["tasks"]] == [
        ("t-1", ["loop run --scope epics --epics 'e-1,e 2'"])
    ]


def test_each_task_that_was_not_started_says_what_it_waits_for() -> None:
    tomorrow = datetime(2026, 3, 2, 22, tzinfo=UTC)
    child, done = (Edge("e-1", "parent-child"),), (Edge("e-2", "parent-child"),)
    journal = JournalBuilder(held=(("t-5", "loop-20260228T220000Z-00000001"),)).view(
        task("t-1", labels=("needs-human",)),
        task("t-2", assignee="alice"),
        task("t-3", status="in_progress", assignee="bob"),
        task("t-4", defer_until=tomorrow),
        task("t-5"),
        task("t-6", after=["t-1", "t-2"]),
        task("t-7", status="closed"),
        task("t-8", "Has a closed one before it", after=["t-7"]),
        task("e-1", type="epic"),
        task("t-9", edges=child),
        task("e-2", type="epic"),
        task("t-a", status="closed", edges=done),
    )
    text = text_of(journal.stop("budget_tokens", "5 of 5 tokens").finish(4))
    assert text == golden(__file__, "not-started.txt", text)


def test_a_long_list_of_tasks_that_were_not_started_is_cut_and_counted() -> None:
    journal = JournalBuilder().view(*(task(f"t-{n:02}") for n in range(45))).stop("max_iter").finish(4)
    lines = text_of(journal).splitlines()
    assert lines[-1] == f"  and 15 more that were never started: loop summary {journal.state.run_id} --json"
    assert len(value_of(journal)["tasks"]) == 45


def test_what_agents_did_not_see_is_a_notice() -> None:
    journal = two_ready(dirty=("a.py", "b.py")).stop("max_iter").finish(4)
    assert [n["text"] for n in value_of(journal)["notices"]] == [
        "modified in your checkout at the start, so agents did not see it: a.py, b.py"
    ]


def test_the_age_of_a_running_task_follows_the_clock() -> None:
    journal = two_ready().base_gate().start("t-1")
    lines = summarise(journal.state, now=journal.state.now + timedelta(hours=2, seconds=5)).tasks
    assert lines[0].why == "in slot 0 for 2h 00m 05s, iter 1"


def test_files_are_counted_by_task_and_those_of_several_tasks_are_listed() -> None:
    journal = two_ready().base_gate()
    journal.start("t-1").end("t-1", files=("src/a.py", f"docs/{HOSTILE}"))
    journal.start("t-2").end("t-2", files=("src/a.py",)).gate_and_land()
    value = value_of(journal)
    assert [t["files"] for t in value["tasks"]] == [[f"docs/{HOSTILE}", "src/a.py"], ["src/a.py"]]
    assert value["shared_files"] == {"src/a.py": ["t-1", "t-2"]}
    text = text_of(journal)
    assert [line.split("; ")[-1] for line in text.splitlines() if "landed  " in line] == ["2 files", "1 file"]
    assert text.endswith("\nfiles touched by several tasks\n  src/a.py: t-1, t-2\n")
