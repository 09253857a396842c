"""`loop logs`: what a run did line by line, or what one of its agents, gates or the verify printed."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from hew_loop.commands import known_runs
from hew_loop.commands.known_runs import KnownRun
from hew_loop.core.events import to_line
from hew_loop.core.transitions import apply, begin
from hew_loop.errors import HewError, UsageError
from hew_loop.reports.lines import line

_COLOURS = re.compile(r"\x1b\[[0-9;:]*m")


@click.command(short_help="Show what an iteration printed.")
@known_runs.run_argument
@click.option("--iter", "iteration", type=click.IntRange(min=1), help="The output of the agent of this iteration.")
@click.option("--gate", type=click.IntRange(min=1), help="The output of this gate run.")
@click.option("--verify", is_flag=True, help="The output of the verify at the end.")
@click.option("--tail", type=click.IntRange(min=1), help="Only so many of the last lines.")
@click.option("--json", "as_json", is_flag=True, help="Events as JSON lines; a log as {path, lines}.")
def command(
    run: str | None, iteration: int | None, gate: int | None, verify: bool, tail: int | None, as_json: bool
) -> None:
    """Show what a run did, a line per event; or what one iteration, gate run or the verify printed.

    Terminal codes are left out or shown as escapes; the file that stderr names has them as they came.

    \b
    loop logs --tail 20
    loop logs 0badcafe --iter 3
    loop logs --gate 2 --tail 100
    """
    if sum((iteration is not None, gate is not None, verify)) > 1:
        raise UsageError("--iter, --gate and --verify name different logs", hint="give one of them")
    known = known_runs.load(run)
    path = _path(known, iteration, gate, verify=verify)
    if path is None:
        for text in _last(_journal(known) if as_json else _events(known), tail):
            click.echo(text)
        return
    lines = _last(_read(path), tail)
    if as_json:
        click.echo(json.dumps({"path": str(path), "lines": list(lines)}))
        return
    click.echo(f"loop: {path}", err=True)
    for text in lines:
        click.echo(text)


def _path(known: KnownRun, iteration: int | None, gate: int | None, *, verify: bool) -> Path | None:
    """The log that was asked for; None when it is the journal. Raises UsageError for one that cannot be."""
    state, folder = known.state, known.folder
    if iteration is not None:
        if iteration not in state.iterations:
            raise UsageError(f"{state.run_id} has no iteration {iteration}", hint=f"it has {len(state.iterations)}")
        return folder.iteration(iteration) / "output.log"
    if gate is not None:
        if gate not in state.gates:
            raise UsageError(f"{state.run_id} has no gate run {gate}", hint=f"it has {len(state.gates)}")
        if state.gates[gate].cached:
            raise HewError(f"gate run {gate} was answered from a kept result", hint="it printed nothing")
        return folder.gate_log(gate)
    return folder.path / "verify.log" if verify else None


def _read(path: Path) -> Iterator[str]:
    try:
        with path.open("rb") as file:
            for raw in file:
                yield _harmless(raw.decode("utf-8", "backslashreplace").rstrip("\r\n"))
    except FileNotFoundError:
        raise HewError(f"{path} is not there", hint="nothing was printed yet, or the run was pruned") from None
    except OSError as error:
        raise HewError(f"{path} cannot be read: {error.strerror}", hint="mend its permissions") from error


def _harmless(text: str) -> str:
    """The line as a terminal may see it; what a progress bar overwrote stays."""
    plain = _COLOURS.sub("", text)
    if plain.isprintable():
        return plain
    return "".join(c if c == "\t" or c.isprintable() else c.encode("unicode_escape").decode() for c in plain)


def _last(lines: Iterable[str], tail: int | None) -> Iterable[str]:
    return lines if tail is None else deque(lines, maxlen=tail)


def _journal(known: KnownRun) -> Iterator[str]:
    return (to_line(stamped).decode().rstrip("\n") for stamped in known.events)


def _events(known: KnownRun) -> Iterator[str]:
    state = begin(known.events[0])
    for stamped in known.events:
        if text := line(stamped, state):
            yield text
        state = apply(state, stamped) if stamped.seq > 1 else state
