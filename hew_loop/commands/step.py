"""`loop step`: one transition, then exit; for cron and small models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from hew_loop import launch, wiring
from hew_loop.commands.progress import Progress, form
from hew_loop.commands.run import is_interactive, plan, tell_settled
from hew_loop.commands.run_options import step_options
from hew_loop.core.step import Step
from hew_loop.repo.git import Git
from hew_loop.reports.text import plain


@click.command("step", short_help="Do exactly one transition: plan, one task, or finish.")
@step_options
@click.option("--cooldown", metavar="TIME", help="How long a task that failed waits before its next attempt (1h).")
def command(**given: Any) -> int:
    """Do exactly one transition and exit: plan (pin the base and the tasks), work on one task and land it, or finish
    (verify, deliver, archive in .hew/history). The options count when it plans. Exit code 3: nothing to do.

    \b
    Examples:
      loop step --checklist PLAN.md
      loop step --scope ready --json          {"mode": "execute", "item": "shop-a1b", ...}
      */20 * * * *  cd $HOME/src/project && loop step --scope ready -q
    """
    git = Git.discover(Path.cwd())
    quiet = given["quiet"] or given["as_json"]
    shown = form(as_json=False, quiet=quiet, non_interactive=not is_interactive(given))
    store = wiring.checklist_tracker(git, given["checklist"]).store if given["checklist"] else None
    with Progress(shown) as progress:
        done = launch.step(
            git, lambda: plan(git, given), store=store, observers=progress.observers, settled=tell_settled
        )
    if given["as_json"]:
        value = {"mode": done.mode, "item": done.item, "result": done.result, "remaining": done.remaining}
        click.echo(json.dumps(value))
    elif not quiet:
        click.echo(_sentence(done))
    return done.exit_code


def _sentence(done: Step) -> str:
    item = f" {plain(done.item)}" if done.item else ""
    return f"{done.mode}{item}: {plain(done.result)}; {done.remaining} remaining"
