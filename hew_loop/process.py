"""The one door for child processes: each has its own session, a deadline, nothing of our stdin, and a certain end."""

from __future__ import annotations

import math
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

import anyio

from hew_loop import process_guard
from hew_loop.errors import HewError
from hew_loop.process_output import Output
from hew_loop.process_stream import DIE_S, LINGER_S, Ended, EndReason, Hooks, Job, Streaming, read_now, write_now
from hew_loop.process_sweep import GUARD, MARK, group_alive, kill_group, process_start_time, sweep

__all__ = [
    "GIT_LOCAL_VARIABLES",
    "GUARD",
    "MARK",
    "Completed",
    "EndReason",
    "Ended",
    "Guard",
    "Job",
    "child_environment",
    "group_alive",
    "kill_group",
    "process_start_time",
    "run",
    "stream",
    "sweep",
]

GIT_LOCAL_VARIABLES = (
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_CONFIG",
    "GIT_CONFIG_PARAMETERS",
    "GIT_CONFIG_COUNT",
    "GIT_OBJECT_DIRECTORY",
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_GRAFT_FILE",
    "GIT_INDEX_FILE",
    "GIT_NO_REPLACE_OBJECTS",
    "GIT_REPLACE_REF_BASE",
    "GIT_PREFIX",
    "GIT_INTERNAL_SUPER_PREFIX",
    "GIT_SHALLOW_FILE",
    "GIT_COMMON_DIR",
)
"""`git rev-parse --local-env-vars`: what binds a git process to the repository that its parent was working in."""

_NOTHING: Mapping[str, str] = MappingProxyType({})


def child_environment(add: Mapping[str, str] = _NOTHING, *, base: Mapping[str, str] | None = None) -> dict[str, str]:
    """Our environment (or `base`) for a child: without git's repository-local variables, with `add`."""
    environment = dict(os.environ if base is None else base)
    for name in GIT_LOCAL_VARIABLES:
        environment.pop(name, None)
    environment.update(add)
    return environment


@dataclass(frozen=True, slots=True)
class Completed:
    """How a short program ended. `exit_code` None: it never started, was killed at its deadline, or nobody knows."""

    argv: tuple[str, ...]
    exit_code: int | None
    stdout: bytes
    stderr: bytes
    timed_out: bool
    error: str
    """Why there is no exit code, other than the deadline."""

    @property
    def ok(self) -> bool:
        return self.exit_code == 0

    def text(self) -> str:
        """stdout; what is not UTF-8 is replaced."""
        return self.stdout.decode("utf-8", "replace")


def run(argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], timeout_s: float, stdin: bytes = b"") -> Completed:
    """Run a short program (git, bd) to its end; blocks. Never raises for a program that cannot be started.

    At the deadline its whole group is killed. What it leaves behind on purpose (a credential cache, a daemon) stays,
    and does not make us wait by holding a pipe.
    """
    command = tuple(argv)
    try:
        child = _Child(command, cwd=cwd, env=env, feed=bool(stdin))
    except _CANNOT_START as error:
        return Completed(command, None, b"", b"", timed_out=False, error=_why_not_started(command, cwd, error))
    try:
        stdout, stderr, timed_out = _converse(child, stdin, time.monotonic() + timeout_s)
        exit_code = child.reap()
    finally:
        child.close()
    if timed_out:
        return Completed(command, None, stdout, stderr, timed_out=True, error="")
    return Completed(command, exit_code, stdout, stderr, timed_out=False, error=child.error)


