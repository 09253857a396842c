"""`loop prune`: remove worktrees, branches and refs of ended runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from hew_loop import wiring
from hew_loop.core.task import Task
from hew_loop.engine.lock import RunLock
from hew_loop.engine.pruning import Survey, Thing, remove
from hew_loop.engine.standing import standings
from hew_loop.errors import EXIT_FAILED, EXIT_OK, TrackerError
from hew_loop.repo.git import Git
from hew_loop.reports.text import plain, plural, size


@click.command("prune", short_help="Remove what ended runs left behind.")
@click.option("--apply", "is_applied", is_flag=True, help="Remove it; without this, only say what would go.")
@click.option("--unlanded", is_flag=True, help="Work that landed nowhere goes as well, and is lost.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array, an object for each thing.")
def command(*, is_applied: bool, unlanded: bool, as_json: bool) -> int:
    """Remove the worktrees, branches and private refs that ended runs of this repository left behind.

    Without --apply nothing is removed. What stays in any case: everything of a run that is alive or can be resumed, a
    branch that is checked out, and a worktree with files that no run accounts for.

    A branch or a salvage ref whose commits are nowhere else is the only place where a parked task's work is kept. It
    goes when its task is closed: then somebody has decided. While the task is open it stays, unless you give
    --unlanded. An undelivered integration branch stays too, until it is delivered or you give --unlanded.

    \b
    Examples:
      loop prune
      loop prune --apply
      loop prune --apply --unlanded --json
    """
    git = Git.discover(Path.cwd())
    lock = wiring.lock_path(git)
    tasks = _tasks(git)
    if not is_applied:
        holder = RunLock.holder(lock)
        survey = Survey(git, standings(git.root, live=holder.run_id if holder else None), tasks, unlanded)
        things = survey.things()
        _tell(things, {}, as_json=as_json, is_applied=False)
        return EXIT_OK
    with RunLock.acquire(lock, run_id="prune"):
        things = Survey(git, standings(git.root, live=None), tasks, unlanded).things()
        failures = dict(remove(git, things))
    _tell(things, failures, as_json=as_json, is_applied=True)
    return EXIT_FAILED if any(failures.values()) else EXIT_OK


def _tasks(git: Git) -> tuple[Task, ...]:
    try:
        return wiring.open_tracker(git).read()
    except TrackerError as error:
        click.echo(f"loop: {plain(error.message)}\n  so every task counts as open", err=True)
        return ()


def _tell(things: Sequence[Thing], failures: dict[Thing, str], *, as_json: bool, is_applied: bool) -> None:
    if as_json:
        click.echo(json.dumps([_as_object(t, failures, is_applied=is_applied) for t in things], indent=2))
        return
    for thing in things:
        told = "keep        " if not thing.removable else "removed     " if is_applied else "would remove"
        why = failures.get(thing) or thing.reason
        if failures.get(thing):
            told = "NOT REMOVED "
        amount = f" ({size(thing.size_bytes)})" if thing.size_bytes is not None else ""
        was = f" (was {thing.commit[:12]})" if thing.removable and thing.commit and thing.kind != "worktree" else ""
        click.echo(f"{told}  {thing.kind:8}  {plain(thing.name)}{amount}{was}: {plain(why)}")
        if thing.fix:
            click.echo(f"{'':24}{plain(thing.fix)}")
    click.echo(f"loop: {_total(things, failures, is_applied=is_applied)}", err=True)


def _total(things: Sequence[Thing], failures: dict[Thing, str], *, is_applied: bool) -> str:
    gone = [t for t in things if t.removable and not failures.get(t)]
    amount = size(sum(t.size_bytes or 0 for t in gone))
    if not gone:
        return "there is nothing to remove"
    if is_applied:
        return f"removed {plural(len(gone), 'thing')}, {amount}"
    return f"{plural(len(gone), 'thing')}, {amount}; remove with: loop prune --apply"


def _as_object(thing: Thing, failures: dict[Thing, str], *, is_applied: bool) -> dict[str, object]:
    done = is_applied and thing.removable and not failures.get(thing)
    return {**asdict(thing), "removed": done, "problem": failures.get(thing, "")}
