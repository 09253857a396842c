from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from hew_loop import process
from hew_loop.core.policy import WorktreeSettings
from hew_loop.engine.worktree_setup import SetupEnd, set_up

SETTINGS = WorktreeSettings(setup="echo x >> ../count", setup_inputs=("lock.json", "packages/*/package.json"))
RAN = SetupEnd(ok=True, ran=True)
READY = SetupEnd(ok=True)


@pytest.fixture
def worktree(tmp_path: Path) -> Path:
    path = tmp_path / "w1"
    path.mkdir()
    (path / ".git").write_text("gitdir: elsewhere\n")
    (path / "lock.json").write_text("1")
    return path


def prepare(worktree: Path, settings: WorktreeSettings = SETTINGS, *, timeout_s: float = 60.0) -> SetupEnd:
    async def run() -> SetupEnd:
        return await set_up(
            worktree,
            settings,
            env=process.child_environment(dict(settings.env)),
            log=worktree.parent / "setup.log",
            mark=f"setup-{os.getpid()}-{id(settings)}",
            timeout_s=timeout_s,
            stamp=stamp_of(worktree),
        )

    return anyio.run(run)


def stamp_of(worktree: Path) -> Path:
    return worktree.parent / "w1.setup"


def times_run(worktree: Path) -> int:
    count = worktree.parent / "count"
    return count.read_text().count("x") if count.exists() else 0


def test_without_a_setup_a_worktree_is_ready(worktree: Path) -> None:
    assert prepare(worktree, WorktreeSettings()) == READY
    assert not stamp_of(worktree).exists()


def test_setup_runs_once_for_the_same_inputs(worktree: Path) -> None:
    assert [prepare(worktree), prepare(worktree)] == [RAN, READY]
    (worktree / "lock.json").write_text("2")
    assert [prepare(worktree), prepare(worktree)] == [RAN, READY]
    assert times_run(worktree) == 2


def test_setup_runs_again_for_a_new_match_a_lost_input_and_another_command(worktree: Path) -> None:
    assert prepare(worktree) == RAN
    (worktree / "packages" / "a").mkdir(parents=True)
    (worktree / "packages" / "a" / "package.json").write_text("{}")
    assert [prepare(worktree), prepare(worktree)] == [RAN, READY]
    (worktree / "lock.json").unlink()
    assert [prepare(worktree), prepare(worktree)] == [RAN, READY]
    other = replace(SETTINGS, setup=("sh", "-c", "echo x >> ../count"))
    assert [prepare(worktree, other), prepare(worktree, other)] == [RAN, READY]


def test_what_is_no_input_does_not_matter(worktree: Path) -> None:
    assert prepare(worktree) == RAN
    (worktree / "other.txt").write_text("new")
    assert prepare(worktree) == READY


def test_a_worktree_made_anew_under_the_same_name_is_not_ready(worktree: Path) -> None:
    assert prepare(worktree) == RAN
    (worktree / ".git").unlink()
    (worktree / ".git").write_text("gitdir: elsewhere\n")
    os.utime(worktree / ".git", ns=(1, 1))
    assert prepare(worktree) == RAN


def test_a_pristine_worktree_is_prepared_each_time(worktree: Path) -> None:
    pristine = replace(SETTINGS, pristine=True)
    assert [prepare(worktree, pristine), prepare(worktree, pristine)] == [RAN, RAN]


def test_a_failed_setup_says_why_and_leaves_no_stamp(worktree: Path) -> None:
    assert prepare(worktree) == RAN
    failing = replace(SETTINGS, setup="echo no network >&2; exit 3")
    assert prepare(worktree, failing) == SetupEnd(
        ok=False,
        message="worktree setup `echo no network >&2; exit 3`: exit code 3\nno network",
        ran=True,
    )
    # It may have torn down what the one before had built.
    assert prepare(worktree) == RAN


def test_a_missing_program_and_a_time_out_are_failures(worktree: Path) -> None:
    missing = prepare(worktree, replace(SETTINGS, setup=("no-such-program", "ci")))
    assert (missing.ok, missing.message.split("\n")[0]) == (
        *(False, "worktree setup `no-such-program ci`: cannot start no-such-program: No such file or directory"),
    )
    late = prepare(worktree, replace(SETTINGS, setup="sleep 60"), timeout_s=0.5)
    assert late == SetupEnd(
        ok=False, message="worktree setup `sleep 60`: it did not end within its time limit", ran=True
    )
    assert not stamp_of(worktree).exists()


@pytest.mark.parametrize("words", ["make: 'setup' is up to date.", "0 examples, 0 failures"])
def test_a_setup_that_exits_0_is_good_whatever_it_says(worktree: Path, words: str) -> None:
    assert prepare(worktree, replace(SETTINGS, setup=("echo", words))) == RAN


def test_only_ordinary_files_inside_the_worktree_are_read(worktree: Path, tmp_path: Path) -> None:
    os.mkfifo(worktree / "pipe")
    (worktree / "endless").symlink_to("/dev/zero")
    (worktree / "outside").symlink_to(tmp_path)
    (tmp_path / "secret").write_text("1")
    settings = replace(SETTINGS, setup_inputs=("pipe", "endless", "outside/secret", "../secret", "/etc/*", "a\0b"))
    assert prepare(worktree, settings) == RAN
    (tmp_path / "secret").write_text("2")
    assert prepare(worktree, settings) == READY
    (worktree / "endless").unlink()
    (worktree / "endless").symlink_to("/dev/null")
    assert prepare(worktree, settings) == RAN


def test_a_stamp_that_cannot_be_read_counts_as_none(worktree: Path) -> None:
    stamp_of(worktree).write_bytes(b"\xff\xfe")
    assert prepare(worktree) == RAN
