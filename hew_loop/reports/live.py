"""The live view on a terminal: a row per slot, the merge queue, the spend and what happened last."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hew_loop.core.state import RunState
from hew_loop.reports.picture import Picture, hold_words, picture, queue_words, spend_words
from hew_loop.reports.text import cut, duration, pad, plain

QUIET_S = 300.0
"""An agent that printed nothing for so long is shown in another colour."""


def render(
    state: RunState, *, now: datetime, width: int, last_output: Mapping[int, datetime], died: bool = False
) -> RenderableType:
    """The view at `now`. Foreign texts go in as `Text`, so that nothing in them is markup."""
    shown = picture(state, now=now, last_output=last_output, died=died)
    below = [_line("queue", queue_words(shown.queue), width), _line("spend", spend_words(shown), width)]
    below += [_line("hold", hold_words(hold), width) for hold in shown.holds]
    recent = [Text(cut(f"  {entry}", width), style="dim", no_wrap=True) for entry in shown.recent]
    return Group(_head(shown, width), _slots(shown, width), *below, *recent)


def _head(shown: Picture, width: int) -> Text:
    stopping = f", stopping: {shown.stopping}" if shown.stopping and shown.status == "running" else ""
    line = f"{plain(shown.headline)}  ({shown.run_id}, {duration(shown.age_s)}{stopping})"
    return Text(cut(line, width), style="bold", no_wrap=True)


def _slots(shown: Picture, width: int) -> Table:
    table = Table(box=None, pad_edge=False, width=width, header_style="dim")
    table.add_column("slot", justify="right", no_wrap=True)
    table.add_column("task", no_wrap=True, ratio=1)
    table.add_column("title", no_wrap=True, ratio=2)
    for name in ("iter", "try", "age", "last output"):
        table.add_column(name, justify="right", no_wrap=True)
    for slot in shown.slots:
        quiet = "" if slot.quiet_s is None else f"{duration(slot.quiet_s)} ago"
        age = slot.phase if slot.age_s is None else duration(slot.age_s)
        cells = (
            str(slot.slot),
            plain(slot.task) or "free",
            plain(slot.title),
            "" if slot.iteration is None else str(slot.iteration),
            "" if slot.attempt is None else str(slot.attempt),
            age,
            quiet,
        )
        style = "dim" if not slot.task else "yellow" if (slot.quiet_s or 0.0) >= QUIET_S else ""
        table.add_row(*(Text(cell) for cell in cells), style=style)
    return table


def _line(label: str, text: str, width: int) -> Text:
    return Text(cut(f"{pad(label, 6)} {text}", width), no_wrap=True)
