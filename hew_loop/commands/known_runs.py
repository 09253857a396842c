"""The runs of this repository as the commands that look back see them: folder, state, and whether they live."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import click
from click.shell_completion import CompletionItem

from hew_loop.core.events import Stamped, from_line
from hew_loop.core.state import RunState
from hew_loop.core.transitions import apply, begin, replay
from hew_loop.engine import journal, run_folder
from hew_loop.engine.lock import RunLock
from hew_loop.engine.run_folder import RunFolder
from hew_loop.errors import HewError
from hew_loop.repo.git import Git

Life = Literal["running", "ended", "died", "suspended"]
"""suspended: between two steps (`loop step`); nothing is in flight."""


@dataclass(frozen=True, slots=True)
class KnownRun:
    folder: RunFolder
    events: tuple[Stamped, ...]
    state: RunState
    life: Life
    pid: int
    """Of the process that works on it; 0 when there is none."""

    @property
    def died(self) -> bool:
        return self.life == "died"


def load(run: str | None) -> KnownRun:
    """The run that was asked for; without a name the one that works now, else the newest. Raises HewError."""
    git = Git.discover(Path.cwd())
    holder = RunLock.holder(_lock(git))
    live = holder.run_id if holder else ""
    if run is None and any(f.run_id == live for f in run_folder.runs(git.root)):
        run = live
    return look(git, run_folder.find(git.root, run))


def look(git: Git, folder: RunFolder) -> KnownRun:
    """Raises HewError when the journal cannot be read."""
    events, state = _replay(folder)
    if state.ended:
        return KnownRun(folder, events, state, "ended", 0)
    holder = RunLock.holder(_lock(git))
    if holder is not None and holder.run_id in (folder.run_id, ""):
        return KnownRun(folder, events, state, "running", holder.pid or state.start.pid)
    # It may have ended between the two looks: what is written before the lock is given up is all there now.
    events, state = _replay(folder)
    at_rest: Life = "ended" if state.ended else "suspended" if state.suspended else "died"
    return KnownRun(folder, events, state, at_rest, 0)


def is_held(folder: RunFolder) -> bool:
    """A process works on this run now."""
    holder = RunLock.holder(_lock(Git.discover(Path.cwd())))
    return holder is not None and holder.run_id in (folder.run_id, "")


def last_output(known: RunFolder, state: RunState) -> dict[int, datetime]:
    """When each running iteration last printed something: the time of its output file."""
    heard: dict[int, datetime] = {}
    for number in (n for n, i in state.iterations.items() if i.fate == "running"):
        try:
            heard[number] = datetime.fromtimestamp((known.iteration(number) / "output.log").stat().st_mtime, UTC)
        except OSError:
            continue
    return heard


class Follower:
    """Reads a journal as it grows, from its beginning."""

    def __init__(self, folder: RunFolder) -> None:
        self._path = folder.journal
        self._offset = 0
        self.state: RunState | None = None

    def news(self) -> Iterator[tuple[Stamped, RunState]]:
        """Each new event with the run before it; `state` is the run with it."""
        with self._path.open("rb") as file:
            file.seek(self._offset)
            while (raw := file.readline()).endswith(b"\n"):
                stamped = from_line(raw)
                before = self.state or begin(stamped)
                self.state = apply(self.state, stamped) if self.state else before
                self._offset += len(raw)
                yield stamped, before


def run_argument(function: Callable[..., Any]) -> Callable[..., Any]:
    """RUN: an id, the beginning or end of one, or nothing."""
    return click.argument("run", required=False, shell_complete=_complete)(function)


def run_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """--run RUN: the same, where the argument is something else."""
    said = "The run to look at: an id or a part of one."
    return click.option("--run", "run", metavar="RUN", shell_complete=_complete, help=said)(function)


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    try:
        folders = run_folder.runs(Git.discover(Path.cwd()).root)
    except HewError:
        return []
    return [CompletionItem(f.run_id) for f in reversed(folders) if f.run_id.startswith(incomplete)]


def _replay(folder: RunFolder) -> tuple[tuple[Stamped, ...], RunState]:
    events = journal.read(folder.journal).events
    try:
        return events, replay(events)
    except ValueError as error:
        raise HewError(
            f"{folder.run_id}: {error}", hint="its journal was damaged by hand; remove the folder"
        ) from error


def _lock(git: Git) -> Path:
    return git.common_dir / "hew-loop" / "run.lock"
