"""What a run may spend: counted where it is measured, estimated where there are prices, guessed where nobody knows."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.support.project import Project

AGENTS = Path(__file__).parents[1] / "data" / "agents"
PRICES = 'prices = [{ model = "gpt-x", input = 1.25, output = 10.0, cache_read = 0.125 }]'


def replay(top: Path, recording: str) -> str:
    """A program that leaves one file and prints what a real agent once printed."""
    program = top / "replay"
    program.write_text(f'#!/bin/sh\ncat > "$PLACES/prompt"\necho > "$HEW_TASK_ID.txt"\ncat {AGENTS / recording}\n')
    program.chmod(0o755)
    return str(program)


def test_unknown_usage_counts_as_configured_and_a_stop_lets_what_runs_land(tmp_path: Path) -> None:
    project = Project(tmp_path, config="unknown_tokens = 100\nunknown_usd = 0.3")
    slow = """\
for _ in $(seq 400); do grep -q '"type":"stopping"' "$JOURNALS/latest/events.jsonl" && break; sleep 0.05; done
"$PYTHON" -m hew_loop status > "$PLACES/status"
echo > slow.txt
"""
    tasks = [project.add("Quick", "-p", "0"), project.add("Slow", "-p", "1", script=slow)]
    tasks += [project.add(f"Later {n}") for n in range(3)]
    more = {"JOURNALS": str(project.path / ".hew" / "loop"), "PYTHON": sys.executable}
    done = project.run("--budget-tokens", "100", "--jobs", "2", **more)
    assert done.code == 4, done.err
    run = json.loads((project.folder() / "run.json").read_text())
    assert (run["stop_reason"], run["stop_detail"]) == ("budget_tokens", "100 of 100 tokens")
    # What ran when it stopped went past the budget; nothing else did.
    assert (run["iter_count"], run["cumulative_tokens"], run["counted_tokens"]) == (2, 0, 200)
    assert "slow.txt" in project.landed_files()
    assert [project.statuses()[t] for t in tasks] == ["closed", "closed", "open", "open", "open"]
    assert "\nspend  tokens unknown, cost unknown\n" in (project.places / "status").read_text()

    assert project.run("--budget-usd", "0.5").code == 4
    run = json.loads((project.folder() / "run.json").read_text())
    assert (run["stop_reason"], run["stop_detail"]) == ("budget_usd", "$0.60 of $0.50")
    assert (run["iter_count"], run["cost_usd"], run["counted_usd"], run["unknown_cost"]) == (2, 0.0, 0.6, 2)


@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        (("--budget-tokens", "23625"), ("budget_tokens", "47,248 of 23,625 tokens")),
        (("--budget-usd", "0.2"), ("budget_usd", "$0.22 of $0.20")),
    ],
)
def test_what_claude_reports_is_counted_with_cache_reads_at_their_weight(
    tmp_path: Path, limit: tuple[str, str], reason: tuple[str, str]
) -> None:
    project = Project(tmp_path, config="cache_read_weight = 0\n" + PRICES)
    for number in range(3):
        project.add(f"Task {number}")
    program = replay(tmp_path, "claude-2.1.329/success-stdin-prompt.stdout")
    done = project.run("--runtime", "claude", "--no-planner", *limit, HEW_LOOP_CLAUDE_BIN=program)
    assert done.code == 4, done.err
    summary = project.summary()
    assert (summary["stop_reason"], summary["stop_detail"]) == reason
    # 16 and 129 tokens and 23,479 written to the cache, twice; the 69,799 read from it are shown, and count nothing.
    assert (summary["tokens"]["total"], summary["tokens"]["cache_read"]) == (186_846, 139_598)
    assert summary["cost"] == {"usd": 0.221938, "estimated_usd": 0.0, "unknown_iterations": 0}
    assert summary["cache_read_percent"] == 74.8
    assert [(m["model"], m["iterations"], m["tasks"]) for m in summary["models"]] == [("claude-sonnet-4-5", 2, 2)]
    assert not (project.places / "prompt").read_text().startswith("/")


def test_a_cost_that_nobody_reports_is_estimated_from_prices_and_marked(tmp_path: Path) -> None:
    project = Project(tmp_path, config=PRICES)
    for number in range(3):
        project.add(f"Task {number}")
    program = replay(tmp_path, "codex-0.169.0/success.stdout")
    args = ("--runtime", "codex", "--model", "gpt-x", "--no-planner", "--budget-usd", "0.03")
    done = project.run(*args, HEW_LOOP_CODEX_BIN=program)
    assert done.code == 4, done.err
    assert [(i["cost_usd"], i["cost_is_estimated"]) for i in project.iterations()] == [(0.017739, True)] * 2
    summary = project.loop("summary").out
    assert "stopped     budget_usd: $0.04 of $0.03\n" in summary
    assert "cost        ~$0.04, of which $0.04 is estimated from prices\n" in summary
    assert "\n  gpt-x  codex             2      2  20,642      60,452             0     212  ~$0.04\n" in summary
