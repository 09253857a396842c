"""Delivery: the user's branch and checkout go forward together, over nothing that they have touched, or not at all."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from hew_loop.repo.delivery import Delivered, LaunchMoved, Refused, deliver
from hew_loop.repo.git import Git
from tests.support.repos import commit, git, make_repo, write

ATTRIBUTES = "*.crlf text eol=crlf\n"


@dataclass(frozen=True)
class Place:
    repo: Path
    old: str
    new: str

    def deliver(self, branch: str = "main", expected: str | None = None) -> Delivered | LaunchMoved | Refused:
        return deliver(Git.discover(self.repo), branch=branch, expected=expected or self.old, new=self.new)

    def refused(self) -> str:
        """Deliver, be refused, and see that nothing at all has changed."""
        before = self.state()
        outcome = self.deliver()
        assert isinstance(outcome, Refused)
        assert self.state() == before
        return outcome.reason

    def state(self) -> tuple[object, ...]:
        files = {
            path.relative_to(self.repo): path.readlink() if path.is_symlink() else path.read_bytes()
            for path in self.repo.rglob("*")
            if ".git" not in path.relative_to(self.repo).parts and (path.is_symlink() or path.is_file())
        }
        left = {p.name for p in (self.repo / ".git").iterdir()} - {"COMMIT_EDITMSG"}
        return files, git(self.repo, "ls-files", "-s"), git(self.repo, "rev-parse", "HEAD"), left

    def agrees(self) -> bool:
        """HEAD, branch, index and files are all at the new commit."""
        return (git(self.repo, "status", "--porcelain", "-uall"), git(self.repo, "rev-parse", "HEAD", "main")) == (
            "",
            f"{self.new}\n{self.new}",
        )


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Between old and new: changes, additions, removals, a mode, a link, files that become directories and back."""
    repo = make_repo(
        tmp_path / "repo",
        {
            "changed.txt": "old\n", "same.txt": "same\n", "gone/deep/x.txt": "x\n", "run.sh": "#!/bin/sh\n",
            "file-then-dir": "f\n", "dir-then-file/a": "a\n", "dir-then-file/b": "b\n", "linked": "plain\n",
            ".gitignore": "build/\n*.log\n", "text.crlf": "one\r\n",
        },
    )  # fmt: skip
    (repo / "away").symlink_to("same.txt")
    old = commit(repo, {}, "old")
    git(repo, "checkout", "-q", "-b", "work")
    git(repo, "rm", "-q", "-r", "gone", "file-then-dir", "dir-then-file", "linked", "away")
    (repo / "linked").symlink_to("same.txt")
    (repo / "run.sh").chmod(0o755)
    files = {
        "changed.txt": "new\n", "added/deep/y.txt": "y\n", "file-then-dir/inner": "i\n", "dir-then-file": "d\n",
        ".gitattributes": ATTRIBUTES, "text.crlf": "one\ntwo\n", 'odd\n"name': "o\n", "bad\udcff": "b\n",
        '"quoted': "q\n", "away/from/link": "l\n", "debug.log": "",
    }  # fmt: skip
    write(repo, files)
    git(repo, "add", "-f", "debug.log")
    new = commit(repo, {}, "new")
    git(repo, "checkout", "-q", "main")
    return Place(repo, old, new)


def test_everything_goes_forward_together(place: Place) -> None:
    write(place.repo, {"build/cache": "warm", "mine.txt": "untracked\n"})
    assert place.deliver() == Delivered(commit=place.new, moved_checkout=True)
    (place.repo / "mine.txt").unlink()
    assert place.agrees()
    assert (place.repo / "text.crlf").read_bytes() == b"one\r\ntwo\r\n"
    assert (place.repo / "run.sh").stat().st_mode & 0o111
    assert not (place.repo / "gone").exists()
    assert (place.repo / "build/cache").read_text() == "warm"
    assert git(place.repo, "reflog", "-1", "--format=%gs") == "loop: fast-forward"
    assert not list((place.repo / ".git").glob("hew-loop*"))


