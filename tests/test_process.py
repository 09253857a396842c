"""Real programs through the door: what comes out, when they end, and that nothing of them stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import anyio
import pytest

from hew_loop.process import (
    GIT_LOCAL_VARIABLES,
    MARK,
    Completed,
    Ended,
    Job,
    child_environment,
    group_alive,
    kill_group,
    process_start_time,
    run,
    stream,
    sweep,
)
from hew_loop.process_guard import is_zombie

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

DAEMON = """\
import os, sys, time
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
with open(sys.argv[1] + ".new", "w") as file:
    file.write(str(os.getpid()))
os.rename(sys.argv[1] + ".new", sys.argv[1])
time.sleep(600)
"""
"""Forks twice into a session of its own, keeps stdout and stderr open, and tells its process id in a file."""


def until(claim: Callable[[], bool], within_s: float = 10) -> None:
    give_up = time.monotonic() + within_s
    while not claim():
        assert time.monotonic() < give_up, "waited in vain"
        threading.Event().wait(0.01)


def is_alive(pid: int) -> bool:
    return not is_zombie(pid)


@pytest.fixture
def job(tmp_path: Path) -> Callable[..., Job]:
    def make(*argv: str, **fields: object) -> Job:
        made = Job(
            argv=argv, cwd=tmp_path, env=child_environment(), log=tmp_path / "output.log", mark=f"test-{tmp_path}"
        )
        return replace(made, **fields)  # type: ignore[arg-type]

    return make


def ended(job: Job, **hooks: object) -> Ended:
    """How it ended, without the duration: that is never the same."""
    result = anyio.run(partial(stream, job, **hooks))  # type: ignore[arg-type]
    return replace(result, duration_s=0.0)


def quick(*argv: str, cwd: Path, timeout_s: float = 30.0, stdin: bytes = b"") -> Completed:
    return run(argv, cwd=cwd, env=child_environment(), timeout_s=timeout_s, stdin=stdin)


# run


def test_a_short_program_gives_its_code_and_both_outputs(tmp_path: Path) -> None:
    command = ("sh", "-c", "echo out; echo err >&2; exit 3")
    done = quick(*command, cwd=tmp_path)
    assert done == Completed(command, 3, b"out\n", b"err\n", timed_out=False, error="")
    assert not done.ok


def test_outputs_larger_than_a_pipe_and_a_large_input_do_not_lock_up(tmp_path: Path) -> None:
    data = bytes(range(256)) * 4096
    done = quick("sh", "-c", "tee /dev/stderr", cwd=tmp_path, stdin=data)
    assert (done.exit_code, done.stdout == data, done.stderr == data) == (0, True, True)


def test_a_program_that_does_not_read_its_input_is_no_error(tmp_path: Path) -> None:
    assert quick("true", cwd=tmp_path, stdin=b"x" * 1_000_000).ok


def test_without_input_stdin_is_empty_and_never_ours(tmp_path: Path) -> None:
    assert quick("cat", cwd=tmp_path).stdout == b""


def test_what_is_not_utf8_is_replaced(tmp_path: Path) -> None:
    assert quick("printf", r"a\377b", cwd=tmp_path).text() == "a\N{REPLACEMENT CHARACTER}b"


@pytest.mark.parametrize(
    ("argv", "folder", "reason"),
    [
        (("no-such-program-here",), ".", "cannot start no-such-program-here: No such file or directory"),
        (("true",), "gone", "cannot start true: {cwd} is not a directory that can be entered"),
        (("true", "x" * 200_000), ".", "cannot start true: Argument list too long"),
        (("true", "a\0b"), ".", "cannot start true: embedded null byte"),
        ((), ".", "cannot start an empty command"),
    ],
)
def test_what_cannot_start_is_a_value(tmp_path: Path, argv: tuple[str, ...], folder: str, reason: str) -> None:
    cwd = tmp_path / folder
    assert quick(*argv, cwd=cwd) == Completed(argv, None, b"", b"", timed_out=False, error=reason.format(cwd=cwd))


def test_at_its_deadline_the_whole_group_is_killed_and_the_output_so_far_is_kept(tmp_path: Path) -> None:
    script = "trap '' TERM; sleep 600 & echo $!; sleep 600"
    done = quick("sh", "-c", script, cwd=tmp_path, timeout_s=0.3)
    assert (done.exit_code, done.timed_out, done.error) == (None, True, "")
    until(lambda: not is_alive(int(done.stdout)))


def test_a_daemon_that_keeps_the_pipes_open_does_not_make_us_wait_for_it(tmp_path: Path) -> None:
    began = time.monotonic()
    done = quick(sys.executable, "-c", DAEMON, str(tmp_path / "pid"), cwd=tmp_path)
    assert (done.exit_code, time.monotonic() - began < 15) == (0, True)
    until((tmp_path / "pid").exists)
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


def test_an_exit_code_that_the_system_threw_away_is_not_taken_for_success(tmp_path: Path) -> None:
    script = (
        "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        "from pathlib import Path; from hew_loop.process import run\n"
        "done = run(['false'], cwd=Path('.'), env={'PATH': '/usr/bin:/bin'}, timeout_s=30)\n"
        "print(done.exit_code, done.ok, done.error)"
    )
    env = child_environment({"PYTHONPATH": str(Path(__file__).parents[1])})
    done = run([sys.executable, "-c", script], cwd=tmp_path, env=env, timeout_s=30)
    assert done.text() == "None False its exit code is lost: SIGCHLD is ignored in this process\n"


def test_where_nothing_tells_the_end_of_a_process_it_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: Callable[..., Job]
) -> None:
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    assert quick("sh", "-c", "echo a; exit 4", cwd=tmp_path).exit_code == 4
    assert quick("sleep", "600", cwd=tmp_path, timeout_s=0.1).timed_out
    assert ended(job("sh", "-c", "setsid sleep 600 >/dev/null 2>&1 & exit 5")).exit_code == 5


# environment


def test_the_removed_variables_are_those_that_git_calls_local_to_a_repository() -> None:
    names = subprocess.run(
        ["git", "rev-parse", "--local-env-vars"], check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL
    ).stdout.split()
    # A later git may have dropped a name of ours; none of its names may be missing here.
    assert set(names) - set(GIT_LOCAL_VARIABLES) == set()
    assert len(GIT_LOCAL_VARIABLES) == 16


def test_a_child_gets_our_environment_without_the_repository_and_with_what_is_added() -> None:
    base = {"HOME": "/h", "GIT_DIR": "/x", "GIT_AUTHOR_NAME": "A", "GIT_SSH_COMMAND": "ssh", "GIT_INDEX_FILE": "i"}
    expected = {"HOME": "/h", "GIT_AUTHOR_NAME": "A", "GIT_SSH_COMMAND": "ssh", "HEW_SLOT": "1"}
    assert child_environment({"HEW_SLOT": "1"}, base=base) == expected
    assert child_environment()["HOME"] == os.environ["HOME"]


# stream


def test_a_job_ends_with_its_code_its_log_and_its_tails(job: Callable[..., Job], tmp_path: Path) -> None:
    result = ended(job("sh", "-c", "echo err >&2; exit 3"))
    assert result == Ended(reason="exited", exit_code=3, output_bytes=4, tail=b"err\n", stderr_tail=b"err\n")
    assert (tmp_path / "output.log").read_bytes() == b"err\n"


def test_a_large_prompt_is_fed_while_the_answer_is_read(job: Callable[..., Job]) -> None:
    prompt = bytes(range(256)) * 4096
    seen = bytearray()
    result = ended(job("cat", stdin=prompt), on_stdout=seen.extend)
    assert (result.exit_code, result.output_bytes, bytes(seen) == prompt) == (0, len(prompt), True)
    assert result.tail == prompt[-65536:]


def test_a_program_that_never_reads_its_prompt_ends_as_it_likes(job: Callable[..., Job]) -> None:
    assert ended(job("sh", "-c", "exit 7", stdin=b"x" * 1_000_000)) == Ended(reason="exited", exit_code=7)
    assert ended(job("sh", "-c", "exec 0<&-; echo a", stdin=b"x" * 1_000_000)).tail == b"a\n"


def test_a_job_gets_its_mark_and_none_of_our_stdin(job: Callable[..., Job]) -> None:
    made = job("sh", "-c", f'cat; echo "${MARK}"')
    assert ended(made).tail.decode() == made.mark + "\n"


def test_a_flood_passes_whole_and_the_log_keeps_its_beginning(job: Callable[..., Job], tmp_path: Path) -> None:
    size, cap = 30_000_000, 100_000
    seen = [0]

    def count(data: bytes) -> None:
        seen[0] += len(data)

    result = ended(
        job("sh", "-c", f"echo begin; head -c {size} /dev/zero; echo end", max_log_bytes=cap), on_stdout=count
    )
    total = size + len("begin\nend\n")
    assert (seen[0], result.output_bytes, result.dropped_bytes) == (total, total, total - cap)
    assert (tmp_path / "output.log").read_bytes() == b"begin\n" + bytes(cap - 6)
    assert (len(result.tail), result.tail[-5:]) == (65536, b"\0end\n")


def test_a_log_that_cannot_be_written_does_not_stop_the_job(job: Callable[..., Job], tmp_path: Path) -> None:
    log = tmp_path / "no-folder" / "output.log"
    assert ended(job("echo", "a", log=log)) == Ended(
        reason="exited",
        exit_code=0,
        output_bytes=2,
        dropped_bytes=2,
        tail=b"a\n",
        error=f"the log {log} cannot be written: No such file or directory",
    )


@LINUX
def test_a_full_disk_does_not_stop_the_job(job: Callable[..., Job]) -> None:
    result = ended(job("echo", "a", log=Path("/dev/full")))
    expected = "the log /dev/full cannot be written: No space left on device"
    assert (result.exit_code, result.dropped_bytes, result.error) == (0, 2, expected)


def test_a_program_that_cannot_start_is_a_value(job: Callable[..., Job]) -> None:
    expected = Ended(reason="not_started", error="cannot start no-such-program: No such file or directory")
    assert ended(job("no-such-program")) == expected


def test_silence_ends_a_job_and_any_output_puts_that_off(job: Callable[..., Job]) -> None:
    assert ended(job("sleep", "600", stall_s=0.2)) == Ended(reason="stalled", exit_code=-15)
    talkative = "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do echo >&2; sleep 0.1; done"
    assert ended(job("sh", "-c", talkative, stall_s=1.0)).reason == "exited"


def test_notices_of_waiting_are_output_but_no_progress(job: Callable[..., Job]) -> None:
    waiting = job("sh", "-c", "while :; do echo waiting; sleep 0.05; done", stall_s=0.5)
    assert ended(waiting, is_progress=lambda: False).reason == "stalled"
    talkative = "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do echo >&2; sleep 0.1; done"
    assert ended(job("sh", "-c", talkative, stall_s=1.0), is_progress=lambda: True).reason == "exited"


def test_a_job_that_waits_for_a_limit_is_ended_sooner_than_a_silent_one(job: Callable[..., Job]) -> None:
    waiting = job("sh", "-c", "echo 429; sleep 600", stall_s=60.0, limit_s=0.3)
    assert ended(waiting, is_limited=lambda: True).reason == "stalled"
    answers = iter([True, False, False, False])
    recovers = job("sh", "-c", "echo 429; sleep 0.1; echo on; sleep 0.7", stall_s=60.0, limit_s=0.5)
    assert ended(recovers, is_limited=lambda: next(answers)).reason == "exited"


def test_a_deadline_ends_a_job_and_what_ignores_the_signal_is_killed(job: Callable[..., Job]) -> None:
    stubborn = job("sh", "-c", "trap '' TERM; echo a; while :; do sleep 0.05; done", timeout_s=0.3, grace_s=0.2)
    result = ended(stubborn)
    assert (result.reason, result.exit_code, result.tail) == ("timed_out", -9, b"a\n")


def test_a_job_is_stopped_by_its_own_signal_and_may_still_say_something(job: Callable[..., Job]) -> None:
    polite = job(
        "sh",
        "-c",
        "trap 'echo bye; exit 0' INT; echo ready; while :; do sleep 0.05; done",
        stop_signal=signal.SIGINT,
    )

    async def stop_when_ready() -> Ended:
        stop = anyio.Event()
        return await stream(polite, on_stdout=lambda _: stop.set(), stop=stop)

    result = anyio.run(stop_when_ready)
    assert (result.reason, result.exit_code, result.tail) == ("cancelled", 0, b"ready\nbye\n")


def test_a_job_that_is_stopped_before_it_begins_does_not_begin(job: Callable[..., Job], tmp_path: Path) -> None:
    async def stopped() -> Ended:
        stop = anyio.Event()
        stop.set()
        return await stream(job("touch", "began"), stop=stop)

    assert anyio.run(stopped) == Ended(reason="cancelled")
    assert not (tmp_path / "began").exists()


def test_after_its_final_word_a_program_is_ended_and_its_reason_stays(job: Callable[..., Job]) -> None:
    result = ended(job("sh", "-c", "echo result; sleep 600", final_grace_s=0.1), is_final=lambda: True)
    assert (result.reason, result.exit_code, result.tail) == ("exited", -15, b"result\n")


def test_what_a_callback_raises_ends_the_job_and_comes_out(job: Callable[..., Job]) -> None:
    pids: list[int] = []

    def fail(data: bytes) -> None:
        raise LookupError(data.decode())

    with pytest.raises(LookupError, match="a"):
        ended(job("sh", "-c", "echo a; sleep 600"), on_start=pids.append, on_stdout=fail)
    assert not is_alive(pids[0])


@LINUX
def test_what_outlives_the_program_in_sessions_of_its_own_is_killed_and_counted(
    job: Callable[..., Job], tmp_path: Path
) -> None:
    began = time.monotonic()
    script = 'nohup sleep 600 >/dev/null 2>&1 & "$@"; while ! [ -e pid ]; do sleep 0.01; done'
    result = ended(job("sh", "-c", script, "sh", sys.executable, "-c", DAEMON, "pid"))
    assert (result.reason, result.exit_code, time.monotonic() - began < 15) == ("exited", 0, True)
    assert result.leftovers == 2
    assert not is_alive(int((tmp_path / "pid").read_text()))


@LINUX
def test_what_lost_the_mark_but_not_the_session_goes_too(job: Callable[..., Job], tmp_path: Path) -> None:
    assert ended(job("sh", "-c", "env -i sleep 600 >/dev/null 2>&1 & echo $! > pid")).leftovers == 1
    assert not is_alive(int((tmp_path / "pid").read_text()))


@LINUX
def test_what_escapes_and_holds_the_pipes_does_not_make_us_wait(job: Callable[..., Job], tmp_path: Path) -> None:
    began = time.monotonic()
    argv = ("env", "-i", sys.executable, "-c", DAEMON, str(tmp_path / "pid"))
    result = ended(job("sh", "-c", 'echo a; "$@"; while ! [ -e pid ]; do sleep 0.01; done', "sh", *argv))
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    assert (result.reason, result.exit_code, result.tail) == ("exited", 0, b"a\n")
    assert time.monotonic() - began < 15


def test_a_filter_behind_the_program_may_write_its_last_lines(job: Callable[..., Job]) -> None:
    script = 'exec 3>&1; { while read -r line; do echo "$line"; done; echo last >&3; } <pipe & echo a >pipe'
    result = ended(job("sh", "-c", "mkfifo pipe; " + script))
    assert (result.exit_code, result.tail) == (0, b"a\nlast\n")


@LINUX
def test_cancelling_the_scope_kills_everything(job: Callable[..., Job], tmp_path: Path) -> None:
    pids: list[int] = []
    stubborn = job("sh", "-c", "trap '' TERM; setsid sleep 600 & echo $! > pid; echo ready; wait", grace_s=60)

    async def cancel_when_ready() -> None:
        with anyio.CancelScope() as scope:
            await stream(stubborn, on_start=pids.append, on_stdout=lambda _: scope.cancel())
        assert scope.cancelled_caught

    began = time.monotonic()
    anyio.run(cancel_when_ready)
    assert time.monotonic() - began < 15
    assert [is_alive(pid) for pid in (*pids, int((tmp_path / "pid").read_text()))] == [False, False]


def test_jobs_side_by_side_leave_no_descriptor_open(job: Callable[..., Job], tmp_path: Path) -> None:
    async def eight_at_once() -> None:
        async with anyio.create_task_group() as tasks:
            for number in range(8):
                tasks.start_soon(stream, job("sh", "-c", "cat >&2", stdin=b"x" * 100_000, mark=f"{tmp_path}-{number}"))

    def open_now() -> int:
        return len(list(Path("/dev/fd").iterdir()))

    anyio.run(eight_at_once)
    before = open_now()
    anyio.run(eight_at_once)
    assert open_now() == before


# recovery


@LINUX
def test_a_sweep_kills_exactly_what_carries_the_mark(tmp_path: Path) -> None:
    mark = f"sweep-{tmp_path}"
    others = {MARK: mark + "-2"}, {MARK: mark[:-1]}, {"OTHER": f"{MARK}={mark}"}, {}
    with (
        subprocess.Popen(["sleep", "600"], env=child_environment({MARK: mark}), start_new_session=True) as ours,
    ):
        strangers = [subprocess.Popen(["sleep", "600"], env=child_environment(other)) for other in others]
        try:
            assert (sweep(mark), sweep(mark), ours.wait()) == (1, 0, -signal.SIGKILL)
            assert [stranger.poll() for stranger in strangers] == [None] * 4
        finally:
            for stranger in strangers:
                stranger.kill()
                stranger.wait()


@LINUX
def test_a_group_is_known_by_its_leaders_start_and_killed_only_then() -> None:
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as leader:
        began = process_start_time(leader.pid)
        assert began
        assert not kill_group(leader.pid, began + "1")
        assert not group_alive(leader.pid, "")
        assert group_alive(leader.pid, began)
        assert kill_group(leader.pid, began)
        assert leader.wait() == -signal.SIGKILL
    assert not group_alive(leader.pid, began)
    assert process_start_time(leader.pid) == ""


@LINUX
def test_a_group_whose_leader_is_a_zombie_lives_while_a_member_does() -> None:
    with subprocess.Popen(
        ["sh", "-c", "sleep 600 >/dev/null & exit 0"], start_new_session=True, stdout=subprocess.PIPE
    ) as leader:
        began = process_start_time(leader.pid)
        assert leader.stdout is not None
        leader.stdout.read()  # at its end the leader has ended; nobody reaped it
        until(lambda: is_zombie(leader.pid))
        assert group_alive(leader.pid, began)
        assert kill_group(leader.pid, began)
        until(lambda: not group_alive(leader.pid, began))
