"""What a store of bd's adds to every prompt; the programs are scripts that answer as bd does."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from hew_loop.errors import TrackerError
from hew_loop.trackers import bd_prime
from hew_loop.trackers.bd import BdTracker
from tests.support.real_bd import RealBd

MANUAL = "# Beads Workflow Context\n\n# SESSION CLOSE PROTOCOL\n\n[ ] git push\n"


def tracker(top: Path, *, prime: str, export: str = MANUAL, memories: dict[str, object] | None = None) -> BdTracker:
    """On a `bd` that says these things; without `memories` it is one that knows none."""
    for name, text in (("prime", prime), ("export", export), ("memories", json.dumps(memories))):
        (top / name).write_text(text)
    known = (
        f"cat {top}/memories" if memories is not None else 'echo "Error: unknown command \\"memories\\"" >&2; exit 1'
    )
    return scripted(
        top,
        f'case "$*" in "prime --full") cat {top}/prime;; "prime --full --export") cat {top}/export;;'
        f' "--json memories") {known};; *) exit 64;; esac',
    )


def scripted(top: Path, script: str) -> BdTracker:
    (top / "bin").mkdir()
    program = top / "bin" / "bd"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    (top / ".beads").mkdir()
    return BdTracker.open(top / ".beads", {**os.environ, "PATH": f"{top / 'bin'}:{os.environ['PATH']}"})


@pytest.mark.parametrize("own", ["Use make.\n", "", MANUAL + "And use make.\n"])
def test_a_projects_own_words_are_taken_whole(tmp_path: Path, own: str) -> None:
    assert tracker(tmp_path, prime=own, memories={"a": "b"}).primer() == own


def test_of_bds_manual_nothing_is_left_but_the_memories_that_do_not_tell_of_single_tasks(tmp_path: Path) -> None:
    memories = {
        "schema_version": 1,
        "use-make": "Use make.\n",
        "branches": "There is\none branch.",
        "status": "STATUS:loop-iter-failed:loop-1:3:now\nreasons: t-1 failed",
        "verify": "STATUS:loop-verify-failed:loop-1",
    }
    text = "What was remembered about this project:\n\n- branches: There is\none branch.\n- use-make: Use make.\n"
    assert tracker(tmp_path, prime=MANUAL, memories=memories).primer() == text


@pytest.mark.parametrize("memories", [None, {}, {"schema_version": 1}])
def test_a_store_without_memories_adds_nothing(tmp_path: Path, memories: dict[str, object] | None) -> None:
    assert tracker(tmp_path, prime=MANUAL, memories=memories).primer() == ""


def test_memories_that_are_too_many_are_counted() -> None:
    text = bd_prime.memories_text({f"k{n:03}": "x" * 1000 for n in range(100)})
    assert len(text) < bd_prime.MAX_CHARACTERS + 200
    assert text.endswith("\n85 more are not shown here; see: bd memories\n")


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo 'Error: no store' >&2; exit 1", "bd prime: Error: no store"),
        ("exit 3", "bd prime: exit code 3"),
        ("sleep 60", "bd prime --full did not end within 0.2 s."),
    ],
)
def test_a_bd_that_fails_or_hangs_is_a_tracker_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, words: str
) -> None:
    if script.startswith("sleep"):
        monkeypatch.setattr(bd_prime, "TIMEOUT_S", 0.2)
    with pytest.raises(TrackerError) as raised:
        scripted(tmp_path, script).primer()
    assert raised.value.message == words


@pytest.mark.real_bd
def test_the_real_bd_gives_memories_or_the_projects_own_words(tmp_path: Path) -> None:
    bd = RealBd(tmp_path / "store").init()
    bd.run("create", "A task")
    tracker = BdTracker.open(bd.store)
    assert tracker.primer() == ""
    if not bd.is_old:
        bd.run("remember", "--key=tests", "Run make check.")
        assert tracker.primer() == "What was remembered about this project:\n\n- tests: Run make check.\n"
    (bd.store / "PRIME.md").write_text("Our own words.\n")
    assert tracker.primer() == "Our own words.\n"
