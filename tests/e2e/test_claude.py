"""The real `claude` works through a task: the scripted model server answers, the CLI edits and commits, it lands."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.support.fake_llm import FakeLLM
from tests.support.project import Project

CLAUDE = os.environ.get("HEW_LOOP_CLAUDE_BIN") or shutil.which("claude")

pytestmark = [
    pytest.mark.agent_cli,
    pytest.mark.skipif(CLAUDE is None, reason="the claude CLI is not on PATH (npm install @anthropic-ai/claude-code)"),
]


def test_the_real_claude_edits_commits_and_its_work_lands_with_its_cost(project: Project, tmp_path: Path) -> None:
    one = project.add("Write alpha")
    two = project.add("Write beta, which alpha is needed for", "--dep", one)
    answer = 'Done.\n```loop_result\n{"status": "done", "summary": "wrote it"}\n```'
    script = {
        "rules": [
            # The second prompt names the first task as its dependency, so it is looked for first.
            {"match": two, "steps": [{"write": {"path": "beta.txt", "content": "beta\n"}}, {"text": answer}]},
            {
                "match": one,
                "steps": [
                    {"bash": "echo alpha > alpha.txt && git add alpha.txt && git commit -qm 'Write alpha'"},
                    {"text": answer},
                ],
            },
        ]
    }
    with FakeLLM(script) as server:
        done = project.run(
            "--runtime",
            "claude",
            "--no-gate",
            "--model",
            "claude-sonnet-4-5",
            ANTHROPIC_BASE_URL=server.url,
            ANTHROPIC_API_KEY="dummy",
            CLAUDE_CONFIG_DIR=str(tmp_path / "claude"),
            HEW_LOOP_CLAUDE_BIN=str(CLAUDE),
        )
    assert (done.code, project.statuses()) == (0, {one: "closed", two: "closed"}), done.err
    assert {"alpha.txt", "beta.txt"} <= project.landed_files()
    assert "Write alpha" in project.git("log", "--format=%s")
    first = project.iterations()[0]
    assert (first["model"], first["summary"], first["failure_class"]) == ("claude-sonnet-4-5", "wrote it", None)
    assert first["cost"]["input"] > 0
    assert first["cost_usd"] > 0
    tokens = project.summary()["tokens"]
    assert (tokens["unknown_iterations"], tokens["total"] > 0) == (0, True)
