"""A gate waits a moment for those that end together with the first, and for nobody else."""

from __future__ import annotations

from datetime import timedelta

from hew_loop.core import actions as ac
from hew_loop.core.dispatcher import GATHER_S, decide, next_wake
from hew_loop.core.policy import Policy
from tests.support.journals import GATED, JournalBuilder, task

MOMENT = timedelta(seconds=GATHER_S)


def two_at_work(policy: Policy = GATED) -> JournalBuilder:
    built = JournalBuilder(policy).view(task("a"), task("b"))
    if policy.gate.commands:
        built.base_gate()
    return built.start("a", slot=0).start("b", slot=1)


def test_while_another_runs_a_prefix_is_frozen_a_moment_after_the_first_end() -> None:
    state = two_at_work().end("a").state
    assert next_wake(state, state.now) == state.now + MOMENT
    assert not any(isinstance(d, ac.BuildChain) for d in decide(state, state.now))
    (build,) = decide(state, state.now + MOMENT)
    assert isinstance(build, ac.BuildChain)
    assert [e.task for e in build.entries] == ["a"]


def test_when_nothing_else_runs_the_gate_does_not_wait() -> None:
    state = two_at_work().end("a").end("b", after_s=1).state
    (build,) = decide(state, state.now)
    assert isinstance(build, ac.BuildChain)
    assert [e.task for e in build.entries] == ["a", "b"]


def test_without_a_gate_what_is_ready_lands_at_once() -> None:
    state = two_at_work(Policy()).end("a").state
    (build,) = decide(state, state.now)
    assert isinstance(build, ac.BuildChain)
