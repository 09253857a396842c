"""Failed gates and a failed verify are remembered in the tracker, once, with the task."""

from __future__ import annotations

import json

from tests.support.project import Project


def memories(project: Project) -> list[str]:
    lines = (project.path / ".beads" / "issues.jsonl").read_text().splitlines()
    return [v["value"] for line in lines if (v := json.loads(line)).get("_type") == "memory"]


def test_failed_gates_and_a_failed_verify_are_remembered(project: Project) -> None:
    bad = project.add("Bad", script="echo $HEW_ATTEMPT > bad.txt\n")
    good = project.add("Good")
    done = project.run("--gate", "test ! -e bad.txt", "--attempts", "2", "--verify-command", f"test ! -e {good}.txt")
    assert done.code == 1, done.err
    first, second, verify = memories(project)
    run = project.folder().name
    for memory in (first, second):
        status, task, reasons = memory.splitlines()
        assert status.startswith(f"STATUS:loop-iter-failed:{run}:")
        assert status.endswith("Z")
        assert (task, reasons.startswith("reasons: ")) == (f"task: {bad}", True)
    assert first != second
    assert verify.splitlines()[0] == f"STATUS:loop-verify-failed:{run}"
