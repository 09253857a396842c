from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hew_loop import runtimes
from hew_loop.core.iteration import AgentReport, Usage
from hew_loop.runtimes.base import AgentRequest, Ending, Invocation
from hew_loop.runtimes.gemini import SYSTEM_SETTINGS, GeminiReader, GeminiRuntime
from tests.support.recorded import Case, case_of, cases, never_a_success_too_early

AGENT = "gemini-0.61.0"
SETTINGS = Path(runtimes.__file__).with_name("gemini_settings.json")


def read(
    *events: dict[str, Any], ending: Ending = "exited", exit_code: int | None = 0, stderr: bytes = b""
) -> AgentReport:
    gemini = GeminiReader()
    gemini.feed(b"".join(json.dumps(event).encode() + b"\n" for event in events))
    return gemini.report(ending=ending, exit_code=exit_code, stderr_tail=stderr)


def said(text: str, *, delta: bool = True) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "content": text, "delta": delta}


def tool(kind: str | None) -> list[dict[str, Any]]:
    status = {"status": "success"} if kind is None else {"status": "error", "error": {"type": kind}}
    return [
        {"type": "tool_use", "tool_name": "write_file", "tool_id": "t1"},
        {"type": "tool_result", "tool_id": "t1", **status},
    ]


def failed(message: str, **changes: Any) -> dict[str, Any]:
    return {"type": "result", "status": "error", "error": {"type": "unknown", "message": message}, **changes}


STATS = {"total_tokens": 12, "input_tokens": 9, "output_tokens": 2, "cached": 4}
DONE = {"type": "result", "status": "success", "stats": STATS}
USED = Usage(input=5, output=3, cache_read=4)


@pytest.mark.parametrize("case", cases(AGENT), ids=lambda case: case.name)
def test_a_recorded_run_has_the_class_of_the_index(case: Case) -> None:
    report = case.replay(GeminiReader())

    # formats without events, which are never asked for: without a final event nothing is a success
    has_no_events = case.is_text or case.name == "success-json"
    assert report.failure == ("truncated" if has_no_events else case.expected)
    assert (report.failure is None) == (report.message == "")
    assert report.denials == (("Bash", "Bash") if case.name == "approval-default" else ())
    assert len(report.message) <= 2000


@pytest.mark.parametrize("case", cases(AGENT), ids=lambda case: case.name)
def test_a_cut_stream_is_never_a_success_before_its_final_event(case: Case) -> None:
    never_a_success_too_early(GeminiReader, case, final=b'{"type":"result"')


def test_a_successful_run_is_reported_whole() -> None:
    assert case_of(AGENT, "success-stdin-prompt").replay(GeminiReader()) == AgentReport(
        final_text="Added a.txt and b.txt.\n\n```next_iteration\n"
        '{"status": "continue", "next": "write the tests"}\n```\n',
        usage=Usage(input=12600, output=129, cache_read=37064),
        model="gemini-2.5-pro",
    )


def test_an_error_is_reported_whole() -> None:
    assert case_of(AGENT, "auth-401").replay(GeminiReader()) == AgentReport(
        failure="auth",
        message='[API Error: {"error":{"code":401,"message":"invalid x-api-key","status":"UNAUTHENTICATED"}}]',
        usage=Usage(),
        model="gemini-2.5-pro",
    )


def test_pieces_are_one_message_until_a_tool_comes_between() -> None:
    stream = [said("I will."), *tool(None), said("Do"), said("ne."), DONE]

    assert read(*stream) == AgentReport(final_text="Done.", usage=USED)
    assert read(said("Old."), said("New.", delta=False), DONE).final_text == "New."
    assert read(said(" "), DONE).failure == "empty"


def test_only_a_refusal_is_a_denial() -> None:
    stream = [*tool("edit_no_occurrence_found"), *tool("policy_violation"), *tool(None), said("Done."), DONE]

    assert read(*stream).denials == ("write_file",)


@pytest.mark.parametrize("ending", ["cancelled", "timed_out", "stalled"])
def test_the_class_is_what_the_runner_did_unless_the_result_was_seen(ending: Ending) -> None:
    assert read(said("Done."), ending=ending).failure == ending
    assert read(said("Done."), DONE, ending=ending, exit_code=-9).failure is None
    assert read(failed("?"), ending=ending, exit_code=145).failure == ending


