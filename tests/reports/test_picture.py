"""What runs now: the live view and `loop status` show one picture."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from datetime import timedelta

from rich.console import Console

from hew_loop.core.actions import Deliver, RunGate
from hew_loop.core.iteration import Usage
from hew_loop.reports import picture
from hew_loop.reports.live import render
from tests.support.golden import golden
from tests.support.journals import GATED, JournalBuilder, a_night, commit_id, task


def at_work() -> JournalBuilder:
    journal = JournalBuilder(replace(GATED, jobs=3))
    journal.view(task("t-1", "Add [bold]the[/bold] parser"), task("t-2", "日本語の題名"), task("t-3"), task("t-4"))
    journal.base_gate().work("t-1", usage=Usage(1000, 200, 30, 4), cost=0.5).start("t-2").start("t-3", slot=2)
    journal.chain()
    chain = journal.state.queue.chain
    assert chain is not None
    journal.intend(RunGate(2, chain.links[0].commit, chain.links[0].tree, "prefix", (1,)))
    return journal.start("t-4", slot=1).end("t-4", after_s=20)


def shown(journal: JournalBuilder, *, died: bool = False) -> picture.Picture:
    heard = {2: journal.now - timedelta(seconds=7)}
    return picture.picture(journal.state, now=journal.now, last_output=heard, died=died)


def drawn(journal: JournalBuilder, *, width: int) -> str:
    out = io.StringIO()
    heard = {2: journal.now - timedelta(seconds=7)}
    view = render(journal.state, now=journal.now, width=width, last_output=heard)
    Console(file=out, width=width, force_terminal=False, color_system=None).print(view)
    return "".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines())


def test_the_live_view_has_a_row_per_slot_the_queue_the_spend_and_the_last_events() -> None:
    text = drawn(at_work(), width=100)
    assert text == golden(__file__, "live.txt", text)


def test_the_live_view_fits_a_narrow_terminal() -> None:
    text = drawn(at_work(), width=50)
    assert text == golden(__file__, "live-narrow.txt", text)


def test_status_says_the_same_in_plain_lines() -> None:
    text = picture.to_text(shown(at_work()))
    assert text == golden(__file__, "status.txt", text)


def test_status_names_a_dead_run_and_the_way_on() -> None:
    text = picture.to_text(shown(at_work().wait(3600), died=True))
    assert text == golden(__file__, "status-died.txt", text)


def test_status_as_json() -> None:
    text = picture.to_json(shown(at_work()))
    assert text == golden(__file__, "status.json", text)


def test_a_rate_limit_is_shown_with_its_end() -> None:
    journal = JournalBuilder().view(task("t-1")).base_gate()
    until = journal.now + timedelta(minutes=30)
    journal.start("t-1").end("t-1", "failed", failure="usage_limit", message="5-hour limit", reset_at=until)
    seen = shown(journal)
    until = journal.state.health["claude"].until
    assert until is not None
    assert seen.holds == (picture.Hold("claude", until, "usage_limit: 5-hour limit"),)
    assert f"hold   claude until {until:%H:%M:%S}Z: usage_limit: 5-hour limit\n" in picture.to_text(seen)


def test_the_end_of_a_run_is_shown_where_the_queue_was() -> None:
    journal = JournalBuilder().view(task("t-1")).base_gate().work("t-1").gate_and_land().stop()
    journal.intend(Deliver("main", commit_id("ba5e"), journal.state.queue.tip))
    assert picture.queue_words(shown(journal).queue) == "delivering"


def test_a_run_that_ended_has_free_slots_and_its_headline() -> None:
    seen = shown(a_night())
    assert (seen.status, seen.queue.waiting, {slot.task for slot in seen.slots}) == ("ended", (), {""})
    assert json.loads(picture.to_json(seen))["headline"] == "3 landed, 1 closed without change, 1 parked"
