"""The run lock between real processes: who has it, who is told so, and what a dead holder leaves."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hew_loop.engine.lock import Holder, RunLock
from hew_loop.errors import EXIT_LOCKED, LockHeld, RepoError

HOLD = """\
import sys
from pathlib import Path
from hew_loop.engine.lock import RunLock
with RunLock.acquire(Path(sys.argv[1]), run_id="loop-first"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hew-loop" / "run.lock"


@pytest.fixture
def first(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that holds the lock for `loop-first` until its stdin is closed."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def test_the_lock_names_its_holder_and_the_file_stays(path: Path) -> None:
    with RunLock.acquire(path, run_id="loop-1"):
        assert RunLock.holder(path) == Holder(os.getpid(), "loop-1")
        assert path.read_text() == f'{{"pid": {os.getpid()}, "run_id": "loop-1"}}\n'
    assert RunLock.holder(path) is None
    assert path.exists()


def test_a_second_run_is_told_which_run_holds_the_lock(path: Path, first: subprocess.Popen[bytes]) -> None:
    with pytest.raises(LockHeld) as caught:
        RunLock.acquire(path, run_id="loop-second")
    message = f"Run loop-first (pid {first.pid}) holds the lock of this repository."
    assert (caught.value.message, caught.value.hint) == (message, "wait, or: loop cancel loop-first")
    assert caught.value.exit_code == EXIT_LOCKED
    assert RunLock.holder(path) == Holder(first.pid, "loop-first")


def test_a_holder_that_was_killed_is_no_obstacle(path: Path, first: subprocess.Popen[bytes]) -> None:
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert RunLock.holder(path) is None
    with RunLock.acquire(path, run_id="2"):
        assert RunLock.holder(path) == Holder(os.getpid(), "2")


def test_a_lock_that_is_given_back_within_half_a_second_is_waited_for(path: Path) -> None:
    lock = RunLock.acquire(path, run_id="loop-1")
    timer = threading.Timer(0.05, lock.release)
    timer.start()
    with RunLock.acquire(path, run_id="loop-2"):
        assert RunLock.holder(path) == Holder(os.getpid(), "loop-2")
    timer.join()


def test_a_probe_is_not_taken_for_a_run(path: Path) -> None:
    RunLock.acquire(path, run_id="loop-1").release()
    with path.open("rb") as probe:
        fcntl.flock(probe, fcntl.LOCK_SH)
        assert RunLock.holder(path) is None


def test_a_child_process_does_not_inherit_the_lock(path: Path) -> None:
    with RunLock.acquire(path, run_id="loop-1"):
        child = subprocess.Popen(["sleep", "600"], close_fds=False)
    try:
        assert RunLock.holder(path) is None
    finally:
        child.kill()
        child.wait()


def test_releasing_twice_is_harmless(path: Path) -> None:
    with RunLock.acquire(path, run_id="loop-1") as lock:
        lock.release()
    assert RunLock.holder(path) is None


@pytest.mark.parametrize("content", ["", "\n", "not json\n", "[]\n", '{"pid": "x"}\n', "[" * 3000])
def test_unreadable_content_hides_nothing_but_the_name(path: Path, content: str) -> None:
    path.parent.mkdir()
    path.write_text(content)
    with path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert RunLock.holder(path) == Holder(0, "")
        with pytest.raises(LockHeld, match="Another run holds the lock") as caught:
            RunLock.acquire(path, run_id="loop-2")
    assert caught.value.hint == "wait, or: loop cancel"
    with RunLock.acquire(path, run_id="loop-2"):
        assert RunLock.holder(path) == Holder(os.getpid(), "loop-2")


def test_a_longer_name_before_leaves_no_rest(path: Path) -> None:
    RunLock.acquire(path, run_id="loop-" + "x" * 80).release()
    RunLock.acquire(path, run_id="loop-1").release()
    assert path.read_text() == f'{{"pid": {os.getpid()}, "run_id": "loop-1"}}\n'


def test_without_a_lock_file_nobody_holds_it_and_none_is_made(path: Path) -> None:
    assert (RunLock.holder(path), path.exists()) == (None, False)


def test_a_folder_that_cannot_be_made_is_one_clear_sentence(tmp_path: Path) -> None:
    (tmp_path / "hew-loop").write_text("a file where the folder should be")
    path = tmp_path / "hew-loop" / "run.lock"
    with pytest.raises(RepoError) as caught:
        RunLock.acquire(path, run_id="loop-1")
    assert caught.value.message == f"The run lock {path} cannot be used: File exists."
    with pytest.raises(RepoError, match="Not a directory"):
        RunLock.holder(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_read_only_is_one_clear_sentence(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(RepoError, match="Permission denied"):
            RunLock.acquire(tmp_path / "hew-loop" / "run.lock", run_id="loop-1")
    finally:
        tmp_path.chmod(0o755)
