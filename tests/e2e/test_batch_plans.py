"""What an agent suggests decides what starts next, and can hold nothing back (P8)."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.project import Project

WRITE = 'echo "$HEW_TASK_ID" > "$HEW_TASK_ID.txt"\n'


def say(ids: list[str], *, form: str = "loop_result") -> str:
    """A script that does its work and suggests `ids` in one of the three forms."""
    if form == "loop_result":
        block = "```loop_result\n" + json.dumps({"status": "done", "summary": "s", "next_iteration": ids}) + "\n```"
    elif form == "fence":
        block = "```next_iteration\n" + json.dumps(ids) + "\n```"
    else:
        block = f"<next_iteration>{','.join(ids)}</next_iteration>"
    return WRITE + f"cat <<'SAID'\n{block}\nSAID\n"


def backlog(top: Path, *, form: str | None) -> tuple[Project, list[str]]:
    """Four tasks in graph order; the first one's agent suggests the last one, if it suggests at all."""
    project = Project(top)
    tasks = [project.add(f"Task {n}", "-p", str(n)) for n in range(4)]
    if form:
        project.script(tasks[0], say(["unknown-1", tasks[3], tasks[0]], form=form))
    return project, tasks


def starts(project: Project) -> list[tuple[str, str]]:
    return [(e["action"]["spec"]["task"], e["action"]["why"]) for e in project.events("start_iteration")]


def test_a_suggestion_changes_the_order_of_starts(tmp_path: Path) -> None:
    silent, s = backlog(tmp_path / "silent", form=None)
    spoken, t = backlog(tmp_path / "spoken", form="loop_result")
    assert (silent.run().code, spoken.run().code) == (0, 0)
    assert starts(silent) == [(s[0], "graph"), (s[1], "graph"), (s[2], "graph"), (s[3], "graph")]
    assert starts(spoken) == [(t[0], "graph"), (t[3], "agent"), (t[1], "graph"), (t[2], "graph")]
    batch = json.loads((spoken.folder() / "batch-001.json").read_text())
    assert {k: batch[k] for k in ("schema_version", "iter_number", "task_ids", "source")} == {
        "schema_version": 1,
        "iter_number": 1,
        "task_ids": [t[3], t[0]],
        "source": "agent",
    }
    assert spoken.events("batch_planned")[0]["dropped"] == ["unknown-1"]
    skipped = json.loads((silent.folder() / "batch-001.json").read_text())
    assert (skipped["source"], skipped["reason"], skipped["task_ids"]) == ("skipped", "planner_disabled", [])


def test_hews_two_forms_are_understood_as_well(tmp_path: Path) -> None:
    for form in ("fence", "tag"):
        project, tasks = backlog(tmp_path / form, form=form)
        assert project.run().code == 0
        assert starts(project)[1] == (tasks[3], "agent")


def test_an_empty_suggestion_replaces_nothing_and_a_blocked_id_stays(project: Project) -> None:
    first = project.add("First", "-p", "0")
    second = project.add("Second", "-p", "1")
    other = project.add("Other", "-p", "1")
    blocked = project.add("Blocked", "-p", "4", "--dep", second)
    # `blocked` is not startable: it holds nothing back, stays in force, and is preferred once it is free.
    project.script(first, say([blocked]))
    project.script(second, say([]))
    last = project.add("Last", "-p", "3")
    assert project.run().code == 0
    order = starts(project)
    assert order[0] == (first, "graph")
    assert (blocked, "agent") in order
    assert {t for t, _ in order} == {first, second, other, blocked, last}
    assert [b["source"] for b in project.events("batch_planned")].count("agent") == 2
