from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hew_loop.core.iteration import AgentReport, Usage
from hew_loop.runtimes.base import AgentRequest, Ending
from hew_loop.runtimes.claude import PROGRAM_VARIABLE, ClaudeReader, ClaudeRuntime

AGENTS = Path(__file__).parent.parent / "data" / "agents"
CASES: list[dict[str, Any]] = [json.loads(line) for line in (AGENTS / "index.jsonl").read_text().splitlines()]
ENDINGS: dict[str, Ending] = {
    # what the runner did in these cases; of a SIGKILL from outside it knows nothing
    "cancelled": "cancelled",
    "not_ended": "timed_out",
    "not_ended_done": "timed_out",
    "spawn_error": "not_started",
}
RECORDED_AT = datetime.fromtimestamp(1795242000, UTC)


def case_id(case: dict[str, Any]) -> str:
    return f"{case['agent']}/{case['case']}"


def recorded(case: dict[str, Any], suffix: str) -> bytes:
    path = AGENTS / case["agent"] / f"{case['case']}.{suffix}"
    return path.read_bytes() if path.exists() else b""


def read(
    stdout: bytes,
    *,
    ending: Ending = "exited",
    exit_code: int | None = 0,
    stderr: bytes = b"",
    now: datetime = RECORDED_AT,
) -> AgentReport:
    reader = ClaudeReader(now=lambda: now)
    reader.feed(stdout)
    return reader.report(ending=ending, exit_code=exit_code, stderr_tail=stderr)


def result(**changes: Any) -> bytes:
    event = {"type": "result", "subtype": "success", "is_error": False, "num_turns": 3, "result": "Done."}
    return json.dumps(event | changes).encode() + b"\n"


