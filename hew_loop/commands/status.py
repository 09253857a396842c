"""`loop status`: what runs now, once or until it ends."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from threading import Event

import click
from rich.console import Console, RenderableType
from rich.live import Live

from hew_loop.commands import known_runs
from hew_loop.commands.known_runs import Follower, KnownRun
from hew_loop.reports import picture
from hew_loop.reports.lines import line
from hew_loop.reports.live import render

REFRESH_S = 1.0


@click.command(short_help="Show what runs now.")
@click.option("--watch", is_flag=True, help="Follow it until it ends; without a terminal, a line per event.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(watch: bool, as_json: bool) -> None:
    """Show what runs now: slots, tasks, ages, the merge queue, the spend. Writes nothing.

    \b
    loop status
    loop status --watch
    loop status --json | jq '.slots[].task'
    """
    known = known_runs.load(None)
    if as_json:
        click.echo(picture.to_json(_picture(known)), nl=False)
    elif watch and known.life == "running":
        _watch(known)
    else:
        click.echo(_text(known), nl=False)


def _picture(known: KnownRun) -> picture.Picture:
    heard = known_runs.last_output(known.folder, known.state)
    return picture.picture(known.state, now=datetime.now(UTC), last_output=heard, died=known.died)


def _text(known: KnownRun) -> str:
    if known.life == "ended":
        shown = _picture(known)
        return f"nothing runs; the last run: {shown.headline}\nloop summary {shown.run_id}\n"
    return picture.to_text(_picture(known))


def _watch(known: KnownRun) -> None:
    """Follow the journal until it says that the run ended, or its process is gone."""
    follower = Follower(known.folder)
    if sys.stdout.isatty():
        console = Console()
        with Live(console=console, auto_refresh=False, transient=True) as live:
            _follow(known, follower, lambda: live.update(_view(known, follower, console.width), refresh=True))
    else:
        _follow(known, follower, lambda: None, each=click.echo)
    click.echo(_text(known_runs.load(known.folder.run_id)), nl=False)


def _follow(
    known: KnownRun, follower: Follower, show: Callable[[], None], *, each: Callable[[str], None] | None = None
) -> None:
    pause = Event()
    while True:
        # In this order: what is written before the lock is given up is read below.
        alive = known_runs.is_held(known.folder)
        for stamped, before in follower.news():
            if each is not None and (text := line(stamped, before)):
                each(text)
        show()
        if not alive or (follower.state is not None and follower.state.ended):
            return
        pause.wait(REFRESH_S)


def _view(known: KnownRun, follower: Follower, width: int) -> RenderableType:
    state = follower.state or known.state
    heard = known_runs.last_output(known.folder, state)
    return render(state, now=datetime.now(UTC), width=width, last_output=heard)
