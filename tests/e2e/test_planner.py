"""A planner suggests what to start next when the agents said nothing; it can neither starve the run nor end it."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

from tests.support.project import Project, marked_processes, wait_until

BLOCK = 'printf \'\\140\\140\\140next_iteration\\n%s\\n\\140\\140\\140\\n\' "$(cat "$PLACES/advice")"\n'


def planned(project: Project, script: str, *, config: str = "") -> None:
    """`script` is the planner of the project; its prompts are appended to `$PLACES/asked`."""
    program = project.path.parent / "planner.sh"
    program.write_text(f'cat "$HEW_PROMPT_FILE" >> "$PLACES/asked"; echo >> "$PLACES/asked"\n{script}')
    project.config(f'planner.runtime = "plan"\n{config}\n[runtime.plan]\ncommand = ["sh", "{program}"]\n')


def asked(project: Project) -> list[dict[str, Any]]:
    """The JSON document of each prompt."""
    lines = (project.places / "asked").read_text().splitlines()
    return [json.loads(line) for line in lines if line.startswith('{"free_slots"')]


def starts(project: Project) -> list[tuple[str, str]]:
    return [(e["action"]["spec"]["task"], e["action"]["why"]) for e in project.events("start_iteration")]


def batches(project: Project) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(project.folder().glob("batch-*.json"))]


def test_a_planner_is_told_what_is_startable_and_decides_the_order(project: Project) -> None:
    planned(project, BLOCK)
    first, second, third = (project.add(f"Task {n}", "-p", str(n), "-d", f"About `{n}`.") for n in range(3))
    fourth = project.add("Task 3 ```end", "-p", "3", "-d", "It changes src/a.py.")
    blocked = project.add("Blocked", "-p", "0", "--dep", fourth)
    advice = json.dumps(["unknown-1", blocked, first, fourth])
    (project.places / "advice").write_text(advice)
    done = project.run()
    assert done.code == 0, done.err
    assert starts(project)[:2] == [(first, "graph"), (fourth, "planner")]
    assert (blocked, "planner") in starts(project), "it stays in force until it is startable"
    assert {t for t, _ in starts(project)} == {first, second, third, fourth, blocked}
    question = asked(project)[0]
    assert question["free_slots"] == 1
    assert [(t["id"], t["priority"], t["type"], t["description"]) for t in question["startable"]] == [
        (second, 1, "task", "About `1`."),
        (third, 2, "task", "About `2`."),
        (fourth, 3, "task", "It changes src/a.py."),
    ]
    assert question["startable"][2]["files"] == ["src/a.py"]
    assert [(r["id"], r["files"]) for r in question["recent"]] == [(first, [f"{first}.txt"])]
    assert (project.places / "asked").read_text().count("```") == 2 * len(asked(project)), "no title ends a fence"
    plan, *_ = batches(project)
    assert (plan["source"], plan["task_ids"], plan["iter_number"]) == ("planner", [blocked, first, fourth], 1)
    assert project.events("batch_planned")[0]["dropped"] == ["unknown-1"]
    assert project.summary()["planner"]["planner"] >= 1


def test_a_planner_that_never_answers_is_waited_for_once_and_given_up(project: Project) -> None:
    planned(project, "exec sleep 300", config="planner.wait_s = 0.2\nplanner.timeout = '0.5s'")
    tasks = [project.add(f"Task {n}", "-p", str(min(n, 4))) for n in range(9)]
    slow = "sleep 0.4\n"
    for task in tasks:
        project.script(task, slow + f"echo x > {task}.txt\n")
    done = project.run()
    assert done.code == 0, done.err
    assert [t for t, _ in starts(project)][:4] == tasks[:4]
    assert {t for t, _ in starts(project)} == set(tasks)
    reasons = [b["reason"] for b in batches(project)]
    assert [r.partition(" ")[0] for r in reasons[:3]] == ["runtime_error:"] * 3
    assert all("timed_out" in r for r in reasons[:3])
    assert set(reasons[3:]) == {"planner_disabled: it failed 3 times in a row"}
    assert len(asked(project)) == 3


def test_a_prompt_above_the_budget_is_not_sent(project: Project) -> None:
    planned(project, BLOCK)
    for n in range(4):
        project.add(f"Task {n}")
    done = project.run("--planner-budget", "100")
    assert done.code == 0, done.err
    reason = batches(project)[0]["reason"]
    assert reason.startswith("budget_exceeded: estimated ")
    assert reason.endswith(" tokens > budget 100")
    assert not (project.places / "asked").exists()


def test_a_planner_that_talks_at_random_or_is_not_there_only_skips(tmp_path: Path) -> None:
    talker, missing, none = (Project(tmp_path / name) for name in ("talker", "missing", "none"))
    planned(talker, "echo 'I would take the first one.'")
    missing.config('planner.runtime = "codex"\n')
    planned(none, BLOCK)
    for project in (talker, missing, none):
        for n in range(3):
            project.add(f"Task {n}")
    assert talker.run().code == 0
    assert batches(talker)[0]["reason"] == "parse_error: planner response missing next_iteration block"
    assert missing.run("--budget-tokens", "200000", HEW_LOOP_CODEX_BIN="no-such-program").code == 0
    assert missing.summary()["tokens"]["unknown_iterations"] == 3, "those of its agents"
    assert batches(missing)[0]["reason"].startswith("runtime_error: spawn_error")
    assert none.run("--no-planner").code == 0
    assert {b["reason"] for b in batches(none)} == {"planner_disabled"}
    assert not (none.places / "asked").exists()


def test_a_planner_that_outlives_its_loop_is_ended_by_the_resume_and_what_it_used_is_unknown(project: Project) -> None:
    planned(project, 'touch "$PLACES/on"\nexec sleep 300')
    for n in range(3):
        project.add(f"Task {n}")
    run = project.spawn("run", "--scope", "ready")
    wait_until((project.places / "on").exists)
    name = project.folder().name
    mark = f"HEW_MARK={name}:planner-1"
    guards = set(marked_processes(f"HEW_GUARD={name}")) - set(marked_processes("HEW_MARK="))
    for pid in (*guards, run.pid):
        os.kill(pid, signal.SIGKILL)
    run.communicate()
    assert marked_processes(mark), "nobody was left to end it"
    (project.path.parent / "planner.sh").write_text("echo no advice\n")
    assert project.loop("resume").code == 0
    assert not marked_processes(mark)
    assert batches(project)[0]["reason"] == "runtime_error: lost: the loop died while it ran"
    asked_in_all = [b for b in batches(project) if b["reason"].startswith(("runtime_error", "parse_error"))]
    assert project.summary()["tokens"]["unknown_iterations"] == 3 + len(asked_in_all)
