"""After the agent: everything it left is reachable from a ref, and only finished work is on its branch."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from hew_loop.repo.git import Git
from hew_loop.repo.worktrees import Collected, Pool, Worktree
from tests.support.repos import commit, git, make_repo, write

BRANCH = "loop/r/t.1"
SALVAGE = "refs/loop/r/salvage/t.1"
MESSAGE = "Work of t\n\nTask: t\nRun: r\nAttempt: 1\n"
MARKERS = "<<<<<<< HEAD\nours\n=======\ntheirs\n>>>>>>> other\n"


@dataclass(frozen=True)
class Place:
    repo: Path
    pool: Pool
    worktree: Worktree
    start: str
    aside: Path

    @property
    def path(self) -> Path:
        return self.worktree.path

    def collect(self, *, litter: tuple[str, ...] = ()) -> Collected:
        found = self.pool.collect(
            self.worktree,
            branch=BRANCH,
            message=MESSAGE,
            salvage_ref=SALVAGE,
            start=self.start,
            aside=self.aside,
            litter=litter,
        )
        assert git(self.repo, "rev-parse", BRANCH) == found.head
        assert git(self.repo, "--git-dir", str(self.worktree.git_dir), "rev-parse", "HEAD") == found.head
        assert BRANCH not in Git.discover(self.repo).checked_out()
        return found

    def changed(self, new: str) -> set[str]:
        return set(git(self.repo, "diff", "--no-renames", "--name-only", "-z", self.start, new).split("\0")) - {""}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    files = {"a.txt": "a\n", "src/b.txt": "b\n", "docs/git.md": MARKERS, ".gitignore": "build/\n"}
    repo = make_repo(tmp_path / "repo", files)
    pool = Pool(Git.discover(repo), tmp_path / "pool")
    start = git(repo, "rev-parse", "main")
    return Place(repo, pool, pool.prepare("w1", start, branch=BRANCH), start, tmp_path / "aside")


def test_an_agent_that_did_nothing_left_nothing(place: Place) -> None:
    assert place.collect() == Collected(
        head=place.start, dirty=False, unmerged=(), salvage=None, descends=True, repaired=()
    )


def test_what_the_agent_committed_is_its_head(place: Place) -> None:
    head = commit(place.path, {"a.txt": "mine\n"}, "mine")
    assert place.collect() == Collected(head=head, dirty=False, unmerged=(), salvage=None, descends=True)


def test_what_it_left_uncommitted_is_committed_with_the_message(place: Place) -> None:
    middle = commit(place.path, {"a.txt": "mine\n"}, "mine")
    write(place.path, {"src/b.txt": "changed\n", "new/c.txt": "c\n", "build/cache": "ignored"})
    (place.path / "docs/git.md").unlink()
    found = place.collect()
    assert found == Collected(head=found.head, dirty=True, unmerged=(), salvage=None, descends=True)
    assert git(place.repo, "show", "-s", "--format=%P%n%B", found.head) == f"{middle}\n{MESSAGE}".rstrip()
    assert place.changed(found.head) == {"a.txt", "src/b.txt", "new/c.txt", "docs/git.md"}


def test_what_the_agents_program_leaves_for_itself_is_no_work_where_it_is_not_tracked(place: Place) -> None:
    head = commit(place.path, {".aider.conf.yml": "read: a.txt\n"}, "mine")
    write(place.path, {".aider.history": "x", ".aider.tags.v4/db": "x", ".aider.tags.v4/a/b": "x"})
    assert place.collect(litter=(".aider*",)) == Collected(
        head=head, dirty=False, unmerged=(), salvage=None, descends=True
    )
    write(place.path, {".aider.conf.yml": "", "src/.aider.x": "x", ".aider.history": "x", "b": "b"})
    found = place.collect(litter=(".aider*",))
    assert place.changed(found.head) == {".aider.conf.yml", "src/.aider.x", "b"}


def test_collecting_twice_is_collecting_once(place: Place) -> None:
    write(place.path, {"a.txt": "mine\n"})
    first = place.collect()
    second = place.collect()
    assert (second.head, second.dirty, second.descends, second.repaired) == (first.head, False, True, ())


def test_no_hook_no_signature_and_no_identity_is_needed(place: Place) -> None:
    (Path.home() / ".gitconfig").write_text("[commit]\n\tgpgsign = true\n[user]\n\tsigningkey = nobody\n")
    hooks = place.repo / ".git/hooks"
    hooks.mkdir(exist_ok=True)
    for name in ("pre-commit", "commit-msg", "post-commit", "reference-transaction", "post-checkout"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch {place.aside}.ran\nexit 1\n")
        (hooks / name).chmod(0o755)
    write(place.path, {"a.txt": "mine\n"})
    found = place.collect()
    assert git(place.repo, "show", "-s", "--format=%an <%ae>", found.head) == "hew-loop <loop@hew-loop.invalid>"
    assert not Path(f"{place.aside}.ran").exists()


def test_odd_files_are_kept_as_they_are(place: Place, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("secret")
    write(
        place.path, {"new\nline.txt": "x", "bad\udcff.txt": "y", "run.sh": "#!/bin/sh\n", "huge.bin": "0" * 5_000_000}
    )
    (place.path / "run.sh").chmod(0o755)
    (place.path / "link").symlink_to(tmp_path / "outside")
    os.mkfifo(place.path / "pipe")
    found = place.collect()
    assert place.changed(found.head) == {"new\nline.txt", "bad\udcff.txt", "run.sh", "link", "huge.bin"}
    tree = git(place.repo, "ls-tree", found.head, "run.sh", "link")
    assert [line[:6] for line in tree.splitlines()] == ["120000", "100755"]
    assert git(place.repo, "cat-file", "blob", f"{found.head}:link") == str(tmp_path / "outside")


@pytest.mark.parametrize("lock", ["index.lock", "HEAD.lock"])
def test_the_lock_of_a_killed_git_is_no_obstacle(place: Place, lock: str) -> None:
    (place.worktree.git_dir / lock).touch()
    (place.repo / f".git/refs/heads/{BRANCH}.lock").touch()
    write(place.path, {"a.txt": "mine\n"})
    found = place.collect()
    assert place.changed(found.head) == {"a.txt"}
    assert [note.rpartition("its ")[2] for note in found.repaired] == [
        f"{lock} has been removed.",
        "t.1.lock has been removed.",
    ]


def test_a_deleted_git_file_does_not_lead_to_a_repository_further_up(place: Place) -> None:
    git(place.pool.root, "init", "-q")
    (place.path / ".git").unlink()
    write(place.path, {"a.txt": "mine\n"})
    found = place.collect()
    assert place.changed(found.head) == {"a.txt"}
    assert found.repaired == ("The worktree's .git was missing; it has been restored.",)
    assert git(place.path, "rev-parse", "--git-dir") == str(place.worktree.git_dir)


def test_a_git_directory_in_its_place_is_moved_aside_with_its_commits(place: Place) -> None:
    (place.path / ".git").unlink()
    git(place.path, "init", "-q", "-b", "own")
    own = commit(place.path, {"a.txt": "mine\n"}, "in a repository of its own")
    found = place.collect()
    assert place.changed(found.head) == {"a.txt"}
    assert git(place.aside / "git.0", "rev-parse", "own") == own
    assert found.repaired == ("The worktree's .git did not lead to this repository any more; it has been restored.",)


def test_a_git_file_that_leads_elsewhere_is_restored(place: Place, tmp_path: Path) -> None:
    other = make_repo(tmp_path / "other", {"x": "x"})
    (place.path / ".git").write_text(f"gitdir: {other}/.git\n")
    write(place.path, {"a.txt": "mine\n"})
    found = place.collect()
    assert place.changed(found.head) == {"a.txt"}
    assert git(other, "log", "--format=%s") == "first"


def test_a_lost_record_inside_git_is_rebuilt_and_the_files_are_kept(place: Place) -> None:
    done = commit(place.path, {"src/b.txt": "committed\n"}, "committed")
    write(place.path, {"a.txt": "mine\n"})
    shutil.rmtree(place.worktree.git_dir)
    found = place.collect()
    assert place.changed(found.head) == {"a.txt", "src/b.txt"}
    assert git(place.repo, "rev-parse", f"{found.head}^") == done
    assert found.repaired == ("git's own record of the worktree was broken; it has been rebuilt.",)


@pytest.mark.parametrize("name", ["HEAD", "index"])
def test_a_broken_head_or_index_loses_nothing(place: Place, name: str) -> None:
    write(place.path, {"a.txt": "mine\n", "new": "n"})
    (place.worktree.git_dir / name).write_text("garbage")
    found = place.collect()
    assert place.changed(found.head) == {"a.txt", "new"}
    assert found.descends


def test_a_worktree_that_is_gone_keeps_its_commits_and_deletes_nothing(place: Place) -> None:
    head = commit(place.path, {"a.txt": "mine\n"}, "mine")
    shutil.rmtree(place.path)
    found = place.collect()
    assert (found.head, found.dirty, found.descends) == (head, False, True)
    assert found.repaired == ("The worktree's directory was gone; only what was committed is kept.",)


def test_a_worktree_replaced_by_a_link_is_not_followed(place: Place, tmp_path: Path) -> None:
    write(tmp_path, {"elsewhere/secret": "s"})
    shutil.rmtree(place.path)
    place.path.symlink_to(tmp_path / "elsewhere")
    assert place.collect().head == place.start
    assert sorted(p.name for p in (tmp_path / "elsewhere").iterdir()) == ["secret"]


def test_a_history_without_a_past_becomes_files_on_top_of_the_branch(place: Place) -> None:
    git(place.path, "checkout", "-q", "--orphan", "fresh")
    write(place.path, {"a.txt": "mine\n"})
    found = place.collect()
    assert (place.changed(found.head), found.descends) == ({"a.txt"}, True)


def test_commits_on_another_branch_come_to_ours_and_the_other_does_not_move(place: Place) -> None:
    git(place.path, "checkout", "-q", "-b", "agent/idea")
    head = commit(place.path, {"a.txt": "mine\n"}, "mine")
    write(place.path, {"src/b.txt": "left\n"})
    found = place.collect()
    assert git(place.repo, "rev-parse", "agent/idea", f"{found.head}^").split() == [head, head]
    assert place.changed(found.head) == {"a.txt", "src/b.txt"}
    assert found.repaired == (f"The agent ended on the branch agent/idea; its commits are on {BRANCH} now.",)


def test_commits_on_no_branch_come_to_ours(place: Place) -> None:
    git(place.path, "checkout", "-q", "--detach")
    head = commit(place.path, {"a.txt": "mine\n"}, "mine")
    found = place.collect()
    assert (found.head, found.salvage) == (head, None)


def test_commits_that_only_the_old_branch_had_are_kept(place: Place) -> None:
    first = commit(place.path, {"a.txt": "first idea\n"}, "first idea")
    git(place.path, "checkout", "-q", "--detach", place.start)
    second = commit(place.path, {"a.txt": "second idea\n"}, "second idea")
    found = place.collect()
    assert (found.head, found.salvage, found.unmerged) == (second, SALVAGE, ())
    assert git(place.repo, "rev-parse", SALVAGE) == first


def test_a_branch_that_the_agent_deleted_is_there_again(place: Place) -> None:
    git(place.path, "checkout", "-q", "--detach")
    head = commit(place.path, {"a.txt": "mine\n"}, "mine")
    git(place.path, "branch", "-D", BRANCH)
    assert place.collect().head == head


def test_a_head_that_left_its_start_is_reported(place: Place) -> None:
    git(place.path, "commit", "-q", "--amend", "-m", "rewritten")
    found = place.collect()
    assert not found.descends
    assert found.head == git(place.repo, "rev-parse", BRANCH)


def conflicting(place: Place) -> str:
    git(place.repo, "checkout", "-q", "--detach", place.start)
    other = commit(place.repo, {"a.txt": "theirs\n", "new.txt": "n\n"}, "other")
    git(place.repo, "checkout", "-q", "main")
    return other


def test_unmerged_paths_are_kept_as_a_salvage_and_not_on_the_branch(place: Place) -> None:
    mine = commit(place.path, {"a.txt": "mine\n"}, "mine")
    git(place.path, "merge", conflicting(place), check=False)
    write(place.path, {"extra.txt": "x"})
    found = place.collect()
    assert found == Collected(head=mine, dirty=True, unmerged=("a.txt",), salvage=SALVAGE, descends=True)
    assert git(place.repo, "rev-parse", f"{SALVAGE}^") == mine
    assert place.changed(SALVAGE) == {"a.txt", "new.txt", "extra.txt"}
    assert "<<<<<<< " in git(place.repo, "show", f"{SALVAGE}:a.txt")
    assert place.pool.prepare("w1", place.start, branch="loop/r/t.2").path == place.path


def test_a_second_salvage_keeps_the_first(place: Place) -> None:
    commit(place.path, {"a.txt": "mine\n"}, "mine")
    git(place.path, "merge", conflicting(place), check=False)
    place.collect()
    first = git(place.repo, "rev-parse", SALVAGE)
    git(place.path, "reset", "-q", "--hard", place.start)
    write(place.path, {"a.txt": MARKERS})
    assert place.collect().unmerged == ("a.txt",)
    assert first in git(place.repo, "rev-list", SALVAGE).split()


def test_a_merge_that_was_resolved_and_not_committed_is_concluded(place: Place) -> None:
    mine = commit(place.path, {"a.txt": "mine\n"}, "mine")
    other = conflicting(place)
    git(place.path, "merge", other, check=False)
    write(place.path, {"a.txt": "both\n"})
    git(place.path, "add", "a.txt")
    found = place.collect()
    assert (found.unmerged, found.salvage) == ((), None)
    assert git(place.repo, "show", "-s", "--format=%P", found.head).split() == [mine, other]


def test_a_merge_resolved_to_what_was_there_is_concluded_too(place: Place) -> None:
    mine = commit(place.path, {"a.txt": "mine\n"}, "mine")
    other = conflicting(place)
    git(place.path, "merge", "--no-commit", "-s", "ours", other)
    found = place.collect()
    assert git(place.repo, "show", "-s", "--format=%P", found.head).split() == [mine, other]


@pytest.mark.parametrize("resolved", [False, True])
def test_a_rebase_in_progress_is_not_finished_work_and_nothing_of_it_is_lost(place: Place, resolved: bool) -> None:
    mine = commit(place.path, {"a.txt": "mine\n"}, "mine")
    more = commit(place.path, {"src/b.txt": "more\n"}, "more")
    git(place.path, "rebase", conflicting(place), check=False)
    if resolved:
        write(place.path, {"a.txt": "resolved\n"})
        git(place.path, "add", "a.txt")
    found = place.collect()
    assert found.unmerged == (("(rebase in progress)",) if resolved else ("a.txt",))
    assert found.salvage == SALVAGE
    assert {mine, more} < set(git(place.repo, "rev-list", SALVAGE).split())


@pytest.mark.parametrize("how", ["new", "changed", "committed", "staged"])
def test_files_with_markers_added_are_never_on_the_branch_uncommitted(place: Place, how: str) -> None:
    name = {"new": "odd name\n.txt"}.get(how, "src/b.txt")
    write(place.path, {name: f"b\n{MARKERS}"})
    head = place.start
    if how == "committed":
        head = commit(place.path, {}, "with markers")
    if how == "staged":
        git(place.path, "add", "-A")
    found = place.collect()
    assert (found.head, found.unmerged) == (head, (name,))
    assert found.salvage == (None if how == "committed" else SALVAGE)


def test_markers_that_were_there_before_or_only_half_of_them_are_no_conflict(place: Place) -> None:
    (place.path / "docs/git.md").rename(place.path / "docs/moved.md")
    write(place.path, {"a.txt": "<<<<<<< HEAD\n", "src/b.txt": "  <<<<<<< x\n  >>>>>>> y\n"})
    with (place.path / "docs/moved.md").open("a") as file:
        file.write("one more line\n")
    found = place.collect()
    assert (found.unmerged, found.salvage) == ((), None)
    assert place.changed(found.head) == {"a.txt", "src/b.txt", "docs/git.md", "docs/moved.md"}


def nested(path: Path, *, committed: bool) -> None:
    write(path, {"file.txt": "inner\n", "deep/er.txt": "inner\n"})
    git(path, "init", "-q", "-b", "main")
    if committed:
        commit(path, {}, "inner")


@pytest.mark.parametrize("committed", [False, True])
def test_of_a_repository_made_inside_the_files_count(place: Place, committed: bool) -> None:
    nested(place.path / "inner", committed=committed)
    nested(place.path / "inner" / "innermost", committed=committed)
    found = place.collect()
    assert place.changed(found.head) == {
        f"inner/{name}" for name in ("file.txt", "deep/er.txt", "innermost/file.txt", "innermost/deep/er.txt")
    }
    assert "160000" not in git(place.repo, "ls-tree", "-r", found.head)
    assert len(found.repaired) == 2
    assert sorted(p.name for p in place.aside.iterdir()) == ["inner-.git.0", "inner-innermost-.git.0"]


@pytest.mark.parametrize("how", ["staged", "committed"])
def test_a_link_to_a_repository_made_inside_becomes_files(place: Place, how: str) -> None:
    nested(place.path / "inner", committed=True)
    git(place.path, "add", "inner")
    if how == "committed":
        git(place.path, "commit", "-q", "-m", "a link to nowhere")
    found = place.collect()
    assert place.changed(found.head) == {"inner/file.txt", "inner/deep/er.txt"}


def test_a_repository_made_over_tracked_files_is_taken_away(place: Place) -> None:
    git(place.path / "src", "init", "-q")
    write(place.path, {"src/new.txt": "n"})
    found = place.collect()
    assert place.changed(found.head) == {"src/new.txt"}
    assert not (place.path / "src/.git").exists()


@pytest.mark.parametrize("bit", ["--assume-unchanged", "--skip-worktree"])
def test_changes_that_were_hidden_from_git_are_found(place: Place, bit: str) -> None:
    git(place.path, "update-index", bit, "a.txt")
    write(place.path, {"a.txt": "hidden\n"})
    found = place.collect()
    assert place.changed(found.head) == {"a.txt"}
    assert found.repaired == ("Changes to files were hidden from git, and count again (1: a.txt).",)


def test_the_users_checkout_is_never_touched(place: Place) -> None:
    write(place.repo, {"a.txt": "user's own\n", "untracked": "u"})
    git(place.repo, "add", "a.txt")
    before = git(place.repo, "status", "--porcelain=v2", "--branch")
    index = (place.repo / ".git/index").read_bytes()
    write(place.path, {"a.txt": "mine\n"})
    place.collect()
    place.pool.prepare("w1", place.start)
    assert git(place.repo, "status", "--porcelain=v2", "--branch") == before
    assert (place.repo / ".git/index").read_bytes() == index
