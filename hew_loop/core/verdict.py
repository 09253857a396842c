"""What the end of a gate's command means: passed, failed, could not run, or not tested (P9)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["passed", "failed", "could_not_run", "not_tested"]


@dataclass(frozen=True, slots=True)
class CommandEnd:
    """How one command ended. `exit_code` is negative for a signal, None when there is none."""

    exit_code: int | None
    timed_out: bool = False
    not_started: bool = False
    tail: str = ""
    """The end of what it printed on both streams."""
    command: str = ""
    tests_seen: bool = False
    """Output before `tail` shows tests that ran (`shows_tests`)."""


@dataclass(frozen=True, slots=True)
class GateVerdict:
    """What a gate said about one tree: the whole, and each test command for itself, in order."""

    verdict: Verdict
    tests: tuple[Verdict, ...] = ()


def verdict_of(end: CommandEnd) -> tuple[Verdict, str]:
    """The verdict on one command, and the reason in a few words.

    A tool that says it collected nothing is `not_tested`, through make, just or npm as well, unless other tests ran in
    the same command. A command that says nothing and exits 0 has passed: linters and shell scripts do so.
    """
    if end.not_started:
        return "could_not_run", _last_line(end.tail) or "it could not be started"
    if end.timed_out:
        return "could_not_run", "it did not end within its time limit"
    if end.exit_code is None:
        return "could_not_run", "it was stopped"
    output = _plain(end.tail)
    own = _own_lines(output)
    code = _tool_exit_code(end.exit_code, output)
    missing = _missing_program(code, own)
    if missing:
        return "could_not_run", missing
    empty = "" if end.tests_seen or shows_tests(output) else _collected_nothing(code, own, end.command)
    if empty:
        return "not_tested", empty
    if end.exit_code == 0:
        return "passed", "exit code 0"
    if end.exit_code < 0:
        return "failed", f"ended by signal {-end.exit_code}"
    return "failed", f"exit code {end.exit_code}"


def shows_tests(output: str) -> bool:
    """The output holds a test tool's count of tests that ran, whatever their result."""
    return _RAN.search(_plain(output)) is not None


def combine(tests: Sequence[Verdict], lints: Sequence[Verdict] = ()) -> Verdict:
    """The verdict of a whole gate: failed > could not run > passed > not tested.

    A failure is known even if something else could not run. Only a test command makes a tree tested: a passing lint
    does not, and one package's tests do, even if another package has none.
    """
    every = (*tests, *lints)
    if "failed" in every:
        return "failed"
    if "could_not_run" in every:
        return "could_not_run"
    return "passed" if "passed" in tests else "not_tested"


def judge(candidate: Verdict, base: Verdict) -> Verdict:
    """A candidate's verdict beside its base's: "not tested" stands only where the base was not tested either."""
    return "failed" if candidate == "not_tested" and base != "not_tested" else candidate


def judge_gate(candidate: GateVerdict, base: GateVerdict) -> Verdict:
    """`judge` for each test command too, so that one package's tests cannot vanish behind those of another."""
    pairs = zip(candidate.tests, base.tests, strict=False) if len(candidate.tests) == len(base.tests) else ()
    vanished = any(mine == "not_tested" and its != "not_tested" for mine, its in pairs)
    if vanished and candidate.verdict == "passed":
        return "failed"
    return judge(candidate.verdict, base.verdict)


def failure_digest(tail: str, *, max_chars: int = 4000) -> str:
    """The end of the output, for a prompt or a bug: whole lines, no terminal codes, what a progress bar showed last."""
    lines = (line.rstrip("\r").rpartition("\r")[2].rstrip() for line in _plain(tail).split("\n"))
    text = re.sub(r"[^\n\t\x20-\x7e\xa0-\U0010ffff]", "", "\n".join(lines)).strip("\n")
    if len(text) <= max_chars:
        return text
    cut = text[-max_chars:]
    starts_a_line = text[-max_chars - 1] == "\n"
    rest = cut.partition("\n")[2]
    return cut if starts_a_line or not rest else rest


