"""What a person sees while a run works: a live view on a terminal, else one line per event, or JSON lines."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import UTC, datetime
from functools import partial
from types import TracebackType
from typing import Literal

import click
from rich.console import Console
from rich.live import Live

from hew_loop.core import events as ev
from hew_loop.core.state import RunState
from hew_loop.engine.loop import Observer
from hew_loop.engine.run_folder import RunFolder
from hew_loop.reports.lines import line
from hew_loop.reports.live import render
from hew_loop.reports.summary import summarise
from hew_loop.reports.summary_text import to_text

Form = Literal["live", "lines", "json", "quiet"]

REDRAW_S = 0.5


def form(*, as_json: bool, quiet: bool, non_interactive: bool) -> Form:
    if as_json:
        return "json"
    if quiet:
        return "quiet"
    return "live" if sys.stderr.isatty() and not non_interactive else "lines"


class Progress(AbstractContextManager["Progress"]):
    """Use as `with Progress(form) as progress`, and give `progress.observers` to the run."""

    def __init__(self, form: Form) -> None:
        self._form = form
        self._view = LiveView() if form == "live" else None

    def observers(self, folder: RunFolder) -> Sequence[Observer]:
        keep = partial(_keep_summary, folder)
        match self._form:
            case "json":
                return (keep, _json_line)
            case "lines":
                return (keep, _line)
            case "live" if self._view is not None:
                self._view.folder = folder
                return (keep, self._view)
            case _:
                return (keep,)

    def __enter__(self) -> Progress:
        (self._view or nullcontext()).__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        (self._view or nullcontext()).__exit__(kind, error, tb)


class LiveView(AbstractContextManager["LiveView"]):
    """Redraws the newest state twice a second, from a thread of its own: a busy tick does not freeze the clock."""

    def __init__(self) -> None:
        self.folder: RunFolder | None = None
        self._console = Console(stderr=True)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._state: RunState | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._redraw, daemon=True)

    def __call__(self, stamped: ev.Stamped, before: RunState, state: RunState) -> None:
        self._state = state
        if text := line(stamped, before):
            with suppress(OSError):  # the terminal is gone
                self._live.console.print(text, markup=False, highlight=False)

    def __enter__(self) -> LiveView:
        self._live.start()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()
        with suppress(OSError):
            self._live.stop()

    def _redraw(self) -> None:
        while not self._over.wait(REDRAW_S):
            state = self._state
            if state is not None and not state.ended:
                view = render(
                    state, now=datetime.now(UTC), width=self._console.width, last_output=self._last_output(state)
                )
                with suppress(OSError):
                    self._live.update(view, refresh=True)

    def _last_output(self, state: RunState) -> dict[int, datetime]:
        """When each running agent printed last: its log's own time."""
        times: dict[int, datetime] = {}
        for number, iteration in state.iterations.items():
            if iteration.fate != "running" or self.folder is None:
                continue
            try:
                log = (self.folder.iteration(number) / "output.log").stat()
            except OSError:
                continue
            times[number] = datetime.fromtimestamp(log.st_mtime, UTC)
        return times


def _keep_summary(folder: RunFolder, stamped: ev.Stamped, before: RunState, state: RunState) -> None:
    """`summary.md`: what `loop summary` says, for whoever looks into the folder."""
    if not isinstance(stamped.event, ev.RunEnded):
        return
    text = to_text(summarise(state, now=stamped.at), width=100)
    with suppress(OSError):  # the journal holds everything that it says
        (folder.path / "summary.md").write_text(f"# {state.run_id}\n\n```text\n{text}```\n", encoding="utf-8")


def _line(stamped: ev.Stamped, before: RunState, state: RunState) -> None:
    if text := line(stamped, before):
        with suppress(OSError):  # nobody reads on (`2>&1 | head`), or the disk is full: no reason to end a run
            click.echo(text, err=True)


def _json_line(stamped: ev.Stamped, before: RunState, state: RunState) -> None:
    with suppress(OSError):
        sys.stdout.buffer.write(ev.to_line(stamped))
        sys.stdout.buffer.flush()
