from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hew_loop.core.verdict import (
    CommandEnd,
    GateVerdict,
    Verdict,
    combine,
    failure_digest,
    judge,
    judge_gate,
    shows_tests,
    verdict_of,
)

VERDICTS = st.sampled_from(("passed", "failed", "could_not_run", "not_tested"))
MAKE_127 = "x -q\nmake: x: No such file or directory\nmake: *** [Makefile:4: x] Error 127\n"
MAKE_PYTEST = "python3 -m pytest\n/usr/bin/python3: No module named pytest\nmake: *** [Makefile:2: test] Error 1"
SUB_MAKE = "no tests ran in 0.5s\nmake[1]: *** [Makefile:5: x] Error 5\nmake: *** [Makefile:3: test] Error 2\n"
TWO_RECIPES = "no tests ran in 0.1s\nmake: *** [Makefile:2: a] Error 5\nmake: *** [Makefile:4: b] Error 1\n"
CARGO = "\nrunning 0 tests\n\ntest result: ok. 0 passed; 0 failed\n\n   Doc-tests cc\n\nrunning 0 tests\n"
DOTNET = "No test is available in /x/bin/App.dll. Make sure that test discoverer & executors are registered\n"


def says(tail: str, exit_code: int = 0) -> tuple[Verdict, str]:
    return verdict_of(CommandEnd(exit_code, tail=tail))


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (CommandEnd(None, not_started=True, tail="cannot start x: No such file"), "cannot start x: No such file"),
        (CommandEnd(None, timed_out=True, tail="1 passed in 3s"), "it did not end within its time limit"),
        (CommandEnd(None), "it was stopped"),
        (CommandEnd(127, tail="sh: 1: x: not found\n"), "a program was not found (exit code 127): sh: 1: x: not found"),
        (CommandEnd(126), "a program could not be started (exit code 126)"),
        (CommandEnd(2, tail=MAKE_127), "a program was not found (exit code 127): make: x: No such file or directory"),
        (CommandEnd(1, tail="/usr/bin/python3: No module named pytest\n"), "pytest is not installed"),
        (
            CommandEnd(2, tail=MAKE_PYTEST),
            "pytest is not installed",
        ),
        (CommandEnd(2, tail="error: Failed to spawn: `pytest`\n  Caused by: x\n"), "pytest is not installed"),
        (CommandEnd(1, tail="Command not found: pytest\n"), "pytest is not installed"),
        (CommandEnd(101, tail="error: no such command: `nextest`\n"), "nextest is not installed"),
    ],
)  # fmt: skip
def test_what_kept_the_tests_from_running_is_could_not_run(end: CommandEnd, reason: str) -> None:
    assert verdict_of(end) == ("could_not_run", reason)


NOTHING_COLLECTED = [
    ("pytest", 5, "collected 0 items\n\n===== no tests ran in 0.56s =====\n"),
    ("pytest", 5, "\nno tests ran in 0.55s\n"),
    ("pytest", 5, "\x1b[33m\x1b[33mno tests ran\x1b[0m\x1b[33m in 0.00s\x1b[0m\x1b[0m\n"),
    ("pytest", 5, "\n3 deselected in 0.01s\n"),
    ("pytest", 2, "pytest -q\n\nno tests ran in 0.55s\nmake: *** [Makefile:2: test] Error 5\n"),
    ("pytest", 2, SUB_MAKE),
    ("pytest", 5, "pytest -q\nno tests ran in 0.55s\nerror: Recipe `test` failed on line 2 with exit code 5\n"),
    ("pytest", 5, "\n> x@1.0.0 test\n> pytest\n\nno tests ran in 0.5s\nnpm ERR! code 5\n"),
    ("unittest", 0, "\n------\nRan 0 tests in 0.000s\n\nOK\n"),
    ("unittest", 5, "\n------\nRan 0 tests in 0.000s\n\nNO TESTS RAN\n"),
    ("go test", 0, "?   \tex.org/m\t[no test files]\n?   \tex.org/m/b\t[no test files]\n"),
    ("go test", 0, "ok  \tex.org/m\t0.002s [no tests to run]\n"),
    ("go test", 0, "testing: warning: no tests to run\nPASS\nok  \tex.org/m\t0.002s [no tests to run]\n"),
    ("go test", 0, "\tex.org/m\t\tcoverage: 0.0% of statements\n"),
    ("go test", 1, 'go: warning: "./..." matched no packages\nno packages to test\n'),
    ("cargo test", 0, CARGO),
    ("nextest", 4, "     Summary [   0.000s] 0 tests run: 0 passed, 0 skipped\nerror: no tests to run\n"),
    ("jest", 1, "No tests found, exiting with code 1\nRun with `--passWithNoTests` to exit with code 0\n"),
    ("jest", 0, "No tests found, exiting with code 0\n"),
    ("vitest", 1, "\n RUN  v2.0.0 /x\n\n\nNo test files found, exiting with code 1\n"),
    ("node --test", 0, "TAP version 13\n1..0\n# tests 0\n# pass 0\n"),
    ("node --test", 0, "ℹ tests 0\nℹ suites 0\nℹ pass 0\n"),
    ("mocha", 0, "\n\n  0 passing (1ms)\n\n"),
    ("mocha", 1, 'Error: No test files found: "test"\n'),
    ("bun test", 1, "bun test v1.1.0\nNo tests found!\n"),
    ("rspec", 0, "No examples found.\n\nFinished in 0.0002 seconds\n0 examples, 0 failures\n"),
    ("minitest", 0, "0 runs, 0 assertions, 0 failures, 0 errors, 0 skips\n"),
    ("mix test", 0, "There are no tests to run\n"),
    ("mix test", 0, "\nFinished in 0.00 seconds\n0 tests, 0 failures\n"),
    ("dotnet test", 0, DOTNET),
    ("maven", 0, "[INFO] No tests to run.\n[INFO] BUILD SUCCESS\n"),
    ("gradle", 0, "> Task :compileTestJava NO-SOURCE\n> Task :test NO-SOURCE\n\nBUILD SUCCESSFUL in 1s\n"),
    ("ctest", 0, "Test project /x\nNo tests were found!!!\n"),
    ("TAP", 0, "1..0\n"),
]  # fmt: skip


