"""What one program prints: appended to its log up to a cap, and kept as bounded tails."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self

_TAIL_BYTES = 64 * 1024


class Output:
    """Takes the pieces as they arrive. A log that cannot be written does not stop the job: `error` says so."""

    def __init__(self, path: Path, *, max_log_bytes: int) -> None:
        self.total_bytes = 0
        self.error = ""
        self._path = path
        self._logged_bytes = 0
        self._max_log_bytes = max_log_bytes
        self._tail = _Tail()
        self._stderr_tail = _Tail()
        self._log: int | None = None

    def __enter__(self) -> Self:
        try:
            # Readable by its owner alone: an agent's tools may print keys.
            self._log = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            self._give_up_log(error)
        return self

    def __exit__(self, *_: object) -> None:
        if self._log is not None:
            os.close(self._log)
            self._log = None

    @property
    def dropped_bytes(self) -> int:
        return self.total_bytes - self._logged_bytes

    @property
    def tail(self) -> bytes:
        return self._tail.value

    @property
    def stderr_tail(self) -> bytes:
        return self._stderr_tail.value

    def take(self, data: bytes, *, is_stdout: bool) -> None:
        self.total_bytes += len(data)
        self._tail.add(data)
        if self._log is not None and (room := self._max_log_bytes - self._logged_bytes) > 0:
            self._append(self._log, memoryview(data)[:room])
        if not is_stdout:
            self._stderr_tail.add(data)

    def _append(self, log: int, data: memoryview) -> None:
        try:
            while data:
                written = os.write(log, data)
                self._logged_bytes += written
                data = data[written:]
        except OSError as error:
            os.close(log)
            self._log = None
            self._give_up_log(error)

    def _give_up_log(self, error: OSError) -> None:
        self.error = f"the log {self._path} cannot be written: {error.strerror}"


class _Tail:
    """The last 64 KiB, in at most twice as much memory (and one piece)."""

    def __init__(self) -> None:
        self._data = bytearray()

    def add(self, data: bytes) -> None:
        self._data += data[-_TAIL_BYTES:]
        if len(self._data) > 2 * _TAIL_BYTES:
            del self._data[:-_TAIL_BYTES]

    @property
    def value(self) -> bytes:
        return bytes(self._data[-_TAIL_BYTES:])
