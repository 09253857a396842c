"""The end of a run: verify, and the way to the user's branch, also when people worked meanwhile."""

from __future__ import annotations

from pathlib import Path

from tests.support.project import Project


def meanwhile(project: Project, file: str, text: str = "day") -> str:
    """A script that does its task, and plays the person who commits in the main checkout meanwhile."""
    clean = "env -u GIT_DIR -u GIT_WORK_TREE"
    return (
        'echo night > "$HEW_TASK_ID.txt"\necho night > night.txt\n'
        f"cd '{project.path}' && echo {text} > {file} && {clean} git add {file}\n"
        f"{clean} git commit -qm 'Work by day'\n"
    )


def test_a_launch_branch_that_moved_is_merged_gated_verified_and_then_delivered(project: Project) -> None:
    task = project.add("By night")
    project.script(task, meanwhile(project, "day.txt"))
    done = project.run("--gate", "true", "--verify-command", "test -f night.txt")
    assert done.code == 0, done.out
    assert {"day.txt", "night.txt"} <= project.landed_files()
    assert project.git("status", "--porcelain") == ""
    assert len(project.events("verified")) == 2
    assert [e["action"]["purpose"] for e in project.events("run_gate")] == ["base", "prefix", "prefix"]


def test_a_conflict_with_work_by_day_refuses_and_loop_deliver_brings_it_later(project: Project) -> None:
    task = project.add("By night")
    project.script(task, meanwhile(project, "night.txt", "day"))
    refused = project.run("--no-gate")
    run_id = project.folder().name
    assert refused.code == 1
    assert f"loop deliver {run_id}" in refused.out
    assert project.git("show", "HEAD:night.txt") == "day"
    assert project.statuses() == {task: "closed"}
    assert project.git("show", f"loop/{run_id}/integration:night.txt") == "night"
    project.git("reset", "-q", "--hard", "HEAD~1")
    delivered = project.loop("deliver", run_id)
    assert delivered.code == 0, delivered.err
    assert project.git("show", "HEAD:night.txt") == "night"
    assert project.git("for-each-ref", "refs/loop", "refs/heads/loop") == ""
    again = project.loop("deliver", run_id)
    assert again.code == 2
    assert "delivered already" in again.err


def test_a_file_in_the_way_is_never_overwritten(project: Project) -> None:
    task = project.add("Writes mine.txt", script="echo theirs > mine.txt\n")
    (project.path / "mine.txt").write_text("precious\n")
    (project.path / "README.md").write_text("edited, not in the way\n")
    refused = project.run("--no-gate")
    assert (refused.code, (project.path / "mine.txt").read_text()) == (1, "precious\n")
    assert "mine.txt" in refused.out
    (project.path / "mine.txt").rename(project.places / "mine.txt")
    assert project.loop("deliver").code == 0
    assert (project.path / "mine.txt").read_text() == "theirs\n"
    assert (project.path / "README.md").read_text() == "edited, not in the way\n"
    assert project.statuses() == {task: "closed"}


def test_a_red_verify_keeps_the_branch_and_holds_the_dependants_of_later_runs_back(project: Project) -> None:
    first = project.add("First")
    red = project.run("--no-gate", "--verify-command", "echo VERIFY SAYS NO; exit 1")
    assert red.code == 1
    run_id = project.folder().name
    assert "VERIFY SAYS NO" in (project.folder() / "verify.log").read_text()
    assert project.git("log", "--format=%s") == "Begin"
    second = project.add("Second", "--dep", first)
    held = project.run("--no-gate")
    assert f"loop deliver {run_id}" in held.out
    assert project.statuses() == {first: "closed", second: "open"}
    based = project.run("--no-gate", "--base", f"loop/{run_id}/integration", "--deliver", "branch")
    assert (based.code, project.statuses()) == (0, {first: "closed", second: "closed"})


def test_deliver_branch_leaves_the_users_branch_alone(project: Project) -> None:
    project.add("A task")
    before = project.git("rev-parse", "HEAD")
    assert project.run("--no-gate", "--deliver", "branch").code == 0
    run_id = project.folder().name
    assert project.git("rev-parse", "HEAD") == before
    assert project.git("rev-parse", f"loop/{run_id}/integration") != before
    assert project.loop("deliver").code == 0
    assert project.git("rev-parse", "HEAD") != before


def test_what_cannot_be_delivered_is_said_at_the_start(project: Project) -> None:
    task = project.add("A task")
    project.git("switch", "-q", "--detach")
    detached = project.run("--no-gate")
    project.git("switch", "-q", "main")
    project.git("branch", "loop")
    blocked = project.run("--no-gate")
    assert (detached.code, blocked.code, project.statuses()) == (2, 69, {task: "open"})
    assert "--deliver branch" in detached.err
    assert "git branch -m loop" in blocked.err


def test_it_works_from_a_linked_worktree_and_a_sub_directory(project: Project) -> None:
    linked = project.places / "linked"
    project.git("worktree", "add", "-q", "-b", "side", str(linked))
    (linked / "sub").mkdir()
    task = project.add("A task")
    done = project.loop("run", "--scope", "ready", "--no-gate", cwd=linked / "sub")
    assert done.code == 0, done.err
    assert f"{task}.txt" in project.landed_files("side")
    assert f"{task}.txt" not in project.landed_files("main")
    assert (linked / f"{task}.txt").exists()
    assert (project.path / ".hew" / "loop").is_dir()


def test_without_a_gate_the_configured_one_still_judges_the_end(tmp_path: Path) -> None:
    project = Project(tmp_path, config='gate.commands = ["test ! -f bad.txt"]\n')
    task = project.add("Breaks it", script="echo x > bad.txt\n")
    red = project.run("--no-gate")
    assert (red.code, project.statuses()) == (1, {task: "closed"})
    assert "test ! -f bad.txt" in red.out
    assert "bad.txt" not in project.landed_files()
