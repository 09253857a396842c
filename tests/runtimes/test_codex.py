from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hew_loop.core.iteration import AgentReport, Usage
from hew_loop.errors import UsageError
from hew_loop.runtimes.base import AgentRequest, Ending, Invocation
from hew_loop.runtimes.codex import CodexReader, CodexRuntime, failure_of_message
from tests.support.recorded import Case, case_of, cases, never_a_success_too_early

AGENT = "codex-0.169.0"
NOW = datetime(2026, 11, 21, 6, 0, tzinfo=UTC)


def reader(*, zone: str = "UTC", now: datetime = NOW) -> CodexReader:
    return CodexReader(now=lambda: now, zone=ZoneInfo(zone))


def read(
    *events: dict[str, Any], ending: Ending = "exited", exit_code: int | None = 0, stderr: bytes = b""
) -> AgentReport:
    codex = reader()
    codex.feed(b"".join(json.dumps(event).encode() + b"\n" for event in events))
    return codex.report(ending=ending, exit_code=exit_code, stderr_tail=stderr)


def said(text: str) -> dict[str, Any]:
    return {"type": "item.completed", "item": {"type": "agent_message", "text": text}}


def failed(message: str) -> dict[str, Any]:
    return {"type": "turn.failed", "error": {"message": message}}


COMPLETED = {"type": "turn.completed", "usage": {"input_tokens": 9, "cached_input_tokens": 4, "output_tokens": 2}}
USED = Usage(input=5, output=2, cache_read=4)


@pytest.mark.parametrize("case", cases(AGENT), ids=lambda case: case.name)
def test_a_recorded_run_has_the_class_of_the_index(case: Case) -> None:
    report = case.replay(reader())

    # plain text, which is never asked for: without a final event nothing is a success
    assert report.failure == ("truncated" if case.is_text else case.expected)
    assert (report.failure is None) == (report.message == "")
    assert len(report.message) <= 2000


@pytest.mark.parametrize("case", cases(AGENT), ids=lambda case: case.name)
def test_a_cut_stream_is_never_a_success_before_its_final_event(case: Case) -> None:
    never_a_success_too_early(reader, case, final=b'{"type":"turn.completed"')


def test_a_successful_run_is_reported_whole() -> None:
    assert case_of(AGENT, "recommended-worktree").replay(reader()) == AgentReport(
        final_text="Added a.txt and b.txt.\n\n```next_iteration\n"
        '{"status": "continue", "next": "write the tests"}\n```\n',
        usage=Usage(input=10933, output=106, cache_read=32065),
    )


def test_a_usage_limit_is_reported_whole() -> None:
    assert case_of(AGENT, "usage-limit-429").replay(reader()) == AgentReport(
        failure="usage_limit",
        message="You’ve hit your usage limit. Upgrade to Pro (https://chatgpt.com/explore/pro), visit "
        "https://chatgpt.com/settings/usage to purchase more credits or try again at 6:35 AM.",
        reset_at=datetime(2026, 11, 21, 6, 36, tzinfo=UTC),
        reset_from="text",
    )