@dataclass(frozen=True, slots=True)
class _Tool:
    """How one test tool says that it collected nothing, with which exit codes, and that something ran."""

    name: str
    nothing: str
    ran: str
    codes: frozenset[int] = frozenset({0})


# Each line from the tool's own output; a tool that ends with an error when it finds nothing lists that code as well.
_TOOLS = (
    _Tool(
        "pytest",
        r"(=+ )?(no tests ran|\d+ deselected(, \d+ warnings?)?) in [\d.]+s.*",
        r"(=+ )?(\d+ [\w ]{1,30}, ){0,9}\d+ (passed|failed|skipped|xfailed|xpassed|errors?)"
        r"(, \d+ [\w ]{1,30}){0,9} in [\d.]+s",
        frozenset({5}),
    ),
    _Tool("unittest", r"Ran 0 tests in .*|NO TESTS RAN.*", r"Ran [1-9]\d* tests? in ", frozenset({0, 5})),
    _Tool(
        "go test",
        r"\?? *\t\S+\s+(\[no test files\]|coverage: 0\.0% of statements)|ok +\t.*\[no tests to run\]",
        r"(ok|FAIL) *\t\S+\s(?![^\n]*\[no tests to run\])|[ \t]*--- (PASS|FAIL|SKIP): ",
    ),
    _Tool("go test", r"no packages to test", r"FAIL$", frozenset({0, 1})),
    _Tool("cargo test", r"running 0 tests", r"running [1-9]\d* tests?$"),
    _Tool("nextest", r"error: no tests to run.*", r"[ \t]+Summary \[[^\]]*\] +[1-9]\d* tests? run", frozenset({0, 4})),
    _Tool("jest", r"No tests found, exiting with code \d", r"Tests: +[^\n]*\b[1-9]\d* total", frozenset({0, 1})),
    _Tool(
        "vitest", r"No test files found, exiting with code \d", r"[ \t]*Tests +[^\n]*\([1-9]\d*\)$", frozenset({0, 1})
    ),
    _Tool("node --test", r"[#ℹ] tests 0", r"[#ℹ] tests [1-9]"),
    _Tool("mocha", r"\s*0 passing\b.*", r"[ \t]+[1-9]\d* (passing|failing|pending)\b"),
    _Tool("mocha", r"Error: No test files found.*", r"[ \t]+[1-9]\d* passing\b", frozenset({1})),
    _Tool("bun test", r"(error: )?No tests found!.*", r"[ \t]*[1-9]\d* (pass|fail)$", frozenset({0, 1})),
    _Tool("rspec", r"0 examples, 0 failures", r"[1-9]\d* examples?, "),
    _Tool("minitest", r"0 (runs|tests), 0 assertions.*", r"[1-9]\d* (runs|tests), "),
    _Tool(
        "mix test",
        r"There are no tests to run|(0 doctests, )?0 tests, 0 failures.*",
        r"(\d+ (doctests?|properties|property), )*[1-9]\d* (tests?|doctests?|properties|property), ",
    ),
    _Tool(
        "dotnet test",
        r"\s*No test is available in .*|\s*No test matches the given testcase filter.*",
        r"[ \t]*Total tests: [1-9]|[ \t]*(Passed|Failed|Skipped)! +- ",
    ),
    _Tool("maven", r"(\[INFO\] )?No tests (to run|were executed).*", r"(\[\w+\] )?Tests run: [1-9]"),
    _Tool(
        "gradle",
        r"> Task :(\S+:)?test NO-SOURCE",
        r"> Task :(\S+:)?test( UP-TO-DATE| FROM-CACHE| FAILED)?$",
    ),
    _Tool("ctest", r"No tests were found!!!", r"\d+% tests passed, "),
    _Tool("TAP", r"1\.\.0\b.*", r"(not )?ok [1-9]"),
)
_NOTHING = tuple((tool, re.compile(tool.nothing)) for tool in _TOOLS)
_RAN = re.compile("|".join(f"^(?:{tool.ran})" for tool in _TOOLS), re.MULTILINE)