@pytest.mark.parametrize(
    ("message", "exit_code", "stderr", "failure"),
    [
        ('[API Error: {"error":{"message":"{\\"code\\": 503}"}}]', 1, "", "overloaded"),
        ("[API Error: so]", 147, "", "auth"),
        ("[API Error: so]", 17, "", "overloaded"),
        ("[API Error: fetch failed]", 1, "", "network"),
        ("[API Error: no model]", 1, "at main {\n  code: 404\n}\n", "model_not_found"),
        # of a try that was repeated, and not of the error that ended it
        ("[API Error: so]", 1, "{\n  status: 429\n}\nmore\n", "unknown"),
        ("", 1, "", "unknown"),
    ],
)
def test_the_status_of_an_error_is_looked_for_where_it_is_most_exact(
    message: str, exit_code: int, stderr: str, failure: str
) -> None:
    assert read(failed(message), exit_code=exit_code, stderr=stderr.encode()).failure == failure


@pytest.mark.parametrize(
    ("exit_code", "failure"), [(41, "auth"), (173, "rate_limit"), (143, "killed"), (1, "usage_error"), (0, "truncated")]
)
def test_without_a_result_the_exit_code_tells_what_it_can(exit_code: int, failure: str) -> None:
    assert read(exit_code=exit_code, stderr=b"Unknown argument") == AgentReport(
        failure=failure,  # type: ignore[arg-type]
        message="Unknown argument",
    )


def test_the_count_of_an_error_after_work_is_unknown_not_zero() -> None:
    nothing = dict.fromkeys(STATS, 0)

    assert read(said("Did it."), failed("?", stats=nothing)).usage is None
    assert read(failed("?", stats=nothing)).usage == Usage()
    assert read(said("Done."), {**DONE, "stats": {**STATS, "cached": 10}}).usage is None


def test_the_model_is_the_one_that_was_used() -> None:
    init = {"type": "init", "model": "pro"}

    assert read(init, said("x"), {**DONE, "stats": {"models": {"flash": {}}}}).model == "flash"
    assert read(init, said("x"), {**DONE, "stats": {"models": {"flash": {}, "pro": {}}}}).model == "pro"


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
members = st.sampled_from(["status", "error", "stats", "model", "content", "delta", "tool_id", "tool_name"])
events = st.builds(
    lambda kind, event: event | {"type": kind, "role": "assistant"},
    st.sampled_from(["init", "message", "tool_use", "tool_result", "result"]),
    st.dictionaries(members, values),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(events, max_size=4), st.binary(max_size=20), st.sampled_from([0, 1, 145, -9, None]))
def test_nothing_that_it_prints_makes_the_reader_raise(
    stream: list[dict[str, Any]], noise: bytes, exit_code: int | None
) -> None:
    gemini = GeminiReader()
    gemini.feed(b"\n".join([noise, *(json.dumps(event).encode() for event in stream), noise]))

    report = gemini.report(ending="exited", exit_code=exit_code, stderr_tail=noise)

    report.message.encode()
    report.final_text.encode()
    assert report.failure is not None  # no status of these is `success`


def test_the_invocation_is_explicit_about_approval_and_trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HEW_LOOP_GEMINI_BIN", SYSTEM_SETTINGS):
        monkeypatch.delenv(name, raising=False)
    request = AgentRequest(task="T-1", prompt="Do.", prompt_file=tmp_path / "p.md", worktree=tmp_path, model="m")

    assert GeminiRuntime().invocation(request) == Invocation(
        argv=(
            "gemini", "-m", "m", "--approval-mode", "yolo", "--output-format", "stream-json",
            "--allowed-mcp-server-names", "none-of-them",
        ),
        env=(("GEMINI_CLI_TRUST_WORKSPACE", "true"), (SYSTEM_SETTINGS, str(SETTINGS))),
        stdin=b"Do.",
    )  # fmt: skip
    plan = GeminiRuntime(program="gemini").invocation(replace(request, purpose="plan", model=None))
    assert plan.argv[:3] == ("gemini", "--approval-mode", "default")


def test_the_projects_hooks_are_forbidden_unless_the_system_has_settings_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = AgentRequest(task="T-1", prompt="Do.", prompt_file=tmp_path / "p.md", worktree=tmp_path, model="m")
    assert json.loads(SETTINGS.read_text())["hooksConfig"] == {"enabled": False}
    monkeypatch.setenv(SYSTEM_SETTINGS, "/mine.json")

    assert dict(GeminiRuntime().invocation(request).env)[SYSTEM_SETTINGS] == "/mine.json"
