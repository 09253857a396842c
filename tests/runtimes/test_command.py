from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest

from hew_loop.core.iteration import AgentReport, FailureClass
from hew_loop.core.policy import RuntimeSettings
from hew_loop.errors import UsageError
from hew_loop.runtimes.base import AgentRequest, Ending, Invocation
from hew_loop.runtimes.command import CommandReader, CommandRuntime
from tests.support.recorded import AGENTS, Case, cases


def settings(*command: str, **changes: object) -> RuntimeSettings:
    return RuntimeSettings(name="mine", command=command, **changes)  # type: ignore[arg-type]


def request(*, task: str = "T-1", prompt: str = "Do it.", model: str | None = "m") -> AgentRequest:
    return AgentRequest(
        task=task, prompt=prompt, prompt_file=Path("/run/prompt.md"), worktree=Path("/trees/w1"), model=model
    )


def report(
    stdout: bytes = b"",
    *,
    ending: Ending = "exited",
    exit_code: int | None = 0,
    stderr: bytes = b"",
    success: object = (0,),
) -> AgentReport:
    reader = CommandRuntime(settings("agent", success=success)).reader()
    reader.feed(stdout)
    assert not reader.is_final
    return reader.report(ending=ending, exit_code=exit_code, stderr_tail=stderr)


def test_placeholders_are_filled_element_by_element() -> None:
    runtime = CommandRuntime(
        settings("my-agent", "--task={task_id}", "{model}", "{prompt_file}", "in {worktree}", "{{task_id}}")
    )

    assert runtime.invocation(request(task="a b; rm -rf {model}")) == Invocation(
        argv=(
            "my-agent", "--task=a b; rm -rf {model}", "m", "/run/prompt.md", "in /trees/w1", "{task_id}",
        ),
        stdin=b"Do it.",
    )  # fmt: skip


def test_to_plan_it_is_started_as_configured_with_a_name_in_place_of_the_task() -> None:
    plan = replace(request(), purpose="plan")

    assert CommandRuntime(settings("a", "{task_id}")).invocation(plan) == Invocation(("a", "planner"), stdin=b"Do it.")


def test_a_model_that_is_not_set_is_empty() -> None:
    assert CommandRuntime(settings("a", "-m", "{model}")).invocation(request(model=None)).argv == ("a", "-m", "")


def test_a_prompt_by_file_leaves_stdin_empty() -> None:
    runtime = CommandRuntime(settings("a", "{prompt_file}", prompt="file"))

    assert runtime.invocation(request()) == Invocation(argv=("a", "/run/prompt.md"))


@pytest.mark.parametrize(
    ("command", "argv"),
    [(("a", "-p", "{prompt}", "-x"), ("a", "-p", "Do {it}.", "-x")), (("a", "-x"), ("a", "-x", "Do {it}."))],
)
def test_a_prompt_by_argument_stands_where_it_is_named_else_last(
    command: tuple[str, ...], argv: tuple[str, ...]
) -> None:
    runtime = CommandRuntime(settings(*command, prompt="arg"))

    assert runtime.invocation(request(prompt="Do {it}.")) == Invocation(argv=argv)


def test_a_prompt_too_long_for_an_argument_is_refused() -> None:
    runtime = CommandRuntime(settings("a", prompt="arg"))
    assert runtime.invocation(request(prompt="x" * 100_000)).argv[1] == "x" * 100_000

    with pytest.raises(UsageError, match=r"100,002 bytes.*at most 100,000") as refused:
        runtime.invocation(request(prompt="ä" * 50_001))
    assert 'prompt = "stdin"' in refused.value.hint


def test_a_value_that_no_argument_can_hold_is_made_one() -> None:
    runtime = CommandRuntime(settings("a", "{task_id}"))

    assert runtime.invocation(request(task="T\0-\ud800\udc80")).argv == ("a", "T-??")


@pytest.mark.parametrize("element", ["{task}", "{}", "{", "a}b", "${HOME}", "{task_id!r}", "{{x}"])
def test_an_unknown_placeholder_or_a_lone_brace_is_refused_at_once(element: str) -> None:
    with pytest.raises(UsageError, match=r"\[runtime.mine\]") as refused:
        CommandRuntime(settings("a", element))
    assert "{task_id}, {model}, {prompt_file}, {worktree}, {prompt}" in refused.value.hint
    assert "{{ and }}" in refused.value.hint


@pytest.mark.parametrize("command", [(), ("",)])
def test_a_runtime_without_a_command_is_refused(command: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="no command"):
        CommandRuntime(settings(*command))


def test_a_prompt_placeholder_needs_a_prompt_by_argument() -> None:
    with pytest.raises(UsageError, match="goes by stdin"):
        CommandRuntime(settings("a", "{prompt}"))


def test_success_is_an_exit_code_of_the_list() -> None:
    assert report(b"Done.\n") == AgentReport(final_text="Done.\n")
    assert report(b"", exit_code=3, success=(0, 3)) == AgentReport()


@pytest.mark.parametrize(
    ("ending", "exit_code", "failure"),
    [
        ("exited", 1, "agent_failed"),
        ("exited", 75, "rate_limit"),
        ("exited", -9, "killed"),
        ("exited", None, "spawn_error"),
        ("not_started", None, "spawn_error"),
        ("timed_out", -15, "timed_out"),
        ("stalled", 0, "stalled"),
        ("cancelled", 0, "cancelled"),
    ],
)
def test_every_other_end_is_a_failure(ending: Ending, exit_code: int | None, failure: FailureClass) -> None:
    assert report(b"out\n", ending=ending, exit_code=exit_code, stderr=b"err\xff\n") == AgentReport(
        failure=failure, message="out\n\nerr\ufffd", final_text="out\n"
    )


TEXTS = [case for agent in AGENTS.iterdir() if (agent / "index.jsonl").exists() for case in cases(agent.name)]


@pytest.mark.parametrize("case", [case for case in TEXTS if case.is_text], ids=lambda case: case.agent)
def test_an_agent_recorded_without_events_is_judged_as_any_other_program(case: Case) -> None:
    assert case.replay(CommandReader()).failure == case.expected


def test_a_silent_failure_says_so() -> None:
    assert report(exit_code=4).message == "exit code 4, and it printed nothing"


def test_zero_may_be_left_out_of_the_success_codes() -> None:
    assert report(exit_code=0, success=(7,)).failure == "agent_failed"


def test_three_hundred_megabytes_of_output_take_constant_memory() -> None:
    reader = CommandRuntime(settings("agent")).reader()
    piece = b"0123456789abcdef" * 4096
    tracemalloc.start()
    try:
        for _ in range(300 * 1024 * 1024 // len(piece)):
            reader.feed(piece)
        reader.feed(b"the end")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 8 * 1024 * 1024
    text = reader.report(ending="exited", exit_code=0, stderr_tail=b"").final_text
    assert (len(text), text[-10:]) == (1024 * 1024, "defthe end")
