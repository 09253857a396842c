"""Which directory holds the backlog, and whether it belongs to bd or to us: the store decides, not the options."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, Literal, cast

from hew_loop.errors import TrackerError

StoreKind = Literal["beads", "bd"]
_DATABASE_DIRECTORIES: Final = ("embeddeddolt", "dolt", ".dolt")


def store_directory(root: Path, beads_dir_env: str | None) -> Path:
    """The beads directory of the main worktree `root`: `BEADS_DIR` first, and a `redirect` in it followed once."""
    directory = Path(beads_dir_env).absolute() if beads_dir_env else root / ".beads"
    try:
        lines = (directory / "redirect").read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return directory
    named = next((line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")), "")
    # Relative to the directory that holds `.beads`; a target that is not there is ignored, as bd does.
    target = (directory.parent / named).resolve() if named else directory
    return target if target.is_dir() else directory


def detect(root: Path, beads_dir_env: str | None) -> StoreKind:
    """`bd` where there is a database or a metadata.json that names one; else the embedded store, empty or not."""
    directory = store_directory(root, beads_dir_env)
    if any((directory / name).is_dir() for name in _DATABASE_DIRECTORIES) or any(directory.glob("*.db")):
        return "bd"
    return "bd" if _names_database(directory / "metadata.json") else "beads"


def refuse_bd(directory: Path) -> TrackerError:
    """The error for commands of the embedded tracker that meet bd's store: its issues.jsonl may be an old export."""
    return TrackerError(
        f"{directory} belongs to bd, and its issues.jsonl may be older than bd's database.",
        hint="Use bd itself here (bd ready, bd create, bd close), or point BEADS_DIR to an embedded store.",
    )


def missing_bd(directory: Path) -> TrackerError:
    """The error where only bd could say what is ready, and there is none."""
    return TrackerError(
        f"{directory} belongs to bd, and there is no bd on PATH.",
        hint="Install bd, or put its folder on PATH (cron has a short one: set PATH in the crontab). "
        "issues.jsonl beside it may be an old export, so it is not read instead.",
    )


def no_bd_store(directory: Path) -> TrackerError:
    """The error where bd is asked for by name, and there is no store of its."""
    return TrackerError(
        f"There is no store of bd's in {directory}.",
        hint="Make one: bd init (from an issues.jsonl: bd init --from-jsonl), or leave out --tracker bd.",
    )


def live_lines(jsonl: Path) -> int:
    """How many issues the export tells of, deleted ones not counted; 0 where there is no such file."""
    try:
        lines = jsonl.read_bytes().splitlines()
    except OSError:
        return 0
    return sum(b'"id"' in line and b'"tombstone"' not in line for line in lines)


def _names_database(metadata: Path) -> bool:
    """A damaged metadata.json counts too: what it named is not known, so nobody may take the store for ours."""
    try:
        found: object = json.loads(metadata.read_bytes())
    except FileNotFoundError:
        return False
    except (OSError, ValueError):
        return True
    members = cast("dict[str, Any]", found) if isinstance(found, dict) else {"database": found}
    return bool(members.get("database") or members.get("backend") or members.get("dolt_mode"))
