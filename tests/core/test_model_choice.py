from __future__ import annotations

import pytest

from hew_loop.core.model_choice import choose_model
from hew_loop.core.policy import ModelSettings

ALL = ModelSettings(forced="forced", default="default", by_priority=(("P1", "by-p"),), by_type=(("bug", "by-type"),))
FREE = ModelSettings(default="default", by_priority=(("P1", "by-p"),), by_type=(("bug", "by-type"),))
TAG = "Fix it. <!-- hew:model=by-tag -->"


@pytest.mark.parametrize(
    ("settings", "description", "labels", "priority", "kind", "model"),
    [
        (ALL, TAG, ("model:by-label",), 1, "bug", "forced"),
        (FREE, TAG, ("model:by-label",), 1, "bug", "by-tag"),
        (FREE, "", ("ui", "model:by-label"), 1, "bug", "by-label"),
        (FREE, "", ("ui",), 1, "bug", "by-p"),
        (FREE, "", (), 2, "bug", "by-type"),
        (FREE, "", (), 2, "task", "default"),
        (ModelSettings(), "", (), 2, "task", None),
        (ModelSettings(forced="", default=""), "", (), 2, "task", None),
    ],
)
def test_the_first_that_names_a_model_wins(
    settings: ModelSettings, description: str, labels: tuple[str, ...], priority: int, kind: str, model: str | None
) -> None:
    chosen = choose_model(settings, description=description, labels=labels, priority=priority, type=kind)
    assert chosen == model


@pytest.mark.parametrize(
    "named",
    ["", " ", "--dangerously-skip-permissions", "-x", "two words", "a\nb", "a;b", "a" * 201, "$(id)"],
)
def test_a_task_cannot_name_what_is_no_model(named: str) -> None:
    for description, labels in [(f"<!-- hew:model={named} -->", ()), ("", (f"model:{named}",))]:
        chosen = choose_model(FREE, description=description, labels=labels, priority=2, type="task")
        assert chosen == "default"


@pytest.mark.parametrize(
    "named", ["opus", "claude-opus-4-5", "sonnet[1m]", "openai/gpt-5", "us.anthropic.x-v1:0", "a@b"]
)
def test_names_of_real_models_are_taken(named: str) -> None:
    assert choose_model(FREE, description=f"<!--hew:model={named}-->", labels=(), priority=2, type="task") == named


def test_an_empty_or_unfinished_tag_is_passed_over() -> None:
    description = "<!-- hew:model= --> <!-- hew:model=x <!-- hew:model=real --> <!-- hew:model=y"

    assert choose_model(FREE, description=description, labels=(), priority=2, type="task") == "real"
