"""Runs a gate's commands in a worktree under one deadline, and remembers what they said about a tree."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import anyio
import anyio.to_thread
from pydantic import BaseModel, ConfigDict, ValidationError

from hew_loop import process
from hew_loop.core.policy import Command, Kind, PlannedCommand, WorktreeSettings
from hew_loop.core.secrets import StreamMask, secret_values
from hew_loop.core.verdict import (
    CommandEnd,
    GateVerdict,
    Verdict,
    combine,
    failure_digest,
    shows_tests,
    verdict_of,
)

MAX_LOG_BYTES = 64 * 1024 * 1024
"""What the log keeps of each command."""


@dataclass(frozen=True, slots=True)
class CommandRun:
    """One command of a gate, run once.

    `exit_code` is None unless it ended by itself; `tail` is the end of its output, of both streams.
    """

    command: PlannedCommand
    verdict: Verdict
    reason: str
    exit_code: int | None
    duration_s: float
    tail: str


@dataclass(frozen=True, slots=True)
class GateRun:
    """A whole gate, run once. `failing`, `tail` and `exit_code` are of the first command that decided the verdict."""

    verdict: Verdict
    reason: str
    failing: str = ""
    """That command as a person would type it; empty when the gate passed."""
    tail: str = ""
    duration_s: float = 0.0
    exit_code: int | None = None
    per_command: tuple[CommandRun, ...] = ()
    """Shorter than the gate where it stopped at one that could not run."""

    @property
    def gate_verdict(self) -> GateVerdict:
        """What the cache keeps, and what `judge_gate` compares with the base."""
        return GateVerdict(self.verdict, _verdicts(self.per_command, "test"))

    @property
    def evidence(self) -> str:
        """For the next attempt's prompt: each command that did not pass, with the end of its output."""
        bad = [run for run in self.per_command if run.verdict in ("failed", "could_not_run")]
        share = 4000 // max(len(bad), 1)
        return "\n\n".join(
            f"$ {command_text(run.command)}\n{failure_digest(run.tail, max_chars=share)}\n[{run.reason}]" for run in bad
        )


async def run_commands(
    commands: Sequence[PlannedCommand],
    *,
    worktree: Path,
    env: Mapping[str, str],
    log: Path,
    mark: str,
    timeout_s: float,
    stop: anyio.Event | None = None,
) -> GateRun:
    """All commands one after another, `timeout_s` for all together; whole output appended to `log`.

    A failing command does not keep the next ones from running, so that an attempt sees all that is wrong at once; one
    that could not run does. `env` is the whole environment; nothing that a command started is alive afterwards.
    """
    began = time.monotonic()
    runs: list[CommandRun] = []
    for command in commands:
        left_s = timeout_s - (time.monotonic() - began)
        runs.append(await _run_one(command, worktree, env, log, mark, left_s, stop))
        if runs[-1].verdict == "could_not_run":
            break
    return _whole(runs, time.monotonic() - began)


def argv_of(command: Command) -> tuple[str, ...]:
    return ("sh", "-c", command) if isinstance(command, str) else command


def command_text(command: PlannedCommand) -> str:
    """As a person would type it at the root of the worktree."""
    text = command.command if isinstance(command.command, str) else shlex.join(command.command)
    return f"cd {shlex.quote(command.directory)} && {text}" if command.directory else text


