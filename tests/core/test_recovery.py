"""The crash table: no action without a row, and what each row makes of what was found."""

from __future__ import annotations

from typing import get_args

import pytest

from hew_loop.core import actions as ac
from hew_loop.core import events as ev
from hew_loop.core.iteration import IterationResult, IterationSpec
from hew_loop.core.recovery import CRASH_TABLE, Found, looks, settled
from tests.support.world import ACTIONS, Killed, World
from tests.support.world_parts import RUN_ID, Scenario, task

SPEC = IterationSpec(RUN_ID, 1, "t", 1, 0, "base", f"loop/{RUN_ID}/t.1", f"loop/{RUN_ID}/0", "fake")

EXAMPLES: tuple[ac.Action, ...] = (
    ac.ReadTasks(),
    ac.Claim("t", 0, SPEC.actor, "graph"),
    ac.AskPlanner(1, "claude", 1),
    ac.StartIteration(SPEC, "graph"),
    ac.BuildChain("base", (ac.ChainEntry(1, "t", "head", "base"),)),
    ac.RunGate(1, "candidate", "tree", "prefix", (1,)),
    ac.Land("base", "candidate", (1,)),
    ac.CloseTask("t", "landed"),
    ac.ReleaseTask("t", SPEC.actor, "returned"),
    ac.FileBug("t", 1, "blocked", "title", "description"),
    ac.Remember("STATUS:x"),
    ac.Verify("candidate"),
    ac.Deliver("main", "base", "candidate"),
)
LOST = IterationResult("failed", "lost", "the loop died while it ran", start="base")
UNANSWERED = ev.BatchPlanned(
    1, "skipped", reason="runtime_error: lost: the loop died while it ran", after=1, n=7, took_s=0.0
)
SALVAGED = IterationResult("failed", "lost", "killed", start="base", head="salvaged")


def test_every_action_has_a_row_in_the_crash_table() -> None:
    assert set(CRASH_TABLE) == set(ACTIONS) == {type(action) for action in EXAMPLES}
    assert get_args(get_args(ac.Action)[0]) == ACTIONS


@pytest.mark.parametrize("action", EXAMPLES, ids=lambda action: action.type)
def test_an_intent_without_an_effect_is_decided_anew(action: ac.Action) -> None:
    expected: dict[type, ev.Event] = {ac.StartIteration: ev.IterationEnded(7, LOST), ac.AskPlanner: UNANSWERED}

    assert settled(7, action, Found()) == expected.get(type(action), ev.Abandoned(7))


@pytest.mark.parametrize("action", EXAMPLES, ids=lambda action: action.type)
def test_an_effect_that_is_there_is_recorded_and_not_repeated(action: ac.Action) -> None:
    recorded: dict[type, ev.Event] = {
        ac.Claim: ev.Claimed(7),
        ac.AskPlanner: UNANSWERED,
        ac.StartIteration: ev.IterationEnded(7, SALVAGED),
        ac.Land: ev.Landed(7),
        ac.CloseTask: ev.TaskClosed(7),
    }

    result = SALVAGED if isinstance(action, ac.StartIteration) else None

    assert settled(7, action, Found(True, result)) == recorded.get(type(action), ev.Abandoned(7))


def test_only_what_leaves_a_trace_that_counts_is_looked_for() -> None:
    assert {action.__name__: look for action, look in CRASH_TABLE.items() if look != "nothing"} == {
        "Claim": "claim",
        "StartIteration": "iteration",
        "Land": "tip",
        "CloseTask": "status",
    }


def test_the_open_intents_are_looked_at_in_their_order() -> None:
    world = World(Scenario((task("a"), task("b")), kills=(8,)))
    try:
        world.append(ev.RunStarted(RUN_ID, "base", world.scenario.policy, "main", "base", "fake", "store"))
        while True:
            world.tick()
            world.step()
    except Killed:
        pass

    assert [(n, type(action), look) for n, action, look in looks(world.state)] == [
        (4, ac.Claim, "claim"),
        (5, ac.StartIteration, "iteration"),
    ]
