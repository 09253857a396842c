"""The real `claude` against a scripted model server on loopback: no key, no other network."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from hew_loop.core.iteration import AgentReport
from hew_loop.runtimes.base import AgentRequest, Purpose
from hew_loop.runtimes.claude import PROGRAM_VARIABLE, ClaudeRuntime
from tests.support.fake_llm import FakeLLM

PROGRAM = os.environ.get(PROGRAM_VARIABLE) or shutil.which("claude")

pytestmark = [
    pytest.mark.agent_cli,
    pytest.mark.skipif(PROGRAM is None, reason=f"claude is neither on PATH nor named by {PROGRAM_VARIABLE}"),
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
    # What must not run in an agent's worktree: the project's hooks and servers (RT-9).
    (main / ".claude").mkdir()
    (main / ".claude" / "settings.json").write_text(
        '{"hooks": {"SessionStart": [{"hooks": [{"type": "command", "command": "touch hook-ran"}]}]}}'
    )
    (main / ".mcp.json").write_text('{"mcpServers": {"x": {"command": "touch", "args": ["server-ran"]}}}')
    git(main, "add", ".")
    git(main, "commit", "-qm", "init")
    git(main, "worktree", "add", "-q", "--detach", str(tmp_path / "w1"), git(main, "rev-parse", "HEAD"))
    return tmp_path / "w1"


def run(worktree: Path, server: FakeLLM, *, prompt: str, purpose: Purpose = "task") -> AgentReport:
    runtime = ClaudeRuntime(program=PROGRAM)
    invocation = runtime.invocation(
        AgentRequest(
            task="T-1",
            prompt=prompt,
            prompt_file=worktree / "p.md",
            worktree=worktree,
            model="claude-sonnet-4-5",
            purpose=purpose,
        )
    )
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": os.environ["HOME"],
        "GIT_CONFIG_GLOBAL": os.environ["GIT_CONFIG_GLOBAL"],
        "GIT_CONFIG_NOSYSTEM": "1",
        "CLAUDE_CONFIG_DIR": str(Path(os.environ["HOME"]) / ".claude"),
        "ANTHROPIC_BASE_URL": server.url,
        "ANTHROPIC_API_KEY": "dummy",
        **dict(invocation.env),
    }
    done = subprocess.run(
        invocation.argv, input=invocation.stdin, cwd=worktree, env=environment, capture_output=True, timeout=120
    )
    reader = runtime.reader()
    reader.feed(done.stdout)
    return reader.report(ending="exited", exit_code=done.returncode, stderr_tail=done.stderr)


def test_it_edits_and_commits_in_a_linked_worktree(worktree: Path) -> None:
    answer = 'Done.\n\n```loop_result\n{"status": "done", "summary": "New."}\n```\n'
    script = {
        "rules": [
            {
                "match": "T-1",
                "steps": [
                    {"write": {"path": str(worktree / "b.txt"), "content": "new\n"}},
                    {"bash": "echo changed > a.txt && git add a.txt b.txt && git commit -qm 'T-1: change a, add b'"},
                    {"text": answer},
                ],
            }
        ]
    }
    before = git(worktree, "rev-parse", "main")

    with FakeLLM(script) as server:
        report = run(worktree, server, prompt="# Task\n\nDo T-1.\n")
        counts = server.stats()["counts"]

    assert (report.failure, report.message, report.final_text, report.denials) == (None, "", answer, ())
    assert (report.model, counts) == ("claude-sonnet-4-5", {"answer": 3})
    assert report.usage is not None
    assert report.usage.total > 0
    assert report.cost_usd is not None
    assert git(worktree, "log", "--format=%s", "main..HEAD") == "T-1: change a, add b"
    assert git(worktree, "diff", "--name-status", "main", "HEAD") == "M\ta.txt\nA\tb.txt"
    assert git(worktree, "status", "--porcelain") == ""
    assert (git(worktree, "rev-parse", "main"), git(worktree.parent / "main", "status", "--porcelain")) == (before, "")
    assert not (worktree / "hook-ran").exists()
    assert not (worktree / "server-ran").exists()


def test_a_rate_limit_reaches_us_in_seconds(worktree: Path) -> None:
    fault = {"error": "rate_limit", "retry_after": 3600, "always": True}
    script = {"rules": [{"match": "T-2", "steps": [{"text": "Never said.", "inject": [fault]}]}]}

    with FakeLLM(script) as server:
        report = run(worktree, server, prompt="Do T-2.\n")

    assert (report.failure, report.final_text, report.reset_at) == ("rate_limit", "", None)


def test_a_key_that_is_refused_is_an_auth_failure(worktree: Path) -> None:
    script = {"rules": [{"match": "T-3", "steps": [{"text": "x", "inject": [{"error": "forbidden", "always": True}]}]}]}

    with FakeLLM(script) as server:
        assert run(worktree, server, prompt="Do T-3.\n").failure == "auth"


def test_to_plan_it_answers_and_can_neither_change_nor_read_anything(worktree: Path) -> None:
    (worktree / "secret.txt").write_text("the word is heron")
    steps = [
        {"tool": {"name": "Bash", "input": {"command": "touch ran", "description": "x"}}},
        {"tool": {"name": "Write", "input": {"file_path": str(worktree / "b.txt"), "content": "x"}}},
        {"tool": {"name": "Read", "input": {"file_path": str(worktree / "secret.txt")}}},
        {"text": '["T-8"]'},
    ]
    before = sorted(worktree.iterdir())

    with FakeLLM({"rules": [{"match": "T-4", "steps": steps}]}) as server:
        report = run(worktree, server, prompt="T-4 and T-8: which one next?\n", purpose="plan")
        sizes = [record["in_bytes"] for record in server.records()]

    assert (report.failure, report.final_text, report.denials) == (None, '["T-8"]', ("Read",))
    assert (sorted(worktree.iterdir()), len(sizes), sizes[0] < 10_000) == (before, 4, True)
