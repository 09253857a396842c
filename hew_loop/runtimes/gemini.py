"""The `gemini` CLI: headless with `stream-json`, and what its events mean (reference/runtimes.md)."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from hew_loop.core.iteration import AgentReport, FailureClass, Usage
from hew_loop.runtimes.base import AgentRequest, Ending, Invocation
from hew_loop.runtimes.events import (
    STATUSES,
    Event,
    EventReader,
    count_of,
    failure_of_status,
    mapping,
    program_of,
    stdin_prompt,
    text_of,
)
from hew_loop.runtimes.lines import FAILURE_OF_ENDING, MAX_FINAL_TEXT, encodable, evidence

RECORDED_VERSIONS: Final = ((0, 61, 0), (0, 61, 0))
"""The oldest and the newest one whose output this adapter was built on."""

# A fresh worktree is one that nobody has trusted, and there it refuses to work unasked. Trusted, it would run the
# project's hooks, tool commands and MCP servers (RT-9); only settings of the system can forbid the first two.
_ENVIRONMENT: Final = (("GEMINI_CLI_TRUST_WORKSPACE", "true"),)
SYSTEM_SETTINGS: Final = "GEMINI_CLI_SYSTEM_SETTINGS_PATH"
_OUR_SETTINGS: Final = Path(__file__).with_name("gemini_settings.json")
_PLACES_OF_SETTINGS: Final = ("/etc/gemini-cli/settings.json", "/Library/Application Support/GeminiCli/settings.json")

_NO_SIGN_IN: Final = 41
# It exits with an HTTP status modulo 256.
_EXITS: Final[dict[int, FailureClass]] = {status % 256: failure for status, failure in STATUSES.items()}
_STATUS_IN_TEXT: Final = re.compile(r'\\?"code\\?": ?(\d{3})\b')
_STATUS_IN_DUMP: Final = re.compile(r"^  (?:code|status): (\d{3}),?\n\}\s*\Z", re.MULTILINE)
_TEXTS: Final[tuple[tuple[str, FailureClass], ...]] = (
    ("[API Error: terminated", "bad_response"),
    ("rate limit", "rate_limit"),
    ("fetch failed", "network"),
)
_REFUSALS: Final = ("tool_not_registered", "policy_violation")
"""Without `yolo` the tools that write do not exist; any other error of a tool is the agent's own (RT-15)."""


class GeminiRuntime:
    """`program` is `$HEW_LOOP_GEMINI_BIN`, else `gemini` on PATH, unless given.

    Settings of the system that somebody made for this machine stay in force instead of ours.
    """

    name = "gemini"
    fenced_answers = True
    own_files: tuple[str, ...] = ()

    def __init__(self, *, program: str | None = None) -> None:
        self._program = program or program_of(self.name)
        made = (path for path in _PLACES_OF_SETTINGS if Path(path).exists())
        self._settings = os.environ.get(SYSTEM_SETTINGS) or next(made, str(_OUR_SETTINGS))

    def invocation(self, request: AgentRequest) -> Invocation:
        argv = [self._program]
        if request.model:
            argv += ["-m", request.model]
        # Without `yolo` the tools that write or run anything do not exist.
        argv += ["--approval-mode", "default" if request.purpose == "plan" else "yolo"]
        argv += ["--output-format", "stream-json", "--allowed-mcp-server-names", "none-of-them"]
        env = (*_ENVIRONMENT, (SYSTEM_SETTINGS, self._settings))
        return Invocation(argv=tuple(argv), env=env, stdin=stdin_prompt(request.prompt))

    def reader(self) -> GeminiReader:
        return GeminiReader()


