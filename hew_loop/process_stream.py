"""The life of one long program as one task group: fed, read, watched and brought down; `process.py` starts it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import anyio
import anyio.to_thread

from hew_loop.process_guard import kill_carriers
from hew_loop.process_output import Output
from hew_loop.process_sweep import MARK

LINGER_S = 0.25
"""How long pipes may stay open after the program's end, for a `tee` behind it to write its last lines."""

DIE_S = 10.0
"""How long a process may take to go after SIGKILL; only one that hangs in the kernel takes longer."""

_CHUNK = 256 * 1024
_PIPE_CHUNKS = 16
"""More reads than an ordinary pipe can need to be emptied."""

EndReason = Literal["exited", "timed_out", "stalled", "cancelled", "not_started"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A long program: what to start, how long to let it live, how to stop it. Durations in seconds."""

    argv: tuple[str, ...]
    cwd: Path
    env: Mapping[str, str]
    log: Path
    """stdout and stderr are appended to it, in the order in which they arrive."""
    mark: str
    """Unique to this job: everything that carries it is killed at its end."""
    stdin: bytes = b""
    timeout_s: float = 3600.0
    stall_s: float | None = None
    """Ends the job after so long without any output."""
    limit_s: float | None = None
    """The same, after so long in which `is_limited` held."""
    max_log_bytes: int = 64 * 1024 * 1024
    stop_signal: int = signal.SIGTERM
    grace_s: float = 5.0
    """From the stop signal to SIGKILL."""
    final_grace_s: float = 30.0
    """From `is_final` to the stop signal."""
    mask: Callable[[], Mask] | None = None
    """Makes the filter that each output stream goes through before anybody sees it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a job ended. `reason` is what we did or saw; the exit code alone says little (RT-36)."""

    reason: EndReason
    exit_code: int | None = None
    """Negative for a signal; None when it never started or nobody knows."""
    duration_s: float = 0.0
    output_bytes: int = 0
    dropped_bytes: int = 0
    """Of these, how many are not in the log."""
    tail: bytes = b""
    """The last 64 KiB of stdout and stderr in the order of the log."""
    stderr_tail: bytes = b""
    leftovers: int = 0
    """Processes that outlived the program, or had to be killed with it."""
    error: str = ""
    """Why it did not start, or what of the log, the exit code or the end went wrong."""


class Child(Protocol):
    """A program that runs, with non-blocking pipes."""

    pid: int
    stdin: int | None
    stdout: int
    stderr: int

    async def wait_for_end(self) -> None: ...

    def signal_group(self, number: int) -> None: ...

    def close_stdin(self) -> None: ...

    def reap(self) -> int | None: ...

    def close(self) -> None: ...


class Mask(Protocol):
    """Keeps something out of a stream of bytes that comes in pieces."""

    def feed(self, data: bytes) -> bytes: ...

    def flush(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Hooks:
    on_stdout: Callable[[bytes], None] | None
    is_final: Callable[[], bool] | None
    is_progress: Callable[[], bool] | None
    is_limited: Callable[[], bool] | None


class Streaming:
    """The life of one job: four tasks that feed, read twice and wait for the end, beside one that decides."""

    def __init__(
        self,
        job: Job,
        child: Child,
        output: Output,
        hooks: Hooks,
        stop: anyio.Event | None,
    ) -> None:
        self.leftovers = 0
        self.broken: Exception | None = None
        """What a callback raised; none is called again."""
        self._job = job
        self._child = child
        self._output = output
        self._hooks = hooks
        self._stop = stop
        self._swept = False
        self._ended = anyio.Event()
        self._all_read = anyio.Event()
        self._open_pipes = {child.stdout, child.stderr}
        self._masks = {fd: job.mask() for fd in self._open_pipes} if job.mask else {}
        self._changed = anyio.Event()
        self._timeout_at = anyio.current_time() + job.timeout_s
        self._output_at = self._progress_at = anyio.current_time()
        self._limited_at: float | None = None
        self._final_at: float | None = None

    async def to_the_end(self) -> EndReason:
        reason: EndReason = "exited"
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._await_end)
            for fd in (self._child.stdout, self._child.stderr):
                tasks.start_soon(self._read, fd)
            if self._child.stdin is not None:
                tasks.start_soon(self._feed, self._child.stdin)
            if self._stop is not None:
                tasks.start_soon(self._await_stop, self._stop)
            reason = await self._decide()
            await self._bring_down()
            tasks.cancel_scope.cancel()
        return "exited" if self._final_at is not None else reason

    async def clean_up(self) -> None:
        """Whatever happened: nothing of the job lives after this."""
        if not (self._ended.is_set() and self._swept):
            with anyio.move_on_after(DIE_S, shield=True):
                await self._kill_all()
                await self._child.wait_for_end()
        self._child.reap()
        self._child.close()

    async def _decide(self) -> EndReason:
        while True:
            if self._ended.is_set() or self.broken is not None:
                return "exited"
            if self._stop is not None and self._stop.is_set():
                return "cancelled"
            due, reason = self._next_deadline()
            if anyio.current_time() >= due:
                self._read_what_is_there()  # we may have been the ones who slept
                due, reason = self._next_deadline()
                if anyio.current_time() >= due:
                    return reason
            self._changed = anyio.Event()
            with anyio.move_on_after(due - anyio.current_time()):
                await self._changed.wait()

    def _next_deadline(self) -> tuple[float, EndReason]:
        deadlines: list[tuple[float, EndReason]] = [(self._timeout_at, "timed_out")]
        if self._final_at is not None:
            deadlines.append((self._final_at + self._job.final_grace_s, "exited"))
        if self._job.stall_s is not None:
            deadlines.append((min(self._output_at, self._progress_at) + self._job.stall_s, "stalled"))
        if self._job.limit_s is not None and self._limited_at is not None:
            deadlines.append((self._limited_at + self._job.limit_s, "stalled"))
        return min(deadlines)

    async def _bring_down(self) -> None:
        if self.broken is None and not self._ended.is_set():
            self._child.signal_group(self._job.stop_signal)
            with anyio.move_on_after(self._job.grace_s):
                await self._ended.wait()
        if self._ended.is_set():
            with anyio.move_on_after(LINGER_S):
                await self._all_read.wait()
        await self._kill_all()
        with anyio.move_on_after(DIE_S):
            await self._ended.wait()
        with anyio.move_on_after(LINGER_S):
            await self._all_read.wait()
        self._read_what_is_there()
        for fd, mask in self._masks.items():
            self._pass_on(fd, mask.flush())

    async def _kill_all(self) -> None:
        own = anyio.CapacityLimiter(1)  # not to queue behind forty other things that run in threads
        self.leftovers += await anyio.to_thread.run_sync(self._kill, abandon_on_cancel=True, limiter=own)
        self._swept = True

    def _kill(self) -> int:
        pid = self._child.pid
        count = kill_carriers(f"{MARK}={self._job.mark}", session=pid, uncounted=pid)
        self._child.signal_group(signal.SIGKILL)  # where there is no /proc
        return count

    async def _await_end(self) -> None:
        await self._child.wait_for_end()
        self._ended.set()
        self._changed.set()

    async def _await_stop(self, stop: anyio.Event) -> None:
        await stop.wait()
        self._changed.set()

    async def _feed(self, fd: int) -> None:
        rest = memoryview(self._job.stdin)
        while rest:
            await anyio.wait_writable(fd)
            rest = write_now(fd, rest)
        self._child.close_stdin()

    async def _read(self, fd: int) -> None:
        while True:
            await anyio.wait_readable(fd)
            data = read_now(fd)
            if data:
                self._take(fd, data)
            elif data is not None:
                break
        self._open_pipes.discard(fd)
        if not self._open_pipes:
            self._all_read.set()

    def _read_what_is_there(self) -> None:
        for fd in tuple(self._open_pipes):
            for _ in range(_PIPE_CHUNKS):
                if not (data := read_now(fd)):
                    break
                self._take(fd, data)

    def _take(self, fd: int, data: bytes) -> None:
        self._output_at = anyio.current_time()
        if self._hooks.is_progress is None:
            self._progress_at = self._output_at
        self._pass_on(fd, self._masks[fd].feed(data) if self._masks else data)

    def _pass_on(self, fd: int, data: bytes) -> None:
        is_stdout = fd == self._child.stdout
        self._output.take(data, is_stdout=is_stdout)
        if not data or self.broken is not None:
            return
        try:
            self._tell(data, is_stdout=is_stdout)
        except Exception as error:
            self.broken = error
            self._changed.set()

    def _tell(self, data: bytes, *, is_stdout: bool) -> None:
        hooks = self._hooks
        if is_stdout and hooks.on_stdout is not None:
            hooks.on_stdout(data)
        if hooks.is_progress is not None and hooks.is_progress():
            self._progress_at = self._output_at
        if hooks.is_limited is not None:
            self._mind_limit(is_limited=hooks.is_limited())
        if is_stdout and self._final_at is None and hooks.is_final is not None and hooks.is_final():
            self._final_at = self._output_at
            self._changed.set()

    def _mind_limit(self, *, is_limited: bool) -> None:
        if is_limited == (self._limited_at is not None):
            return
        self._limited_at = self._output_at if is_limited else None
        self._changed.set()  # there is another deadline now


def read_now(fd: int) -> bytes | None:
    """What is there, at most a chunk; None when nothing is there now, empty at the end."""
    try:
        return os.read(fd, _CHUNK)
    except BlockingIOError:
        return None


def write_now(fd: int, data: memoryview) -> memoryview:
    """What is left to write; nothing when the reader is gone."""
    try:
        return data[os.write(fd, data[:_CHUNK]) :]
    except BlockingIOError:
        return data
    except OSError:
        return data[:0]
