"""The `aider` CLI: one message from a file, and what its text means (reference/runtimes.md).

It has no events, and ends with exit code 0 after every API error. What stands for a final event is the line that counts
the tokens of an answer; an error that aider tells of after the last such line is the outcome.
"""

from __future__ import annotations

import os
import re
from typing import Final

from hew_loop.core.iteration import AgentReport, FailureClass, Usage
from hew_loop.runtimes.base import AgentRequest, Ending, Invocation, OutputReader, Purpose
from hew_loop.runtimes.events import cost_of, program_of
from hew_loop.runtimes.lines import FAILURE_OF_ENDING, MAX_FINAL_TEXT, Tail, evidence

RECORDED_VERSIONS: Final = ((0, 86, 2), (0, 86, 2))
"""The oldest and the newest one whose output this adapter was built on."""
_ENVIRONMENT: Final = (("AIDER_ANALYTICS", "false"), ("LITELLM_LOCAL_MODEL_COST_MAP", "True"))
# With a yes to everything, an address in the task's text makes it install a browser, system packages included. The last
# two lines are what a project's own configuration could have it run (RT-9).
_SETTINGS: Final = (
    "--yes-always", "--no-check-update", "--no-show-release-notes", "--no-show-model-warnings", "--no-analytics",
    "--no-pretty", "--no-stream", "--no-gitignore", "--no-detect-urls", "--disable-playwright",
    "--no-suggest-shell-commands", "--no-auto-lint", "--no-auto-test", "--no-notifications",
    "--load", os.devnull,
)  # fmt: skip
# `diff`: the `whole` format takes a fenced block of the answer for a file (RT-44). `ask` edits nothing, and without git
# it does not go and read the files that are named.
_FORMATS: Final[dict[Purpose, tuple[str, ...]]] = {
    "task": ("--edit-format", "diff"),
    "plan": ("--edit-format", "ask", "--dry-run", "--no-git", "--map-tokens", "0"),
}

_NUMBER: Final = r"(\d{1,9}(?:\.\d)?k?)"
_TOKENS: Final = re.compile(
    rf"^Tokens: {_NUMBER} sent(?:, {_NUMBER} cache write)?(?:, {_NUMBER} cache hit)?, {_NUMBER} received\."
    r"(?:\s+Cost: \$[\d.]+\s+message,\s+\$([\d.]+)\s+session\.)?",
    re.MULTILINE,
)
_ERROR: Final = re.compile(r"^litellm\.(\w+): |^The API provider.*", re.MULTILINE)
_NAMES: Final[dict[str, FailureClass]] = {
    "AuthenticationError": "auth",
    "BadGatewayError": "server_error",
    "RateLimitError": "rate_limit",
    "InternalServerError": "server_error",
    "ServiceUnavailableError": "overloaded",
    "APIConnectionError": "network",
    "Timeout": "timeout",
    "NotFoundError": "model_not_found",
    "BadRequestError": "bad_request",
    "ContextWindowExceededError": "prompt_too_long",
    "ContentPolicyViolationError": "refusal",
}
_SENTENCES: Final[tuple[tuple[str, FailureClass], ...]] = (
    ("is not able to authenticate you", "auth"),
    ("has rate limited you", "rate_limit"),
    ("are down or overloaded", "overloaded"),
    ("timed out", "timeout"),
    ("has refused the request", "refusal"),
)
_HEADER: Final = re.compile(r"^Aider v.*?\n[ \t]*\n", re.MULTILINE | re.DOTALL)


class AiderRuntime:
    """`program` is `$HEW_LOOP_AIDER_BIN`, else `aider` on PATH, unless given."""

    name = "aider"
    fenced_answers = False
    own_files: tuple[str, ...] = (".aider*",)

    def __init__(self, *, program: str | None = None) -> None:
        self._program = program or program_of(self.name)

    def invocation(self, request: AgentRequest) -> Invocation:
        """It takes no prompt on stdin; the file has to be there when it starts."""
        argv = [self._program]
        if request.model:
            argv += ["--model", request.model]
        argv += ["--message-file", str(request.prompt_file), *_SETTINGS, *_FORMATS[request.purpose]]
        return Invocation(argv=tuple(argv), env=_ENVIRONMENT)

    def reader(self) -> AiderReader:
        return AiderReader()


