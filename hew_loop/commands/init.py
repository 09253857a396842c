"""`loop init`: a starter configuration in which every key stands with its default, commented out."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

from hew_loop.config import PROJECT_FILE, shown
from hew_loop.config_schema import KEYS
from hew_loop.errors import HewError
from hew_loop.repo.git import Git

HEADER = """\
# Configuration of `loop`. Lines that begin with "# " explain; lines that begin with "#" and a key show its default, or
# an example where it has none. Take the # away to set a key; an absent key changes nothing.
# Tables that are not named here belong to hew and are left alone.
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
            lines += ["", *_heading(table)]
        lines.append(f"# {key.about}{' (an example)' if key.example else ''}")
        lines.append(f"#{name} = {key.example or shown(key.name, key.default)}")
    return "\n".join(lines) + "\n"


def _heading(table: str) -> tuple[str, ...]:
    if "NAME" in table:
        return '# any program as an agent; chosen by runtime = "NAME" in [loop]', f"#[{table}]"
    return (f"[{table}]",)
