"""The `opencode` CLI: `opencode run --format json`, and what its events mean (reference/runtimes.md)."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, cast

from hew_loop.core.iteration import AgentReport, FailureClass, Usage
from hew_loop.runtimes.base import AgentRequest, Ending, Invocation, Purpose
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
from hew_loop.runtimes.reset_time import reset_time

RECORDED_VERSIONS: Final = ((1, 18, 33), (1, 18, 33))
"""The oldest and the newest one whose output this adapter was built on."""
CONFIG_VARIABLE: Final = "OPENCODE_CONFIG_CONTENT"

_ENVIRONMENT: Final = (
    ("OPENCODE_DISABLE_MODELS_FETCH", "1"),
    ("OPENCODE_DISABLE_AUTOUPDATE", "1"),
    ("OPENCODE_DISABLE_LSP_DOWNLOAD", "1"),
    ("OPENCODE_DISABLE_DEFAULT_PLUGINS", "1"),
    # The project's plugins, tools and MCP servers (RT-9); with them go its instructions, which are named below instead.
    ("OPENCODE_DISABLE_PROJECT_CONFIG", "1"),
)
_INSTRUCTIONS: Final = ("AGENTS.md", "CLAUDE.md", "CONTEXT.md")
"""The first that is there counts, as for itself."""
# With `ask` everything is refused: nobody is there to be asked.
_CONFIG: Final = {"autoupdate": False, "share": "disabled"}
_PERMISSIONS: Final[dict[Purpose, dict[str, str]]] = {
    "task": {"edit": "allow", "bash": "allow", "webfetch": "deny"},
    "plan": {"edit": "deny", "bash": "deny", "webfetch": "deny"},
}
_REASONS: Final[dict[str, FailureClass]] = {"length": "incomplete", "content-filter": "refusal"}
_NAMES: Final[dict[str, FailureClass]] = {"ProviderAuthError": "auth", "MessageOutputLengthError": "incomplete"}
_REFUSED: Final = "this specific tool call"
"""In both texts of a refusal, by a rule and for want of an answer; a tool that merely failed has another (RT-15)."""


class OpencodeRuntime:
    """`program` is `$HEW_LOOP_OPENCODE_BIN`, else `opencode` on PATH, unless given."""

    name = "opencode"
    fenced_answers = True
    own_files: tuple[str, ...] = ()

    def __init__(self, *, program: str | None = None, now: Callable[[], datetime] = utc_now) -> None:
        self._program = program or program_of(self.name)
        self._config = {**_users_config(), **_CONFIG}
        self._now = now

    def invocation(self, request: AgentRequest) -> Invocation:
        """The configuration goes by the environment: the user's files stay as they are, and the logins in force."""
        argv = [self._program, "run", "--format", "json"]
        if request.model:
            argv += ["--model", request.model]
        config = {**self._config, "permission": _PERMISSIONS[request.purpose]}
        paths = (request.worktree / name for name in _INSTRUCTIONS)
        if (own := next((path for path in paths if path.is_file()), None)) is not None:
            given = self._config.get("instructions")
            config["instructions"] = [*(cast("list[object]", given) if isinstance(given, list) else []), str(own)]
        env = ((CONFIG_VARIABLE, json.dumps(config)), *_ENVIRONMENT)
        return Invocation(argv=tuple(argv), env=env, stdin=stdin_prompt(request.prompt))

    def reader(self) -> OpencodeReader:
        return OpencodeReader(now=self._now)