class GeminiReader(EventReader):
    """The last `result` event is the outcome, by its `status`; its exit code tells which error it was."""

    def __init__(self) -> None:
        super().__init__()
        self._model: str | None = None
        self._text = ""
        self._is_speaking = False
        """The next piece of text goes on with the message, and does not begin another."""
        self._has_worked = False
        self._tools: dict[str, str] = {}
        """Names of the tools that are at work, by the id of the call."""
        self._denied: list[str] = []
        self._result: Event | None = None

    @property
    def is_final(self) -> bool:
        return self._result is not None

    def report(self, *, ending: Ending, exit_code: int | None, stderr_tail: bytes) -> AgentReport:
        self._flush()
        stderr = stderr_tail.decode("utf-8", "replace")
        failure, message = self._outcome(ending, exit_code, stderr)
        stats = mapping((self._result or {}).get("stats"))
        return AgentReport(
            failure=failure,
            message=message,
            final_text=encodable(self._text) if failure in (None, "empty") else "",
            usage=self._usage(stats),
            model=self._model_of(stats),
            denials=tuple(self._denied),
        )

    def _outcome(self, ending: Ending, exit_code: int | None, stderr: str) -> tuple[FailureClass | None, str]:
        if self._result is None:
            failure, message = self._stream.unfinished(
                ending=ending, exit_code=exit_code, stderr_tail=stderr.encode(), failure_of=lambda said: None
            )
            known = _failure_of_exit(exit_code) if ending == "exited" else None
            return known or failure, message
        if self._result.get("status") == "success":
            return (None, "") if self._text.strip() else ("empty", "its last message holds no text")
        said = text_of(mapping(self._result.get("error")).get("message"))
        failure = _failure_of_error(said, exit_code if ending == "exited" else None, stderr)
        return failure or FAILURE_OF_ENDING.get(ending, "unknown"), evidence(said) or "its final event holds no text"

    def _take(self, event: Event) -> None:
        match event.get("type"):
            case "init":
                self._model = text_of(event.get("model")) or self._model
            case "message" if event.get("role") == "assistant":
                self._say(text_of(event.get("content")), goes_on=event.get("delta") is True)
            case "tool_use":
                self._is_speaking = False
                self._has_worked = True
                self._tools[text_of(event.get("tool_id"))] = text_of(event.get("tool_name"))
            case "tool_result":
                name = self._tools.pop(text_of(event.get("tool_id")), "")
                if event.get("status") == "error" and mapping(event.get("error")).get("type") in _REFUSALS:
                    self._denied.append(encodable(name or "unknown"))
            case "result":
                self._result = event
            case _:
                pass

    def _say(self, text: str, *, goes_on: bool) -> None:
        joined = self._text + text if goes_on and self._is_speaking else text
        self._text, self._is_speaking, self._has_worked = joined[-MAX_FINAL_TEXT:], True, True

    def _usage(self, stats: Event) -> Usage | None:
        names = ("total_tokens", "input_tokens", "output_tokens", "cached")
        total, sent, output, cached = (count_of(stats.get(name)) for name in names)
        if total is None or sent is None or output is None or cached is None or cached > sent:
            return None
        if total == 0 and self._has_worked:
            return None  # an error loses the count of what had been done before it
        # What a model thought stands in the total alone.
        return Usage(input=sent - cached, output=max(output, total - sent), cache_read=cached)

    def _model_of(self, stats: Event) -> str | None:
        """The one that was used, when it was one: the first event names what was asked for."""
        used = [name for name in mapping(stats.get("models")) if name]
        model = used[0] if len(used) == 1 else self._model
        return None if model is None else encodable(model)


def _failure_of_error(said: str, exit_code: int | None, stderr: str) -> FailureClass | None:
    """By the status in the text, else the exit code, else the words, else the status that ends the dump on stderr."""
    if (status := _STATUS_IN_TEXT.search(said)) is not None:
        return failure_of_status(int(status[1]))
    if (failure := _failure_of_exit(exit_code)) is not None:
        return failure
    for part, failure in _TEXTS:
        if part in said:
            return failure
    # A model that is not known: exit code 1 and the server's own words.
    dumped = _STATUS_IN_DUMP.search(stderr)
    return None if dumped is None else failure_of_status(int(dumped[1]))


def _failure_of_exit(exit_code: int | None) -> FailureClass | None:
    if exit_code is None:
        return None
    return "auth" if exit_code == _NO_SIGN_IN else _EXITS.get(exit_code)