@pytest.mark.parametrize(
    ("text", "zone", "now", "reset_at"),
    [
        ("or try again at 6:35 AM.", "UTC", "2026-11-21T06:00:00Z", "2026-11-21T06:36:00Z"),
        ("Try again at 2:35 AM.", "America/New_York", "2026-11-21T06:00:00Z", "2026-11-21T07:36:00Z"),
        ("or try again at 12:05 AM.", "UTC", "2026-11-21T23:00:00Z", "2026-11-22T00:06:00Z"),
        ("or try again at 6:35 AM.", "UTC", "2026-11-21T07:00:00Z", "2026-11-22T06:36:00Z"),
        # it names the minute only: one that has just begun is not over, and one just over is not tomorrow's
        ("or try again at 6:35 AM.", "UTC", "2026-11-21T06:35:20Z", "2026-11-21T06:36:00Z"),
        ("or try again at 6:35 AM.", "UTC", "2026-11-21T06:36:00Z", None),
        ("or try again at 11:59 PM.", "UTC", "2026-11-21T00:01:00Z", None),
        ("or try again at 11:59 PM.", "UTC", "2026-11-21T23:59:59Z", "2026-11-22T00:00:00Z"),
        ("or try again at Nov 21st, 2026 6:35 AM.", "UTC", "2026-11-21T06:35:20Z", "2026-11-21T06:36:00Z"),
        ("or try again at Nov 25th, 2026 9:42 PM.", "UTC", "2026-11-21T06:00:00Z", "2026-11-25T21:43:00Z"),
        ("or try again at Nov 1st, 2026 9:42 PM.", "America/New_York", "2026-10-31T06:00:00Z", "2026-11-02T02:43:00Z"),
        ("or try again at Nov 25th, 2027 9:42 PM.", "UTC", "2026-11-21T06:00:00Z", None),
        ("or try again at Feb 30th, 2026 9:42 PM.", "UTC", "2026-02-25T06:00:00Z", None),
        ("or try again at 16:75 AM.", "UTC", "2026-02-25T06:00:00Z", None),
        ("Try again later.", "UTC", "2026-11-21T06:00:00Z", None),
        ("or try again in 2.5s.", "UTC", "2026-11-21T06:00:00Z", "2026-11-21T06:01:02.5Z"),
        ("Try again in 6m0s.", "UTC", "2026-11-21T06:00:00Z", "2026-11-21T06:07:00Z"),
        ("Please try again in 500ms.", "UTC", "2026-11-21T06:00:00Z", "2026-11-21T06:01:00.5Z"),
        ("or try again in 1 day 3 hours 20 minutes.", "UTC", "2026-11-21T06:00:00Z", "2026-11-22T09:21:00Z"),
        ("or try again in 9 days.", "UTC", "2026-11-21T06:00:00Z", None),
        ("or try again in 2 moons.", "UTC", "2026-11-21T06:00:00Z", None),
    ],
)
def test_the_end_of_a_limit_is_read_in_the_zone_of_the_child(
    text: str, zone: str, now: str, reset_at: str | None
) -> None:
    codex = reader(zone=zone, now=datetime.fromisoformat(now))
    codex.feed(json.dumps(failed(f"You've hit your usage limit. {text}")).encode())

    report = codex.report(ending="exited", exit_code=1, stderr_tail=b"")

    assert report.failure == "usage_limit"
    expected = (None, "") if reset_at is None else (datetime.fromisoformat(reset_at), "text")
    assert (report.reset_at, report.reset_from) == expected


def test_without_a_zone_the_time_is_the_programs_own(own_zone: None) -> None:
    codex = CodexReader(now=lambda: NOW)
    codex.feed(json.dumps(failed("You've hit your usage limit. Try again at 2:35 AM.")).encode())

    report = codex.report(ending="exited", exit_code=1, stderr_tail=b"")

    assert report.reset_at == datetime(2026, 11, 21, 7, 36, tzinfo=UTC)


@pytest.fixture
def own_zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "America/New_York")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.parametrize(
    ("message", "failure"),
    [
        ("unexpected status 401 Unauthorized: You've hit your usage limit", "auth"),
        ("unexpected status 418 I'm a teapot", "bad_request"),
        ("unexpected status 599 ?", "server_error"),
        ("rate limit exceeded: Rate limit reached. Please try again in 2.5s.", "rate_limit"),
        ("Incomplete response returned, reason: content_filter", "refusal"),
        ("The model `x` does not exist or you do not have access to it.", "model_not_found"),
        ('{\n"error": {"type": "invalid_request_error", "code": "model_not_found"}}', "model_not_found"),
        ('{"error": {"type": "invalid_request_error", "code": "insufficient_quota"}}', "credit"),
        ("Tell the user: Connection failed", None),
        ("", None),
    ],
)
def test_a_text_is_matched_at_its_start(message: str, failure: str | None) -> None:
    assert failure_of_message(message) == failure