def expected_class(case: dict[str, Any]) -> str | None:
    if case["case"] == "success-text":
        return "truncated"  # plain text, which we never ask for: without a final event nothing is a success
    return {"success": None, "not_ended_done": None, "not_ended": "timed_out"}.get(case["class"], case["class"])


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_a_recorded_run_has_the_class_of_the_index(case: dict[str, Any]) -> None:
    report = read(
        recorded(case, "stdout"),
        ending=ENDINGS.get(case["class"], "exited"),
        exit_code=case["exit"],
        stderr=recorded(case, "stderr"),
    )

    reset_at = None if report.reset_at is None else report.reset_at - timedelta(seconds=60)
    told = datetime.fromtimestamp(case["reset_at"], UTC) if "reset_at" in case else None
    assert (report.failure, len(report.denials)) == (expected_class(case), case.get("denials", 0))
    assert reset_at == told or (told is None and case["case"] == "usage-limit-oauth-json")
    read_from = "" if reset_at is None else "text" if told is None else "rate_limit_event"
    assert report.reset_from == read_from
    assert (report.failure is None) == (report.message == "")
    assert len(report.message) <= 2000


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_a_cut_stream_is_never_a_success_before_its_final_event(case: dict[str, Any]) -> None:
    stdout = recorded(case, "stdout")
    ends = [at + 1 for at, byte in enumerate(stdout) if byte == 0x0A]
    middles = [(start + end) // 2 for start, end in zip([0, *ends], ends, strict=False)]

    for cut in (0, *ends, *middles):
        has_final = any(b'"result"' in line and is_result(line) for line in stdout[:cut].split(b"\n"))
        reader = ClaudeReader(now=lambda: RECORDED_AT)
        for start in range(0, cut, 997):
            reader.feed(stdout[start : min(start + 997, cut)])
        report = reader.report(
            ending=ENDINGS.get(case["class"], "exited"), exit_code=case["exit"], stderr_tail=recorded(case, "stderr")
        )
        assert report.failure is not None or has_final


def is_result(line: bytes) -> bool:
    try:
        return json.loads(line)["type"] == "result"
    except (ValueError, KeyError, TypeError):
        return False


def test_a_successful_run_is_reported_whole() -> None:
    case = next(case for case in CASES if case_id(case) == "claude-2.1.329/success-stream-json")

    assert read(recorded(case, "stdout")) == AgentReport(
        final_text="Added a.txt and b.txt.\n\n```next_iteration\n"
        '{"status": "continue", "next": "write the tests"}\n```\n',
        usage=Usage(input=16, output=129, cache_read=69796, cache_create=23479),
        cost_usd=0.11096805000000001,
        model="claude-sonnet-4-5",
    )


def test_usage_and_cost_survive_a_budget_stop() -> None:
    case = next(case for case in CASES if case_id(case) == "claude-2.1.329/max-budget")

    assert read(recorded(case, "stdout"), exit_code=1) == AgentReport(
        failure="budget",
        message="Reached maximum budget ($0.05)",
        usage=Usage(input=4, output=25, cache_create=23157),
        cost_usd=0.08722575,
        model="claude-sonnet-4-5",
    )


def test_the_last_of_several_results_counts() -> None:
    stream = result(is_error=True, api_error_status=500) + result(result="Second.")

    assert read(stream) == AgentReport(final_text="Second.")


@pytest.mark.parametrize("ending", ["cancelled", "timed_out", "stalled"])
def test_a_result_seen_before_our_signal_counts(ending: Ending) -> None:
    assert read(result(), ending=ending, exit_code=143) == AgentReport(final_text="Done.")


@pytest.mark.parametrize("ending", ["cancelled", "timed_out", "stalled"])
def test_without_a_result_the_class_is_what_the_runner_did(ending: Ending) -> None:
    assert read(b'{"type":"system"}\n', ending=ending, exit_code=0).failure == ending


@pytest.mark.parametrize("exit_code", [-15, -9, 137, 143])
def test_a_signal_from_outside_is_a_kill(exit_code: int) -> None:
    assert read(b'{"type":"system"}\n', exit_code=exit_code).failure == "killed"


def test_exit_0_without_a_final_event_is_never_success() -> None:
    assert read(b"Done.\n", stderr=b"odd") == AgentReport(failure="truncated", message="Done.\n\nodd")


def test_a_final_event_without_words_is_empty_and_says_so() -> None:
    assert read(result(result=" \n")) == AgentReport(
        failure="empty", message="its final event holds no text", final_text=" \n"
    )


def test_a_prompt_taken_as_a_local_command_is_empty() -> None:
    assert read(result(num_turns=0)).failure == "empty"


def test_a_result_without_its_verdict_is_unknown() -> None:
    assert read(result(is_error=None)).failure == "unknown"


def test_a_rejected_window_does_not_explain_another_error() -> None:
    limit = {"type": "rate_limit_event", "rate_limit_info": {"status": "rejected", "resetsAt": 1795242989}}
    stream = json.dumps(limit).encode() + b"\n" + result(is_error=True, api_error_status=500)

    assert read(stream, exit_code=1).failure == "server_error"


@pytest.mark.parametrize(
    ("text", "now", "reset_at"),
    [
        ("6:38am (UTC)", "2026-11-21T06:00:00Z", "2026-11-21T06:39:00Z"),
        ("6:38am (UTC)", "2026-11-21T07:00:00Z", "2026-11-22T06:39:00Z"),
        ("6:38am (UTC)", "2026-11-21T06:38:20Z", "2026-11-21T06:39:00Z"),
        ("6:38am (UTC)", "2026-11-21T06:40:00Z", None),
        ("11:59pm (UTC)", "2026-11-21T00:01:00Z", None),
        ("12am (UTC)", "2026-11-21T07:00:00Z", "2026-11-22T00:01:00Z"),
        ("2:35am (America/New_York)", "2026-11-21T06:00:00Z", "2026-11-21T07:36:00Z"),
        ("Nov 25, 8:44pm (UTC)", "2026-11-21T06:00:00Z", "2026-11-25T20:45:00Z"),
        ("Jan 2, 3pm (UTC)", "2026-12-30T06:00:00Z", "2027-01-02T15:01:00Z"),
        ("Nov 25, 8:44pm (UTC)", "2026-11-01T06:00:00Z", None),
        ("Nov 20, 8:44pm (UTC)", "2026-11-21T06:00:00Z", None),
        ("Feb 30, 8:44pm (UTC)", "2026-02-26T06:00:00Z", None),
        ("6:38am (Nowhere/At_All)", "2026-11-21T06:00:00Z", None),
        ("6:38am (America)", "2026-11-21T06:00:00Z", None),
        ("soon", "2026-11-21T06:00:00Z", None),
    ],
)
def test_the_end_of_a_limit_is_read_from_the_text(text: str, now: str, reset_at: str | None) -> None:
    stream = result(is_error=True, api_error_status=429, result=f"You've hit your 5-hour limit · resets {text}")

    report = read(stream, exit_code=1, now=datetime.fromisoformat(now))

    expected = (None, "") if reset_at is None else (datetime.fromisoformat(reset_at), "text")
    assert (report.failure, report.reset_at, report.reset_from) == ("usage_limit", *expected)


@pytest.mark.parametrize("value", [1e300, -1e300, 10**400, True, "soon", None, float("nan"), 1])
def test_a_senseless_reset_time_is_no_time(value: object) -> None:
    limit = {"type": "rate_limit_event", "rate_limit_info": {"status": "rejected", "resetsAt": value}}
    stream = json.dumps(limit).encode() + b"\n" + result(is_error=True, api_error_status=429, result="no more")

    assert read(stream, exit_code=1) == AgentReport(failure="usage_limit", message="no more")


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("modelUsage", {"m": {"inputTokens": 1}}),
        ("modelUsage", {"m": {"inputTokens": True}}),
        ("modelUsage", [1]),
        ("total_cost_usd", float("inf")),
        ("total_cost_usd", "1"),
        ("total_cost_usd", -1),
    ],
)
def test_numbers_that_make_no_sense_are_unknown_not_zero(member: str, value: object) -> None:
    report = read(result(**{member: value}))

    assert (report.failure, report.usage, report.cost_usd) == (None, None, None)


