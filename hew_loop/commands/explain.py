"""`loop explain`: one task's story, from the journal of a run, or from the tracker where no run has seen it."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import click

from hew_loop import config, wiring
from hew_loop.commands import known_runs
from hew_loop.commands.known_runs import KnownRun
from hew_loop.core import events as ev
from hew_loop.core.actions import ReadTasks
from hew_loop.core.state import RunState
from hew_loop.core.transitions import apply, begin
from hew_loop.engine import opening, run_folder
from hew_loop.errors import HewError, UsageError
from hew_loop.repo.git import Git
from hew_loop.reports.explain import to_text
from hew_loop.reports.story import Story, tell, to_json

UNFOLDED = 100_000


@click.command(short_help="Tell one task's story: where it is, and why.")
@click.argument("task")
@known_runs.run_option
@click.option("--json", "as_json", is_flag=True, help="Print the story as one JSON object.")
def command(task: str, run: str | None, as_json: bool) -> None:
    """Tell the story of TASK: where it is now and what to type next, what it depends on, why each of its iterations
    was started and how it ended, which files it changes, and for which other task it was passed over.

    It is told by the newest run that worked on it, else by the newest that saw it, else from the tracker as it is now.

    \b
    loop explain shop-a1b
    loop explain shop-a1b --run 0badcafe --json | jq .state
    """
    story = _of_run(known_runs.load(run), task) if run else _newest(task)
    if as_json:
        click.echo(to_json(story), nl=False)
        return
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else UNFOLDED
    click.echo(to_text(story, width=width), nl=False)


def _of_run(known: KnownRun, task: str) -> Story:
    story = _told(known, task)
    if story is None:
        raise _unknown(task, (*known.state.backlog.tasks, *known.state.records))
    return story


def _newest(task: str) -> Story:
    git = Git.discover(Path.cwd())
    seen: Story | None = None
    for known in _runs(git, task):
        story = _told(known, task)
        if story is not None and task in known.state.records:
            return story
        seen = seen or story
    if seen is not None:
        return seen
    state = _tracker_now(git)
    story = tell(state, task, now=state.now)
    if story is None:
        raise _unknown(task, state.backlog.tasks)
    return story


def _told(known: KnownRun, task: str) -> Story | None:
    return tell(known.state, task, events=known.events, now=datetime.now(UTC), died=known.died)


def _runs(git: Git, task: str) -> Iterator[KnownRun]:
    """Those whose journal names the task, newest first; one that cannot be read has nothing to tell."""
    name = json.dumps(task, ensure_ascii=False).encode("utf-8", "replace")
    for folder in reversed(run_folder.runs(git.root)):
        try:
            if name in folder.journal.read_bytes():
                yield known_runs.look(git, folder)
        except (HewError, OSError):
            continue


def _tracker_now(git: Git) -> RunState:
    """A run that had just read its tasks, and did nothing yet."""
    settings = config.load(git.root, os.environ)
    tracker = wiring.open_tracker(git, str(settings.values["loop.tracker"].value))
    head = git.head()
    base = head.commit or ""
    started = ev.RunStarted(
        run_id="",
        base=base,
        policy=settings.policy(),
        launch_branch=head.branch,
        launch_commit=base,
        tracker=tracker.kind,
        store=tracker.store,
        held=opening.held(git, git.root, base) if base else (),
    )
    now = datetime.now(UTC)
    state = begin(ev.Stamped(1, now, started))
    for event in (ev.Intended(1, ReadTasks()), ev.ViewRead(1, now, tracker.read())):
        state = apply(state, ev.Stamped(state.seq + 1, now, event))
    return state


def _unknown(task: str, known: Iterable[str]) -> UsageError:
    near = config.nearest(task, known)
    return UsageError(f"there is no task {task!r}", hint=f"nearest: {near}" if near else "the tracker is empty")
