"""What every reader of agent output needs: bytes into lines and a bounded tail, in constant memory whatever comes."""

from __future__ import annotations

from typing import Final, Literal

from hew_loop.core.iteration import FailureClass
from hew_loop.runtimes.base import Ending

MAX_LINE_BYTES: Final = 16 * 1024 * 1024
MAX_FINAL_TEXT: Final = 1024 * 1024
MAX_MESSAGE: Final = 2000

# An end that the runner brought about is told by the runner: the output alone cannot say it (RT-36).
FAILURE_OF_ENDING: Final[dict[Ending, FailureClass]] = {
    "timed_out": "timed_out",
    "stalled": "stalled",
    "cancelled": "cancelled",
    "not_started": "spawn_error",
}


class LineSplitter:
    r"""Cuts a stream at ``\n``. A line above the limit is dropped and counted; the next one is read again (RT-11)."""

    def __init__(self, *, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self.dropped = 0
        self._max = max_line_bytes
        self._pending = bytearray()
        self._is_overlong = False

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that `data` completes, without their line ends."""
        lines: list[bytes] = []
        start = 0
        while (end := data.find(b"\n", start)) >= 0:
            line = self._complete(data[start:end])
            if line is not None:
                lines.append(line)
            start = end + 1
        self._keep(data[start:])
        return lines

    def flush(self) -> bytes | None:
        """The last line, when the stream ended without a line end; None when there is nothing to read in it."""
        return self._complete(b"") or None

    def _complete(self, piece: bytes) -> bytes | None:
        self._keep(piece)
        line = None if self._is_overlong else bytes(self._pending)
        self._pending.clear()
        self._is_overlong = False
        return line

    def _keep(self, piece: bytes) -> None:
        if self._is_overlong:
            return
        if len(self._pending) + len(piece) > self._max:
            self.dropped += 1
            self._is_overlong = True
            self._pending.clear()
        else:
            self._pending += piece


class Tail:
    """The last `max_bytes` of a stream."""

    def __init__(self, *, max_bytes: int) -> None:
        self._max = max_bytes
        self._kept = bytearray()

    def feed(self, data: bytes) -> None:
        self._kept += data[-self._max :]
        # Twice the size before it is cut: each byte is moved once, however small the pieces are.
        if len(self._kept) > 2 * self._max:
            del self._kept[: -self._max]

    @property
    def text(self) -> str:
        return self._kept[-self._max :].decode("utf-8", "replace")


def evidence(text: str, *, keep: Literal["start", "end"] = "start") -> str:
    """`text` as the message of a report: at most 2,000 characters, from its start or its end, and always encodable."""
    plain = encodable(text).strip()
    return plain[-MAX_MESSAGE:] if keep == "end" else plain[:MAX_MESSAGE]


def encodable(text: str) -> str:
    """`text` with lone surrogates replaced: JSON may hold them, and no file or pipe takes them."""
    return text.encode("utf-8", "replace").decode("utf-8")
