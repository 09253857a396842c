"""Layered configuration: defaults, user file, project file, environment, command line; each value knows its source."""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import ValidationError

from hew_loop.config_schema import KEYS, TABLES, Configuration, parse_bytes, parse_duration
from hew_loop.core.policy import (
    Command,
    GateSettings,
    ModelSettings,
    PlannedCommand,
    PlannerSettings,
    Policy,
    Price,
    RuntimeSettings,
    Scope,
    VerifySettings,
    WorktreeSettings,
)
from hew_loop.core.secrets import is_secret_name
from hew_loop.errors import UsageError

__all__ = ["ConfigFile", "Settings", "Sourced", "load", "masked", "nearest", "parse_bytes", "parse_duration", "shown"]

PROJECT_FILE = ".hew.toml"
LayerName = Literal["default", "user", "project", "HEW_CONFIG", "environment", "command line"]


@dataclass(frozen=True, slots=True)
class Sourced:
    """A value as it was written, and who wrote it."""

    value: Any
    layer: LayerName
    where: str = ""
    """Path of the file or name of the variable; empty for defaults and the command line."""

    @property
    def source(self) -> str:
        return self.where or self.layer


@dataclass(frozen=True, slots=True)
class ConfigFile:
    layer: LayerName
    path: Path
    exists: bool


@dataclass(frozen=True, slots=True)
class _Layer:
    name: LayerName
    where: str
    table: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Settings:
    """The merged configuration."""

    values: dict[str, Sourced]
    files: tuple[ConfigFile, ...]
    layers: tuple[_Layer, ...]

    def policy(
        self, overrides: Mapping[str, Any] | None = None, *, scope: Scope | None = None, model: str | None = None
    ) -> Policy:
        """The frozen policy of a run. `overrides` is the command line by dotted key; None means: not given.

        An empty `loop.gate.commands` means no gate; without any, `gate.origin` is empty: detection may fill it in.
        """
        given = _nested({key: value for key, value in (overrides or {}).items() if value is not None})
        command_line = _Layer("command line", "", given)
        _check(command_line, strict=False)
        layers = (*self.layers, command_line)
        return _policy(_merged(layers), _values(layers), scope=scope or Scope(), model=model)


def load(root: Path, env: Mapping[str, str]) -> Settings:
    """Read all layers for the repository whose main worktree is `root`. Raises UsageError naming file and key."""
    files: list[ConfigFile] = []
    layers: list[_Layer] = []
    for name, path in _paths(root, env):
        text = _text(name, path)
        files.append(ConfigFile(name, path, exists=text is not None))
        layer = _Layer(name, str(path), _own_tables(_parsed(path, text or "")))
        _check(layer, strict=True)
        layers.append(layer)
    for key in KEYS:
        if key.variable and env.get(key.variable):
            layer = _Layer("environment", key.variable, _nested({key.name: env[key.variable]}))
            _check(layer, strict=False)
            layers.append(layer)
    return Settings(_values(layers), tuple(files), tuple(layers))


def nearest(name: str, names: Iterable[str]) -> str:
    """The one of `names` that is most like `name`; empty when there is none."""
    return next(iter(difflib.get_close_matches(name, list(names), n=1, cutoff=0.0)), "")


def masked(key: str, value: Any) -> Any:
    """`value`, unless it is a variable for the worktrees that is named like a secret."""
    is_secret = key.startswith("worktree.env.") and is_secret_name(key.removeprefix("worktree.env."))
    return "********" if is_secret else value


def shown(key: str, value: Any) -> str:
    """A value for people: as in a TOML file, `none` for nothing, and never a secret."""
    return "none" if value is None else json.dumps(masked(key, value), ensure_ascii=False, default=str)


