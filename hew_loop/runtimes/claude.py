"""The `claude` CLI: how to start it headless, and what its stream-json means (reference/runtimes.md)."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Final, cast

from hew_loop.core.iteration import AgentReport, FailureClass, Usage
from hew_loop.runtimes.base import AgentRequest, Ending, Invocation
from hew_loop.runtimes.events import (
    Event,
    EventReader,
    cost_of,
    count_of,
    failure_of_status,
    mapping,
    program_of,
    stdin_prompt,
    text_of,
    utc_now,
)
from hew_loop.runtimes.lines import FAILURE_OF_ENDING, MAX_FINAL_TEXT, encodable, evidence
from hew_loop.runtimes.reset_time import named_time, reset_time

PROGRAM_VARIABLE: Final = "HEW_LOOP_CLAUDE_BIN"
Version = tuple[int, int, int]
RECORDED_VERSIONS: Final[tuple[Version, Version]] = ((2, 1, 197), (2, 1, 329))
"""The oldest and the newest one whose output this adapter was built on."""

# Its own retries are turned down, so that a limit reaches the dispatcher in seconds and the slot is free (RT-27); a
# command over its time-out is ended, not moved to the background, where it would keep the process alive for as long.
# Its own snapshot of git's status would stand before the prompt: the subjects of other tasks' commits, new after each
# landing, so that no cache could hold what follows.
_ENVIRONMENT: Final = (
    ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
    ("DISABLE_AUTOUPDATER", "1"),
    ("CLAUDE_CODE_MAX_RETRIES", "3"),
    ("CLAUDE_CODE_DISABLE_BACKGROUND_TASKS", "1"),
    ("CLAUDE_CODE_DISABLE_GIT_INSTRUCTIONS", "1"),
    ("CLAUDE_BYTE_STREAM_IDLE_TIMEOUT_MS", "120000"),
    ("API_TIMEOUT_MS", "600000"),
)
_ALLOWED_TOOLS: Final = "Bash Edit Write Read Glob Grep"
_SETTINGS: Final = '{"disableAllHooks": true}'
# One tool, with which it may read nothing: a request without any is what a CLI sends for a title, and some servers take
# it for one. The short system prompt stands for one of 7,000 tokens about tools.
_PLAN: Final = (
    "--permission-mode", "dontAsk", "--tools", "Read", "--disallowedTools", "Read(//**)",
    "--max-turns", "4", "--system-prompt", "Answer from what you are told alone, in the form that is asked for.",
)  # fmt: skip

_SUBTYPES: Final[dict[str, FailureClass]] = {"error_max_turns": "max_turns", "error_max_budget_usd": "budget"}
_TERMINAL_REASONS: Final[dict[str, FailureClass]] = {
    "prompt_too_long": "prompt_too_long",
    "image_error": "prompt_too_long",
    "budget_exhausted": "budget",
    "max_turns": "max_turns",
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


class ClaudeRuntime:
    """`program` is `$HEW_LOOP_CLAUDE_BIN`, else `claude` on PATH, unless given."""

    name = "claude"
    fenced_answers = True
    own_files: tuple[str, ...] = ()

    def __init__(
        self,
        *,
        program: str | None = None,
        max_turns: int | None = None,
        max_budget_usd: float | None = None,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._program = program or program_of(self.name)
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
        argv += ["--settings", _SETTINGS, "--strict-mcp-config", "--session-id", str(uuid.uuid4())]
        if request.purpose == "plan":
            argv += _PLAN
        else:
            argv += ["--permission-mode", "acceptEdits", "--allowedTools", _ALLOWED_TOOLS, *self._limits]
        return Invocation(argv=tuple(argv), env=_ENVIRONMENT, stdin=stdin_prompt(request.prompt))

    def reader(self) -> ClaudeReader:
        return ClaudeReader(now=self._now)


class ClaudeReader(EventReader):
    """The last `result` event is the outcome, whatever the exit code; without one the attempt did not finish."""

    def __init__(self, *, now: Callable[[], datetime] = utc_now) -> None:
        super().__init__(is_notice=_is_notice)
        self._now = now
        self._model: str | None = None
        self._denied: list[str] = []
        self._limit: Event = {}
        """The newest `rate_limit_info`."""
        self._api_error: Event = {}
        """The newest `assistant` event that stands for a failed request."""
        self._result: Event | None = None

    @property
    def is_final(self) -> bool:
        return self._result is not None

    @property
    def is_limited(self) -> bool:
        return mapping(self._stream.notice).get("error_status") == 429

    def report(self, *, ending: Ending, exit_code: int | None, stderr_tail: bytes) -> AgentReport:
        self._flush()
        if self._result is None:
            return self._unfinished(ending=ending, exit_code=exit_code, stderr_tail=stderr_tail)
        result = self._result
        failure = self._failure(result, ending)
        text = encodable(text_of(result.get("result")))
        is_limit = failure in ("rate_limit", "usage_limit")
        reset_at, reset_from = self._reset(text) if is_limit else (None, "")
        return AgentReport(
            failure=failure,
            message=_message(result, text) if failure else "",
            final_text="" if result.get("is_error") else text[-MAX_FINAL_TEXT:],
            usage=_usage(result.get("modelUsage")),
            cost_usd=cost_of(result.get("total_cost_usd")),
            model=self._model_of(result),
            denials=_denials(result.get("permission_denials")) or tuple(self._denied),
            reset_at=reset_at,
            reset_from=reset_from,
        )

    def _take(self, event: Event) -> None:
        match event.get("type"):
            case "result":
                self._result = event
            case "system" if event.get("subtype") == "init":
                self._model = text_of(event.get("model")) or self._model
            case "system" if event.get("subtype") == "permission_denied":
                self._denied.append(encodable(text_of(event.get("tool_name")) or "unknown"))
            case "rate_limit_event":
                self._limit = mapping(event.get("rate_limit_info")) or self._limit
            case "assistant" if "error" in event:
                self._api_error = event
            case _:
                pass

    def _failure(self, result: Event, ending: Ending) -> FailureClass | None:
        """The order matters: `subtype` says success in an API error, and one status has several classes (RT-23)."""
        subtype = text_of(result.get("subtype"))
        text = text_of(result.get("result"))
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
        if (reason := text_of(result.get("terminal_reason"))) in _TERMINAL_REASONS:
            return _TERMINAL_REASONS[reason]
        if isinstance(status, int):
            return "credit" if status == 400 and "Credit balance" in text else failure_of_status(status)
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

    def _unfinished(self, *, ending: Ending, exit_code: int | None, stderr_tail: bytes) -> AgentReport:
        failure, message = self._stream.unfinished(
            ending=ending, exit_code=exit_code, stderr_tail=stderr_tail, failure_of=self._failure_to_start
        )
        if failure == "stalled" and self.is_limited:
            failure, message = "rate_limit", "it was still waiting for a limit (429) to end"
        return AgentReport(
            failure=failure,
            message=message,
            model=None if self._model is None else encodable(self._model),
            denials=tuple(self._denied),
        )

    def _failure_to_start(self, said: str) -> FailureClass | None:
        """Only of a CLI that printed no event: later the same words may be an agent's own."""
        if self._stream.has_events:
            return None
        if "No conversation found" in said or re.search(r"Session ID \S+ is already in use", said):
            return "session"
        known = _failure_of_text(said)
        return None if known == "unknown" else known

    def _model_of(self, result: Event) -> str | None:
        """The one that was paid for, when it was one: with a fallback model the first event names another."""
        paid = [name for name in mapping(result.get("modelUsage")) if name]
        model = paid[0] if len(paid) == 1 else self._model
        return None if model is None else encodable(model)

    def _reset(self, text: str) -> tuple[datetime | None, str]:
        now = self._now()
        params = mapping(self._api_error.get("api_error_params"))
        limits = (("rate_limit_event", self._limit), ("api_error_params", mapping(params.get("rate_limit_info"))))
        epochs = [(place, limit.get("resetsAt")) for place, limit in limits if limit.get("status") == "rejected"]
        return reset_time([*epochs, ("text", named_time(text, now))], now=now)


def _is_notice(event: Event) -> bool:
    return event.get("type") == "system" and event.get("subtype") == "api_retry"


def _message(result: Event, text: str) -> str:
    said = evidence(text) or evidence("; ".join(_texts(result.get("errors"))))
    return said or "its final event holds no text"


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
        counts = mapping(model)
        known = [number for name in _COUNTS if (number := count_of(counts.get(name))) is not None]
        if len(known) != len(_COUNTS):
            return None
        total += Usage(*known)
    return total


def _denials(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        return ()
    named = [text_of(mapping(denial).get("tool_name")) for denial in cast("list[object]", value)]
    return tuple(encodable(name or "unknown") for name in named)


def _texts(value: object) -> tuple[str, ...]:
    return tuple(text_of(item) for item in cast("list[object]", value)) if isinstance(value, list) else ()
