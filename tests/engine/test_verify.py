from __future__ import annotations

import os
from pathlib import Path

import anyio
import pytest

from hew_loop import process
from hew_loop.core.policy import Command, PlannedCommand
from hew_loop.engine.gate import GateRun, run_commands


def verified(worktree: Path, log: Path, command: Command, *, timeout_s: float = 60.0) -> GateRun:
    async def run() -> GateRun:
        return await run_commands(
            [PlannedCommand(command)],
            worktree=worktree,
            env=process.child_environment(),
            log=log,
            mark=f"verify-{os.getpid()}-{id(worktree)}",
            timeout_s=timeout_s,
        )

    return anyio.run(run)


def test_the_log_holds_the_whole_output_below_what_the_set_up_said(tmp_path: Path) -> None:
    log = tmp_path / "verify.log"
    log.write_text("set-up\n")
    assert verified(tmp_path, log, "yes | head -c 1000000; exit 1").verdict == "failed"
    text = log.read_text()
    assert text.startswith("set-up\n$ yes | head -c 1000000; exit 1\ny\n")
    assert text.count("y\n") == 500_000


def test_the_folder_of_the_log_is_made(tmp_path: Path) -> None:
    assert verified(tmp_path, tmp_path / "run" / "verify.log", "true").verdict == "passed"


@pytest.mark.parametrize("flood", ["", "yes | head -c 1000000;"])
def test_the_log_is_whole_after_a_time_out_too(tmp_path: Path, flood: str) -> None:
    log = tmp_path / "verify.log"
    run = verified(tmp_path, log, f"echo begin; {flood} sleep 60", timeout_s=2)
    assert (run.verdict, run.reason) == ("could_not_run", "it did not end within its time limit")
    text = log.read_text()
    assert "\nbegin\n" in text
    assert text.count("y\n") == (500_000 if flood else 0)
    assert "[could_not_run: it did not end within its time limit; " in text
