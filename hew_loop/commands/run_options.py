"""The options of `loop run`, and the question which tasks count."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from hew_loop.core.policy import Scope
from hew_loop.errors import UsageError
from hew_loop.trackers.base import Tracker

_COMMON = (
    click.option("--scope", type=click.Choice(["ready", "epics"]), help="Which ready tasks count; no default."),
    click.option("--epics", metavar="A,B", help="Only tasks below these epics."),
    click.option("--epic", "epic", multiple=True, metavar="ID", help="The same, one at a time; repeatable."),
    click.option("--task", "task", multiple=True, metavar="ID", help="Only this task; repeatable."),
    click.option("--runtime", metavar="NAME", help="Agent: claude, codex, opencode, gemini, aider, or [runtime.NAME]."),
    click.option("--fallback-runtime", metavar="NAME", help="Takes over while the first is limited or fails."),
    click.option("--fallback-cooldown-iters", type=click.IntRange(1), metavar="N", help="See docs/run.md (3)."),
    click.option("--model", metavar="NAME", help="Model for every task."),
    click.option("--no-planner", is_flag=True, help="Ask no agent what to start next; the graph order decides."),
    click.option("--planner-budget", type=click.IntRange(0), metavar="N", help="Tokens of a planner's prompt (10000)."),
    click.option("--planner-runtime", metavar="NAME", help="Who plans; else the runtime, unless it is a command."),
    click.option("--tracker", type=click.Choice(["auto", "bd", "beads"]), help="Where the tasks live (auto)."),
    click.option("--checklist", type=click.Path(path_type=Path), metavar="FILE", help="Work on the items of FILE."),
    click.option("--attempts", type=click.IntRange(1), metavar="N", help="Attempts per task before it is parked (3)."),
    click.option("--iter-timeout", metavar="TIME", help="Deadline of one iteration (60m)."),
    click.option("--stall-timeout", metavar="TIME", help="An agent that prints nothing for so long is ended (15m)."),
    click.option("--gate", multiple=True, metavar="CMD", help="What a candidate must pass to land; repeatable."),
    click.option("--no-gate", is_flag=True, help="Land without a gate; everything is shown as not tested."),
    click.option("--gate-timeout", metavar="TIME", help="Deadline of one gate run (30m)."),
    click.option("--verify-tests/--no-verify-tests", default=None, help="Test the integrated tree at the end (on)."),
    click.option("--verify-command", metavar="CMD", help="What the verify runs; else the detected tests."),
    click.option("--verify-budget-wall", metavar="TIME", help="Deadline of the verify (10m)."),
    click.option("--deliver", type=click.Choice(["merge", "branch"]), help="Fast-forward your branch, or keep one."),
    click.option("--base", metavar="REF", help="The commit to start from (HEAD)."),
    click.option("--fetch", is_flag=True, help="Start from the freshly fetched upstream of your branch."),
    click.option("--non-interactive", is_flag=True, help="Never ask."),
    click.option("-q", "--quiet", is_flag=True, help="Nothing but errors."),
    click.option("--json", "as_json", is_flag=True, help="The journal's events as JSON lines on stdout."),
)  # fmt: skip
_RUN_ONLY = (
    click.option("-j", "--jobs", type=click.IntRange(1, 64), metavar="N", help="Agents at a time (1)."),
    click.option("--max-iter", type=click.IntRange(0), metavar="N", help="Start at most so many iterations."),
    click.option("--budget-tokens", type=click.IntRange(0), metavar="N", help="Stop when so many tokens are spent."),
    click.option("--budget-usd", type=click.FloatRange(0), metavar="USD", help="Stop when so much money is spent."),
    click.option("--budget-wall", metavar="TIME", help="Stop after this time, for example 2h30m."),
    click.option("--until-empty/--no-until-empty", default=None, help="Off: keep polling for new ready tasks."),
    click.option("--dry-run", is_flag=True, help="Print what would be started; claim, start and write nothing."),
    click.option("--run-id", metavar="ID", help="The id of the run, loop-YYYYMMDDTHHMMSSZ-xxxxxxxx."),
)  # fmt: skip


def run_options(function: Callable[..., Any]) -> Callable[..., Any]:
    return _decorated(function, (*_COMMON, *_RUN_ONLY))


def step_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Those of a run that still mean something when it goes on one transition at a time."""
    return _decorated(function, _COMMON)


def _decorated(function: Callable[..., Any], options: Sequence[Callable[..., Any]]) -> Callable[..., Any]:
    for option in reversed(options):
        function = option(function)
    return function


def choose_scope(given: Mapping[str, Any], tracker: Tracker, *, is_interactive: bool) -> Scope:
    """There is no default scope, so that nothing drains a whole graph by accident: asked for, or UsageError."""
    kind: str | None = given["scope"]
    epics = tuple(e.strip() for e in (given["epics"] or "").split(",") if e.strip()) + tuple(given["epic"])
    tasks = tuple(given["task"])
    if epics and kind == "ready":
        raise UsageError("--scope ready takes no epics", hint="--scope epics --epics A,B")
    if kind is None:
        kind = "epics" if epics else "ready" if tasks or given["checklist"] else _ask(is_interactive=is_interactive)
    if kind == "ready":
        return Scope("ready", tasks=tasks)
    if not epics:
        epics = _ask_epics(tracker, is_interactive=is_interactive)
    return Scope("epics", epics=tuple(dict.fromkeys(epics)), tasks=tasks)


def _ask(*, is_interactive: bool) -> str:
    if not is_interactive:
        raise UsageError(
            "which tasks? --scope is missing", hint="--scope ready, --scope epics --epics A,B, or --task ID"
        )
    return click.prompt("Which tasks", type=click.Choice(["ready", "epics"]), default="ready", err=True)


def _ask_epics(tracker: Tracker, *, is_interactive: bool) -> tuple[str, ...]:
    found = sorted(
        (t for t in tracker.read() if t.type == "epic" and not t.is_closed), key=lambda t: (t.priority, t.id)
    )
    if not found:
        raise UsageError("there is no open epic", hint="--scope ready")
    if not is_interactive:
        raise UsageError("which epics? --epics is missing", hint=f"--epics {','.join(t.id for t in found[:3])}")
    for number, epic in enumerate(found, 1):
        click.echo(f"{number:3}  {epic.id}  {epic.title!r}", err=True)
    chosen = click.prompt("Numbers, separated by commas", err=True)
    try:
        return tuple(found[int(n) - 1].id for n in chosen.split(",") if int(n) > 0)
    except (ValueError, IndexError):
        raise UsageError(f"{chosen!r} is not a choice of numbers from 1 to {len(found)}") from None