class AiderReader(OutputReader):
    """Success is exit code 0, an answer that was counted, and no error after it; a try that was repeated is none."""

    def __init__(self) -> None:
        self._tail = Tail(max_bytes=MAX_FINAL_TEXT)
        self._bytes = 0

    def feed(self, data: bytes) -> None:
        self._bytes += len(data)
        self._tail.feed(data)

    def report(self, *, ending: Ending, exit_code: int | None, stderr_tail: bytes) -> AgentReport:
        printed = self._tail.text.replace("\r\n", "\n")
        counted = list(_TOKENS.finditer(printed))
        answer = _answer(printed, counted)
        rest = printed[counted[-1].end() :] if counted else printed
        failure = self._failure(ending, exit_code, answer=answer, rest=rest)
        said = f"{rest}\n{stderr_tail.decode('utf-8', 'replace')}"
        is_whole = self._bytes <= MAX_FINAL_TEXT
        return AgentReport(
            failure=failure,
            message=_message(failure, said, exit_code) if failure else "",
            final_text=answer or "" if failure in (None, "empty") else "",
            usage=_usage(counted) if is_whole else None,
            cost_usd=_cost(counted),
        )

    @staticmethod
    def _failure(ending: Ending, exit_code: int | None, *, answer: str | None, rest: str) -> FailureClass | None:
        if ending != "exited":
            return FAILURE_OF_ENDING[ending]
        if exit_code is None:
            return "spawn_error"
        if exit_code < 0 or exit_code > 128:
            return "killed"
        if (failure := _failure_told(rest)) is not None:
            return failure
        if exit_code != 0:
            return "unknown" if "Aider v" in rest or answer is not None else "usage_error"
        if answer is None:
            return "truncated"
        return None if answer.strip() else "empty"


def _failure_told(rest: str) -> FailureClass | None:
    """The last error that it names; where the name says nothing, the sentence that explains it."""
    failure: FailureClass | None = None
    for error in _ERROR.finditer(rest):
        if error[1]:
            failure = _NAMES.get(error[1], "unknown")
        elif failure in (None, "unknown"):
            failure = _failure_of_sentence(error[0])
    return failure


def _failure_of_sentence(sentence: str) -> FailureClass:
    for part, failure in _SENTENCES:
        if part in sentence:
            return failure
    return "unknown"


def _answer(printed: str, counted: list[re.Match[str]]) -> str | None:
    """What stands before the last count, from the end of the one before or of aider's own header; None without one."""
    if not counted:
        return None
    if len(counted) > 1:
        return printed[counted[-2].end() : counted[-1].start()]
    before = printed[: counted[-1].start()]
    header = _HEADER.search(before)
    return before if header is None else before[header.end() :]


def _message(failure: FailureClass, said: str, exit_code: int | None) -> str:
    if failure == "empty":
        return "its last message holds no text"
    named = [error.start() for error in _ERROR.finditer(said) if error[1]]
    return (
        evidence(said[named[-1] :] if named else said, keep="end")
        or f"it ended with exit code {exit_code}, and printed nothing"
    )


def _usage(counted: list[re.Match[str]]) -> Usage | None:
    """The sum over all answers, as exact as aider shows it; what was cached is counted in `sent`."""
    if not counted:
        return None
    total = Usage()
    for line in counted:
        sent, written, hit, received = (_number(line[group] or "0") for group in range(1, 5))
        total += Usage(input=max(sent - written - hit, 0), output=received, cache_read=hit, cache_create=written)
    return total


def _cost(counted: list[re.Match[str]]) -> float | None:
    """Of the whole session, from the last count; None where aider knows no price."""
    given = counted[-1][5] if counted else None
    try:
        return None if given is None else cost_of(float(given))
    except ValueError:
        return None


def _number(shown: str) -> int:
    return round(float(shown[:-1]) * 1000) if shown.endswith("k") else round(float(shown))
