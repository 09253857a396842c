"""`loop doctor`: names what is wrong and how to mend it, hides nothing, writes nothing."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from pathlib import Path

from tests.support.project import Done, Project, marked_processes, wait_until

BAD_LEVELS = ("warn", "error")


def problems(done: Done) -> dict[str, str]:
    """`check: text` to the fix, of everything that is not ok."""
    return {f"{f['check']}: {f['text']}": f["fix"] for f in done.json() if f["level"] in BAD_LEVELS}


def picture(*tops: Path) -> dict[str, str]:
    """Every file with its content and time, every link with its target."""
    found: dict[str, str] = {}
    for path in sorted(p for top in tops for p in top.rglob("*")):
        info = path.lstat()
        content = str(path.readlink()) if path.is_symlink() else ""
        if path.is_file() and not path.is_symlink():
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        found[str(path)] = f"{info.st_mtime_ns} {info.st_mode:o} {content}"
    return found


def agent_version(folder: Path, version: str) -> str:
    program = folder / "claude"
    program.write_text(f"#!/bin/sh\necho '{version} (Claude Code)'\n")
    program.chmod(0o755)
    return str(program)


def test_every_fault_is_named_with_what_mends_it_and_none_hides_another(project: Project, home: Path) -> None:
    held, done_with = project.add("Held"), project.add("Done with")
    assert project.run("--task", done_with, "--gate", "true").code == 0
    store = project.path / ".beads" / "issues.jsonl"
    nobody = "loop/loop-20200101T000000Z-00000000/0"
    store.write_text(store.read_text().replace('"status":"open"', f'"status":"in_progress","assignee":"{nobody}"'))
    project.git("config", "core.hooksPath", ".husky/_")
    stale = project.path / ".git" / "refs" / "heads" / "loop" / "x.lock"
    stale.parent.mkdir(exist_ok=True)
    stale.touch()
    os.utime(stale, (0, 0))
    pool = next((home / "worktrees").glob("repo-*"))
    (pool / "w0.lease.json").write_text('{"run_id": "loop-20200101T000000Z-00000000"}')
    born_dead = project.path / ".hew" / "loop" / "loop-20200101T000000Z-00000001"
    born_dead.mkdir()
    (born_dead / "events.jsonl").touch()
    project.git("branch", f"loop/{project.folder().name}/{held}.1")
    before = picture(project.path, home)

    doctor = project.loop("doctor", "--json")
    assert picture(project.path, home) == before
    assert doctor.code == 1
    assert problems(doctor) == {
        "hooks: hooks are in .husky/_, which is not there in a fresh worktree: agents commit without them": (
            'in .hew.toml: [worktree] link = [".husky/_"], or setup = "COMMAND"'
        ),
        "gate: none (no test command was found): what lands is not tested": (
            'loop run --gate CMD, or in .hew.toml: [loop.gate] commands = ["CMD"]'
        ),
        "runs: loop-20200101T000000Z-00000001 died before it began": f"rm -r {born_dead}",
        f"claims: {held} is claimed by {nobody}, which is over": f"loop task reopen {held}",
        f"leases: {pool}/w0 is still leased by loop-20200101T000000Z-00000000, which is over": "loop prune --apply",
        "branches: 1 branches or refs of ended runs are not needed any more": "loop prune --apply",
        f"refs: {stale} was left by a git that was killed; no ref below it can move": f"rm {stale}",
    }
    lines = store.read_text().splitlines()
    store.write_text("\n".join([lines[0], "<<<<<<< HEAD", lines[1], "{", lines[0]]) + "\n")
    project.git("config", "--unset", "core.hooksPath")
    project.config('runtime_ = "x"\n[runtime.gone]\ncommand = ["no-such-agent"]')
    found = project.loop("doctor")
    assert found.code == 1
    assert f"{store}, line 2: it is a git conflict marker" in found.out
    assert f"{store}, line 4: " in found.out
    assert f"{store}, line 5: its id '{json.loads(lines[0])['id']}' stands in line 1 already" in found.out
    assert "unknown key loop.runtime_" in found.out
    assert "The nearest known name is loop.runtime." in found.out
    assert f"rm {stale}" in found.out


def test_a_live_run_is_left_alone_and_a_died_one_is_named(project: Project, home: Path) -> None:
    task = project.add("Slow", script='touch "$PLACES/begun"; exec sleep 600')
    running = project.spawn("run", "--scope", "ready")
    try:
        wait_until((project.places / "begun").exists)
        # The last that the run itself writes for now: the lease gets the agent's process group.
        wait_until(lambda: any('"pgid"' in p.read_text() for p in (home / "worktrees").glob("*/w0.lease.json")))
        run_id = project.folder().name
        looked_at = [project.path / ".git", project.path / ".beads", home / "worktrees"]
        before = picture(*looked_at)
        doctor = project.loop("doctor", "--json")
        assert picture(*looked_at) == before
        assert doctor.code == 0
        assert {
            "check": "lock",
            "level": "ok",
            "text": f"{run_id} is alive (pid {running.pid})",
            "fix": "",
        } in doctor.json()
        assert not [text for text in problems(doctor) if not text.startswith("gate: ")]
    finally:
        os.kill(running.pid, signal.SIGKILL)
        running.communicate()
    wait_until(lambda: not marked_processes(run_id))
    told = problems(project.loop("doctor", "--json"))
    assert told[f"runs: {run_id} was interrupted"] == f"loop resume {run_id}"
    assert told[f"claims: {task} is claimed by loop/{run_id}/0, which died"] == f"loop resume {run_id}"


def test_agents_that_are_missing_or_were_never_tried_are_named(project: Project) -> None:
    project.config('[runtime.gone]\ncommand = ["no-such-agent"]')
    for version, level in (("2.1.197", "ok"), ("3.0.0", "warn")):
        program = agent_version(project.places, version)
        doctor = project.loop("doctor", "--json", HEW_LOOP_RUNTIME="claude", HEW_LOOP_CLAUDE_BIN=program)
        found = [f for f in doctor.json() if f["text"].startswith("claude: ")]
        assert [(f["level"], version in f["text"]) for f in found] == [(level, True)]
        assert problems(doctor)["runtimes: gone: the program 'no-such-agent' is not there"] == "install it"


def test_outside_of_a_repository_it_says_so_and_checks_the_rest(tmp_path: Path, project: Project) -> None:
    outside = tmp_path / "outside \x1b[31m"
    outside.mkdir()
    done = project.loop(
        "doctor", cwd=outside, HEW_LOOP_CLAUDE_BIN="no-such-claude", GIT_CEILING_DIRECTORIES=str(tmp_path)
    )
    assert (done.code, done.err) == (69, "")
    assert "is not in a git repository." in done.out
    assert "the program 'no-such-claude' is not there" in done.out
    assert "\x1b" not in done.out
