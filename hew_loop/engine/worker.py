"""One iteration from lease to result: prepare the worktree, run the agent, look at what it really left."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar, TypeVarTuple

import anyio
import anyio.to_thread

from hew_loop import process
from hew_loop.core.agent_answer import parse_answer
from hew_loop.core.iteration import AgentReport, IterationResult, IterationSpec
from hew_loop.core.names import one_line, salvage_ref, slug
from hew_loop.core.policy import Policy
from hew_loop.core.prompt import Prompt, build_prompt
from hew_loop.engine import worktree_setup
from hew_loop.engine.agent_process import Bounds, run_agent
from hew_loop.engine.judging import process_warnings, verdict_on
from hew_loop.engine.run_folder import RunFolder
from hew_loop.engine.tripwire import Tripwire
from hew_loop.errors import HewError, UsageError
from hew_loop.executors.base import WorkOrder
from hew_loop.repo.git import Git
from hew_loop.repo.worktrees import Collected, Pool, Worktree
from hew_loop.runtimes.base import AgentRequest, Runtime

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

MAX_PATCH_BYTES = 8 * 1024 * 1024
SETUP_TIMEOUT_S = 1800.0
PORTS_FROM = 20_000
PORTS_PER_SLOT = 100


@dataclass(frozen=True)
class Worker:
    """Works on this machine. Calling it runs one iteration; it never raises for what an agent does."""

    git: Git
    pool: Pool
    runtimes: Mapping[str, Runtime]
    folder: RunFolder
    policy: Policy
    env: Mapping[str, str]
    tripwire: Tripwire
    keep: Sequence[str]

    async def __call__(self, order: WorkOrder, stop: anyio.Event) -> IterationResult:
        spec = order.spec
        folder = self.folder.iteration(spec.number)
        name = f"w{spec.slot}"
        self.tripwire.began(spec.number)
        try:
            await in_thread(partial(folder.mkdir, exist_ok=True, parents=True))
            worktree, start, conflicts = await self._prepare(name, spec)
        except (HewError, OSError) as error:
            await in_thread(self.pool.drop_lease, name)
            return IterationResult("failed", "worktree_broken", str(error), start=spec.base)
        prompt, ended = None, None
        try:
            ready = await self._set_up(worktree, spec, folder, stop)
            if ready:
                report = AgentReport("setup_failed", ready)
            else:
                prompt = self._prompt(order, conflicts)
                report, ended = await self._run_agent(order, worktree, prompt, start, stop)
        except OSError as error:  # a full disk: what the agent has done until now is still looked at
            report = AgentReport("worktree_broken", str(error))
        try:
            return await self._judge(worktree, order, start=start, report=report, ended=ended, prompt=prompt)
        except (HewError, OSError) as error:
            kept = await in_thread(self._set_aside, worktree, spec)
            return IterationResult(
                "failed",
                "worktree_broken",
                f"{error}; {kept}",
                start=start,
                usage=report.usage,
                cost_usd=report.cost_usd,
                model=report.model,
                exit_code=ended.exit_code if ended else None,
                duration_s=ended.duration_s if ended else 0.0,
            )
        finally:
            await in_thread(self.pool.drop_lease, name)

    async def _prepare(self, name: str, spec: IterationSpec) -> tuple[Worktree, str, tuple[str, ...]]:
        """The leased worktree, the commit the agent starts from, and the files of a merge left in progress."""

        def prepare() -> tuple[Worktree, str, tuple[str, ...]]:
            self.pool.write_lease(name, _lease(spec))
            settings = self.policy.worktree
            worktree = self.pool.prepare(name, spec.base, branch=spec.branch, pristine=settings.pristine)
            try:
                if settings.copy or settings.link:
                    self.pool.link_and_copy(worktree, copy=settings.copy, link=settings.link)
                start, conflicts = self._carry(worktree, spec)
            except (HewError, OSError):
                self.pool.detach(worktree)
                self.git.delete_ref(f"refs/heads/{spec.branch}", old=spec.base)
                raise
            return worktree, start, conflicts

        return await in_thread(prepare)

    def _carry(self, worktree: Worktree, spec: IterationSpec) -> tuple[str, tuple[str, ...]]:
        """Merge what the task has already on top: the commit to start from, and the files in conflict."""
        if spec.carry is None or self.git.is_ancestor(spec.carry, spec.base):
            return spec.base, ()
        conflicts = self.pool.start_merge(worktree, spec.carry, keep=self.keep)
        if conflicts:
            return spec.base, conflicts
        return self.git.commit_id(f"refs/heads/{spec.branch}") or spec.base, ()

    async def _set_up(self, worktree: Worktree, spec: IterationSpec, folder: Path, stop: anyio.Event) -> str:
        """Why the worktree cannot be made ready; empty when it is."""
        end = await worktree_setup.set_up(
            worktree.path,
            self.policy.worktree,
            env=self._env(spec, worktree, folder),
            log=folder / "setup.log",
            mark=_mark(spec),
            timeout_s=SETUP_TIMEOUT_S,
            stamp=self.pool.root / f"{worktree.name}.setup",
            stop=stop,
        )
        return "" if end.ok else end.message

    def _prompt(self, order: WorkOrder, conflicts: tuple[str, ...]) -> Prompt:
        fenced = self.runtimes[order.spec.runtime].fenced_answers
        return build_prompt(replace(order.prompt, conflict_files=conflicts, fenced_answers=fenced))

    async def _run_agent(
        self, order: WorkOrder, worktree: Worktree, prompt: Prompt, start: str, stop: anyio.Event
    ) -> tuple[AgentReport, process.Ended | None]:
        spec, policy = order.spec, self.policy
        folder = self.folder.iteration(spec.number)
        prompt_file = folder / "prompt.md"
        git_dirs = (self.git.common_dir, worktree.git_dir)
        request = AgentRequest(spec.task, prompt.text, prompt_file, worktree.path, order.model, git_dirs)
        try:
            await in_thread(partial(prompt_file.write_text, prompt.text, encoding="utf-8", errors="replace"))
        except OSError as error:
            return AgentReport("worktree_broken", f"the prompt cannot be written: {error}"), None
        try:
            return await run_agent(
                self.runtimes[spec.runtime],
                request,
                env={**self._env(spec, worktree, folder), "HEW_BASE_SHA": start},
                log=folder / "output.log",
                mark=_mark(spec),
                bounds=Bounds(policy.iter_timeout_s, policy.stall_timeout_s, policy.max_output_bytes),
                on_start=lambda pid: self.pool.write_lease(worktree.name, {**_lease(spec), "pgid": pid}, durable=False),
                stop=stop,
            )
        except UsageError as error:
            return AgentReport("prompt_too_long", error.message), None

    async def _judge(
        self,
        worktree: Worktree,
        order: WorkOrder,
        *,
        start: str,
        report: AgentReport,
        ended: process.Ended | None,
        prompt: Prompt | None,
    ) -> IterationResult:
        spec, folder = order.spec, self.folder.iteration(order.spec.number)
        answer = parse_answer(report.final_text)

        left, files, foreign, changes = await in_thread(self._look, worktree, spec, start, folder)
        outcome, failure, message = verdict_on(
            report=report,
            answer=answer,
            left=left,
            files=tuple(f for f in files if not self._kept(f)),
            foreign=foreign,
            carried=start != spec.base,
            cut_off=order.cut_off,
        )
        if outcome == "done" and left.head == start:
            files = await in_thread(self.git.changed_files, spec.base, start)
        elif left.head in (start, spec.base):
            await in_thread(partial(self.git.delete_ref, f"refs/heads/{spec.branch}", old=left.head))
        said = (f"the answer could not be read: {answer.problem}",) if answer.problem else ()
        return IterationResult(
            outcome,
            failure,
            message,
            start=start,
            head=left.head,
            sound=left.descends and not left.unmerged and not foreign,
            salvage=left.salvage,
            files=left.unmerged if failure == "unmerged" else files,
            summary=answer.summary,
            next_iteration=answer.next_iteration,
            usage=report.usage,
            cost_usd=report.cost_usd,
            model=report.model,
            exit_code=ended.exit_code if ended else None,
            duration_s=ended.duration_s if ended else 0.0,
            leftovers=ended.leftovers if ended else 0,
            reset_at=report.reset_at,
            reset_from=report.reset_from,
            prompt_hash=prompt.prefix_hash if prompt else "",
            prompt_parts=prompt.parts if prompt else (),
            warnings=(*changes, *left.repaired, *said, *process_warnings(ended)),
        )

    def _look(
        self, worktree: Worktree, spec: IterationSpec, start: str, folder: Path
    ) -> tuple[Collected, tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
        """What is left, the files that changed, unlanded work of others in it, and what else changed meanwhile.

        Its git processes run beside one another: the slot waits for the slowest, not for their sum.
        """
        files: tuple[str, ...] = ()
        foreign: tuple[str, ...] = ()
        with ThreadPoolExecutor(max_workers=2) as beside:
            changes = beside.submit(self.tripwire.ended, spec.number)
            left = self.pool.collect(
                worktree,
                branch=spec.branch,
                message=_leftover_message(spec),
                salvage_ref=salvage_ref(spec.run_id, spec.task, spec.attempt),
                start=start,
                aside=folder / "aside",
                litter=self.runtimes[spec.runtime].own_files,
            )
            if left.head != start:
                patch = partial(self.git.write_patch, max_bytes=MAX_PATCH_BYTES)
                written = beside.submit(patch, start, left.head, folder / "diff.patch")
                found = beside.submit(self._foreign, spec, left.head, start)
                files = self.git.changed_files(start, left.head)
                written.result()
                foreign = found.result()
            return left, files, foreign, changes.result()

    def _set_aside(self, worktree: Worktree, spec: IterationSpec) -> str:
        """What could not be saved goes out of the pool, where the next iteration would clear it away; says where to."""
        try:
            return f"its files are kept in {self.pool.set_aside(worktree, f'{spec.run_id}-iter-{spec.number}')}"
        except HewError as error:
            return error.message

    def _kept(self, path: str) -> bool:
        return any(path == k or path.startswith(f"{k}/") for k in self.keep)

    def _foreign(self, spec: IterationSpec, head: str, start: str) -> tuple[str, ...]:
        """Other tasks' unlanded branches that this head contains and its start did not."""
        inside = self.git.refs_merged_into(head, "refs/heads/loop/", not_merged_into=start)
        mine = slug(spec.task)
        names = (ref.removeprefix("refs/heads/") for ref in inside)
        return tuple(n for n in names if n.rpartition("/")[2].rpartition(".")[0] != mine)

    def _env(self, spec: IterationSpec, worktree: Worktree, folder: Path) -> dict[str, str]:
        return {
            **self.env,
            **dict(self.policy.worktree.env),
            "HEW_RUN_ID": spec.run_id,
            "HEW_TASK_ID": _as_variable(spec.task),
            "HEW_ITER": str(spec.number),
            "HEW_ATTEMPT": str(spec.attempt),
            "HEW_SLOT": str(spec.slot),
            "HEW_WORKTREE": str(worktree.path),
            "HEW_BASE_SHA": spec.base,
            "HEW_PROMPT_FILE": str(folder / "prompt.md"),
            "HEW_PORT_BASE": str(PORTS_FROM + PORTS_PER_SLOT * spec.slot),
            "BD_ACTOR": spec.actor,
            "BEADS_ACTOR": spec.actor,
        }


async def in_thread(function: Callable[[*Ts], T], *args: *Ts) -> T:
    """Blocking work beside the event loop; not abandoned when the task is cancelled."""
    return await anyio.to_thread.run_sync(function, *args)


def _lease(spec: IterationSpec) -> dict[str, object]:
    return {
        "run_id": spec.run_id,
        "iter": spec.number,
        "task": spec.task,
        "attempt": spec.attempt,
        "branch": spec.branch,
        "start": spec.base,
        "pid": os.getpid(),
        "mark": _mark(spec),
    }


def _as_variable(text: str) -> str:
    """What an environment can hold: one odd id in a tracker must not look like a program that cannot be started."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()


def _mark(spec: IterationSpec) -> str:
    return f"{spec.run_id}:iter-{spec.number}"


def _leftover_message(spec: IterationSpec) -> str:
    return (
        f"{one_line(spec.task)}: what the agent left uncommitted\n\n"
        f"Task: {one_line(spec.task)}\nRun: {spec.run_id}\nAttempt: {spec.attempt}\n"
    )
