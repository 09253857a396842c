from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from hew_loop import process
from hew_loop.core.policy import Command, PlannedCommand, WorktreeSettings
from hew_loop.core.verdict import GateVerdict, Verdict
from hew_loop.engine.gate import GateCache, GateRun, argv_of, command_text, gate_digest, run_commands

PYTEST = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:randomly")


@pytest.fixture
def worktree(tmp_path: Path) -> Path:
    path = tmp_path / "worktree"
    path.mkdir()
    return path


def gate(
    worktree: Path,
    *commands: Command | PlannedCommand,
    timeout_s: float = 60.0,
    stop: anyio.Event | None = None,
    env: dict[str, str] | None = None,
) -> GateRun:
    planned = [c if isinstance(c, PlannedCommand) else PlannedCommand(c) for c in commands]

    async def run() -> GateRun:
        return await run_commands(
            planned,
            worktree=worktree,
            env=process.child_environment(env or {}),
            log=log_of(worktree),
            mark=f"gate-{os.getpid()}-{id(planned)}",
            timeout_s=timeout_s,
            stop=stop,
        )

    return anyio.run(run)


def log_of(worktree: Path) -> Path:
    return worktree.parent / "iter-001" / "gate.log"


def verdicts(run: GateRun) -> list[tuple[Verdict, str]]:
    return [(one.verdict, one.reason) for one in run.per_command]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_every_command_runs_in_the_worktree_and_the_log_has_all_of_it(worktree: Path) -> None:
    (worktree / "sub").mkdir()
    run = gate(
        worktree, "pwd; exec >&2; pwd", PlannedCommand(("pwd",), directory="sub"), PlannedCommand("true", "lint")
    )
    assert (run.verdict, run.reason, run.failing, run.tail, run.exit_code) == (
        "passed",
        "every command passed",
        "",
        "",
        0,
    )
    assert verdicts(run) == [("passed", "exit code 0")] * 3
    assert [one.tail for one in run.per_command] == [f"{worktree}\n" * 2, f"{worktree}/sub\n", ""]
    assert run.gate_verdict == GateVerdict("passed", ("passed", "passed"))
    log = log_of(worktree).read_text()
    assert [line for line in log.split("\n") if line.startswith("$ ")] == [
        "$ pwd; exec >&2; pwd",
        "$ cd sub && pwd",
        "$ true",
    ]
    assert log.count("[passed: exit code 0; ") == 3


def test_a_failing_command_does_not_hide_the_next_one(worktree: Path) -> None:
    run = gate(worktree, "echo one; exit 3", ("sh", "-c", "echo two; exit 4"), "true")
    assert verdicts(run) == [("failed", "exit code 3"), ("failed", "exit code 4"), ("passed", "exit code 0")]
    assert (run.verdict, run.reason, run.failing, run.tail, run.exit_code) == (
        *("failed", "exit code 3", "echo one; exit 3", "one\n", 3),
    )
    assert run.evidence == ("$ echo one; exit 3\none\n[exit code 3]\n\n$ sh -c 'echo two; exit 4'\ntwo\n[exit code 4]")


def test_a_string_goes_through_sh_and_a_list_does_not(worktree: Path) -> None:
    assert gate(worktree, "test -n '' || true && echo ok").verdict == "passed"
    assert gate(worktree, ("echo", "a && false")).per_command[0].tail == "a && false\n"
    assert argv_of("a b") == ("sh", "-c", "a b")
    assert command_text(PlannedCommand(("a", "b c"), directory="d e")) == "cd 'd e' && a 'b c'"


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (("no-such-program",), "cannot start no-such-program: No such file or directory"),
        ("no-such-program", "a program was not found (exit code 127): "),
        (("./not-executable",), "cannot start ./not-executable: Permission denied"),
        ("./not-executable", "a program could not be started (exit code 126): "),
        ((sys.executable, "-m", "no_such_module"), "no_such_module is not installed"),
    ],
)
def test_a_missing_program_could_not_run_and_ends_the_gate(worktree: Path, command: Command, reason: str) -> None:
    (worktree / "not-executable").write_text("x")
    run = gate(worktree, command, "echo not reached")
    assert run.verdict == "could_not_run"
    assert run.reason.startswith(reason)
    assert len(run.per_command) == 1
    assert "not reached" not in log_of(worktree).read_text()


