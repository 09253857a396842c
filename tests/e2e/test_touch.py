"""Tasks that will probably change the same files: not started together, told so, and shown in the summary."""

from __future__ import annotations

import json

from tests.support.project import Project


def test_two_tasks_of_the_same_file_are_not_started_together_while_another_one_could_be(project: Project) -> None:
    said = "--description", "Add a line to `shared.txt`."
    first = project.add("Begin the list", *said, script="echo one > shared.txt\n")
    # It names the file and, so that the end of the run does not depend on luck, changes another one.
    second = project.add("Go on with the list", *said, script="echo two > list.txt\n")
    other = project.add("Something else", script="echo other > other.txt\necho three > list.txt\n")
    later(project, second, minutes=1)
    later(project, other, minutes=2)
    done = project.run("--jobs", "2", "--no-gate", "--no-verify-tests", "--attempts", "9")

    assert done.code == 0, done.err
    claims = [e["action"] for e in project.events("claim")]
    assert [(c["task"], c["passed"], c["meets"]) for c in claims] == [
        (first, "", []),
        (other, second, ["shared.txt"]),
        (second, "", []),
    ]

    told = project.loop("explain", second).out
    assert f"It was passed over: {other} was started in its place at " in told
    assert "because others at work probably change shared.txt." in told
    assert project.loop("explain", other, "--json").json()["passed"][0]["passed"] == second

    summary = project.summary()
    assert {t["task"]: t["files"] for t in summary["tasks"]} == {
        first: ["shared.txt"],
        second: ["list.txt"],
        other: ["list.txt", "other.txt"],
    }
    assert summary["shared_files"] == {"list.txt": [other, second]}
    assert f"files touched by several tasks\n  list.txt: {other}, {second}\n" in project.loop("summary").out


def test_explain_finds_the_task_in_a_run_in_the_tracker_or_names_the_nearest(project: Project) -> None:
    done = project.add("Do it")
    assert project.loop("explain", done).out.splitlines()[1] == (
        "no run has seen it: never started: it is ready: the next run starts it"
    )
    assert project.run("--no-gate", "--no-verify-tests").code == 0
    more = project.add("Do more", "--dep", done)

    landed = project.loop("explain", done, "--run", "latest", "--json").json()
    assert (landed["state"], landed["delivered"], landed["iterations"][0]["files"]) == ("landed", True, [f"{done}.txt"])
    assert project.loop("explain", done).out.splitlines()[1].startswith(f"in {landed['run_id']}: landed as ")
    assert project.loop("explain", more, "--json").json()["depends_on"] == [
        {"task": done, "title": "Do it", "state": "closed"}
    ]
    for asked in (("explain", f"{more}x"), ("explain", more, "--run", "latest")):
        unknown = project.loop(*asked)
        assert (unknown.code, unknown.out) == (2, "")
        assert unknown.err.startswith("loop: there is no task ")
    assert f"nearest: {more}" in project.loop("explain", f"{more}x").err


def later(project: Project, task: str, *, minutes: int) -> None:
    """Tasks of the same second are ordered by their ids; this one comes behind them."""
    store = project.path / ".beads" / "issues.jsonl"
    issues = [json.loads(line) for line in store.read_text().splitlines()]
    for issue in issues:
        if issue["id"] == task:
            issue["created_at"] = f"2099-01-01T00:{minutes:02}:00Z"
    store.write_text("".join(json.dumps(issue) + "\n" for issue in issues))
