"""The ready rule and what hangs on what: tables for each clause, properties against a naive reading of the rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hew_loop.core.graph import (
    ancestors,
    blocked_ids,
    children,
    cycles,
    dependencies,
    descendants,
    ready,
    waiting_path,
)
from hew_loop.core.task import Edge, Task

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def task(task_id: str, *edges: Edge | str, **members: Any) -> Task:
    """A task with `blocks` edges to the ids given as text."""
    members = {"title": task_id, "created_at": NOW, **members}
    return Task(id=task_id, edges=tuple(Edge(e) if isinstance(e, str) else e for e in edges), **members)


def below(parent: str) -> Edge:
    return Edge(parent, "parent-child")


def waits(target: str, gate: str = "") -> Edge:
    return Edge(target, "waits-for", gate)


def graph(*tasks: Task) -> dict[str, Task]:
    return {each.id: each for each in tasks}


def ready_ids(*tasks: Task, **options: Any) -> list[str]:
    return [each.id for each in ready(graph(*tasks), NOW, **options)]


@pytest.mark.parametrize("kind", ["blocks", "conditional-blocks"])
@pytest.mark.parametrize(
    ("status", "is_blocked"),
    [
        ("open", True),
        ("in_progress", True),
        ("blocked", True),
        ("deferred", True),
        ("hooked", True),
        ("my-own", True),
        ("closed", False),
        ("pinned", False),
    ],
)
def test_a_blocker_holds_until_it_is_closed_or_pinned(kind: str, status: str, is_blocked: bool) -> None:
    tasks = graph(task("a", status=status), task("b", Edge("a", kind)))
    assert blocked_ids(tasks) == ({"b"} if is_blocked else frozenset())


@pytest.mark.parametrize("kind", ["related", "discovered-from", "tracks", "until", "my-own"])
def test_other_edges_never_block(kind: str) -> None:
    assert blocked_ids(graph(task("a"), task("b", Edge("a", kind)))) == frozenset()


@pytest.mark.parametrize("target", ["gone", "external:shop:login"])
@pytest.mark.parametrize("kind", ["blocks", "conditional-blocks", "waits-for", "parent-child"])
def test_a_target_that_is_not_here_blocks_nobody(target: str, kind: str) -> None:
    assert blocked_ids(graph(task("b", Edge(target, kind)), task("c", below("gone"), status="open"))) == frozenset()


def test_a_flag_pinned_blocker_that_is_open_blocks() -> None:
    assert blocked_ids(graph(task("a", pinned=True), task("b", "a"))) == {"b"}


def test_blocking_goes_down_to_any_depth_but_not_through_a_settled_parent() -> None:
    tasks = graph(
        task("x"),
        task("e", "x"),
        task("s", below("e")),
        task("c", below("s")),
        task("done", below("e"), status="closed"),
        task("d", below("done")),
        task("held", below("e"), status="pinned"),
        task("h", below("held")),
    )
    assert blocked_ids(tasks) == {"e", "s", "c"}


def test_a_blocked_child_does_not_block_its_parent() -> None:
    assert blocked_ids(graph(task("x"), task("e"), task("c", "x", below("e")))) == {"c"}


@pytest.mark.parametrize(
    ("gate", "statuses", "is_blocked"),
    [
        ("", [], False),
        ("", ["open"], True),
        ("all-children", ["closed", "open"], True),
        ("all-children", ["closed", "pinned"], False),
        ("any-children", ["closed", "in_progress"], False),
        ("any-children", ["pinned", "in_progress"], True),
        ("any-children", ["in_progress"], True),
        ("any-children", ["pinned"], False),
        ("any-children", [], False),
    ],
)
@pytest.mark.parametrize("own", ["open", "closed"])
def test_a_waits_for_edge_looks_at_the_children_of_its_target(
    gate: str, statuses: list[str], is_blocked: bool, own: str
) -> None:
    kids = [task(f"c{n}", below("s"), status=status) for n, status in enumerate(statuses)]
    tasks = graph(task("s", status=own), *kids, task("w", waits("s", gate)))
    assert ("w" in blocked_ids(tasks)) is is_blocked


def test_only_plain_open_work_is_ready() -> None:
    later = NOW + timedelta(days=1)
    types = ["merge-request", "gate", "molecule", "message", "agent", "role", "rig"]
    hidden = [
        *(task(f"s-{status}", status=status) for status in ("in_progress", "blocked", "deferred", "hooked", "closed")),
        *(task(f"t-{kind}", type=kind) for kind in types),
        task("pinned", pinned=True),
        task("ephemeral", ephemeral=True),
        task("later", defer_until=later),
        task("child-of-later", below("later")),
    ]
    shown = [
        task("a", type="epic"),
        task("b", type="event"),
        task("c", defer_until=NOW),
        task("d", below("child-of-later")),
        task("e", assignee="ann"),
    ]
    assert ready_ids(*hidden, *shown) == ["a", "b", "c", "d", "e"]


def test_a_type_asked_for_by_name_replaces_the_exclusions() -> None:
    assert ready_ids(task("g", type="gate"), task("t"), kind="gate") == ["g"]


def test_deferred_and_ephemeral_tasks_are_shown_on_request() -> None:
    tasks = [task("e", defer_until=NOW + timedelta(days=1)), task("c", below("e")), task("w", ephemeral=True)]
    assert ready_ids(*tasks) == []
    assert ready_ids(*tasks, include_deferred=True) == ["c", "e"]
    assert ready_ids(*tasks, include_ephemeral=True) == ["w"]


def test_graph_order_is_priority_then_oldest_then_id() -> None:
    early = NOW - timedelta(hours=1)
    tasks = [task("b"), task("a"), task("old", created_at=early), task("urgent", priority=0), task("low", priority=4)]
    assert ready_ids(*tasks) == ["urgent", "old", "a", "b", "low"]


def test_dependencies_are_those_of_the_task_and_of_its_open_ancestors() -> None:
    tasks = graph(
        task("a", "deeper"),
        task("b", status="closed"),
        task("x"),
        task("y"),
        task("related"),
        task("deeper"),
        task("e", "x"),
        task("shut", "y", status="closed"),
        task("s", below("e"), below("shut")),
        task("c", "a", Edge("b", "conditional-blocks"), Edge("related", "related"), below("s"), "gone"),
    )
    assert dependencies(tasks, "c") == {"a", "b", "x"}
    assert dependencies(tasks, "a") == {"deeper"}
    assert dependencies(tasks, "x") == frozenset()


def test_dependencies_of_a_gate_are_children_and_for_any_children_the_closed_ones() -> None:
    kids = [task("c1", below("s"), status="closed"), task("c2", below("s"))]
    tasks = graph(task("s"), *kids, task("all", waits("s")), task("any", waits("s", "any-children")))
    assert dependencies(tasks, "all") == {"c1", "c2"}
    assert dependencies(tasks, "any") == {"c1"}


def test_children_and_descendants_follow_edges_only_and_end_on_rings() -> None:
    tasks = graph(
        task("e"),
        task("e.1"),
        task("s", below("e")),
        task("c", below("s"), below("r1")),
        task("r1", below("r2")),
        task("r2", below("r1")),
    )
    assert children(tasks) == {"e": ("s",), "s": ("c",), "r1": ("c", "r2"), "r2": ("r1",)}
    assert descendants(tasks, ["e"]) == {"s", "c"}
    assert descendants(tasks, ["r1"]) == {"c", "r2"}
    assert descendants(tasks, []) == frozenset()
    assert ancestors(tasks, "c") == {"s", "e", "r1", "r2"}
    assert blocked_ids(tasks) == frozenset()


def test_waiting_path_names_each_step_and_goes_over_parents() -> None:
    tasks = graph(task("x"), task("e", "x"), task("c", below("e")), task("t", waits("e")))
    assert waiting_path(tasks, "c", "x") == ("c", "e", "x")
    assert waiting_path(tasks, "t", "x") == ("t", "c", "e", "x")
    assert waiting_path(tasks, "x", "c") == ()


def test_cycles_are_named_once_from_their_smallest_id() -> None:
    tasks = graph(
        task("c", "a"),
        task("a", "b"),
        task("b", "c"),
        task("self", "self"),
        task("outside", "a"),
        task("e", "kid"),
        task("kid", below("e")),
        task("p", below("q")),
        task("q", below("p")),
    )
    assert cycles(tasks) == (("a", "b", "c"), ("e", "kid"), ("self",))


def test_a_cycle_is_named_from_its_smallest_id_also_when_that_is_on_a_shorter_ring_of_parents() -> None:
    tasks = graph(task("a", "b", below("c")), task("b", "c"), task("c", below("a")))
    assert cycles(tasks) == (("a", "b", "c"),)


STATUSES = ["open", "open", "open", "in_progress", "blocked", "closed", "pinned"]
KINDS = ["blocks", "conditional-blocks", "parent-child", "parent-child", "waits-for", "related"]


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, Task]:
    names = [f"t{n}" for n in range(draw(st.integers(0, 9)))]
    target = st.sampled_from([*names, "gone"])
    edge = st.builds(Edge, target, st.sampled_from(KINDS), st.sampled_from(["", "all-children", "any-children"]))
    return {
        name: task(name, *draw(st.lists(edge, max_size=3)), status=draw(st.sampled_from(STATUSES))) for name in names
    }


def naive_blocked(tasks: Mapping[str, Task]) -> set[str]:
    """beads.md §2.1, rule 6, read aloud; repeated until nothing changes."""
    kids = {p: [t for t in tasks.values() if p in t.parents] for p in tasks}

    def holds(edge: Edge, so_far: set[str]) -> bool:
        if edge.target not in tasks:
            return False
        match edge.kind:
            case "blocks" | "conditional-blocks":
                return tasks[edge.target].status not in ("closed", "pinned")
            case "waits-for":
                waiting = any(kid.status not in ("closed", "pinned") for kid in kids[edge.target])
                lifted = edge.gate == "any-children" and any(kid.status == "closed" for kid in kids[edge.target])
                return waiting and not lifted
            case "parent-child":
                return edge.target in so_far
            case _:
                return False

    found: set[str] = set()
    while True:
        more = {
            t.id
            for t in tasks.values()
            if t.status not in ("closed", "pinned") and any(holds(edge, found) for edge in t.edges)
        }
        if more == found:
            return found
        found |= more


@given(graphs())
def test_blocked_is_what_the_rule_says_read_aloud(tasks: dict[str, Task]) -> None:
    assert blocked_ids(tasks) == naive_blocked(tasks)


@given(graphs(), st.randoms(use_true_random=False))
def test_the_order_of_the_tasks_changes_no_answer(tasks: dict[str, Task], random: Any) -> None:
    names = list(tasks)
    random.shuffle(names)
    other = {name: tasks[name] for name in names}
    assert blocked_ids(other) == blocked_ids(tasks)
    assert ready(other, NOW) == ready(tasks, NOW)
    assert cycles(other) == cycles(tasks)
    assert [dependencies(other, name) for name in tasks] == [dependencies(tasks, name) for name in tasks]


@given(graphs(), st.data())
def test_closing_a_task_blocks_nobody_anew(tasks: dict[str, Task], data: st.DataObject) -> None:
    if not tasks:
        return
    name = data.draw(st.sampled_from(sorted(tasks)))
    closed = {**tasks, name: replace(tasks[name], status="closed")}
    assert blocked_ids(closed) <= blocked_ids(tasks)


@given(graphs())
def test_each_ring_is_closed_and_waits_step_by_step(tasks: dict[str, Task]) -> None:
    for ring in cycles(tasks):
        for here, step in pairwise((*ring, ring[0])):
            assert waiting_path(tasks, here, step) == (here, step)


@given(graphs())
def test_without_gates_a_task_is_blocked_exactly_while_a_dependency_is_not_settled(tasks: dict[str, Task]) -> None:
    plain = {t.id: replace(t, edges=tuple(e for e in t.edges if e.kind != "waits-for")) for t in tasks.values()}
    blocked = blocked_ids(plain)
    for name, each in plain.items():
        if each.status not in ("closed", "pinned") and not waiting_path(plain, name, name):
            open_ones = [d for d in dependencies(plain, name) if plain[d].status not in ("closed", "pinned")]
            assert (name in blocked) is bool(open_ones)