async def stream(
    job: Job,
    *,
    on_start: Callable[[int], None] | None = None,
    on_stdout: Callable[[bytes], None] | None = None,
    is_final: Callable[[], bool] | None = None,
    is_progress: Callable[[], bool] | None = None,
    is_limited: Callable[[], bool] | None = None,
    stop: anyio.Event | None = None,
) -> Ended:
    """Run `job` to its end; when this returns or is cancelled, it and all that carries its mark are gone.

    All callbacks run in the event loop. `on_start` gets the process id, which is its group's and session's id too;
    `on_stdout` gets all of stdout, also what the log drops. One that raises ends the job, and `stream` raises it.
    `is_final` is asked after each piece of stdout; once final, the reason stays `exited`, however the program ends.
    `is_progress` is asked after each piece of output: with it a job that only prints notices of waiting stalls (RT-28).
    `is_limited` likewise, of a limit that lasts longer than `limit_s`. Setting `stop` cancels the job gently;
    cancelling the scope around this kills it at once.
    """
    if stop is not None and stop.is_set():
        return Ended(reason="cancelled")
    started = time.monotonic()
    with Output(job.log, max_log_bytes=job.max_log_bytes) as output:
        try:
            child = _Child(job.argv, cwd=job.cwd, env={**job.env, MARK: job.mark}, feed=bool(job.stdin))
        except _CANNOT_START as error:
            return Ended(reason="not_started", error=_why_not_started(job.argv, job.cwd, error))
        streaming = Streaming(job, child, output, Hooks(on_stdout, is_final, is_progress, is_limited), stop)
        guard = _guards.get(job.env.get(GUARD, ""))
        try:
            if guard is not None:
                guard.watch(child.pid)
            if on_start is not None:
                on_start(child.pid)
            reason = await streaming.to_the_end()
        finally:
            await streaming.clean_up()
            if guard is not None:
                guard.forget(child.pid)
    if streaming.broken is not None:
        raise streaming.broken
    return Ended(
        reason=reason,
        exit_code=child.exit_code,
        duration_s=time.monotonic() - started,
        output_bytes=output.total_bytes,
        dropped_bytes=output.dropped_bytes,
        tail=output.tail,
        stderr_tail=output.stderr_tail,
        leftovers=streaming.leftovers,
        error="; ".join(filter(None, (output.error, child.error))),
    )


