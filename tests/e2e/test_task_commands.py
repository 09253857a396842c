"""`loop task …` through the real program, in real repositories."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.repos import git, make_repo
from tests.trackers.beads_files import issue, lines, write

ROOT = Path(__file__).parents[2]


def start(cwd: Path, *args: str, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "hew_loop", "task", *args],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "BD_ACTOR": "ann", **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def loop(cwd: Path, *args: str, **env: str) -> tuple[int, str, str]:
    """Exit code, stdout, stderr of `loop task ARGS`."""
    running = start(cwd, *args, **env)
    out, err = running.communicate(timeout=60)
    return running.returncode, out, err


def answer(cwd: Path, *args: str, **env: str) -> str:
    code, out, err = loop(cwd, *args, **env)
    assert (code, err) == (0, "")
    return out


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    return make_repo(tmp_path / "shop", {"README.md": "shop\n"})


def add(cwd: Path, *args: str) -> str:
    return json.loads(answer(cwd, "add", *args, "--json"))["id"]


def test_a_backlog_is_added_listed_shown_closed_and_reopened(shop: Path) -> None:
    epic = add(shop, "Checkout", "-t", "epic", "-p", "P1")
    cart = add(shop, "Cart", "--parent", epic, "-d", "Hold the goods", "-l", "core", "-l", "web,core")
    pay = add(shop, "Pay", "--parent", epic, "--dep", cart, "--acceptance", "money moves", "-p", "0")
    assert [cart, pay] == [f"{epic}.1", f"{epic}.2"]
    assert re.fullmatch(r"shop-[a-z0-9]{3}", epic)
    found = json.loads(answer(shop, "ready", "--json"))
    assert [(each["id"], each["issue_type"], each["priority"]) for each in found] == [
        (epic, "epic", 1),
        (cart, "task", 2),
    ]
    assert found[1]["labels"] == ["core", "web"]
    assert (found[1]["parent"], found[1]["dependent_count"], found[1]["created_by"]) == (epic, 1, "ann")
    assert answer(shop, "close", cart, "--reason", "built") == f"{cart}  closed\n"
    assert answer(shop, "ready") == f"{pay}  P0  Pay\n{epic}  P1  epic: Checkout\n"
    assert answer(shop, "list") == answer(shop, "ready")
    assert answer(shop, "list", "--status", "closed") == f"{cart}  P2  Cart  [closed]\n"
    assert [each["id"] for each in json.loads(answer(shop, "list", "--all", "--json"))] == [pay, epic, cart]
    shown = answer(shop, "show", cart)
    assert shown.startswith(f"{cart}  Cart\n  status    closed\n  priority  P2\n  type      task\n")
    assert "  reason    built\n" in shown
    assert shown.endswith("\nDESCRIPTION\nHold the goods\n")
    reopened = json.loads(answer(shop, "reopen", cart, "--reason", "not quite", "--json"))
    assert [(each["status"], each["notes"]) for each in reopened] == [("open", "not quite")]
    assert json.loads(answer(shop, "show", pay, "--json"))[0]["acceptance_criteria"] == "money moves"
    assert answer(shop, "ready", "--parent", epic, "--label", "web") == f"{cart}  P2  Cart\n"


def test_add_prints_id_and_title(shop: Path) -> None:
    assert re.fullmatch(r"shop-[a-z0-9]{3}  Cart\n", answer(shop, "add", "Cart"))


def test_edges_are_added_and_removed_and_a_ring_is_refused(shop: Path) -> None:
    a, b = add(shop, "a"), add(shop, "b")
    assert answer(shop, "dep", "add", b, a) == f"{b} -> {a} (blocks)\n"
    refused = loop(shop, "dep", "add", a, b)
    assert refused == (
        1,
        "",
        f"loop: That edge would close a ring: {a} waits for {b} waits for {a}.\n"
        "  Tasks in a ring can never start. Remove one of the edges first: loop task dep remove ID BLOCKER\n",
    )
    removed = {"status": "removed", "issue_id": b, "depends_on_id": a}
    assert json.loads(answer(shop, "dep", "remove", b, a, "--json")) == removed
    assert answer(shop, "dep", "remove", b, a) == f"{b} -> {a}: there was none\n"
    added = {"status": "added", "issue_id": a, "depends_on_id": b, "type": "related"}
    assert json.loads(answer(shop, "dep", "add", a, b, "--type", "related", "--json")) == added


def test_an_empty_backlog_is_an_empty_array_and_makes_no_store(shop: Path) -> None:
    assert answer(shop, "ready", "--json") == "[]\n"
    assert loop(shop, "list") == (0, "", "No tasks.\n")
    assert not (shop / ".beads").exists()


def test_the_store_is_that_of_the_main_worktree_and_git_status_stays_clean(shop: Path, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    git(shop, "worktree", "add", "-q", "--detach", str(linked))
    (linked / "deep").mkdir()
    task_id = add(linked / "deep", "From afar")
    assert [each["id"] for each in lines(shop / ".beads")] == [task_id]
    assert git(shop, "status", "--porcelain") == git(linked, "status", "--porcelain") == ""
    assert re.fullmatch(r".*info/exclude:\d+:/\.beads/", git(shop, "check-ignore", "-v", ".beads").split("\t")[0])


def test_a_committed_store_gains_no_files_that_git_sees(shop: Path) -> None:
    write(shop / ".beads", [issue("tt-a")])
    git(shop, "add", "-A")
    git(shop, "commit", "-q", "-m", "store")
    answer(shop, "close", "tt-a")
    assert git(shop, "status", "--porcelain").split() == ["M", ".beads/issues.jsonl"]


def test_beads_dir_names_the_store_anywhere(tmp_path: Path) -> None:
    write(tmp_path / "b", [issue("tt-a")])
    assert answer(tmp_path, "ready", BEADS_DIR=str(tmp_path / "b")) == "tt-a  P2  T tt-a\n"


def test_outside_a_repository_it_is_a_sentence(tmp_path: Path) -> None:
    code, out, err = loop(tmp_path, "ready")
    assert (code, out) == (69, "")
    assert err.startswith("loop: ")
    assert "Traceback" not in err


@pytest.mark.parametrize("command", [["ready", "--json"], ["list"], ["add", "x"], ["close", "tt-a"], ["show", "tt-a"]])
def test_a_store_of_bd_is_never_looked_at(shop: Path, command: list[str]) -> None:
    file = write(shop / ".beads", [issue("tt-a")])
    (shop / ".beads" / "metadata.json").write_text('{"database":"dolt","backend":"dolt","dolt_mode":"embedded"}')
    before = file.read_bytes()
    code, out, err = loop(shop, *command)
    assert (code, out) == (69, "")
    assert err == (
        f"loop: {shop}/.beads belongs to bd, and its issues.jsonl may be older than bd's database.\n"
        "  Use bd itself here (bd ready, bd create, bd close), or point BEADS_DIR to an embedded store.\n"
    )
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("args", "code", "sentence"),
    [
        (["show", "tt-ab"], 1, "loop: There is no task 'tt-ab'.\n  Nearest: tt-a\n"),
        (["close", "tt-a", "tt-zzzz"], 1, "loop: There is no task 'tt-zzzz'.\n  See all: loop task list --all\n"),
        (
            ["add", "x", "--parent", "tt-zzzz"],
            1,
            "loop: There is no task 'tt-zzzz'.\n  See all: loop task list --all\n",
        ),
        (["add", "x", "--dep", "tt-zzzz"], 1, "loop: There is no task 'tt-zzzz'.\n  See all: loop task list --all\n"),
        (["add", ""], 2, "loop: A title cannot be empty.\n"),
        (["add", "x", "-t", "nosuch"], 2, "loop: There is no issue type 'nosuch'.\n  One of: task, bug, "),
        (["add", "x", "-p", "high"], 2, "'high' is not a priority: 0 (most urgent) to 4, or P0 to P4.\n"),
        (["ready", "--sort", "newest"], 2, "'newest' is not one of 'priority', 'hybrid', 'oldest'.\n"),
        (["ready", "--no-such"], 2, "No such option"),
    ],
)
def test_a_mistake_is_a_sentence_with_its_exit_code_and_changes_nothing(
    shop: Path, args: list[str], code: int, sentence: str
) -> None:
    before = write(shop / ".beads", [issue("tt-a")]).read_bytes()
    exit_code, out, err = loop(shop, *args)
    assert (exit_code, out) == (code, "")
    assert sentence in err
    assert (shop / ".beads" / "issues.jsonl").read_bytes() == before


def test_a_bad_line_names_its_number_and_nothing_is_written(shop: Path) -> None:
    file = write(shop / ".beads", [issue("tt-a")])
    with file.open("a") as out:
        out.write("<<<<<<< HEAD\n")
    before = file.read_bytes()
    for args in (["ready"], ["add", "x"], ["close", "tt-a"]):
        code, stdout, err = loop(shop, *args)
        assert (code, stdout) == (69, "")
        assert err.startswith(f"loop: {file}, line 2: it is a git conflict marker; resolve the merge first.\n")
    assert file.read_bytes() == before


EVIL = "\x1b]0;owned\x07\x1b[2Jgone\r\nsecond \u202eline <b>"


def test_nothing_in_a_task_can_command_the_terminal(shop: Path) -> None:
    write(
        shop / ".beads",
        [issue("tt-\x1b[1mx", title=EVIL, description=f"one\n{EVIL}", labels=[EVIL], assignee=EVIL, status=EVIL)],
    )
    for args in (["list"], ["show", "tt-\x1b[1mx"], ["add", EVIL]):
        out = answer(shop, *args)
        assert out.replace("\n", "").isprintable()
    assert len(answer(shop, "list").splitlines()) == 2
    shown = json.loads(answer(shop, "show", "tt-\x1b[1mx", "--json"))
    assert shown[0]["title"] == EVIL


def test_many_processes_at_once_lose_nothing(shop: Path) -> None:
    running = [start(shop, "add", f"task {n}") for n in range(12)]
    printed = [process.communicate(timeout=60) for process in running]
    assert [process.returncode for process in running] == [0] * 12
    assert {out.split("  ")[0] for out, _ in printed} == {line["id"] for line in lines(shop / ".beads")}
    assert {line["title"] for line in lines(shop / ".beads")} == {f"task {n}" for n in range(12)}


@pytest.mark.parametrize(
    "command",
    [[], ["add"], ["list"], ["ready"], ["show"], ["dep"], ["dep", "add"], ["dep", "remove"], ["close"], ["reopen"]],
    ids=" ".join,
)
def test_every_command_has_help_with_an_example(tmp_path: Path, command: list[str]) -> None:
    out = answer(tmp_path, *command, "--help")
    assert "Example:\n    loop task " in out


def test_it_imports_no_library_that_it_does_not_need(tmp_path: Path) -> None:
    """Start-up is most of what a small command costs (`loop task ready` on 10,000 issues: benchmarks/backlog)."""
    script = (
        "import sys\nfrom hew_loop import cli\nsys.argv = ['loop', 'task', 'ready', '--json']\n"
        "try:\n    cli.main()\nfinally:\n    print(*sys.modules)"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT), "BEADS_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0
    assert not {"pydantic", "git", "rich", "platformdirs"} & set(done.stdout.split())
