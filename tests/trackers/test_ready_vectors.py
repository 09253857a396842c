"""The conformance vectors through `loop task ready --json`: what bd 1.0.5 answers to the same graphs and options."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from hew_loop.commands.task import task
from tests.trackers.beads_files import edge, issue, with_times, write

VECTORS = [
    json.loads(line) for line in (Path(__file__).parents[1] / "data" / "ready-vectors.jsonl").read_text().splitlines()
]


def answer(monkeypatch: pytest.MonkeyPatch, directory: Path, issues: list[dict[str, Any]], *args: str) -> list[str]:
    write(directory, issues)
    monkeypatch.setenv("BEADS_DIR", str(directory))
    done = CliRunner().invoke(task, ["ready", "--json", *args], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return [each["id"] for each in json.loads(done.stdout)]


@pytest.mark.parametrize("vector", VECTORS, ids=[f"{v['n']}-{v['name']}" for v in VECTORS])
def test_a_vector_is_answered_as_bd_1_0_5_does(
    vector: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    issues = json.loads(with_times(json.dumps(vector["issues"]), datetime.now(UTC)))
    expected = vector.get("embedded", vector["expect"]["1.0.5"])
    assert answer(monkeypatch, tmp_path, issues, "--limit", "0", *vector["args"]) == expected


def at(minute: int, name: str, *edges: tuple[str, str], **members: Any) -> dict[str, Any]:
    """An issue `tt-NAME` created in that minute of 2026, with edges as (kind, target)."""
    when = f"2026-01-01T00:{minute:02d}:00Z"
    task_id = f"tt-{name}"
    made = [edge(task_id, f"tt-{target}", kind, created_at=when) for kind, target in edges]
    return issue(task_id, created_at=when, updated_at=when, **({"dependencies": made} if made else {}), **members)


UP = "parent-child"
CLOSED = {"status": "closed", "closed_at": "2026-01-01T00:30:00Z"}
LATER = {"defer_until": "2099-01-01T00:00:00Z"}


def gate(name: str, target: str, kind: str) -> dict[str, Any]:
    made = edge(f"tt-{name}", f"tt-{target}", "waits-for", metadata=json.dumps({"gate": kind}))
    return issue(f"tt-{name}", created_at="2026-01-01T00:09:00Z", dependencies=[made])


# Graphs of beads.md §2.3 that the file does not hold, and some that its rules decide.
FURTHER: dict[str, tuple[list[dict[str, Any]], list[str], str]] = {
    "2 priorities": ([at(1, "p3", priority=3), at(2, "p0", priority=0), at(3, "p1", priority=1)], [], "p0 p1 p3"),
    "4 same second": ([at(1, "cc"), at(1, "aa"), at(1, "bb")], [], "aa bb cc"),
    "14 diamond": (
        [at(1, "a", **CLOSED), at(2, "b", ("blocks", "a")), at(3, "c", ("blocks", "a")),
         at(4, "d", ("blocks", "b"), ("blocks", "c"))], [], "c b",
    ),
    "20 grandchild": ([at(1, "x"), at(2, "e", ("blocks", "x")), at(3, "s", (UP, "e")), at(4, "c", (UP, "s"))], [], "x"),
    "26 deferred grandparent": ([at(1, "e", **LATER), at(2, "s", (UP, "e")), at(3, "c", (UP, "s"))], [], "c"),
    "28 include deferred": ([at(1, "a", **LATER), at(2, "c")], ["--include-deferred", "--sort", "oldest"], "a c"),
    "30 past date, status deferred": (
        [at(1, "a", status="deferred", defer_until="2026-01-01T00:00:00Z"), at(2, "c")], [], "c",
    ),
    "36 template": ([at(1, "a", is_template=True), at(2, "b")], ["--sort", "oldest"], "a b"),
    "38 type gate": ([at(1, "g", issue_type="gate"), at(2, "t")], ["--type", "gate"], "g"),
    "42 conditional, failed": (
        [at(1, "a", **CLOSED, close_reason="Failed: x"), at(2, "b", ("conditional-blocks", "a"))], [], "b",
    ),
    "44 one child closed": (
        [at(1, "s", **CLOSED), at(2, "c1", (UP, "s"), **CLOSED), at(3, "c2", (UP, "s")),
         gate("w", "s", "all-children")],
        [], "c2",
    ),
    "46 any child closed": (
        [at(1, "s", **CLOSED), at(2, "c1", (UP, "s"), **CLOSED), at(3, "c2", (UP, "s"), status="in_progress"),
         gate("w", "s", "any-children")],
        [], "w",
    ),
    "48 any child, no child": ([at(1, "s", **CLOSED), gate("w", "s", "any-children")], [], "w"),
    "52 unassigned": ([at(1, "a", assignee="bob"), at(2, "b")], ["--unassigned"], "b"),
    "54 both": ([at(1, "a", assignee="bob"), at(2, "b")], ["--unassigned", "--assignee", "bob"], "b"),
    "56 label-any": (
        [at(1, "a", labels=["x"]), at(2, "b", labels=["y"]), at(3, "c")],
        ["--label-any", "x", "--label-any", "y", "--sort", "oldest"], "a b",
    ),
    "labels by comma": (
        [at(1, "a", labels=["x", "y"]), at(2, "b", labels=["x"])], ["--label", "x,y"], "a",
    ),
    "58 priority 0": ([at(1, "a", priority=0), at(2, "b", priority=1)], ["--priority", "0"], "a"),
    "60 parent": (
        [at(1, "e"), at(2, "s", (UP, "e")), at(3, "c", (UP, "s")), at(4, "z")],
        ["--parent", "tt-e", "--sort", "oldest"], "s c",
    ),
    "62 dotted id alone": ([at(1, "x"), at(2, "e1", ("blocks", "x")), at(3, "e1.1")], ["--sort", "oldest"], "x e1.1"),
    "dotted id with another parent": (
        [at(1, "e1"), at(2, "e2"), at(3, "e1.1", (UP, "e2")), at(4, "e1.2.1")],
        ["--parent", "tt-e1", "--sort", "oldest"], "e1.2.1",
    ),
    "parent that is not there": ([at(1, "a")], ["--parent", "tt-gone"], ""),
    "64 external": ([issue("tt-b", dependencies=[edge("tt-b", "external:proj:cap")])], [], "b"),
    "66 default order": (
        [at(1, "b", priority=1), at(2, "c", priority=0), at(3, "a", priority=1), at(4, "d", priority=4)], [], "c a b d",
    ),
    "74 parent waits for a gate": (
        [at(1, "s", **CLOSED), at(2, "k", (UP, "s"), status="in_progress"), gate("w", "s", ""), at(4, "c", (UP, "w"))],
        [], "",
    ),
    "exclude types by comma": (
        [at(1, "a"), at(2, "b", issue_type="bug"), at(3, "f", issue_type="feature")],
        ["--exclude-type", "bug,feat"], "a",
    ),
    "absent priority is 0, absent status is open": (
        [at(1, "a", priority=1), {"id": "tt-b", "title": "b", "created_at": "2026-01-01T00:00:00Z"}], [], "b a",
    ),
    "ring of three: the edge that comes last in the file does not count": (
        [at(3, "a", ("blocks", "c")), at(1, "b", ("blocks", "a")), at(2, "c", ("blocks", "b"))], [], "c",
    ),
    "ring of three and one behind it": (
        [at(1, "d", ("blocks", "b")), at(4, "a", ("blocks", "b")), at(3, "b", ("conditional-blocks", "c")),
         at(2, "c", ("blocks", "a"))],
        [], "c",
    ),
    "no edge between a wisp and another issue counts": (
        [at(1, "x"), at(2, "w", ("blocks", "x"), ephemeral=True), at(3, "a", ("blocks", "w")),
         at(4, "b", (UP, "w")), at(5, "h", no_history=True), at(6, "c", ("blocks", "h"))],
        ["--include-ephemeral", "--sort", "oldest"], "x w a b h c",
    ),
    "edges among wisps count": (
        [at(1, "v", ephemeral=True), at(2, "w", ("blocks", "v"), ephemeral=True),
         at(3, "h", ("blocks", "v"), no_history=True), at(4, "t")],
        ["--include-ephemeral"], "t v",
    ),
    "one edge for a pair, the first": (
        [at(1, "a"), at(2, "b", ("related", "a"), ("blocks", "a"))], ["--sort", "oldest"], "a b",
    ),
    "an edge to itself does not count": ([at(1, "a", ("blocks", "a"))], [], "a"),
    "times within one second tie": (
        [issue("tt-b", created_at="2026-01-01T00:00:00.9Z"), issue("tt-a", created_at="2026-01-01T00:00:01.2Z")],
        ["--sort", "oldest"], "a b",
    ),
    "offsets are read": (
        [issue("tt-a", created_at="2026-01-01T01:00:00+02:00"), issue("tt-b", created_at="2026-01-01T00:00:00Z")],
        ["--sort", "oldest"], "a b",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FURTHER)
def test_a_further_graph_is_answered_by_the_rule(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    issues, args, expected = FURTHER[name]
    assert answer(monkeypatch, tmp_path, issues, *args) == [f"tt-{each}" for each in expected.split()]
