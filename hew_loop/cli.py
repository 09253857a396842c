"""The front door: loads the one command that was asked for and turns every ending into a sentence and an exit code."""

from __future__ import annotations

import importlib
import os
import sys
from dataclasses import dataclass
from typing import NoReturn

import click
from click.shell_completion import CompletionItem

from hew_loop import __version__
from hew_loop.errors import EXIT_BUG, EXIT_SIGINT, HewError

EXIT_SIGPIPE = 141
"""What a shell shows for a program whose reader went away (`loop list | head -1`)."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a command lives and its one line in `loop --help`, which must not import it."""

    target: str
    help: str


COMMANDS = {
    "run": Entry("run:command", "Drain the backlog: the main job."),
    "step": Entry("step:command", "Do exactly one transition: plan, one task, or finish."),
    "resume": Entry("resume:command", "Carry on an interrupted run."),
    "cancel": Entry("cancel:command", "Drain a live run, or stop it at once."),
    "status": Entry("status:command", "Show what runs now."),
    "list": Entry("list_runs:command", "List the runs of this repository."),
    "logs": Entry("logs:command", "Show what an iteration printed."),
    "summary": Entry("summary:command", "Tell how a run went, task by task."),
    "explain": Entry("explain:command", "Tell one task's story: where it is, and why."),
    "graph": Entry("graph:command", "Draw a run as mermaid, dot or ascii."),
    "deliver": Entry("deliver:command", "Deliver what a finished run could not."),
    "prune": Entry("prune:command", "Remove what ended runs left behind."),
    "doctor": Entry("doctor:command", "Check git, tracker, runtimes, configuration and leftovers."),
    "task": Entry("task:task", "Work with the embedded tracker: the backlog in .beads/issues.jsonl."),
    "config": Entry("config:command", "Show the configuration and where each value comes from."),
    "init": Entry("init:command", "Write a starter configuration."),
    "demo": Entry("demo:command", "Play a complete run in a throw-away repository."),
}


class LazyGroup(click.Group):
    """Knows all commands by name and help line; imports one when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        module, attribute = entry.target.split(":")
        return getattr(importlib.import_module(f"hew_loop.commands.{module}"), attribute)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        names = [
            CompletionItem(name, help=entry.help) for name, entry in COMMANDS.items() if name.startswith(incomplete)
        ]
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="loop %(version)s")
def loop() -> None:
    """Drain an issue backlog with coding agents, in parallel, and land only what passes.

    \b
    loop demo                            see a whole run, no key and no agent needed
    loop run --scope ready --jobs 4      drain this repository's backlog
    loop summary                         what happened
    """


def main() -> NoReturn:
    """Run the command line and exit; a command's exit code is what its function returns (nothing: 0)."""
    code = _answer(sys.argv[1:])
    if code == EXIT_SIGPIPE:
        # What is still buffered has no reader; without this the interpreter complains while it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def _answer(args: list[str]) -> int:
    stdout = sys.stdout
    try:
        result = loop.main(args, prog_name="loop", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        return EXIT_SIGPIPE
    except SystemExit:
        # click answers a broken pipe by wrapping stdout and exiting 1, which here would mean that a task failed.
        if sys.stdout is not stdout:
            return EXIT_SIGPIPE
        raise
    except (Exception, KeyboardInterrupt, BaseExceptionGroup) as error:
        return _explain(_only(error), args)
    return result if isinstance(result, int) else 0


def _only(error: BaseException) -> BaseException:
    """The one error inside the groups that task groups wrap around it."""
    members: tuple[BaseException, ...] = getattr(error, "exceptions", ())
    return _only(members[0]) if len(members) == 1 else error


def _explain(error: BaseException, args: list[str]) -> int:
    """Say on stderr what ended the command; returns the exit code."""
    match error:
        case HewError():
            _say(f"loop: {error.message}")
            if error.hint:
                _say(f"  {error.hint}")
            return error.exit_code
        case click.exceptions.NoArgsIsHelpError():
            _say(error.format_message())
            return error.exit_code
        case click.ClickException():
            if isinstance(error, click.UsageError) and error.ctx is not None:
                _say(error.ctx.get_usage())
                _say(f"Try '{error.ctx.command_path} --help' for help.\n")
            _say(f"loop: {error.format_message()}")
            return error.exit_code
        case click.Abort() | KeyboardInterrupt():
            _say("loop: interrupted")
            return EXIT_SIGINT
        case _:
            crash = importlib.import_module("hew_loop.crash")
            where = crash.write_report(error, args)
            _say(crash.without_secrets(f"loop: this is a bug: {type(error).__name__}: {error}"))
            _say(f"  The details are in {where}; please report it with that file.")
            return EXIT_BUG


def _say(text: str) -> None:
    click.echo(_harmless(text), err=True)


def _harmless(text: str) -> str:
    """`text` with everything a terminal could obey written as an escape; line ends and tabs stay."""
    return "".join(c if c in "\n\t" or c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
