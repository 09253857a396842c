"""`events.jsonl`: append-only, the only truth about a run. One writer; readers may come at any time."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType

from pydantic import ValidationError

from hew_loop.core.events import SCHEMA_VERSION, Event, RunStarted, Stamped, from_line, to_line
from hew_loop.errors import HewError


@dataclass(frozen=True, slots=True)
class JournalText:
    """`whole_bytes`: length of the part that holds whole lines; `torn_bytes`: of a last line that was cut off."""

    events: tuple[Stamped, ...]
    whole_bytes: int
    torn_bytes: int


def read(path: Path) -> JournalText:
    """Read a journal as far as it is whole. A torn last line is left out and counted, anything else is an error."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise HewError(f"cannot read the journal {path.name}: {error.strerror}") from error
    whole = data.rfind(b"\n") + 1
    lines = data[:whole].split(b"\n")[:-1]
    events: list[Stamped] = []
    for number, line in enumerate(lines, 1):
        try:
            events.append(from_line(line))
        except ValidationError as error:
            if number == len(lines) and not _is_json(line):
                whole -= len(line) + 1  # a torn line can end in a newline: its start was lost with the page before it
                break
            raise HewError(
                f"{path.parent.name}: line {number} of the journal is not an event of this version",
                hint="it was written by another version of loop, or by hand",
            ) from error
        if events[-1].seq != number:
            raise HewError(
                f"{path.parent.name}: line {number} of the journal does not follow the one before it",
                hint="a line was lost, or the file was edited by hand",
            )
    _check_start(events, path)
    return JournalText(tuple(events), whole, len(data) - whole)


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _check_start(events: list[Stamped], path: Path) -> None:
    if not events:
        raise HewError(
            f"{path.parent.name}: the journal holds no event", hint="the run died before it began; remove the folder"
        )
    first = events[0].event
    if not isinstance(first, RunStarted):
        raise HewError(f"{path.parent.name}: the journal does not begin with run_started", hint="it is not a journal")
    if first.schema_version != SCHEMA_VERSION:
        raise HewError(
            f"{path.parent.name} has journal version {first.schema_version}, this loop reads {SCHEMA_VERSION}"
        )


class Journal:
    """The writer's end. Lines are written at once; `sync` makes them lasting before anything depends on them."""

    def __init__(self, path: Path, *, seq: int, clock: Callable[[], datetime]) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._seq = seq
        self._clock = clock
        self._dirty = False

    @classmethod
    def reopen(cls, path: Path, text: JournalText, *, clock: Callable[[], datetime]) -> Journal:
        """Go on behind the last whole line; a torn one is cut away."""
        os.truncate(path, text.whole_bytes)
        return cls(path, seq=text.events[-1].seq, clock=clock)

    def append(self, event: Event) -> Stamped:
        """Raises HewError when the disk takes no more: the run then ends as if it had been killed."""
        stamped, line = _as_line(Stamped(self._seq + 1, self._clock(), event))
        try:
            written = os.write(self._file, line)
            if written != len(line):
                os.ftruncate(self._file, os.fstat(self._file).st_size - written)
                raise OSError(0, "the disk is full")
        except OSError as error:
            raise _unwritable(error) from error
        self._seq += 1
        self._dirty = True
        return stamped

    def sync(self) -> None:
        if self._dirty:
            try:
                os.fdatasync(self._file)
            except OSError as error:
                raise _unwritable(error) from error
            self._dirty = False

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        try:
            self.sync()
        finally:
            os.close(self._file)


def _as_line(stamped: Stamped) -> tuple[Stamped, bytes]:
    """The line, and the event as it will be read back: a file name that is no UTF-8 is kept with its odd bytes lost."""
    try:
        return stamped, to_line(stamped)
    except ValueError:
        text = json.dumps(asdict(stamped), ensure_ascii=False, default=str)
        line = text.encode("utf-8", "replace") + b"\n"
        return from_line(line), line


def _unwritable(error: OSError) -> HewError:
    return HewError(f"cannot write the journal: {error.strerror}", hint="free some space, then: loop resume")
