from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hew_loop.core.iteration import AgentReport, Usage
from hew_loop.runtimes.base import AgentRequest, Ending
from hew_loop.runtimes.opencode import CONFIG_VARIABLE, OpencodeReader, OpencodeRuntime
from tests.support.recorded import Case, case_of, cases, never_a_success_too_early

AGENT = "opencode-1.18.33"
NOW = datetime(2026, 11, 21, 6, 0, tzinfo=UTC)
REFUSED = "The user has specified a rule which prevents you from using this specific tool call. Here are some"


def reader() -> OpencodeReader:
    return OpencodeReader(now=lambda: NOW)


def read(
    *events: dict[str, Any], ending: Ending = "exited", exit_code: int | None = 0, stderr: bytes = b""
) -> AgentReport:
    opencode = reader()
    opencode.feed(b"".join(json.dumps(event).encode() + b"\n" for event in events))
    return opencode.report(ending=ending, exit_code=exit_code, stderr_tail=stderr)


def said(text: str, *, message: str = "m1") -> dict[str, Any]:
    return {"type": "text", "part": {"messageID": message, "text": text}}


def finished(reason: str = "stop", **changes: Any) -> dict[str, Any]:
    tokens = {"total": 10, "input": 3, "output": 2, "cache": {"read": 4, "write": 1}}
    return {"type": "step_finish", "part": {"reason": reason, "tokens": tokens, "cost": 0.5, **changes}}


def tool(error: str) -> dict[str, Any]:
    return {"type": "tool_use", "part": {"tool": "edit", "state": {"status": "error", "error": error}}}


def failed(name: str = "APIError", **data: Any) -> dict[str, Any]:
    return {"type": "error", "error": {"name": name, "data": data}}


BEGUN = {"type": "step_start", "part": {}}
USED = Usage(input=3, output=2, cache_read=4, cache_create=1)


@pytest.mark.parametrize("case", cases(AGENT), ids=lambda case: case.name)
def test_a_recorded_run_has_the_class_of_the_index(case: Case) -> None:
    report = case.replay(reader())

    # plain text, which is never asked for: without a final event nothing is a success
    assert report.failure == ("truncated" if case.is_text else case.expected)
    assert (report.failure is None) == (report.message == "")
    assert report.denials == (("bash",) if case.name == "permission-ask" else ())


@pytest.mark.parametrize("case", cases(AGENT), ids=lambda case: case.name)
def test_a_cut_stream_is_never_a_success_before_its_final_event(case: Case) -> None:
    never_a_success_too_early(reader, case, final=b'"reason":"stop"')


def test_a_successful_run_is_reported_whole_with_all_its_steps_added_up() -> None:
    assert case_of(AGENT, "success-stdin-prompt").replay(reader()) == AgentReport(
        final_text="Added a.txt and b.txt.\n\n```next_iteration\n"
        '{"status": "continue", "next": "write the tests"}\n```\n',
        usage=Usage(input=7615, output=109, cache_read=22394),
        cost_usd=pytest.approx(0.0311982),  # type: ignore[arg-type]
    )


def test_a_run_stopped_by_a_refusal_is_no_success_in_spite_of_exit_code_0() -> None:
    assert read(BEGUN, tool(REFUSED), finished("tool-calls")) == AgentReport(
        failure="permission_denied", message="refused tools: edit", usage=USED, cost_usd=0.5, denials=("edit",)
    )


def test_a_tool_that_failed_was_not_refused() -> None:
    report = read(
        BEGUN, tool("oldString not found in content"), finished("tool-calls"), BEGUN, said("Done."), finished()
    )

    assert (report.failure, report.denials) == (None, ())
    assert read(BEGUN, tool("oldString not found in content"), finished("tool-calls")).failure == "truncated"


def test_a_step_that_began_after_the_end_undoes_it() -> None:
    assert read(BEGUN, said("One."), finished(), BEGUN).failure == "truncated"


def test_an_error_after_the_end_undoes_it_and_one_before_does_not() -> None:
    refused = failed(message="no", statusCode=401)

    assert read(BEGUN, said("One."), finished(), refused).failure == "auth"
    assert read(BEGUN, refused, BEGUN, said("One."), finished()).failure is None


def test_success_needs_exit_code_0() -> None:
    report = read(said("Done."), finished(), exit_code=1, stderr=b"odd")

    assert (report.failure, report.message) == ("unknown", "it came to its end, and ended with exit code 1\nodd")


def test_a_last_step_seen_before_our_signal_counts() -> None:
    assert read(said("Done."), finished(), ending="cancelled", exit_code=-15).failure is None


def test_the_parts_of_the_last_message_are_the_answer() -> None:
    stream = [said("Old.", message="m0"), said("First."), said("Second."), finished()]

    assert read(*stream) == AgentReport(final_text="First.\nSecond.", usage=USED, cost_usd=0.5)
    assert read(said(" "), finished()).failure == "empty"


@pytest.mark.parametrize(
    ("event", "failure"),
    [
        (failed(message="x", statusCode=403), "auth"),
        (failed(message="x", statusCode=503), "overloaded"),
        (failed(message="x", statusCode=True), "unknown"),
        (failed("ProviderAuthError", message="x"), "auth"),
        (failed("MessageOutputLengthError"), "incomplete"),
        (finished("length"), "incomplete"),
        (finished("content-filter"), "refusal"),
        (finished("other"), "truncated"),
        ({"type": "error"}, "unknown"),
    ],
)
def test_an_end_that_was_not_recorded_has_its_class(event: dict[str, Any], failure: str) -> None:
    assert read(said("x"), event).failure == failure


