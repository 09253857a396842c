"""Every way to end a run before its time: what runs, what waits and what is claimed afterwards, and the exit code."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.project import Done, Project, marked_processes, wait_until

HANGS = 'echo half > "$HEW_TASK_ID.txt"; touch "$PLACES/$HEW_TASK_ID"; [ -e "$PLACES/go" ] || sleep 600'
"""Tells that it works, with half of the work done; once there is a `go`, it ends."""
WAITS = 'touch "$PLACES/$HEW_TASK_ID"; while [ ! -e "$PLACES/go" ]; do sleep 0.05; done; echo > "$HEW_TASK_ID.txt"'
"""Does its work as soon as it may."""


def finish(process: subprocess.Popen[str], *, within_s: float = 30) -> Done:
    out, _ = process.communicate(timeout=within_s)
    return Done(process.returncode, out, out)


def works_on(project: Project, *tasks: str) -> None:
    wait_until(lambda: all((project.places / task).exists() for task in tasks))


def go(project: Project) -> None:
    (project.places / "go").touch()


def live_run(project: Project) -> str:
    return project.folder().name


def is_free(project: Project, task: str) -> bool:
    """Open, and nobody's."""
    value = project.tasks()[task]
    return (value["status"], value.get("assignee", "")) == ("open", "")


def test_the_first_ctrl_c_lets_what_runs_finish_and_land(project: Project) -> None:
    first, second = project.add("First", "-p", "1", script=WAITS), project.add("Second")
    run = project.spawn("run", "--scope", "ready")
    works_on(project, first)
    run.send_signal(signal.SIGINT)
    wait_until(lambda: "stopping" in (project.folder() / "events.jsonl").read_text())
    go(project)
    assert finish(run).code == 130
    assert project.statuses() == {first: "closed", second: "open"}
    assert f"{first}.txt" in project.landed_files("main")
    summary = project.summary()
    assert (summary["stop_reason"], summary["delivery"]["state"]) == ("cancelled", "merged")
    assert summary["task_counts"] == {"landed": 1, "never_started": 1}


@pytest.mark.parametrize(("signals", "code"), [([signal.SIGINT] * 2, 130), ([signal.SIGTERM], 143)])
def test_a_second_ctrl_c_or_a_sigterm_ends_what_runs_and_keeps_its_work(
    project: Project, signals: list[signal.Signals], code: int
) -> None:
    task = project.add("Hangs", script=HANGS)
    run = project.spawn("run", "--scope", "ready")
    works_on(project, task)
    run_id = live_run(project)
    for number in signals:
        run.send_signal(number)
        wait_until(lambda: "stop_requested" in (project.folder() / "events.jsonl").read_text())
    assert finish(run).code == code
    assert is_free(project, task)
    assert marked_processes(run_id) == []
    assert project.git("show", f"loop/{run_id}/{task}.1:{task}.txt") == "half"
    assert project.git("for-each-ref", "refs/loop/") == ""
    assert project.summary()["task_counts"] == {"returned": 1}
    if code == 143:
        go(project)
        again = project.run()
        assert (again.code, project.statuses()) == (0, {task: "closed"}), again.err


def test_a_terminal_that_goes_away_ends_the_run_and_leaves_no_claim(project: Project) -> None:
    task = project.add("Hangs", script=HANGS)
    run = project.spawn("run", "--scope", "ready")
    works_on(project, task)
    assert run.stdout is not None
    run.stdout.close()  # from here on each line of progress fails to be written
    run.send_signal(signal.SIGHUP)
    run.wait(30)
    assert [e["exit_code"] for e in project.events("run_ended")] == [4]
    assert is_free(project, task)
    assert project.git("show", f"loop/{live_run(project)}/{task}.1:{task}.txt") == "half"


def test_cancel_drains_and_cancel_now_ends_what_runs(project: Project) -> None:
    task, other = project.add("Hangs", "-p", "1", script=HANGS), project.add("Never begun")
    run = project.spawn("run", "--scope", "ready")
    works_on(project, task)
    run_id = live_run(project)
    drained = project.loop("cancel")
    assert (drained.code, f"{run_id} (pid {run.pid}) finishes what runs" in drained.err) == (0, True)
    assert run.poll() is None
    stopped = project.loop("cancel", run_id[-8:], "--now")
    assert (stopped.code, "ends what runs" in stopped.err) == (0, True)
    assert finish(run).code == 4
    assert is_free(project, task)
    assert is_free(project, other)
    assert marked_processes(run_id) == []
    late = project.loop("cancel")
    assert (late.code, f"{run_id} has ended already, with exit code 4" in late.err) == (1, True)


