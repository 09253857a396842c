"""The `codex` CLI: `codex exec --json` in its own sandbox, and what its events mean (reference/runtimes.md)."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable
from datetime import UTC, datetime, tzinfo
from fnmatch import fnmatchcase
from typing import Final

from hew_loop.core.iteration import AgentReport, FailureClass, Usage
from hew_loop.errors import UsageError
from hew_loop.runtimes.base import AgentRequest, Ending, Invocation
from hew_loop.runtimes.events import (
    Event,
    EventReader,
    count_of,
    failure_of_status,
    mapping,
    program_of,
    stdin_prompt,
    text_of,
    utc_now,
)
from hew_loop.runtimes.lines import FAILURE_OF_ENDING, MAX_FINAL_TEXT, encodable, evidence
from hew_loop.runtimes.reset_time import next_such, reset_time

RECORDED_VERSIONS: Final = ((0, 169, 0), (0, 169, 0))
"""The oldest and the newest one whose output this adapter was built on."""

# Without the first one a lost network is waited for without end; an analytics host that cannot be reached costs 5 s at
# the end of every run; with a session file kept, each run leaves one in the user's CODEX_HOME.
_SETTINGS: Final = (
    "--disable", "unbounded_connection_retries", "--disable", "plugins", "--disable", "remote_plugin",
    "--disable", "apps", "--ephemeral", "-c", "analytics.enabled=false", "-c", "check_for_update_on_startup=false",
    "-c", "features.shell_snapshot=false",
)  # fmt: skip
_NEEDED: Final = ("HEW_MARK", "HEW_RUN_ID", "HEW_ITER")

_STATUS: Final = re.compile(r"(?:unexpected status|exceeded retry limit, last status:) (\d{3})\b")
# Anchored at the start, where words of the server may follow; the model's name comes in the server's own words.
_TEXTS: Final[tuple[tuple[re.Pattern[str], FailureClass], ...]] = (
    (re.compile(r"You've hit your usage limit"), "usage_limit"),
    (re.compile(r"Quota exceeded"), "credit"),
    (re.compile(r"rate limit exceeded", re.IGNORECASE), "rate_limit"),
    (re.compile(r"Missing environment variable"), "auth"),
    (re.compile(r"Selected model is at capacity"), "overloaded"),
    (re.compile(r"We're currently experiencing high demand"), "server_error"),
    (re.compile(r"Connection failed"), "network"),
    (re.compile(r"stream disconnected before completion: idle timeout"), "timeout"),
    (re.compile(r"stream disconnected before completion"), "bad_response"),
    (re.compile(r"Codex ran out of room in the model's context window"), "prompt_too_long"),
    (re.compile(r"Incomplete response returned, reason: content_filter"), "refusal"),
    (re.compile(r"Incomplete response returned"), "incomplete"),
    (re.compile(r"model: \S+$|The (?:requested )?model \S+ does not exist"), "model_not_found"),
    (re.compile(r"\{.*\"code\": ?\"model_not_found\"", re.DOTALL), "model_not_found"),
    (re.compile(r"\{.*\"code\": ?\"insufficient_quota\"", re.DOTALL), "credit"),
    (re.compile(r"\{.*\"type\": ?\"invalid_request_error\"", re.DOTALL), "bad_request"),
)
_STDERR: Final[tuple[tuple[str, FailureClass], ...]] = (
    ("Input exceeds the maximum length", "prompt_too_long"),
    ("no rollout found for thread id", "session"),
)
_AT: Final = re.compile(
    r"[Tt]ry again at (?:(?P<day>[A-Z][a-z]{2} \d{1,2})[a-z]{2}, (?P<year>\d{4}) )?(?P<time>\d{1,2}:\d{2} [AP]M)"
)
_IN: Final = re.compile(r"[Tt]ry again in ((?:[\d.]+ ?[a-z]+,? ?)+)")
_SPAN: Final = re.compile(r"(\d{1,6}(?:\.\d{1,6})?) ?(ms|[smhd]|(?:second|minute|hour|day)s?)(?![a-z])")
_SECONDS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


class CodexRuntime:
    """`program` is `$HEW_LOOP_CODEX_BIN`, else `codex` on PATH, unless given.

    `hide` are patterns of variables that codex keeps from the commands it runs, such as `*TOKEN*`. Raises UsageError
    for one that would hide an iteration's own mark: what a command leaves running could not be found any more (RT-35).
    `zone` is that of the times which codex prints without naming one: the program's own, unless given.
    """

    name = "codex"
    fenced_answers = True
    own_files: tuple[str, ...] = ()

    def __init__(
        self,
        *,
        program: str | None = None,
        hide: tuple[str, ...] = (),
        now: Callable[[], datetime] = utc_now,
        zone: tzinfo | None = None,
    ) -> None:
        for pattern in hide:
            if any(fnmatchcase(name, pattern.upper()) for name in _NEEDED):
                raise UsageError(
                    f"codex would hide {pattern!r} from its commands, and with it the mark of the iteration",
                    hint="name the variables to hide more exactly, such as *TOKEN*",
                )
        self._program = program or program_of(self.name)
        self._hide = ("-c", f"shell_environment_policy.exclude={json.dumps(hide)}") if hide else ()
        self._now = now
        self._zone = zone

    def invocation(self, request: AgentRequest) -> Invocation:
        """Without `git_dirs` it cannot commit, and says nothing of it: what it leaves in the tree is its work then."""
        argv = [self._program, "exec", "--json", "-C", str(request.worktree)]
        if request.model:
            argv += ["-m", request.model]
        if request.purpose == "plan":
            argv += ["-s", "read-only", "--skip-git-repo-check"]
        else:
            argv += ["-s", "workspace-write"]
            for directory in request.git_dirs:
                argv += ["--add-dir", str(directory)]
        argv += [*_SETTINGS, *self._hide, "-"]
        # SIGTERM would leave the command that it runs (RT-33).
        return Invocation(argv=tuple(argv), stdin=stdin_prompt(request.prompt), stop_signal=int(signal.SIGINT))

    def reader(self) -> CodexReader:
        return CodexReader(now=self._now, zone=self._zone)


class CodexReader(EventReader):
    """The last `turn.completed` or `turn.failed` is the outcome; success needs the first of them and exit code 0."""

    def __init__(self, *, now: Callable[[], datetime] = utc_now, zone: tzinfo | None = None) -> None:
        super().__init__(is_notice=_is_notice)
        self._now = now
        self._zone = zone
        self._text = ""
        self._end: Event | None = None

    @property
    def is_final(self) -> bool:
        return self._end is not None

    @property
    def is_limited(self) -> bool:
        return failure_of_message(self._notice.partition("(")[2]) == "rate_limit"

    @property
    def _notice(self) -> str:
        return text_of(mapping(self._stream.notice).get("message"))

    def report(self, *, ending: Ending, exit_code: int | None, stderr_tail: bytes) -> AgentReport:
        self._flush()
        if self._end is None:
            failure, message = self._stream.unfinished(
                ending=ending, exit_code=exit_code, stderr_tail=stderr_tail, failure_of=_failure_of_stderr
            )
            # It waits as long as the server tells it to, be it for hours: that is a limit, and not the task's fault.
            if failure == "stalled" and self.is_limited:
                return AgentReport("rate_limit", evidence(self._notice))
            return AgentReport(failure=failure, message=message)
        if self._end.get("type") == "turn.failed":
            return self._failed(text_of(mapping(self._end.get("error")).get("message")), ending)
        usage = _usage(mapping(self._end.get("usage")))
        if exit_code is not None and exit_code > 0:
            said = evidence(stderr_tail.decode("utf-8", "replace"), keep="end")
            message = f"it completed its turn, and ended with exit code {exit_code}\n{said}".strip()
            return AgentReport(failure="unknown", message=evidence(message), usage=usage)
        if not self._text.strip():
            return AgentReport(failure="empty", message="its last message holds no text", usage=usage)
        return AgentReport(final_text=encodable(self._text)[-MAX_FINAL_TEXT:], usage=usage)

    def _take(self, event: Event) -> None:
        kind = event.get("type")
        if kind in ("turn.completed", "turn.failed"):
            self._end = event
        elif kind == "item.completed":
            item = mapping(event.get("item"))
            if item.get("type") == "agent_message":
                self._text = text_of(item.get("text"))

    def _failed(self, said: str, ending: Ending) -> AgentReport:
        """A failed turn names no usage: it is unknown, since the turn may have worked for hours before."""
        failure = failure_of_message(said) or FAILURE_OF_ENDING.get(ending, "unknown")
        reset_at, reset_from = self._reset(said) if failure in ("rate_limit", "usage_limit") else (None, "")
        return AgentReport(
            failure=failure,
            message=evidence(said) or "its final event holds no text",
            reset_at=reset_at,
            reset_from=reset_from,
        )

    def _reset(self, said: str) -> tuple[datetime | None, str]:
        now = self._now()
        if (wait := _IN.search(said)) is not None and (spans := _SPAN.findall(wait[1])):
            seconds = sum(float(number) * _SECONDS[unit if unit == "ms" else unit[0]] for number, unit in spans)
            return reset_time([("text", now.timestamp() + seconds)], now=now)
        try:
            return reset_time([("text", self._local_time(said, now))], now=now)
        except (ValueError, OverflowError, OSError):
            return None, ""  # no such day or hour

    def _local_time(self, said: str, now: datetime) -> datetime | None:
        """Of the day that it names, else the next such time."""
        found = _AT.search(said)
        if found is None:
            return None
        local = now.astimezone(self._zone).replace(tzinfo=None)
        if found["day"] is not None:
            at = datetime.strptime(f"{found['day']} {found['year']} {found['time']}", "%b %d %Y %I:%M %p")
        else:
            clock = datetime.strptime(found["time"], "%I:%M %p").time()
            at = next_such(datetime.combine(local.date(), clock), local)
        return (at.astimezone() if self._zone is None else at.replace(tzinfo=self._zone)).astimezone(UTC)


def _is_notice(event: Event) -> bool:
    return event.get("type") == "error" and text_of(event.get("message")).startswith("Reconnecting...")


def failure_of_message(said: str) -> FailureClass | None:
    """What the text of a failed turn means, where it is known; codex gives no code beside it."""
    plain = said.replace("’", "'")
    if (status := _STATUS.match(plain)) is not None:
        return failure_of_status(int(status[1]))
    return next((failure for pattern, failure in _TEXTS if pattern.match(plain)), None)


def _failure_of_stderr(said: str) -> FailureClass | None:
    return next((failure for part, failure in _STDERR if part in said), None)


def _usage(counts: Event) -> Usage | None:
    """Of the whole thread; `input_tokens` counts the cached ones in."""
    sent, cached, output = (
        count_of(counts.get(name)) for name in ("input_tokens", "cached_input_tokens", "output_tokens")
    )
    if sent is None or cached is None or output is None or cached > sent:
        return None
    return Usage(input=sent - cached, output=output, cache_read=cached)
