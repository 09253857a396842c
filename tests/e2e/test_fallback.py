"""Limits, dead runtimes and the fallback, through the command: nothing spins, nothing is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.project import Project

RECORDED = Path(__file__).parents[1] / "data" / "agents" / "claude-2.1.329"
COUNT = 'date +%s.%N >> "$PLACES/starts"\n'


def with_second(project: Project, more: str = "") -> None:
    """A second command runtime named `other`, which writes the task's file."""
    program = project.path.parent / "other.sh"
    program.write_text('echo "$HEW_TASK_ID" >> "$PLACES/other"\necho "$HEW_TASK_ID" > "$HEW_TASK_ID.txt"\n')
    project.config(f'fallback_runtime = "other"\n{more}\n[runtime.other]\ncommand = ["sh", "{program}"]\n')


def replaying(project: Project, case: str) -> dict[str, str]:
    """The environment in which `claude` is a program that prints a recorded run and ends as it did."""
    program = project.path.parent / "claude"
    program.write_text(f'#!/bin/sh\n{COUNT}cat >/dev/null\ncat "{RECORDED}/{case}.stdout"\nexit 1\n')
    program.chmod(0o755)
    return {"HEW_LOOP_CLAUDE_BIN": str(program)}


def agents_started(project: Project) -> int:
    return len((project.places / "starts").read_text().splitlines())


def test_a_limit_uses_up_no_attempt_and_the_fallback_takes_over(project: Project) -> None:
    with_second(project, "jobs = 2")
    tasks = [
        project.add(
            f"Task {n}", script=f"{COUNT}echo part > part-$HEW_TASK_ID.txt; git add -A; git commit -qm p; exit 75"
        )
        for n in range(4)
    ]
    done = project.run()
    assert done.code == 0, done.err
    assert set(project.statuses().values()) == {"closed"}
    first = [i for i in project.iterations() if i["runtime_used"] == "script"]
    kept = {f"part-{i['task_id']}.txt" for i in first}
    assert kept <= project.landed_files(), "what was committed before the limit is carried on"
    assert (len(first), {i["failure_class"] for i in first}) == (2, {"rate_limit"})
    assert {(i["runtime_used"], i["cooldown_engaged"]) for i in project.iterations()} == {
        ("script", False),
        ("other", True),
    }
    assert agents_started(project) == 2, "nothing is started on a runtime that is held back"
    assert sorted((project.places / "other").read_text().split()) == sorted(tasks)
    assert "other takes over" in done.err


def test_a_limit_that_outlasts_the_wall_budget_ends_the_run_at_once(project: Project) -> None:
    task = project.add("One", script=f"{COUNT}exit 75")
    done = project.run("--budget-wall", "30s")
    assert done.code == 4, done.err
    assert project.summary()["stop_reason"] == "all_limited"
    assert project.statuses() == {task: "open"}
    assert agents_started(project) == 1


def test_a_login_that_fails_stops_the_run_and_gives_its_tasks_back(project: Project) -> None:
    tasks = [project.add(f"Task {n}") for n in range(3)]
    done = project.run("--runtime", "claude", "--no-planner", **replaying(project, "auth-401-stream"))
    assert done.code == 69, done.err
    assert project.summary()["stop_reason"] == "runtime_error"
    assert project.statuses() == dict.fromkeys(tasks, "open")
    assert agents_started(project) == 1


def test_with_a_fallback_a_dead_login_costs_one_start(project: Project) -> None:
    with_second(project)
    for n in range(3):
        project.add(f"Task {n}")
    done = project.run("--runtime", "claude", "--no-planner", **replaying(project, "auth-401-stream"))
    assert done.code == 0, done.err
    assert set(project.statuses().values()) == {"closed"}
    assert agents_started(project) == 1


def test_a_runtime_that_is_its_own_fallback_or_that_nobody_knows_is_refused(project: Project) -> None:
    project.add("One")
    for args, said in (
        (("--fallback-runtime", "script"), "the fallback runtime is script itself"),
        (("--fallback-runtime", "codx"), "did you mean codex?"),
        (("--planner-runtime", "nobody"), "there is no runtime 'nobody' for --planner-runtime"),
    ):
        done = project.run(*args)
        assert (done.code, said in done.err) == (2, True), done.err
    assert list(project.statuses().values()) == ["open"]


@pytest.mark.slow
def test_the_first_runtime_is_tried_again_with_one_iteration_when_its_hold_is_over(project: Project) -> None:
    # A hold without a known end lasts a minute: the fallback has to work for longer than that.
    program = project.path.parent / "other.sh"
    program.write_text('sleep 9\necho "$HEW_TASK_ID" > "$HEW_TASK_ID.txt"\n')
    project.config(f'jobs = 3\n[runtime.other]\ncommand = ["sh", "{program}"]\n')
    limited = f'{COUNT}[ "$(wc -l < "$PLACES/starts")" -gt 3 ] || exit 75\nsleep 2\necho x > "$HEW_TASK_ID.txt"\n'
    for n in range(30):
        project.add(f"Task {n}", script=limited)
    done = project.run("--fallback-runtime", "other", "--fallback-cooldown-iters", "4")
    assert done.code == 0, done.err
    assert set(project.statuses().values()) == {"closed"}
    first, _, third, *later = [float(line) for line in (project.places / "starts").read_text().split()]
    assert third - first < 20, "what ran when the limit was seen"
    assert later[0] - first >= 60, "nothing is started on it before its time"
    assert later[1] - later[0] >= 1.9, "one alone, until it has ended well"
    order = [i["runtime_used"] for i in project.iterations()]
    assert order[:3] == ["script"] * 3
    assert order[3:].index("script") >= 4
    assert set(order[-6:]) == {"script"}
