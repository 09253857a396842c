"""The documents keep up with the code."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from hew_loop.commands import deliver, run, step, task
from hew_loop.core import actions, events

DOCS = Path(__file__).parent.parent / "docs"


def type_names(union: object) -> set[str]:
    classes = typing.get_args(typing.get_args(union)[0])
    return {next(f.default for f in dataclasses.fields(c) if f.name == "type") for c in classes}


def test_the_journal_page_names_every_event_and_every_action() -> None:
    text = (DOCS / "journal.md").read_text()
    missing = {n for n in type_names(events.Event) | type_names(actions.Action) if f"| `{n}` |" not in text}
    assert missing == set()


@pytest.mark.parametrize("command", [run.command, step.command, deliver.command], ids=lambda c: str(c.name))
def test_the_page_of_the_main_job_names_every_option(command: click.Command) -> None:
    text = (DOCS / "run.md").read_text()
    names = [name for p in command.params if isinstance(p, click.Option) for name in (*p.opts, *p.secondary_opts)]
    assert [name for name in names if name not in text] == []


def test_the_page_of_the_trackers_names_every_option_of_the_tasks() -> None:
    text = (DOCS / "trackers.md").read_text()

    def names(command: click.Command) -> Iterator[str]:
        if isinstance(command, click.Group):
            for name in command.list_commands(click.Context(command)):
                child = command.get_command(click.Context(command), name)
                assert child is not None
                yield from names(child)
        for param in command.params:
            yield from (*param.opts, *param.secondary_opts) if isinstance(param, click.Option) else ()

    assert [name for name in names(task.task) if f"`{name}`" not in text] == []
