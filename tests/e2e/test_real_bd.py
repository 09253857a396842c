"""Whole runs on a backlog of the real bd on PATH, of whatever version."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support import killed_loop
from tests.support.project import Project

pytestmark = pytest.mark.real_bd

SAY = "printf '```loop_result\\n%s\\n```\\n'"
GATE = '[loop.gate]\ncommands = ["test ! -f bad.txt"]'


class BdProject(Project):
    """The backlog is bd's, and its files are committed, as bd would have it."""

    def __init__(self, top: Path, program: str, *, config: str = "") -> None:
        super().__init__(top, config=config)
        self.program = program
        self.version = str(json.loads(self.bd("version", "--json"))["version"]).removeprefix("v")
        flags = () if self.version.startswith("0.") else ("--non-interactive", "--skip-agents")
        self.bd("init", "--prefix", "tt", "--quiet", "--skip-hooks", *flags)
        self.git("add", "-A")
        self.git("commit", "-qm", "Plan with bd", "--allow-empty")  # 1.x commits by itself

    def env(self, **more: str) -> dict[str, str]:
        quiet = {"BEADS_NO_DAEMON": "1", "BD_NON_INTERACTIVE": "1", "BD_DISABLE_METRICS": "1"}
        return {**super().env(), **quiet, **more}

    def bd(self, *words: str) -> str:
        """What a person does, or looks at."""
        done = subprocess.run(
            [self.program, *words],
            cwd=self.path,
            env=self.env(BD_ACTOR="ann", BEADS_ACTOR="ann"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def add(self, title: str, *args: str, script: str | None = None) -> str:
        task = str(json.loads(self.bd("create", title, "--json", "-d", title, *args))["id"])
        if script is not None:
            self.script(task, script)
        return task

    def tasks(self) -> dict[str, dict[str, Any]]:
        return {t["id"]: t for t in json.loads(self.bd("list", "--all", "--limit", "0", "--json"))}

    def bugs(self, about: str) -> list[dict[str, Any]]:
        """Open tasks that the loop filed because of this one."""
        return [t for t in self.tasks().values() if t.get("external_ref", "").rpartition("/")[2].startswith(about)]

    def dirty(self) -> list[str]:
        """What git sees changed apart from bd's own files."""
        lines = self.git("status", "--porcelain").splitlines()
        return [line for line in lines if not line[2:].strip().startswith(".beads/")]

    def blocks(self, task: str) -> list[str]:
        return [edge["depends_on_id"] for edge in self.tasks()[task].get("dependencies") or ()]


@pytest.fixture
def program() -> str:
    found = shutil.which("bd")
    if found is None:
        pytest.skip("there is no bd on PATH")
    return found


def calls(project: BdProject) -> Sequence[str]:
    """The words of each bd call that `loop` made, by a bd that writes them down."""
    return (project.places / "calls").read_text().splitlines()


def counting(project: BdProject) -> str:
    """A PATH with a bd in front that writes down each call before it hands it on."""
    folder = project.places / "bin"
    folder.mkdir()
    script = folder / "bd"
    script.write_text(f'#!/bin/sh\necho "$*" | head -1 >> "$PLACES/calls"\nexec "{project.program}" "$@"\n')
    script.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def test_a_run_on_bd_lands_retries_resolves_and_parks(tmp_path: Path, program: str) -> None:
    project = BdProject(tmp_path, program, config=GATE)
    closes = 'bd --json close "$HEW_TASK_ID" --reason "I am done" > /dev/null; echo 1 > first.txt'
    first = project.add("First", "-p", "1", script=closes)
    dependant = project.add("Dependant", script="cp first.txt dependant.txt")
    project.bd("dep", "add", dependant, first)
    one = project.add("One of two", script="echo one > same.txt")
    two = project.add("Two of two", script="echo two > same.txt")
    red = project.add("Red at first", script="touch bad.txt; echo 3 > red.txt")
    project.script(red, "rm -f bad.txt", attempt=2)
    never = project.add("Never", script="echo $HEW_ATTEMPT >> bad.txt")
    blocked = project.add("Blocked", script=f'{SAY} \'{{"status": "blocked", "summary": "no key"}}\'')
    nothing = project.add("Nothing", script=f'{SAY} \'{{"status": "no_change", "summary": "it was there"}}\'')
    epic = project.add("Epic", "-t", "epic")
    child = project.add("Child", "--parent", epic)
    theirs = project.add("Somebody else's", "-a", "bob")
    later = project.add("Later")
    project.bd("update", later, "--status", "deferred")

    done = project.run("--jobs", "3", "--attempts", "2", PATH=counting(project))

    assert done.code == 1, done.err + done.out
    statuses = project.statuses()
    ended = (first, dependant, one, two, red, nothing, child)
    assert {t: statuses[t] for t in ended} == dict.fromkeys(ended, "closed"), f"on bd {project.version}"
    assert {statuses[t] for t in (never, blocked, epic, theirs)} == {"open"}
    assert statuses[later] == "deferred"
    claims = {t: v["assignee"] for t, v in project.tasks().items() if v.get("assignee")}
    assert claims == {theirs: "bob"}
    for parked, label in ((never, "gate-failed"), (blocked, "blocked")):
        (bug,) = project.bugs(parked)
        assert set(bug["labels"]) >= {"needs-human", label}
        assert project.blocks(parked) == [bug["id"]]
    assert project.landed_files("main") >= {"first.txt", "dependant.txt", "same.txt", "red.txt"}
    assert "bad.txt" not in project.landed_files("main")
    assert (project.path / "dependant.txt").read_text() == "1\n"
    assert project.dirty() == []
    lists = sum(" list " in f" {line} " for line in calls(project))
    asked_for = project.events("view_read", "chain_built", "bug_filed")
    assert lists <= len(asked_for) + 1, "one call for all tasks, whatever their number and that of the slots"


def test_a_run_that_died_on_bd_is_settled_by_the_next(tmp_path: Path, program: str) -> None:
    project = BdProject(tmp_path, program)
    first, second = project.add("First"), project.add("Second")
    killed = subprocess.run(
        [sys.executable, killed_loop.__file__, "torn", "claimed", "run", "--scope", "ready", "--jobs", "2"],
        cwd=project.path,
        env=project.env(PYTHONPATH=str(Path(killed_loop.__file__).parents[2])),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert killed.returncode == -9, killed.stderr
    assert "in_progress" in project.statuses().values()

    done = project.loop("resume")

    assert (done.code, project.statuses()) == (0, {first: "closed", second: "closed"}), done.err
    assert [v.get("assignee") for v in project.tasks().values()] == [None, None]
    assert project.dirty() == []


def test_a_person_works_on_the_backlog_during_a_run(tmp_path: Path, program: str) -> None:
    """What runs is looked at before it lands; what waits is theirs at once."""
    project = BdProject(tmp_path, program)
    late = project.add("Late", "-p", "4", script="touch late.txt")
    taken = project.add("Taken back", "-p", "1", script="touch taken.txt; bd update $HEW_TASK_ID --status deferred -q")
    closer = project.add("Closer", "-p", "2", script=f"bd close {late} -q --reason 'not needed'; touch closer.txt")

    done = project.run()

    assert project.statuses() == {late: "closed", taken: "deferred", closer: "closed"}, done.err + done.out
    assert project.landed_files("main") & {"late.txt", "taken.txt", "closer.txt"} == {"closer.txt"}


def test_doctor_and_preview_speak_of_bd_and_its_absence_is_named(tmp_path: Path, program: str) -> None:
    project = BdProject(tmp_path, program)
    task = project.add("Only one")
    found = [f for f in project.loop("doctor", "--json").json() if f["check"] == "tracker"]
    assert [f["level"] for f in found][-1] == "ok"
    assert found[-1]["text"].startswith(f"bd {project.version} ({program}), 1 of 1 tasks open")
    preview = project.run("--dry-run", "--json", "--tracker", "bd").json()
    assert preview["start_now"] == [task]
    assert project.loop("task", "ready").code == 69
    assert project.run("--tracker", "beads").code == 69
    folder = tmp_path / "only-git"
    folder.mkdir()
    (folder / "git").symlink_to(shutil.which("git") or "")
    without = project.run(PATH=str(folder))
    assert (without.code, "there is no bd on PATH" in without.err) == (69, True), without.err


def test_what_bd_remembers_of_the_project_is_in_every_prompt_and_its_manual_in_none(
    tmp_path: Path, program: str
) -> None:
    project = BdProject(tmp_path, program)
    one, two = project.add("One"), project.add("Two")
    if project.version.startswith("0.4"):  # no memories yet: the project's own file
        (project.path / ".beads" / "PRIME.md").write_text("Run make check.\n")
    else:
        project.bd("remember", "Run make check.")
        # What is remembered meanwhile does not change the prompts of this run.
        project.script(one, f'"{program}" remember "Later." > "$PLACES/said"; echo > one')
    assert project.run().code == 0
    assert project.statuses() == {one: "closed", two: "closed"}
    prompts = [path.read_text() for path in sorted(project.folder().glob("iter-*/prompt.md"))]
    assert ["Run make check." in p and "Beads Workflow" not in p and "Later." not in p for p in prompts] == [True, True]
    assert len({i["prompt_prefix_hash"] for i in project.iterations()}) == 1
