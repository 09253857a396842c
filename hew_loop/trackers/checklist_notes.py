"""What markdown has no place for: claims, notes, bugs and memories of one checklist, in a JSON file beside the runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, cast

from pydantic import BaseModel, ConfigDict, ValidationError

from hew_loop.core.names import slug
from hew_loop.errors import TrackerError
from hew_loop.trackers.whole_file import replace_file, signature

SCHEMA_VERSION: Final = 1


class Entry(BaseModel):
    """What is known of one item."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    assignee: str = ""
    notes: str = ""
    close_reason: str = ""


class Bug(BaseModel):
    """Why an item was set aside. It is open as long as it is the item's newest and the item's mark is `!`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    item: str
    external_ref: str
    title: str
    description: str
    labels: tuple[str, ...] = ()
    priority: int = 2


class Notebook(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = SCHEMA_VERSION
    items: Mapping[str, Entry] = {}
    bugs: tuple[Bug, ...] = ()
    memories: tuple[str, ...] = ()

    def entry(self, task_id: str) -> Entry:
        return self.items.get(task_id, Entry())

    def with_entry(self, task_id: str, **changes: str) -> Notebook:
        entry = self.entry(task_id).model_copy(update={k: encodable(v) for k, v in changes.items()})
        items = {**self.items, task_id: entry}
        return self.model_copy(update={"items": {k: v for k, v in items.items() if v != Entry()}})

    def newest_bug(self, task_id: str) -> Bug | None:
        return next((bug for bug in reversed(self.bugs) if bug.item == task_id), None)


def state_file(root: Path, checklist: Path) -> Path:
    """Where the notes on `checklist` live in the repository at `root`: one file for each, whatever they are called."""
    place, top = checklist.resolve(), root.resolve()
    name = str(place.relative_to(top) if place.is_relative_to(top) else place)
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return root / ".hew" / "checklist" / f"{slug(checklist.stem)}-{digest}.json"


def read_notebook(path: Path) -> Notebook:
    """No file is an empty notebook. Raises TrackerError for one that is damaged or of another version, and OSError."""
    try:
        found: object = json.loads(path.read_bytes())
    except FileNotFoundError:
        return Notebook()
    except ValueError as error:
        raise _damaged(path, str(error)) from error
    version = cast("dict[str, Any]", found).get("schema_version") if isinstance(found, dict) else None
    if isinstance(version, int) and version != SCHEMA_VERSION:
        raise TrackerError(
            f"{path} has version {version}, this program writes version {SCHEMA_VERSION}.",
            hint="Use the newer hew-loop that wrote it.",
        )
    try:
        return Notebook.model_validate(found)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise _damaged(path, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def write_notebook(path: Path, notebook: Notebook) -> None:
    """Only under the lock. Raises OSError."""
    raw = json.dumps(notebook.model_dump(mode="json"), indent=1, sort_keys=True) + "\n"
    while not replace_file(path, raw.encode(), seen=signature(path)):
        pass  # nobody else writes it: what changed was its times


def encodable(text: str) -> str:
    """Without halves of characters, which no file takes."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _damaged(path: Path, why: str) -> TrackerError:
    return TrackerError(
        f"{path} is damaged: {why}.",
        hint="Mend it, or move it away: the checklist keeps its marks, claims and notes are lost.",
    )
