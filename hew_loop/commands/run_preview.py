"""`loop run --dry-run`: what would be started, from the same rules; nothing is claimed, started or written."""

from __future__ import annotations

import json
from itertools import islice

import click

from hew_loop.core.startable import held_back, startable
from hew_loop.engine.gate import command_text
from hew_loop.launch import Plan, look_ahead
from hew_loop.repo.git import Git
from hew_loop.reports.task_lines import task_lines
from hew_loop.reports.text import plain


def preview(git: Git, wanted: Plan, *, as_json: bool) -> int:
    state = look_ahead(git, wanted.policy, wanted.tracker, base=wanted.base)
    policy, now = state.policy, state.now
    ready = tuple(startable(state, now))
    first = [t.id for t in islice(ready, policy.jobs)]
    waiting = held_back(state, now)
    known = {t.id for t in ready} | {task for task, _ in waiting}
    waiting = (*waiting, *((line.task, line.why) for line in task_lines(state, now=now) if line.task not in known))
    if as_json:
        value = {
            "base": state.start.base,
            "runtime": policy.runtime,
            "gate": [command_text(c) for c in policy.gate.commands],
            "start_now": first,
            "then": [t.id for t in ready[len(first) :]],
            "held_back": [{"id": task, "why": why} for task, why in waiting],
        }
        click.echo(json.dumps(value, indent=2))
        return 0
    gate = " && ".join(command_text(c) for c in policy.gate.commands) or "none: what lands is shown as not tested"
    click.echo(f"base     {state.start.base[:12]}\nruntime  {policy.runtime}\ngate     {gate}  ({policy.gate.origin})")
    for number, task in enumerate(ready):
        when = "now  " if number < policy.jobs else "later"
        click.echo(f"{when}    {task.id}  P{task.priority}  {plain(task.title)}")
    for task, why in waiting:
        click.echo(f"not      {plain(task)}  {plain(why)}")
    if not ready:
        click.echo("nothing is ready")
    return 0
