"""Every configuration key: its name, its type, its default as a person would write it, and one line about it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, cast, get_origin

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, StringConstraints

_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)d)?(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_BYTES = re.compile(r"(\d+)\s*(B|kB|KB|MB|GB|KiB|MiB|GiB)?")
_UNITS = {"B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def parse_duration(value: object) -> float:
    """Seconds. Takes `2h30m`, `90s`, `1d` or a number of seconds; raises ValueError with a sentence for the rest."""
    text = value.strip() if isinstance(value, str) else ""
    if (isinstance(value, int | float) and not isinstance(value, bool)) or _NUMBER.fullmatch(text):
        seconds = float(cast("float | str", value))
    elif text and (found := _DURATION.fullmatch(text)):
        seconds = sum(float(n or 0) * unit for n, unit in zip(found.groups(), (86400, 3600, 60, 1), strict=True))
    else:
        raise ValueError("not a duration: write 90s, 15m, 2h30m, or a number of seconds")
    if not math.isfinite(seconds) or seconds < 0:
        raise ValueError("a duration cannot be negative or without end")
    return seconds


def parse_bytes(value: object) -> int:
    """Bytes. Takes `64MiB`, `10MB`, or a number; raises ValueError with a sentence for anything else."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str) and (found := _BYTES.fullmatch(value.strip())):
        return int(found[1]) * _UNITS[found[2] or "B"]
    raise ValueError("not a size: write 64MiB, 10MB, or a number of bytes")


def _command(value: object) -> str | list[str]:
    if isinstance(value, str) and value.strip():
        return value
    if isinstance(value, list | tuple):
        items = cast("Sequence[object]", value)
        words = [item for item in items if isinstance(item, str)]
        if words and words[0] and len(words) == len(items):
            return words
    raise ValueError("write a string, which runs through sh -c, or a list of strings, which is an argv")


def _commands(value: object) -> list[str | list[str]]:
    if isinstance(value, list | tuple):
        return [_command(item) for item in cast("Sequence[object]", value)]
    return [_command(value)]


def _verify_command(value: object) -> str | list[str]:
    return "" if value == "" else _command(value)


def _inside(path: str) -> str:
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\0" in path:
        raise ValueError("write a path relative to the repository root, without ..")
    return path


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("a NUL character cannot reach a program")
    return text


def _positive(number: float) -> float:
    if number <= 0:
        raise ValueError("must be more than zero")
    return number


def _built(*built: str) -> BeforeValidator:
    """Names the choices that this version has; a planned one gets a sentence instead of a list of letters."""

    def check(value: object) -> object:
        if value not in built:
            raise ValueError(f"this version knows {', '.join(built[:-1])} and {built[-1]}")
        return value

    return BeforeValidator(check)


Duration = Annotated[float, BeforeValidator(parse_duration)]
Timeout = Annotated[float, BeforeValidator(parse_duration), AfterValidator(_positive)]
Size = Annotated[int, BeforeValidator(parse_bytes), AfterValidator(_positive)]
InsidePath = Annotated[str, AfterValidator(_inside)]
Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
Variable = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
NoNul = Annotated[str, AfterValidator(_without_nul)]
Text = Annotated[str, StringConstraints(min_length=1)]
Dollars = Annotated[float, Field(ge=0, allow_inf_nan=False)]
ShellOrArgv = Annotated[str | list[str], PlainValidator(_command)]


def _key(default: Any, about: str, *, example: str = "", **limits: Any) -> Any:
    """A key with its default written as in a file; `example` stands in the starter file where there is no default."""
    return Field(
        default,
        description=about,
        validate_default=True,
        json_schema_extra={"example": example} if example else None,
        **limits,
    )


class Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelTable(Table):
    default: Text | None = _key(
        None, "model for tasks that nothing else decides; none: the runtime's own", example='"opus"'
    )
    by_priority: dict[Literal["P0", "P1", "P2", "P3", "P4"], Text] = _key(
        {}, "model by task priority", example='{ P0 = "opus", P3 = "haiku" }'
    )
    by_type: dict[Word, Text] = _key({}, "model by task type", example='{ bug = "opus" }')
    fallback: Text | None = _key(
        None,
        "model for a task whose own is overloaded or not known to the server; none: wait, or stop",
        example='"sonnet"',
    )


