"""`loop list`: the runs of this repository, the newest first."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import click

from hew_loop.commands import known_runs
from hew_loop.engine import run_folder
from hew_loop.engine.run_folder import RunFolder
from hew_loop.errors import HewError
from hew_loop.repo.git import Git
from hew_loop.reports.task_lines import task_state
from hew_loop.reports.text import between, duration, plain


@click.command(short_help="List the runs of this repository.")
@click.option("-n", "limit", type=click.IntRange(min=1), default=20, show_default=True, help="So many of the newest.")
@click.option("--json", "as_json", is_flag=True, help="Print an array of objects.")
def command(limit: int, as_json: bool) -> None:
    """List the runs of this repository, the newest first.

    \b
    loop list
    loop list -n 100 --json | jq '.[] | select(.parked > 0).run_id'
    """
    git = Git.discover(Path.cwd())
    rows = [_row(git, folder) for folder in reversed(run_folder.runs(git.root)[-limit:])]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    if not rows:
        click.echo("loop: there is no run here yet; start one: loop run --scope ready", err=True)
    for row in rows:
        click.echo(_text(row))


def _row(git: Git, folder: RunFolder) -> dict[str, Any]:
    try:
        known = known_runs.look(git, folder)
    except HewError as error:
        return {"run_id": folder.run_id, "state": "unreadable", "error": error.message}
    state = known.state
    counts = Counter(task_state(record) for record in state.records.values())
    return {
        "run_id": folder.run_id,
        "state": known.life,
        "started_at": f"{state.started_at:%Y-%m-%dT%H:%M:%SZ}",
        "duration_s": round(between(state.started_at, state.now), 1),
        "taken": len(state.records),
        "landed": counts["landed"],
        "parked": counts["parked"],
        "stop_reason": state.stopping,
        "exit_code": state.exit_code,
    }


def _text(row: dict[str, Any]) -> str:
    if "error" in row:
        return f"{row['run_id']}  unreadable  {plain(row['error'])}"
    counts = f"{row['landed']} landed, {row['parked']} parked of {row['taken']} taken"
    goes_on = {"died": f"loop resume {row['run_id']}", "suspended": "loop step"}
    after = goes_on.get(row["state"]) or row["stop_reason"] or ""
    return f"{row['run_id']}  {row['state']:10}  {duration(row['duration_s']):>11}  {counts}  {after}".rstrip()
