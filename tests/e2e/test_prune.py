"""`loop prune`: what ended runs left goes, and nothing that is anybody's only copy."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support.project import Project, marked_processes, wait_until

pytestmark = pytest.mark.slow

BAD = "echo $HEW_ATTEMPT > bad.txt; git add bad.txt; git commit -qm bad; exit 1"


def by_name(things: list[dict[str, Any]]) -> dict[str, tuple[bool, str]]:
    return {Path(t["name"]).name: (t["removable"], t["reason"]) for t in things}


def refs(project: Project) -> list[str]:
    return project.git("for-each-ref", "--format=%(refname)").splitlines()


def worktrees(project: Project) -> list[str]:
    listed = project.git("worktree", "list", "--porcelain").splitlines()
    return [Path(line.removeprefix("worktree ")).name for line in listed if line.startswith("worktree ")]


def test_prune_takes_what_is_free_and_keeps_what_is_anybodys_only_copy(project: Project) -> None:
    good, bad = project.add("Good"), project.add("Bad", script=BAD)
    assert project.run("--jobs", "3", "--attempts", "2", "--gate", "true").code == 1
    run_id = project.folder().name
    pool = Path(os.environ["HEW_WORKTREE_ROOT"])
    (other,) = (p.parent / "other-0123456789" for p in pool.iterdir())
    (other / "w0").mkdir(parents=True)
    (other / "w0" / "theirs").write_text("x")
    w0 = next(pool.glob("repo-*")) / "w0"
    (w0 / "scratch.txt").write_text("somebody worked here\n")
    project.git("branch", f"loop/{run_id}/{good}.7")
    project.git("branch", f"loop/{run_id}/{bad}.0", f"loop/{run_id}/{bad}.2~")
    project.git("branch", "loop/mine")
    project.git("update-ref", f"refs/loop/{run_id}/candidate", "HEAD")
    before = refs(project), worktrees(project)

    plan = by_name(project.loop("prune", "--json").json())
    assert (refs(project), worktrees(project)) == before
    kept = {name for name, (goes, _) in plan.items() if not goes}
    assert kept == {"w0", f"{bad}.1", f"{bad}.2"}
    assert plan["gate"] == plan["w1"] == (True, "no run uses it")
    assert plan["w0"][1] == "it holds files that no run accounts for: scratch.txt"
    assert plan[f"{bad}.0"][1] == plan[f"{good}.7"][1] == "its work is on other branches"

    done = project.loop("prune", "--apply")
    assert (done.code, worktrees(project)) == (0, ["repo", "w0"])
    parked = [f"refs/heads/loop/{run_id}/{bad}.{attempt}" for attempt in (1, 2)]
    assert refs(project) == [*parked, "refs/heads/loop/mine", "refs/heads/main"]
    assert f"keep          worktree  {w0}" in done.out
    assert (w0 / "scratch.txt").exists()
    assert (other / "w0" / "theirs").exists()
    again = project.loop("prune", "--apply")
    assert (again.code, again.err) == (0, "loop: there is nothing to remove\n")

    # A person has decided: the task is closed, and the file is gone.
    (w0 / "scratch.txt").unlink()
    project.loop("task", "close", bad)
    assert by_name(project.loop("prune", "--json").json())[f"{bad}.2"] == (
        True,
        f"its work never landed, but {bad} is closed",
    )
    project.loop("task", "reopen", bad)
    assert project.loop("prune", "--apply", "--unlanded").code == 0
    assert sorted(refs(project)) == ["refs/heads/loop/mine", "refs/heads/main"]
    assert worktrees(project) == ["repo"]

    late = project.add("After it")
    assert (project.run("--task", late).code, project.statuses()[late]) == (0, "closed")


def test_an_undelivered_result_a_salvage_and_a_lost_commit_stay(project: Project) -> None:
    """What is unmerged is kept under a salvage ref; the worktree that still shows it is accounted for by that."""
    project.add("Land")
    marks = "printf '<<<<<<< a\\n=======\\n>>>>>>> b\\n' > marks.txt"
    unmerged = project.add("Leaves markers", script=marks)
    assert project.run("--jobs", "2", "--attempts", "1", "--deliver", "branch").code == 1
    run_id = project.folder().name
    plan = by_name(project.loop("prune", "--json").json())
    assert {name for name, (goes, _) in plan.items() if not goes} == {"integration", f"{unmerged}.1"}
    project.loop("prune", "--apply")
    integration = f"refs/heads/loop/{run_id}/integration"
    salvage = f"refs/loop/{run_id}/salvage/{unmerged}.1"
    assert set(refs(project)) == {"refs/heads/main", integration, salvage}
    assert project.loop("deliver", run_id).code == 0

    # A commit in a worktree of ours that no branch and no run knows.
    slot = next(Path(os.environ["HEW_WORKTREE_ROOT"]).glob("repo-*")) / "w9"
    project.git("worktree", "add", "-q", "--detach", str(slot))
    project.git("commit", "-q", "--allow-empty", "-m", "by hand", cwd=slot)
    commit = project.git("rev-parse", "HEAD", cwd=slot)
    plan = by_name(project.loop("prune", "--json").json())
    assert plan["w9"] == (False, f"nothing else leads to its commit {commit[:12]}")


def test_what_a_live_or_died_run_needs_is_not_touched(project: Project) -> None:
    task = project.add("Slow", script='echo half > half.txt; touch "$PLACES/begun"; exec sleep 600')
    running = project.spawn("run", "--scope", "ready")
    try:
        wait_until((project.places / "begun").exists)
        run_id = project.folder().name
        before = refs(project), worktrees(project)
        refused = project.loop("prune", "--apply", "--unlanded")
        assert (refused.code, refused.out) == (75, "")
        assert run_id in refused.err
        plan = project.loop("prune", "--json", "--unlanded").json()
        assert {t["removable"] for t in plan} == {False}
        assert (refs(project), worktrees(project)) == before
    finally:
        os.kill(running.pid, signal.SIGKILL)
        running.communicate()
    wait_until(lambda: not marked_processes(run_id))

    done = project.loop("prune", "--apply", "--unlanded")
    assert (done.code, refs(project)) == (0, before[0])
    assert "w0" in worktrees(project)
    assert f"loop resume {run_id}" in done.out
    project.script(task, "echo whole > whole.txt")
    assert project.loop("resume").code == 0
    assert "whole.txt" in project.landed_files()
    assert project.git("show", f"loop/{run_id}/{task}.1:half.txt") == "half"
