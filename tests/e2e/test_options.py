"""Options of a run that no other test passes: each changes what happens."""

from __future__ import annotations

from pathlib import Path

from tests.support.project import Project


def test_the_deadline_of_an_iteration_ends_an_agent(project: Project) -> None:
    task = project.add("Slow", script="echo part > part.txt; sleep 300\n")
    done = project.run("--iter-timeout", "1s", "--attempts", "1")
    assert done.code == 1, done.err
    (iteration,) = project.iterations()
    assert (iteration["task_id"], iteration["failure_class"]) == (task, "timed_out")
    assert iteration["message"].startswith("it was ended at its deadline of 1 s")
    assert project.git("show", f"{iteration['branch']}:part.txt") == "part", "what it had left is kept"


def test_the_deadline_of_a_gate_is_nobodys_fault_when_the_tip_hangs_too(project: Project) -> None:
    project.add("One", script="touch hang\n")
    done = project.run("--gate", "test ! -e hang || sleep 300", "--gate-timeout", "1s", "--attempts", "1")
    assert done.code == 1, done.err
    (iteration,) = project.iterations()
    assert (iteration["fate"], iteration["gate_verdict"]) == ("gate_failed", "could_not_run")
    assert "hang" not in project.landed_files()


def test_deliver_onto_brings_the_work_to_another_branch(project: Project) -> None:
    task = project.add("One")
    project.git("branch", "release")
    assert project.run("--deliver", "branch").code == 0
    before = project.git("rev-parse", "HEAD")
    done = project.loop("deliver", "latest", "--onto", "release")
    assert done.code == 0, done.err
    assert f"{task}.txt" in project.landed_files("release")
    assert project.git("rev-parse", "HEAD") == before


def test_fetch_starts_from_the_upstream_as_it_is_now(project: Project, tmp_path: Path) -> None:
    hub, other = tmp_path / "hub.git", tmp_path / "other"
    project.git("clone", "-q", "--bare", ".", str(hub))
    branch = project.git("branch", "--show-current")
    project.git("remote", "add", "origin", str(hub))
    project.git("fetch", "-q", "origin")
    project.git("branch", "-q", "-u", f"origin/{branch}")
    project.git("clone", "-q", str(hub), str(other))
    (other / "theirs.txt").write_text("x")
    project.git("add", "-A", cwd=other)
    project.git("commit", "-qm", "Theirs", cwd=other)
    project.git("push", "-q", cwd=other)
    project.add("One", script="cp theirs.txt ours.txt\n")
    done = project.run("--fetch")
    assert done.code == 0, done.err
    assert {"theirs.txt", "ours.txt"} <= project.landed_files()
