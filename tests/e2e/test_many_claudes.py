"""Eight real `claude` at once: they work at the same time, all of it lands, and `loop` itself stays small."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.support.fake_llm import FakeLLM
from tests.support.project import Project, wait_until

CLAUDE = os.environ.get("HEW_LOOP_CLAUDE_BIN") or shutil.which("claude")
JOBS = 8
LIMIT_MIB = 120
# The first answer of each waits so long, so that the last one has asked before the first is answered.
ALL_HAVE_ASKED_S = 12

pytestmark = [
    pytest.mark.slow,
    pytest.mark.agent_cli,
    pytest.mark.skipif(CLAUDE is None, reason="the claude CLI is not on PATH (npm install @anthropic-ai/claude-code)"),
]


def peak_mib(pid: int) -> float:
    """The most memory that the process itself has had; 0 when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM:")), 0.0)


def test_eight_real_claudes_at_once_all_land_and_loop_itself_stays_small(project: Project, tmp_path: Path) -> None:
    tasks = [project.add(f"Write file {number}") for number in range(JOBS)]
    rules = [
        {
            "match": task,
            "steps": [
                {
                    "bash": f"echo done > {task}.txt && git add -A && git commit -qm 'Write {task}'",
                    "delay": ALL_HAVE_ASKED_S,
                },
                {"text": 'Done.\n```loop_result\n{"status": "done", "summary": "wrote it"}\n```'},
            ],
        }
        for task in tasks
    ]
    seen = [0.0]
    with FakeLLM({"rules": rules}) as server:
        running = project.spawn(
            *("run", "--scope", "ready", "--jobs", str(JOBS), "--runtime", "claude", "--no-gate", "--no-planner"),
            ANTHROPIC_BASE_URL=server.url,
            ANTHROPIC_API_KEY="dummy",
            CLAUDE_CONFIG_DIR=str(tmp_path / "claude"),
            HEW_LOOP_CLAUDE_BIN=str(CLAUDE),
        )

        def has_ended() -> bool:
            seen.append(peak_mib(running.pid))
            return running.poll() is not None

        wait_until(has_ended, timeout_s=120)
        said, _ = running.communicate()
        stats = server.stats()
    assert (running.returncode, project.statuses()) == (0, dict.fromkeys(tasks, "closed")), said
    assert {f"{task}.txt" for task in tasks} <= project.landed_files()
    assert (stats["peak"], stats["counts"]) == (JOBS, {"answer": 2 * JOBS})
    assert [i["attempt"] for i in project.iterations()] == [1] * JOBS
    assert 0 < max(seen) < LIMIT_MIB
