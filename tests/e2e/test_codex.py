"""The real `codex` works through a task in its sandbox: it commits in a linked worktree, and the work lands."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.support.fake_llm import FakeLLM
from tests.support.project import Project

CODEX = os.environ.get("HEW_LOOP_CODEX_BIN") or shutil.which("codex")

pytestmark = [
    pytest.mark.agent_cli,
    pytest.mark.skipif(CODEX is None, reason="the codex CLI is not on PATH (npm install @openai/codex)"),
]

PROVIDER = """\
model = "gpt-5-codex"
model_provider = "fake"
[model_providers.fake]
name = "fake"
base_url = "{url}/v1"
wire_api = "responses"
env_key = "FAKE_KEY"
"""


def test_the_real_codex_commits_in_its_sandbox_and_its_work_lands(project: Project, tmp_path: Path) -> None:
    task = project.add("Write alpha")
    answer = 'Done.\n```loop_result\n{"status": "done", "summary": "wrote it"}\n```'
    bash = "echo alpha > alpha.txt && git add alpha.txt && git commit -qm 'Write alpha'"
    home = tmp_path / "codex"
    home.mkdir()
    with FakeLLM({"rules": [{"match": task, "steps": [{"bash": bash}, {"text": answer}]}]}) as server:
        (home / "config.toml").write_text(PROVIDER.format(url=server.url))
        done = project.run(
            "--runtime", "codex", "--no-gate", CODEX_HOME=str(home), FAKE_KEY="dummy", HEW_LOOP_CODEX_BIN=str(CODEX)
        )
    assert (done.code, project.statuses()) == (0, {task: "closed"}), done.err
    assert "Write alpha" in project.git("log", "--format=%s")
    first = project.iterations()[0]
    assert (first["summary"], first["failure_class"], first["cost_usd"]) == ("wrote it", None, None)
    assert first["cost"]["input"] > 0
