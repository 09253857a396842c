"""`loop run`: drain the backlog."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from hew_loop import config, launch, wiring
from hew_loop.commands.progress import Progress, form
from hew_loop.commands.run_options import choose_scope, run_options
from hew_loop.commands.run_preview import preview
from hew_loop.core.state import RunState
from hew_loop.engine.context import utc_now
from hew_loop.repo.git import Git
from hew_loop.reports.summary import summarise
from hew_loop.reports.summary_text import to_text
from hew_loop.reports.text import plain


@click.command("run", short_help="Drain the backlog: the main job.")
@run_options
def command(**given: Any) -> int:
    """Drain the backlog: start agents on ready tasks, N at a time, each in its own worktree, land what passes the
    gate, verify, deliver, and say what happened.

    \b
    Examples:
      loop run --scope ready --jobs 4
      loop run --task shop-a1b --runtime mine       one task, with an agent of your own
      loop run --scope epics --epic shop-e1 --budget-wall 6h
      loop run --scope ready --dry-run              what would be started
    """
    git = Git.discover(Path.cwd())
    wanted = plan(git, given)
    if given["dry_run"]:
        return preview(git, wanted, as_json=given["as_json"])
    shown = form(as_json=given["as_json"], quiet=given["quiet"], non_interactive=not is_interactive(given))
    with Progress(shown) as progress:
        state = launch.start(
            git,
            wanted.policy,
            wanted.tracker,
            run_id=given["run_id"],
            base=wanted.base,
            observers=progress.observers,
            settled=tell_settled,
        )
    return tell(state, quiet=given["quiet"] or given["as_json"])


def plan(git: Git, given: Mapping[str, Any]) -> launch.Plan:
    """What the command line and the configuration ask for. Raises HewError."""
    settings = config.load(git.root, os.environ)
    if given["checklist"]:
        tracker = wiring.checklist_tracker(git, given["checklist"])
        for number, text in tracker.unclear():
            click.echo(f"loop: line {number} looks like an item and is none: {plain(text)}", err=True)
    else:
        tracker = wiring.open_tracker(git, given["tracker"] or settings.values["loop.tracker"].value)
    scope = choose_scope(given, tracker, is_interactive=is_interactive(given))
    policy = settings.policy(overrides(given), scope=scope, model=given["model"])
    if given["no_gate"] and not policy.verify.origin:
        # Without a gate the end of the run is tested all the same, by the commands that this project has.
        gate = settings.policy().gate
        policy = replace(policy, verify=replace(policy.verify, commands=gate.commands, origin=gate.origin))
    base = given["base"] or (git.fetch_upstream(git.head().branch or "") if given["fetch"] else None)
    return launch.Plan(policy, tracker, base)


def tell(state: RunState, *, quiet: bool) -> int:
    """Print the summary and return the run's exit code."""
    if not quiet:
        width = shutil.get_terminal_size((100, 24)).columns
        click.echo(to_text(summarise(state, now=utc_now()), width=width), nl=False)
    return state.exit_code or 0


def is_interactive(given: Mapping[str, Any]) -> bool:
    """No prompt unless somebody is there to answer it (product.md §3)."""
    asked = given.get("non_interactive") or os.environ.get("CI", "").lower() in ("1", "true")
    return not asked and sys.stdin.isatty() and sys.stderr.isatty()


def overrides(given: Mapping[str, Any]) -> dict[str, Any]:
    """The command line by configuration key; None means: not given."""
    gate: Any = list(given["gate"]) or None
    return {
        "loop.jobs": given.get("jobs"),
        "loop.runtime": given["runtime"],
        "loop.fallback_runtime": given["fallback_runtime"],
        "loop.fallback_cooldown_iters": given["fallback_cooldown_iters"],
        "loop.planner.enabled": False if given["no_planner"] else None,
        "loop.planner.budget_tokens": given["planner_budget"],
        "loop.planner.runtime": given["planner_runtime"],
        "loop.attempts": given["attempts"],
        "loop.iter_timeout": given["iter_timeout"],
        "loop.stall_timeout": given["stall_timeout"],
        "loop.max_iter": given.get("max_iter"),
        "loop.budget_tokens": given.get("budget_tokens"),
        "loop.budget_usd": given.get("budget_usd"),
        "loop.budget_wall": given.get("budget_wall"),
        "loop.gate.commands": () if given["no_gate"] else gate,
        "loop.gate.timeout": given["gate_timeout"],
        "loop.end_of_run.verify_tests": given["verify_tests"],
        "loop.end_of_run.verify_command": given["verify_command"],
        "loop.end_of_run.verify_budget_wall": given["verify_budget_wall"],
        "loop.deliver": given["deliver"],
        "loop.until_empty": given.get("until_empty"),
        "loop.tracker": given["tracker"],
        "loop.cooldown": given.get("cooldown"),
    }


def tell_settled(state: RunState) -> None:
    click.echo(f"loop: {state.run_id} had died; it was settled first (loop summary {state.run_id})", err=True)