def test_a_stop_file_made_by_hand_drains_the_run(project: Project) -> None:
    first, second = project.add("First", "-p", "1", script=WAITS), project.add("Second")
    run = project.spawn("run", "--scope", "ready")
    works_on(project, first)
    (project.folder() / ".stop").touch()
    wait_until(lambda: "stopping" in (project.folder() / "events.jsonl").read_text())
    go(project)
    assert finish(run).code == 4
    assert project.statuses() == {first: "closed", second: "open"}
    assert project.summary()["stop_reason"] == "stop_file"


def test_when_loop_is_killed_all_that_it_started_is_gone_within_two_seconds(tmp_path: Path) -> None:
    """By its process id, by its process group, and with a gate that runs; then the run is carried on to its end."""
    tells = 'echo $$ >> "$PLACES/pids"'
    daemons = (
        f"[ -e \"$PLACES/go\" ] || {{ setsid sh -c '{tells}; sleep 600' & "
        f"env -i sh -c '{tells.replace('$PLACES', str(tmp_path / 'places'))}; sleep 600' & {tells}; sleep 600; }}"
    )
    project = Project(tmp_path, config=f"[loop.gate]\ncommands = [{gate_text(daemons)}]")
    quick = project.add("Is gated while the other runs")
    slow = project.add("Hangs", script=f'echo half > "$HEW_TASK_ID.txt"; {daemons}')
    pids = project.places / "pids"

    def kill(*args: str, group: bool) -> float:
        pids.unlink(missing_ok=True)
        run = project.spawn(*args)
        wait_until(lambda: pids.exists() and len(pids.read_text().split()) == 6)
        running = [int(word) for word in pids.read_text().split()]
        assert len([pid for pid in running if is_alive(pid)]) == 6
        began = time.monotonic()
        if group:
            os.killpg(run.pid, signal.SIGKILL)
        else:
            run.kill()
        wait_until(lambda: not any(is_alive(pid) for pid in running), timeout_s=2)
        took = time.monotonic() - began
        run.communicate(timeout=10)
        wait_until(lambda: not marked_processes(project.folder().name))  # the guard itself
        return took

    assert kill("run", "--scope", "ready", "--jobs", "2", group=False) < 2
    run_id = live_run(project)
    assert kill("resume", group=True) < 2
    dead = project.loop("cancel")
    assert (dead.code, f"loop resume {run_id}" in dead.err) == (1, True)
    go(project)
    done = project.loop("resume")
    assert (done.code, project.statuses()) == (0, {quick: "closed", slow: "closed"}), done.err
    assert {f"{quick}.txt", f"{slow}.txt"} <= project.landed_files("main")


def gate_text(script: str) -> str:
    """Nothing to gate on the base; as a TOML string."""
    return "'''if ls *-*.txt > /dev/null 2>&1; then " + script + "; fi'''"


def is_alive(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_an_iteration_limit_is_exit_4_with_work_left_and_1_when_something_failed(project: Project) -> None:
    tasks = [project.add(f"Task {n}") for n in range(3)]
    done = project.run("--max-iter", "1")
    assert (done.code, sorted(project.statuses().values())) == (4, ["closed", "open", "open"])
    summary = project.summary()
    assert (summary["stop_reason"], summary["delivery"]["state"]) == ("max_iter", "merged")
    left = next(t for t in tasks if project.statuses()[t] == "open")
    for task in tasks:
        project.script(task, "exit 3")
    done = project.run("--max-iter", "1", "--attempts", "1")
    assert done.code == 1
    assert project.summary()["task_counts"] == {"parked": 1, "never_started": 1}, left


def test_a_token_budget_counts_what_is_unknown_and_is_passed_only_by_what_ran(project: Project) -> None:
    for number in range(4):
        project.add(f"Task {number}")
    done = project.run("--budget-tokens", "1", "--jobs", "2")
    assert done.code == 4
    summary = project.summary()
    assert summary["stop_reason"] == "budget_tokens"
    assert 1 <= summary["iterations"] <= 2
    assert summary["tokens"]["total"] is None


def test_a_wall_budget_lets_what_runs_finish_and_starts_nothing_more(project: Project) -> None:
    first = project.add("First", "-p", "1", script='sleep 1.2; echo > "$HEW_TASK_ID.txt"')
    second = project.add("Second")
    done = project.run("--budget-wall", "1s")
    assert done.code == 4
    assert project.statuses() == {first: "closed", second: "open"}
    assert project.summary()["stop_reason"] == "budget_wall"


def test_failures_in_a_row_trip_the_guard(tmp_path: Path) -> None:
    project = Project(tmp_path, config="guard_trip = 2\nattempts = 1")
    for number in range(3):
        project.add(f"Task {number}", script="exit 1")
    assert project.run().code == 1
    summary = project.summary()
    assert (summary["stop_reason"], summary["task_counts"]) == ("guard_trip", {"parked": 2, "never_started": 1})
