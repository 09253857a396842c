"""`loop run --dry-run`: what would be started, from the same rules; nothing is claimed, started or written."""

from __future__ import annotations

import json
from itertools import islice

import click

from hew_loop.core import events as ev
from hew_loop.core.actions import ReadTasks
from hew_loop.core.policy import Policy
from hew_loop.core.startable import held_back, startable
from hew_loop.core.transitions import apply, begin
from hew_loop.engine import opening
from hew_loop.engine.context import utc_now
from hew_loop.engine.gate import command_text
from hew_loop.repo.git import Git
from hew_loop.reports.text import plain
from hew_loop.trackers.base import Tracker
from hew_loop.wiring import check_runtime, check_scope


def preview(git: Git, tracker: Tracker, policy: Policy, *, base: str | None, as_json: bool) -> int:
    where = opening.ground(git, policy, base=base)
    policy = opening.detected(git, policy, where.base)
    check_runtime(policy, git.root)
    check_scope(tracker, policy)
    now = utc_now()
    started = ev.RunStarted(
        run_id="dry-run",
        base=where.base,
        policy=policy,
        launch_branch=where.branch,
        launch_commit=where.launch_commit,
        tracker=tracker.kind,
        store=tracker.store,
        held=opening.held(git, git.root, where.base),
    )
    state = begin(ev.Stamped(1, now, started))
    state = apply(state, ev.Stamped(2, now, ev.Intended(1, ReadTasks())))
    state = apply(state, ev.Stamped(3, now, ev.ViewRead(1, now, tracker.read())))
    ready = tuple(startable(state, now))
    first = [t.id for t in islice(ready, policy.jobs)]
    waiting = held_back(state, now)
    if as_json:
        value = {
            "base": where.base,
            "runtime": policy.runtime,
            "gate": [command_text(c) for c in policy.gate.commands],
            "start_now": first,
            "then": [t.id for t in ready[len(first) :]],
            "held_back": [{"id": task, "why": why} for task, why in waiting],
        }
        click.echo(json.dumps(value, indent=2))
        return 0
    gate = " && ".join(command_text(c) for c in policy.gate.commands) or "none: what lands is shown as not tested"
    click.echo(f"base     {where.base[:12]}\nruntime  {policy.runtime}\ngate     {gate}  ({policy.gate.origin})")
    for number, task in enumerate(ready):
        when = "now  " if number < policy.jobs else "later"
        click.echo(f"{when}    {task.id}  P{task.priority}  {plain(task.title)}")
    for task, why in waiting:
        click.echo(f"not      {task}  {why}")
    if not ready:
        click.echo("nothing is ready")
    return 0