def test_an_unknown_text_is_kept_and_is_no_success() -> None:
    assert read(failed("x" * 3000), exit_code=1) == AgentReport(failure="unknown", message="x" * 2000)


def test_success_needs_exit_code_0() -> None:
    assert read(said("Done."), COMPLETED, exit_code=1, stderr=b"odd") == AgentReport(
        failure="unknown", message="it completed its turn, and ended with exit code 1\nodd", usage=USED
    )


@pytest.mark.parametrize(("ending", "exit_code"), [("cancelled", -15), ("exited", -9), ("timed_out", None)])
def test_a_completed_turn_seen_before_a_signal_counts(ending: Ending, exit_code: int | None) -> None:
    report = read(said("Done."), COMPLETED, ending=ending, exit_code=exit_code)

    assert report == AgentReport(final_text="Done.", usage=USED)


def test_the_last_end_of_a_turn_counts() -> None:
    assert read(said("One."), COMPLETED, failed("Connection failed: x"), exit_code=1).failure == "network"
    assert read(failed("Connection failed: x"), said("Two."), COMPLETED) == AgentReport(final_text="Two.", usage=USED)


def test_the_last_message_is_the_answer_and_a_blank_one_is_none() -> None:
    assert read(said("Working."), said(" \n"), COMPLETED) == AgentReport(
        failure="empty", message="its last message holds no text", usage=USED
    )


@pytest.mark.parametrize(
    "usage",
    [None, {}, {**COMPLETED["usage"], "cached_input_tokens": 10}, {**COMPLETED["usage"], "output_tokens": -1}],  # type: ignore[dict-item]
)
def test_a_usage_that_makes_no_sense_is_unknown_not_zero(usage: object) -> None:
    assert read(said("Done."), {"type": "turn.completed", "usage": usage}) == AgentReport(final_text="Done.")


def test_a_line_of_three_megabytes_is_read() -> None:
    report = read(said("x" * 3_200_000 + "end"), COMPLETED)

    assert (report.failure, len(report.final_text), report.final_text[-4:]) == (None, 1024 * 1024, "xend")


def test_a_line_beyond_the_limit_does_not_make_the_rest_unreadable() -> None:
    codex = reader()
    codex.feed(b'{"type":"item.completed","x":"')
    for _ in range(17):
        codex.feed(b"x" * 1024 * 1024)
    codex.feed(b'"}\n' + json.dumps(said("Done.")).encode() + b"\n" + json.dumps(COMPLETED).encode())

    assert codex.report(ending="exited", exit_code=0, stderr_tail=b"") == AgentReport(final_text="Done.", usage=USED)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
events = st.builds(
    lambda kind, event: event | {"type": kind},
    st.sampled_from(["turn.completed", "turn.failed", "item.completed", "error", "thread.started"]),
    st.dictionaries(st.sampled_from(["usage", "error", "item", "message"]), values),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(events, max_size=4), st.binary(max_size=20), st.sampled_from([0, 1, 143, -9, None]))
def test_nothing_that_it_prints_makes_the_reader_raise(
    stream: list[dict[str, Any]], noise: bytes, exit_code: int | None
) -> None:
    codex = reader()
    codex.feed(b"\n".join([noise, *(json.dumps(event).encode() for event in stream), noise, b"[" * 100_000]))

    report = codex.report(ending="exited", exit_code=exit_code, stderr_tail=noise)

    report.message.encode()
    assert report.failure is not None  # none of these says anything


def request(tmp_path: Path, *, prompt: str = "Do T-1.", model: str | None = "m", dirs: int = 2) -> AgentRequest:
    git_dirs = (tmp_path / "main/.git", tmp_path / "main/.git/worktrees/w1")[:dirs]
    return AgentRequest(
        task="T-1", prompt=prompt, prompt_file=tmp_path / "p.md", worktree=tmp_path, model=model, git_dirs=git_dirs
    )