@pytest.mark.parametrize(
    ("header", "reset_at"),
    [
        ("30", "2026-11-21T06:01:30Z"),
        ("Sat, 21 Nov 2026 06:30:00 GMT", "2026-11-21T06:31:00Z"),
        ("9999999", None),
        ("nan", None),
        ("soon", None),
        (None, None),
    ],
)
def test_the_end_of_a_limit_is_read_from_the_header(header: str | None, reset_at: str | None) -> None:
    report = read(failed(message="slow", statusCode=429, responseHeaders={"retry-after": header}), exit_code=1)

    expected = None if reset_at is None else datetime.fromisoformat(reset_at)
    assert (report.failure, report.reset_at) == ("rate_limit", expected)


def test_thoughts_are_counted_as_output_wherever_they_are_shown() -> None:
    tokens = {"total": 15, "input": 3, "output": 2, "reasoning": 5, "cache": {"read": 4, "write": 1}}

    assert read(said("x"), finished(tokens=tokens)).usage == Usage(input=3, output=7, cache_read=4, cache_create=1)


def test_numbers_that_make_no_sense_and_a_price_of_nothing_are_unknown_not_zero() -> None:
    stream = [said("x"), finished("tool-calls", tokens={"input": -1}, cost=0), BEGUN, finished(cost=0)]

    assert read(*stream) == AgentReport(final_text="x")


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
parts = st.dictionaries(st.sampled_from(["reason", "tokens", "cost", "text", "messageID", "state", "tool"]), values)
events = st.builds(
    lambda kind, part, error: {"type": kind, "part": part, "error": error},
    st.sampled_from(["step_start", "step_finish", "text", "tool_use", "error"]),
    parts | values,
    values,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(events, max_size=4), st.binary(max_size=20), st.sampled_from([0, 1, 143, -9, None]))
def test_nothing_that_it_prints_makes_the_reader_raise(
    stream: list[dict[str, Any]], noise: bytes, exit_code: int | None
) -> None:
    opencode = reader()
    opencode.feed(b"\n".join([noise, *(json.dumps(event).encode() for event in stream), noise]))

    report = opencode.report(ending="exited", exit_code=exit_code, stderr_tail=noise)

    report.message.encode()
    report.final_text.encode()
    assert report.failure is not None  # no reason of these is `stop`


def request(tmp_path: Path, *, model: str | None = "p/m") -> AgentRequest:
    return AgentRequest(task="T-1", prompt="Do T-1.", prompt_file=tmp_path / "p.md", worktree=tmp_path, model=model)


def test_permissions_are_explicit_and_go_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEW_LOOP_OPENCODE_BIN", raising=False)
    monkeypatch.delenv(CONFIG_VARIABLE, raising=False)

    invocation = OpencodeRuntime().invocation(request(tmp_path))

    assert invocation.argv == ("opencode", "run", "--format", "json", "--model", "p/m")
    assert dict(invocation.env) == {
        "OPENCODE_CONFIG_CONTENT": '{"autoupdate": false, "share": "disabled", '
        '"permission": {"edit": "allow", "bash": "allow", "webfetch": "deny"}}',
        "OPENCODE_DISABLE_MODELS_FETCH": "1",
        "OPENCODE_DISABLE_AUTOUPDATE": "1",
        "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
        "OPENCODE_DISABLE_DEFAULT_PLUGINS": "1",
        "OPENCODE_DISABLE_PROJECT_CONFIG": "1",
    }
    assert (invocation.stdin, invocation.stop_signal) == (b"Do T-1.", 15)


def test_the_projects_configuration_is_off_and_its_instructions_are_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "CLAUDE.md").write_text("")
    monkeypatch.setenv(CONFIG_VARIABLE, '{"instructions": ["/mine.md"]}')

    def instructions() -> object:
        return json.loads(dict(OpencodeRuntime().invocation(request(tmp_path)).env)[CONFIG_VARIABLE])["instructions"]

    assert instructions() == ["/mine.md", str(tmp_path / "CLAUDE.md")]
    (tmp_path / "AGENTS.md").write_text("")
    assert instructions() == ["/mine.md", str(tmp_path / "AGENTS.md")]


def test_to_plan_it_may_do_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CONFIG_VARIABLE, raising=False)
    plan = OpencodeRuntime(program="opencode").invocation(replace(request(tmp_path), purpose="plan"))

    config = json.loads(dict(plan.env)[CONFIG_VARIABLE])
    assert config["permission"] == {"edit": "deny", "bash": "deny", "webfetch": "deny"}


@pytest.mark.parametrize("given_config", ["{", "[]", "[" * 100_000])
def test_what_the_user_gives_by_the_same_variable_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given_config: str
) -> None:
    monkeypatch.setenv(CONFIG_VARIABLE, '{"provider": {"mine": {}}, "share": "auto"}')
    merged = json.loads(dict(OpencodeRuntime().invocation(request(tmp_path, model=None)).env)[CONFIG_VARIABLE])
    monkeypatch.setenv(CONFIG_VARIABLE, given_config)
    plain = json.loads(dict(OpencodeRuntime().invocation(request(tmp_path)).env)[CONFIG_VARIABLE])

    assert merged == {"provider": {"mine": {}}, **plain}
    assert plain["share"] == "disabled"
