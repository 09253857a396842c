"""A run as a diagram: one node per iteration, an edge for why it was started, and no way out of a label."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hew_loop.core import events as ev
from hew_loop.reports.graph import Graph, GraphEdge, build
from hew_loop.reports.graph_text import to_ascii, to_dot, to_mermaid
from tests.support.golden import golden
from tests.support.journals import GATED, JournalBuilder, a_night, task


@pytest.mark.parametrize(
    ("render", "name"), [(to_mermaid, "night.mmd"), (to_dot, "night.dot"), (to_ascii, "night-graph.txt")]
)
def test_a_whole_night_is_drawn(render, name: str) -> None:  # type: ignore[no-untyped-def]
    text = render(build(a_night().state))
    assert text == golden(__file__, name, text)


def test_every_iteration_has_one_edge_that_says_why_it_was_started() -> None:
    why = [e for e in build(a_night().state).edges if e.kind not in ("lands", "then")]
    assert why == [
        GraphEdge("base", "iter1", "graph", "slot 0"),
        GraphEdge("base", "iter2", "graph", "slot 1"),
        GraphEdge("iter2", "iter3", "retry", "attempt 2"),
        GraphEdge("iter1", "iter4", "agent", "batch 1"),
        GraphEdge("iter1", "iter5", "agent", "batch 1"),
        GraphEdge("iter3", "iter6", "graph", "slot 1"),
        GraphEdge("iter6", "iter7", "retry", "attempt 2"),
    ]


def test_a_run_at_work_shows_what_runs_and_what_waits() -> None:
    journal = JournalBuilder(replace(GATED, jobs=2)).view(task("t-1"), task("t-2")).base_gate()
    journal.start("t-1").start("t-2", slot=1).end("t-1")
    text = to_ascii(build(journal.state))
    assert text == golden(__file__, "at-work-graph.txt", text)


def test_what_ended_badly_names_its_class() -> None:
    journal = JournalBuilder(replace(GATED, attempts=9, guard_trip=99)).view(task("t-1")).base_gate()
    for failure in ("no_diff", "stalled", "cancelled", "lost"):
        journal.start("t-1").end("t-1", "failed", failure=failure)
    journal.start("t-1").end("t-1", "blocked", message="I need a key").park("t-1", "bug-9").stop().finish(1)
    outcomes = [(n.style, n.outcome) for n in build(journal.state).nodes if n.kind == "iteration"]
    assert outcomes == [
        ("failed", "failed: no_diff"),
        ("failed", "failed: stalled"),
        ("cancelled", "cancelled"),
        ("lost", "lost"),
        ("blocked", "blocked"),
    ]


def test_a_failed_verify_and_a_refused_delivery_are_nodes_with_their_reasons() -> None:
    journal = JournalBuilder().view(task("t-1")).base_gate().work("t-1").gate_and_land().stop()
    failed = build(journal.verify("failed", reason="exit code 2").state).nodes[-1]
    assert (failed.kind, failed.style, failed.details) == ("verify", "failed", ("12s", "why: exit code 2"))
    refused = build(journal.deliver(refused="main moved").state).nodes[-1]
    assert (refused.kind, refused.style, refused.details) == ("delivery", "refused", ("why: main moved",))


def test_runs_in_one_diagram_share_no_node() -> None:
    graphs = [build(a_night(run_id=f"loop-2026030{n}T220000Z-0000000{n}").state) for n in (1, 2)]
    for text, node in ((to_mermaid(*graphs), r"^ +(\w+)[(\[{]+\""), (to_dot(*graphs), r"^ +(\w+) \[label")):
        ids = re.findall(node, text, re.MULTILINE)
        assert len(ids) == len(set(ids)) == 2 * len(graphs[0].nodes)
    assert to_ascii(*graphs) == to_ascii(graphs[0]) + to_ascii(graphs[1])


def test_every_style_in_use_is_defined() -> None:
    text = to_mermaid(build(a_night().state))
    assert set(re.findall(r":::(\w+)", text)) == set(re.findall(r"classDef (\w+) fill:#", text))


def hostile(text: str) -> Graph:
    journal = JournalBuilder(replace(GATED, attempts=1)).view(task(f"t{text}", text or "x")).base_gate()
    journal.start(f"t{text}").end(f"t{text}", "blocked", message=text).park(f"t{text}", text).stop()
    return build(journal.add(ev.RunEnded(1)).state)


TRICKS = (
    '"',
    "]",
    ")",
    "\n",
    "\\",
    "-->",
    "%%{init: {}}%%",
    "```",
    "<b>",
    "#quot;",
    "&lt;",
    "\x1b[31m",
    "end",
    "\u202e",
)
NASTY = st.lists(st.sampled_from(TRICKS) | st.characters(exclude_categories=("Cs",)), max_size=12).map("".join)


@given(NASTY)
def test_no_text_of_others_breaks_out_of_its_label(text: str) -> None:
    graph = hostile(text)
    for line in to_mermaid(graph).splitlines():
        assert re.fullmatch(
            r'flowchart TD|  \w+[(\[{]{1,2}"(?:[^"`<>{}%\\]|<br/>)*"[)\]}]{1,2}:::\w+'
            r'|  \w+ (-->|-\.->|==>)(\|"[\w ,]+"\|)? \w+|  classDef [\w ,:#-]+',
            line,
        ), line
    for line in to_dot(graph).splitlines()[3:-1]:
        assert re.fullmatch(r'  \w+( -> \w+)?( \[(\w+=("(?:[^"\\]|\\.)*"|\w+)(, )?)+\])?;', line), line
    drawn = to_ascii(graph)
    assert drawn.isascii()
    assert all(c.isprintable() for line in drawn.split("\n") for c in line)