def test_the_sandbox_may_write_both_git_directories_and_a_stop_is_sigint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HEW_LOOP_CODEX_BIN", raising=False)

    assert CodexRuntime().invocation(request(tmp_path)) == Invocation(
        argv=(
            "codex", "exec", "--json", "-C", str(tmp_path), "-m", "m", "-s", "workspace-write",
            "--add-dir", f"{tmp_path}/main/.git", "--add-dir", f"{tmp_path}/main/.git/worktrees/w1",
            "--disable", "unbounded_connection_retries", "--disable", "plugins", "--disable", "remote_plugin",
            "--disable", "apps", "--ephemeral", "-c", "analytics.enabled=false",
            "-c", "check_for_update_on_startup=false", "-c", "features.shell_snapshot=false", "-",
        ),
        stdin=b"Do T-1.",
        stop_signal=2,
    )  # fmt: skip


def test_to_plan_it_gets_a_sandbox_that_only_reads(tmp_path: Path) -> None:
    argv = CodexRuntime(program="codex").invocation(replace(request(tmp_path), purpose="plan")).argv

    assert argv[:9] == (
        "codex", "exec", "--json", "-C", str(tmp_path), "-m", "m", "-s", "read-only",
    )  # fmt: skip
    assert ("--skip-git-repo-check" in argv, "--add-dir" in argv) == (True, False)


def test_what_is_not_given_is_not_passed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEW_LOOP_CODEX_BIN", "/opt/bin/codex")

    invocation = CodexRuntime().invocation(request(tmp_path, prompt="/status", model=None, dirs=0))

    assert invocation.argv[0] == "/opt/bin/codex"
    assert not {"-m", "--add-dir"} & set(invocation.argv)
    assert invocation.stdin == b"Task:\n/status"


def test_variables_can_be_hidden_from_its_commands_but_not_the_mark(tmp_path: Path) -> None:
    argv = CodexRuntime(program="codex", hide=("*KEY*", "*TOKEN*")).invocation(request(tmp_path)).argv

    assert argv[-3:] == ("-c", 'shell_environment_policy.exclude=["*KEY*", "*TOKEN*"]', "-")
    with pytest.raises(UsageError, match="the mark of the iteration"):
        CodexRuntime(hide=("*KEY*", "hew_*"))


@pytest.mark.parametrize(
    ("piece", "is_progress"),
    [
        (b'{"type":"error","message":"Reconnecting... 2/5 (x)"}\n', False),
        (b'{"type":"error","message":"Reconnecting... 2/5 (x)"}\n\n', False),
        (b'{"type":"error","message":"x"}\n{"type":"error","message":"Reconnecting... 2/5 (x)"}\n', True),
        (b'{"type":"error","message":"x"}\n', True),
        (b"not an event\n", True),
        (b'{"type":"error","message":"x"}', False),
    ],
)
def test_a_notice_that_it_waits_is_no_progress(piece: bytes, is_progress: bool) -> None:
    reader = CodexReader()
    assert reader.is_progress
    reader.feed(piece)

    assert reader.is_progress == is_progress


def test_one_that_still_waits_for_a_limit_has_not_stalled_by_its_tasks_fault() -> None:
    waits = replace(case_of(AGENT, "rate-limit-429-retry-after-90"), ending="stalled")
    said = "Reconnecting... 2/5 (exceeded retry limit, last status: 429 Too Many Requests)"
    assert waits.replay(reader()) == AgentReport("rate_limit", said)
    moved = reader()
    moved.feed(waits.stdout + b'{"type":"item.started","item":{}}\n')
    assert moved.report(ending="stalled", exit_code=None, stderr_tail=b"").failure == "stalled"
