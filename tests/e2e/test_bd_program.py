"""What `loop` does with the program `bd` itself; no real one is needed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.support.project import Project, marked_processes, wait_until


def bd_store(project: Project) -> None:
    (project.path / ".beads").mkdir()
    (project.path / ".beads" / "beads.db").touch()
    (project.path / ".beads" / "issues.jsonl").write_text('{"id":"tt-a","title":"Old","status":"open","priority":2}\n')


def test_a_bd_store_without_bd_is_never_read_as_ours(project: Project, tmp_path: Path) -> None:
    bd_store(project)
    before = (project.path / ".beads" / "issues.jsonl").read_bytes()
    (tmp_path / "bin").mkdir()
    for program in ("git", "sh"):
        (tmp_path / "bin" / program).symlink_to(shutil.which(program) or "")
    for args in (["run", "--scope", "ready"], ["run", "--scope", "ready", "--dry-run"]):
        done = project.loop(*args, PATH=str(tmp_path / "bin"))
        assert (done.code, "there is no bd on PATH" in done.err) == (69, True), done.err
    assert (project.path / ".beads" / "issues.jsonl").read_bytes() == before
    assert not (project.path / ".hew").exists()


def test_asking_for_bd_where_it_has_no_store_is_an_error(project: Project) -> None:
    project.add("Ours")
    done = project.run("--tracker", "bd")
    assert (done.code, "no store of bd's" in done.err) == (69, True)


def command_line(pid: int) -> bytes:
    """Empty once it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_a_bd_that_hangs_is_gone_when_the_loop_is_killed(project: Project, tmp_path: Path) -> None:
    bd_store(project)
    script = tmp_path / "bin" / "bd"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\nexec sleep 300\n")
    script.chmod(0o755)
    mark = f"HANGS={tmp_path}"
    loop = project.spawn("run", "--scope", "ready", PATH=f"{script.parent}:{os.environ['PATH']}", HANGS=str(tmp_path))

    def hanging() -> list[int]:
        return [pid for pid in marked_processes(mark) if b"sleep" in command_line(pid)]

    wait_until(lambda: bool(hanging()))
    loop.kill()
    loop.communicate()
    wait_until(lambda: not hanging())