def test_a_worktree_that_is_gone_could_not_run(worktree: Path) -> None:
    worktree.rmdir()
    assert gate(worktree, "true").verdict == "could_not_run"
    assert gate(worktree, PlannedCommand("true", directory="backend")).verdict == "could_not_run"


def test_a_failure_is_told_though_a_later_command_could_not_run(worktree: Path) -> None:
    run = gate(worktree, "exit 1", ("no-such-program",))
    assert (run.verdict, run.failing) == ("failed", "exit 1")


def test_output_larger_than_any_pipe_is_in_the_log_whole(worktree: Path) -> None:
    run = gate(worktree, "head -c 3000000 /dev/zero | tr '\\0' x; echo end; exit 1")
    assert (run.verdict, run.exit_code) == ("failed", 1)
    assert run.tail.endswith("xend\n")
    assert len(run.tail) <= 64 * 1024
    assert log_of(worktree).read_text().count("x" * 1000) >= 3000


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes through /proc")
def test_a_hanging_test_times_out_with_all_that_it_started(worktree: Path) -> None:
    hang = """
        echo before the hang
        setsid sh -c 'echo $$ > own-session; exec sleep 60' &
        sh -c 'echo $$ > background; exec sleep 60' &
        sleep 60
    """
    run = gate(worktree, hang, "echo not reached", timeout_s=2)
    assert verdicts(run) == [("could_not_run", "it did not end within its time limit")]
    assert (run.verdict, run.exit_code, run.tail) == ("could_not_run", None, "before the hang\n")
    log = log_of(worktree).read_text()
    assert "before the hang\n" in log
    assert "[could_not_run: it did not end within its time limit; " in log
    pids = [int((worktree / name).read_text()) for name in ("own-session", "background")]
    assert [pid for pid in pids if is_alive(pid)] == []


def test_a_program_that_exits_0_when_it_is_stopped_at_the_deadline_has_not_passed(worktree: Path) -> None:
    run = gate(worktree, "trap 'exit 0' TERM; echo up; sleep 60 & wait", timeout_s=1)
    assert (run.verdict, run.exit_code) == ("could_not_run", None)


def test_one_deadline_holds_for_all_commands_together(worktree: Path) -> None:
    run = gate(worktree, "sleep 0.6", "sleep 0.6", "sleep 0.6", "sleep 0.6", timeout_s=1)
    assert (run.verdict, run.failing) == ("could_not_run", "sleep 0.6")
    assert len(run.per_command) < 4
    assert gate(worktree, "true", timeout_s=0).reason == "no time was left for it"


def test_a_stopped_gate_could_not_run(worktree: Path) -> None:
    async def stopped_once_it_runs() -> GateRun:
        stop = anyio.Event()
        started = worktree / "started"

        async def stop_it() -> None:
            with anyio.fail_after(20):
                while not started.exists():
                    await anyio.sleep(0.01)
            stop.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stop_it)
            return await run_commands(
                [PlannedCommand("touch started; sleep 60"), PlannedCommand("true")],
                worktree=worktree,
                env=process.child_environment(),
                log=log_of(worktree),
                mark=f"gate-stop-{os.getpid()}",
                timeout_s=60,
                stop=stop,
            )

    assert verdicts(anyio.run(stopped_once_it_runs)) == [("could_not_run", "it was stopped")]


def test_no_gate_and_a_gate_that_only_lints_have_not_tested(worktree: Path) -> None:
    assert replace(gate(worktree), duration_s=0.0) == GateRun("not_tested", "there is no gate")
    lint = gate(worktree, PlannedCommand("true", "lint"))
    assert (lint.verdict, lint.reason, lint.gate_verdict) == (
        *("not_tested", "no command tests anything", GateVerdict("not_tested")),
    )


