"""`loop deliver`: deliver what a run could not."""

from __future__ import annotations

from pathlib import Path

import click

from hew_loop import launch
from hew_loop.commands.progress import Progress, form
from hew_loop.commands.run import is_interactive
from hew_loop.core.names import integration_branch
from hew_loop.core.state import RunState
from hew_loop.errors import EXIT_FAILED, EXIT_OK
from hew_loop.repo.git import Git


@click.command("deliver", short_help="Deliver what a finished run could not.")
@click.argument("run", required=False)
@click.option("--onto", metavar="BRANCH", help="Deliver to this branch instead of the one that the run started on.")
@click.option("-q", "--quiet", is_flag=True, help="Nothing but errors.")
@click.option("--json", "as_json", is_flag=True, help="The journal's events as JSON lines on stdout.")
def command(*, run: str | None, onto: str | None, quiet: bool, as_json: bool) -> int:
    """Verify what RUN landed once more and fast-forward the branch to it. Work that came onto the branch meanwhile
    is merged and gated first.

    \b
    Example:
      loop deliver loop-20261121T013000Z-1a2b3c4d
    """
    git = Git.discover(Path.cwd())
    with Progress(form(as_json=as_json, quiet=quiet, non_interactive=not is_interactive({}))) as progress:
        state = launch.deliver(git, run or "latest", onto=onto, observers=progress.observers)
    if state.delivery is not None and state.delivery.state == "merged":
        if not quiet and not as_json:
            click.echo(f"delivered {state.delivery.commit[:12]} to {state.onto}")
        return EXIT_OK
    click.echo(f"loop: not delivered: {_why(state)}\n  the work is on {integration_branch(state.run_id)}", err=True)
    return state.exit_code or EXIT_FAILED if state.stop_request else EXIT_FAILED


def _why(state: RunState) -> str:
    if state.delivery is not None:
        return state.delivery.reason
    if state.stop_request is not None:
        return f"stopped by {state.stop_request.by}"
    return state.verify.reason if state.verify else state.stop_detail
