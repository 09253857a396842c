"""Requests to stop: signals and the stop file. The first drains, the second ends what runs."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import anyio
from anyio.abc import TaskStatus

from hew_loop.core import events as ev

POLL_S = 0.5
"""How often the stop file is looked for; it may lie on any file system, so there is nothing to wait on."""

Post = Callable[[ev.Event], None]


async def watch_signals(post: Post, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
    """SIGINT drains, a second one ends what runs, a third ends this program at once (a resume settles it).

    SIGTERM ends what runs: whoever sends it does not wait for hours. So does a terminal that goes away, but not where
    it was to be outlived (`nohup`).
    """
    outlives = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    caught = (signal.SIGINT, signal.SIGTERM, *(() if outlives else (signal.SIGHUP,)))
    with anyio.open_signal_receiver(*caught) as signals:
        task_status.started()
        count = 0
        async for number in signals:
            count += 1
            if count > 2:
                os._exit(128 + number)
            how = "drain" if number == signal.SIGINT and count == 1 else "now"
            post(ev.StopRequested(how, number.name))


async def watch_stop_file(path: Path, post: Post) -> None:
    """`.stop` in the run folder drains; with the word `now` in it, it ends what runs. `loop cancel` writes it."""
    said: ev.StopRequested | None = None
    while True:
        found = await anyio.to_thread.run_sync(requested_in, path)
        if found is not None and found != said:
            said = found
            post(found)
        await anyio.sleep(POLL_S)


def requested_in(path: Path) -> ev.StopRequested | None:
    """What the stop file asks for; None where there is none."""
    try:
        found = path.read_text(errors="replace").strip()
    except OSError:
        return None
    how: Literal["drain", "now"] = "now" if found == "now" else "drain"
    return ev.StopRequested(how, "cancel" if found in ("now", "drain") else "stop_file")
