"""The worktree pool: made or reset, verified, whatever state the last user left it in."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hew_loop.errors import RepoError, UsageError
from hew_loop.repo.git import Git
from hew_loop.repo.worktrees import Pool, Worktree
from tests.support.repos import commit, git, make_repo, write


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    files = {"a.txt": "a\n", "src/b.txt": "b\n", ".gitignore": "build/\n/.env\n/linked\n/tree\n"}
    return make_repo(tmp_path / "repo", files)


@pytest.fixture
def pool(repo: Path, tmp_path: Path) -> Pool:
    return Pool(Git.discover(repo), tmp_path / "pool")


@pytest.fixture
def base(repo: Path) -> str:
    return git(repo, "rev-parse", "main")


def is_clean(worktree: Worktree) -> bool:
    return git(worktree.path, "status", "--porcelain", "-uall") == ""


def test_a_new_worktree_is_detached_at_the_commit(pool: Pool, repo: Path, base: str) -> None:
    made = pool.prepare("w1", base)
    assert made == Worktree("w1", pool.root / "w1", repo / ".git/worktrees/w1")
    assert git(made.path, "rev-parse", "HEAD") == base
    assert git(made.path, "rev-parse", "--abbrev-ref", "HEAD") == "HEAD"
    assert is_clean(made)


def test_a_reset_goes_to_the_new_commit_and_keeps_ignored_build_products(pool: Pool, repo: Path, base: str) -> None:
    made = pool.prepare("w1", base)
    write(made.path, {"a.txt": "dirty", "new/file": "x", "build/cache": "warm", "src/b.txt": "staged"})
    git(made.path, "add", "src/b.txt")
    newer = commit(repo, {"a.txt": "newer\n"}, "newer")
    inode = (made.path / "src").stat().st_ino
    again = pool.prepare("w1", newer, branch="loop/r/t.1")
    assert (again, is_clean(again), (made.path / "build/cache").read_text()) == (made, True, "warm")
    assert git(made.path, "symbolic-ref", "HEAD") == "refs/heads/loop/r/t.1"
    assert git(made.path, "rev-parse", "HEAD") == newer
    assert not (made.path / "new").exists()
    assert (made.path / "src").stat().st_ino == inode
    pool.prepare("w1", newer, pristine=True)
    assert not (made.path / "build").exists()


@pytest.mark.parametrize("warm", [False, True])
def test_a_branch_that_exists_is_refused_and_not_moved(pool: Pool, repo: Path, base: str, warm: bool) -> None:
    if warm:
        pool.prepare("w1", base)
    git(repo, "branch", "loop/r/t.1", base)
    newer = commit(repo, {"a.txt": "newer\n"}, "newer")
    with pytest.raises(RepoError, match=r"loop/r/t\.1 exists already"):
        pool.prepare("w1", newer, branch="loop/r/t.1")
    assert git(repo, "rev-parse", "loop/r/t.1") == base


def leave_index_lock(worktree: Worktree) -> None:
    (worktree.git_dir / "index.lock").touch()


def leave_initializing(worktree: Worktree) -> None:
    (worktree.git_dir / "locked").write_text("initializing")


def delete_link(worktree: Worktree) -> None:
    (worktree.path / ".git").unlink()


def own_repository(worktree: Worktree) -> None:
    (worktree.path / ".git").unlink()
    git(worktree.path, "init", "-q")


def delete_directory(worktree: Worktree) -> None:
    worktree.path.rename(worktree.path.with_name("elsewhere"))


def replace_by_link(worktree: Worktree) -> None:
    delete_directory(worktree)
    worktree.path.symlink_to(worktree.path.with_name("elsewhere"))


def delete_admin(worktree: Worktree) -> None:
    worktree.git_dir.rename(worktree.git_dir.with_name("gone"))
    (worktree.git_dir.with_name("gone") / "gitdir").write_text("/nowhere/.git\n")


def corrupt_index(worktree: Worktree) -> None:
    (worktree.git_dir / "index").write_text("garbage")


def corrupt_head(worktree: Worktree) -> None:
    (worktree.git_dir / "HEAD").write_text("garbage")


def sparse_checkout(worktree: Worktree) -> None:
    git(worktree.path, "sparse-checkout", "set", "src")
    assert not (worktree.path / "a.txt").exists() or git(worktree.path, "sparse-checkout", "list") == "src"


def merge_in_progress(worktree: Worktree) -> None:
    first = git(worktree.path, "rev-parse", "HEAD")
    other = commit(worktree.path, {"a.txt": "other\n"}, "other")
    git(worktree.path, "checkout", "-q", "--detach", first)
    commit(worktree.path, {"a.txt": "mine\n"}, "mine")
    git(worktree.path, "merge", other, check=False)
    assert (worktree.git_dir / "MERGE_HEAD").exists()


def rebase_in_progress(worktree: Worktree) -> None:
    first = git(worktree.path, "rev-parse", "HEAD")
    other = commit(worktree.path, {"a.txt": "other\n"}, "other")
    git(worktree.path, "checkout", "-q", "--detach", first)
    commit(worktree.path, {"a.txt": "mine\n"}, "mine")
    git(worktree.path, "rebase", other, check=False)
    assert (worktree.git_dir / "rebase-merge").exists()


def unborn_branch(worktree: Worktree) -> None:
    git(worktree.path, "checkout", "-q", "--orphan", "fresh")


def repository_inside(worktree: Worktree) -> None:
    write(worktree.path, {"inner/file": "x"})
    git(worktree.path / "inner", "init", "-q")


def kept_open_branch(worktree: Worktree) -> None:
    git(worktree.path, "checkout", "-q", "-b", "mine")


@pytest.mark.parametrize(
    "harm",
    [
        leave_index_lock, leave_initializing, delete_link, own_repository, delete_directory, replace_by_link,
        delete_admin, corrupt_index, corrupt_head, sparse_checkout, merge_in_progress, rebase_in_progress,
        unborn_branch, repository_inside, kept_open_branch,
    ],
)  # fmt: skip
def test_whatever_the_last_user_left_the_worktree_is_whole_again(
    pool: Pool, repo: Path, base: str, harm: object
) -> None:
    assert callable(harm)
    harm(pool.prepare("w1", base))
    newer = commit(repo, {"a.txt": "newer\n"}, "newer")
    again = pool.prepare("w1", newer, branch="loop/r/t.2")
    assert git(again.path, "rev-parse", "--show-toplevel") == str(again.path)
    assert git(again.path, "rev-parse", "--git-dir") == str(again.git_dir)
    assert git(again.path, "symbolic-ref", "HEAD") == "refs/heads/loop/r/t.2"
    assert git(again.path, "rev-parse", "HEAD") == newer
    assert is_clean(again)
    assert sorted(p.name for p in again.path.iterdir()) == [".git", ".gitignore", "a.txt", "src"]
    left = {p.name for p in again.git_dir.iterdir()}
    assert not left & {"MERGE_HEAD", "rebase-merge", "index.lock", "config.worktree"}
    assert git(again.path, "status").count("in progress") == 0


def test_links_are_deleted_and_never_what_they_lead_to(pool: Pool, tmp_path: Path, base: str) -> None:
    treasure = tmp_path / "treasure"
    write(treasure, {"node_modules/x": "x"})
    for pristine in (False, True):
        made = pool.prepare("w1", base)
        (made.path / "untracked").symlink_to(treasure)
        (made.path / "linked").unlink(missing_ok=True)
        (made.path / "linked").symlink_to(treasure)
        made = pool.prepare("w1", base, pristine=pristine)
        assert [os.path.lexists(made.path / name) for name in ("untracked", "linked")] == [False, not pristine]
    (made.path / "linked").symlink_to(treasure)
    pool.remove("w1")
    assert (treasure / "node_modules/x").read_text() == "x"
    assert not made.path.exists()


def test_removing_takes_the_worktree_its_lease_and_gits_record(pool: Pool, repo: Path, base: str) -> None:
    made = pool.prepare("w1", base)
    write(made.path, {"cache/deep/file": "x"})
    (made.path / "cache/deep").chmod(0o500)
    pool.write_lease("w1", {"run_id": "r", "task": "t"})
    pool.remove("w1")
    pool.remove("w1")
    assert pool.listing() == ()
    assert pool.read_leases() == {}
    assert len(git(repo, "worktree", "list").splitlines()) == 1
    assert not made.git_dir.exists()


def test_many_worktrees_at_once_leave_configuration_and_repository_whole(pool: Pool, repo: Path, base: str) -> None:
    before = (repo / ".git/config").read_bytes()
    barrier = threading.Barrier(8)

    def use(number: int) -> str:
        barrier.wait()
        for attempt in range(3):
            made = pool.prepare(f"w{number}", base, branch=f"loop/r/t{number}.{attempt}")
            if attempt == 1:
                pool.remove(f"w{number}")
        return git(made.path, "rev-parse", "HEAD")

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(use, range(8))) == [base] * 8
    assert (repo / ".git/config").read_bytes() == before
    assert [tree.name for tree in pool.listing()] == [f"w{n}" for n in range(8)]


def test_the_listing_names_worktrees_and_directories_that_git_has_forgotten(pool: Pool, base: str) -> None:
    made = pool.prepare("w1", base)
    pool.write_lease("w1", {"run_id": "r", "attempt": 2})
    write(pool.root, {"w2/left": "12345"})
    first, second = pool.listing()
    assert (first.name, first.path, first.git_dir, first.head) == ("w1", made.path, made.git_dir, base)
    assert (first.lease, second.name, second.git_dir, second.lease) == ({"run_id": "r", "attempt": 2}, "w2", None, None)
    assert second.size_bytes() == 5
    assert pool.is_ours(made.path / "src")
    assert not pool.is_ours(pool.root.parent / "repo")


def test_a_torn_lease_is_still_a_lease(pool: Pool) -> None:
    pool.write_lease("w1", {"run_id": "r"})
    (pool.root / "w2.lease.json").write_text('{"run_')
    assert pool.read_leases() == {"w1": {"run_id": "r"}, "w2": {}}
    pool.drop_lease("w2")
    pool.drop_lease("w2")
    assert pool.read_leases() == {"w1": {"run_id": "r"}}


def test_detaching_frees_the_branch_and_keeps_the_files(pool: Pool, repo: Path, base: str) -> None:
    made = pool.prepare("w1", base, branch="loop/r/t.1")
    write(made.path, {"a.txt": "dirty"})
    pool.detach(made)
    assert git(made.path, "status", "--porcelain", "--branch") == "## HEAD (no branch)\n M a.txt"
    assert git(repo, "branch", "-D", "loop/r/t.1").startswith("Deleted")


def test_every_repository_has_a_directory_of_its_own(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_repo(tmp_path / "else" / "repo", {"x": "x"})
    here, there = (Pool.default_root(Git.discover(r)) for r in (repo, other))
    assert here != there
    assert here.parent == Path(os.environ["HEW_WORKTREE_ROOT"])
    monkeypatch.delenv("HEW_WORKTREE_ROOT")
    assert Pool.default_root(Git.discover(repo)) == Path.home() / ".cache/hew-loop" / here.name


def test_a_pool_that_cannot_be_written_is_an_error_with_a_way_out(repo: Path, tmp_path: Path, base: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RepoError) as caught:
        Pool(Git.discover(repo), tmp_path / "file" / "pool").prepare("w1", base)
    assert "HEW_WORKTREE_ROOT" in caught.value.hint


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-x", ".hidden", "w1.lease"])
def test_a_name_cannot_become_a_path(pool: Pool, base: str, name: str) -> None:
    with pytest.raises(ValueError, match="not a name"):
        pool.prepare(name, base)


def test_a_clean_merge_is_committed_and_a_conflict_left_for_the_agent(pool: Pool, repo: Path, base: str) -> None:
    clean = commit(repo, {"src/b.txt": "theirs\n"}, "clean")
    git(repo, "checkout", "-q", "--detach", base)
    clash = commit(repo, {"a.txt": "theirs\n"}, "clash")
    git(repo, "checkout", "-q", "--detach", base)
    tip = commit(repo, {"a.txt": "tip\n"}, "tip")
    made = pool.prepare("w1", tip, branch="loop/r/t.1")
    assert pool.start_merge(made, clean) == ()
    assert git(made.path, "show", "-s", "--format=%P", "HEAD").split() == [tip, clean]
    assert is_clean(made)
    assert pool.start_merge(made, clash) == ("a.txt",)
    assert "<<<<<<< " in (made.path / "a.txt").read_text()
    assert (made.git_dir / "MERGE_HEAD").read_text().strip() == clash
    with pytest.raises(RepoError):
        pool.start_merge(pool.prepare("w2", tip), "0" * 40)


@pytest.mark.parametrize("tip_has_tracker", [False, True])
def test_the_trackers_files_are_never_in_conflict_for_the_agent(
    pool: Pool, repo: Path, base: str, tip_has_tracker: bool
) -> None:
    theirs = commit(repo, {".beads/issues.jsonl": "theirs\n", ".beads/x": "x", "c.txt": "c\n", "a.txt": "1\n"}, "t")
    git(repo, "checkout", "-q", "--detach", base)
    tip = commit(repo, {".beads/issues.jsonl": "tip\n"} if tip_has_tracker else {"d": "d"}, "tip")
    made = pool.prepare("w1", tip)
    assert pool.start_merge(made, theirs) == ()
    assert is_clean(made)
    assert (made.path / "c.txt").exists()
    if tip_has_tracker:
        assert (made.path / ".beads/issues.jsonl").read_text() == "tip\n"
    both = commit(repo, {"a.txt": "2\n", ".beads/issues.jsonl": "newest\n"}, "both")
    again = pool.prepare("w1", both)
    assert pool.start_merge(again, theirs) == ("a.txt",)
    assert (again.path / ".beads/issues.jsonl").read_text() == "newest\n"
    assert git(again.path, "diff", "--name-only", "--diff-filter=U") == "a.txt"


def test_ignored_things_are_copied_and_linked(pool: Pool, repo: Path, base: str) -> None:
    write(repo, {".env": "SECRET=1", "build/x/y": "y", "tree/deep/z": "z", "linked/big": "big"})
    (repo / "tree/hop").symlink_to("deep/z")
    made = pool.prepare("w1", base)
    for _ in range(2):
        pool.link_and_copy(made, copy=[".env", "build/", "tree"], link=["linked"])
    assert (made.path / ".env").read_text() == "SECRET=1"
    assert (made.path / "build/x/y").read_text() == "y"
    assert (made.path / "tree/hop").readlink() == Path("deep/z")
    assert (made.path / "linked").readlink() == repo / "linked"
    assert is_clean(made)
    write(repo, {".env": "SECRET=22"})
    pool.link_and_copy(made, copy=[".env"], link=[])
    assert (made.path / ".env").read_text() == "SECRET=22"


@pytest.mark.parametrize(
    ("verb", "name"),
    [("copy", "a.txt"), ("copy", "plain"), ("copy", "folder"), ("link", "src"), ("link", "build"), ("copy", "../x"),
     ("link", "/etc"), ("copy", ".git/config"), ("copy", "")],
)  # fmt: skip
def test_what_would_be_committed_or_leads_out_is_a_usage_error(
    pool: Pool, repo: Path, base: str, verb: str, name: str
) -> None:
    write(repo, {"plain": "x", "folder/x": "x", "build/x": "x"})
    made = pool.prepare("w1", base)
    with pytest.raises(UsageError):
        pool.link_and_copy(made, copy=[name] if verb == "copy" else [], link=[name] if verb == "link" else [])
    assert is_clean(made)


def test_a_link_in_the_way_does_not_lead_a_copy_out_of_the_tree(pool: Pool, repo: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    write(repo, {".gitignore": "*.secret\n", "conf/x.secret": "s"})
    newer = commit(repo, {}, "ignore")
    made = pool.prepare("w1", newer)
    (made.path / "conf").symlink_to(outside)
    with pytest.raises(UsageError, match="through a link"):
        pool.link_and_copy(made, copy=["conf/x.secret"], link=[])
    assert list(outside.iterdir()) == []


def test_a_missing_source_is_named(pool: Pool, base: str) -> None:
    made = pool.prepare("w1", base)
    with pytest.raises(RepoError, match=r"'\.env' is not in"):
        pool.link_and_copy(made, copy=[".env"], link=[])


def test_a_submodule_that_is_not_initialised_breaks_nothing(pool: Pool, repo: Path, tmp_path: Path) -> None:
    other = make_repo(tmp_path / "other", {"x": "x"})
    git(repo, "submodule", "add", "-q", str(other), "sub")
    newer = commit(repo, {}, "submodule")
    for _ in range(2):
        made = pool.prepare("w1", newer)
        assert is_clean(made)
        assert list((made.path / "sub").iterdir()) == []
        write(made.path, {"a.txt": "x"})
    pool.remove("w1")
    assert pool.listing() == ()