@pytest.mark.parametrize(("tool", "code", "tail"), NOTHING_COLLECTED)
def test_a_tool_that_collected_nothing_is_not_tested(tool: str, code: int, tail: str) -> None:
    assert says(tail, code) == ("not_tested", f"{tool} collected no tests")
    assert says(tail.replace("\n", "\r\n"), code) == ("not_tested", f"{tool} collected no tests")


SOMETHING_RAN = [
    "..\n2 passed in 0.01s\n",
    "=== 1 failed, 3 passed, 2 warnings in 125.32s (0:02:05) ===\n",
    "=== 2 skipped in 0.02s ===\n",
    "1 passed, 2 subtests passed in 0.01s\n",
    "Ran 1 test in 0.000s\n\nOK\n",
    "ok  \tex.org/m\t0.002s\n?   \tex.org/b\t[no test files]\n",
    "ok  \tex.org/m\t(cached)\n",
    "FAIL\tex.org/m [build failed]\n",
    "running 0 tests\n\nrunning 1 test\ntest a ... ok\n",
    "     Summary [   0.500s] 12 tests run: 12 passed, 0 skipped\n",
    "Tests:       1 failed, 2 passed, 3 total\n",
    "      Tests  3 passed (3)\n",
    "# tests 1\n",
    "ℹ tests 14\n",
    "  3 passing (5ms)\n",
    " 3 pass\n 0 fail\n",
    "1 example, 0 failures\n",
    "3 runs, 5 assertions, 0 failures, 0 errors, 0 skips\n",
    "1 doctest, 2 tests, 0 failures\n",
    "Passed!  - Failed:     0, Passed:     3, Skipped:     0, Total:     3\n",
    "[INFO] Tests run: 4, Failures: 0\n",
    "> Task :a:test NO-SOURCE\n> Task :b:test\n",
    "> Task :test UP-TO-DATE\n",
    "100% tests passed, 0 tests failed out of 7\n",
    "ok 1 - starts\n1..1\n",
]


@pytest.mark.parametrize("tail", SOMETHING_RAN)
@pytest.mark.parametrize("empty_package", ["", "running 0 tests\n", "?   \tex.org/x\t[no test files]\n"])
def test_a_tool_that_ran_something_is_judged_by_its_exit_code(tail: str, empty_package: str) -> None:
    assert shows_tests(tail)
    assert says(empty_package + tail, 0) == ("passed", "exit code 0")
    assert says(empty_package + tail, 1) == ("failed", "exit code 1")


@pytest.mark.parametrize(("tool", "code", "tail"), NOTHING_COLLECTED)
def test_what_ran_before_the_tail_counts(tool: str, code: int, tail: str) -> None:
    assert not shows_tests(tail)
    verdict, _ = verdict_of(CommandEnd(code, tail=tail, tests_seen=True))
    assert verdict == ("failed" if code else "passed"), tool


@pytest.mark.parametrize(
    ("code", "tail", "reason"),
    [
        (1, "", "exit code 1"),
        (5, "", "exit code 5"),
        (-11, "", "ended by signal 11"),
        (2, "ERROR collecting tests/test_a.py\n===== no tests ran in 0.1s =====\n", "exit code 2"),
        (1, "0 examples, 0 failures, 1 error occurred outside of examples\n", "exit code 1"),
        (1, "> Task :test NO-SOURCE\nBUILD FAILED\n", "exit code 1"),
        (2, TWO_RECIPES, "exit code 2"),
        (2, "make: *** No rule to make target 'test'.  Stop.\n", "exit code 2"),
        (1, "/usr/bin/python3: No module named x\n" + "quoted by a failing test\n" * 6, "exit code 1"),
        (1, "E   ModuleNotFoundError: No module named 'pkg'\n", "exit code 1"),
    ],
)  # fmt: skip
def test_any_other_bad_end_is_failed(code: int, tail: str, reason: str) -> None:
    assert says(tail, code) == ("failed", reason)


