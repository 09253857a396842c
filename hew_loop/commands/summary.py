"""`loop summary`: how a run went, task by task, with what to type next; during the run too."""

from __future__ import annotations

import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path

import click

from hew_loop.commands import known_runs
from hew_loop.core.state import RunState
from hew_loop.repo.git import Git
from hew_loop.repo.history import landed_commits
from hew_loop.reports.summary import Changes, summarise, to_json
from hew_loop.reports.summary_text import to_text

UNFOLDED = 100_000


@click.command(short_help="Tell how a run went, task by task.")
@known_runs.run_argument
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object.")
def command(run: str | None, as_json: bool) -> None:
    """Tell how a run went, task by task, and what to type next. RUN is an id or a part of one; default: the newest.

    \b
    loop summary
    loop summary 0badcafe --json | jq '.tasks[] | select(.state == "parked")'
    """
    known = known_runs.load(run)
    changes = _changes(Git.discover(Path.cwd()), known.state)
    summary = summarise(known.state, now=datetime.now(UTC), died=known.died, changes=changes)
    if as_json:
        click.echo(to_json(summary), nl=False)
        return
    # A file or a pipe gets one whole line per task, whatever its length.
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else UNFOLDED
    click.echo(to_text(summary, width=width), nl=False)


def _changes(git: Git, state: RunState) -> Changes | None:
    """What landed, read from git; None when nothing did, or when git has forgotten it."""
    if not state.landed_something or git.commit_id(state.queue.tip) is None:
        return None
    landed = landed_commits(git, state.start.base, state.queue.tip)
    return Changes(
        merges=len(landed),
        files=len({name for commit in landed for name in commit.files}),
        insertions=sum(commit.insertions for commit in landed),
        deletions=sum(commit.deletions for commit in landed),
    )