class Guard:
    """Ends every child that carries the token when this process dies without leaving the `with`, by SIGKILL too.

    Left by an exception, it does the same at once: then nobody can say what still runs. Put `env` into the
    environment of every child; `stream` tells it the group of each, which is all it knows where there is no /proc.
    """

    def __init__(self, token: str, helper: subprocess.Popen[bytes], pipe: int) -> None:
        self.env: Mapping[str, str] = MappingProxyType({GUARD: token})
        self._helper = helper
        self._pipe = pipe

    @classmethod
    def start(cls, token: str) -> Self:
        """Does not wait for the helper to be up: what it reads and sees later is enough for it."""
        reader, writer = os.pipe()
        # Without a mark of its own, or it would be swept where its `loop` is, before it could end that one's children.
        env = {name: value for name, value in os.environ.items() if name not in (GUARD, MARK)}
        script = str(Path(process_guard.__file__).resolve())
        try:
            helper = subprocess.Popen(
                [sys.executable, "-I", "-S", script, f"{GUARD}={token}"],
                cwd="/",
                env=env,
                stdin=reader,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            os.close(writer)
            raise HewError(
                f"The guard process cannot be started: {error}.",
                hint="See that processes can be started, then try again.",
            ) from error
        finally:
            os.close(reader)
        os.set_blocking(writer, False)
        guard = _guards[token] = cls(token, helper, writer)
        return guard

    def watch(self, pgid: int) -> None:
        """This group goes too, whatever its environment says."""
        self._say(f"watch {pgid}")

    def forget(self, pgid: int) -> None:
        """The group has ended: its number may be another's from now on."""
        self._say(f"forget {pgid}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _guards.pop(self.env[GUARD], None)
        if kind is None:
            self._say("done")
        os.close(self._pipe)
        try:
            self._helper.wait(timeout=DIE_S)
        except subprocess.TimeoutExpired:
            self._helper.kill()
            self._helper.wait()

    def _say(self, line: str) -> None:
        try:
            os.write(self._pipe, line.encode() + b"\n")
        except OSError:
            pass  # the guard was killed; the work goes on without


_CANNOT_START = (OSError, ValueError, IndexError)
"""A missing program or directory, an argument too long or with a NUL in it, an empty argv."""


_guards: dict[str, Guard] = {}
"""The living guards of this process by token: a job belongs to the one whose token is in its environment."""


def _why_not_started(argv: tuple[str, ...], cwd: Path, error: Exception) -> str:
    if not argv:
        return "cannot start an empty command"
    if not cwd.is_dir():
        return f"cannot start {argv[0]}: {cwd} is not a directory that can be entered"
    return f"cannot start {argv[0]}: {error.strerror if isinstance(error, OSError) else error}"


class _Child:
    """A started program, its pipes and its end. Not reaped before its group was dealt with: so the number stays its."""

    def __init__(self, argv: tuple[str, ...], *, cwd: Path, env: Mapping[str, str], feed: bool) -> None:
        self._popen = subprocess.Popen(
            argv,
            cwd=cwd,
            env=env,
            bufsize=0,
            stdin=subprocess.PIPE if feed else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self.pid = self._popen.pid
        self.exit_code: int | None = None
        self.error = ""
        self.pipes = [pipe for pipe in (self._popen.stdin, self._popen.stdout, self._popen.stderr) if pipe is not None]
        *_, self.stdout, self.stderr = (pipe.fileno() for pipe in self.pipes)
        self.stdin = self.pipes[0].fileno() if feed else None
        for pipe in self.pipes:
            os.set_blocking(pipe.fileno(), False)
        try:
            self.exit_fd: int | None = os.pidfd_open(self.pid)
        except (OSError, AttributeError):
            self.exit_fd = None

    def close_stdin(self) -> None:
        if self._popen.stdin is not None:
            self._popen.stdin.close()

    def has_ended(self) -> bool:
        """It stays a zombie, where the system lets us look at it like that."""
        if self._popen.returncode is not None:
            return True
        try:
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except AttributeError:
            self.reap()
            return self._popen.returncode is not None
        except ChildProcessError:
            return True

    async def wait_for_end(self) -> None:
        if self.exit_fd is not None:
            await anyio.wait_readable(self.exit_fd)
        while not self.has_ended():
            await anyio.sleep(_POLL_S)

    def signal_group(self, number: int) -> None:
        try:
            os.killpg(self.pid, number)
        except OSError:
            pass

    def reap(self) -> int | None:
        """Collect the exit code of an ended program; None, with `error`, when there is none."""
        if self._popen.returncode is None:
            self.error = ""
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:
                # subprocess would call that exit code 0.
                self.error = "its exit code is lost: SIGCHLD is ignored in this process"
                self._popen.returncode = -1
            else:
                if pid:
                    self.exit_code = self._popen.returncode = os.waitstatus_to_exitcode(status)
                else:
                    self.error = f"process {self.pid} has not ended"
        return self.exit_code

    def close(self) -> None:
        """Kill what still lives of it, reap it, close the pipes."""
        if self._popen.returncode is None:
            self.signal_group(signal.SIGKILL)
            until = time.monotonic() + 1
            while not self.has_ended() and time.monotonic() < until:
                select.poll().poll(_POLL_S * 1000)
            self.reap()
        for pipe in self.pipes:
            pipe.close()
        if self.exit_fd is not None:
            os.close(self.exit_fd)
            self.exit_fd = None


_POLL_S = 0.02
"""How often to look where the system has no descriptor that tells the end of a process."""

_LONG_S = 3600.0
"""poll() does not take an endless time-out."""


def _converse(child: _Child, stdin: bytes, limit: float) -> tuple[bytes, bytes, bool]:
    """Feed and read until all pipes and the program have ended; (stdout, stderr, was killed at `limit`)."""
    pieces: dict[int, list[bytes]] = {child.stdout: [], child.stderr: []}
    open_pipes = set(pieces)
    rest = memoryview(stdin)
    poll = select.poll()
    for fd in pieces:
        poll.register(fd, select.POLLIN)
    if child.exit_fd is not None:
        poll.register(child.exit_fd, select.POLLIN)
    if child.stdin is not None:
        poll.register(child.stdin, select.POLLOUT)
    ended = timed_out = False
    while open_pipes or not ended:
        left_s = limit - time.monotonic()
        if left_s <= 0:
            if ended or timed_out:
                break
            timed_out = True
            child.signal_group(signal.SIGKILL)
            limit = time.monotonic() + DIE_S
            continue
        wait_s = min(left_s, _POLL_S if child.exit_fd is None else _LONG_S)
        for fd, _ in poll.poll(math.ceil(wait_s * 1000)):
            if fd in open_pipes:
                data = read_now(fd)
                if data:
                    pieces[fd].append(data)
                elif data is not None:
                    open_pipes.discard(fd)
                    poll.unregister(fd)
            elif fd == child.stdin:
                rest = write_now(fd, rest)
                if not rest:
                    poll.unregister(fd)
                    child.close_stdin()
        if not ended and child.has_ended():
            ended = True
            limit = min(limit, time.monotonic() + LINGER_S)
            if child.exit_fd is not None:
                poll.unregister(child.exit_fd)
    return b"".join(pieces[child.stdout]), b"".join(pieces[child.stderr]), timed_out
