"""`loop demo`: the first thing that a new user sees."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from hew_loop.commands.demo import differences
from hew_loop.core.transitions import replay
from hew_loop.demo.teashop import TASKS
from hew_loop.engine import journal
from tests.support.project import Done


def loop(*args: str, cwd: Path, **env: str) -> Done:
    done = subprocess.run(
        [sys.executable, "-m", "hew_loop", *args],
        cwd=cwd,
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def git(repository: Path, *args: str) -> str:
    return subprocess.run(["git", *args], cwd=repository, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def strange(tmp_path: Path) -> dict[str, str]:
    """An environment without identity and configuration, in which everything of the user's would end the demo."""
    (tmp_path / "tmp").mkdir()
    (tmp_path / "decoy").mkdir()
    broken = tmp_path / "broken.toml"
    broken.write_text("[loop\n")
    (tmp_path / "gitconfig").write_text(
        "[commit]\n\tgpgSign = true\n[gpg]\n\tprogram = false\n[core]\n\thooksPath = /nowhere\n\tautocrlf = true\n"
        "[merge]\n\tconflictStyle = diff3\n[user]\n\tuseConfigOnly = true\n"
    )
    return {
        "TMPDIR": str(tmp_path / "tmp"),
        "HOME": str(tmp_path / "nobody"),
        "GIT_CONFIG_GLOBAL": str(tmp_path / "gitconfig"),
        "XDG_CONFIG_HOME": "",
        "HEW_CONFIG": str(broken),
        "HEW_LOOP_MAX_ITER": "1",
        "HEW_WORKTREE_ROOT": str(tmp_path / "decoy"),
        "BEADS_DIR": str(tmp_path / "decoy"),
        "GIT_DIR": str(tmp_path / "decoy"),
    }


def test_the_demo_goes_as_planned_whatever_the_user_has_configured(tmp_path: Path, strange: dict[str, str]) -> None:
    done = loop("demo", cwd=tmp_path, **strange)
    assert done.code == 0, done.out + done.err
    assert "10 landed, 1 closed without change, 1 parked" in done.out
    (top,) = (tmp_path / "tmp").iterdir()
    shop = top / "teashop"
    assert f"loop: 12 tasks, 4 workers and a scripted agent, in {top}\n" in done.err
    assert f"\n  cd {shop}\n  loop summary" in done.out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["broken.toml", "decoy", "gitconfig", "tmp"]
    assert not list((tmp_path / "decoy").iterdir())

    assert git(shop, "status", "--porcelain") == ""
    assert git(shop, "log", "-1", "--format=%s", "main").startswith("Land teashop-")
    shelves = (shop / "shop" / "shelves.py").read_text().splitlines()
    assert (shelves[0], sorted(shelves[1:-1])) == ("SHELVES = [", ['    "cocoa",', '    "coffee",', '    "tea",'])
    assert not (shop / "shop" / "water.py").exists()

    state = replay(journal.read(shop / ".hew" / "loop" / "latest" / "events.jsonl").events)
    titles = {task.title: task.id for task in state.backlog.tasks.values()}
    conflict = next(i for i in state.iterations.values() if i.fate == "conflict")
    assert conflict.spec.task in (titles["Put coffee on the shelves"], titles["Put cocoa on the shelves"])
    assert state.records[conflict.spec.task].attempts == 2
    parked = state.records[titles["Give water away"]]
    assert (parked.phase, parked.kind, parked.attempts) == ("parked", "gate-failed", 2)
    assert f"loop task show {parked.bug}" in done.out
    assert [i.why for i in state.iterations.values() if i.spec.task == titles["Open the sale"]] == ["agent"]

    ids = {task.key: titles[task.title] for task in TASKS}
    assert differences(state, ids) == ()
    assert len(differences(replace(state, records={}, iterations={}, verify=None, delivery=None), ids)) == 12 + 4

    # In the folder, the commands that look back work as anywhere, without the demo's own environment.
    pruned = loop("prune", "--json", cwd=shop).json()
    assert {t["name"] for t in pruned if t["kind"] == "worktree"} == {str(p) for p in top.glob("worktrees/*/*/")}
    assert loop("doctor", cwd=shop).code == 0


@pytest.mark.slow
def test_with_two_workers_it_goes_as_planned_too_and_says_so_as_json(tmp_path: Path) -> None:
    done = loop("demo", "--dir", "a {strange} place", "--json", "--jobs", "2", cwd=tmp_path)
    assert done.code == 0, done.err
    outcome = done.json()
    told = (outcome["path"], outcome["as_planned"], outcome["exit_code"], outcome["differences"])
    assert told == (str(tmp_path / "a {strange} place" / "teashop"), True, 1, [])
    assert {task["phase"] for task in outcome["tasks"].values()} == {"done", "unchanged", "parked"}


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious\n")
    done = loop("demo", "--dir", str(tmp_path), "--json", cwd=tmp_path)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"loop: {tmp_path} is not empty\n")
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]
