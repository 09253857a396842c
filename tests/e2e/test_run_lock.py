"""One run per repository (P6), through the command: who is told what, and that looking writes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.project import Project, wait_until

pytestmark = pytest.mark.slow

WAITS = 'touch "$PLACES/$HEW_TASK_ID"; while [ ! -e "$PLACES/go" ]; do sleep 0.05; done; echo > done.txt'


def written(project: Project) -> dict[Path, tuple[int, int]]:
    """Everything below the repository that is not git's own business, with size and time of the last change."""
    places = [project.path / ".hew", project.path / ".beads", project.path / ".git" / "hew-loop"]
    found = (p for place in places for p in place.rglob("*") if p.is_file())
    return {p: (p.stat().st_size, p.stat().st_mtime_ns) for p in found}


def test_a_second_run_is_told_who_holds_the_lock_and_the_file_stays(project: Project) -> None:
    task = project.add("Waits", script=WAITS)
    first = project.spawn("run", "--scope", "ready")
    wait_until(lambda: (project.places / task).exists())
    run_id = project.folder().name
    lock = project.path / ".git" / "hew-loop" / "run.lock"
    inode = lock.stat().st_ino
    for args in (("run", "--scope", "ready"), ("resume",), ("resume", run_id), ("deliver", run_id)):
        second = project.loop(*args)
        held = f"loop: Run {run_id} (pid {first.pid}) holds the lock of this repository."
        assert (second.code, second.err.splitlines()) == (75, [held, f"  wait, or: loop cancel {run_id}"]), args
    (project.places / "go").touch()
    first.communicate(timeout=30)
    assert (first.returncode, project.statuses()) == (0, {task: "closed"})
    assert [p.name for p in (project.path / ".hew" / "loop").glob("loop-*")] == [run_id]
    assert project.run().code == 0
    assert lock.stat().st_ino == inode


def test_looking_at_a_dead_run_names_it_and_writes_nothing(project: Project) -> None:
    task = project.add("Waits", script=WAITS)
    run = project.spawn("run", "--scope", "ready")
    wait_until(lambda: (project.places / task).exists())
    run_id = project.folder().name
    run.kill()
    run.communicate(timeout=10)
    before = written(project)
    for args in (("status",), ("doctor",), ("summary",), ("list",), ("graph", "--format", "ascii")):
        told = project.loop(*args)
        assert run_id in told.out + told.err, args
    assert f"loop resume {run_id}" in project.loop("status").out
    assert written(project) == before
    assert project.tasks()[task]["status"] == "in_progress"
    (project.places / "go").touch()
    assert (project.loop("resume").code, project.statuses()) == (0, {task: "closed"})


def test_what_cannot_be_resumed_is_said_and_blocks_no_later_run(project: Project) -> None:
    project.add("A task")
    nothing = project.loop("resume")
    assert (nothing.code, "no run was interrupted" in nothing.err) == (2, True)
    assert project.run().code == 0
    run_id = project.folder().name
    ended = project.loop("resume", run_id)
    assert (ended.code, ended.err) == (2, f"loop: {run_id} has ended\n  see: loop summary {run_id}\n")
    unknown = project.loop("resume", "loop-20200101T000000Z-00000000")
    assert (unknown.code, "no run is called" in unknown.err, "loop list" in unknown.err) == (2, True, True)

    runs = project.path / ".hew" / "loop"
    empty, other, odd = (runs / f"loop-20200101T00000{n}Z-00000000" for n in range(3))
    first, *_ = (runs / run_id / "events.jsonl").read_text().splitlines(keepends=True)
    newer = json.loads(first)
    newer["event"]["schema_version"] = 99
    for folder, text in ((empty, ""), (other, json.dumps(newer) + "\n"), (odd, first + "{}\n" + first)):
        folder.mkdir()
        (folder / "events.jsonl").write_text(text)
    assert "the journal holds no event" in project.loop("resume", empty.name).err
    assert "has journal version 99, this loop reads 1" in project.loop("resume", other.name).err
    assert "line 2 of the journal is not an event of this version" in project.loop("resume", odd.name).err
    task = project.add("Another")
    assert (project.run().code, project.statuses()[task]) == (0, "closed")


def test_where_nothing_can_be_written_one_sentence_says_so_and_nothing_is_claimed(project: Project) -> None:
    task = project.add("A task")
    (project.path / ".hew").mkdir()
    (project.path / ".hew" / "loop").write_text("a file in the way")
    done = project.run()
    assert (done.code, done.err.splitlines()[-2:]) == (
        1,
        [
            f"loop: cannot write {project.path}/.hew/loop: File exists",
            "  make the folder writable, or free some space",
        ],
    )
    assert project.statuses() == {task: "open"}
    assert project.git("for-each-ref", "refs/loop/") == ""
