"""How the edges of one issue in bd become those of the embedded store: removed, imported, or created with a gate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hew_loop.core.graph import WAITS_FOR
from hew_loop.trackers.beads_format import Issue
from hew_loop.trackers.beads_import import edge_data

_ANY = "any-children"


@dataclass(frozen=True, slots=True)
class EdgePlan:
    """`removed` are targets, each once. `gates` are targets of edges that only `bd create` can make, with the gate."""

    removed: tuple[str, ...] = ()
    imported: tuple[Issue, ...] = ()
    gates: tuple[tuple[str, str], ...] = ()
    lost: tuple[str, ...] = ()

    @property
    def can_be_sent(self) -> bool:
        return bool(self.removed or self.imported or self.gates)


def plan_edges(present: Sequence[Issue], wanted: Sequence[Issue], *, old_era: bool) -> EdgePlan:
    """`dep remove` takes out every edge to a target, and an import adds only what is missing: so what changes in
    place is removed, and then imported."""
    have = _by_target(present, every_kind=old_era)
    want = _by_target(wanted, every_kind=old_era)
    removed: list[str] = []
    imported: list[Issue] = []
    gates: list[tuple[str, str]] = []
    lost: list[str] = []
    for target in sorted(have.keys() | want.keys()):
        old, new = have.get(target, {}), want.get(target, {})
        is_same = old.keys() == new.keys()
        needs = [kind for kind in new if kind in old and edge_data(old[kind]) != edge_data(new[kind])]
        if not old_era:
            needs = [kind for kind in needs if kind == WAITS_FOR]
            lost += [
                "the metadata of an edge is not kept"
                for kind, edge in new.items()
                if kind != WAITS_FOR and edge_data(edge) != edge_data(old.get(kind, {}))
            ]
        if is_same and not needs:
            continue
        if old and (old.keys() - new.keys() or needs):
            removed.append(target)
            old = {}
        for kind, edge in new.items():
            if kind in old:
                continue
            if not old_era and kind == WAITS_FOR and edge_data(edge).get("gate") == _ANY:
                gates.append((target, _ANY))
            else:
                imported.append(edge)
    return EdgePlan(tuple(removed), tuple(imported), tuple(gates), tuple(dict.fromkeys(lost)))


def _by_target(edges: Sequence[Issue], *, every_kind: bool) -> dict[str, dict[str, Issue]]:
    """0.49 keeps an edge of each kind for a pair, 1.x one, the first."""
    found: dict[str, dict[str, Issue]] = {}
    for edge in edges:
        kinds = found.setdefault(str(edge.get("depends_on_id")), {})
        if every_kind or not kinds:
            kinds.setdefault(str(edge.get("type") or "blocks"), edge)
    return found
