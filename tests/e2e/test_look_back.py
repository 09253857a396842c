"""The commands that look back, through the console: on runs that ended, died or work, from journals on disk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from hew_loop.core.events import to_line
from hew_loop.core.transitions import apply, begin
from hew_loop.engine.lock import RunLock
from hew_loop.engine.run_folder import RunFolder
from hew_loop.reports.graph import build
from hew_loop.reports.graph_text import to_ascii, to_dot, to_mermaid
from hew_loop.reports.lines import line
from hew_loop.reports.summary import summarise, to_json
from hew_loop.reports.summary_text import to_text
from tests.support.journals import GATED, RUN_ID, JournalBuilder, a_night, task
from tests.support.project import Project

OLDER = "loop-20260228T220000Z-00000001"


def at_work(run_id: str = RUN_ID) -> JournalBuilder:
    journal = JournalBuilder(replace(GATED, jobs=2), run_id=run_id)
    journal.view(task("t-1", "One"), task("t-2", "Two")).base_gate()
    return journal.start("t-1").start("t-2", slot=1).end("t-1")


@pytest.fixture
def night(project: Project) -> RunFolder:
    return a_night().write(project.path)


@pytest.fixture
def live(project: Project) -> Iterator[RunFolder]:
    """A run in the middle of its work; this process holds its lock."""
    folder = at_work().write(project.path)
    with RunLock.acquire(project.path / ".git" / "hew-loop" / "run.lock", run_id=folder.run_id):
        yield folder


@pytest.mark.usefixtures("night")
def test_summary_prints_what_the_journal_says(project: Project) -> None:
    value = summarise(a_night().state, now=a_night().now)
    assert project.loop("summary").out == to_text(value, width=10_000)
    assert project.loop("summary", RUN_ID[-8:], "--json").out == to_json(value)


@pytest.mark.usefixtures("night")
def test_graph_draws_to_stdout_or_to_a_file_with_a_fence(project: Project) -> None:
    graph = build(a_night().state)
    assert project.loop("graph").out == to_mermaid(graph)
    assert project.loop("graph", "--format", "dot").out == to_dot(graph)
    done = project.loop("graph", "--out", "run.MD")
    assert (done.code, done.out, done.err) == (0, "", "wrote run.MD\n")
    assert (project.path / "run.MD").read_text() == f"```mermaid\n{to_mermaid(graph)}```\n"


@pytest.mark.usefixtures("night")
def test_graph_all_draws_every_run_that_can_be_read(project: Project) -> None:
    older = a_night(run_id=OLDER)
    older.write(project.path)
    broken = at_work("loop-20260227T220000Z-00000002").write(project.path)
    broken.journal.write_text("{}\n{}\n")
    done = project.loop("graph", "--all", "--format", "ascii")
    assert done.out == to_ascii(build(older.state), build(a_night().state))
    assert "left out: loop-20260227T220000Z-00000002" in done.err
    assert project.loop("graph", RUN_ID, "--all").code == 2


@pytest.mark.usefixtures("live")
def test_list_tells_running_ended_and_died_apart_newest_first(project: Project) -> None:
    a_night(run_id=OLDER).write(project.path)
    died = at_work("loop-20260227T220000Z-00000002").write(project.path, torn=b'{"seq": 99, "at"')
    done = project.loop("list")
    assert done.out.splitlines() == [
        f"{RUN_ID}  running          1m 29s  0 landed, 0 parked of 2 taken",
        f"{OLDER}  ended            9m 13s  3 landed, 1 parked of 5 taken  max_iter",
        f"{died.run_id}  died             1m 29s  0 landed, 0 parked of 2 taken  loop resume {died.run_id}",
    ]
    assert [r["state"] for r in project.loop("list", "--json", "-n", "2").json()] == ["running", "ended"]


def test_list_without_a_run_is_an_empty_array(project: Project) -> None:
    assert project.loop("list", "--json").json() == []
    assert (project.loop("list").out, project.loop("summary").code) == ("", 1)


def test_logs_without_a_choice_tell_the_run_line_by_line(project: Project, night: RunFolder) -> None:
    events = a_night().events
    state, lines = begin(events[0]), list[str]()
    for stamped in events:
        if text := line(stamped, state):
            lines.append(text)
        state = apply(state, stamped) if stamped.seq > 1 else state
    assert project.loop("logs").out.splitlines() == lines
    assert project.loop("logs", "--tail", "2").out.splitlines() == lines[-2:]
    assert project.loop("logs", "--json").out == night.journal.read_text()


def test_logs_show_an_agents_output_without_its_terminal_codes(project: Project, night: RunFolder) -> None:
    night.iteration(1).mkdir()
    log = night.iteration(1) / "output.log"
    log.write_bytes(b"first\n\x1b[32mgreen\x1b[0m\t\x1b]0;title\x07\r\n\xff\xe2\x82\xac\n")
    done = project.loop("logs", "--iter", "1", "--tail", "2")
    assert (done.code, done.out, done.err) == (0, "green\t\\x1b]0;title\\x07\n\\xff€\n", f"loop: {log}\n")
    whole = project.loop("logs", "--iter", "1", "--json").json()
    assert whole == {"path": str(log), "lines": ["first", "green\t\\x1b]0;title\\x07", "\\xff€"]}


def test_logs_of_a_gate_and_of_the_verify(project: Project, night: RunFolder) -> None:
    night.gate_log(2).write_text("1 passed\n")
    (night.path / "verify.log").write_text("all passed\n")
    assert project.loop("logs", "--gate", "2").out == "1 passed\n"
    assert project.loop("logs", "--verify").out == "all passed\n"


@pytest.mark.usefixtures("night")
@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("--iter", "99"), 2, "has no iteration 99"),
        (("--gate", "99"), 2, "has no gate run 99"),
        (("--iter", "1"), 1, "iter-001/output.log is not there"),
        (("--iter", "1", "--verify"), 2, "name different logs"),
        (("nonsense",), 2, "no run is called 'nonsense'"),
    ],
)
def test_logs_that_are_not_there_are_an_error_with_a_reason(
    project: Project, args: tuple[str, ...], code: int, words: str
) -> None:
    done = project.loop("logs", *args)
    assert (done.code, done.out) == (code, "")
    assert words in done.err


def test_status_shows_what_runs_and_when_it_last_spoke(project: Project, live: RunFolder) -> None:
    live.iteration(2).mkdir()
    (live.iteration(2) / "output.log").write_text("working\n")
    value = project.loop("status", "--json").json()
    assert (value["run_id"], value["status"], value["queue"]["waiting"]) == (RUN_ID, "running", ["t-1"])
    assert [(s["task"], s["iteration"]) for s in value["slots"]] == [("", None), ("t-2", 2)]
    assert value["slots"][1]["quiet_s"] is not None
    assert "slot 1  t-2  iter 2, attempt 1," in project.loop("status").out


def test_status_names_a_dead_run_and_writes_nothing(project: Project) -> None:
    folder = at_work().write(project.path)
    before = sorted(p.name for p in folder.path.iterdir())
    done = project.loop("status")
    assert done.out.splitlines()[2].startswith(f"run    {RUN_ID}, died; carry it on: loop resume {RUN_ID}")
    assert sorted(p.name for p in folder.path.iterdir()) == before
    assert not (project.path / ".git" / "hew-loop").exists()


@pytest.mark.usefixtures("night")
def test_status_without_a_run_at_work_points_at_the_summary(project: Project) -> None:
    expected = f"nothing runs; the last run: 3 landed, 1 closed without change, 1 parked\nloop summary {RUN_ID}\n"
    assert project.loop("status", "--watch").out == expected


def test_status_watch_without_a_terminal_follows_the_events_to_the_end(project: Project) -> None:
    journal = at_work()
    lock = RunLock.acquire(project.path / ".git" / "hew-loop" / "run.lock", run_id=RUN_ID)
    folder = journal.write(project.path)
    with project.spawn("status", "--watch") as watcher:
        assert watcher.stdout is not None
        seen = [watcher.stdout.readline()]
        with folder.journal.open("ab") as file:
            file.write(b"".join(to_line(e) for e in journal.stop("cancelled", "cancel").finish(4).events[-2:]))
        lock.release()
        seen += watcher.stdout.readlines()
    assert watcher.returncode == 0
    assert seen[0].endswith("base ba5e00000000, scope ready, jobs 2, gate from justfile\n")
    assert f"run {RUN_ID} ended with exit code 4\n" in seen[-3]
    assert seen[-1] == f"loop summary {RUN_ID}\n"


@pytest.mark.parametrize(("args", "content"), [((), "drain\n"), (("--now",), "now\n")])
def test_cancel_leaves_its_word_for_the_live_run(
    project: Project, live: RunFolder, args: tuple[str, ...], content: str
) -> None:
    done = project.loop("cancel", *args)
    assert (done.code, done.out, live.stop_file.read_text()) == (0, "", content)
    assert done.err.startswith(f"loop: {RUN_ID} (pid ")


def test_cancel_finds_the_live_run_even_if_a_newer_one_ended(project: Project, live: RunFolder) -> None:
    a_night(run_id="loop-20260302T220000Z-00000003").write(project.path)
    assert project.loop("cancel").code == 0
    assert live.stop_file.read_text() == "drain\n"


def test_a_drain_does_not_take_back_a_stop(project: Project, live: RunFolder) -> None:
    project.loop("cancel", "--now")
    done = project.loop("cancel")
    assert (done.code, live.stop_file.read_text()) == (0, "now\n")
    assert "ends what runs" in done.err


def test_cancel_of_a_finished_or_dead_run_is_an_error(project: Project) -> None:
    ended = a_night(run_id=OLDER).write(project.path)
    died = at_work().write(project.path)
    first, second = project.loop("cancel", OLDER), project.loop("cancel", died.run_id)
    assert (first.code, second.code) == (1, 1)
    assert first.err == f"loop: {OLDER} has ended already, with exit code 1\n  see: loop summary {OLDER}\n"
    assert second.err == (
        f"loop: {RUN_ID} is not running: its process is gone\n  Carry it on, or settle it: loop resume {RUN_ID}\n"
    )
    assert not ended.stop_file.exists()
    assert not died.stop_file.exists()


@pytest.mark.parametrize("name", ["list", "logs", "summary", "graph", "status", "cancel"])
def test_every_help_shows_an_example(project: Project, name: str) -> None:
    done = project.loop(name, "--help")
    assert done.code == 0
    assert f"\n  loop {name}" in done.out
