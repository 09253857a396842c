"""`loop graph`: a run, or all of them, as a diagram."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import click

from hew_loop.commands import known_runs
from hew_loop.engine import run_folder
from hew_loop.errors import HewError, UsageError
from hew_loop.repo.git import Git
from hew_loop.reports.graph import Graph, build
from hew_loop.reports.graph_text import RENDERERS, Format
from hew_loop.reports.text import plain


@click.command(short_help="Draw a run as mermaid, dot or ascii.")
@known_runs.run_argument
@click.option("--format", "style", type=click.Choice(get_args(Format)), default="mermaid", show_default=True)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write to a file; .md gets a fence.")
@click.option("--all", "every", is_flag=True, help="All runs of this repository in one diagram.")
def command(run: str | None, style: Format, out: Path | None, every: bool) -> None:
    """Draw a run: a node per iteration with its outcome, an edge for why it was started, what landed, verify, delivery.

    \b
    loop graph --format ascii
    loop graph 0badcafe --out run.md
    loop graph --all --format dot | dot -Tsvg > runs.svg
    """
    if run is not None and every:
        raise UsageError("--all draws all runs", hint="give RUN or --all, not both")
    graphs = _all() if every else [build(known_runs.load(run).state)]
    text = RENDERERS[style](*graphs)
    if out is None:
        click.echo(text, nl=False)
        return
    if out.suffix.lower() == ".md":
        text = f"```{'text' if style == 'ascii' else style}\n{text}```\n"
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise HewError(f"{out} cannot be written: {error.strerror}", hint="give another --out") from error
    click.echo(f"wrote {out}", err=True)


def _all() -> list[Graph]:
    """The oldest first; a run whose journal cannot be read is named and left out."""
    git = Git.discover(Path.cwd())
    graphs: list[Graph] = []
    for folder in run_folder.runs(git.root):
        try:
            graphs.append(build(known_runs.look(git, folder).state))
        except HewError as error:
            click.echo(f"loop: left out: {plain(error.message)}", err=True)
    if not graphs:
        run_folder.find(git.root, None)
        raise HewError("no run here has a journal that can be read", hint="see: loop list")
    return graphs