async def _run_one(
    command: PlannedCommand,
    worktree: Path,
    env: Mapping[str, str],
    log: Path,
    mark: str,
    timeout_s: float,
    stop: anyio.Event | None,
) -> CommandRun:
    text = command_text(command)
    if timeout_s <= 0:
        return CommandRun(command, "could_not_run", "no time was left for it", None, 0.0, "")
    cwd = worktree / command.directory
    if worktree.is_dir() and not cwd.is_dir():
        # A package that is gone has taken its tests with it: `judge` says whether that is allowed.
        reason = f"{command.directory}/ is not in this tree"
        _append(log, f"$ {text}\n[not_tested: {reason}]\n")
        return CommandRun(command, "not_tested", reason, None, 0.0, "")
    _append(log, f"$ {text}\n")
    start = log.stat().st_size
    ended = await process.stream(
        process.Job(
            argv=argv_of(command.command),
            cwd=cwd,
            env=env,
            log=log,
            mark=mark,
            timeout_s=timeout_s,
            max_log_bytes=MAX_LOG_BYTES,
            mask=partial(StreamMask, secret_values(env)),
        ),
        stop=stop,
    )
    end = _command_end(ended, text)
    verdict, reason = verdict_of(end)
    if verdict == "not_tested" and await anyio.to_thread.run_sync(_log_shows_tests, log, start):
        verdict, reason = verdict_of(replace(end, tests_seen=True))
    _append(log, f"\n[{verdict}: {reason}; {ended.duration_s:.1f} s]\n\n")
    return CommandRun(command, verdict, reason, end.exit_code, ended.duration_s, end.tail)


def _command_end(ended: process.Ended, text: str) -> CommandEnd:
    return CommandEnd(
        exit_code=ended.exit_code if ended.reason == "exited" else None,
        timed_out=ended.reason == "timed_out",
        not_started=ended.reason == "not_started",
        tail=ended.error if ended.reason == "not_started" else ended.tail.decode("utf-8", "replace"),
        command=text,
    )


def _log_shows_tests(log: Path, start: int) -> bool:
    """A long run of many packages may end in empty ones: what is not in the tail is read from the log."""
    with log.open("rb") as output:
        output.seek(start)
        rest = b""
        while block := output.read(1 << 20):
            lines, newline, rest = (rest + block).rpartition(b"\n")
            if shows_tests((lines + newline).decode("utf-8", "replace")):
                return True
    return shows_tests(rest.decode("utf-8", "replace"))


def _append(log: Path, text: str) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8", errors="replace") as output:
        output.write(text)


def _whole(runs: Sequence[CommandRun], duration_s: float) -> GateRun:
    per_command = tuple(runs)
    verdict = combine(_verdicts(per_command, "test"), _verdicts(per_command, "lint"))
    if verdict == "passed":
        return GateRun(verdict, "every command passed", duration_s=duration_s, exit_code=0, per_command=per_command)
    deciding = next((run for run in runs if run.verdict == verdict), None)
    if deciding is None:
        reason = "no command tests anything" if runs else "there is no gate"
        return GateRun(verdict, reason, duration_s=duration_s, per_command=per_command)
    return GateRun(
        verdict,
        deciding.reason,
        failing=command_text(deciding.command),
        tail=deciding.tail,
        duration_s=duration_s,
        exit_code=deciding.exit_code,
        per_command=per_command,
    )


def _verdicts(runs: Iterable[CommandRun], kind: Kind) -> tuple[Verdict, ...]:
    return tuple(run.verdict for run in runs if run.command.kind == kind)


# ---- results that are kept


