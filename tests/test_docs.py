"""The documents keep up with the code."""

from __future__ import annotations

import dataclasses
import typing
from pathlib import Path

from hew_loop.core import actions, events

DOCS = Path(__file__).parent.parent / "docs"


def type_names(union: object) -> set[str]:
    classes = typing.get_args(typing.get_args(union)[0])
    return {next(f.default for f in dataclasses.fields(c) if f.name == "type") for c in classes}


def test_the_journal_page_names_every_event_and_every_action() -> None:
    text = (DOCS / "journal.md").read_text()
    missing = {n for n in type_names(events.Event) | type_names(actions.Action) if f"| `{n}` |" not in text}
    assert missing == set()
