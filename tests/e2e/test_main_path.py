"""One task all the way, and what the user's checkout, tracker and branch look like in the morning."""

from __future__ import annotations

from pathlib import Path

from tests.support.project import Project


def test_one_task_lands_closes_and_is_delivered(project: Project) -> None:
    task = project.add("Write a file")
    done = project.run()
    assert (done.code, project.statuses()) == (0, {task: "closed"})
    assert f"{task}.txt" in project.landed_files()
    assert (project.path / f"{task}.txt").read_text() == f"{task}\n"
    assert project.git("status", "--porcelain") == ""
    assert project.summary()["changes"] == {"merges": 1, "files": 1, "insertions": 1, "deletions": 0}


def test_a_dependant_starts_from_a_base_that_holds_its_dependency(project: Project) -> None:
    first = project.add("First")
    second = project.add("Second", "--dep", first, script=f"test -f {first}.txt && cp {first}.txt second.txt")
    done = project.run("--jobs", "4")
    assert (done.code, project.statuses()) == (0, {first: "closed", second: "closed"})
    assert "second.txt" in project.landed_files()


def test_an_empty_backlog_is_a_good_end(project: Project) -> None:
    done = project.run()
    assert (done.code, project.summary()["stop_reason"]) == (0, "ready_empty")


def test_without_a_scope_nothing_is_started(project: Project) -> None:
    project.add("Not yet")
    done = project.loop("run")
    assert done.code == 2
    assert "--scope" in done.err
    assert not (project.path / ".hew").exists()


def test_a_copied_file_that_would_be_committed_is_refused_before_anything_is_claimed(tmp_path: Path) -> None:
    project = Project(tmp_path, files={".gitignore": ".env\n"}, config='[worktree]\ncopy = [".env", "README.md"]\n')
    (project.path / ".env").write_text("A=1\n")
    task = project.add("Reads its settings", script="grep -q A=1 .env && cp .env seen.txt")
    refused = project.run()
    assert (refused.code, project.statuses()) == (2, {task: "open"})
    assert "'README.md' is not ignored" in refused.err
    project.config('[worktree]\ncopy = [".env"]\n')
    assert project.run().code == 0
    assert "seen.txt" in project.landed_files()
    assert ".env" not in project.landed_files()
