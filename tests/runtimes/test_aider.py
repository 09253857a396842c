from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hew_loop.core.agent_answer import parse_answer
from hew_loop.core.iteration import AgentReport, Usage
from hew_loop.runtimes.aider import AiderReader, AiderRuntime
from hew_loop.runtimes.base import AgentRequest, Ending, Invocation
from tests.support.recorded import Case, case_of, cases, never_a_success_too_early

AGENT = "aider-0.86.2"
HEADER = "Warning\nAider v0.86.2\nModel: m with diff edit format\nRepo-map: using 1024 tokens, auto refresh\n\n"
COUNTED = "\n\nTokens: 2.8k sent, 44 received.\n"
LIMITED = "litellm.RateLimitError: RateLimitError: slow\nThe API provider has rate limited you. Try again later.\n"


def read(text: str, *, ending: Ending = "exited", exit_code: int | None = 0, stderr: bytes = b"") -> AgentReport:
    aider = AiderReader()
    aider.feed(text.encode("utf-8", "replace"))
    assert not aider.is_final
    return aider.report(ending=ending, exit_code=exit_code, stderr_tail=stderr)


@pytest.mark.parametrize("case", cases(AGENT), ids=lambda case: case.name)
def test_a_recorded_run_has_the_class_of_the_index(case: Case) -> None:
    report = case.replay(AiderReader())

    assert report.failure == case.expected
    assert (report.failure is None) == (report.message == "")


@pytest.mark.parametrize("case", cases(AGENT), ids=lambda case: case.name)
def test_a_cut_stream_is_never_a_success_before_its_answer_was_counted(case: Case) -> None:
    never_a_success_too_early(AiderReader, case, final=b" received.")


def test_a_successful_run_is_reported_whole_without_aiders_header() -> None:
    report = case_of(AGENT, "success").replay(AiderReader())

    assert report == AgentReport(
        final_text="I will make the file.\n\na.txt\n```\n<<<<<<< SEARCH\n=======\nhi\n>>>>>>> REPLACE\n```\n\n"
        'Added a.txt and b.txt.\n\n```next_iteration\n{"status": "continue", "next": "write the tests"}\n```\n\n',
        usage=Usage(input=2800, output=44),
    )


def test_an_error_is_reported_with_its_last_telling() -> None:
    assert case_of(AGENT, "rate-limit-429-default").replay(AiderReader()) == AgentReport(
        failure="rate_limit",
        message="litellm.RateLimitError: RateLimitError: OpenAIException - This request would \n"
        "exceed your organization's rate limit.\n"
        "The API provider has rate limited you. Try again later or check your quotas.\n\n\n"
        "Warning: Input is not a terminal (fd=0).",
    )


def test_an_error_that_a_repeated_try_got_over_is_none() -> None:
    report = read(f"{HEADER}{LIMITED}Retrying in 0.2 seconds...\nDone.{COUNTED}Commit 6e1c5dc Work\n")

    assert (report.failure, report.message) == (None, "")


def test_an_error_after_the_answer_is_the_outcome() -> None:
    assert read(f"{HEADER}Done.{COUNTED}Commit 6e1c5dc Work\n{LIMITED}") == AgentReport(
        failure="rate_limit", message=LIMITED.strip(), usage=Usage(input=2800, output=44)
    )


def test_an_agent_that_speaks_of_errors_has_not_met_one() -> None:
    assert read(f"{HEADER}It says:\n{LIMITED}\nMended.{COUNTED}").failure is None


@pytest.mark.parametrize(
    ("told", "failure"),
    [
        ("litellm.NotFoundError: no such model", "model_not_found"),
        ("litellm.Timeout: x\nThe API provider timed out without returning a response.", "timeout"),
        ("litellm.OddError: x\nThe API provider's servers are down or overloaded.", "overloaded"),
        ("litellm.OddError: x", "unknown"),
        ("The API provider is odd.", "unknown"),
        ("litellm.InternalServerError: x\nRetrying in 1.0 seconds...\nlitellm.AuthenticationError: y", "auth"),
    ],
)
def test_an_error_has_its_class_by_name_or_by_sentence(told: str, failure: str) -> None:
    assert read(f"{HEADER}{told}\n").failure == failure


