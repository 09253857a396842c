"""`loop doctor`: names what is wrong and how to mend it, hides nothing, writes nothing."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
from pathlib import Path

import pytest

from tests.support.project import Done, Project, marked_processes, wait_until

BAD_LEVELS = ("warn", "error")
SECRET = "sk-0123456789abcdefghij"


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


def agent(project: Project, name: str, version: str) -> str:
    """A program that tells a version and nothing else; its path."""
    program = project.places / name
    program.write_text(f"#!/bin/sh\necho '{version}'\n")
    program.chmod(0o755)
    return str(program)


def missing(*names: str) -> dict[str, str]:
    return {f"HEW_LOOP_{name.upper()}_BIN": f"no-such-{name}" for name in names}


@pytest.fixture
def no_logins(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the machine's user says how to log in to an agent."""
    for name in os.environ:
        if re.search(
            r"_API_KEY$|_TOKEN$|^(ANTHROPIC|CLAUDE|CODEX|OPENCODE|GEMINI|GOOGLE)_|^CLOUD_SHELL$|^XDG_DATA", name
        ):
            monkeypatch.delenv(name)


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


def test_agents_in_use_are_checked_and_the_others_are_told_of_in_a_line(
    project: Project, home: Path, no_logins: None
) -> None:
    project.config('[runtime.gone]\ncommand = ["no-such-agent"]')
    asked = {"HEW_LOOP_RUNTIME": "claude", **missing("opencode", "gemini", "aider")}
    (home / ".codex").mkdir()
    (home / ".codex" / "auth.json").write_text(json.dumps({"tokens": {"access_token": SECRET}}))
    programs = {
        "HEW_LOOP_CLAUDE_BIN": agent(project, "claude", "2.1.197 (Claude Code)"),
        "HEW_LOOP_CODEX_BIN": agent(project, "codex", "codex-cli 0.1.0"),
    }
    before = picture(home, project.places)
    doctor = project.loop("doctor", "--json", ANTHROPIC_API_KEY=SECRET, **asked, **programs)
    assert (picture(home, project.places), doctor.code) == (before, 0)
    assert SECRET not in doctor.out + doctor.err
    told = {f["text"] for f in doctor.json() if f["check"] in ("runtimes", "login")}
    codex = f"{programs['HEW_LOOP_CODEX_BIN']} 0.1.0, never tried with this loop, with a login"
    assert told - {"aider: not in use; the program 'no-such-aider' is not there"} == {
        f"claude: {programs['HEW_LOOP_CLAUDE_BIN']} 2.1.197",
        "claude: there is a login: $ANTHROPIC_API_KEY",
        f"codex: not in use; {codex}",
        "opencode: not in use; the program 'no-such-opencode' is not there",
        "gemini: not in use; the program 'no-such-gemini' is not there",
        "gone: not in use; the program 'no-such-agent' is not there",
        "script: not in use; sh",
    }
    assert set(problems(doctor)) == {"gate: none (no test command was found): what lands is not tested"}

    agent(project, "claude", "3.0.0 (Claude Code)")
    asked |= {"HEW_LOOP_FALLBACK_RUNTIME": "opencode", "HEW_LOOP_PLANNER_RUNTIME": "gemini"}
    doctor = project.loop("doctor", "--json", **asked, **programs)
    assert doctor.code == 1
    claude = programs["HEW_LOOP_CLAUDE_BIN"]
    files = f"$ANTHROPIC_API_KEY, $ANTHROPIC_AUTH_TOKEN, $CLAUDE_CODE_OAUTH_TOKEN, {home}/.claude/.credentials.json"
    assert {k: v for k, v in problems(doctor).items() if not k.startswith(("gate:", "memory:"))} == {
        f"runtimes: claude: {claude} 3.0.0 was never tried with this loop; 2.1.197 to 2.1.329 were": (
            "try it on one task first: loop run --task ID"
        ),
        f"login: claude: no login was found (looked at: {files})": "claude /login",
        "runtimes: opencode: the program 'no-such-opencode' is not there (the fallback)": (
            "npm install -g opencode-ai, or name another: loop run --fallback-runtime NAME"
        ),
        "runtimes: gemini: the program 'no-such-gemini' is not there (the planner)": (
            "npm install -g @google/gemini-cli, or: loop run --no-planner"
        ),
    }


def test_the_reach_of_a_sandbox_and_a_budget_without_prices_are_named(
    project: Project, home: Path, no_logins: None
) -> None:
    agents = {"HEW_LOOP_RUNTIME": "codex", **missing("claude", "opencode", "gemini", "aider")}
    agents |= {"HEW_LOOP_CODEX_BIN": agent(project, "codex", f"codex-cli 0.169.0 {SECRET}")}
    agents |= {"HEW_LOOP_BUDGET_USD": "5", "HEW_LOOP_MODEL_DEFAULT": "gpt-x", "TMPDIR": str(home)}
    doctor = project.loop("doctor", "--json", OPENAI_API_KEY=SECRET, **agents)
    assert doctor.code == 0
    assert SECRET not in doctor.out + doctor.err
    reach = [f["text"] for f in doctor.json() if f["check"] == "sandbox"]
    assert f"{project.path}/.git: hooks, configuration and every ref" in reach[0]
    pool = next(text for text in reach if "temporary" in text)
    fixes = {text.partition(":")[0]: fix for text, fix in problems(doctor).items()}
    assert f"{home}/worktrees/" in pool
    assert fixes["sandbox"] == 'export HEW_WORKTREE_ROOT="$HOME/.cache/hew-loop"'
    assert fixes["login"] == "printenv OPENAI_API_KEY | codex login --with-api-key"
    assert fixes["prices"].startswith('in .hew.toml, [loop]: prices = [{ model = "gpt-x",')

    agents |= {"HEW_LOOP_PLANNER_RUNTIME": "codec", "HEW_WORKTREE_ROOT": "/nowhere-to-be-found"}
    doctor = project.loop("doctor", "--json", **agents)
    assert doctor.code == 1
    named = "runtimes: there is no runtime 'codec' for --planner-runtime"
    assert problems(doctor)[named] == "loop run --planner-runtime codex"
    assert [f["level"] for f in doctor.json() if f["check"] == "sandbox"] == ["ok"]


@pytest.mark.agent_cli
@pytest.mark.parametrize("name", ["claude", "codex"])
def test_asking_the_real_agents_for_their_version_writes_nothing(
    project: Project, home: Path, no_logins: None, name: str
) -> None:
    program = os.environ.get(f"HEW_LOOP_{name.upper()}_BIN") or shutil.which(name)
    if program is None:
        pytest.skip(f"the {name} CLI is not on PATH")
    (home / f".{name}").mkdir()
    before = picture(home)
    others = missing(*{"claude", "codex", "opencode", "gemini", "aider"} - {name})
    agents = {**others, "HEW_LOOP_RUNTIME": name, f"HEW_LOOP_{name.upper()}_BIN": program}
    doctor = project.loop("doctor", "--json", **agents)
    assert picture(home) == before
    found = next(f for f in doctor.json() if f["text"].startswith(f"{name}: {program} "))
    assert re.search(r" \d+\.\d+\.\d+", found["text"])
    assert f"login: {name}: no login was found" in "\n".join(problems(doctor))


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