def gate_digest(
    commands: Iterable[PlannedCommand], *, env: Mapping[str, str], worktree: WorktreeSettings | None = None
) -> str:
    """What a verdict depends on besides the tree: the commands, how worktrees are set up, the tools on PATH (MQ-25).

    Starts no process: a tool is known by its resolved path, size and time, an interpreter also by when packages were
    last installed or removed. Files that define the gate lie in the tree, so the tree's id speaks for them.
    """
    planned = list(commands)
    facts: list[object] = [
        [[c.command, c.kind, c.directory] for c in planned],
        asdict(worktree) if worktree else None,
        [[name, env.get(name)] for name in _TOOL_VARIABLES],
        [_tool_facts(name, env) for name in sorted(_TOOLS.union(*(_programs(c.command) for c in planned)))],
        [_stat_facts(Path(env.get("HOME", "/")) / path) for path in _TOOL_SWITCHES],
    ]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class GateCache:
    """Verdicts by tree and digest in one JSON file; a broken or foreign file counts as empty and is written anew.

    For the holder of the run lock: two writers at once would lose each other's newest entry, never a file.
    """

    path: Path
    """`<git common dir>/hew-loop/gate-cache.json`"""
    max_entries: int = 2000

    def get(self, tree: str, digest: str) -> GateVerdict | None:
        entry = self._read().entries.get(f"{tree}:{digest}")
        return None if entry is None else GateVerdict(entry.verdict, entry.tests)

    def keep(self, tree: str, digest: str, verdict: GateVerdict) -> None:
        """Remembers it on disk; one that could not run is not remembered. The oldest entries make room."""
        if verdict.verdict == "could_not_run":
            return
        kept = self._read().entries
        kept.pop(f"{tree}:{digest}", None)
        entries = [*kept.items(), (f"{tree}:{digest}", _Entry(verdict=verdict.verdict, tests=verdict.tests))]
        self._write(_CacheFile(entries=dict(entries[-self.max_entries :])))

    def _read(self) -> _CacheFile:
        try:
            return _CacheFile.model_validate_json(self.path.read_bytes())
        except (OSError, ValidationError):
            return _CacheFile()

    def _write(self, content: _CacheFile) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.path.parent, prefix=".gate-cache.", delete=False) as aside:
                aside.write(content.model_dump_json().encode())
                aside.flush()
                os.fsync(aside.fileno())
            Path(aside.name).replace(self.path)
        except OSError:
            pass  # a full disk costs a gate run more, and not the run


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid")

    verdict: Literal["passed", "failed", "not_tested"]
    tests: tuple[Verdict, ...] = ()


class _CacheFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    schema_version: Literal[1] = 1
    entries: dict[str, _Entry] = {}


_TOOLS = frozenset(
    {"python3", "python", "pytest", "uv", "node", "npm", "cargo", "rustc", "go", "java", "mvn", "gradle", "dotnet"}
    | {"elixir", "mix", "ruby", "bundle", "make", "just"}
)
"""Looked at in any case: `just test` and `sh -c` do not say what they call."""
_TOOL_VARIABLES = (
    *("PYTHONPATH", "PYTEST_ADDOPTS", "VIRTUAL_ENV", "PYENV_VERSION", "NODE_OPTIONS", "NODE_ENV"),
    *("RUSTFLAGS", "RUSTUP_TOOLCHAIN", "GOFLAGS", "GOTOOLCHAIN", "JAVA_HOME", "MIX_ENV", "CI"),
)
_TOOL_SWITCHES = (".rustup/settings.toml", ".rustup/update-hashes", ".pyenv/version")
"""Behind a shim on PATH the tool changes and the shim does not."""


def _programs(command: Command) -> set[str]:
    if not isinstance(command, str):
        return set(command[:1])
    try:
        words = shlex.split(command, comments=True)
    except ValueError:
        return set()
    return set(words)


def _tool_facts(name: str, env: Mapping[str, str]) -> list[object]:
    found = shutil.which(name, path=env.get("PATH", os.defpath))
    if found is None:
        return [name, None]
    facts: list[object] = [name, _stat_facts(Path(found).resolve())]
    if name.startswith("python"):
        # Of the path as found too: an environment's own packages lie beside the link, not beside what it points to.
        prefixes = dict.fromkeys((Path(found).parent.parent, Path(found).resolve().parent.parent))
        packages = (path for prefix in prefixes for path in prefix.glob("lib/python3*/*-packages"))
        facts.extend(_stat_facts(path) for path in sorted(packages))
    return facts


def _stat_facts(path: Path) -> list[object]:
    try:
        status = path.stat()
    except OSError:
        return [str(path), None]
    return [str(path), status.st_size, status.st_mtime_ns]
