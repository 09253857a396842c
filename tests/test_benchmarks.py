"""The benchmarks still run, in small; how fast says nothing here."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LINE = re.compile(r"(?P<name>.+?) +[\d.]+ \S+ +floor +[\d.]+ \S+ +ratio +[\d.]+ +goal +[\d.]+ +(ok|OVER)( .*)?")


def benchmarks(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *args], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )


def test_the_benchmarks_of_a_backlog_and_of_memory_say_one_line_for_each_number() -> None:
    done = benchmarks("--quick", "backlog", "memory")
    assert (done.returncode, done.stderr) == (0, "")
    names = [found["name"] if (found := LINE.fullmatch(line)) else line for line in done.stdout.splitlines()]
    assert names == [
        "first view as a line",
        "tick on first view",
        "tick, median of others",
        "tick, slowest of others",
        "loop task ready --json",
        "loop --help",
        "memory, most",
        "memory, end against warm",
    ]


@pytest.mark.slow
def test_the_benchmark_of_touch_sets_counts_conflicts_and_takes_the_time() -> None:
    done = benchmarks("--quick", "touch")
    assert (done.returncode, done.stderr) == (0, "")
    names = [found["name"] if (found := LINE.fullmatch(line)) else line for line in done.stdout.splitlines()]
    assert names == ["touch, 1 file, 2 jobs", "touch, 1 file, 2 jobs, time"]


def test_an_unknown_benchmark_is_named_with_those_that_are_known() -> None:
    done = benchmarks("speed")
    assert done.returncode == 2
    known = "overhead, efficiency, gate, backlog, memory, startup, touch"
    assert f"there is no benchmark 'speed' (known: {known})" in done.stderr
