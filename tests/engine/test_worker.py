"""What one iteration amounts to: the verdict on what an agent left, and a worker that cannot do its work."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import pytest

from hew_loop.core.iteration import FailureClass, IterationSpec, Outcome
from hew_loop.core.names import branch_name
from hew_loop.core.policy import Policy, RuntimeSettings, WorktreeSettings
from hew_loop.core.prompt import PromptInput
from hew_loop.core.task import Task, TaskText
from hew_loop.engine.run_folder import RunFolder
from hew_loop.engine.tripwire import Tripwire
from hew_loop.engine.worker import Worker
from hew_loop.executors.base import WorkOrder
from hew_loop.process import child_environment
from hew_loop.repo.git import Git
from hew_loop.repo.worktrees import Pool
from hew_loop.runtimes.base import Runtime
from hew_loop.runtimes.claude import ClaudeRuntime
from hew_loop.runtimes.codex import CodexRuntime
from hew_loop.runtimes.command import CommandRuntime
from tests.support.recorded import AGENTS
from tests.support.repos import git, make_repo


class Bench:
    """One worker on a real repository, with a shell line as its agent."""

    def __init__(
        self,
        tmp_path: Path,
        script: str,
        *,
        prompt: str = "file",
        worktree: WorktreeSettings | None = None,
        runtime: Runtime | None = None,
        stall_s: float = 60.0,
    ):
        self.repo = make_repo(tmp_path / "repo", {"a.txt": "1\n"})
        found = Git.discover(self.repo)
        self.pool = Pool(found, tmp_path / "pool")
        settings = RuntimeSettings(name="script", command=("sh", "-c", script), prompt=prompt)  # pyright: ignore[reportArgumentType]
        policy = Policy(
            runtime="script", runtimes=(settings,), worktree=worktree or WorktreeSettings(), stall_timeout_s=stall_s
        )
        self.folder = RunFolder(tmp_path / "run")
        self.worker = Worker(
            found, self.pool, {"script": runtime or CommandRuntime(settings)}, self.folder, policy, child_environment(),
            Tripwire(found, (".beads",)), (".beads",),
        )  # fmt: skip
        self.base = git(self.repo, "rev-parse", "HEAD")
        # Of its own: at its end all that carries the mark is killed, in tests that run at the same time too.
        self.run_id = f"loop-20260101T000000Z-{uuid4().hex[:8]}"

    def run(self, task: str = "t-1", *, description: str = "", carry: str | None = None, number: int = 1):
        spec = IterationSpec(
            self.run_id, number, task, number, 0, self.base,
            branch_name("r", task, number), "loop/r/0", "script", carry=carry,
        )  # fmt: skip
        from_tracker = TaskText(
            Task(id=task, title="A task", created_at=datetime(2026, 1, 1, tzinfo=UTC)), description=description
        )
        order = WorkOrder(spec, PromptInput(task=from_tracker, base=self.base, attempt=number, evidence=()), None)

        async def go():
            return await self.worker(order, anyio.Event())

        return anyio.run(go)

    def refs(self) -> str:
        return git(self.repo, "for-each-ref", "--format=%(refname)", "refs/heads/loop", "refs/loop")


def _end(result) -> tuple[Outcome, FailureClass | None]:
    return result.outcome, result.failure


def test_a_prompt_that_is_too_long_to_be_an_argument_fails_its_task_and_not_the_run(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "true", prompt="arg")
    result = bench.run(description="x" * 150_000)
    assert _end(result) == ("failed", "prompt_too_long")
    assert (bench.refs(), bench.pool.read_leases()) == ("", {})


def test_a_worktree_that_cannot_be_prepared_leaves_no_branch_and_no_lease(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "true", worktree=WorktreeSettings(copy=("not-there",)))
    result = bench.run()
    assert _end(result) == ("failed", "worktree_broken")
    assert (bench.refs(), bench.pool.read_leases()) == ("", {})


def test_work_of_another_history_that_cannot_be_merged_leaves_no_branch_and_no_lease(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "true")
    stranger = git(bench.repo, "commit-tree", "-m", "another past", "HEAD^{tree}")
    result = bench.run(carry=stranger)
    assert _end(result) == ("failed", "worktree_broken")
    assert (bench.refs(), bench.pool.read_leases()) == ("", {})


def test_what_cannot_be_saved_goes_out_of_the_pool_before_the_next_iteration_clears_it(tmp_path: Path) -> None:
    needs = "git config filter.need.clean false; git config filter.need.required true; "
    bench = Bench(tmp_path, f"{needs} echo '*.bin filter=need' > .gitattributes; echo precious > a.bin")
    result = bench.run()
    kept = Path(result.message.rpartition(" ")[2])
    assert _end(result) == ("failed", "worktree_broken")
    assert (result.exit_code, result.has_run) == (0, True), "what it used is unknown, and not nothing"
    assert (kept / "a.bin").read_text() == "precious\n"
    assert "branch refs/heads/loop/" not in git(bench.repo, "worktree", "list", "--porcelain")
    git(bench.repo, "config", "--remove-section", "filter.need")
    assert bench.run(number=2).outcome == "failed"  # the same script again: the worktree was made anew
    assert (kept / "a.bin").read_text() == "precious\n"


@pytest.mark.parametrize(
    ("make", "notice"),
    [
        (ClaudeRuntime, '{"type":"system","subtype":"api_retry","attempt":1,"retry_delay_ms":600000}'),
        (CodexRuntime, '{"type":"error","message":"Reconnecting... waiting for network (Connection failed)"}'),
    ],
    ids=["claude", "codex"],
)
def test_an_agent_that_only_tells_that_it_waits_is_ended(tmp_path: Path, make: Any, notice: str) -> None:
    program = tmp_path / "waits"
    program.write_text(
        f"#!/bin/sh\necho '{{\"type\":\"thread.started\"}}'\nwhile :; do echo '{notice}'; sleep 0.05; done\n"
    )
    program.chmod(0o755)
    result = Bench(tmp_path, "", runtime=make(program=str(program)), stall_s=0.4).run()
    assert _end(result) == ("failed", "stalled")
    assert result.message.startswith("it printed nothing but notices that it waits for 0.4 s and was ended; the last")


def test_work_before_a_limit_is_sound_and_the_limit_comes_with_its_end_and_where_it_was_read(tmp_path: Path) -> None:
    recorded = AGENTS / "claude-2.1.329" / "usage-limit-oauth.stdout"
    program = tmp_path / "claude"
    program.write_text(f"#!/bin/sh\necho b > b.txt; cat {recorded}; exit 1\n")
    program.chmod(0o755)
    now = datetime(2026, 11, 21, 6, 20, tzinfo=UTC)
    result = Bench(tmp_path, "", runtime=ClaudeRuntime(program=str(program), now=lambda: now)).run()
    assert (_end(result), result.files, result.sound) == (("failed", "usage_limit"), ("b.txt",), True)
    assert (result.reset_at, result.reset_from) == (datetime(2026, 11, 21, 6, 37, 29, tzinfo=UTC), "rate_limit_event")


def test_an_id_that_no_environment_can_hold_is_worked_on_all_the_same(tmp_path: Path) -> None:
    bench = Bench(tmp_path, 'echo "$HEW_TASK_ID" > id.txt')
    result = bench.run("t-\0nul\nTask: forged\ud800")
    assert (_end(result), result.files) == (("done", None), ("id.txt",))
    assert git(bench.repo, "show", f"{result.head}:id.txt") == "t-nul\nTask: forged?"
    assert git(bench.repo, "log", "-1", "--format=%(trailers:key=Task,valueonly)", str(result.head)).split("\n") == [
        "t- nul Task: forged"
    ]


def test_all_iterations_that_ran_are_named_when_the_checkout_changes(tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "repo", {"a.txt": "1\n"})
    tripwire = Tripwire(Git.discover(repo), (".beads",))
    tripwire.began(1)
    tripwire.began(2)
    (repo / "a.txt").write_text("2\n")
    assert tripwire.ended(2) == ("the main checkout changed while the iterations 1, 2 ran: a.txt",)
    assert tripwire.ended(1) == ()
    tripwire.began(3)
    (repo / "a.txt").write_text("more than it was\n")
    git(repo, "config", "core.bare", "true")
    first, second, third = tripwire.ended(3)
    assert "a.txt" in first
    assert "unreadable" in second
    assert third == "the shared git configuration or hooks changed while iteration 3 ran"