class PlannerTable(Table):
    enabled: bool = _key(True, "ask a small agent call what to start next when the finished agents were silent")
    budget_tokens: int = _key(10000, "a planner prompt estimated above this is not sent; 0: no planner", ge=0)
    runtime: Word | None = _key(
        None, "who plans; none: the run's own runtime, unless that is a [runtime.NAME] command", example='"claude"'
    )
    model: Text | None = _key(None, "model of the planner; none: the runtime's own", example='"haiku"')
    wait_s: float = _key(20.0, "seconds that a free slot waits for the planner at most", ge=0, allow_inf_nan=False)
    timeout: Timeout = _key("2m", "limit of one planner call")


class PromptTable(Table):
    file: InsidePath | None = _key(
        None, "replaces the built-in instructions of the prompt; in the repository", example='".hew/skill.md"'
    )


class PriceTable(Table):
    """US dollars for a million tokens of one model. A list entry, since model names have dots."""

    model: Text
    input: Dollars
    output: Dollars
    cache_read: Dollars = 0.0
    cache_create: Dollars = 0.0


class GateTable(Table):
    commands: Annotated[list[str | list[str]], PlainValidator(_commands)] = _key(
        [],
        "what a candidate must pass before it lands; a string runs through sh -c. Not set: detected; []: no gate",
        example='["just test", ["ruff", "check"]]',
    )
    timeout: Timeout = _key("30m", "limit of each gate command")


class EndOfRunTable(Table):
    verify_tests: bool = _key(True, "test the integrated tree at the end of the run")
    verify_command: Annotated[str | list[str], PlainValidator(_verify_command)] = _key(
        "", "how to test it; empty: detected", example='"just check"'
    )
    verify_budget_wall: Timeout = _key("10m", "limit of the end-of-run test")


class LoopTable(Table):
    jobs: int = _key(1, "how many tasks at a time, 1 to 64", ge=1, le=64)
    runtime: Word = _key("claude", "the agent: claude, or the NAME of a [runtime.NAME] table")
    fallback_runtime: Word | None = _key(
        None, "the agent that takes over while the first one is limited or fails; none: wait", example='"codex"'
    )
    fallback_cooldown_iters: int = _key(
        3, "so many good iterations of the fallback before the first runtime is tried again", ge=1
    )
    attempts: int = _key(3, "iterations per task before it is parked", ge=1)
    iter_timeout: Timeout = _key("60m", "limit of one iteration")
    stall_timeout: Timeout = _key("15m", "an agent that prints nothing for so long is stopped")
    max_iter: int | None = _key(None, "iterations of a whole run; none: no limit", example="100", ge=0)
    budget_tokens: int | None = _key(None, "tokens of a whole run; none: no limit", example="5000000", ge=0)
    budget_usd: float | None = _key(None, "US dollars of a whole run", example="20.0", ge=0, allow_inf_nan=False)
    budget_wall: Duration | None = _key(None, "time of a whole run; none: no limit", example='"8h"')
    cache_read_weight: float = _key(
        1.0, "what a token read from the cache counts against budget_tokens", ge=0, allow_inf_nan=False
    )
    unknown_tokens: int = _key(50000, "what an iteration without known usage counts against budget_tokens", ge=0)
    unknown_usd: float = _key(
        0.5, "what an iteration without known cost counts against budget_usd", ge=0, allow_inf_nan=False
    )
    guard_trip: int = _key(5, "so many failures in a row stop the run", ge=1)
    cooldown: Duration = _key("1h", "in steps (loop step): how long a task that failed waits before it is tried again")
    max_new: int | None = _key(
        None,
        "tasks created during a run that it may start; none: as many as were in scope at its start",
        example="20",
        ge=0,
    )
    accept_no_change: bool = _key(True, "an agent's explicit no_change closes its task")
    avoid_conflicts: bool = _key(True, "among equal priorities start first what changes no file that others change now")
    until_empty: bool = _key(True, "stop when nothing is ready; false: keep looking for new tasks")
    poll_s: float = _key(10.0, "seconds between looks at the tracker while a slot is free", gt=0, allow_inf_nan=False)
    tracker: Annotated[Literal["auto", "bd", "beads"], _built("auto", "bd", "beads")] = _key(
        "auto", "auto: the store decides; bd; or beads, the embedded store"
    )
    deliver: Annotated[Literal["merge", "branch"], _built("merge", "branch")] = _key(
        "merge", "merge: fast-forward the launch branch; branch: leave the integration branch"
    )
    max_output: Size = _key("64MiB", "how much of one agent's output output.log keeps")
    prices: list[PriceTable] = _key(
        [],
        "US dollars for a million tokens, for agents that report no cost; marked as estimated",
        example='[{ model = "gpt-5-codex", input = 1.25, output = 10.0, cache_read = 0.125 }]',
    )
    gate: GateTable = GateTable()
    end_of_run: EndOfRunTable = EndOfRunTable()
    model: ModelTable = ModelTable()
    planner: PlannerTable = PlannerTable()
    prompt: PromptTable = PromptTable()