def test_a_package_that_is_gone_is_not_tested(worktree: Path) -> None:
    run = gate(worktree, "true", PlannedCommand("true", directory="backend"))
    assert verdicts(run) == [("passed", "exit code 0"), ("not_tested", "backend/ is not in this tree")]
    assert run.gate_verdict == GateVerdict("passed", ("passed", "not_tested"))


def test_pytest_that_collects_nothing_has_not_tested(worktree: Path) -> None:
    run = gate(worktree, PYTEST)
    assert verdicts(run) == [("not_tested", "pytest collected no tests")]
    assert (run.verdict, run.exit_code) == ("not_tested", 5)
    (worktree / "test_a.py").write_text("def test_it(): pass\n")
    assert gate(worktree, PYTEST).verdict == "passed"
    (worktree / "test_a.py").write_text("def test_it(): assert 0\n")
    assert gate(worktree, PYTEST).verdict == "failed"


@pytest.mark.parametrize("addopts", ["-q", "-qq"])
def test_quiet_pytest_that_collects_nothing_has_not_tested(worktree: Path, addopts: str) -> None:
    (worktree / "pytest.ini").write_text(f"[pytest]\naddopts = {addopts}\n")
    assert verdicts(gate(worktree, PYTEST)) == [("not_tested", "pytest collected no tests")]


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize(
    ("recipe", "verdict"),
    [
        ("$(PYTHON) -m pytest -p no:cacheprovider", ("not_tested", "pytest collected no tests")),
        ("$(MAKE) inner", ("not_tested", "pytest collected no tests")),
        ("exit 5", ("failed", "exit code 2")),
        ("$(PYTHON) -m no_such_module", ("could_not_run", "no_such_module is not installed")),
        ("no-such-program", None),
    ],
)
def test_make_does_not_hide_what_happened(worktree: Path, recipe: str, verdict: tuple[Verdict, str] | None) -> None:
    makefile = f".PHONY: test inner\ntest:\n\t{recipe}\ninner:\n\t$(PYTHON) -m pytest -p no:cacheprovider\n"
    (worktree / "Makefile").write_text(makefile)
    run = gate(worktree, ("make", "test"), env={"PYTHON": sys.executable, "LC_ALL": "C"})
    if verdict is None:
        assert run.verdict == "could_not_run"
    else:
        assert verdicts(run) == [verdict]


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_a_directory_named_like_the_target_is_not_a_pass(worktree: Path) -> None:
    (worktree / "test").mkdir()
    (worktree / "Makefile").write_text("test:\n\tfalse\n")
    assert gate(worktree, ("make", "test"), env={"LC_ALL": "C"}).verdict == "not_tested"


def test_tests_that_ran_long_before_the_tail_still_count(worktree: Path) -> None:
    many = "echo 'running 3 tests'; yes 'a line of other output' | head -n 20000; echo 'running 0 tests'"
    assert verdicts(gate(worktree, many)) == [("passed", "exit code 0")]
    none = many.replace("running 3 tests", "compiling")
    assert verdicts(gate(worktree, none)) == [("not_tested", "cargo test collected no tests")]


def test_output_that_is_not_text_is_no_problem(worktree: Path) -> None:
    run = gate(worktree, "printf '\\377\\376\\000x'; exit 1")
    assert (run.verdict, run.tail) == ("failed", "\ufffd\ufffd\0x")


# ---- results that are kept


def digest(*commands: PlannedCommand, path: Path | str = "", env: dict[str, str] | None = None) -> str:
    return gate_digest(commands, env={"PATH": str(path), "HOME": str(Path.home()), **(env or {})})


def a_program(folder: Path, name: str, text: str = "#!/bin/sh\n") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)
    return folder / name


def test_a_digest_changes_with_the_commands_and_how_they_run(tmp_path: Path) -> None:
    one = PlannedCommand("just test")
    digests = [
        digest(one),
        digest(one, one),
        digest(replace(one, kind="lint")),
        digest(replace(one, directory="a")),
        digest(PlannedCommand(("just test",))),
        digest(one, env={"RUSTFLAGS": "-D warnings"}),
        gate_digest([one], env={"HOME": str(Path.home())}, worktree=WorktreeSettings(setup="npm ci")),
    ]
    assert len(set(digests)) == len(digests)
    assert digest(one) == digest(one, env={"HEW_SLOT": "3"})


