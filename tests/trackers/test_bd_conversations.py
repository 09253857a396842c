"""The bd adapter in whole conversations: recorded ones of two versions, and the same with the bd on PATH.

`RECORD_BD=FILE pytest -m real_bd tests/trackers/test_bd_conversations.py` writes down what the bd on PATH answers.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from hew_loop.core.task import Edge, Task, TaskText
from hew_loop.errors import TrackerError
from hew_loop.trackers.base import BugReport
from hew_loop.trackers.bd import BdTracker
from tests.support.stub_bd import VERSIONS, recorded, recording, replaying

ACTOR, OTHER = "loop/r1/0", "loop/r1/1"
Backlog = tuple[dict[str, Any], ...]
REAL = pytest.param("real", marks=pytest.mark.real_bd)


def issue(name: str, number: int, *waits_for: str, kind: str = "blocks", **members: Any) -> dict[str, Any]:
    """A line to import, `number` minutes after the start of the year."""
    at = f"2026-01-01T00:{number:02}:00Z"
    edges = [
        {"issue_id": f"tt-{name}", "depends_on_id": f"tt-{target}", "type": kind, "created_at": at}
        for target in waits_for
    ]
    value = {"id": f"tt-{name}", "title": f"T {name}", "status": "open", "priority": 2, "issue_type": "task"}
    return {**value, "created_at": at, "updated_at": at, **({"dependencies": edges} if edges else {}), **members}


def task(name: str, number: int, **members: Any) -> Task:
    return Task(f"tt-{name}", f"T {name}", datetime(2026, 1, 1, 0, number, tzinfo=UTC), **members)


BACKLOG = (
    issue(
        "a", 1, priority=1, labels=["y", "x"], description="What is to be done.", notes="n", acceptance_criteria="ok"
    ),
    issue("b", 2, "a"),
    issue("c", 3, status="blocked"),
    issue("d", 4, status="deferred"),
    issue("e", 5, issue_type="epic"),
    issue("f", 6, "e", kind="parent-child", status="in_progress"),
    issue("g", 7, assignee="bob"),
    issue("h", 8, status="closed", closed_at="2026-01-01T00:09:00Z"),
)
TASKS = (
    task("a", 1, priority=1, labels=("x", "y")),
    task("b", 2, edges=(Edge("tt-a"),)),
    task("c", 3, status="blocked"),
    task("d", 4, status="deferred"),
    task("e", 5, type="epic"),
    task("f", 6, status="in_progress", edges=(Edge("tt-e", "parent-child"),)),
    task("g", 7, assignee="bob"),
    task("h", 8, status="closed"),
)


@dataclass(frozen=True)
class Talk:
    tracker: BdTracker
    version: str
    """The real one's is told by itself."""
    store: Path
    real: str | None

    @property
    def is_sqlite(self) -> bool:
        return self.version.startswith("0.")


