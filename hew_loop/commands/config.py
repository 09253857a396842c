"""`loop config`: the values in force, where each of them comes from, and which files were read."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click

from hew_loop.config import Settings, Sourced, load, masked, nearest, shown
from hew_loop.errors import UsageError
from hew_loop.repo.git import Git

DETECTED = frozenset({"loop.gate.commands", "loop.end_of_run.verify_command"})
"""Found out from the project where nobody sets them."""


@click.group(short_help="Show the configuration and where each value comes from.")
def command() -> None:
    """Show the configuration and where each value comes from.

    \b
    loop config show
    loop config get loop.jobs
    loop config path
    """


@command.command(short_help="Show every value with its source.")
@click.option("--json", "as_json", is_flag=True, help="Print an object: key to value, layer and source.")
def show(as_json: bool) -> None:
    """Show every value with its source.

    \b
    loop config show --json | jq '."loop.jobs"'
    """
    settings = _load()
    if as_json:
        click.echo(
            json.dumps({key: _as_json(key, value) for key, value in settings.values.items()}, indent=2, default=str)
        )
    else:
        _print(settings.values)


@command.command(short_help="Print one value, or a table of values.")
@click.argument("key")
@click.option("--json", "as_json", is_flag=True, help="Print value, layer and source as JSON.")
def get(key: str, as_json: bool) -> None:
    """Print one value, or all values below a table.

    \b
    loop config get loop.iter_timeout
    loop config get loop.model
    """
    values = _load().values
    below = {name: value for name, value in values.items() if name.startswith(f"{key}.")}
    if key in values:
        value = values[key]
        text = value.value if value.value and isinstance(value.value, str) else _shown(key, value)
        click.echo(json.dumps(_as_json(key, value), default=str) if as_json else text)
    elif below and as_json:
        click.echo(json.dumps({name: _as_json(name, value) for name, value in below.items()}, indent=2, default=str))
    elif below:
        _print(below)
    else:
        raise UsageError(
            f"no value is named {key}", hint=f"The nearest is {nearest(key, values)}; all: loop config show"
        )


@command.command(short_help="Print which files are read.")
@click.option("--json", "as_json", is_flag=True, help="Print an array of layer, path and whether it exists.")
def path(as_json: bool) -> None:
    """Print which files are read, the weaker first.

    \b
    loop config path
    """
    files = _load().files
    if as_json:
        click.echo(json.dumps([{"layer": f.layer, "path": str(f.path), "exists": f.exists} for f in files], indent=2))
        return
    for file in files:
        click.echo(f"{file.layer:8}  {file.path}{'' if file.exists else '  (not there)'}")


def _load() -> Settings:
    return load(Git.discover(Path.cwd()).root, os.environ)


def _shown(key: str, value: Sourced) -> str:
    """What is found out from the project is not shown as empty: an empty list of gate commands means no gate."""
    return "detected" if key in DETECTED and value.layer == "default" else shown(key, value.value)


def _as_json(key: str, value: Sourced) -> dict[str, Any]:
    return {"value": masked(key, value.value), "layer": value.layer, "source": value.source}


def _print(values: dict[str, Sourced]) -> None:
    rows = [(f"{key} = {_shown(key, value)}", value.source) for key, value in values.items()]
    width = min(60, max(len(left) for left, _ in rows))
    for left, source in rows:
        click.echo(f"{left:{width}}  # {source}")
