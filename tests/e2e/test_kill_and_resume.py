"""P7: the real program is killed at the lines of its journal; git and the tracker hold the same in the end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.support import killed_loop
from tests.support.project import Done, Project, marked_processes, wait_until

pytestmark = pytest.mark.slow

RUN = ("run", "--scope", "ready", "--jobs", "2")
CONFIG = '[loop.gate]\ncommands = ["test ! -f bad.txt"]'
LAST_LINE = 90
"""A few more lines than the journal of `Small` has: its length is not the same in each run."""

SAY = "printf '```loop_result\\n%s\\n```\\n'"


class Small(Project):
    """One task commits and leaves more uncommitted, one depends on it, one fails the gate at first, one finds nothing
    to do, one cannot be done: every kind of event that a good run has."""

    def __init__(self, top: Path) -> None:
        super().__init__(top, config=CONFIG)
        first = "echo 1 > first.txt; git add first.txt; git commit -qm 'The first half'; echo 2 > second.txt"
        self.first = self.add("First", script=first)
        self.dependant = self.add("Dependant", "--dep", self.first, script="cp second.txt dependant.txt")
        # Not by the attempt's number: an attempt that was lost has one too.
        mends = "if [ -f bad.txt ]; then rm bad.txt; else touch bad.txt; fi; echo 3 > red.txt"
        self.red = self.add("Red at first", script=mends)
        nothing = json.dumps({"status": "no_change", "summary": "it was there"})
        self.unchanged = self.add("Nothing to do", script=f"{SAY} '{nothing}'")
        blocked = json.dumps({"status": "blocked", "summary": "no key"})
        self.blocked = self.add("Needs a person", script=f"{SAY} '{blocked}'")

    @property
    def lands(self) -> tuple[str, ...]:
        return (self.first, self.dependant, self.red)

    def copy(self, top: Path) -> Small:
        """The same, somewhere else, before anything has run."""
        shutil.copytree(self.path.parent, top)
        twin = Small.__new__(Small)
        vars(twin).update(vars(self), path=top / "repo", plan=top / "plan", places=top / "places")
        return twin

    def killed(self, how: str, where: str, *args: str) -> bool:
        """Whether `loop` came to that place, and killed itself there."""
        done = subprocess.run(
            [sys.executable, killed_loop.__file__, how, where, *args],
            cwd=self.path,
            env=self.env(PYTHONPATH=str(Path(killed_loop.__file__).parents[2])),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode in (-signal.SIGKILL, 0, 1), done.stderr
        return done.returncode == -signal.SIGKILL

    def run_ids(self) -> list[str]:
        return sorted(p.name for p in (self.path / ".hew" / "loop").glob("loop-*"))


@pytest.fixture(scope="session")
def originals() -> dict[str, Small]:
    return {}


@pytest.fixture
def small(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, originals: dict[str, Small]) -> Small:
    if not originals:
        originals["small"] = Small(tmp_path_factory.mktemp("original") / "small")
    return originals["small"].copy(tmp_path / "small")


def holds(small: Small, done: Done) -> None:
    """What must be true after the end, however often it was killed on the way."""
    assert done.code in (0, 1), done.err + done.out  # 1 where the last run itself has parked the task
    tasks = small.tasks()
    closed = {t for t, v in tasks.items() if v["status"] == "closed"}
    assert closed == {*small.lands, small.unchanged}
    assert {t for t, v in tasks.items() if v["status"] == "in_progress" or v.get("assignee")} == set()
    bugs = [t for t in tasks if t not in (*closed, small.blocked)]
    assert len(bugs) == 1, "exactly one bug is filed for the parked task"
    assert len(tasks) == 6

    log = small.git("log", "--format=%s", "main").splitlines()
    landings = Counter(line.split()[1].rstrip(":") for line in log if line.startswith("Land "))
    assert landings == Counter(small.lands), log
    assert small.landed_files("main") >= {"first.txt", "second.txt", "dependant.txt", "red.txt"}
    assert "bad.txt" not in small.landed_files("main")
    assert (small.path / "dependant.txt").read_text() == "2\n"
    assert small.git("status", "--porcelain") == ""

    refs = small.git("for-each-ref", "--format=%(refname)").splitlines()
    assert [r for r in refs if r.endswith(("/integration", "/candidate"))] == []
    root = Path(small.env()["HEW_WORKTREE_ROOT"])
    assert list(root.rglob("*.lease.json")) == []
    for run_id in small.run_ids():
        assert marked_processes(run_id) == []
    agrees(small)


def agrees(small: Small) -> None:
    """The newest summary says what the newest journal and git say."""
    summary = small.summary()
    assert summary["status"] == "ended"
    landed = {t["task"] for t in summary["tasks"] if t["state"] == "landed"}
    run_id = small.folder().name
    said = small.git("log", "--format=%(trailers:key=Task,valueonly)%(trailers:key=Run,valueonly)", "--merges", "main")
    words = said.split()
    assert landed == {task for task, run in zip(words[::2], words[1::2], strict=True) if run == run_id}


def carry_on(small: Small) -> Done:
    """`loop resume`; where the run had ended, or died before its first line, there is none, and a new one follows."""
    done = small.loop("resume")
    if done.code != 2:
        return done
    assert "no run was interrupted" in done.err or "there is no run here yet" in done.err
    return small.loop(*RUN)


def settle(small: Small) -> Done:
    """`loop run`: settles the dead run first, then begins its own."""
    before = small.run_ids()
    done = small.loop(*RUN)
    assert len(small.run_ids()) == len(before) + 1
    return done


def test_killed_again_and_again_it_is_resumed_where_it_was(small: Small) -> None:
    command = RUN
    for where in ("claimed", "iteration_ended", "landed", "delivered", "run_ended"):
        assert small.killed("torn", where, *command), where
        command = ("resume",)
    done = small.loop("resume")
    holds(small, done)
    assert (done.code, len(small.run_ids())) == (1, 1)
    summary = small.summary()
    assert summary["resumes"] == 5
    torn = [n["text"] for n in summary["notices"] if "torn" in n["text"]]
    assert torn == ["the last line of the journal was torn, and has been cut off (7 bytes)"] * 5


def test_each_new_run_settles_the_dead_one_before_its_own(small: Small) -> None:
    places = ("torn run_started", "torn chain_built", "after land", "torn task_closed", "torn bug_filed")
    # Which task comes first is not the same in each run: a place may have been passed before.
    reached = [where for where in (*places, "after run_ended") if small.killed(*where.split(), *RUN)]
    assert len(reached) >= 4
    holds(small, settle(small))


def test_an_iteration_that_is_lost_uses_up_no_attempt_but_three_in_a_row_park_the_task(project: Project) -> None:
    task = project.add("Is cut off", script='echo half > "$HEW_TASK_ID.txt"; touch "$PLACES/here"; sleep 600')
    command = ("run", "--scope", "ready", "--attempts", "1")
    for lost in range(1, 4):
        run = project.spawn(*command)
        wait_until((project.places / "here").exists)
        run.kill()
        run.communicate(timeout=10)
        (project.places / "here").unlink()
        command = ("resume",)
        assert len(project.events("start_iteration")) == lost
    done = project.loop("resume")
    assert done.code == 1
    reason = "3 iterations in a row were lost because the loop itself died"
    assert reason in done.out
    assert project.summary()["task_counts"]["parked"] == 1
    assert project.tasks()[task]["status"] == "open"
    for attempt in (1, 2, 3):
        branch = f"loop/{project.folder().name}/{task}.{attempt}"
        assert project.git("show", f"{branch}:{task}.txt") == "half"


def test_what_a_dead_run_left_is_kept_also_when_somebody_has_deleted_its_folder(project: Project) -> None:
    landed = project.add("Lands", "-p", "1")
    script = 'echo mine > mine.txt; touch "$PLACES/here"; [ -e "$PLACES/go" ] || sleep 600; echo > done.txt'
    task = project.add("Is cut off", "-p", "2", script=script)
    run = project.spawn("run", "--scope", "ready")
    wait_until((project.places / "here").exists)
    wait_until(lambda: project.events("task_closed") != [])
    run.kill()
    run.communicate(timeout=10)
    dead = project.folder()
    shutil.rmtree(dead)
    (project.places / "go").touch()
    done = project.run("--json")
    assert (done.code, project.statuses()) == (0, {landed: "closed", task: "closed"}), done.err
    assert project.git("show", f"loop/{dead.name}/{task}.1:mine.txt") == "mine"
    assert f"{landed}.txt" in project.landed_files(f"loop/{dead.name}/integration")
    assert project.git("for-each-ref", "refs/loop/") == ""
    told = [n["text"] for n in project.summary()["notices"]]
    assert told == [
        f"what {dead.name} left of {task} in w0 is kept: the branch loop/{dead.name}/{task}.1",
        f"{task} was still claimed by {dead.name}, whose journal is gone; it has been given back",
        f"what {dead.name} landed was never delivered: it is on the branch loop/{dead.name}/integration",
    ]


def test_a_full_disk_ends_the_run_with_one_sentence_and_a_resume_loses_nothing(project: Project) -> None:
    task = project.add("A task")
    blocks = 8  # of 512 bytes: no file grows beyond them, and the journal has to
    limited = f'ulimit -f {blocks}; exec "$@"'
    done = subprocess.run(
        ["sh", "-c", limited, "sh", sys.executable, "-m", "hew_loop", "run", "--scope", "ready"],
        cwd=project.path,
        env=project.env(PYTHONDONTWRITEBYTECODE="1"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    last = done.stderr.splitlines()[-2:]
    assert last == ["loop: cannot write the journal: the disk is full", "  free some space, then: loop resume"]
    assert done.returncode == 1
    assert (project.loop("resume").code, project.statuses()) == (0, {task: "closed"})
    assert project.git("for-each-ref", "refs/loop/", "refs/heads/loop/") == ""


@pytest.mark.slow
@pytest.mark.parametrize("line", range(1, LAST_LINE + 1))
@pytest.mark.parametrize("how", ["after", "torn"])
def test_killed_at_any_line_a_resume_or_a_new_run_ends_in_the_same_place(small: Small, how: str, line: int) -> None:
    small.killed(how, str(line), *RUN)
    holds(small, carry_on(small) if line % 2 else settle(small))


@pytest.mark.slow
@pytest.mark.parametrize("moment", range(40))
def test_killed_at_any_moment_with_all_its_children_or_alone_it_ends_in_the_same_place(
    small: Small, moment: int
) -> None:
    """Between two lines: in the middle of a checkout, a merge, a write to the tracker, a delivery."""
    run = small.spawn(*RUN)
    try:
        run.wait(timeout=0.25 + moment * 0.04)
    except subprocess.TimeoutExpired:
        if moment % 4 < 2:
            os.killpg(run.pid, signal.SIGKILL)
        else:
            run.kill()
    run.communicate(timeout=10)
    holds(small, carry_on(small) if moment % 2 else small.loop(*RUN))
