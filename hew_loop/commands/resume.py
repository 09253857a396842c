"""`loop resume`: carry on an interrupted run."""

from __future__ import annotations

from pathlib import Path

import click

from hew_loop import launch
from hew_loop.commands.progress import Progress, form
from hew_loop.commands.run import is_interactive, tell
from hew_loop.repo.git import Git


@click.command("resume", short_help="Carry on an interrupted run.")
@click.argument("run", required=False)
@click.option("-q", "--quiet", is_flag=True, help="Nothing but errors.")
@click.option("--json", "as_json", is_flag=True, help="The journal's events as JSON lines on stdout.")
def command(*, run: str | None, quiet: bool, as_json: bool) -> int:
    """Carry on a run whose program died: same id, same budgets, nothing done twice. RUN is its id or a part of it;
    without one, the newest that was interrupted.

    \b
    Example:
      loop resume
    """
    with Progress(form(as_json=as_json, quiet=quiet, non_interactive=not is_interactive({}))) as progress:
        state = launch.resume(Git.discover(Path.cwd()), run, observers=progress.observers)
    return tell(state, quiet=quiet or as_json)