def run_bd(program: str, repo: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A real bd beside the adapter: set-up, and what a person does."""
    env = {
        **os.environ,
        "BEADS_NO_DAEMON": "1",
        "CI": "true",
        "BD_NON_INTERACTIVE": "1",
        "BD_DISABLE_METRICS": "1",
        "BD_ACTOR": "ann",
        "BEADS_ACTOR": "ann",
    }
    return subprocess.run(
        [program, *words], cwd=repo, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )


def make_store(program: str, repo: Path, backlog: Backlog) -> str:
    """A repository with a store of the real bd; its version."""
    repo.mkdir(parents=True)
    subprocess.run(["git", "init", "-q"], cwd=repo, check=True)
    version = str(json.loads(run_bd(program, repo, "version", "--json").stdout)["version"]).removeprefix("v")
    flags = () if version.startswith("0.") else ("--non-interactive", "--skip-agents")
    done = run_bd(program, repo, "init", "--prefix", "tt", "--quiet", "--skip-hooks", *flags)
    assert done.returncode == 0, done.stderr
    if backlog:
        lines = repo.parent / "in.jsonl"
        lines.write_text("".join(json.dumps(each) + "\n" for each in backlog))
        done = run_bd(program, repo, "import", *(["-i"] if version.startswith("0.") else []), str(lines))
        assert done.returncode == 0, done.stderr
    return version


@pytest.fixture(params=[*VERSIONS, REAL])
def talk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Talk]:
    """The adapter in the conversation that is named like the test, on a store that holds BACKLOG."""
    with conversing(request, tmp_path, BACKLOG) as found:
        yield found


@pytest.fixture(params=[*VERSIONS, REAL])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Talk]:
    with conversing(request, tmp_path, ()) as found:
        yield found


@contextmanager
def conversing(request: pytest.FixtureRequest, tmp_path: Path, backlog: Backlog) -> Iterator[Talk]:
    scenario = "adapter " + request.node.originalname.removeprefix("test_").replace("_", " ")
    repo, folder = tmp_path / "repo", tmp_path / "bin"
    with ExitStack() as stack:
        if request.param == "real":
            real = shutil.which("bd")
            if real is None:
                pytest.skip("there is no bd on PATH")
            version = make_store(real, repo, backlog)
            record = os.environ.get("RECORD_BD")
            to = Path(record) if record else None
            stack.enter_context(recording(folder, scenario, real=real, repo=repo, to=to))
        else:
            (repo / ".beads").mkdir(parents=True)
            real, version = None, request.param
            stack.enter_context(replaying(folder, recorded(version, scenario), repo=repo))
        env = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
        yield Talk(BdTracker.open(repo / ".beads", env), version, repo / ".beads", real)


def text(tracker: BdTracker, task_id: str) -> TaskText:
    found = tracker.show(task_id)
    assert found is not None
    return found


def state(tracker: BdTracker, task_id: str) -> tuple[str, str]:
    found = text(tracker, task_id).task
    return found.status, found.assignee


def test_one_call_reads_all_tasks_with_their_edges(talk: Talk) -> None:
    assert sorted(talk.tracker.read(), key=lambda each: each.id) == list(TASKS)


def test_the_version_is_told(talk: Talk) -> None:
    assert talk.tracker.version() == talk.version


def test_show_gives_the_texts_and_knows_no_part_of_an_id(talk: Talk) -> None:
    assert text(talk.tracker, "tt-a") == TaskText(TASKS[0], "What is to be done.", "", "ok", "n")
    assert text(talk.tracker, "tt-f").task == TASKS[5]
    assert talk.tracker.show("tt-none") is None
    assert talk.tracker.show("tt-") is None
    assert talk.tracker.show("TT-A") is None


def test_only_what_is_open_and_nobodys_can_be_claimed(talk: Talk) -> None:
    tracker = talk.tracker
    said = {name: tracker.claim(f"tt-{name}", ACTOR) for name in ("a", "c", "d", "f", "g", "h", "none")}
    assert said == {
        "a": "",
        "c": "its status is blocked",
        "d": "its status is deferred",
        "f": "its status is in_progress",
        "g": "already claimed by bob",
        "h": "its status is closed",
        "none": "there is no task tt-none",
    }
    assert tracker.claim("tt-a", ACTOR) == ""
    assert tracker.claim("tt-a", OTHER) == f"already claimed by {ACTOR}"
    assert state(tracker, "tt-a") == ("in_progress", ACTOR)


def test_a_claim_is_given_back_once_with_one_note(talk: Talk) -> None:
    tracker = talk.tracker
    assert tracker.claim("tt-a", ACTOR) == ""
    tracker.release("tt-a", OTHER, "not theirs")
    tracker.release("tt-a", ACTOR, "--returned by r1")
    tracker.release("tt-a", ACTOR, "--returned by r1")
    found = text(tracker, "tt-a")
    assert (found.task, found.notes) == (TASKS[0], "n\n--returned by r1")
    tracker.release("tt-none", ACTOR, "")


def test_a_closed_task_is_nobodys_and_opens_again(talk: Talk) -> None:
    tracker = talk.tracker
    assert tracker.claim("tt-a", ACTOR) == ""
    tracker.close("tt-a", "landed as 1234")
    assert state(tracker, "tt-a") == ("closed", "")
    tracker.close("tt-a", "twice")
    tracker.reopen("tt-a", "it did not land")
    tracker.reopen("tt-a", "it did not land")
    found = text(tracker, "tt-a")
    assert (found.task, found.notes) == (TASKS[0], "n\nit did not land")
    with pytest.raises(TrackerError, match="no task 'tt-none'"):
        tracker.close("tt-none", "x")


def test_what_has_landed_is_closed_although_it_waits_for_another(talk: Talk) -> None:
    talk.tracker.close("tt-b", "landed")
    assert state(talk.tracker, "tt-b") == ("closed", "")


def test_a_note_is_appended_once(talk: Talk) -> None:
    talk.tracker.note("tt-a", "seen\nand heard")
    talk.tracker.note("tt-a", "seen\nand heard")
    assert text(talk.tracker, "tt-a").notes == "n\nseen\nand heard"


def test_a_bug_is_filed_once_and_blocks_the_parked_task(talk: Talk) -> None:
    tracker = talk.tracker
    labels = ("needs-human", "merge-conflict")
    bug = BugReport("-[merge-conflict] T a", "files:\n  x", "tt-a", "loop:r1/tt-a.3", labels)
    first = tracker.file_bug(bug)
    assert tracker.file_bug(bug) == first
    found = text(tracker, first)
    assert (found.task.title, found.description, found.task.type) == (bug.title, bug.description, "bug")
    assert (found.task.labels, found.task.priority) == (tuple(sorted(labels)), 2)
    assert text(tracker, "tt-a").task.edges == (Edge(first),)
    gone = BugReport("[blocked] gone", "", "tt-none", "loop:r1/tt-none.1", ("needs-human",))
    assert text(tracker, tracker.file_bug(gone)).task.labels == ("needs-human",)


def test_a_memory_is_kept_once(talk: Talk) -> None:
    for memory in ("-Use tabs.", "-Use tabs.", "Use tabs!"):
        talk.tracker.remember(memory)
    if talk.is_sqlite:  # no memories yet: closed issues instead
        kept = [each for each in talk.tracker.read() if "memory" in each.labels]
        assert sorted((each.title, each.status) for each in kept) == [("-Use tabs.", "closed"), ("Use tabs!", "closed")]


def test_an_empty_store_is_an_empty_backlog(empty: Talk) -> None:
    assert empty.tracker.read() == ()


def test_a_store_whose_database_is_gone_is_no_empty_backlog(empty: Talk) -> None:
    if empty.real and empty.is_sqlite:
        (empty.store / "beads.db").write_bytes(b"")
    elif empty.real:
        shutil.rmtree(empty.store / "embeddeddolt")
        (empty.store / "embeddeddolt").mkdir()
    with pytest.raises(TrackerError, match=r"gone|no beads database found"):
        empty.tracker.read()


def test_damaged_metadata_is_an_error_where_it_hides_the_store(talk: Talk) -> None:
    if talk.real:
        (talk.store / "metadata.json").write_text("{nope")
    if talk.is_sqlite:
        assert len(talk.tracker.read()) == len(TASKS)
    else:
        with pytest.raises(TrackerError, match="failed to load beads config"):
            talk.tracker.read()


@pytest.mark.parametrize("talk", ["1.0.5", REAL], indirect=True)
def test_gates_block_although_they_are_not_listed_by_default(talk: Talk) -> None:
    if talk.is_sqlite:
        pytest.skip("0.49 takes no gates but those of its formulas")
    if talk.real:
        for words in (
            ("create", "G", "--id", "tt-gate", "-t", "gate"),
            ("create", "M", "--id", "tt-mail", "-t", "message"),
            ("dep", "add", "tt-c", "tt-gate"),
            ("dep", "add", "tt-d", "tt-mail"),
        ):
            assert run_bd(talk.real, talk.store.parent, *words).returncode == 0
    found = {each.id: each for each in talk.tracker.read()}
    assert {name: found[name].type for name in ("tt-gate", "tt-mail")} == {"tt-gate": "gate", "tt-mail": "message"}
    assert [found[name].edges for name in ("tt-c", "tt-d")] == [(Edge("tt-gate"),), (Edge("tt-mail"),)]
