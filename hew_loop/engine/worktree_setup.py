"""Prepares a worktree once for its setup inputs: `npm ci` runs again only when the lock file has changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread

from hew_loop.core.policy import PlannedCommand, WorktreeSettings
from hew_loop.core.verdict import failure_digest
from hew_loop.engine.gate import run_commands


@dataclass(frozen=True, slots=True)
class SetupEnd:
    """`ran` is False where the worktree was ready already. `message` says what went wrong."""

    ok: bool
    message: str = ""
    ran: bool = False


async def set_up(
    worktree: Path,
    settings: WorktreeSettings,
    *,
    env: Mapping[str, str],
    log: Path,
    mark: str,
    timeout_s: float,
    stamp: Path,
    stop: anyio.Event | None = None,
) -> SetupEnd:
    """Run `setup` unless `stamp` says that this worktree is ready for its present inputs.

    `stamp` lies beside the worktree, outside of it. Whoever cleans ignored files removes it; with `pristine`, or a
    worktree made anew, it does not count anyhow.
    """
    if settings.setup is None:
        return SetupEnd(ok=True)
    key = await anyio.to_thread.run_sync(_inputs_hash, worktree, settings)
    if not settings.pristine and _read(stamp) == key:
        return SetupEnd(ok=True)
    # Before the command: one that fails half way (`npm ci` deletes first) must not look ready for the inputs before.
    stamp.unlink(missing_ok=True)
    command = PlannedCommand(settings.setup)
    run = await run_commands([command], worktree=worktree, env=env, log=log, mark=mark, timeout_s=timeout_s, stop=stop)
    if run.exit_code != 0:
        ending = failure_digest(run.tail, max_chars=1000)
        return SetupEnd(ok=False, message=f"worktree setup `{run.failing}`: {run.reason}\n{ending}".rstrip(), ran=True)
    stamp.parent.mkdir(parents=True, exist_ok=True)
    stamp.write_text(key)
    return SetupEnd(ok=True, ran=True)


def _read(stamp: Path) -> str:
    try:
        return stamp.read_text()
    except (OSError, ValueError):
        return ""


def _inputs_hash(worktree: Path, settings: WorktreeSettings) -> str:
    """Of the command, each input's content, and the worktree itself: a new one under the old name is not ready."""
    facts = [settings.setup, settings.env, _identity(worktree)]
    inputs = [[path, _content(worktree, path)] for path in _input_paths(worktree, settings.setup_inputs)]
    return hashlib.sha256(json.dumps([facts, inputs]).encode("utf-8", "surrogatepass")).hexdigest()


def _identity(worktree: Path) -> list[int]:
    try:
        status = (worktree / ".git").lstat()
    except OSError:
        status = worktree.lstat()
        return [status.st_ino]
    return [status.st_ino, status.st_mtime_ns]


def _input_paths(worktree: Path, patterns: tuple[str, ...]) -> Iterator[str]:
    """Each name as given, and what it matches: `packages/*/package.json` changes when a package comes."""
    for pattern in patterns:
        yield pattern
        if not Path(pattern).is_absolute() and any(sign in pattern for sign in "*?["):
            yield from sorted(path.relative_to(worktree).as_posix() for path in worktree.glob(pattern))


def _content(worktree: Path, name: str) -> str:
    """A hash, or what there is instead. Only ordinary files inside are read: an agent may leave a link or a pipe."""
    path = worktree / name
    try:
        if path.is_symlink():
            return f"link to {path.readlink()}"
        if not path.resolve().is_relative_to(worktree.resolve()) or not path.is_file():
            return "no file"
        with path.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except (OSError, ValueError):
        return "not readable"
