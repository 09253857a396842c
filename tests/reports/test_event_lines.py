"""One line per event: the whole story of a run for a log file, and nothing that is not worth a line."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hew_loop.core import actions as ac
from hew_loop.core import events as ev
from hew_loop.core.transitions import apply, begin
from hew_loop.reports.lines import line
from tests.support.golden import golden
from tests.support.journals import GATED, JournalBuilder, a_night, commit_id, task


def lines(journal: JournalBuilder) -> str:
    state = begin(journal.events[0])
    said: list[str] = []
    for stamped in journal.events:
        if text := line(stamped, state):
            said.append(text)
        if stamped.seq > 1:
            state = apply(state, stamped)
    return "\n".join(said) + "\n"


def test_a_whole_night_line_by_line() -> None:
    text = lines(a_night())
    assert text == golden(__file__, "night-lines.txt", text)


def test_everything_that_can_go_wrong_has_a_line() -> None:
    journal = JournalBuilder(replace(GATED, attempts=1)).view(task("t-1"), task("t-2"), task("t-3"))
    journal.add(ev.ViewFailed(journal.intend(ac.ReadTasks()), "the store is locked\x1b[2J"))
    journal.base_gate("not_tested", "pytest collected no tests")
    journal.add(ev.ClaimRefused(journal.intend(ac.Claim("t-3", 0, "loop/x/0", "graph")), "alice has it"))
    journal.start("t-1").end("t-1", "failed", failure="stalled", message="no output for 15 minutes").park(
        "t-1", "bug-1"
    )
    journal.work("t-2").chain(withdrawn=(ev.SentBack(2, "assigned to alice"),)).release("t-2")
    journal.start("t-3").end("t-3").chain().gate("not_tested", cached=True)
    chain = journal.state.queue.chain
    assert chain is not None
    land = journal.intend(ac.Land(journal.state.queue.tip, chain.links[0].commit, (3,)))
    journal.add(ev.LandRefused(land, commit_id("feed")), ev.Resumed(settle=True), ev.Resumed(settle=False))
    journal.add(ev.StopRequested("drain", "SIGINT"), ev.StopRequested("now", "cancel"), ev.Noticed("odd", (3,)))
    journal.stop("cancelled", "SIGINT").verify("could_not_run", reason="just is not installed")
    deliver = journal.intend(ac.Deliver("main", commit_id("ba5e"), commit_id("feed")))
    journal.add(ev.LaunchMoved(deliver, commit_id("beef"))).deliver(refused="main is checked out and dirty").finish(130)
    text = lines(journal)
    assert text == golden(__file__, "trouble-lines.txt", text)


def test_a_state_that_knows_the_event_already_is_a_mistake_of_the_caller() -> None:
    journal = JournalBuilder().view(task("t-1"))
    with pytest.raises(ValueError, match="event 3 is in the state already"):
        line(journal.events[-1], journal.state)
