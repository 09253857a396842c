"""The real `codex` in its sandbox against a scripted model server on loopback: no key, no other network."""

from __future__ import annotations

import os
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hew_loop.core.iteration import AgentReport
from hew_loop.runtimes.base import AgentRequest, Purpose
from hew_loop.runtimes.codex import CodexRuntime
from tests.support.fake_llm import FakeLLM

PROGRAM = os.environ.get("HEW_LOOP_CODEX_BIN") or shutil.which("codex")

pytestmark = [
    pytest.mark.agent_cli,
    pytest.mark.skipif(PROGRAM is None, reason="codex is neither on PATH nor named by HEW_LOOP_CODEX_BIN"),
]


def git(directory: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=directory, check=True, capture_output=True, text=True, timeout=60
    ).stdout.strip()


@pytest.fixture
def worktree(tmp_path: Path) -> Path:
    """A linked worktree, detached, of a repository whose main checkout stays beside it."""
    main = tmp_path / "main"
    main.mkdir()
    git(main, "init", "-q")
    (main / "a.txt").write_text("old\n")
    git(main, "add", ".")
    git(main, "commit", "-qm", "init")
    git(main, "worktree", "add", "-q", "--detach", str(tmp_path / "w1"), git(main, "rev-parse", "HEAD"))
    return tmp_path / "w1"


def run(worktree: Path, server: FakeLLM, *, prompt: str, purpose: Purpose = "task") -> AgentReport:
    directories = git(worktree, "rev-parse", "--path-format=absolute", "--git-common-dir", "--git-dir")
    runtime = CodexRuntime(program=PROGRAM)
    invocation = runtime.invocation(
        AgentRequest(
            task="T-1",
            prompt=prompt,
            prompt_file=worktree.parent / "p.md",
            worktree=worktree,
            model="gpt-5-codex",
            git_dirs=tuple(Path(line) for line in directories.splitlines()),
            purpose=purpose,
        )
    )
    home = worktree.parent / "codex-home"
    home.mkdir()
    # The provider is the user's: their own file names it, and stays in force.
    (home / "config.toml").write_text(
        f'model_provider = "fake"\n[model_providers.fake]\nname = "fake"\nbase_url = "{server.url}/v1"\n'
        'wire_api = "responses"\nenv_key = "FAKE_KEY"\n'
    )
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": os.environ["HOME"],
        "GIT_CONFIG_GLOBAL": os.environ["GIT_CONFIG_GLOBAL"],
        "GIT_CONFIG_NOSYSTEM": "1",
        # The sandbox lets it write there, and tmp_path lies below the system's own.
        "TMPDIR": str(home),
        "CODEX_HOME": str(home),
        "FAKE_KEY": "dummy",
        **{name: os.environ[name] for name in ("TZ",) if name in os.environ},
        **dict(invocation.env),
    }
    done = subprocess.run(
        invocation.argv, input=invocation.stdin, cwd=worktree, env=environment, capture_output=True, timeout=120
    )
    reader = runtime.reader()
    reader.feed(done.stdout)
    return reader.report(ending="exited", exit_code=done.returncode, stderr_tail=done.stderr)


def test_it_edits_and_commits_in_a_sandboxed_linked_worktree(worktree: Path) -> None:
    answer = 'Done.\n\n```loop_result\n{"status": "done", "summary": "New."}\n```\n'
    commit = "echo changed > a.txt && git add a.txt && git commit -qm 'T-1: change a'"
    script = {"rules": [{"match": "T-1", "steps": [{"bash": commit}, {"text": answer}]}]}
    before = git(worktree, "rev-parse", "main")

    with FakeLLM(script) as server:
        report = run(worktree, server, prompt="# Task\n\nDo T-1.\n")
        counts = server.stats()["counts"]

    assert (report.failure, report.message, report.final_text) == (None, "", answer)
    assert counts == {"answer": 2}
    assert report.usage is not None
    assert report.usage.total > 0
    assert git(worktree, "log", "--format=%s", "main..HEAD") == "T-1: change a"
    assert git(worktree, "status", "--porcelain") == ""
    assert (git(worktree, "rev-parse", "main"), git(worktree.parent / "main", "status", "--porcelain")) == (before, "")


def test_a_usage_limit_reaches_us_in_seconds_with_its_end(worktree: Path) -> None:
    fault = {"error": "usage_limit", "always": True, "resets_at": "{{now+7200}}"}
    script = {"rules": [{"match": "T-2", "steps": [{"text": "Never said.", "inject": [fault]}]}]}

    before = datetime.now(UTC)
    with FakeLLM(script) as server:
        report = run(worktree, server, prompt="Do T-2.\n")

    assert report.reset_at is not None
    # It names the minute, and a margin of a minute is added.
    assert timedelta(minutes=119) < report.reset_at - before < timedelta(minutes=123)
    assert (report.failure, report.final_text, report.usage) == ("usage_limit", "", None)


def test_to_plan_it_answers_and_can_change_nothing(worktree: Path) -> None:
    script = {"rules": [{"match": "T-3", "steps": [{"bash": "touch ran.txt"}, {"text": '["T-8"]'}]}]}

    with FakeLLM(script) as server:
        report = run(worktree, server, prompt="T-3 and T-8: which one next?\n", purpose="plan")
        counts = server.stats()["counts"]

    assert (report.failure, report.final_text, counts) == (None, '["T-8"]', {"answer": 2})
    assert git(worktree, "status", "--porcelain") == ""