def test_delivering_again_says_delivered(place: Place) -> None:
    place.deliver()
    assert place.deliver() == Delivered(commit=place.new, moved_checkout=False)
    later = commit(place.repo, {"later": "l"}, "later")
    assert place.deliver() == Delivered(commit=later, moved_checkout=False)


def test_a_branch_that_is_checked_out_nowhere_moves_alone(place: Place) -> None:
    git(place.repo, "checkout", "-q", "--detach")
    before = place.state()
    assert place.deliver() == Delivered(commit=place.new, moved_checkout=False)
    assert place.state() == before
    assert git(place.repo, "rev-parse", "main") == place.new


def test_a_linked_worktree_that_holds_the_branch_goes_along(place: Place, tmp_path: Path) -> None:
    git(place.repo, "checkout", "-q", "--detach")
    linked = tmp_path / "linked"
    git(place.repo, "worktree", "add", "-q", str(linked), "main")
    assert place.deliver() == Delivered(commit=place.new, moved_checkout=True)
    assert git(linked, "status", "--porcelain") == ""
    assert git(linked, "rev-parse", "HEAD") == place.new
    assert git(place.repo, "status", "--porcelain") == ""


def test_a_worktree_that_is_gone_holds_nothing(place: Place, tmp_path: Path) -> None:
    git(place.repo, "checkout", "-q", "--detach")
    git(place.repo, "worktree", "add", "-q", str(tmp_path / "linked"), "main")
    (tmp_path / "linked").rename(tmp_path / "moved")
    assert place.deliver() == Delivered(commit=place.new, moved_checkout=False)


def test_a_branch_with_new_commits_of_the_user_is_told(place: Place) -> None:
    tip = commit(place.repo, {"by day": "d"}, "by day")
    before = place.state()
    assert place.deliver() == LaunchMoved(tip=tip)
    assert place.state() == before


def test_a_branch_that_moved_but_is_contained_is_delivered(place: Place) -> None:
    git(place.repo, "checkout", "-q", "work")
    git(place.repo, "branch", "-f", "main", "work")
    newer = Place(place.repo, place.old, commit(place.repo, {"more": "m"}, "more"))
    git(place.repo, "checkout", "-q", "main")
    assert newer.deliver() == Delivered(commit=newer.new, moved_checkout=True)
    assert newer.agrees()


def test_what_the_user_dropped_is_not_brought_back(place: Place) -> None:
    git(place.repo, "reset", "-q", "--hard", f"{place.old}^")
    assert "moved back" in place.refused()


def test_a_missing_branch_is_refused(place: Place) -> None:
    outcome = place.deliver(branch="nope")
    assert outcome == Refused("the branch nope does not exist any more")


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ({"changed.txt": "mine\n"}, "changed.txt"),
        ({"gone/deep/x.txt": "mine\n"}, "gone/deep/x.txt"),
        ({"added/deep/y.txt": "in the way\n"}, "added/deep/y.txt"),
        ({"added": "a file where a directory goes\n"}, "added/deep/y.txt"),
        ({"dir-then-file/mine": "untracked\n"}, "dir-then-file"),
        ({"dir-then-file/mine.log": "ignored\n"}, "dir-then-file"),
        ({"debug.log": "ignored, and in the way\n"}, "debug.log"),
        ({"linked": "mine\n"}, "linked"),
        ({'odd\n"name': "mine\n"}, 'odd\n"name'),
        ({'"quoted': "mine\n"}, '"quoted'),
    ],
)  # fmt: skip
def test_a_file_that_the_user_has_touched_is_named_and_nothing_moves(
    place: Place, files: dict[str, str], named: str
) -> None:
    write(place.repo, files)
    assert place.refused() == f"{named} is changed in {place.repo} and would be overwritten"


