"""What single events do to the state; whole runs are in `test_dispatcher` and `test_simulated_world`."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from hew_loop.core import actions as ac
from hew_loop.core import events as ev
from hew_loop.core.iteration import IterationResult, IterationSpec, Usage
from hew_loop.core.names import actor_name, branch_name
from hew_loop.core.policy import Policy
from hew_loop.core.state import RunState, Spend
from hew_loop.core.task import Task
from hew_loop.core.transitions import apply, begin, replay
from tests.support.world_parts import BASE, RUN_ID, T0, policy, task


class Story:
    """A journal written by hand."""

    def __init__(self, *tasks: Task, settings: Policy | None = None) -> None:
        start = ev.RunStarted(RUN_ID, BASE, settings or policy(), "main", BASE, "fake", "store")
        self.state: RunState = begin(ev.Stamped(1, T0, start))
        self.journal = [ev.Stamped(1, T0, start)]
        if tasks:
            self.view(*tasks)

    def add(self, *events: ev.Event) -> RunState:
        for event in events:
            stamped = ev.Stamped(len(self.journal) + 1, self.state.now + timedelta(seconds=1), event)
            self.journal.append(stamped)
            self.state = apply(self.state, stamped)
        return self.state

    def intend(self, action: ac.Action) -> int:
        n = self.state.next_n
        self.add(ev.Intended(n, action))
        return n

    def view(self, *changed: Task, removed: tuple[str, ...] = (), began_s_ago: float = 0.0) -> RunState:
        n = self.intend(ac.ReadTasks())
        return self.add(ev.ViewRead(n, self.state.now - timedelta(seconds=began_s_ago), changed, removed))

    def claim(self, task_id: str, slot: int = 0) -> RunState:
        return self.add(ev.Claimed(self.intend(ac.Claim(task_id, slot, actor_name(RUN_ID, slot), "graph"))))

    def work(self, task_id: str, result: IterationResult) -> RunState:
        record = self.state.records[task_id]
        attempt = record.attempts + 1
        spec = IterationSpec(
            RUN_ID, len(self.state.iterations) + 1, task_id, attempt, record.slot, self.state.queue.tip,
            branch_name(RUN_ID, task_id, attempt), record.actor, "fake",
        )  # fmt: skip
        return self.add(ev.IterationEnded(self.intend(ac.StartIteration(spec, "graph")), result))

    def chain(self, *numbers: int, **back: tuple[ev.SentBack, ...]) -> RunState:
        entries = tuple(ac.ChainEntry(n, "", f"head {n}", BASE) for n in numbers)
        links = tuple(ev.Link(n, f"c{n}", f"tree {n}") for n in numbers)
        return self.add(ev.ChainBuilt(self.intend(ac.BuildChain(self.state.queue.tip, entries)), links, **back))

    def gate(self, commit: str, verdict: str, *numbers: int, purpose: str = "prefix", **fields: object) -> RunState:
        action = ac.RunGate(len(self.state.gates) + 1, commit, "tree", purpose, numbers)  # type: ignore[arg-type]
        return self.add(ev.GateEnded(self.intend(action), verdict, **fields))  # type: ignore[arg-type]

    def land(self, commit: str, *numbers: int) -> RunState:
        return self.add(ev.Landed(self.intend(ac.Land(self.state.queue.tip, commit, numbers))))


DONE = IterationResult("done", start=BASE, head="head", summary="did it", usage=Usage(5), cost_usd=0.5, exit_code=0)


def test_a_journal_begins_with_run_started() -> None:
    with pytest.raises(ValueError, match="begins with run_started"):
        replay(())
    with pytest.raises(ValueError, match="begins with run_started"):
        replay((ev.Stamped(1, T0, ev.RunEnded(0)),))


def test_replaying_gives_the_live_state() -> None:
    story = Story(task("a"), task("b", "a"))
    story.claim("a")
    story.work("a", DONE)
    story.chain(1)
    story.gate("c1", "passed", 1)
    story.land("c1", 1)

    assert replay(ev.from_line(ev.to_line(s)) for s in story.journal) == story.state


def test_a_result_that_comes_twice_changes_nothing() -> None:
    story = Story(task("a"))
    story.claim("a")
    before = story.state

    after = story.add(ev.Claimed(2))

    assert after == replace(before, now=after.now, seq=after.seq)


def test_a_view_is_taken_but_for_what_we_wrote_after_its_read_began() -> None:
    story = Story(task("a"), task("b"))
    story.claim("a")
    stale = (task("a", priority=0), task("b", priority=0))

    old = story.view(*stale, began_s_ago=60).backlog.tasks
    new = story.view(*stale).backlog.tasks

    assert (old["a"].status, old["b"].priority) == ("in_progress", 0)
    assert (new["a"].status, new["a"].priority) == ("open", 0)


def test_the_first_view_says_what_was_there_at_the_start() -> None:
    story = Story(task("a"), task("b", status="closed"))
    story.view(task("c"))

    assert story.state.initial == {"a"}


def test_a_task_that_was_closed_while_the_loop_was_dead_is_noticed_too() -> None:
    story = Story(task("a"), task("x"))
    story.claim("a")
    story.work("a", DONE)
    story.add(ev.Resumed(settle=False))

    assert story.view(task("x", status="closed")).closed_meanwhile == {"x": {1}}


def test_ids_leave_a_suggestion_when_started_closed_or_removed() -> None:
    story = Story(*(task(t) for t in "abcde"))
    story.add(ev.BatchPlanned(1, "agent", ("a", "b", "c", "d")))
    story.claim("a")
    story.work("a", DONE)
    story.view(task("b", status="closed"), removed=("c",))
    assert story.state.suggestion is not None
    assert story.state.suggestion.ids == ("d",)

    story.add(ev.BatchPlanned(2, "agent", ()), ev.BatchPlanned(3, "skipped", reason="planner_disabled"))
    assert story.state.suggestion.number == 1
    story.add(ev.BatchPlanned(4, "agent", ("e",)))
    assert (story.state.suggestion.number, len(story.state.batches)) == (4, 4)


def test_a_refused_claim_leaves_the_task_as_it_was() -> None:
    story = Story(task("a"), task("b"))
    story.view(task("new"))
    n = story.intend(ac.Claim("new", 0, "me", "graph"))
    assert story.state.new_started == 1

    state = story.add(ev.ClaimRefused(n, "closed"))

    assert (state.records, state.new_started, state.refusals) == ({}, 0, {"new": 1})


def test_a_claim_that_the_tracker_did_not_answer_counts_as_a_failed_write() -> None:
    story = Story(task("a"))
    state = story.add(ev.ClaimRefused(story.intend(ac.Claim("a", 0, "me", "graph")), "locked", tracker_failed=True))
    assert (state.write_failures, state.write_failed_at, state.refusals) == (1, state.now, {})

    assert story.claim("a").write_failures == 0


def test_a_claim_that_may_have_been_made_all_the_same_is_still_to_be_released() -> None:
    story = Story(task("a"))
    n = story.intend(ac.Claim("a", 0, "me", "graph"))
    refused = story.add(ev.ClaimRefused(n, "no answer", tracker_failed=True, unclear=True))
    assert (refused.records["a"].phase, refused.write_failures) == ("releasing", 1)

    released = story.add(ev.TaskReleased(story.intend(ac.ReleaseTask("a", "me", ""))))
    assert (released.records["a"].phase, released.backlog.tasks["a"].assignee) == ("returned", "")


def test_what_an_iteration_spent_is_added_and_what_nobody_knows_is_counted() -> None:
    story = Story(task("a"), settings=policy(attempts=9))
    story.claim("a")
    story.work("a", replace(DONE, outcome="failed", failure="max_turns"))
    story.work("a", IterationResult("failed", "timed_out", exit_code=-9))
    story.work("a", IterationResult("failed", "lost"))
    story.work("a", IterationResult("failed", "setup_failed"))

    assert story.state.spend == Spend(Usage(5), 0.5, unknown_usage=2, unknown_cost=2)


def test_an_accepted_no_change_is_closed_and_a_refused_one_is_tried_again() -> None:
    for accepted, phase in ((True, "accepted"), (False, "retry")):
        story = Story(task("a"), settings=policy(accept_no_change=accepted))
        story.claim("a")

        state = story.work("a", IterationResult("no_change", start=BASE, head=BASE))

        assert state.records["a"].phase == phase


def test_only_what_really_finished_is_carried_to_the_next_attempt() -> None:
    story = Story(task("a"))
    story.claim("a")
    story.work("a", replace(DONE, head="good"))
    story.chain(conflicts=(ev.SentBack(1, "conflict", ("x.py",)),))
    assert story.state.records["a"].carry == "good"

    story.work("a", IterationResult("failed", "timed_out", start=BASE, head="half"))

    assert story.state.records["a"].carry == "good"


def test_foreign_work_is_not_carried() -> None:
    story = Story(task("a"))
    story.claim("a")
    story.work("a", DONE)

    state = story.chain(refused=(ev.SentBack(1, "it contains another task's work"),))

    assert (state.records["a"].phase, state.records["a"].carry, state.records["a"].used) == ("retry", None, 1)


def test_a_landed_entry_leaves_the_queue_and_names_its_commit() -> None:
    story = Story(task("a"), task("b"))
    for slot, name in enumerate("ab"):
        story.claim(name, slot)
        story.work(name, DONE)
    story.chain(1, 2)
    story.gate("c2", "passed", 1, 2)

    state = story.land("c2", 1, 2)

    assert (state.queue.tip, state.queue.waiting, state.queue.chain) == ("c2", (), None)
    assert [(i.fate, i.landed) for i in state.iterations.values()] == [("landed", "c2")] * 2
    assert [(r.phase, r.landed) for r in state.records.values()] == [("landed", "c2")] * 2


def test_a_landing_that_overtakes_a_release_is_still_to_be_closed() -> None:
    story = Story(task("a"))
    story.claim("a")
    story.work("a", DONE)
    story.chain(1)
    story.gate("c1", "passed", 1)
    landing = story.intend(ac.Land(BASE, "c1", (1,)))
    release = story.intend(ac.ReleaseTask("a", actor_name(RUN_ID, 0), ""))

    state = story.add(ev.Landed(landing), ev.TaskReleased(release))

    assert state.records["a"].phase == "landed"


def test_a_land_that_found_the_ref_elsewhere_builds_the_chain_anew() -> None:
    story = Story(task("a"))
    story.claim("a")
    story.work("a", DONE)
    story.chain(1)
    story.gate("c1", "passed", 1)

    state = story.add(ev.LandRefused(story.intend(ac.Land(BASE, "c1", (1,))), "elsewhere"))

    assert (state.queue.tip, state.queue.waiting, state.queue.chain) == ("elsewhere", (1,), None)


def test_tests_that_vanish_fail_and_say_so() -> None:
    story = Story(task("a"), settings=policy(attempts=1))
    story.gate(BASE, "passed", purpose="base", tests=("passed", "passed"))
    story.claim("a")
    story.work("a", DONE)
    story.chain(1)
    vanished = {"tests": ("passed", "not_tested"), "reason": "exit code 0"}
    story.gate("c1", "passed", 1, **vanished)

    state = story.gate("c1", "passed", 1, purpose="confirm", **vanished)

    reason = "tests that ran on the base did not run (exit code 0)"
    assert (state.gates[3].verdict, state.gates[3].reason) == ("failed", reason)
    assert (state.records["a"].phase, state.records["a"].kind, state.records["a"].reason) == (
        "parking",
        "gate-failed",
        reason,
    )


def test_a_flaky_tree_is_noted() -> None:
    story = Story(task("a"))
    story.claim("a")
    story.work("a", DONE)
    story.chain(1)
    story.gate("c1", "failed", 1)

    state = story.gate("c1", "passed", 1, purpose="confirm", log="gates/gate-002.log")

    assert [n.text for n in state.notices] == ["flaky: the same tree failed and then passed (gates/gate-002.log)"]


def test_the_steps_of_a_park_are_bug_then_release() -> None:
    story = Story(task("a"))
    story.claim("a")
    story.work("a", IterationResult("blocked", message="no access"))
    assert story.state.records["a"].phase == "parking"
    story.add(ev.BugFiled(story.intend(ac.FileBug("a", 1, "blocked", "t", "d")), "bug-1"))
    assert story.state.records["a"].phase == "releasing"

    state = story.add(ev.TaskReleased(story.intend(ac.ReleaseTask("a", "me", ""))))

    assert (state.records["a"].phase, state.records["a"].bug, state.records["a"].reason) == (
        "parked",
        "bug-1",
        "no access",
    )


def test_a_resume_forgets_why_the_run_stopped_and_a_settle_keeps_it() -> None:
    story = Story(task("a"))
    story.add(ev.StopRequested("now", "SIGINT"), ev.Stopping("cancelled", "SIGINT"), ev.RunEnded(130))

    settled = story.add(ev.Resumed(settle=True))
    assert (settled.stopping, settled.stop_request, settled.exit_code, settled.view) == ("cancelled", None, None, None)

    resumed = story.add(ev.Resumed(settle=False))
    assert (resumed.stopping, resumed.settle, resumed.resumes) == (None, False, 2)


def test_an_abandoned_gate_on_the_base_is_run_again() -> None:
    story = Story(task("a"))
    n = story.intend(ac.RunGate(1, BASE, "", "base"))
    assert story.state.base_gate is not None

    assert story.add(ev.Abandoned(n)).base_gate is None


def test_a_gate_on_the_base_that_did_not_pass_is_run_again_after_a_resume() -> None:
    story = Story(task("a"))
    n = story.intend(ac.RunGate(1, BASE, "", "base"))
    story.add(ev.GateEnded(n, "could_not_run", "stopped"))
    assert story.state.base_verdict == "could_not_run"

    assert story.add(ev.Resumed(settle=False)).base_gate is None


def test_git_that_fails_on_the_base_gate_does_not_count_as_its_verdict() -> None:
    story = Story(task("a"))

    state = story.add(ev.IntegrationFailed(story.intend(ac.RunGate(1, BASE, "", "base")), "no space left"))

    assert (state.base_gate, state.stopping, state.stop_detail) == (None, "gate_error", "no space left")