@pytest.mark.parametrize("tail", ["", "All checks passed!\n", "checked 0 tests directories\n", "see: No tests found\n"])
def test_a_command_that_says_nothing_of_tests_and_exits_0_has_passed(tail: str) -> None:
    assert says(tail) == ("passed", "exit code 0")


def test_pytest_that_only_exits_with_5_collected_nothing() -> None:
    expected = ("not_tested", "pytest collected no tests")
    assert verdict_of(CommandEnd(5, command="python3 -m pytest -qq")) == expected
    assert verdict_of(CommandEnd(5, tail="pytest -qq\nerror: Recipe `test` failed", command="just test")) == expected
    assert verdict_of(CommandEnd(5, tail="boom\nbang\n", command="pytest -qq"))[0] == "failed"


@pytest.mark.parametrize("tail", ["make: 'test' is up to date.\n", "make[1]: Nothing to be done for 'test'.\n"])
def test_make_with_nothing_to_do_has_not_tested(tail: str) -> None:
    assert says(tail) == ("not_tested", "make found nothing to do (is the target declared .PHONY?)")
    assert says("./run-tests\n" + tail) == ("passed", "exit code 0")


@pytest.mark.parametrize(
    "filler", ["\n" * 60_000, "a, " * 20_000, "= " * 30_000, "\t" * 60_000, "1 " * 30_000, "1 passed, " * 6000]
)
def test_hostile_output_is_read_in_bounded_time(filler: str) -> None:
    assert says(filler, 1) == ("failed", "exit code 1")  # a quadratic pattern would hang here


@pytest.mark.parametrize(
    ("tests", "lints", "verdict"),
    [
        ((), (), "not_tested"),
        (("passed",), ("passed",), "passed"),
        (("passed", "not_tested"), (), "passed"),
        (("not_tested", "not_tested"), ("passed",), "not_tested"),
        ((), ("passed",), "not_tested"),
        (("passed",), ("failed",), "failed"),
        (("passed",), ("could_not_run",), "could_not_run"),
        (("could_not_run",), ("failed",), "failed"),
        (("failed", "could_not_run"), (), "failed"),
    ],
)
def test_commands_are_combined(tests: tuple[Verdict, ...], lints: tuple[Verdict, ...], verdict: Verdict) -> None:
    assert combine(tests, lints) == verdict


@given(st.lists(VERDICTS), st.lists(VERDICTS))
def test_only_a_passing_test_command_makes_a_tree_pass(tests: list[Verdict], lints: list[Verdict]) -> None:
    if combine(tests, lints) == "passed":
        assert "passed" in tests
        assert not {"failed", "could_not_run"} & {*tests, *lints}


@given(VERDICTS, VERDICTS)
def test_not_tested_lands_only_where_the_base_was_not_tested(candidate: Verdict, base: Verdict) -> None:
    judged = judge(candidate, base)
    assert judged == (candidate if candidate != "not_tested" or base == "not_tested" else "failed")
    assert judge_gate(GateVerdict(candidate), GateVerdict(base)) == judged


def test_tests_of_one_package_cannot_vanish_behind_those_of_another() -> None:
    both = GateVerdict("passed", ("passed", "passed"))
    one = GateVerdict("passed", ("passed", "not_tested"))
    assert judge_gate(one, both) == "failed"
    assert judge_gate(one, one) == "passed"
    assert judge_gate(both, one) == "passed"
    assert (
        judge_gate(GateVerdict("not_tested", ("not_tested",)), GateVerdict("not_tested", ("not_tested",)))
        == "not_tested"
    )
    assert judge_gate(GateVerdict("could_not_run", ("not_tested", "could_not_run")), both) == "could_not_run"


def test_a_digest_is_the_end_of_the_output_from_the_start_of_a_line() -> None:
    lines = [f"line {number}" for number in range(1000)]
    assert failure_digest("\n".join(lines) + "\n", max_chars=20) == "line 998\nline 999"
    assert failure_digest("aa\nbbb\ncc", max_chars=6) == "bbb\ncc"


def test_a_digest_has_no_terminal_codes_and_only_the_last_state_of_a_progress_bar() -> None:
    tail = "10%\r50%\r100%\r\n\x1b[31mred\x1b[0m \x1b]0;title\x07bell\x07 \x00\n\n"
    assert failure_digest(tail) == "100%\nred bell "


def test_a_digest_of_one_long_line_is_its_end() -> None:
    assert failure_digest("a" * 50 + "b" * 10, max_chars=10) == "b" * 10


@given(st.text(), st.integers(1, 50))
def test_a_digest_is_never_longer_than_asked(text: str, max_chars: int) -> None:
    assert len(failure_digest(text, max_chars=max_chars)) <= max_chars