def test_a_deleted_file_counts_as_touched(place: Place) -> None:
    (place.repo / "changed.txt").unlink()
    assert "changed.txt is changed" in place.refused()


def test_a_changed_mode_counts_as_touched(place: Place) -> None:
    (place.repo / "changed.txt").chmod(0o755)
    assert "changed.txt is changed" in place.refused()


def test_what_is_only_staged_counts_as_touched(place: Place) -> None:
    write(place.repo, {"changed.txt": "staged\n"})
    git(place.repo, "add", "changed.txt")
    write(place.repo, {"changed.txt": "old\n"})
    assert "changed.txt is changed" in place.refused()


def test_hidden_changes_count_as_touched(place: Place) -> None:
    git(place.repo, "update-index", "--assume-unchanged", "changed.txt")
    write(place.repo, {"changed.txt": "hidden\n"})
    assert "changed.txt is changed" in place.refused()


def test_a_users_link_in_place_of_a_directory_is_not_followed(place: Place, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (place.repo / "added").symlink_to(tmp_path / "outside")
    assert "added/deep/y.txt is changed" in place.refused()
    assert list((tmp_path / "outside").iterdir()) == []


def test_many_files_are_named_up_to_ten(tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "many", {f"{n:02}": "old" for n in range(15)})
    old = git(repo, "rev-parse", "HEAD")
    new = commit(repo, {f"{n:02}": "new" for n in range(15)}, "new")
    git(repo, "reset", "-q", "--hard", old)
    write(repo, {f"{n:02}": "mine" for n in range(15)})
    names = ", ".join(f"{n:02}" for n in range(10))
    reason = f"{names} and 5 more are changed in {repo} and would be overwritten"
    assert Place(repo, old, new).deliver() == Refused(reason)


def test_other_dirty_files_stay_exactly_as_they_are(place: Place) -> None:
    write(place.repo, {"same.txt": "mine, not staged\n", "mine.txt": "untracked\n", "staged.txt": "s\n"})
    git(place.repo, "add", "staged.txt")
    assert place.deliver() == Delivered(commit=place.new, moved_checkout=True)
    status = git(place.repo, "status", "--porcelain").splitlines()
    assert sorted(status) == [" M same.txt", "?? mine.txt", "A  staged.txt"]
    assert (place.repo / "same.txt").read_text() == "mine, not staged\n"


@pytest.mark.parametrize("operation", ["merge", "rebase", "cherry-pick"])
def test_an_operation_in_progress_is_refused(place: Place, operation: str) -> None:
    git(place.repo, "checkout", "-q", "-b", "other", f"{place.old}^")
    commit(place.repo, {"changed.txt": "other\n"}, "other")
    git(place.repo, "checkout", "-q", "main")
    mine = commit(place.repo, {"changed.txt": "conflict\n"}, "conflict")
    git(place.repo, operation, "other", check=False)
    held = Place(place.repo, mine, git(place.repo, "commit-tree", "HEAD^{tree}", "-p", mine, "-m", "new"))
    assert operation in held.refused()


def test_a_git_process_of_the_user_is_respected(place: Place) -> None:
    (place.repo / ".git/index.lock").write_bytes(b"DIRC")
    assert "a git process is at work" in place.refused()
    assert (place.repo / ".git/index.lock").read_bytes() == b"DIRC"


def test_a_branch_checked_out_twice_or_by_another_name_is_refused(place: Place, tmp_path: Path) -> None:
    git(place.repo, "worktree", "add", "-q", "--force", str(tmp_path / "second"), "main")
    assert "more than once" in place.refused()
    git(place.repo, "symbolic-ref", "refs/heads/alias", "refs/heads/main")
    outcome = place.deliver(branch="alias")
    assert isinstance(outcome, Refused)
    assert "another name" in outcome.reason


def test_a_sparse_checkout_is_left_to_the_user(place: Place) -> None:
    git(place.repo, "sparse-checkout", "set", "--no-cone", "/same.txt")
    assert "sparse checkout" in place.refused()


def test_no_hook_of_the_user_runs(place: Place) -> None:
    hooks = place.repo / ".git/hooks"
    hooks.mkdir(exist_ok=True)
    for name in ("post-merge", "post-checkout", "reference-transaction", "post-index-change"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch {place.repo}.ran\nexit 1\n")
        (hooks / name).chmod(0o755)
    assert place.deliver() == Delivered(commit=place.new, moved_checkout=True)
    assert not Path(f"{place.repo}.ran").exists()


@pytest.fixture
def tracked(tmp_path: Path) -> Place:
    repo = make_repo(tmp_path / "tracked", {"a": "a", ".beads/issues.jsonl": "old\n", ".beads/meta": "m\n"})
    old = git(repo, "rev-parse", "HEAD")
    new = commit(repo, {"a": "b", ".beads/issues.jsonl": "new\n"}, "new")
    git(repo, "reset", "-q", "--hard", old)
    return Place(repo, old, new)


def test_the_trackers_own_changes_never_count_and_are_not_overwritten(tracked: Place) -> None:
    write(tracked.repo, {".beads/issues.jsonl": "claimed\n", ".beads/meta": "n\n", ".beads/lock": ""})
    assert tracked.deliver() == Delivered(commit=tracked.new, moved_checkout=True)
    assert (tracked.repo / ".beads/issues.jsonl").read_text() == "claimed\n"
    status = git(tracked.repo, "status", "--porcelain").splitlines()
    assert sorted(status) == [" M .beads/issues.jsonl", " M .beads/meta", "?? .beads/lock"]


def test_staged_changes_of_the_tracker_stay_staged(tracked: Place) -> None:
    write(tracked.repo, {".beads/issues.jsonl": "staged\n"})
    git(tracked.repo, "add", ".beads")
    assert tracked.deliver() == Delivered(commit=tracked.new, moved_checkout=True)
    assert git(tracked.repo, "show", ":.beads/issues.jsonl") == "staged"
    assert (tracked.repo / ".beads/issues.jsonl").read_text() == "staged\n"


def test_the_trackers_files_go_along_where_nobody_changed_them(tracked: Place) -> None:
    assert tracked.deliver() == Delivered(commit=tracked.new, moved_checkout=True)
    assert tracked.agrees()


KILL = """
import os, sys
from pathlib import Path
from hew_loop.repo import checkout
from hew_loop.repo.delivery import deliver
from hew_loop.repo.git import Git

left = int(sys.argv[4])
git = Git.discover(Path(sys.argv[1]))

def dying(real):
    def call(*args, **kwargs):
        global left
        left -= 1
        if left < 0:
            os._exit(9)
        return real(*args, **kwargs)
    return call

for owner, names in ((Git, ("call",)), (Path, ("replace", "unlink", "rmdir", "mkdir", "open"))):
    for name in names:
        setattr(owner, name, dying(getattr(owner, name)))
print(deliver(git, branch="main", expected=sys.argv[2], new=sys.argv[3]))
"""


@pytest.mark.slow
def test_a_kill_at_any_step_is_completed_by_calling_again(place: Place) -> None:
    for steps in range(1000):
        git(place.repo, "reset", "-q", "--hard", place.old)
        write(place.repo, {"same.txt": "mine\n"})
        argv = [sys.executable, "-c", KILL, str(place.repo), place.old, place.new, str(steps)]
        killed = subprocess.run(argv, capture_output=True, check=False)
        outcome = place.deliver()
        assert isinstance(outcome, Delivered), (steps, outcome)
        assert git(place.repo, "status", "--porcelain", "-uall") == " M same.txt", steps
        assert git(place.repo, "rev-parse", "main") == place.new
        assert not list((place.repo / ".git").glob("*.lock"))
        if killed.returncode == 0:
            assert steps > 20
            return
    pytest.fail("the delivery never came to its end")
