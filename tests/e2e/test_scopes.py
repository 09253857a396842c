"""Which tasks count: everything ready, what lies below epics, or named ones; and the question on a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

from tests.support.project import Project


def test_the_scope_epics_takes_what_lies_below_them_and_what_is_added_there_meanwhile(project: Project) -> None:
    epic = project.add("Epic", "-t", "epic")
    story = project.add("Story", "--parent", epic)
    outside = project.add("Outside", "-p", "0")
    loop = f"'{sys.executable}' -m hew_loop task add"
    child = project.add(
        "Child",
        "--parent",
        story,
        script=f"echo 1 > child.txt; cd '{project.path}' && {loop} 'Late child' --parent {epic}",
    )
    done = project.loop("run", "--scope", "epics", "--epic", epic, "--no-gate")
    assert done.code == 0, done.out
    late = next(t for t, value in project.tasks().items() if value["title"] == "Late child")
    # Tasks with children are never started themselves.
    assert project.statuses() == {epic: "open", story: "open", outside: "open", child: "closed", late: "closed"}
    lines = {t["task"]: t["why"] for t in project.summary()["tasks"]}
    assert lines[story] == f"all its children are closed: loop task close {story}"


def test_a_backlog_that_feeds_itself_is_bounded(project: Project) -> None:
    loop = f"'{sys.executable}' -m hew_loop task add"
    script = f'echo $HEW_ITER > "$HEW_TASK_ID.txt"; cd "{project.path}" && {loop} "One more"'
    (project.path.parent / "agent.sh").write_text(script)
    project.add("First")
    done = project.run("--no-gate")
    assert len(project.iterations()) == 2  # as many new ones as were there at the start
    assert "loop.max_new" in done.out


def test_wrong_ids_are_refused_before_anything_is_written(project: Project) -> None:
    task = project.add("No epic")
    closed = project.add("Closed epic", "-t", "epic")
    project.loop("task", "close", closed)
    for args, why in (
        (("--task", "nobody-1"), "there is no task 'nobody-1'"),
        (("--scope", "epics", "--epic", task), f"{task} is no epic"),
        (("--scope", "epics", "--epics", closed), f"the epic {closed} is closed"),
        (("--scope", "ready", "--epic", task), "takes no epics"),
        (("--scope", "epics"), "there is no open epic"),
    ):
        refused = project.loop("run", *args)
        assert (refused.code, why in refused.err) == (2, True), refused.err
    assert not (project.path / ".hew").exists()


def test_on_a_terminal_without_a_scope_it_asks(project: Project) -> None:
    epic = project.add("Big thing", "-t", "epic")
    child = project.add("Child", "--parent", epic)
    other = project.add("Other")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "hew_loop", "run", "--no-gate", "-q"],
        cwd=project.path,
        env={**project.env(), "CI": ""},
        stdin=theirs,
        stderr=theirs,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.close(theirs)
    os.write(ours, b"epics\n1\n")
    assert process.wait(timeout=60) == 0
    os.close(ours)
    assert project.statuses() == {epic: "open", child: "closed", other: "open"}


def test_only_the_named_task_is_worked_on(project: Project) -> None:
    first, second = project.add("First"), project.add("Second")
    assert project.loop("run", "--task", second, "--no-gate").code == 0
    assert project.statuses() == {first: "open", second: "closed"}
