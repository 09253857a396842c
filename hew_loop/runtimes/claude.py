"""The `claude` CLI: how to start it headless, and what its stream-json means (reference/runtimes.md)."""

from __future__ import annotations

import json
import math
import os
import re
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, cast

from hew_loop.core.iteration import AgentReport, FailureClass, Usage
from hew_loop.runtimes.base import AgentRequest, Ending, Invocation
from hew_loop.runtimes.lines import FAILURE_OF_ENDING, MAX_FINAL_TEXT, LineSplitter, Tail, encodable, evidence
from hew_loop.runtimes.reset_time import reset_time

PROGRAM_VARIABLE: Final = "HEW_LOOP_CLAUDE_BIN"
Event = Mapping[str, Any]
Version = tuple[int, int, int]
RECORDED_VERSIONS: Final[tuple[Version, Version]] = ((2, 1, 197), (2, 1, 329))
"""The oldest and the newest one whose output this adapter was built on."""

# Its own retries are turned down, so that a limit reaches the dispatcher in seconds and the slot is free (RT-27); a
# command over its time-out is ended, not moved to the background, where it would keep the process alive for as long.
_ENVIRONMENT: Final = (
    ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
    ("DISABLE_AUTOUPDATER", "1"),
    ("CLAUDE_CODE_MAX_RETRIES", "3"),
    ("CLAUDE_CODE_DISABLE_BACKGROUND_TASKS", "1"),
    ("CLAUDE_BYTE_STREAM_IDLE_TIMEOUT_MS", "120000"),
    ("API_TIMEOUT_MS", "600000"),
)
_ALLOWED_TOOLS: Final = "Bash Edit Write Read Glob Grep"
_SETTINGS: Final = '{"disableAllHooks": true}'

_SUBTYPES: Final[dict[str, FailureClass]] = {"error_max_turns": "max_turns", "error_max_budget_usd": "budget"}
_TERMINAL_REASONS: Final[dict[str, FailureClass]] = {
    "prompt_too_long": "prompt_too_long",
    "image_error": "prompt_too_long",
    "budget_exhausted": "budget",
    "max_turns": "max_turns",
}
_STATUSES: Final[dict[int, FailureClass]] = {
    401: "auth",
    403: "auth",
    404: "model_not_found",
    408: "timeout",
    413: "prompt_too_long",
    429: "rate_limit",
    503: "overloaded",
    529: "overloaded",
}
_TEXTS: Final[tuple[tuple[str, FailureClass], ...]] = (
    ("not logged in", "auth"),
    ("invalid api key", "auth"),
    ("timed out", "timeout"),
    ("connection refused", "network"),
    ("can't reach", "network"),
    ("api error", "bad_response"),
)
_COUNTS: Final = ("inputTokens", "outputTokens", "cacheReadInputTokens", "cacheCreationInputTokens")
_LIMIT_TEXT: Final = re.compile(r"You['’]ve hit your .{0,40}?limit")


def _utc_now() -> datetime:
    return datetime.now(UTC)


