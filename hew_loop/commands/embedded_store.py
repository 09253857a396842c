"""Where the embedded store of the `loop task` commands is, and who works on it."""

from __future__ import annotations

import os
from pathlib import Path

from hew_loop.repo.git import Git
from hew_loop.trackers.beads_file import BeadsFile
from hew_loop.trackers.beads_store import BeadsStore
from hew_loop.trackers.choose import detect, refuse_bd, store_directory


def open_store() -> BeadsStore:
    """The embedded store of this repository; `BEADS_DIR` names another. Raises `TrackerError` for one of bd's."""
    directory, exclude_file = _place()
    return BeadsStore(directory, exclude_file=exclude_file)


def open_file() -> BeadsFile:
    """The file of the same store."""
    directory, exclude_file = _place()
    return BeadsFile(directory, exclude_file=exclude_file)


def acting() -> str:
    """Who is at work, as bd finds it out (BD_ACTOR wins, beads.md, corrections)."""
    names = (os.environ.get(name) for name in ("BD_ACTOR", "BEADS_ACTOR", "USER", "LOGNAME"))
    return next((name for name in names if name), "unknown")


def _place() -> tuple[Path, Path | None]:
    named = os.environ.get("BEADS_DIR") or None
    if named:
        root, exclude_file = Path.cwd(), None
    else:
        git = Git.discover(Path.cwd())
        root, exclude_file = git.root, git.common_dir / "info" / "exclude"
    directory = store_directory(root, named)
    if detect(root, named) == "bd":
        raise refuse_bd(directory)
    return directory, exclude_file if directory == root / ".beads" else None
