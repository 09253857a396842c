"""What lands, what goes back, and how often the gate runs for it: read from git and the journal."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.project import Project

MEET = """
# Wait until all agents of the first wave are here, so that they finish together behind one slow gate.
touch "$PLACES/$HEW_TASK_ID.here"
while [ "$(ls "$PLACES" | grep -c here)" -lt "$(cat "$PLACES/expected")" ]; do sleep 0.02; done
"""

GATE = """
# Slow for the base and the first candidate only; red where a file named bad* is in the tree.
[ -f "$PLACES/slow" ] && { rm "$PLACES/slow"; while [ ! -f "$PLACES/all-done" ]; do sleep 0.02; done; }
echo run >> "$PLACES/gates"
ls bad* >/dev/null 2>&1 && { echo "BAD FILE FOUND: $(ls bad*)"; exit 1; }
exit 0
"""


def crowd(top: Path, bad: set[int], *, count: int = 8) -> tuple[Project, list[str]]:
    """`count` tasks; one more ("opener") lands first through a slow gate, behind which the others pile up."""
    project = Project(top)
    (top / "gate.sh").write_text(GATE)
    tasks = [project.add(f"Task {n}", "-p", "2") for n in range(count)]
    opener = project.add("Opener", "-p", "0", script="echo 1 > opener.txt\n")
    for n, task in enumerate(tasks):
        name = f"bad{n}" if n in bad else f"good{n}"
        # Each waits until the opener's gate runs; the last one to finish lets that gate go on.
        project.script(
            task,
            f"echo {n} > {name}.txt\n"
            'while [ ! -f "$PLACES/gating" ]; do sleep 0.02; done\n'
            'touch "$PLACES/$HEW_TASK_ID.done"\n',
        )
    (project.places / "opener").write_text(opener)
    return project, tasks


def run_crowd(top: Path, bad: set[int], *, count: int = 8) -> tuple[Project, list[str], int]:
    """Run the crowd; returns how many gate runs judged what piled up."""
    project, tasks = crowd(top, bad, count=count)
    gate = (
        f'if [ -f opener.txt ] && [ ! -f "$PLACES/gating" ]; then touch "$PLACES/gating"; '
        f'while [ "$(ls "$PLACES" | grep -c done$)" -lt {count} ]; do sleep 0.02; done; sleep 1; fi; '
        f"sh {top / 'gate.sh'}"
    )
    project.run("--jobs", str(count + 1), "--attempts", "1", "--gate", gate, "--no-verify-tests")
    gates = [e for e in project.events("run_gate") if len(e["action"]["entries"]) and e["action"]["entries"] != [1]]
    first = project.events("start_iteration")[0]["action"]["spec"]["task"]
    assert first == (project.places / "opener").read_text()
    return project, tasks, len([g for g in gates if g["action"]["purpose"] in ("prefix", "confirm")])


def test_eight_green_entries_take_one_gate_run(tmp_path: Path) -> None:
    project, tasks, gates = run_crowd(tmp_path, set())
    assert gates == 1
    assert {f"good{n}.txt" for n in range(8)} <= project.landed_files()
    assert {project.statuses()[t] for t in tasks} == {"closed"}


@pytest.mark.slow
def test_one_culprit_among_eight_is_found_by_halving(tmp_path: Path) -> None:
    project, tasks, gates = run_crowd(tmp_path, {5})
    assert gates <= 1 + 2 * 3 + 1
    assert {f"good{n}.txt" for n in range(8) if n != 5} <= project.landed_files()
    assert "bad5.txt" not in project.landed_files()
    statuses = project.statuses()
    assert [statuses[t] for t in tasks] == ["closed"] * 5 + ["open"] + ["closed"] * 2
    bug = next(t for t in project.tasks().values() if t["issue_type"] == "bug")
    assert bug["title"].startswith(f"[gate-failed] {tasks[5]}")
    assert "needs-human" in bug["labels"]
    assert tasks[5] not in [t["id"] for t in project.loop("task", "ready", "--json").json()]


@pytest.mark.slow
def test_two_culprits_are_both_named_and_six_land(tmp_path: Path) -> None:
    project, tasks, _ = run_crowd(tmp_path, {1, 6})
    assert {f for f in project.landed_files() if f.startswith(("good", "bad"))} == {
        f"good{n}.txt" for n in (0, 2, 3, 4, 5, 7)
    }
    parked = {t["task"] for t in project.summary()["tasks"] if t["state"] == "parked"}
    assert parked == {tasks[1], tasks[6]}


def test_a_red_gate_goes_into_the_next_prompt_and_the_second_attempt_lands(project: Project) -> None:
    task = project.add("Mend it")
    project.script(task, "echo x > bad.txt\n", attempt=1)
    project.script(task, 'grep -q "NO BAD FILE" "$HEW_PROMPT_FILE" && rm bad.txt && echo y > good.txt\n', attempt=2)
    done = project.run("--gate", "if test -f bad.txt; then echo NO BAD FILE; exit 1; fi")
    assert done.code == 0, done.err
    assert [(i["attempt"], i["fate"]) for i in project.iterations()] == [(1, "gate_failed"), (2, "landed")]
    assert "good.txt" in project.landed_files()
    assert "bad.txt" not in project.landed_files()
    assert project.git("branch", "--list", "loop/*") == ""


def test_a_conflict_goes_back_with_the_merge_in_progress_and_the_resolution_lands(project: Project) -> None:
    (project.places / "expected").write_text("2")
    one = project.add("One", script=MEET + "echo one > shared.txt\n")
    two = project.add("Two", script=MEET + "echo two > shared.txt\n")
    for task in (one, two):
        project.script(
            task,
            'grep -q shared.txt "$HEW_PROMPT_FILE" || exit 9\ngrep -q "<<<<<<<" shared.txt || exit 8\n'
            "printf 'one\\ntwo\\n' > shared.txt\n",  # markers gone, but not added: that is what agents do
            attempt=2,
        )
    done = project.run("--jobs", "2", "--no-gate")
    assert (done.code, project.statuses()) == (0, {one: "closed", two: "closed"}), done.err
    assert project.git("show", "HEAD:shared.txt") == "one\ntwo"
    assert sorted((i["attempt"], i["fate"]) for i in project.iterations()) == [
        (1, "conflict"),
        (1, "landed"),
        (2, "landed"),
    ]


def test_a_red_base_is_refused_before_anything_is_claimed(project: Project) -> None:
    task = project.add("Never started")
    red = project.run("--gate", "exit 3")
    missing = project.run("--gate", "no-such-program-here")
    assert (red.code, missing.code, project.statuses()) == (1, 69, {task: "open"})
    assert "exit 3" in red.out
    assert "no-such-program-here" in missing.out
    assert project.events("claim") == []


def test_what_collects_nothing_lands_as_not_tested_only_where_the_base_did(tmp_path: Path) -> None:
    nothing = "if ls test_* >/dev/null 2>&1; then exit 0; else echo 'no tests ran in 0.01s'; exit 5; fi"
    untested = Project(tmp_path / "untested")
    untested.add("Lands untested")
    assert untested.run("--gate", nothing, "--no-verify-tests").code == 0
    assert [i["gate_verdict"] for i in untested.iterations()] == ["not_tested"]
    tested = Project(tmp_path / "tested", files={"test_a.py": ""})
    task = tested.add("Deletes the tests", script="git rm -q test_a.py\n")
    assert tested.run("--gate", nothing, "--attempts", "1").code == 1
    assert tested.statuses()[task] == "open"
    assert "test_a.py" in tested.landed_files()