_TERMINAL_CODES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_])")
_MAKE_ERROR = re.compile(r"^g?make(?:\[(\d+)\])?: \*\*\* \[.*\] Error (\d+)", re.MULTILINE)
_MAKE_IDLE = re.compile(r"g?make(\[\d+\])?: ('\S+' is up to date\.|Nothing to be done for '\S+'\.)")
_WRAPPER_NOISE = re.compile(
    r"g?make(\[\d+\])?: (\*\*\*|Entering|Leaving|Target .* not remade)"
    r"|error: [Rr]ecipe `|npm (warn|error|ERR!|WARN)|error Command failed|info Visit |\s*ELIFECYCLE|error: script "
    r"|> (?!Task )|\$ "
)
# At the end of the output only: a failing test may quote such a line from a program that it drives.
_MISSING = (
    re.compile(r"\S*python[\d.]*: No module named (?P<name>\S+)"),
    re.compile(r"g?make(\[\d+\])?: (?P<name>\S+): (No such file or directory|Permission denied)"),
    re.compile(r"error: Failed to spawn: `(?P<name>[^`]+)`"),
    re.compile(r"Command not found: (?P<name>\S+)"),
    re.compile(r"bundler: command not found: (?P<name>\S+)"),
    re.compile(r"error: no such command: `(?P<name>[^`]+)`"),
)
_LAST_LINES = 5


def _plain(text: str) -> str:
    return _TERMINAL_CODES.sub("", text.replace("\r\n", "\n"))


def _own_lines(output: str) -> list[str]:
    """Lines of the tools themselves, without what make, just and the package managers say around them."""
    lines = (line.rstrip() for line in output.split("\n"))
    return [line for line in lines if line and not _WRAPPER_NOISE.match(line)]


def _tool_exit_code(exit_code: int, output: str) -> int:
    """make ends with 2 whatever the tool's code was: the innermost make names it, unless several recipes failed."""
    errors = [(int(depth or 0), int(code)) for depth, code in _MAKE_ERROR.findall(output)]
    deepest = max((depth for depth, _ in errors), default=0)
    codes = {code for depth, code in errors if depth == deepest}
    return codes.pop() if exit_code == 2 and len(codes) == 1 else exit_code


def _missing_program(code: int, own: Sequence[str]) -> str:
    if code in (126, 127):
        what = "a program was not found" if code == 127 else "a program could not be started"
        return _with_line(f"{what} (exit code {code})", own)
    matches = (pattern.match(line) for line in own[-_LAST_LINES:] for pattern in _MISSING) if code else ()
    found = next((match for match in matches if match), None)
    return f"{found['name']} is not installed" if found else ""


def _collected_nothing(code: int, own: Sequence[str], command: str) -> str:
    for tool, nothing in _NOTHING:
        if code in tool.codes and any(nothing.fullmatch(line) for line in own):
            return f"{tool.name} collected no tests"
    if code == 5 and len(own) <= 1 and "pytest" in " ".join((command, *own)):
        return "pytest collected no tests"  # with -qq it only exits; just repeats the recipe's line
    if code == 0 and own and all(_MAKE_IDLE.match(line) for line in own):
        # The old trap of a directory named like the target: green for ever, and nothing runs.
        return "make found nothing to do (is the target declared .PHONY?)"
    return ""


def _with_line(reason: str, own: Iterable[str]) -> str:
    line = _last_line("\n".join(own))
    return f"{reason}: {line}" if line else reason


def _last_line(text: str) -> str:
    return next((line.strip()[:200] for line in reversed(failure_digest(text).split("\n")) if line.strip()), "")
