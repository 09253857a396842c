"""`loop init`: a starter configuration in which every key stands with its default, commented out."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

from hew_loop.config import PROJECT_FILE, shown
from hew_loop.config_schema import KEYS, Key
from hew_loop.errors import HewError
from hew_loop.repo.git import Git

HEADER = """\
# Configuration of `loop`; what it means in full: docs/configuration.md of hew-loop.
# Every key stands here with its default. Remove the # of a line to change it; an absent key changes nothing.
# Other tables of this file belong to hew and are left alone.
"""


@click.command(short_help="Write a starter configuration.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
@click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON.")
def command(force: bool, as_json: bool) -> None:
    """Write a commented starter .hew.toml at the root of the main worktree.

    \b
    loop init
    loop init --force       replace the file that is there
    """
    path = Git.discover(Path.cwd()).root / PROJECT_FILE
    replaced = path.exists()
    if replaced and not force:
        raise HewError(f"{path} is already there", hint="Edit it, or replace it: loop init --force")
    aside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        aside.write_text(starter(), encoding="utf-8")
        aside.replace(path)
    except OSError as error:
        raise HewError(
            f"{path} cannot be written: {error.strerror}", hint="Mend the directory's permissions."
        ) from error
    if as_json:
        click.echo(json.dumps({"path": str(path), "replaced": replaced}))
    else:
        click.echo(f"wrote {path}")


def starter() -> str:
    """The text of the starter file: valid TOML that sets nothing."""
    lines = [HEADER]
    table = ""
    for key in KEYS:
        above, _, name = key.name.rpartition(".")
        if above != table:
            table = above
            lines.append(f"\n{_heading(table)}")
        lines.append(f"# {name} = {_written(key)}{_remark(key)}")
    return "\n".join(lines) + "\n"


def _heading(table: str) -> str:
    return (
        '# [runtime.NAME]        # any program as an agent; then: runtime = "NAME"' if "NAME" in table else f"[{table}]"
    )


def _written(key: Key) -> str:
    return key.example or shown(key.name, key.default)


def _remark(key: Key) -> str:
    return f"        # {key.about}" + (" (an example)" if key.example else "")
