"""Agents that print one JSON object a line: the lines as events, a run without its final one, and what numbers mean."""

from __future__ import annotations

import json
import math
import os
from abc import abstractmethod
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, cast

from hew_loop.core.iteration import FailureClass
from hew_loop.runtimes.base import Ending, OutputReader
from hew_loop.runtimes.lines import FAILURE_OF_ENDING, LineSplitter, Tail, evidence

Event = Mapping[str, Any]

STATUSES: Final[dict[int, FailureClass]] = {
    400: "bad_request",
    401: "auth",
    402: "credit",
    403: "auth",
    404: "model_not_found",
    408: "timeout",
    413: "prompt_too_long",
    429: "rate_limit",
    500: "server_error",
    502: "server_error",
    503: "overloaded",
    504: "server_error",
    529: "overloaded",
}


class EventStream:
    """The events of one agent's stdout; what stands between them is kept as text. Never raises.

    `is_notice` knows the events by which the agent only says that it waits and will try again.
    """

    def __init__(self, *, is_notice: Callable[[Event], bool] = lambda event: False) -> None:
        self.has_events = False
        self.is_progress = True
        """The newest piece completed a line that is no such notice."""
        self.notice: Event | None = None
        """The newest line, when it is such a notice."""
        self._is_notice = is_notice
        self._lines = LineSplitter()
        self._plain = Tail(max_bytes=4096)

    def feed(self, data: bytes) -> list[Event]:
        lines = [line for line in self._lines.feed(data) if line.strip()]
        events = [self._parse(line) for line in lines]
        self.is_progress = any(event is None or not self._is_notice(event) for event in events)
        if events:
            self.notice = events[-1] if events[-1] is not None and self._is_notice(events[-1]) else None
        return [event for event in events if event is not None]

    def flush(self) -> list[Event]:
        """The last event, when the stream ended without a line end."""
        rest = self._lines.flush()
        event = None if rest is None else self._parse(rest)
        return [] if event is None else [event]

    def unfinished(
        self,
        *,
        ending: Ending,
        exit_code: int | None,
        stderr_tail: bytes,
        failure_of: Callable[[str], FailureClass | None],
    ) -> tuple[FailureClass, str]:
        """Class and evidence of a run without its final event; `failure_of` reads what was printed beside events."""
        said = f"{self._plain.text}\n{stderr_tail.decode('utf-8', 'replace')}"
        if self._lines.dropped:
            said += f"\n(lines too long to be read: {self._lines.dropped})"
        message = evidence(said, keep="end") or f"it ended with exit code {exit_code} and without a final event"
        return self._unfinished_class(ending, exit_code, said, failure_of), message

    def _unfinished_class(
        self, ending: Ending, exit_code: int | None, said: str, failure_of: Callable[[str], FailureClass | None]
    ) -> FailureClass:
        if ending != "exited":
            return FAILURE_OF_ENDING[ending]
        if exit_code is None:
            return "spawn_error"
        if exit_code < 0 or exit_code > 128:
            return "killed"
        if exit_code == 0:
            return "truncated"
        if (known := failure_of(said)) is not None:
            return known
        return "truncated" if self.has_events or self._lines.dropped or not said.strip() else "usage_error"

    def _parse(self, line: bytes) -> Event | None:
        try:
            value: Any = json.loads(line.decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict):
            self.has_events = True
            return cast("Event", value)
        self.has_events |= line.startswith(b"{")  # a torn event: it had started, whatever the rest was
        self._plain.feed(line + b"\n")
        return None


class EventReader(OutputReader):
    """Takes one event after another; what they mean is the agent's own."""

    def __init__(self, *, is_notice: Callable[[Event], bool] = lambda event: False) -> None:
        self._stream = EventStream(is_notice=is_notice)

    def feed(self, data: bytes) -> None:
        for event in self._stream.feed(data):
            self._take(event)

    @property
    def is_progress(self) -> bool:
        return self._stream.is_progress

    def _flush(self) -> None:
        for event in self._stream.flush():
            self._take(event)

    @abstractmethod
    def _take(self, event: Event) -> None: ...


def program_of(runtime: str) -> str:
    """`$HEW_LOOP_<NAME>_BIN`, else the name itself, to be found on PATH."""
    return os.environ.get(f"HEW_LOOP_{runtime.upper()}_BIN") or runtime


def stdin_prompt(prompt: str) -> bytes:
    """As bytes, and never beginning with a slash, which several CLIs take for a command of their own (RT-1)."""
    text = f"Task:\n{prompt}" if prompt.lstrip().startswith("/") else prompt
    return text.encode("utf-8", "replace")


def failure_of_status(status: int) -> FailureClass:
    """What an HTTP status says where the CLI says nothing more exact."""
    return STATUSES.get(status, "server_error" if status >= 500 else "bad_request")


def utc_now() -> datetime:
    return datetime.now(UTC)


def mapping(value: object) -> Event:
    return cast("Event", value) if isinstance(value, dict) else {}


def text_of(value: object) -> str:
    return value if isinstance(value, str) else ""


def count_of(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63 else None


def cost_of(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value < 1e12 and math.isfinite(value) else None
