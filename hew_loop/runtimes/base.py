"""The seam to agent programs: what to start, and what its output means. No process code here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from hew_loop.core.iteration import AgentReport

Ending = Literal["exited", "timed_out", "stalled", "cancelled", "not_started"]
Purpose = Literal["task", "plan"]


@dataclass(frozen=True, slots=True)
class AgentRequest:
    """One agent run, before the program is known."""

    task: str
    prompt: str
    prompt_file: Path
    worktree: Path
    model: str | None
    git_dirs: tuple[Path, ...] = ()
    """The common git directory and the worktree's own: what an agent in a sandbox has to write to commit (RT-7)."""
    purpose: Purpose = "task"
    """`plan` asks for words alone: the program is started so that it can change nothing, as far as it lets us."""


@dataclass(frozen=True, slots=True)
class Invocation:
    """What to start: argv, variables on top of the iteration's environment, bytes for stdin (then end of file)."""

    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    stdin: bytes = b""
    stop_signal: int = 15


class OutputReader(Protocol):
    """Reads one agent's stdout while it runs. Never raises on what an agent prints."""

    def feed(self, data: bytes) -> None:
        """Any piece of stdout, cut anywhere."""
        ...

    @property
    def is_final(self) -> bool:
        """The final event was seen: the process gets 30 s to end, the outcome stays (RT-22).

        Plain text has none, so such an agent may take its whole time.
        """
        return False

    @property
    def is_progress(self) -> bool:
        """The newest piece held more than notices that it waits for its provider (RT-28)."""
        return True

    @property
    def is_limited(self) -> bool:
        """The newest line says that it waits for a rate limit to end, however long that takes."""
        return False

    def report(self, *, ending: Ending, exit_code: int | None, stderr_tail: bytes) -> AgentReport:
        """The outcome; called once. `exit_code` is negative for a signal, None when it never started."""
        ...


class Runtime(Protocol):
    name: str
    fenced_answers: bool
    """Where not, a fenced block of its answer may end up in a file, and the prompt asks for tags instead (RT-44)."""
    own_files: tuple[str, ...]
    """Names, with wildcards, of what the program itself leaves at the top of the worktree: no work of the task's."""

    def invocation(self, request: AgentRequest) -> Invocation: ...

    def reader(self) -> OutputReader: ...