@pytest.mark.parametrize(
    ("text", "exit_code", "failure"),
    [
        (HEADER, 0, "truncated"),
        ("", 0, "truncated"),
        (HEADER + COUNTED, 0, "empty"),
        (f"{HEADER}Done.{COUNTED}", 1, "unknown"),
        (HEADER, 1, "unknown"),
        ("", 2, "usage_error"),
        (f"{HEADER}Done.{COUNTED}", -15, "killed"),
        (f"{HEADER}Done.{COUNTED}", None, "spawn_error"),
    ],
)
def test_success_needs_an_answer_and_exit_code_0(text: str, exit_code: int | None, failure: str) -> None:
    assert read(text, exit_code=exit_code).failure == failure


@pytest.mark.parametrize("ending", ["cancelled", "timed_out", "stalled"])
def test_an_end_that_we_brought_about_is_told_so(ending: Ending) -> None:
    assert read(f"{HEADER}Done.{COUNTED}", ending=ending).failure == ending


def test_several_answers_are_added_up_and_the_last_one_is_the_answer() -> None:
    first = "Tokens: 12k sent, 1.5k cache write, 3k cache hit, 900 received. Cost: $0.10 message, $0.10 session.\n"
    last = "Tokens: 500 sent, 40 received.\nCost: $0.02 message, $0.12 session.\n"

    report = read(f"{HEADER}One.\n{first}Applied edit to a.txt\nTwo.\n<next_iteration>b, c</next_iteration>\n{last}")

    assert report == AgentReport(
        final_text="\nApplied edit to a.txt\nTwo.\n<next_iteration>b, c</next_iteration>\n",
        usage=Usage(input=8000, output=940, cache_read=3000, cache_create=1500),
        cost_usd=0.12,
    )
    assert parse_answer(report.final_text).next_iteration == ("b", "c")


def test_the_usage_of_an_output_too_long_to_keep_is_unknown() -> None:
    report = read(f"{HEADER}{'x' * 2_000_000}{COUNTED}")

    assert (report.failure, report.usage, len(report.final_text) <= 1024 * 1024) == (None, None, True)


@given(st.text() | st.just(COUNTED), st.text(alphabet="Tokens: 1.k$sent,received\nlitm APIpovdCh"), st.binary())
def test_nothing_that_it_prints_makes_the_reader_raise(before: str, text: str, stderr: bytes) -> None:
    report = read(before + text, stderr=stderr)

    assert report.failure is not None or " received." in before + text


def test_the_invocation_names_the_prompt_file_and_leaves_stdin_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HEW_LOOP_AIDER_BIN", raising=False)
    request = AgentRequest(task="T-1", prompt="Do.", prompt_file=tmp_path / "p.md", worktree=tmp_path, model="m")

    assert AiderRuntime().invocation(request) == Invocation(
        argv=(
            "aider", "--model", "m", "--message-file", str(tmp_path / "p.md"), "--yes-always", "--no-check-update",
            "--no-show-release-notes", "--no-show-model-warnings", "--no-analytics", "--no-pretty", "--no-stream",
            "--no-gitignore", "--no-detect-urls", "--disable-playwright", "--no-suggest-shell-commands",
            "--no-auto-lint", "--no-auto-test", "--no-notifications", "--load", "/dev/null", "--edit-format", "diff",
        ),
        env=(("AIDER_ANALYTICS", "false"), ("LITELLM_LOCAL_MODEL_COST_MAP", "True")),
    )  # fmt: skip
    assert (AiderRuntime.fenced_answers, AiderRuntime.own_files) == (False, (".aider*",))
    plan = AiderRuntime(program="aider").invocation(replace(request, purpose="plan"))
    assert plan.argv[-6:] == ("--edit-format", "ask", "--dry-run", "--no-git", "--map-tokens", "0")
    assert "diff" not in plan.argv
