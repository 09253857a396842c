"""Where a run keeps its files: `<repo>/.hew/loop/<run-id>/` (product.md §4)."""

from __future__ import annotations

import os
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hew_loop.errors import HewError, UsageError

RUN_ID = re.compile(r"loop-\d{8}T\d{6}Z-[0-9a-f]{8}")


def new_run_id(now: datetime, *, root: Path) -> str:
    """An id that sorts behind all others of this repository: the newest run is the last one by name."""
    newest = max((p.name for p in loop_dir(root).glob("loop-*") if RUN_ID.fullmatch(p.name)), default="")
    if newest:  # there may be one of this second, or of a clock that has been set back since
        after = datetime.strptime(newest[5:21], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC) + timedelta(seconds=1)
        now = max(now, after)
    return f"loop-{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"


@dataclass(frozen=True, slots=True)
class RunFolder:
    path: Path

    @property
    def run_id(self) -> str:
        return self.path.name

    @property
    def journal(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def stop_file(self) -> Path:
        return self.path / ".stop"

    @property
    def primer(self) -> Path:
        """What the tracker said about the project when the run began."""
        return self.path / "primer.md"

    def iteration(self, number: int) -> Path:
        return self.path / f"iter-{number:03d}"

    def planner(self, number: int) -> Path:
        """Of the planner call that made batch plan `number`."""
        return self.path / f"planner-{number:03d}"

    def iteration_json(self, number: int) -> Path:
        return self.path / f"iter-{number:03d}.json"

    def batch_json(self, number: int) -> Path:
        return self.path / f"batch-{number:03d}.json"

    def gate_log(self, number: int) -> Path:
        return self.path / "gates" / f"gate-{number:03d}.log"


def loop_dir(root: Path) -> Path:
    """`root` is the top of the main worktree."""
    return root / ".hew" / "loop"


def check_new(root: Path, run_id: str) -> None:
    """Raises UsageError for what is no run id, or is one already."""
    if not RUN_ID.fullmatch(run_id):
        raise UsageError(f"{run_id!r} is no run id", hint="the form is loop-YYYYMMDDTHHMMSSZ-xxxxxxxx")
    if (loop_dir(root) / run_id).exists():
        raise UsageError(f"the run {run_id} exists already", hint="give another --run-id, or none")


def create(root: Path, run_id: str) -> RunFolder:
    """Make the folder of a new run; `.hew/loop` ignores itself, so that `git status` stays clean."""
    check_new(root, run_id)
    base = loop_dir(root)
    try:
        base.mkdir(parents=True, exist_ok=True)
        ignore = base / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n")
        folder = RunFolder(base / run_id)
        if folder.path.exists():
            raise UsageError(f"the run {run_id} exists already", hint="give another --run-id, or none")
        folder.path.mkdir()
        (folder.path / "gates").mkdir()
    except OSError as error:
        raise HewError(
            f"cannot write {base}: {error.strerror}", hint="make the folder writable, or free some space"
        ) from error
    return folder


def point_latest(folder: RunFolder) -> None:
    """Swap `latest` atomically."""
    aside = folder.path.parent / f".latest-{os.getpid()}"
    aside.unlink(missing_ok=True)
    aside.symlink_to(folder.run_id)
    aside.replace(folder.path.parent / "latest")


def runs(root: Path) -> tuple[RunFolder, ...]:
    """All runs with a journal, oldest first."""
    base = loop_dir(root)
    if not base.is_dir():
        return ()
    found = (RunFolder(p) for p in base.iterdir() if RUN_ID.fullmatch(p.name) and not p.is_symlink())
    return tuple(sorted((f for f in found if f.journal.is_file()), key=lambda f: f.run_id))


def find(root: Path, run: str | None) -> RunFolder:
    """The run with this id or unique end or beginning of it; None means the newest. Raises UsageError."""
    known = runs(root)
    if not known:
        raise HewError("there is no run here yet", hint="start one: loop run --scope ready")
    if run is None or run == "latest":
        return known[-1]
    exact = [f for f in known if f.run_id == run]
    hits = exact or [f for f in known if f.run_id.endswith(run) or f.run_id.startswith(run)]
    if len(hits) == 1:
        return hits[0]
    what = "no run" if not hits else "more than one run"
    raise UsageError(f"{what} is called {run!r}", hint="see: loop list")