def _paths(root: Path, env: Mapping[str, str]) -> tuple[tuple[LayerName, Path], ...]:
    if alone := env.get("HEW_CONFIG"):
        return (("HEW_CONFIG", Path(alone).expanduser().absolute()),)
    if named := env.get("HEW_USER_CONFIG"):
        user = Path(named).expanduser().absolute()
    else:
        home = Path(env.get("HOME") or Path.home())
        user = Path(env.get("XDG_CONFIG_HOME") or home / ".config") / "hew" / "config.toml"
    return ("user", user), ("project", root / PROJECT_FILE)


def _text(layer: LayerName, path: Path) -> str | None:
    """The file's text; None where there is no such file and nobody asked for it by name."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, NotADirectoryError) as error:
        if layer == "HEW_CONFIG":
            raise UsageError(
                f"HEW_CONFIG names {path}, which does not exist", hint="Correct the path, or unset HEW_CONFIG."
            ) from error
        return None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", hint="Mend its permissions.") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text", hint="Save it as UTF-8.") from error


def _parsed(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"\(at line (\d+)", str(error))
        line = int(found[1]) if found else len(text.splitlines())
        what = re.sub(r" \(at .*\)$", "", str(error))
        raise UsageError(
            f"{path}, line {line}: not valid TOML: {what}", hint="Mend that line, or remove it."
        ) from error


def _own_tables(document: dict[str, Any]) -> dict[str, Any]:
    return {name: table for name, table in document.items() if name in TABLES}


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    root: dict[str, Any] = {}
    for dotted, value in flat.items():
        *above, last = dotted.split(".")
        table = root
        for name in above:
            table = table.setdefault(name, {})
        table[last] = list(value) if isinstance(value, tuple) else value  # pyright: ignore[reportUnknownArgumentType]
    return root


def _flat(table: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _flat(cast("dict[str, Any]", value), f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _values(layers: Sequence[_Layer]) -> dict[str, Sourced]:
    values = {
        key.name: Sourced(key.default, "default")
        for key in KEYS
        if not key.is_map and not key.name.startswith("runtime.NAME.")
    }
    for layer in layers:
        values |= {name: Sourced(value, layer.name, layer.where) for name, value in _flat(layer.table)}
    return values


def _merged(layers: Sequence[_Layer]) -> Configuration:
    flat: dict[str, Any] = {}
    for layer in layers:
        flat |= dict(_flat(layer.table))
    return Configuration.model_validate(_nested(flat))


def _check(layer: _Layer, *, strict: bool) -> None:
    try:
        Configuration.model_validate(layer.table, strict=strict)
    except ValidationError as error:
        raise _complaint(layer, error) from error


def _complaint(layer: _Layer, error: ValidationError) -> UsageError:
    """The first problem as one sentence with the file (or variable) and the key."""
    first = error.errors(include_url=False, include_context=False)[0]
    key = ".".join(part for part in map(str, first["loc"]) if part != "[key]" and not part.isdigit())
    where = layer.where or "command line"
    if first["type"] == "extra_forbidden":
        known = nearest(key, _known_beside(key))
        if not known:
            return UsageError(
                f"{where}: {key}: this version knows no key in [{key.split('.')[0]}]", hint="Remove the table."
            )
        return UsageError(f"{where}: unknown key {key}", hint=f"The nearest known name is {known}.")
    what = first["msg"].removeprefix("Value error, ")
    hint = "Every key and its values: docs/configuration.md."
    return UsageError(f"{where}: {key} = {shown(key, first['input'])}: {what[0].lower()}{what[1:]}", hint=hint)


def _known_beside(key: str) -> list[str]:
    table, _, rest = key.partition(".")
    name = rest.partition(".")[0]
    return [
        known.name.replace("runtime.NAME", f"runtime.{name}", 1) for known in KEYS if known.name.startswith(f"{table}.")
    ]


def _policy(config: Configuration, values: dict[str, Sourced], *, scope: Scope, model: str | None) -> Policy:
    loop = config.loop
    return Policy(
        scope=scope,
        jobs=loop.jobs,
        runtime=loop.runtime,
        runtimes=_runtimes(config, values),
        fallback_runtime=loop.fallback_runtime,
        fallback_cooldown_iters=loop.fallback_cooldown_iters,
        planner=_planner(config),
        prices=tuple((p.model, Price(p.input, p.output, p.cache_read, p.cache_create)) for p in loop.prices),
        prompt_file=loop.prompt.file,
        model=ModelSettings(
            forced=model,
            default=loop.model.default,
            by_priority=tuple(sorted(loop.model.by_priority.items())),
            by_type=tuple(sorted(loop.model.by_type.items())),
            fallback=loop.model.fallback,
        ),
        attempts=loop.attempts,
        iter_timeout_s=loop.iter_timeout,
        stall_timeout_s=loop.stall_timeout,
        max_iter=loop.max_iter,
        budget_tokens=loop.budget_tokens,
        budget_usd=loop.budget_usd,
        budget_wall_s=loop.budget_wall,
        cache_read_weight=loop.cache_read_weight,
        unknown_tokens=loop.unknown_tokens,
        unknown_usd=loop.unknown_usd,
        guard_trip=loop.guard_trip,
        cooldown_s=loop.cooldown,
        max_new=loop.max_new,
        poll_s=loop.poll_s,
        until_empty=loop.until_empty,
        avoid_conflicts=loop.avoid_conflicts,
        accept_no_change=loop.accept_no_change,
        deliver=loop.deliver,
        gate=_gate(config, values),
        verify=_verify(config, values),
        worktree=_worktree(config),
        max_output_bytes=loop.max_output,
    )


def _planner(config: Configuration) -> PlannerSettings:
    table = config.loop.planner
    return PlannerSettings(
        enabled=table.enabled,
        runtime=table.runtime,
        model=table.model,
        budget_tokens=table.budget_tokens,
        wait_s=table.wait_s,
        timeout_s=table.timeout,
    )


def _runtimes(config: Configuration, values: dict[str, Sourced]) -> tuple[RuntimeSettings, ...]:
    for name, table in config.runtime.items():
        if not table.command:
            where = next((v.source for key, v in values.items() if key.startswith(f"runtime.{name}.")), PROJECT_FILE)
            raise UsageError(f"{where}: [runtime.{name}] has no command", hint='Add command = ["program", "argument"].')
    return tuple(
        RuntimeSettings(name=name, command=tuple(table.command), prompt=table.prompt, success=tuple(table.success))
        for name, table in sorted(config.runtime.items())
    )


def _gate(config: Configuration, values: dict[str, Sourced]) -> GateSettings:
    commands = tuple(PlannedCommand(_frozen(command)) for command in config.loop.gate.commands)
    flag = "--gate" if commands else "--no-gate"
    return GateSettings(commands, config.loop.gate.timeout, origin=_origin(values["loop.gate.commands"], flag))


def _verify(config: Configuration, values: dict[str, Sourced]) -> VerifySettings:
    end = config.loop.end_of_run
    commands = (PlannedCommand(_frozen(end.verify_command)),) if end.verify_command else ()
    origin = _origin(values["loop.end_of_run.verify_command"], "--verify-command") if commands else ""
    return VerifySettings(end.verify_tests, commands, end.verify_budget_wall, origin)


def _worktree(config: Configuration) -> WorktreeSettings:
    table = config.worktree
    return WorktreeSettings(
        setup=None if table.setup is None else _frozen(table.setup),
        setup_inputs=tuple(table.setup_inputs),
        copy=tuple(table.copy_),
        link=tuple(table.link),
        env=tuple(sorted(table.env.items())),
        pristine=table.pristine,
    )


def _frozen(command: str | list[str]) -> Command:
    return command if isinstance(command, str) else tuple(command)


def _origin(value: Sourced, flag: str) -> str:
    match value.layer:
        case "default":
            return ""
        case "command line":
            return flag
        case "project":
            return PROJECT_FILE
        case _:
            return value.where
