"""The merge queue as tables and properties: how many gate runs it takes, who lands, who goes back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import log2

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hew_loop.core import events as ev
from hew_loop.core import merge_queue as mq
from hew_loop.core.actions import LAUNCH, GatePurpose
from hew_loop.core.events import Link
from hew_loop.core.verdict import Verdict
from tests.support.world import events, run
from tests.support.world_parts import Agent, task

EIGHT = tuple(range(1, 9))

Oracle = Callable[[tuple[int, ...]], Verdict]
"""Verdict on a tree: everything that landed, and the prefix on top of it."""


@dataclass
class Outcome:
    landed: list[int] = field(default_factory=list[int])
    back: list[int] = field(default_factory=list[int])
    gates: list[tuple[GatePurpose, tuple[int, ...]]] = field(default_factory=list[tuple[GatePurpose, tuple[int, ...]]])
    landings: int = 0
    broken: bool = False
    queue: mq.MergeQueue = field(default_factory=lambda: mq.MergeQueue("base"))


def drain(numbers: tuple[int, ...], oracle: Oracle, *, gated: bool = True) -> Outcome:
    """Work the queue off, without conflicts."""
    out = Outcome(queue=mq.MergeQueue("base", numbers))
    for _ in range(300):
        step = mq.next_step(out.queue, gated=gated)
        match step:
            case None:
                return out
            case mq.Build(entries):
                links = tuple(Link(n, f"{out.queue.tip}+{n}@{i}", f"tree {n}") for i, n in enumerate(entries))
                out.queue = mq.start_chain(out.queue, links)
            case mq.Gate(link, purpose, entries):
                assert (link is None) == (purpose == "tip")
                out.gates.append((purpose, entries))
                tree = tuple(out.landed) if link is None else (*out.landed, *entries)
                after = mq.after_gate(out.queue, oracle(tree))
                out.queue = after.queue
                if after.broken:
                    out.broken = True
                    return out
                if after.sent_back is not None:
                    out.back.append(after.sent_back)
            case mq.LandPrefix(link, entries):
                assert link.number == entries[-1]
                out.queue, landed = mq.after_landing(out.queue)
                assert landed == entries
                assert out.queue.tip == link.commit
                out.landed += landed
                out.landings += 1
    raise AssertionError("the queue does not empty")


def fails_with(*culprits: int, verdict: Verdict = "failed") -> Oracle:
    return lambda tree: verdict if set(culprits) & set(tree) else "passed"


def test_eight_green_entries_take_one_gate_and_one_landing() -> None:
    out = drain(EIGHT, fails_with())

    assert out.gates == [("prefix", EIGHT)]
    assert (out.landed, out.back, out.landings) == (list(EIGHT), [], 1)


@pytest.mark.parametrize("culprit", EIGHT)
def test_one_culprit_in_eight_is_found_by_halving_and_alone_goes_back(culprit: int) -> None:
    out = drain(EIGHT, fails_with(culprit))

    assert out.back == [culprit]
    assert out.landed == [n for n in EIGHT if n != culprit]
    confirmations = [g for g in out.gates if g[0] == "confirm"]
    assert len(confirmations) == 1
    assert len(out.gates) <= 1 + 2 * log2(8) + 1


@pytest.mark.parametrize(("first", "second"), [(a, b) for a in EIGHT for b in EIGHT if a < b])
def test_two_culprits_are_both_named_and_six_land(first: int, second: int) -> None:
    out = drain(EIGHT, fails_with(first, second))

    assert sorted(out.back) == [first, second]
    assert out.landed == [n for n in EIGHT if n not in (first, second)]


def test_what_fails_only_together_names_the_later_one() -> None:
    out = drain((1, 2, 3, 4), lambda tree: "failed" if {2, 4} <= set(tree) else "passed")

    assert (out.landed, out.back) == ([1, 2, 3], [4])


@pytest.mark.parametrize("numbers", [(1,), (1, 2), EIGHT])
def test_a_tree_that_fails_once_and_passes_again_lands(numbers: tuple[int, ...]) -> None:
    failed: list[tuple[int, ...]] = []

    def once(tree: tuple[int, ...]) -> Verdict:
        if tree == numbers and not failed:
            failed.append(tree)
            return "failed"
        return "passed"

    out = drain(numbers, once)

    assert (out.landed, out.back) == (list(numbers), [])
    assert out.gates[-1][0] == "confirm"


def test_a_shorter_prefix_that_passes_lands_at_once() -> None:
    out = drain(EIGHT, fails_with(8))

    assert out.gates == [
        ("prefix", EIGHT),
        ("prefix", (1, 2, 3, 4)),
        ("prefix", (5, 6)),
        ("prefix", (7,)),
        ("confirm", (8,)),
    ]
    assert out.landings == 3


def test_a_timeout_is_tried_once_more_and_then_lands() -> None:
    verdicts: list[Verdict] = ["could_not_run", "passed"]

    out = drain((1, 2), lambda tree: verdicts.pop(0))

    assert out.gates == [("prefix", (1, 2)), ("again", (1, 2))]
    assert out.landed == [1, 2]


def test_a_gate_that_does_not_run_on_the_tip_either_is_broken_and_keeps_the_queue() -> None:
    out = drain((1, 2), lambda tree: "could_not_run")

    assert [purpose for purpose, _ in out.gates] == ["prefix", "again", "tip"]
    assert out.broken
    assert (out.landed, out.back, out.queue.waiting) == ([], [], (1, 2))


def test_a_tip_that_fails_is_broken_too() -> None:
    out = drain((1,), lambda tree: "could_not_run" if tree else "failed")

    assert out.broken


@pytest.mark.parametrize("culprit", EIGHT)
def test_an_entry_that_hangs_the_gate_is_found_once_the_tip_has_passed(culprit: int) -> None:
    out = drain(EIGHT, fails_with(culprit, verdict="could_not_run"))

    assert not out.broken
    assert out.back == [culprit]
    assert out.landed == [n for n in EIGHT if n != culprit]
    assert [purpose for purpose, _ in out.gates].count("tip") == 1


def test_a_single_hanging_entry_costs_three_gate_runs() -> None:
    out = drain((5,), fails_with(5, verdict="could_not_run"))

    assert [purpose for purpose, _ in out.gates] == ["prefix", "again", "tip"]
    assert out.back == [5]


def test_without_a_gate_everything_lands_untested() -> None:
    out = drain(EIGHT, fails_with(1), gated=False)

    assert (out.gates, out.landed, out.landings) == ([], list(EIGHT), 1)


def test_only_a_plain_prefix_may_be_answered_from_kept_results() -> None:
    link = Link(1, "c", "t")

    fresh = {p: mq.Gate(link, p, (1,)).fresh for p in ("prefix", "again", "tip", "confirm")}

    assert fresh == {"prefix": False, "again": True, "tip": True, "confirm": True}


def test_what_arrives_while_a_prefix_is_frozen_waits_for_the_next_one() -> None:
    queue = mq.start_chain(mq.MergeQueue("base", (1, 2)), (Link(1, "a", "ta"), Link(2, "b", "tb")))
    queue = mq.MergeQueue(queue.tip, (*queue.waiting, 3), queue.chain)

    assert mq.next_step(queue, gated=True) == mq.Gate(Link(2, "b", "tb"), "prefix", (1, 2))
    queue, landed = mq.after_landing(mq.after_gate(queue, "passed").queue)

    assert landed == (1, 2)
    assert mq.next_step(queue, gated=True) == mq.Build((3,))


def test_a_chain_without_a_link_is_no_chain() -> None:
    assert mq.start_chain(mq.MergeQueue("base", (1,)), ()) == mq.MergeQueue("base", (1,))


def test_the_launch_branch_goes_through_the_queue_like_an_entry() -> None:
    queue = mq.start_chain(mq.MergeQueue("tip"), (Link(LAUNCH, "merged", "tree"),))
    queue = mq.after_gate(queue, "failed").queue

    assert mq.after_gate(queue, "failed").sent_back == LAUNCH


@settings(deadline=None)
@given(
    count=st.integers(1, 16),
    data=st.data(),
    verdict=st.sampled_from(("failed", "could_not_run")),
)
def test_for_any_culprits_all_others_land_in_order_and_every_culprit_goes_back(
    count: int, data: st.DataObject, verdict: Verdict
) -> None:
    numbers = tuple(range(1, count + 1))
    culprits = data.draw(st.sets(st.sampled_from(numbers)))

    out = drain(numbers, fails_with(*culprits, verdict=verdict))

    assert out.landed == [n for n in numbers if n not in culprits]
    assert sorted(out.back) == sorted(culprits)
    assert len(out.gates) <= 1 + len(culprits) * (2 * log2(max(count, 2)) + 4)


@settings(deadline=None)
@given(verdicts=st.lists(st.sampled_from(("passed", "failed", "could_not_run", "not_tested")), max_size=60))
def test_for_any_verdicts_nothing_is_lost_and_nothing_lands_twice(verdicts: list[Verdict]) -> None:
    answers = iter(verdicts)

    out = drain(EIGHT, lambda tree: next(answers, "passed"))

    assert sorted((*out.landed, *out.back, *out.queue.waiting)) == list(EIGHT)
    assert out.landed == sorted(out.landed)
    assert out.broken or not out.queue.waiting


def test_an_entry_that_conflicts_with_the_tip_goes_back_and_lands_with_its_second_attempt() -> None:
    clash = Agent(trait="file-a")

    world = run([task("a"), task("b")], script={"a": [clash], "b": [clash]})

    built = [e.conflicts for e in events(world, ev.ChainBuilt) if isinstance(e, ev.ChainBuilt) and e.conflicts]
    assert built == [(ev.SentBack(2, "conflict", ("file-a",)),)]
    assert [i.fate for i in world.state.iterations.values()] == ["landed", "conflict", "landed"]
    again = world.state.iterations[3].spec
    assert (again.task, again.attempt, again.carry) == ("b", 2, "b.1")
    assert again.evidence == ("Your work conflicts with what landed meanwhile, in: file-a. The merge is in progress.",)


def test_the_verdict_on_the_tip_is_not_the_evidence_against_an_entry() -> None:
    world = run([task("a")], script={"a": [Agent(trait="hang")]})

    assert [(g.purpose, g.verdict) for g in world.state.gates.values()][1:4] == [
        ("prefix", "could_not_run"),
        ("again", "could_not_run"),
        ("tip", "passed"),
    ]
    assert world.state.iterations[1].note == "could_not_run"
    assert world.state.iterations[1].verdict == "could_not_run"