class RuntimeTable(Table):
    command: list[NoNul] = _key(
        [],
        "argv; {task_id}, {model}, {prompt_file} and {worktree} are filled in",
        example='["my-agent", "--task", "{task_id}"]',
    )
    prompt: Literal["stdin", "file", "arg"] = _key("stdin", "how the prompt gets there: stdin, file or arg")
    success: list[Annotated[int, Field(ge=0, le=255)]] = _key([0], "exit codes that mean success; 75 means try later")


class WorktreeTable(Table):
    setup: ShellOrArgv | None = _key(None, "run in a worktree before its first use", example='"npm ci"')
    setup_inputs: list[InsidePath] = _key(
        [], "setup runs again when one of these files changed", example='["package-lock.json"]'
    )
    copy_: list[InsidePath] = _key([], "ignored files to copy from the main worktree", alias="copy", example='[".env"]')
    link: list[InsidePath] = _key([], "ignored paths to link to the main worktree", example='["node_modules"]')
    env: dict[Variable, NoNul] = _key({}, "variables for set-up, agents and gate", example='{ NODE_ENV = "test" }')
    pristine: bool = _key(False, "clean ignored files too before each iteration")


class NotifyTable(Table):
    """No key yet; the name is taken."""


class SandboxTable(Table):
    """No key yet; the name is taken."""


class Configuration(BaseModel):
    """Our tables; every other table of the file belongs to somebody else and is left alone."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    loop: LoopTable = LoopTable()
    runtime: dict[Word, RuntimeTable] = {}
    worktree: WorktreeTable = WorktreeTable()
    notify: NotifyTable = NotifyTable()
    sandbox: SandboxTable = SandboxTable()


TABLES = tuple(Configuration.model_fields)


@dataclass(frozen=True, slots=True)
class Key:
    """One key, for documents and messages. `runtime.NAME.…` stands for every runtime table."""

    name: str
    default: Any
    about: str
    example: str
    is_map: bool

    @property
    def variable(self) -> str | None:
        """The environment variable that sets it: for the plain values of `[loop]` only."""
        if self.is_map or not self.name.startswith("loop."):
            return None
        return "HEW_" + self.name.upper().replace(".", "_")


def _walk(model: type[BaseModel], prefix: str) -> Iterator[Key]:
    for attribute, field in model.model_fields.items():
        name = f"{prefix}.{field.alias or attribute}"
        kind: Any = field.annotation
        if isinstance(kind, type) and issubclass(kind, Table):
            yield from _walk(kind, name)
            continue
        extra = cast("dict[str, str]", field.json_schema_extra or {})
        yield Key(name, field.default, field.description or "", extra.get("example", ""), get_origin(kind) is dict)


KEYS = (*_walk(LoopTable, "loop"), *_walk(RuntimeTable, "runtime.NAME"), *_walk(WorktreeTable, "worktree"))
