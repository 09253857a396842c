"""A real `loop`-like process is killed in every way there is: what it started must be gone within two seconds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hew_loop.process import GUARD, MARK, Guard, child_environment
from hew_loop.process_guard import is_zombie
from tests.support.project import wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

ROOT = str(Path(__file__).parents[1])

LOOP = """\
import sys
from functools import partial
from pathlib import Path
import anyio
from hew_loop.process import Guard, Job, child_environment, stream
here, token, script = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
with Guard.start(token) as guard:
    env = child_environment({**guard.env, "TOKEN": token})
    job = Job(argv=("sh", "-c", script, *sys.argv[4:]), cwd=here, env=env, log=here / "log", mark="m-" + token)
    anyio.run(partial(stream, job, on_start=guard.watch))
"""
"""What `loop` does with its guard: one job, marked and watched."""

AGENT = """\
trap '' TERM HUP INT
setsid sh -c 'trap "" TERM HUP INT; echo $$ >> pids; sleep 600; sleep 600' &
setsid sh -c 'setsid sleep 600 & echo $! >> pids; echo $$ >> pids; wait' >/dev/null 2>&1 &
sh -c 'echo $$ >> pids; exec env -i sleep 600' &
echo $$ >> pids
wait; wait; wait
"""
"""Two tools in sessions of their own, one of them with a third inside; one that drops its environment; itself."""

TOLD = 5


def until_all_gone(pids: list[int], within_s: float) -> float:
    """How long it took."""
    began = time.monotonic()
    while alive := [pid for pid in pids if not is_zombie(pid)]:
        assert time.monotonic() - began < within_s, f"still alive: {alive}"
        threading.Event().wait(0.005)
    return time.monotonic() - began


def told(file: Path, count: int) -> list[int]:
    """The process ids in `file`, as soon as there are `count`."""
    give_up = time.monotonic() + 20
    while not (file.exists() and file.read_text().count("\n") >= count):
        assert time.monotonic() < give_up, "the agent did not start"
        threading.Event().wait(0.01)
    return [int(line) for line in file.read_text().split()]


def helpers_of(token: str) -> list[int]:
    """The guard processes of `token`."""
    entry = f"{GUARD}={token}".encode()
    found: list[int] = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and entry in (folder / "cmdline").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def helper_of(token: str) -> int:
    """The one guard process of `token`, as soon as /proc shows it."""
    wait_until(lambda: len(helpers_of(token)) == 1, timeout_s=10)
    return helpers_of(token)[0]


@pytest.fixture
def token(tmp_path: Path) -> str:
    return f"token-{tmp_path}"


def start_loop(here: Path, token: str, script: str, *more: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", LOOP, str(here), token, script, *more],
        env=child_environment({"PYTHONPATH": ROOT}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )


@pytest.fixture
def loop(tmp_path: Path, token: str) -> Iterator[subprocess.Popen[bytes]]:
    with start_loop(tmp_path, token, AGENT) as process:
        yield process
        process.kill()


def test_when_loop_and_its_group_are_killed_all_that_it_started_is_gone_within_two_seconds(
    loop: subprocess.Popen[bytes], tmp_path: Path, token: str
) -> None:
    pids = told(tmp_path / "pids", TOLD)
    helpers = helpers_of(token)
    assert len(helpers) == 1
    os.killpg(loop.pid, signal.SIGKILL)
    until_all_gone(pids, within_s=2)
    until_all_gone(helpers, within_s=10)


def test_the_guard_does_not_listen_to_the_signals_that_end_a_loop(
    loop: subprocess.Popen[bytes], tmp_path: Path, token: str
) -> None:
    pids = told(tmp_path / "pids", TOLD)
    helper = helper_of(token)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        os.kill(helper, number)
    loop.kill()
    until_all_gone([*pids, helper], within_s=10)


def test_the_guard_holds_a_pipe_and_nothing_else(loop: subprocess.Popen[bytes], tmp_path: Path, token: str) -> None:
    told(tmp_path / "pids", TOLD)
    helper = helper_of(token)
    folder = Path(f"/proc/{helper}")
    descriptors = {link.name: str(link.readlink()) for link in (folder / "fd").iterdir()}
    pipe = descriptors.pop("0")
    assert (pipe.startswith("pipe:"), descriptors) == (True, {"1": "/dev/null", "2": "/dev/null"})
    assert str((folder / "cwd").readlink()) == "/"
    names = {entry.partition(b"=")[0].decode() for entry in (folder / "environ").read_bytes().split(b"\0")}
    assert names & {GUARD, MARK} == set()
    assert os.getsid(helper) == helper != os.getsid(loop.pid)


def test_a_loop_that_an_agent_started_takes_its_own_children_with_it(tmp_path: Path, token: str) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    script = '"$1" -c "$2" inner "$TOKEN-inner" "$3"'
    with start_loop(tmp_path, token, script, "sh", sys.executable, LOOP, AGENT) as outer:
        pids = told(inner / "pids", TOLD)
        outer.kill()
        until_all_gone(pids, within_s=2)


def test_a_group_that_is_watched_goes_without_a_mark_and_a_forgotten_one_stays(token: str) -> None:
    script = (
        "import subprocess, sys; from hew_loop.process import Guard\n"
        "guard = Guard.start(sys.argv[1])\n"
        "start = lambda: subprocess.Popen(['sleep', '600'], start_new_session=True, stdout=2)\n"
        "one, two = start(), start()\n"
        "guard.watch(one.pid); guard.watch(two.pid); guard.forget(two.pid)\n"
        "print(one.pid, two.pid, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, token],
        env=child_environment({"PYTHONPATH": ROOT}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as loop:
        assert loop.stdout is not None
        watched, forgotten = map(int, loop.stdout.readline().split())
        loop.kill()
        until_all_gone([watched], within_s=2)
        until_all_gone(helpers_of(token), within_s=10)
    assert not is_zombie(forgotten)
    os.kill(forgotten, signal.SIGKILL)


def test_a_loop_that_ends_well_leaves_its_guard_quiet(token: str) -> None:
    with Guard.start(token) as guard:
        bystander = subprocess.Popen(["sleep", "600"], env=child_environment(guard.env))
    try:
        assert (guard.env, helpers_of(token), bystander.poll()) == ({GUARD: token}, [], None)
    finally:
        bystander.kill()
        bystander.wait()


def test_a_loop_that_ends_by_an_exception_leaves_nothing(token: str) -> None:
    def broken_loop() -> None:
        with Guard.start(token) as guard:
            children.append(
                subprocess.Popen(["sleep", "600"], env=child_environment(guard.env), start_new_session=True)
            )
            raise LookupError

    children: list[subprocess.Popen[bytes]] = []
    with pytest.raises(LookupError):
        broken_loop()
    assert (children[0].wait(), helpers_of(token)) == (-signal.SIGKILL, [])


def test_a_guard_that_was_killed_does_not_hinder_the_work(token: str) -> None:
    with Guard.start(token) as guard:
        helper = helper_of(token)
        os.kill(helper, signal.SIGKILL)
        until_all_gone([helper], within_s=10)
        guard.watch(os.getpid())
        guard.forget(os.getpid())
