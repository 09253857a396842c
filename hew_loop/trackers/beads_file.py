"""The file `.beads/issues.jsonl`: read once per change, written whole beside itself under a lock, then renamed."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import stat
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, Generic, TypeVar

from hew_loop.core.task import Task
from hew_loop.errors import TrackerError
from hew_loop.trackers.beads_edges import imported_edges
from hew_loop.trackers.beads_format import BadLine, Issue, Line, parse_line

T = TypeVar("T")
LOCK_NAME: Final = ".hew-loop.lock"
_ASIDE_NAME = ".hew-loop.issues.jsonl"
_BOM = b"\xef\xbb\xbf"
_LOCK_TIMEOUT_S = 30.0
_LOCK_POLL_S = 0.005
_RACY_NS = 2_000_000_000
"""A file younger than this may change again without a new time, so its bytes are compared (as git does)."""
_RETRIES = 20


class Snapshot:
    """The file as it was at one moment. Lines are shared with other snapshots: never change an issue in place."""

    def __init__(self, raw: bytes, lines: tuple[Line, ...]) -> None:
        self.raw = raw
        self.lines = lines
        self.by_id: Mapping[str, Line] = {line.id: line for line in lines if line.id}

    @cached_property
    def tasks(self) -> Mapping[str, Task]:
        """Every task by id, in the order of the file, with the edges that bd would import."""
        with _no_collection():
            tasks = {line.id: line.task for line in self.lines if line.task is not None}
            wisps = {line.id for line in self.lines if line.issue and _is_wisp(line.issue)}
            return imported_edges(tasks, wisps)


@dataclass(frozen=True, slots=True)
class Edit(Generic[T]):
    """A change to write: lines by their id (new or in place of the old), further lines, and what to return."""

    result: T
    lines: tuple[Line, ...] = ()


class BeadsFile:
    """One store. Readers take no lock; two processes that write wait for each other."""

    def __init__(self, directory: Path, *, exclude_file: Path | None = None) -> None:
        self.directory = directory
        self.path = directory / "issues.jsonl"
        self._exclude_file = exclude_file
        self._snapshot = Snapshot(b"", ())
        self._signature: tuple[int, ...] | None = None
        self._is_racy = True

    def read(self) -> Snapshot:
        """The file as it is now; no file is an empty store. An unchanged file is not parsed again.

        Raises `TrackerError` for a file that cannot be read or has a line that beads could not read.
        """
        try:
            signature = _signature(self.path)
            if signature is None:
                self._remember(Snapshot(b"", ()), None)
            elif signature != self._signature or self._is_racy:
                raw = self.path.read_bytes()
                if raw != self._snapshot.raw:
                    with _no_collection():
                        self._remember(self._parse(raw), signature)
                else:
                    self._remember(self._snapshot, signature)
        except OSError as error:
            raise TrackerError(f"Cannot read {self.path}: {error.strerror}.") from error
        return self._snapshot

    def update(self, change: Callable[[Snapshot], Edit[T]]) -> T:
        """Write what `change` makes of the newest snapshot, or nothing when it gives no lines.

        Raises `TrackerError`; the old file is then still whole. When a program that takes no lock (an editor, git)
        replaces the file meanwhile, `change` is asked again with the new content.
        """
        try:
            if not self.directory.is_dir():
                edit = change(self.read())
                if not edit.lines:
                    return edit.result
            self._prepare()
            with self._locked():
                for _ in range(_RETRIES):
                    snapshot = self.read()
                    edit = change(snapshot)
                    if not edit.lines or self._write(snapshot, edit.lines):
                        return edit.result
        except BadLine as error:
            raise TrackerError(f"Cannot change an issue of {self.path}: {error}. Nothing was changed.") from error
        except OSError as error:
            raise TrackerError(
                f"Cannot write {self.path}: {error.strerror}. Nothing was changed.",
                hint="Mend the file system or its permissions, then run the command again.",
            ) from error
        raise TrackerError(f"Another program keeps changing {self.path}. Nothing was changed.")

    def _parse(self, raw: bytes) -> Snapshot:
        """Only lines that the last snapshot did not have are parsed."""
        known = {line.raw: line for line in self._snapshot.lines}
        pieces = raw.removeprefix(_BOM).split(b"\n")
        if not pieces[-1]:
            pieces.pop()
        lines: list[Line] = []
        number_of: dict[str, int] = {}
        for number, piece in enumerate(pieces, start=1):
            try:
                line = known.get(piece) or parse_line(piece)
            except BadLine as error:
                raise self._bad(number, str(error)) from error
            if line.id:
                if line.id in number_of:
                    raise self._bad(number, f"its id {line.id!r} stands in line {number_of[line.id]} already")
                number_of[line.id] = number
            lines.append(line)
        return Snapshot(raw, tuple(lines))

    def _bad(self, number: int, reason: str) -> TrackerError:
        return TrackerError(
            f"{self.path}, line {number}: {reason}.", hint=f"Mend line {number}; until then nothing is written."
        )

    def _remember(self, snapshot: Snapshot, signature: tuple[int, ...] | None) -> None:
        self._snapshot = snapshot
        self._signature = signature
        self._is_racy = signature is None or time.time_ns() - max(signature[2:]) < _RACY_NS

    def _write(self, snapshot: Snapshot, changed: tuple[Line, ...]) -> bool:
        """False when the file is no longer the one that `snapshot` was read from."""
        lines = _arranged(snapshot, changed)
        head = _BOM if snapshot.raw.startswith(_BOM) else b""
        raw = head + b"\n".join(line.raw for line in lines) + b"\n"
        # A link (a store shared by name) stays a link: what it leads to is replaced.
        target = self.path.resolve()
        mode = _mode(target)
        aside = target.with_name(_ASIDE_NAME)
        try:
            with open(aside, "wb") as file:
                if mode is not None:
                    os.fchmod(file.fileno(), mode)
                file.write(raw)
                file.flush()
                os.fsync(file.fileno())
            if _signature(self.path) != self._signature:
                return False
            aside.replace(target)
        finally:
            aside.unlink(missing_ok=True)
        _sync_directory(target.parent)
        self._remember(Snapshot(raw, lines), _signature(self.path))
        return True

    def _prepare(self) -> None:
        """Make the directory, hidden from git; or hide only our own files in one that is there."""
        if not self.directory.is_dir():
            self._exclude("/.beads/")
            self.directory.mkdir(parents=True, exist_ok=True)
        elif not (self.directory / LOCK_NAME).exists():
            self._exclude("/.beads/.hew-loop.*")

    def _exclude(self, pattern: str) -> None:
        file = self._exclude_file
        if file is None:
            return
        text = file.read_text() if file.exists() else ""
        if pattern not in text.splitlines():
            file.parent.mkdir(parents=True, exist_ok=True)
            with open(file, "a") as out:
                out.write(("" if not text or text.endswith("\n") else "\n") + pattern + "\n")

    @contextlib.contextmanager
    def _locked(self) -> Generator[None]:
        descriptor = os.open(self.directory / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            _lock(descriptor, self.path)
            yield
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def _no_collection() -> Generator[None]:
    """While issues are read nothing becomes garbage; looking for it all the time costs a quarter more."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _arranged(snapshot: Snapshot, changed: tuple[Line, ...]) -> tuple[Line, ...]:
    """All lines, issues sorted by id in byte order as beads writes them; what is no issue stays where it was.

    A changed memory takes the place of the one with its key.
    """
    memories = {key: line for line in changed if (key := line.memory)}
    by_id = {**snapshot.by_id, **{line.id: line for line in changed if line.id}}
    # The order of code points is the order of UTF-8 bytes.
    issues = iter([by_id[task_id] for task_id in sorted(by_id)])
    last = max((i for i, line in enumerate(snapshot.lines) if line.id), default=-1)
    arranged: list[Line] = []
    for i, line in enumerate(snapshot.lines):
        arranged.append(next(issues) if line.id else memories.pop(line.memory, line))
        if i == last:
            arranged.extend(issues)
    return (*arranged, *issues, *memories.values())


def _is_wisp(issue: Issue) -> bool:
    return issue.get("ephemeral") is True or issue.get("no_history") is True


def _lock(descriptor: int, path: Path) -> None:
    """Polls, because a lock without a deadline would wait for a stopped process for ever."""
    deadline = time.monotonic() + _LOCK_TIMEOUT_S
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise TrackerError(
                    f"Another process has held the lock of {path} for {_LOCK_TIMEOUT_S:.0f} s.",
                    hint=f"See which one: fuser -v {path.parent / LOCK_NAME}",
                ) from None
            time.sleep(_LOCK_POLL_S)


def _signature(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _mode(path: Path) -> int | None:
    """Permissions to carry over. Raises PermissionError for a file that its owner made read-only."""
    if not path.exists():
        return None
    if not os.access(path, os.W_OK):
        raise PermissionError(13, "The file is read-only", str(path))
    return stat.S_IMODE(path.stat().st_mode)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