@pytest.mark.parametrize("command", [("mytool", "x"), "FLAG=1 mytool x", "cd sub && mytool", "just test"])
def test_a_new_tool_makes_a_new_digest(tmp_path: Path, command: Command) -> None:
    planned = PlannedCommand(command)
    name = (
        "cargo" if command == "just test" else "mytool"
    )  # what a recipe calls is not seen: the known tools are looked at
    before = digest(planned, path=tmp_path)
    tool = a_program(tmp_path / "real", name)
    (tmp_path / name).symlink_to(tool)
    with_tool = digest(planned, path=tmp_path)
    a_program(tmp_path / "real", name, "#!/bin/sh\necho 2\n")
    updated = digest(planned, path=tmp_path)
    assert len({before, with_tool, updated}) == 3
    assert digest(planned, path=tmp_path) == updated


def test_installing_a_package_makes_a_new_digest(tmp_path: Path) -> None:
    a_program(tmp_path / "venv/bin", "python3")
    packages = tmp_path / "venv/lib/python3.11/site-packages"
    packages.mkdir(parents=True)
    os.utime(packages, ns=(1, 1))
    before = digest(PlannedCommand("python3 -m pytest"), path=tmp_path / "venv/bin")
    (packages / "new").mkdir()
    assert digest(PlannedCommand("python3 -m pytest"), path=tmp_path / "venv/bin") != before


PASSED = GateVerdict("passed", ("passed", "not_tested"))


def test_a_verdict_is_found_again_by_tree_and_digest(tmp_path: Path) -> None:
    cache = GateCache(tmp_path / "hew-loop" / "gate-cache.json")
    kept: Sequence[GateVerdict] = (PASSED, GateVerdict("failed", ("failed",)), GateVerdict("not_tested"))
    for number, verdict in enumerate(kept):
        cache.keep(f"tree{number}", "d", verdict)
    assert [GateCache(cache.path).get(f"tree{number}", "d") for number in range(3)] == list(kept)
    assert cache.get("tree0", "other") is None
    assert cache.get("other", "d") is None
    assert [path.name for path in cache.path.parent.iterdir()] == ["gate-cache.json"]


def test_what_could_not_run_is_never_kept(tmp_path: Path) -> None:
    cache = GateCache(tmp_path / "gate-cache.json")
    cache.keep("tree", "d", GateVerdict("could_not_run", ("could_not_run",)))
    assert cache.get("tree", "d") is None
    assert not cache.path.exists()


def test_the_oldest_entries_make_room(tmp_path: Path) -> None:
    cache = GateCache(tmp_path / "gate-cache.json", max_entries=3)
    for tree in ("a", "b", "c", "a", "d"):
        cache.keep(tree, "d", PASSED)
    assert {tree: cache.get(tree, "d") for tree in "abcd"} == {"a": PASSED, "b": None, "c": PASSED, "d": PASSED}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{torn",
        b"\xff\xfe",
        b"[]",
        b'{"schema_version": 2, "entries": {}}',
        b'{"schema_version": 1, "entries": {"tree:d": {"verdict": "could_not_run"}}}',
        b'{"schema_version": 1, "entries": {"tree:d": {"verdict": "passed", "tests": ["maybe"]}}}',
    ],
)
def test_a_broken_cache_counts_as_empty_and_is_written_anew(tmp_path: Path, content: bytes) -> None:
    cache = GateCache(tmp_path / "gate-cache.json")
    cache.path.write_bytes(content)
    assert cache.get("tree", "d") is None
    cache.keep("tree", "d", PASSED)
    assert cache.get("tree", "d") == PASSED


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = GateCache(tmp_path / "file" / "gate-cache.json")
    cache.keep("tree", "d", PASSED)
    assert cache.get("tree", "d") is None
