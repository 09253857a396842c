"""`loop task import` and `loop task export` through the real program: files, pipes, refusals, and the real bd."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.real_bd import ENV, RealBd
from tests.support.repos import make_repo
from tests.trackers.beads_files import issue, lines, write

ROOT = Path(__file__).parents[2]


def loop(cwd: Path, *args: str, stdin: str = "", **env: str) -> tuple[int, str, str]:
    """Exit code, stdout, stderr of `loop task ARGS`."""
    done = subprocess.run(
        [sys.executable, "-m", "hew_loop", "task", *args],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "BD_ACTOR": "ann", **env},
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    return make_repo(tmp_path / "shop", {"README.md": "shop\n"})


def jsonl(*records: dict[str, object]) -> str:
    return "".join(json.dumps(each, separators=(",", ":")) + "\n" for each in records)


def test_a_backlog_goes_through_pipes_and_files_and_comes_back_the_same(shop: Path) -> None:
    first = jsonl(issue("tt-b", labels=["x"]), issue("zz-a"), {"_type": "memory", "key": "k", "value": "v"})
    assert loop(shop, "import", "-", "--dry-run", stdin=first) == (
        0,
        "Would be: 2 created, 0 updated, 1 memories\n",
        "",
    )
    assert not (shop / ".beads").exists()
    assert loop(shop, "import", "-", stdin=first) == (0, "2 created, 0 updated, 1 memories\n", "")
    assert loop(shop, "export", "--all") == (0, first, "")
    code, out, err = loop(shop, "export", "out.jsonl", "--json")
    assert (code, json.loads(out), err) == (0, {"issues": 2, "memories": 0, "left_out": []}, "")
    assert (shop / "out.jsonl").read_text() == "".join(first.splitlines(keepends=True)[:2])

    (shop / "in.jsonl").write_text(
        jsonl(
            issue("tt-b", title="new", updated_at="2026-02-01T00:00:00Z"), issue("zz-a", title="old", updated_at="")
        ).replace('"updated_at":""', '"updated_at":"2025-01-01T00:00:00Z"')
    )
    code, out, err = loop(shop, "import", "in.jsonl", "--json")
    counts = {"created": 0, "updated": 1, "unchanged": 0, "skipped": 1, "deleted": 0, "memories": 0}
    assert (code, json.loads(out), err) == (0, counts, "Skipped, the store's is newer: zz-a\n")
    before = (shop / ".beads" / "issues.jsonl").read_bytes()
    assert loop(shop, "import", "in.jsonl")[1] == "0 created, 0 updated, 1 unchanged, 1 skipped\n"
    assert (shop / ".beads" / "issues.jsonl").read_bytes() == before


def test_refusals_say_what_is_wrong_in_a_sentence_and_write_nothing(shop: Path) -> None:
    write(shop / ".beads", [issue("tt-a"), issue("tt-o.1", title="\x1b]0;x")])
    before = (shop / ".beads" / "issues.jsonl").read_bytes()
    code, out, err = loop(shop, "import", "-", stdin=jsonl(issue("tt-b")) + "{oops\n")
    assert (code, out) == (1, "")
    assert err.startswith("loop: stdin, line 2: it is not JSON")
    assert (shop / ".beads" / "issues.jsonl").read_bytes() == before
    assert "No such file" in loop(shop, "import", "nowhere.jsonl")[2]
    assert loop(shop, "export", "--apply")[0] == 2
    assert loop(shop, "export", "--json")[0] == 2
    # An embedded store is none of bd's: bd is not even started on it.
    assert loop(shop, "export", "--to-bd") == (
        2, "", f"loop: There is no store of bd's in {shop / '.beads'}.\n  Name its directory: --to-bd DIR\n",
    )  # fmt: skip
    assert "Cannot write" in loop(shop, "export", "no/such/out.jsonl")[2]
    code, out, err = loop(shop, "export")
    assert (code, out) == (0, jsonl(issue("tt-a")))
    assert err == "Left out, their parent is missing (--all takes them): tt-o.1\n"
    (shop / ".beads" / "beads.db").touch()
    assert loop(shop, "import", "-", stdin=jsonl(issue("tt-b")))[0] == 69


def test_the_commands_for_bd_are_printed_for_a_shell_and_as_json(shop: Path) -> None:
    nasty = "it's \x1b[31m $(x)\u202e"
    write(shop / ".beads", [issue("tt-a", spec_id=nasty), issue("tt-b", title=nasty)])
    (shop / "bd.jsonl").write_text(jsonl({"_type": "issue", **issue("tt-a", labels=["x y"])}, issue("tt-c")))
    code, out, err = loop(shop, "export", "--to-bd", "--against", "bd.jsonl")
    assert code == 0
    assert err == "Only in bd, kept (--delete deletes them): tt-c\n"
    assert all(c.isprintable() or c == "\n" for c in out)
    (shop / "bin").mkdir()
    spy = shop / "bin" / "bd"
    spy.write_text(f"#!{sys.executable}\nimport json, sys\nprint(json.dumps([sys.argv[1:], sys.stdin.read()]))\n")
    spy.chmod(0o755)
    path = f"{spy.parent}:{os.environ['PATH']}"
    ran = subprocess.run(["bash"], input=out, env={"PATH": path}, cwd=shop, capture_output=True, text=True, check=True)
    code, out, _ = loop(shop, "export", "--to-bd", "--against", "bd.jsonl", "--json")
    told = json.loads(out)
    assert (told["bd"], told["only_in_bd"], told["newer_in_bd"], told["lost"]) == ("1.0", ["tt-c"], [], [])
    assert [each["argv"] for each in told["commands"]] == [
        ["bd", "label", "remove", "tt-a", "x y"],
        ["bd", "update", "tt-a", f"--spec-id={nasty}"],
        ["bd", "import", "-"],
    ]
    as_run = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [words for words, _ in as_run] == [each["argv"][1:] for each in told["commands"]]
    assert [json.loads(line) for line in as_run[-1][1].splitlines()] == [issue("tt-b", title=nasty)]


@pytest.mark.real_bd
def test_what_was_edited_here_is_applied_to_the_real_bd_and_taken_back(tmp_path: Path) -> None:
    bd = RealBd(tmp_path / "repo").init()
    bd.take([issue("tt-a", labels=["x"], defer_until="2099-01-01T00:00:00Z"), issue("tt-b"), issue("tt-c")])
    beads = {**ENV, "BEADS_DIR": str(tmp_path / "embedded")}
    assert loop(bd.path, "import", "-", stdin=bd.export_text(), **beads) == (0, "3 created, 0 updated\n", "")
    kept = [each for each in lines(tmp_path / "embedded") if each["id"] != "tt-c"]
    kept[0] |= {"labels": ["y"], "title": "Edited", "updated_at": "2027-01-01T00:00:00Z"}
    del kept[0]["defer_until"]
    write(tmp_path / "embedded", kept)
    # No DIR: bd's store is the one of this repository, and BEADS_DIR names ours.
    code, out, err = loop(bd.path, "export", "--to-bd", "--delete", "--apply", **beads)
    assert (code, out, err) == (0, "4 commands were run.\n", "")
    found = bd.export()
    assert found.keys() == {"tt-a", "tt-b"}
    assert (found["tt-a"]["title"], found["tt-a"]["labels"], found["tt-a"].get("defer_until")) == (
        "Edited",
        ["y"],
        None,
    )
    assert loop(tmp_path, "export", "--to-bd", str(bd.path), "--delete", **beads) == (0, "", "")
    assert loop(bd.path, "list")[0] == 69
