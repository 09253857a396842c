"""`loop cancel`: ask a live run to drain, or to end what runs."""

from __future__ import annotations

import os

import click

from hew_loop.commands import known_runs
from hew_loop.engine.run_folder import RunFolder
from hew_loop.errors import HewError

DRAIN, NOW = "drain\n", "now\n"


@click.command(short_help="Drain a live run, or stop it at once.")
@known_runs.run_argument
@click.option("--now", is_flag=True, help="End the agents that run; what waits to land keeps its branches.")
def command(run: str | None, now: bool) -> None:
    """Drain a run: what runs may finish and land, nothing new is started. With --now what runs is ended too.

    \b
    loop cancel
    loop cancel 0badcafe --now
    """
    known = known_runs.load(run)
    run_id = known.folder.run_id
    if known.life == "ended":
        raise HewError(
            f"{run_id} has ended already, with exit code {known.state.exit_code}", hint=f"see: loop summary {run_id}"
        )
    if known.life == "died":
        raise HewError(
            f"{run_id} is not running: its process is gone", hint=f"Carry it on, or settle it: loop resume {run_id}"
        )
    asked = _ask(known.folder, NOW if now else DRAIN)
    if known.life == "suspended":
        click.echo(f"loop: {run_id} is between two steps; the next one ends it: loop step", err=True)
        return
    what = "ends what runs and keeps what waits" if asked == NOW else "finishes what runs and starts nothing new"
    click.echo(f"loop: {run_id} (pid {known.pid}) {what}; see: loop status --watch", err=True)


def _ask(folder: RunFolder, how: str) -> str:
    """Write the stop file and return what it says now: a run that was told `now` is not told to drain afterwards."""
    try:
        if how == DRAIN and folder.stop_file.is_file() and folder.stop_file.read_text() == NOW:
            return NOW
        aside = folder.stop_file.with_name(f".stop-{os.getpid()}")
        aside.write_text(how)
        aside.replace(folder.stop_file)
    except OSError as error:
        raise HewError(
            f"cannot write {folder.stop_file}: {error.strerror}", hint="make the run folder writable"
        ) from error
    return how
