"""Graphs as mermaid, dot or plain ASCII. Several runs go into one document, their node ids kept apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

from hew_loop.reports import text
from hew_loop.reports.graph import EdgeKind, Graph, Node, Style

Format = Literal["mermaid", "dot", "ascii"]

_GREEN, _RED, _ORANGE, _GREY, _BLUE = "#d3f0d3", "#f6cfcf", "#fbe3c0", "#e6e6e6", "#d5e4f7"
_FILL: dict[Style, str] = {
    "landed": _GREEN, "passed": _GREEN, "delivered": _GREEN, "landing": _GREEN,
    "unchanged": "#eef7dd", "running": _BLUE, "waiting": _BLUE, "pending": _BLUE, "base": "#ffffff",
    "conflict": _ORANGE, "gate_failed": _ORANGE, "refused": _ORANGE, "blocked": _ORANGE, "not_tested": _ORANGE,
    "failed": _RED, "lost": _GREY, "cancelled": _GREY, "withdrawn": _GREY, "left": _GREY,
}  # fmt: skip
_DASHED: frozenset[Style] = frozenset(("running", "waiting", "pending", "cancelled", "lost", "left", "withdrawn"))
_ARROW: dict[EdgeKind, str] = {
    "graph": "-->", "agent": "-.->", "planner": "-.->", "retry": "==>", "lands": "-->", "then": "-->",
}  # fmt: skip
_LINE: dict[EdgeKind, str] = {"agent": "dashed", "planner": "dotted", "retry": "bold"}
_REASON: dict[EdgeKind, str] = {"graph": "graph order"}


def to_mermaid(*graphs: Graph) -> str:
    lines = ["flowchart TD"]
    for prefix, graph in _prefixed(graphs):
        body = [*_mermaid_nodes(graph, prefix), *_mermaid_edges(graph, prefix)]
        if prefix:
            body = [f'subgraph {prefix}run["{text.mermaid(graph.run_id)}"]', *(f"  {line}" for line in body), "end"]
        lines += [f"  {line}" for line in body]
    used = {node.style for graph in graphs for node in graph.nodes}
    for style, fill in _FILL.items():
        if style not in used:
            continue
        dashes = ",stroke-dasharray:4 3" if style in _DASHED else ""
        lines.append(f"  classDef {style} fill:{fill},stroke:#555555,color:#111111{dashes}")
    return "\n".join(lines) + "\n"


def to_dot(*graphs: Graph) -> str:
    lines = ["digraph loop {", "  rankdir=TB;", '  node [shape=box, style="filled", fontname="sans-serif"];']
    for prefix, graph in _prefixed(graphs):
        body = [*_dot_nodes(graph, prefix), *_dot_edges(graph, prefix)]
        if prefix:
            label = f'  label="{text.dot(graph.run_id)}";'
            body = [f"subgraph cluster_{prefix}run {{", label, *(f"  {line}" for line in body), "}"]
        lines += [f"  {line}" for line in body]
    return "\n".join([*lines, "}"]) + "\n"


def to_ascii(*graphs: Graph) -> str:
    """One line per node, with what it came from behind `<-`."""
    return "\n".join("\n".join(_ascii(graph)) for graph in graphs) + "\n"


RENDERERS: Mapping[Format, Callable[..., str]] = {"mermaid": to_mermaid, "dot": to_dot, "ascii": to_ascii}


def _prefixed(graphs: Sequence[Graph]) -> Iterator[tuple[str, Graph]]:
    """A run's nodes must not become another run's: with several, each gets its own prefix."""
    for i, graph in enumerate(graphs, 1):
        yield (f"r{i}_" if len(graphs) > 1 else ""), graph


def _mermaid_nodes(graph: Graph, prefix: str) -> Iterator[str]:
    shapes = {"base": ("([", "])"), "landing": ("[[", "]]"), "verify": ("{{", "}}"), "delivery": ("([", "])")}
    for node in graph.nodes:
        left, right = shapes.get(node.kind, ("[", "]"))
        label = "<br/>".join(text.mermaid(line) for line in _label(node))
        yield f'{prefix}{node.id}{left}"{label}"{right}:::{node.style}'


def _mermaid_edges(graph: Graph, prefix: str) -> Iterator[str]:
    for edge in graph.edges:
        reason = _reason(edge.kind, edge.note)
        label = f'|"{text.mermaid(reason)}"|' if reason else ""
        yield f"{prefix}{edge.source} {_ARROW[edge.kind]}{label} {prefix}{edge.target}"


def _dot_nodes(graph: Graph, prefix: str) -> Iterator[str]:
    for node in graph.nodes:
        label = "\\n".join(text.dot(line) for line in _label(node))
        style = "filled,dashed" if node.style in _DASHED else "filled"
        shape = "" if node.kind == "iteration" else f", shape={'hexagon' if node.kind == 'verify' else 'ellipse'}"
        yield f'{prefix}{node.id} [label="{label}", fillcolor="{_FILL[node.style]}", style="{style}"{shape}];'


def _dot_edges(graph: Graph, prefix: str) -> Iterator[str]:
    for edge in graph.edges:
        reason = _reason(edge.kind, edge.note)
        attributes = [f'label="{text.dot(reason)}"'] if reason else []
        if edge.kind in _LINE:
            attributes.append(f"style={_LINE[edge.kind]}")
        behind = f" [{', '.join(attributes)}]" if attributes else ""
        yield f"{prefix}{edge.source} -> {prefix}{edge.target}{behind};"


def _ascii(graph: Graph) -> Iterator[str]:
    yield f"run {text.ascii_only(graph.run_id)}"
    names = {node.id: node.name for node in graph.nodes}
    short = {n.id: " ".join(n.name.split()[:2]) if n.kind in ("iteration", "landing") else n.kind for n in graph.nodes}
    name_width = max(len(text.ascii_only(name)) for name in names.values())
    outcome_width = max(len(text.ascii_only(node.outcome)) for node in graph.nodes)
    came: dict[str, list[str]] = {}
    for edge in graph.edges:
        reason = _reason(edge.kind, edge.note)
        came.setdefault(edge.target, []).append(short[edge.source] + (f" ({reason})" if reason else ""))
    for node in graph.nodes:
        since = ", ".join(came.get(node.id, ()))
        name = text.ascii_only(node.name).ljust(name_width)
        line = f"  {name}  {text.ascii_only(node.outcome).ljust(outcome_width)}" + (f"  <- {since}" if since else "")
        yield line.rstrip()
        if node.details:
            yield f"      {text.ascii_only(' | '.join(node.details))}"


def _label(node: Node) -> tuple[str, ...]:
    return (node.name, node.outcome, *node.details)


def _reason(kind: EdgeKind, note: str) -> str:
    if kind in ("lands", "then"):
        return ""
    return ", ".join(part for part in (_REASON.get(kind, kind), note) if part)