class OpencodeReader(EventReader):
    """Success is a last `step_finish` with the reason `stop` and exit code 0; a step or an error after it undoes it."""

    def __init__(self, *, now: Callable[[], datetime] = utc_now) -> None:
        super().__init__()
        self._now = now
        self._message = ""
        self._text = ""
        self._denied: list[str] = []
        self._usage: Usage | None = Usage()
        self._cost: float | None = 0.0
        self._has_steps = False
        self._end: Event | None = None
        """The last `step_finish` or `error`, unless a step has begun since."""

    @property
    def is_final(self) -> bool:
        return self._end is not None and _reason(self._end) == "stop"

    def report(self, *, ending: Ending, exit_code: int | None, stderr_tail: bytes) -> AgentReport:
        self._flush()
        failure, message = self._outcome(ending, exit_code, stderr_tail)
        is_answer = failure in (None, "empty")
        reset_at, reset_from = self._reset() if failure == "rate_limit" else (None, "")
        return AgentReport(
            failure=failure,
            message=message,
            final_text=encodable(self._text)[-MAX_FINAL_TEXT:] if is_answer else "",
            usage=self._usage if self._has_steps else None,
            # Nothing is what it counts for a model whose price it does not know.
            cost_usd=self._cost or None,
            denials=tuple(self._denied),
            reset_at=reset_at,
            reset_from=reset_from,
        )

    def _outcome(self, ending: Ending, exit_code: int | None, stderr: bytes) -> tuple[FailureClass | None, str]:
        end = self._end or {}
        if end.get("type") == "error":
            return _failure_of_error(mapping(end.get("error")), ending)
        reason = _reason(end)
        if reason == "stop" and (exit_code is None or exit_code <= 0):
            return (None, "") if self._text.strip() else ("empty", "its last message holds no text")
        if reason == "stop":
            said = evidence(stderr.decode("utf-8", "replace"), keep="end")
            return "unknown", evidence(f"it came to its end, and ended with exit code {exit_code}\n{said}")
        if reason in _REASONS:
            return _REASONS[reason], f"its last step ended with the reason {reason}"
        if reason == "tool-calls" and self._denied and ending == "exited" and exit_code == 0:
            return "permission_denied", f"refused tools: {', '.join(sorted(set(self._denied)))}"[:2000]
        return self._stream.unfinished(
            ending=ending, exit_code=exit_code, stderr_tail=stderr, failure_of=lambda said: None
        )

    def _take(self, event: Event) -> None:
        part = mapping(event.get("part"))
        match event.get("type"):
            case "step_start":
                self._end = None
            case "text":
                self._say(text_of(part.get("messageID")), text_of(part.get("text")))
            case "tool_use":
                state = mapping(part.get("state"))
                if state.get("status") == "error" and _REFUSED in text_of(state.get("error")):
                    self._denied.append(encodable(text_of(part.get("tool")) or "unknown"))
            case "step_finish":
                self._end = event
                self._count(part)
            case "error":
                self._end = event
            case _:
                pass

    def _say(self, message: str, text: str) -> None:
        joined = f"{self._text}\n{text}" if message and message == self._message else text
        self._message, self._text = message, joined[-MAX_FINAL_TEXT:]

    def _count(self, part: Event) -> None:
        """Each step tells of its own; one that does not makes the sum unknown."""
        self._has_steps = True
        step, cost = _usage(mapping(part.get("tokens"))), cost_of(part.get("cost"))
        self._usage = None if self._usage is None or step is None else self._usage + step
        self._cost = None if self._cost is None or cost is None else self._cost + cost

    def _reset(self) -> tuple[datetime | None, str]:
        """By the `retry-after` header of the last answer: seconds, or a date."""
        error = mapping((self._end or {}).get("error"))
        given = text_of(mapping(mapping(error.get("data")).get("responseHeaders")).get("retry-after"))
        now = self._now()
        try:
            at = now.timestamp() + float(given)
        except ValueError:
            try:
                at = parsedate_to_datetime(given).timestamp()
            except (ValueError, TypeError, OverflowError):
                return None, ""
        return reset_time([("retry-after", at)], now=now)


def _failure_of_error(error: Event, ending: Ending) -> tuple[FailureClass, str]:
    name, data = text_of(error.get("name")), mapping(error.get("data"))
    said = text_of(data.get("message"))
    status = count_of(data.get("statusCode"))
    if status is not None:
        failure = failure_of_status(status)
    elif said.startswith("Cannot connect to API"):
        failure = "network"
    else:
        failure = _NAMES.get(name) or FAILURE_OF_ENDING.get(ending, "unknown")
    return failure, evidence(f"{name}: {said}") if name or said else "its error event holds no text"


def _reason(end: Event) -> str:
    return text_of(mapping(end.get("part")).get("reason")) if end.get("type") == "step_finish" else ""


def _usage(tokens: Event) -> Usage | None:
    cache = mapping(tokens.get("cache"))
    counts = [count_of(tokens.get("input")), count_of(tokens.get("output"))]
    counts += [count_of(cache.get("read")), count_of(cache.get("write"))]
    known = [count for count in counts if count is not None]
    if len(known) != len(counts):
        return None
    usage = Usage(*known)
    # What a model thought stands in `total`, and not always in `output`.
    total = count_of(tokens.get("total")) or 0
    return usage + Usage(output=max(total - usage.total, 0))


def _users_config() -> dict[str, Any]:
    """What the user gives by the same variable, such as a provider of theirs: kept, below our settings."""
    try:
        value: Any = json.loads(os.environ.get(CONFIG_VARIABLE) or "{}")
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}