class ClaudeRuntime:
    """`program` is `$HEW_LOOP_CLAUDE_BIN`, else `claude` on PATH, unless given."""

    name = "claude"

    def __init__(
        self,
        *,
        program: str | None = None,
        max_turns: int | None = None,
        max_budget_usd: float | None = None,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        self._program = program or os.environ.get(PROGRAM_VARIABLE) or "claude"
        self._limits: list[str] = []
        if max_turns is not None:
            self._limits += ["--max-turns", str(max_turns)]
        if max_budget_usd is not None:
            self._limits += ["--max-budget-usd", f"{max_budget_usd:g}"]
        self._now = now

    def invocation(self, request: AgentRequest) -> Invocation:
        """Each call has a session id of its own: claude refuses one that was used before."""
        argv = [self._program, "-p", "--output-format", "stream-json", "--verbose"]
        if request.model:
            argv += ["--model", request.model]
        argv += ["--permission-mode", "acceptEdits", "--allowedTools", _ALLOWED_TOOLS]
        argv += ["--settings", _SETTINGS, "--strict-mcp-config", "--session-id", str(uuid.uuid4()), *self._limits]
        # A prompt that starts with a slash is taken as a local command and reports success without a request (RT-1).
        prompt = f"Task:\n{request.prompt}" if request.prompt.lstrip().startswith("/") else request.prompt
        return Invocation(argv=tuple(argv), env=_ENVIRONMENT, stdin=prompt.encode("utf-8", "replace"))

    def reader(self) -> ClaudeReader:
        return ClaudeReader(now=self._now)


class ClaudeReader:
    """The last `result` event is the outcome, whatever the exit code; without one the attempt did not finish."""

    def __init__(self, *, now: Callable[[], datetime] = _utc_now) -> None:
        self._now = now
        self._lines = LineSplitter()
        self._plain = Tail(max_bytes=4096)
        """What is printed outside events: messages of a CLI that could not start."""
        self._has_events = False
        self._model: str | None = None
        self._denied: list[str] = []
        self._limit: Event = {}
        """The newest `rate_limit_info`."""
        self._api_error: Event = {}
        """The newest `assistant` event that stands for a failed request."""
        self._result: Event | None = None

    def feed(self, data: bytes) -> None:
        for line in self._lines.feed(data):
            self._read(line)

    @property
    def is_final(self) -> bool:
        return self._result is not None

    def report(self, *, ending: Ending, exit_code: int | None, stderr_tail: bytes) -> AgentReport:
        if (rest := self._lines.flush()) is not None:
            self._read(rest)
        if self._result is None:
            return self._unfinished(ending=ending, exit_code=exit_code, stderr=stderr_tail.decode("utf-8", "replace"))
        result = self._result
        failure = self._failure(result, ending)
        text = encodable(_text(result.get("result")))
        return AgentReport(
            failure=failure,
            message=_message(result, text) if failure else "",
            final_text="" if result.get("is_error") else text[-MAX_FINAL_TEXT:],
            usage=_usage(result.get("modelUsage")),
            cost_usd=_cost(result.get("total_cost_usd")),
            model=self._model_of(result),
            denials=_denials(result.get("permission_denials")) or tuple(self._denied),
            reset_at=self._reset_at(text) if failure in ("rate_limit", "usage_limit") else None,
        )

    def _read(self, line: bytes) -> None:
        try:
            value: Any = json.loads(line.decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            self._has_events |= line.startswith(b"{")  # a torn event: it had started, whatever the rest was
            self._plain.feed(line + b"\n")
            return
        self._has_events = True
        self._take(cast("Event", value))

    def _take(self, event: Event) -> None:
        match event.get("type"):
            case "result":
                self._result = event
            case "system" if event.get("subtype") == "init":
                self._model = _text(event.get("model")) or self._model
            case "system" if event.get("subtype") == "permission_denied":
                self._denied.append(encodable(_text(event.get("tool_name")) or "unknown"))
            case "rate_limit_event":
                self._limit = _mapping(event.get("rate_limit_info")) or self._limit
            case "assistant" if "error" in event:
                self._api_error = event
            case _:
                pass

    def _failure(self, result: Event, ending: Ending) -> FailureClass | None:
        """The order matters: `subtype` says success in an API error, and one status has several classes (RT-23)."""
        subtype = _text(result.get("subtype"))
        text = _text(result.get("result"))
        if subtype.startswith("error"):
            return self._failed_execution(result, subtype, ending)
        if result.get("is_error") is False:
            is_empty = not text.strip() or result.get("num_turns") == 0
            return "empty" if is_empty else None
        if result.get("stop_reason") == "refusal":
            return "refusal"
        status = result.get("api_error_status")
        if self._is_usage_limit(text, status):
            return "usage_limit"
        if (reason := _text(result.get("terminal_reason"))) in _TERMINAL_REASONS:
            return _TERMINAL_REASONS[reason]
        if isinstance(status, int):
            return _failure_of_status(status, text)
        if self._api_error.get("error") == "authentication_failed":
            return "auth"
        if self._api_error.get("api_error") == "connection_failed":
            return "network"
        return _failure_of_text(text)

    @staticmethod
    def _failed_execution(result: Event, subtype: str, ending: Ending) -> FailureClass:
        if subtype != "error_during_execution":
            return _SUBTYPES.get(subtype, "unknown")
        if any(error.startswith("No conversation found") for error in _texts(result.get("errors"))[:1]):
            return "session"
        return FAILURE_OF_ENDING.get(ending, "unknown")

    def _is_usage_limit(self, text: str, status: object) -> bool:
        # A rejected window can be stale: with extra usage allowed the work went on, and something else failed later.
        if status not in (429, None):
            return False
        said = self._api_error.get("api_error") == "usage_limit_reached" or _LIMIT_TEXT.search(text) is not None
        return said or self._limit.get("status") == "rejected"

    def _unfinished(self, *, ending: Ending, exit_code: int | None, stderr: str) -> AgentReport:
        said = f"{self._plain.text}\n{stderr}"
        if self._lines.dropped:
            said += f"\n(lines too long to be read: {self._lines.dropped})"
        return AgentReport(
            failure=self._unfinished_class(ending, exit_code, said),
            message=evidence(said, keep="end") or f"it ended with exit code {exit_code} and without a final event",
            model=None if self._model is None else encodable(self._model),
            denials=tuple(self._denied),
        )

    def _unfinished_class(self, ending: Ending, exit_code: int | None, said: str) -> FailureClass:
        if ending != "exited":
            return FAILURE_OF_ENDING[ending]
        if exit_code is None:
            return "spawn_error"
        if exit_code < 0 or exit_code > 128:
            return "killed"
        if exit_code == 0 or self._has_events or self._lines.dropped or not said.strip():
            return "truncated"
        if "No conversation found" in said or re.search(r"Session ID \S+ is already in use", said):
            return "session"
        known = _failure_of_text(said)
        return "usage_error" if known == "unknown" else known

    def _model_of(self, result: Event) -> str | None:
        """The one that was paid for, when it was one: with a fallback model the first event names another."""
        paid = [name for name in _mapping(result.get("modelUsage")) if name]
        model = paid[0] if len(paid) == 1 else self._model
        return None if model is None else encodable(model)

    def _reset_at(self, text: str) -> datetime | None:
        limits = (self._limit, _mapping(_mapping(self._api_error.get("api_error_params")).get("rate_limit_info")))
        epochs = [limit.get("resetsAt") for limit in limits if limit.get("status") == "rejected"]
        return reset_time(epochs=epochs, text=text, now=self._now())


def _message(result: Event, text: str) -> str:
    said = evidence(text) or evidence("; ".join(_texts(result.get("errors"))))
    return said or "its final event holds no text"


def _failure_of_status(status: int, text: str) -> FailureClass:
    if status in _STATUSES:
        return _STATUSES[status]
    if status >= 500:
        return "server_error"
    return "credit" if status == 400 and "Credit balance" in text else "bad_request"


def _failure_of_text(text: str) -> FailureClass:
    plain = text.casefold().replace("’", "'")
    for part, failure in _TEXTS:
        if part in plain:
            return failure
    return "unknown"


def _usage(value: object) -> Usage | None:
    """The sum over all models; `usage` beside it is of the last turn only, and zero after a budget stop (RT-17)."""
    if not isinstance(value, dict):
        return None
    total = Usage()
    for model in cast("dict[str, object]", value).values():
        counts = _mapping(model)
        known = [number for name in _COUNTS if (number := _count(counts.get(name))) is not None]
        if len(known) != len(_COUNTS):
            return None
        total += Usage(*known)
    return total


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63 else None


def _cost(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value < 1e12 and math.isfinite(value) else None


def _denials(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        return ()
    named = [_text(_mapping(denial).get("tool_name")) for denial in cast("list[object]", value)]
    return tuple(encodable(name or "unknown") for name in named)


def _mapping(value: object) -> Event:
    return cast("Event", value) if isinstance(value, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _texts(value: object) -> tuple[str, ...]:
    return tuple(_text(item) for item in cast("list[object]", value)) if isinstance(value, list) else ()
