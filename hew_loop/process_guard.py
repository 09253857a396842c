"""Kills every process that carries a mark in its environment; run as a script, it is the guard of one `loop`.

Agents' tools make sessions of their own, so a process group does not hold them; the environment they inherit does.
The script is started as `python -I -S process_guard.py NAME=TOKEN` with a pipe as stdin. While `loop` lives the pipe is
open; at its end without the line `done` before it, `loop` has died, and what carries the token must not outlive it.
Only the standard library: with `-I -S` the package cannot be imported.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time

_SCANS = 20
_UNSURE_SCANS = 3
_DIE_MS = 100
_SETTLE_MS = 100


def kill_carriers(entry: str, *, session: int = 0, uncounted: int = 0) -> int:
    """SIGKILL all that has `entry` (`NAME=value`) in its environment or belongs to `session`, until a scan finds none.

    Returns how many there were besides `uncounted`. Never ourselves; nothing where there is no /proc. Of other users'
    processes only root sees the environment, and then they go too: an agent that is root may have started them.
    """
    wanted = os.fsencode(entry)
    killed: set[int] = set()
    unsure = 0
    for _ in range(_SCANS):
        carriers, vanished = _scan(wanted, session)
        if not carriers:
            unsure += 1
            if not vanished or unsure == _UNSURE_SCANS:
                break
            continue
        dying: list[int] = []
        killed.update(pid for pid in carriers if _kill(pid, wanted, session, dying))
        _wait_for(dying)
    return len(killed - {uncounted})


def main(entry: str) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    groups = _read_until_loop_ends(0)
    if groups is None:
        return
    for group in groups | _groups_of_carriers(entry):
        _kill_group(group)
    give_up = time.monotonic() + 5
    # A program that `loop` was just starting gets its environment only after the first scan: look until nothing comes.
    while kill_carriers(entry) or not _is_settled(entry):
        if time.monotonic() > give_up:
            break


def _is_settled(entry: str) -> bool:
    select.poll().poll(_SETTLE_MS)
    return kill_carriers(entry) == 0


def _read_until_loop_ends(pipe: int) -> set[int] | None:
    """The groups to end with `loop`; None when it said that it is done."""
    groups: set[int] = set()
    rest = b""
    while data := os.read(pipe, 4096):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            match line.split():
                case [b"done"]:
                    return None
                case [b"watch", group]:
                    groups.add(int(group))
                case [b"forget", group]:
                    groups.discard(int(group))
                case _:
                    pass
    return groups


def _groups_of_carriers(entry: str) -> set[int]:
    """A tool that dropped its environment is still in the group of the agent that started it.

    `loop` starts each program in a session of its own, so that no group of a carrier holds anybody else.
    """
    groups: set[int] = set()
    for pid in _scan(os.fsencode(entry), 0)[0]:
        try:
            groups.add(os.getpgid(pid))
        except OSError:
            continue
    return groups


def _kill_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except OSError:
        pass


def _scan(wanted: bytes, session: int) -> tuple[list[int], bool]:
    """The carriers, and whether a process ended under our eyes: it may have forked a carrier not listed yet."""
    try:
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208
    except OSError:
        return [], False
    pids = [pid for pid in pids if pid != os.getpid()]
    carriers: list[int] = []
    empty: list[int] = []
    vanished = False
    for pid in pids:
        try:
            environment = _environment(pid)
        except (FileNotFoundError, ProcessLookupError):
            vanished = True
            continue
        except OSError:  # not ours to read
            environment = None
        if _holds(environment, wanted) or (session and _lives_in(pid, session)):
            carriers.append(pid)
        elif environment == b"":
            empty.append(pid)
    # In the middle of an execve an environment reads as empty for some microseconds: look a second time.
    carriers.extend(pid for pid in empty if _is_carrier(pid, wanted, 0))
    return carriers, vanished


def _is_carrier(pid: int, wanted: bytes, session: int) -> bool:
    try:
        environment = _environment(pid)
    except OSError:
        environment = None
    return _holds(environment, wanted) or (session > 0 and _lives_in(pid, session))


def _kill(pid: int, wanted: bytes, session: int, dying: list[int]) -> bool:
    """Adds to `dying` a descriptor that becomes readable at its end, where the system has such."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    except (OSError, AttributeError):  # a kernel or a sandbox without pidfd
        fd = None
    if fd is not None:
        dying.append(fd)
    # The descriptor pins the process: only now is it certain that the number was not given to another meanwhile.
    if not _is_carrier(pid, wanted, session):
        return False
    try:
        if fd is None:
            os.kill(pid, signal.SIGKILL)
        else:
            signal.pidfd_send_signal(fd, signal.SIGKILL)
    except OSError:
        return False
    return True


def _wait_for(dying: list[int]) -> None:
    """Until all have ended, at most `_DIE_MS`; closes the descriptors."""
    poll = select.poll()
    for fd in dying:
        poll.register(fd, select.POLLIN)
    left = set(dying)
    until = time.monotonic() + _DIE_MS / 1000
    while left and (wait_ms := (until - time.monotonic()) * 1000) > 0:
        for fd, _ in poll.poll(wait_ms):
            poll.unregister(fd)
            left.discard(fd)
    if not dying:
        poll.poll(_DIE_MS / 10)
    for fd in dying:
        os.close(fd)


def _environment(pid: int) -> bytes:
    fd = os.open(f"/proc/{pid}/environ", os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts: list[bytes] = []
        while part := os.read(fd, 1 << 16):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(fd)


def _holds(environment: bytes | None, wanted: bytes) -> bool:
    return environment is not None and wanted in environment and wanted in environment.split(b"\0")


def _lives_in(pid: int, session: int) -> bool:
    try:
        return os.getsid(pid) == session and not is_zombie(pid)
    except OSError:
        return False


def is_zombie(pid: int) -> bool:
    return (fields := stat_fields(pid)) is None or fields[0] in (b"Z", b"X")


def stat_fields(pid: int) -> list[bytes] | None:
    """The fields of /proc/PID/stat from the state on: [0] state, [2] group, [19] start in ticks since boot."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()  # the name before it may hold anything
    except OSError:
        return None


if __name__ == "__main__":
    main(sys.argv[1])
