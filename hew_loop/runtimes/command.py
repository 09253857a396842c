"""Any program as an agent: the argv of a `[runtime.NAME]` table, and an exit code for an outcome."""

from __future__ import annotations

import os
import re
from typing import Final

from hew_loop.core.iteration import AgentReport, FailureClass
from hew_loop.core.policy import RuntimeSettings
from hew_loop.errors import UsageError
from hew_loop.runtimes.base import AgentRequest, Ending, Invocation, OutputReader
from hew_loop.runtimes.lines import FAILURE_OF_ENDING, MAX_FINAL_TEXT, Tail, evidence

TRY_LATER: Final = 75
MAX_ARG_PROMPT_BYTES: Final = 100_000
PLACEHOLDERS: Final = ("task_id", "model", "prompt_file", "worktree", "prompt")

_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


class CommandRuntime:
    """Raises UsageError at once for a command that could never be started as it is written."""

    fenced_answers = True
    own_files: tuple[str, ...] = ()

    def __init__(self, settings: RuntimeSettings) -> None:
        self.name = settings.name
        self._settings = settings
        used = _placeholders(settings)
        if "prompt" in used and settings.prompt != "arg":
            raise UsageError(
                f"[runtime.{self.name}] uses {{prompt}}, but its prompt goes by {settings.prompt}",
                hint='set prompt = "arg", or use {prompt_file}',
            )
        self._appends_prompt = settings.prompt == "arg" and "prompt" not in used

    def invocation(self, request: AgentRequest) -> Invocation:
        """With `prompt = "arg"` and no `{prompt}` the prompt is the last argument. A model that is not set is empty.

        Raises UsageError for a prompt that is too long to be an argument.
        """
        by_arg = self._settings.prompt == "arg"
        if by_arg and (size := len(request.prompt.encode("utf-8", "replace"))) > MAX_ARG_PROMPT_BYTES:
            raise UsageError(
                f"the prompt of {request.task} has {size:,} bytes; [runtime.{self.name}] passes it as an argument, "
                f"which takes at most {MAX_ARG_PROMPT_BYTES:,}",
                hint='set prompt = "stdin" or prompt = "file" for this runtime',
            )
        values = {
            "task_id": "planner" if request.purpose == "plan" else request.task,
            "model": request.model or "",
            "prompt_file": str(request.prompt_file),
            "worktree": str(request.worktree),
            "prompt": request.prompt,
        }
        argv = [_fill(element, values) for element in self._settings.command]
        if self._appends_prompt:
            argv.append(request.prompt)
        stdin = request.prompt.encode("utf-8", "replace") if self._settings.prompt == "stdin" else b""
        return Invocation(argv=tuple(_as_argument(element) for element in argv), stdin=stdin)

    def reader(self) -> CommandReader:
        return CommandReader(success=self._settings.success)


class CommandReader(OutputReader):
    """Keeps the last MiB of what the program prints; only its exit code says how it ended."""

    def __init__(self, *, success: tuple[int, ...] = (0,)) -> None:
        self._success = success
        self._tail = Tail(max_bytes=MAX_FINAL_TEXT)

    def feed(self, data: bytes) -> None:
        self._tail.feed(data)

    def report(self, *, ending: Ending, exit_code: int | None, stderr_tail: bytes) -> AgentReport:
        text = self._tail.text
        failure = self._failure(ending, exit_code)
        if failure is None:
            return AgentReport(final_text=text)
        said = f"{text}\n{stderr_tail.decode('utf-8', 'replace')}"
        return AgentReport(
            failure=failure,
            message=evidence(said, keep="end") or f"exit code {exit_code}, and it printed nothing",
            final_text=text,
        )

    def _failure(self, ending: Ending, exit_code: int | None) -> FailureClass | None:
        if ending != "exited":
            return FAILURE_OF_ENDING[ending]
        if exit_code is None:
            return "spawn_error"
        if exit_code in self._success:
            return None
        if exit_code < 0:
            return "killed"
        return "rate_limit" if exit_code == TRY_LATER else "agent_failed"


def _placeholders(settings: RuntimeSettings) -> frozenset[str]:
    """The names in use; raises UsageError for an empty command, an unknown name or a lone brace."""
    if not settings.command or not settings.command[0]:
        raise UsageError(
            f"[runtime.{settings.name}] has no command",
            hint='give it one as a list: command = ["my-agent", "--task", "{task_id}"]',
        )
    used: set[str] = set()
    for element in settings.command:
        for token in _TOKEN.finditer(element):
            name = token[1]
            if token[0] in ("{{", "}}"):
                continue
            if name not in PLACEHOLDERS:
                known = ", ".join(f"{{{known}}}" for known in PLACEHOLDERS)
                raise UsageError(
                    f"[runtime.{settings.name}] has {token[0]} in {element!r}, which is no placeholder",
                    hint=f"known are {known}; a brace that is meant as it stands is written twice: {{{{ and }}}}",
                )
            used.add(name)
    return frozenset(used)


def _fill(element: str, values: dict[str, str]) -> str:
    """One pass, so that braces inside a value stay what they are."""
    return _TOKEN.sub(lambda token: values[token[1]] if token[1] else token[0][0], element)


def _as_argument(text: str) -> str:
    """What the operating system takes: no NUL (a task id may hold one), and bytes that can be made of it."""
    plain = text.replace("\0", "")
    try:
        os.fsencode(plain)
    except UnicodeEncodeError:
        return plain.encode("utf-8", "replace").decode("utf-8")
    return plain
