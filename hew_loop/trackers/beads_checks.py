"""What beads takes as a title, a type or a label: values that it would refuse at import are refused here."""

from __future__ import annotations

import re
from collections.abc import Container
from pathlib import Path
from typing import Final

from hew_loop.errors import UsageError

TITLE_BYTES: Final = 500
KIND_LENGTH: Final = 50
TYPES: Final = (
    "task", "bug", "feature", "epic", "chore", "decision", "message", "molecule", "gate", "spike", "story",
    "milestone", "event",
)  # fmt: skip


def check_title(title: str) -> None:
    """Raises `UsageError` for a title that is empty or too long."""
    check_texts(title)
    size = len(title.encode())
    if not title.strip():
        raise UsageError("A title cannot be empty.")
    if size > TITLE_BYTES:
        raise UsageError(
            f"A title has at most {TITLE_BYTES} bytes, this one has {size}.",
            hint="Put the rest in the description: --description TEXT",
        )


def cut_title(title: str) -> str:
    """At most as many bytes as beads takes for a title."""
    raw = title.encode("utf-8", "replace")
    return title if len(raw) <= TITLE_BYTES else raw[: TITLE_BYTES - 3].decode("utf-8", "ignore") + "…"


def new_memory_key(text: str, *, taken: Container[str]) -> str:
    """A key that says what the memory is about: another memory's would replace that one."""
    key = stem = "-".join(re.findall(r"[a-z0-9]+", text.lower())[:8])[:60] or "memory"
    number = 1
    while key in taken:
        number += 1
        key = f"{stem}-{number}"
    return key


def check_texts(*texts: str) -> None:
    """Raises `UsageError` for bytes of the command line that are no text."""
    try:
        for text in texts:
            text.encode()
    except UnicodeEncodeError:
        raise UsageError("A text holds bytes that are not UTF-8.") from None


def check_kind(name: str) -> None:
    """Raises `UsageError` for a type of edge that beads could not store; any name of up to 50 characters is one."""
    check_texts(name)
    if not 0 < len(name) <= KIND_LENGTH:
        raise UsageError(f"A type of dependency has 1 to {KIND_LENGTH} characters.")


def check_type(name: str, directory: Path) -> None:
    """Raises `UsageError` for a type that is neither beads' own nor in `types.custom` of the store's config.yaml."""
    known = (*TYPES, *re.findall(r"[^\s,]+", config_value(directory, "types.custom")))
    if name not in known:
        raise UsageError(f"There is no issue type {name!r}.", hint=f"One of: {', '.join(known)}")


def config_value(directory: Path, key: str) -> str:
    """A plain `key: value` of `.beads/config.yaml`; empty when there is none. Commented lines do not count."""
    try:
        text = (directory / "config.yaml").read_text(errors="replace")
    except OSError:
        return ""
    found = re.search(rf"^{re.escape(key)}:[ \t]*(?:\"([^\"\n]*)\"|'([^'\n]*)'|([^#\n]*))", text, re.MULTILINE)
    return next((group.strip() for group in found.groups() if group), "") if found else ""
