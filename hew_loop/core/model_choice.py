"""Which model works on a task: the command line, then what the task says, then the configuration."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from hew_loop.core.policy import ModelSettings

_TAG: Final = re.compile(r"<!--[ \t]*hew:model=([^\s<>]*)[ \t]*-->")
_LABEL: Final = "model:"
# A task's text is not trusted: what it names goes into an argv, and must not look like an option there.
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+\[\]-]{0,199}")


def choose_model(
    settings: ModelSettings, *, description: str, labels: Iterable[str], priority: int, type: str
) -> str | None:
    """`--model`, `<!-- hew:model=X -->`, label `model:X`, by priority, by type, default; None: the runtime's own."""
    return (
        settings.forced
        or _first_name(_TAG.findall(description))
        or _first_name(label.removeprefix(_LABEL) for label in labels if label.startswith(_LABEL))
        or dict(settings.by_priority).get(f"P{priority}")
        or dict(settings.by_type).get(type)
        or settings.default
        or None
    )


def _first_name(names: Iterable[str]) -> str | None:
    return next((name for name in names if _NAME.fullmatch(name)), None)
