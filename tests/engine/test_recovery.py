"""What a dead run left is saved before anything of it is used again: also where its journal, or its lease, is gone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from hew_loop.engine import strays
from hew_loop.repo.git import Git
from hew_loop.repo.worktrees import Pool
from hew_loop.trackers.beads_issue import NewIssue
from hew_loop.trackers.beads_store import BeadsStore
from tests.support.journals import JournalBuilder
from tests.support.repos import commit, git, make_repo

DEAD = "loop-20260101T000000Z-0000dead"
OURS = "loop-20260102T000000Z-00000000"


@dataclass(frozen=True)
class Ground:
    git: Git
    pool: Pool
    store: BeadsStore
    base: str

    def gather(self) -> tuple[str, ...]:
        return strays.gather(self.git, self.pool, self.store, but=OURS)

    def lost_iteration(self, *, lease: str = "") -> Path:
        """A worktree as an agent leaves it in the middle: something committed, something not, and its lease."""
        branch = f"loop/{DEAD}/t-1.1"
        facts = {"run_id": DEAD, "iter": 1, "task": "t-1", "attempt": 1, "branch": branch, "start": self.base}
        self.pool.write_lease("w0", facts)
        worktree = self.pool.prepare("w0", self.base, branch=branch)
        commit(worktree.path, {"done.txt": "done\n"}, "half of it")
        (worktree.path / "open.txt").write_text("open\n")
        if lease:
            (self.pool.root / "w0.lease.json").write_text(lease)
        return worktree.path

    def refs(self) -> dict[str, str]:
        listed = git(self.git.root, "for-each-ref", "--format=%(refname) %(objectname)", "refs/loop", "refs/heads/loop")
        return dict(line.split() for line in listed.splitlines())


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    repo = make_repo(tmp_path / "repo", {"a.txt": "a\n"})
    found = Git.discover(repo)
    base = git(repo, "rev-parse", "HEAD")
    return Ground(found, Pool(found, tmp_path / "pool"), BeadsStore(repo / ".beads", exclude_file=None), base)


def test_nothing_is_said_or_done_where_nothing_was_left(ground: Ground) -> None:
    assert ground.gather() == ()
    assert not (ground.git.root / ".beads").exists()


def test_files_of_a_run_without_a_journal_are_on_its_branch_before_the_worktree_is_used_again(ground: Ground) -> None:
    ground.lost_iteration()
    branch = f"loop/{DEAD}/t-1.1"
    assert ground.gather() == (f"what {DEAD} left of t-1 in w0 is kept: the branch {branch}",)
    assert ground.pool.read_leases() == {}
    ground.pool.prepare("w0", ground.base)
    assert git(ground.git.root, "show", f"{branch}:done.txt", f"{branch}:open.txt") == "done\nopen"
    assert ground.gather() == ()


@pytest.mark.parametrize(
    "lease",
    ["", "[1]", '{"run_id": "x"', '{"run_id": 5, "task": 3, "branch": "../x", "attempt": "1", "start": "HEAD"}'],
)
def test_a_lease_that_cannot_be_read_still_guards_the_files(ground: Ground, lease: str) -> None:
    ground.lost_iteration(lease=lease or "\0")
    (told,) = ground.gather()
    assert told.startswith("what unknown left of w0 in w0 is kept: the branch loop/unknown/w0.1"), told
    assert git(ground.git.root, "show", "loop/unknown/w0.1:done.txt", "loop/unknown/w0.1:open.txt") == "done\nopen"
    assert git(ground.git.root, "show", f"loop/{DEAD}/t-1.1:done.txt") == "done"


def test_a_lease_without_a_worktree_is_dropped(ground: Ground) -> None:
    ground.pool.write_lease("w3", {"run_id": DEAD, "task": "t-1", "branch": f"loop/{DEAD}/t-1.1", "start": ground.base})
    assert (ground.gather(), ground.pool.read_leases()) == ((), {})


def test_the_lease_of_the_run_itself_is_left_to_its_own_recovery(ground: Ground) -> None:
    ground.pool.write_lease("w0", {"run_id": OURS})
    assert ground.gather() == ()
    assert list(ground.pool.read_leases()) == ["w0"]


def test_files_that_cannot_be_saved_are_moved_out_of_the_way_and_named(ground: Ground) -> None:
    path = ground.lost_iteration()
    # Where the commit belongs there is something that git cannot move.
    (ground.git.common_dir / "refs" / "heads" / "loop" / DEAD / "t-1.1").unlink()
    (ground.git.common_dir / "refs" / "heads" / "loop" / DEAD / "t-1.1" / "in-the-way").mkdir(parents=True)
    (ground.git.common_dir / "refs" / "heads" / "loop" / DEAD / "t-1.1" / "in-the-way" / "x").write_text(ground.base)
    (told,) = ground.gather()
    kept = ground.pool.root / ".aside" / f"{DEAD}-w0-files"
    assert told.endswith(f"its files are kept in {kept}")
    assert ((kept / "open.txt").read_text(), path.exists(), ground.pool.read_leases()) == ("open\n", False, {})
    assert ground.pool.prepare("w0", ground.base).path == path


def test_claims_of_a_run_without_a_journal_are_given_back_and_others_are_not(ground: Ground) -> None:
    mine, theirs, persons = (ground.store.add(NewIssue(title=t), creator="test") for t in ("mine", "theirs", "person"))
    ground.store.claim(mine, f"loop/{DEAD}/0")
    ground.store.claim(theirs, "loop/loop-20260101T000000Z-0000beef/0")  # of another clone, for all we know
    ground.store.claim(persons, "somebody")
    git(ground.git.root, "update-ref", f"refs/loop/{DEAD}/integration", ground.base)
    told = ground.gather()
    assert told == (f"{mine} was still claimed by {DEAD}, whose journal is gone; it has been given back",)
    claims = {t.id: (t.status, t.assignee) for t in ground.store.read()}
    assert claims == {
        mine: ("open", ""),
        theirs: ("in_progress", "loop/loop-20260101T000000Z-0000beef/0"),
        persons: ("in_progress", "somebody"),
    }
    assert ground.refs() == {}


def test_what_had_landed_becomes_a_branch_and_what_the_user_has_anyway_does_not(ground: Ground) -> None:
    worktree = ground.pool.prepare("gate", ground.base)
    landed = commit(worktree.path, {"landed.txt": "x\n"}, "landed")
    git(ground.git.root, "update-ref", f"refs/loop/{DEAD}/integration", landed)
    git(ground.git.root, "update-ref", f"refs/loop/{DEAD}/candidate", landed)
    git(ground.git.root, "update-ref", f"refs/loop/{OURS}/integration", landed)
    branch = f"loop/{DEAD}/integration"
    assert ground.gather() == (f"what {DEAD} landed was never delivered: it is on the branch {branch}",)
    assert ground.refs() == {f"refs/heads/{branch}": landed, f"refs/loop/{OURS}/integration": landed}


def test_a_run_that_can_still_be_resumed_keeps_its_refs_and_claims_but_not_its_worktree(ground: Ground) -> None:
    task = ground.store.add(NewIssue(title="a task"), creator="test")
    ground.store.claim(task, f"loop/{DEAD}/0")
    ground.lost_iteration()
    JournalBuilder(run_id=DEAD).write(ground.git.root)
    git(ground.git.root, "update-ref", f"refs/loop/{DEAD}/integration", ground.base)
    branch = f"loop/{DEAD}/t-1.1"
    assert ground.gather() == (
        f"what {DEAD} left of t-1 in w0 is kept: the branch {branch}",
        f"{DEAD} died, and is not settled: loop resume {DEAD}",
    )
    assert f"refs/loop/{DEAD}/integration" in ground.refs()
    assert {t.assignee for t in ground.store.read()} == {f"loop/{DEAD}/0"}
