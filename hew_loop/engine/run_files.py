"""`run.json`, `manifest.json`, `iter-NNN.json`, `batch-NNN.json`: written from the state, for people and scripts."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from hew_loop.core import budget
from hew_loop.core import events as ev
from hew_loop.core.batch_plan import BatchPlan, PlannerTokens
from hew_loop.core.events import SCHEMA_VERSION
from hew_loop.core.iteration import Usage
from hew_loop.core.policy import Policy
from hew_loop.core.prices import cost_of
from hew_loop.core.state import BatchFacts, Iteration, RunState
from hew_loop.engine.run_folder import RunFolder

HEW_OUTCOME = {"landed": "closed", "unchanged": "closed", "gate_failed": "backpressure_fail", "running": None}
"""hew's own outcome words, where one fits; the rest is `no_close` or `runtime_error` (reference/hew.md §2.2)."""


class RunFiles:
    """An observer. Each file is written aside and renamed; one that cannot be written is not worth the run."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder

    def __call__(self, stamped: ev.Stamped, before: RunState, state: RunState) -> None:
        try:
            self._write(stamped.event, before, state)
        except OSError:
            return  # the journal is the truth; it ends the run by itself when the disk is full

    def write_all(self, state: RunState) -> None:
        """Everything anew, after a resume."""
        for number, iteration in state.iterations.items():
            _write(self._folder.iteration_json(number), iteration_json(number, iteration, state.policy))
        for batch in state.batches:
            _write_text(self._folder.batch_json(batch.number), batch_json(batch))
        _write(self._folder.path / "run.json", run_json(state))

    def _write(self, event: ev.Event, before: RunState, state: RunState) -> None:
        if state.iterations is not before.iterations:
            for number, iteration in state.iterations.items():
                if iteration is not before.iterations.get(number):
                    _write(self._folder.iteration_json(number), iteration_json(number, iteration, state.policy))
        match event:
            case ev.BatchPlanned():
                _write_text(self._folder.batch_json(event.number), batch_json(state.batches[-1]))
            case (
                ev.RunStarted()
                | ev.Suspended()
                | ev.IterationEnded()
                | ev.Stopping()
                | ev.Verified()
                | ev.Delivered()
                | ev.DeliveryRefused()
            ):
                _write(self._folder.path / "run.json", run_json(state))
            case ev.RunEnded():
                _write(self._folder.path / "run.json", run_json(state))
                _write(self._folder.path / "manifest.json", manifest_json(state))
            case _:
                return


def iteration_json(number: int, iteration: Iteration, policy: Policy) -> dict[str, object]:
    spec, result = iteration.spec, iteration.result
    usd, is_estimated = cost_of(policy, result, spec.model) if result else (None, False)
    return {
        "schema_version": SCHEMA_VERSION,
        "number": number,
        "task_id": spec.task,
        "started_at": _time(iteration.started_at),
        "ended_at": _time(iteration.ended_at),
        "outcome": _hew_outcome(iteration),
        "prompt_prefix_hash": (result.prompt_hash or None) if result else None,
        "cost": _cost(result.usage if result else None),
        "cost_usd": None if usd is None else round(usd, 6),
        "cost_is_estimated": is_estimated,
        "prompt_tokens": dict(result.prompt_parts) if result else {},
        "runtime_used": spec.runtime,
        "cooldown_engaged": spec.runtime != policy.runtime,
        "model": (result.model if result else None) or spec.model,
        "attempt": spec.attempt,
        "slot": spec.slot,
        "why": iteration.why,
        "batch": iteration.batch,
        "branch": spec.branch,
        "base_commit": spec.base,
        "start_commit": result.start if result else None,
        "head_commit": result.head if result else None,
        "landed_commit": iteration.landed or None,
        "salvage_ref": result.salvage if result else None,
        "fate": iteration.fate,
        "failure_class": result.failure if result else None,
        "message": (result.message if result else "") or iteration.note or None,
        "summary": (result.summary or None) if result else None,
        "next_iteration": list(result.next_iteration) if result and result.next_iteration is not None else None,
        "exit_code": result.exit_code if result else None,
        "duration_s": result.duration_s if result else None,
        "files": list(result.files) if result else [],
        "leftover_processes": result.leftovers if result else 0,
        "gate_verdict": iteration.verdict,
        "gate_log": iteration.gate_log or None,
        "warnings": list(result.warnings) if result else [],
    }


def batch_json(batch: BatchFacts) -> str:
    return BatchPlan(
        iter_number=batch.number,
        task_ids=batch.task_ids,
        source=batch.source,
        reason=batch.reason or None,
        created_at=batch.at,
        planner_tokens=PlannerTokens(**asdict(batch.usage)) if batch.usage else None,
    ).to_json()


def run_json(state: RunState) -> dict[str, object]:
    policy, start = state.policy, state.start
    return {
        "schema_version": SCHEMA_VERSION,
        "id": state.run_id,
        "started_at": _time(state.started_at),
        "last_updated_at": _time(state.now),
        "iter_count": len(state.iterations),
        "cumulative_tokens": state.spend.usage.total,
        "cost_usd": round(state.spend.cost_usd + state.spend.estimated_usd, 6),
        "estimated_usd": round(state.spend.estimated_usd, 6),
        "unknown_usage": state.spend.unknown_usage,
        "unknown_cost": state.spend.unknown_cost,
        "counted_tokens": budget.tokens_spent(state),
        "counted_usd": round(budget.usd_spent(state), 6),
        "stop_reason": state.stopping,
        "stop_detail": state.stop_detail or None,
        "exit_code": state.exit_code,
        "max_iter": policy.max_iter,
        "jobs": policy.jobs,
        "runtime": policy.runtime,
        "scope": {
            "kind": policy.scope.kind,
            "epic_ids": list(policy.scope.epics),
            "task_ids": list(policy.scope.tasks),
        },
        "base_commit": start.base,
        "launch_branch": start.launch_branch,
        "integration_commit": state.queue.tip,
        "landed": {r.task: r.landed for r in state.records.values() if r.landed},
        "verify_outcome": _verify(state),
        "delivery": asdict(state.delivery) if state.delivery else None,
    }


def manifest_json(state: RunState) -> dict[str, object]:
    return {
        "schema_version": SCHEMA_VERSION,
        "run_id": state.run_id,
        "jobs": state.policy.jobs,
        "started_at": _time(state.started_at),
        "completed_at": _time(state.now),
        "stop_reason": state.stopping,
        "exit_code": state.exit_code,
        "tasks": {
            r.task: {"phase": r.phase, "attempts": r.attempts, "landed": r.landed or None}
            for r in state.records.values()
        },
    }


def _hew_outcome(iteration: Iteration) -> str | None:
    if iteration.fate in HEW_OUTCOME:
        return HEW_OUTCOME[iteration.fate]
    return "runtime_error" if iteration.fate == "failed" else "no_close"


def _cost(usage: Usage | None) -> Mapping[str, int] | None:
    return None if usage is None else asdict(usage)


def _verify(state: RunState) -> dict[str, object] | None:
    facts = state.verify
    if facts is None:
        return None
    return {"kind": facts.verdict, "command": facts.command, "duration_secs": facts.duration_s, "reason": facts.reason}


def _time(at: datetime | None) -> str | None:
    return None if at is None else f"{at:%Y-%m-%dT%H:%M:%SZ}"


def _write(path: Path, value: Mapping[str, object]) -> None:
    _write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def _write_text(path: Path, text: str) -> None:
    """Never half written under its final name. Not fsynced: all of it can be made again from the journal."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(text, encoding="utf-8", errors="backslashreplace")
    aside.replace(path)
