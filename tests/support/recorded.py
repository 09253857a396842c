"""Recorded agent runs of `tests/data/agents`, fed to a reader whole and cut."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hew_loop.core.iteration import AgentReport
from hew_loop.runtimes.base import Ending, OutputReader

AGENTS = Path(__file__).parent.parent / "data" / "agents"
ENDINGS: dict[str, Ending] = {
    # what the runner did in these cases; of a SIGKILL from outside it knows nothing
    "cancelled": "cancelled",
    "not_ended": "timed_out",
    "not_ended_done": "timed_out",
    "spawn_error": "not_started",
}


@dataclass(frozen=True, slots=True)
class Case:
    agent: str
    name: str
    exit_code: int | None
    expected: str | None
    """The class of the index, in our words: None is success."""
    ending: Ending
    is_text: bool
    """Recorded without events, in a format that is never asked for."""

    @property
    def stdout(self) -> bytes:
        return self._file("stdout")

    @property
    def stderr(self) -> bytes:
        return self._file("stderr")

    def replay(self, reader: OutputReader, *, cut: int | None = None) -> AgentReport:
        """What the reader says of the stream, or of its first `cut` bytes, in pieces that end in mid-line."""
        stdout = self.stdout[:cut]
        for start in range(0, len(stdout), 997):
            reader.feed(stdout[start : start + 997])
        return reader.report(ending=self.ending, exit_code=self.exit_code, stderr_tail=self.stderr)

    def cuts(self) -> list[int]:
        """At every line end, and in the middle of every line."""
        stdout = self.stdout
        ends = [at + 1 for at, byte in enumerate(stdout) if byte == 0x0A]
        return [0, *ends, *((start + end) // 2 for start, end in zip([0, *ends], ends, strict=False))]

    def _file(self, suffix: str) -> bytes:
        path = AGENTS / self.agent / f"{self.name}.{suffix}"
        return path.read_bytes() if path.exists() else b""


def cases(agent: str) -> list[Case]:
    return [_case(json.loads(line)) for line in (AGENTS / agent / "index.jsonl").read_text().splitlines()]


def case_of(agent: str, name: str) -> Case:
    return next(case for case in cases(agent) if case.name == name)


def _case(line: dict[str, Any]) -> Case:
    kind: str = line["class"]
    return Case(
        agent=line["agent"],
        name=line["case"],
        exit_code=line["exit"],
        expected={"success": None, "not_ended_done": None, "not_ended": "timed_out"}.get(kind, kind),
        ending=ENDINGS.get(kind, "exited"),
        is_text=line.get("format") == "text",
    )


def never_a_success_too_early(make: Callable[[], OutputReader], case: Case, *, final: bytes) -> None:
    """Asserts that each cut stream is a failure as long as no whole line of it is final, and that none raises."""
    stdout = case.stdout
    for cut in case.cuts():
        report = case.replay(make(), cut=cut)
        if report.failure is None:
            whole_lines = stdout[:cut].rpartition(b"\n")[0]
            assert final in whole_lines, f"success after {cut} bytes"