def test_a_line_of_three_megabytes_is_read() -> None:
    report = read(b'{"type":"system","subtype":"init","model":"m"}\n' + result(result="x" * 3_200_000 + "end"))

    assert (report.failure, len(report.final_text), report.final_text[-4:]) == (None, 1024 * 1024, "xend")


def test_a_line_beyond_the_limit_does_not_make_the_rest_unreadable() -> None:
    reader = ClaudeReader()
    reader.feed(b'{"type":"user","x":"')
    for _ in range(17):
        reader.feed(b"x" * 1024 * 1024)
    reader.feed(b'"}\n' + result())

    assert reader.is_final
    assert reader.report(ending="exited", exit_code=0, stderr_tail=b"") == AgentReport(final_text="Done.")


def test_a_final_event_that_was_too_long_to_read_is_counted_in_the_message() -> None:
    stream = b'{"type":"system"}\n' + result(result="x" * 17 * 1024 * 1024)

    assert read(stream) == AgentReport(failure="truncated", message="(lines too long to be read: 1)")


def test_a_final_event_without_a_line_end_counts() -> None:
    assert read(result().rstrip()) == AgentReport(final_text="Done.")


def test_lone_surrogates_do_not_leave_the_reader() -> None:
    report = read(b'{"type":"result","is_error":false,"num_turns":1,"result":"a\\ud800b","modelUsage":{}}\n')

    assert report.final_text.encode() == b"a?b"


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
members = st.sampled_from(
    ["subtype", "is_error", "result", "errors", "modelUsage", "total_cost_usd", "permission_denials", "num_turns",
     "terminal_reason", "api_error_status", "stop_reason", "rate_limit_info", "error", "model", "api_error_params"]
)  # fmt: skip
events = st.builds(
    lambda kind, event: event | {"type": kind},
    st.sampled_from(["result", "assistant", "system", "rate_limit_event", "user"]),
    st.dictionaries(members, values),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(events, max_size=4), st.binary(max_size=20), st.sampled_from([0, 1, 143, -9, None]))
def test_nothing_that_an_agent_prints_makes_the_reader_raise(
    stream: list[dict[str, Any]], noise: bytes, exit_code: int | None
) -> None:
    lines = b"\n".join([noise, *(json.dumps(event).encode() for event in stream), noise, b"[" * 100_000])

    report = read(lines, exit_code=exit_code, stderr=noise)

    report.message.encode()
    report.final_text.encode()
    finals = [event for event in stream if event["type"] == "result"]
    assert report.failure is not None or finals[-1]["is_error"] is False


def request(tmp_path: Path, *, prompt: str = "Do T-1.", model: str | None = "m") -> AgentRequest:
    return AgentRequest(task="T-1", prompt=prompt, prompt_file=tmp_path / "p.md", worktree=tmp_path, model=model)


