"""`loop step`: exactly one transition per process, on any tracker, also after a kill."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.project import Project, wait_until

CHECKLIST_AGENT = """
n=$(sed -n 's/^title: write \\([a-z]*\\).*$/\\1/p' "$HEW_PROMPT_FILE" | head -1)
echo "$n" > "$n.txt"
"""

PLAN = """\
# Plan

Some words.\r
- [x] write zero
- [ ] write one   <- first
* [ ] write two
  with a note under it
- [X] write four
- [!] write five
- [ ] write more
  - [x] write six
"""


def steps(project: Project, *args: str, **env: str) -> tuple[int, dict[str, Any]]:
    done = project.loop("step", "--json", "--no-gate", *args, **env)
    assert done.out, done.err
    return done.code, done.json()


def test_a_checklist_is_worked_off_one_transition_at_a_time(tmp_path: Path) -> None:
    project = Project(tmp_path, files={"PLAN.md": PLAN})
    (tmp_path / "agent.sh").write_text(CHECKLIST_AGENT)
    seen: list[tuple[int, str, str, int]] = []
    for _ in range(5):
        code, said = steps(project, "--checklist", "PLAN.md")
        seen.append((code, said["mode"], said["result"], said["remaining"]))
    assert seen == [
        (0, "plan", "planned", 2),
        (0, "execute", "landed", 1),
        (0, "execute", "landed", 0),
        (0, "finish", "delivered", 0),
        (3, "none", "nothing to do", 0),
    ]
    marked = PLAN.replace("- [ ] write one", "- [x] write one").replace("* [ ] write two", "* [x] write two")
    assert (project.path / "PLAN.md").read_bytes() == marked.encode()
    assert {"one.txt", "two.txt"} <= project.landed_files()
    archive = next((project.path / ".hew" / "history").glob("PLAN-*.md")).read_bytes()
    counts, _, kept = archive.partition(b"\n\n")
    assert (b"2 done, 0 set aside, 0 left" in counts, kept) == (True, marked.encode())


def test_an_item_that_fails_cools_down_and_after_three_failures_is_set_aside(project: Project) -> None:
    bad = project.add("Always fails", "-p", "0", script="exit 1")
    good = project.add("Works", "-p", "1")
    cool = ("--cooldown", "0s")
    said = [steps(project, "--scope", "ready", *cool) for _ in range(6)]
    assert [(c, s["mode"], s["item"], s["result"]) for c, s in said] == [
        (0, "plan", None, "planned"),
        (1, "execute", bad, "failed: agent_failed"),
        (0, "execute", good, "landed"),  # the one that failed has lost its place
        (1, "execute", bad, "failed: agent_failed"),
        (1, "execute", bad, "parked"),
        (1, "finish", None, "delivered"),
    ]
    assert project.statuses()[bad] == "open"
    assert any("needs-human" in t.get("labels", ()) for t in project.tasks().values())


def test_what_cools_down_is_left_alone(project: Project) -> None:
    bad = project.add("Fails once", script="exit 1")
    assert steps(project, "--scope", "ready")[1]["mode"] == "plan"
    assert steps(project)[1]["result"] == "failed: agent_failed"
    code, said = steps(project)
    assert (code, said["mode"]) == (3, "none")
    assert said["result"].startswith(f"waiting: {bad} cools down until ")
    assert project.statuses() == {bad: "open"}


def test_a_cancel_between_two_steps_ends_the_run_at_the_next_one(project: Project) -> None:
    good = project.add("Works", "-p", "0")
    bad = project.add("Fails once", "-p", "1", script="exit 1")
    assert [steps(project, "--scope", "ready")[1]["item"] for _ in range(3)] == [None, good, bad]
    assert project.loop("status").out.startswith("suspended: 1 landed, 1 returned\n")

    (project.path / "PLAN.md").write_text(PLAN)
    other = project.loop("step", "--checklist", "PLAN.md")
    assert (other.code, "are not over, and work on" in other.err) == (2, True)

    assert "the next one ends it: loop step" in project.loop("cancel").err
    code, said = steps(project)
    assert (code, said["mode"], said["result"]) == (4, "finish", "delivered")
    assert f"{good}.txt" in project.landed_files()


def test_a_killed_step_loses_at_most_the_item_in_flight(project: Project) -> None:
    first = project.add("First", "-p", "0")
    second = project.add("Second", "-p", "1", script='touch "$PLACES/here"; sleep 60')
    steps(project, "--scope", "ready")
    assert steps(project)[1]["item"] == first
    process = project.spawn("step", "--no-gate")
    wait_until((project.places / "here").exists)
    process.kill()
    process.wait()
    if process.stdout:
        process.stdout.close()
    project.script(second, "echo done > second.txt")
    code, said = steps(project)
    assert (code, said["item"], said["result"]) == (0, second, "landed")
    assert steps(project)[1]["mode"] == "finish"
    assert {f"{first}.txt", "second.txt"} <= project.landed_files()
    assert project.statuses() == {first: "closed", second: "closed"}
