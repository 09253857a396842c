"""A batch plan: what an agent or the planner suggests to start next, and how far a suggestion reaches (P8)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from hew_loop.errors import HewError

SCHEMA_VERSION: Final = 1


class BatchPlanError(HewError):
    """A `batch-NNN.json` that cannot be read; the suggestion in it is lost, the run is not."""


class PlannerTokens(BaseModel):
    model_config = ConfigDict(frozen=True)

    input: int = Field(default=0, ge=0)
    output: int = Field(default=0, ge=0)
    cache_read: int = Field(default=0, ge=0)
    cache_create: int = Field(default=0, ge=0)


class BatchPlan(BaseModel):
    """`batch-NNN.json`: hew's own format, so that either program reads the other's."""

    model_config = ConfigDict(frozen=True)

    schema_version: Literal[1] = SCHEMA_VERSION
    iter_number: int = Field(ge=0)
    task_ids: tuple[str, ...] = ()
    source: Literal["agent", "planner", "skipped"]
    reason: str | None = None
    created_at: AwareDatetime
    planner_tokens: PlannerTokens | None = None

    def to_json(self) -> str:
        """With a line end; `reason` and `planner_tokens` are left out when there are none."""
        return self.model_dump_json(exclude_none=True, indent=2) + "\n"


def read_batch_plan(text: str) -> BatchPlan:
    """Raises BatchPlanError, naming both numbers when the file is of another version."""
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BatchPlanError(f"the batch plan is not JSON: {error}", hint="remove the file; it only suggests") from None
    if not isinstance(value, dict):
        raise BatchPlanError("the batch plan is not a JSON object", hint="remove the file; it only suggests")
    version: object = cast("dict[str, object]", value).get("schema_version")
    if isinstance(version, bool) or version != SCHEMA_VERSION:
        raise BatchPlanError(
            f"the batch plan has schema_version {ascii(version)[:40]}; this program reads {SCHEMA_VERSION}",
            hint="use the program that wrote it, or remove the file; it only suggests",
        )
    try:
        return BatchPlan.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BatchPlanError(
            f"the batch plan is damaged: {where}: {first['msg']}", hint="remove the file; it only suggests"
        ) from None


@dataclass(frozen=True, slots=True)
class Pick:
    """What a free slot may take now, best first."""

    ids: tuple[str, ...]
    narrowed: bool
    """The suggestion chose them; else they are everything startable, and the graph did."""


def narrow(plan_ids: Sequence[str], startable: Sequence[str]) -> Pick:
    """The startable tasks that the suggestion names, else all of them: a suggestion can hold nothing back.

    Always in the order of `startable`, which is that of the graph. Asked anew for each free slot.
    """
    wanted = frozenset(plan_ids)
    suggested = tuple(task for task in startable if task in wanted)
    return Pick(suggested or tuple(startable), narrowed=bool(suggested))