def test_the_invocation_is_explicit_about_permissions_hooks_and_servers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(PROGRAM_VARIABLE, raising=False)
    runtime = ClaudeRuntime(max_turns=50, max_budget_usd=5)

    invocation = runtime.invocation(request(tmp_path))

    session = invocation.argv[invocation.argv.index("--session-id") + 1]
    assert invocation.argv == (
        "claude", "-p", "--output-format", "stream-json", "--verbose", "--model", "m",
        "--settings", '{"disableAllHooks": true}', "--strict-mcp-config", "--session-id", session,
        "--permission-mode", "acceptEdits", "--allowedTools", "Bash Edit Write Read Glob Grep",
        "--max-turns", "50", "--max-budget-usd", "5",
    )  # fmt: skip
    assert dict(invocation.env) == {
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
        "CLAUDE_CODE_MAX_RETRIES": "3",
        "CLAUDE_CODE_DISABLE_BACKGROUND_TASKS": "1",
        "CLAUDE_CODE_DISABLE_GIT_INSTRUCTIONS": "1",
        "CLAUDE_BYTE_STREAM_IDLE_TIMEOUT_MS": "120000",
        "API_TIMEOUT_MS": "600000",
    }
    assert (invocation.stdin, invocation.stop_signal) == (b"Do T-1.", 15)
    assert session not in runtime.invocation(request(tmp_path)).argv


def test_to_plan_it_gets_one_tool_that_may_read_nothing(tmp_path: Path) -> None:
    plan = replace(request(tmp_path), purpose="plan")

    argv = ClaudeRuntime(program="claude", max_turns=50).invocation(plan).argv

    session = argv[argv.index("--session-id") + 1]
    assert argv == (
        "claude", "-p", "--output-format", "stream-json", "--verbose", "--model", "m",
        "--settings", '{"disableAllHooks": true}', "--strict-mcp-config", "--session-id", session,
        "--permission-mode", "dontAsk", "--tools", "Read", "--disallowedTools", "Read(//**)", "--max-turns", "4",
        "--system-prompt", "Answer from what you are told alone, in the form that is asked for.",
    )  # fmt: skip


def test_what_is_not_configured_is_not_passed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PROGRAM_VARIABLE, "/opt/bin/claude")

    argv = ClaudeRuntime().invocation(request(tmp_path, model=None)).argv

    assert argv[0] == "/opt/bin/claude"
    assert not {"--model", "--max-turns", "--max-budget-usd"} & set(argv)


def test_a_prompt_never_starts_with_a_slash(tmp_path: Path) -> None:
    assert ClaudeRuntime().invocation(request(tmp_path, prompt=" /cost")).stdin == b"Task:\n /cost"


@pytest.mark.parametrize(
    ("piece", "is_progress"),
    [
        (b'{"type":"system","subtype":"api_retry","attempt":1}\n', False),
        (b'{"type":"system","subtype":"api_retry","attempt":1}\n\n', False),
        (b'{"type":"system","subtype":"status"}\n{"type":"system","subtype":"api_retry","attempt":1}\n', True),
        (b'{"type":"system","subtype":"status"}\n', True),
        (b"not an event\n", True),
        (b'{"type":"system","subtype":"status"}', False),
    ],
)
def test_a_notice_that_it_waits_is_no_progress(piece: bytes, is_progress: bool) -> None:
    reader = ClaudeReader()
    assert reader.is_progress
    reader.feed(piece)

    assert reader.is_progress == is_progress


def test_one_that_still_waits_for_a_limit_has_not_stalled_by_its_tasks_fault() -> None:
    recorded = (AGENTS / "claude-2.1.329" / "rate-limit-429-retry-after-60.stdout").read_bytes()
    last = recorded.rindex(b'"api_retry"')
    waits, moved = ClaudeReader(), ClaudeReader()
    waits.feed(recorded[: recorded.index(b"\n", last) + 1])
    moved.feed(recorded[: recorded.index(b"\n", last) + 1] + b'{"type":"assistant"}\n')
    assert waits.report(ending="stalled", exit_code=-15, stderr_tail=b"").failure == "rate_limit"
    assert waits.report(ending="timed_out", exit_code=-15, stderr_tail=b"").failure == "timed_out"
    assert moved.report(ending="stalled", exit_code=-15, stderr_tail=b"").failure == "stalled"
