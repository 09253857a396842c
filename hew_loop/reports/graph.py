"""A run as a graph: one node per iteration, an edge for why it was started, and what it led to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from hew_loop.core.state import Iteration, RunState, TaskRecord
from hew_loop.reports.outcomes import Kind, outcome_of, why_of
from hew_loop.reports.text import between, duration, plain, plural

Style = Kind | Literal["base", "landing", "passed", "failed", "not_tested", "delivered", "refused", "pending"]
EdgeKind = Literal["agent", "planner", "graph", "retry", "lands", "then"]

BASE = "base"


@dataclass(frozen=True, slots=True)
class Node:
    """`id` is unique in its run and plain ASCII. The first label line says what it is and how it ended."""

    id: str
    kind: Literal["base", "iteration", "landing", "verify", "delivery"]
    style: Style
    name: str
    outcome: str
    details: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GraphEdge:
    source: str
    target: str
    kind: EdgeKind
    note: str = ""


@dataclass(frozen=True, slots=True)
class Graph:
    """Nodes are in the order of time, each behind those that its edges come from."""

    run_id: str
    nodes: tuple[Node, ...]
    edges: tuple[GraphEdge, ...]


def build(state: RunState) -> Graph:
    """The graph of a run, finished or not.

    Every iteration has exactly one edge that says why it was started: `retry` from the task's previous attempt,
    `agent` or `planner` from the iteration whose end brought the batch plan that named it, `graph` from the iteration
    before it in the same slot, which made the room. Without such an iteration it comes from the base commit.
    """
    nodes, edges = [_base(state)], list[GraphEdge]()
    before: dict[int | str, int] = {}  # slot or task -> its newest iteration so far
    for number, iteration in sorted(state.iterations.items()):
        nodes.append(_iteration(iteration, state))
        edges.append(_why(iteration, state, before))
        before[iteration.spec.slot] = before[iteration.spec.task] = number
    tip = BASE
    for number, (commit, entries) in enumerate(_landings(state), 1):
        name = f"land{number}"
        what = plural(len(entries), "task")
        nodes.append(Node(name, "landing", "landing", f"land {number}", what, (f"as {commit[:12]}",)))
        edges += [GraphEdge(_id(n), name, "lands") for n in entries]
        edges.append(GraphEdge(tip, name, "then"))
        tip = name
    for node in _end(state):
        nodes.append(node)
        edges.append(GraphEdge(tip, node.id, "then"))
        tip = node.id
    return Graph(state.run_id, tuple(nodes), tuple(edges))


def _base(state: RunState) -> Node:
    gate = state.base_gate
    verdict = f"gate {gate.verdict}".replace("_", " ") if gate and gate.verdict else "not gated"
    return Node(BASE, "base", "base", f"base {state.start.base[:12]}", verdict)


def _iteration(iteration: Iteration, state: RunState) -> Node:
    spec, outcome = iteration.spec, outcome_of(iteration, state)
    task = state.backlog.tasks.get(spec.task)
    details = [f'"{plain(task.title, max_chars=60)}"'] if task and task.title else []
    details.append(_effort(iteration))
    if outcome.kind not in ("landed", "unchanged", "running", "waiting") and (why := why_of(iteration)):
        details.append(f"why: {plain(why, max_chars=80)}")
    details += _fate_of_task(state.records.get(spec.task), spec.number)
    if outcome.kind == "landed" and iteration.verdict != "passed":
        details.append("not tested")
    name = f"iter {spec.number} {plain(spec.task, max_chars=80)}.{spec.attempt}"
    return Node(_id(spec.number), "iteration", outcome.kind, name, outcome.label, tuple(d for d in details if d))


def _effort(iteration: Iteration) -> str:
    result = iteration.result
    if result is None or iteration.ended_at is None:
        return ""
    spent = duration(between(iteration.started_at, iteration.ended_at))
    return f"{spent}, {f'{result.usage.total:,}' if result.usage else 'unknown'} tokens"


def _fate_of_task(record: TaskRecord | None, number: int) -> Iterator[str]:
    """What its last iteration says about a task that did not land."""
    if record is None or not record.iterations or record.iterations[-1] != number:
        return
    if record.phase == "parked":
        yield f"parked, bug {plain(record.bug)}" if record.bug else "parked"
    elif record.phase == "returned":
        yield "returned"


def _why(iteration: Iteration, state: RunState, before: Mapping[int | str, int]) -> GraphEdge:
    spec = iteration.spec
    match iteration.why:
        case "retry":
            since, note = before.get(spec.task, 0), f"attempt {spec.attempt}"
        case "agent" | "planner":
            since = next((b.after for b in state.batches if b.number == iteration.batch), 0)
            note = f"batch {iteration.batch}"
        case "graph":
            since, note = before.get(spec.slot, 0), f"slot {spec.slot}"
    known = since in state.iterations and since < spec.number
    return GraphEdge(_id(since) if known else BASE, _id(spec.number), iteration.why, note)


def _landings(state: RunState) -> list[tuple[str, tuple[int, ...]]]:
    """Commit and entries of each prefix that landed. A gated one landed after its gate began, others as they ended."""
    groups: dict[str, list[int]] = {}
    for number, iteration in state.iterations.items():
        if iteration.landed:
            groups.setdefault(iteration.landed, []).append(number)
    gated = {gate.commit: gate.started_at for gate in state.gates.values()}
    ended = {
        commit: max(state.iterations[n].ended_at or state.started_at for n in numbers)
        for commit, numbers in groups.items()
    }
    order = sorted(groups, key=lambda commit: (max(ended[commit], gated.get(commit, ended[commit])), groups[commit]))
    return [(commit, tuple(groups[commit])) for commit in order]


def _end(state: RunState) -> Iterator[Node]:
    verify, delivery = state.verify, state.delivery
    if verify is not None:
        style: Style = "failed" if verify.verdict == "could_not_run" else verify.verdict
        reason = (f"why: {plain(verify.reason, max_chars=80)}",) if style == "failed" and verify.reason else ()
        spent = duration(verify.duration_s)
        yield Node("verify", "verify", style, "verify", verify.verdict.replace("_", " "), (spent, *reason))
    if delivery is not None and delivery.state == "merged":
        what = f"merged into {plain(state.onto or '')}"
        yield Node("delivery", "delivery", "delivered", "deliver", what, (f"as {delivery.commit[:12]}",))
    elif delivery is not None:
        reason = (f"why: {plain(delivery.reason, max_chars=80)}",) if delivery.reason else ()
        style = "refused" if delivery.state == "refused" else "pending"
        yield Node("delivery", "delivery", style, "deliver", delivery.state, reason)
    elif state.ended and state.landed_something:
        yield Node("delivery", "delivery", "pending", "deliver", f"kept as loop/{state.run_id}/integration")


def _id(number: int) -> str:
    return f"iter{number}"
