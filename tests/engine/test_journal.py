"""The journal file: written line by line, read as far as it is whole, and never in silence when it is not."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hew_loop.core import actions as ac
from hew_loop.core import events as ev
from hew_loop.core.iteration import IterationResult, IterationSpec, Usage
from hew_loop.core.policy import (
    GateSettings,
    ModelSettings,
    PlannedCommand,
    PlannerSettings,
    Policy,
    Price,
    RuntimeSettings,
    Scope,
    VerifySettings,
    WorktreeSettings,
)
from hew_loop.core.task import Edge, Task
from hew_loop.engine import journal
from hew_loop.engine.journal import Journal, JournalText
from hew_loop.errors import HewError

AT = datetime(2026, 3, 1, 22, 0, 0, 123456, tzinfo=UTC)
RUN_ID = "loop-20260301T220000Z-0123abcd"
SPEC = IterationSpec(
    RUN_ID, 3, "hew-a1", 2, 1, "base", "loop/r/hew-a1.2", "loop/r/1", "claude",
    model="big", carry="head", evidence=("it failed\nwith 'quotes' and \u2028",),
)  # fmt: skip
RESULT = IterationResult(
    "failed", "rate_limit", "wait", start="base", head="head", salvage="refs/loop/r/salvage/t.1", files=("a b", "ä"),
    summary="tried", next_iteration=("x", "y"), usage=Usage(1, 2, 3, 4), cost_usd=0.25, model="big", exit_code=-9,
    duration_s=1.5, leftovers=2, reset_at=AT, prompt_hash="abc", warnings=("cut",),
)  # fmt: skip
TASK = Task(
    "hew-a1", "Title", AT, "in_progress", 0, "bug", "me", ("l",), (Edge("hew-b2", "waits-for", "all-children"),),
    AT + timedelta(days=1), True, True,
)  # fmt: skip
POLICY = Policy(
    Scope("epics", ("e",), ("t",)), 4, "mine", (RuntimeSettings("mine", ("run", "{task_id}"), "file", (0, 3)),),
    "other", 2, ModelSettings("a", "b", (("P0", "c"),), (("bug", "d"),), "e"),
    PlannerSettings(False, "mine", "f", 5, 1.5, 2.5), (("g", Price(1.0, 2.0, 0.1, 1.2)),), "skill.md", max_iter=9,
    budget_tokens=10, budget_usd=1.5,
    budget_wall_s=60.0, max_new=2, deliver="branch",
    gate=GateSettings((PlannedCommand("make test"), PlannedCommand(("ruff", "check"), "lint", "sub")), 5.0, "--gate"),
    verify=VerifySettings(False, (PlannedCommand("make"),)),
    worktree=WorktreeSettings(("npm", "ci"), ("lock",), (".env",), ("data",), (("A", "b"),), True),
)  # fmt: skip
START = ev.RunStarted(
    RUN_ID, "base", POLICY, "main", "base", "beads", "/r/.beads", (("t", "r0"),), (("t", "head"),), ("dirty",), pid=7
)  # fmt: skip
BACK = ev.SentBack(2, "conflict", ("a.py",))

ACTIONS: tuple[ac.Action, ...] = (
    ac.ReadTasks(),
    ac.Claim("t", 0, "me", "agent", 4),
    ac.AskPlanner(3, "mine", 5, (2, 4)),
    ac.StartIteration(SPEC, "retry", None),
    ac.BuildChain("base", (ac.ChainEntry(1, "t", "head", "start"),)),
    ac.RunGate(2, "c", "tree", "confirm", (1, 2), fresh=True),
    ac.Land("base", "c", (1, 2)),
    ac.CloseTask("t", "landed"),
    ac.ReleaseTask("t", "me", "note"),
    ac.FileBug("t", 2, "blocked", "title", "text"),
    ac.Remember("STATUS:x"),
    ac.Verify("c"),
    ac.Deliver("main", "base", "c"),
)
EVENTS: tuple[ev.Event, ...] = (
    START,
    ev.Resumed(True, "main", 8, 12),
    *(ev.Intended(n, action) for n, action in enumerate(ACTIONS, 1)),
    ev.Abandoned(3),
    ev.ViewRead(3, AT, (TASK,), ("gone",)),
    ev.ViewFailed(3, "locked"),
    ev.Claimed(3),
    ev.ClaimRefused(3, "closed", tracker_failed=True),
    ev.IterationEnded(3, RESULT),
    ev.IterationEnded(3, IterationResult("done", next_iteration=())),
    ev.BatchPlanned(1, "agent", ("a",), ("b",), "because", 3),
    ev.BatchPlanned(2, "planner", ("a",), (), "", 5, (4,), 3, Usage(1, 2, 3, 4), 0.5, "opus", 7.5),
    ev.ChainBuilt(3, (ev.Link(1, "c", "t"),), (BACK,), (BACK,), (BACK,)),
    ev.GateEnded(3, "not_tested", "no tests", "tail", "gates/gate-001.log", 2.5, True, ("passed", "not_tested")),
    ev.Remembered(3, "locked"),
    ev.Landed(3),
    ev.LandRefused(3, "tip"),
    ev.IntegrationFailed(3, "no space"),
    ev.TaskClosed(3),
    ev.TaskReleased(3),
    ev.BugFiled(3, "hew-c3"),
    ev.TrackerWriteFailed(3, "locked"),
    ev.Verified(3, "failed", "exit code 1", "make", "tail", "verify.log", 9.0),
    ev.Delivered(3, "c", True),
    ev.LaunchMoved(3, "tip"),
    ev.DeliveryRefused(3, "dirty"),
    ev.StopRequested("now", "SIGINT"),
    ev.Stopping("max_iter", "9 iterations"),
    ev.Suspended("stepped"),
    ev.Noticed("look", (1, 2)),
    ev.RunEnded(4),
)


def clock() -> datetime:
    return AT


def write(path: Path, *events: ev.Event) -> list[ev.Stamped]:
    with Journal(path, seq=0, clock=clock) as file:
        return [file.append(event) for event in events]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / RUN_ID
    folder.mkdir()
    return folder / "events.jsonl"


def test_every_event_and_every_action_has_an_example_here() -> None:
    assert {type(e) for e in EVENTS} == set(get_args(get_args(ev.Event)[0]))
    assert {type(a) for a in ACTIONS} == set(get_args(get_args(ac.Action)[0]))


@pytest.mark.parametrize("event", EVENTS, ids=lambda e: f"{e.type}-{e.action.type}" if e.type == "intended" else e.type)
def test_an_event_comes_back_as_it_was_written(event: ev.Event) -> None:
    stamped = ev.Stamped(5, AT, event)

    line = ev.to_line(stamped)

    assert ev.from_line(line) == stamped
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")


@settings(deadline=None, max_examples=60)
@given(text=st.text(), names=st.lists(st.text(max_size=5), max_size=3), seconds=st.floats(0, 1e6))
def test_any_text_survives_in_one_line(text: str, names: list[str], seconds: float) -> None:
    result = replace(RESULT, message=text, files=tuple(names), duration_s=seconds, next_iteration=None)
    stamped = ev.Stamped(1, AT, ev.IterationEnded(1, result))

    line = ev.to_line(stamped)

    assert ev.from_line(line) == stamped
    assert line.count(b"\n") == 1


def test_a_journal_is_read_back_with_its_numbers(path: Path) -> None:
    written = write(path, *EVENTS)

    assert journal.read(path) == JournalText(tuple(written), path.stat().st_size, 0)
    assert [s.seq for s in written] == list(range(1, len(EVENTS) + 1))


@pytest.mark.parametrize("keep", [1, 10, -1])
def test_a_torn_last_line_is_cut_and_reported(path: Path, keep: int) -> None:
    written = write(path, START, ev.Noticed("one"))
    whole = path.stat().st_size
    torn = ev.to_line(ev.Stamped(3, AT, ev.Noticed("two")))[:keep]
    with path.open("ab") as file:
        file.write(torn)

    text = journal.read(path)

    assert text == JournalText(tuple(written), whole, len(torn))
    with Journal.reopen(path, text, clock=clock) as file:
        third = file.append(ev.Noticed("three"))
    assert journal.read(path).events == (*written, third)
    assert third.seq == 3


@pytest.mark.parametrize("rest", [b"\0" * 40 + b"\n", b'"}}\n', b"\n"])
def test_a_last_line_whose_start_was_lost_is_torn_too(path: Path, rest: bytes) -> None:
    written = write(path, START)
    whole = path.stat().st_size
    with path.open("ab") as file:
        file.write(rest)

    assert journal.read(path) == JournalText(tuple(written), whole, len(rest))


def test_a_whole_last_line_that_is_not_understood_is_an_error_and_not_cut(path: Path) -> None:
    write(path, START)
    with path.open("ab") as file:
        file.write(b'{"seq":2,"at":"2026-03-01T22:00:00Z","event":{"type":"invented_later"}}\n')

    with pytest.raises(HewError, match="line 2 of the journal is not an event of this version"):
        journal.read(path)


def test_a_broken_line_in_the_middle_is_an_error(path: Path) -> None:
    write(path, START, ev.Noticed("one"), ev.Noticed("two"))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1][:20] + b"\n" + lines[2])

    with pytest.raises(HewError, match=f"{RUN_ID}: line 2 of the journal is not an event") as caught:
        journal.read(path)
    assert caught.value.hint


def test_a_missing_line_is_an_error(path: Path) -> None:
    write(path, START, ev.Noticed("one"), ev.Noticed("two"))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[2])

    with pytest.raises(HewError, match="line 2 of the journal does not follow the one before it"):
        journal.read(path)


def test_another_version_is_refused_with_both_numbers(path: Path) -> None:
    write(path, replace(START, schema_version=2))

    with pytest.raises(HewError, match="has journal version 2, this loop reads 1"):
        journal.read(path)


@pytest.mark.parametrize("content", [b"", b'{"seq":1,'])
def test_a_journal_without_an_event_says_so(path: Path, content: bytes) -> None:
    path.write_bytes(content)

    with pytest.raises(HewError, match="the journal holds no event"):
        journal.read(path)


def test_a_journal_that_begins_otherwise_is_refused(path: Path) -> None:
    write(path, ev.Noticed("one"))

    with pytest.raises(HewError, match="does not begin with run_started"):
        journal.read(path)


def test_a_journal_that_is_not_there_is_an_error_sentence(path: Path) -> None:
    with pytest.raises(HewError, match=r"cannot read the journal events\.jsonl: No such file"):
        journal.read(path)


def test_a_full_disk_is_an_error_sentence_with_a_way_out() -> None:
    with (
        Journal(Path("/dev/full"), seq=0, clock=clock) as file,
        pytest.raises(HewError, match="cannot write the journal: No space left on device") as caught,
    ):
        file.append(START)

    assert caught.value.hint == "free some space, then: loop resume"


def test_a_line_that_fits_only_in_part_is_taken_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(path, START)
    before = path.read_bytes()
    real_write = journal.os.write
    with Journal(path, seq=1, clock=clock) as file:
        with monkeypatch.context() as patch:
            patch.setattr(journal.os, "write", lambda fd, data: real_write(fd, data[:9]))
            with pytest.raises(HewError, match="the disk is full"):
                file.append(ev.Noticed("does not fit"))
        assert path.read_bytes() == before
        file.append(ev.Noticed("fits"))

    assert [s.seq for s in journal.read(path).events] == [1, 2]


def test_a_file_name_that_is_no_text_does_not_end_the_run(path: Path) -> None:
    conflict = ev.ChainBuilt(3, conflicts=(ev.SentBack(2, "conflict", ("caf\udce9.py",)),))

    _, written = write(path, START, conflict)

    assert written.event == ev.ChainBuilt(3, conflicts=(ev.SentBack(2, "conflict", ("caf?.py",)),))
    assert journal.read(path).events[1] == written


def test_a_reader_may_come_while_the_run_writes(path: Path) -> None:
    with Journal(path, seq=0, clock=clock) as file:
        first = file.append(START)
        assert journal.read(path).events == (first,)
        file.sync()
        second = file.append(ev.RunEnded(0))

    assert journal.read(path).events == (first, second)
