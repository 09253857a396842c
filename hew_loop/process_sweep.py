"""What a dead or ended iteration left behind: find it again by mark, group and start time, and end it."""

from __future__ import annotations

import os
import signal
from functools import cache
from pathlib import Path

from hew_loop.process_guard import is_zombie, kill_carriers, stat_fields

MARK = "HEW_MARK"
"""Set to the iteration's own mark in the environment of its program; every tool inherits it."""

GUARD = "HEW_GUARD"
"""Set to the token of the `loop` that started it, in the environment of every child."""


def sweep(mark: str) -> int:
    """SIGKILL every process whose environment has HEW_MARK=`mark`, until none is left; returns how many there were.

    Blocks for about 10 ms per 300 processes of the machine. Linux only: elsewhere 0, and nothing is killed.
    """
    return kill_carriers(f"{MARK}={mark}")


def process_start_time(pid: int) -> str:
    """Tells a process from a later one with the same number, also after a reboot; empty when it has ended."""
    fields = stat_fields(pid)
    return "" if fields is None else f"{_boot_id()}:{fields[19].decode()}"


def group_alive(pgid: int, start_time: str) -> bool:
    """Is the group of this leader the same as when `start_time` was taken, with a living member?

    False when its leader is gone: the number may be another's by now. Then the mark still finds the members.
    """
    if not start_time or process_start_time(pgid) != start_time:
        return False
    return not is_zombie(pgid) or any(_in_group(pid, pgid) for pid in _pids())


def kill_group(pgid: int, start_time: str) -> bool:
    """SIGKILL that very group; False when it was not alive."""
    if not group_alive(pgid, start_time):
        return False
    try:
        os.killpg(pgid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def _in_group(pid: int, pgid: int) -> bool:
    fields = stat_fields(pid)
    return fields is not None and int(fields[2]) == pgid and fields[0] not in (b"Z", b"X")


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


@cache
def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")[:8]
    except OSError:
        return ""
