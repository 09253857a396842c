"""Which runs are over, by the last line of their journals: cheap enough to ask for every run there ever was."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

from hew_loop.engine.run_folder import RunFolder, runs

Standing = Literal["live", "died", "suspended", "ended", "stillborn"]
"""`died`: to be resumed, or settled by the next run. `suspended`: between two steps, the next `loop step` goes on.
`stillborn`: killed before its first event; nothing to settle."""

_OF_EVENT: dict[str, Standing] = {"run_ended": "ended", "suspended": "suspended"}

_BLOCK = 64 * 1024


def standings(root: Path, *, live: str | None) -> dict[str, Standing]:
    """All runs with a journal, oldest first; `live` is the run that holds the lock."""
    return {folder.run_id: "live" if folder.run_id == live else _standing(folder) for folder in runs(root)}


def is_settled(known: Mapping[str, Standing], run_id: str) -> bool:
    """Nothing will carry the run on. A run without a folder is one that somebody has removed."""
    return known.get(run_id) not in ("live", "died", "suspended")


def _standing(folder: RunFolder) -> Standing:
    """A journal whose end cannot be read is a run that died: `loop resume` says what is wrong with it."""
    try:
        line, is_first = _last_line(folder.journal)
        if not line and is_first:
            return "stillborn"
        found: Any = json.loads(line)
        event = cast("dict[str, Any]", found)["event"]
        return _OF_EVENT.get(event["type"], "died")
    except (OSError, ValueError, KeyError, TypeError):
        return "died"


def _last_line(path: Path) -> tuple[bytes, bool]:
    """The last whole line, and whether nothing stands before it; a torn line behind it does not count."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        data = b""
        while end > 0 and data.count(b"\n") < 2:
            start = max(end - _BLOCK, 0)
            file.seek(start)
            data = file.read(end - start) + data
            end = start
    lines = data.split(b"\n")[:-1]
    return (lines[-1] if lines else b""), end == 0 and len(lines) < 2
