"""Typed git: finding the repository, refs by compare-and-swap, what changed, what is dirty."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hew_loop.errors import RepoError
from hew_loop.repo import command
from hew_loop.repo.git import Git, Head
from hew_loop.repo.porcelain import DirtyPath, is_under
from tests.support.repos import commit, git, make_repo, write

NONE = "0" * 40


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    return make_repo(tmp_path / "repo", {"a.txt": "a\n", "src/b.txt": "b\n"})


def test_a_subdirectory_leads_to_the_main_worktree(repo: Path) -> None:
    found = Git.discover(repo / "src")
    assert (found.root, found.launch_root, found.common_dir) == (repo, repo, repo / ".git")


def test_a_linked_worktree_leads_to_the_main_one_and_is_remembered(repo: Path, tmp_path: Path) -> None:
    git(repo, "worktree", "add", "-q", "-b", "side", str(tmp_path / "linked"))
    found = Git.discover(tmp_path / "linked" / "src")
    assert (found.root, found.launch_root, found.common_dir) == (repo, tmp_path / "linked", repo / ".git")
    assert found.head() == Head(branch="side", commit=git(repo, "rev-parse", "HEAD"))
    assert found.checked_out() == {"main": repo, "side": tmp_path / "linked"}


def test_a_separate_git_directory_is_no_obstacle(tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    git(top, "init", "-q", "-b", "main", "--separate-git-dir", str(tmp_path / "store"))
    commit(top, {"a": "a"}, "one")
    found = Git.discover(top)
    assert (found.root, found.common_dir) == (top, tmp_path / "store")


def test_git_variables_of_a_hook_do_not_lead_to_another_repository(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_repo(tmp_path / "other", {"x": "x"})
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_LITERAL_PATHSPECS", "1")
    assert Git.discover(repo).root == repo


def test_no_repository_says_git_init(tmp_path: Path) -> None:
    with pytest.raises(RepoError, match="not in a git repository") as caught:
        Git.discover(tmp_path)
    assert "git init" in caught.value.hint


def test_a_bare_repository_and_a_worktree_of_one_are_refused(repo: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "-q", "--bare", str(repo), "bare.git")
    with pytest.raises(RepoError, match="bare repository"):
        Git.discover(tmp_path / "bare.git")
    git(tmp_path / "bare.git", "worktree", "add", "-q", str(tmp_path / "linked"), "-b", "x")
    with pytest.raises(RepoError, match="worktree of the bare repository"):
        Git.discover(tmp_path / "linked")


def test_the_git_directory_itself_is_no_place_to_start(repo: Path) -> None:
    with pytest.raises(RepoError, match="inside a git directory"):
        Git.discover(repo / ".git")


def fake_git(directory: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    directory.mkdir()
    (directory / "git").write_text(f"#!/bin/sh\n{script}\n")
    (directory / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")


def test_an_old_git_is_named_with_its_version(repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_git(tmp_path / "bin", "echo git version 2.34.1", monkeypatch)
    with pytest.raises(RepoError, match=r"git 2\.34\.1 is too old"):
        Git.discover(repo)


def test_a_missing_git_is_an_error_with_a_hint(repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RepoError, match="cannot be started") as caught:
        Git.discover(repo)
    assert "Install git" in caught.value.hint


def test_a_repository_of_another_user_comes_with_the_command(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = f"fatal: detected dubious ownership in repository at '{repo}'"
    fake_git(
        tmp_path / "bin", f'case "$*" in *version) echo git version 2.45.0;; *) echo "{words}" >&2; exit 128;; esac',
        monkeypatch,
    )  # fmt: skip
    with pytest.raises(RepoError, match="belongs to another user") as caught:
        Git.discover(repo)
    assert caught.value.hint == f"git config --global --add safe.directory {repo}"


def test_a_revision_is_a_commit_or_nothing_and_never_an_option(repo: Path) -> None:
    found = Git.discover(repo)
    first = git(repo, "rev-parse", "HEAD")
    revs = ("main", "HEAD", first[:10], "--all", "nope", NONE, "HEAD:a.txt", "")
    assert [found.commit_id(rev) for rev in revs] == [first, first, first, None, None, None, None, None]
    assert found.tree_id(first) == git(repo, "rev-parse", "HEAD^{tree}")
    with pytest.raises(RepoError):
        found.tree_id(NONE)


def test_head_knows_detached_and_unborn(repo: Path, tmp_path: Path) -> None:
    first = git(repo, "rev-parse", "HEAD")
    git(repo, "checkout", "-q", "--detach")
    assert Git.discover(repo).head() == Head(branch=None, commit=first)
    empty = tmp_path / "empty"
    empty.mkdir()
    git(empty, "init", "-q", "-b", "trunk")
    assert Git.discover(empty).head() == Head(branch="trunk", commit=None)


def test_a_ref_moves_only_from_its_old_value(repo: Path) -> None:
    found = Git.discover(repo)
    first = git(repo, "rev-parse", "HEAD")
    second = commit(repo, {"a.txt": "2"}, "second")
    ref = "refs/loop/r/integration"
    assert found.update_ref(ref, first, old=None)
    assert not found.update_ref(ref, second, old=None)
    assert not found.update_ref(ref, first, old=second)
    assert found.update_ref(ref, second, old=first)
    assert found.refs("refs/loop/r") == {ref: second}
    assert not found.delete_ref(ref, old=first)
    assert found.delete_ref(ref, old=second)
    assert found.delete_ref(ref, old=second)
    assert found.refs("refs/loop") == {}


def test_a_ref_that_cannot_be_written_is_an_error_and_not_a_lost_race(repo: Path) -> None:
    found = Git.discover(repo)
    first = git(repo, "rev-parse", "HEAD")
    assert found.update_ref("refs/loop/r", first, old=None)
    with pytest.raises(RepoError, match="refs/loop/r"):
        found.update_ref("refs/loop/r/integration", first, old=None)
    with pytest.raises(RepoError):
        found.update_ref("refs/loop/x", "1" * 40, old=None)
    with pytest.raises(ValueError, match="full ref name"):
        found.update_ref("main", first, old=None)


def test_a_symbolic_ref_planted_in_our_namespace_does_not_move_the_users_branch(repo: Path) -> None:
    found = Git.discover(repo)
    first = git(repo, "rev-parse", "HEAD")
    second = commit(repo, {"a.txt": "2"}, "second")
    git(repo, "symbolic-ref", "refs/heads/loop/r/t.1", "refs/heads/main")
    assert found.update_ref("refs/heads/loop/r/t.1", first, old=second)
    assert git(repo, "rev-parse", "main") == second


def test_merged_refs_are_found_with_one_question(repo: Path) -> None:
    found = Git.discover(repo)
    first = git(repo, "rev-parse", "HEAD")
    second = commit(repo, {"a.txt": "2"}, "second")
    third = commit(repo, {"a.txt": "3"}, "third")
    for name, where in (("one", first), ("two", second), ("three", third)):
        found.update_ref(f"refs/heads/loop/r/{name}", where, old=None)
    merged = found.refs_merged_into(second, "refs/heads/loop/r")
    assert merged == {"refs/heads/loop/r/one": first, "refs/heads/loop/r/two": second}
    since = found.refs_merged_into(third, "refs/heads/loop/r", not_merged_into=first)
    assert since == {"refs/heads/loop/r/two": second, "refs/heads/loop/r/three": third}
    assert found.is_ancestor(first, third)
    assert not found.is_ancestor(third, first)
    with pytest.raises(RepoError):
        found.is_ancestor(NONE, first)


def test_a_branch_named_loop_is_named_as_the_obstacle(repo: Path) -> None:
    found = Git.discover(repo)
    assert found.blocking_branch("loop-1") is None
    git(repo, "branch", "loop/loop-1")
    assert (found.blocking_branch(), found.blocking_branch("loop-1")) == (None, "loop/loop-1")
    git(repo, "branch", "-D", "loop/loop-1")
    git(repo, "branch", "loop")
    git(repo, "pack-refs", "--all")
    assert found.blocking_branch() == "loop"


def test_dirt_is_listed_whatever_the_users_status_settings_and_the_trackers_files_never_count(repo: Path) -> None:
    git(repo, "config", "status.showUntrackedFiles", "no")
    git(repo, "config", "color.ui", "always")
    write(repo, {"a.txt": "x", "src/b.txt": "x", "neu é\n": "x", ".beads/issues.jsonl": "x", ".beadsx": "x"})
    git(repo, "add", "src/b.txt")
    assert sorted(Git.discover(repo).dirty_paths(repo, exclude=[".beads/"]), key=lambda d: d.path) == [
        DirtyPath(".beadsx", staged=False, untracked=True),
        DirtyPath("a.txt", staged=False, untracked=False),
        DirtyPath("neu é\n", staged=False, untracked=True),
        DirtyPath("src/b.txt", staged=True, untracked=False),
    ]


def test_names_that_are_not_utf_8_can_be_written_to_any_sink(repo: Path) -> None:
    first = git(repo, "rev-parse", "HEAD")
    second = commit(repo, {"bad\udcff.txt": "x"}, "odd")
    found = Git.discover(repo)
    assert found.changed_files(first, second) == ("bad\\xff.txt",)
    assert found.ls_files_at(second) == ("a.txt", "bad\\xff.txt", "src/b.txt")


def test_files_of_a_commit_are_read_without_a_checkout(repo: Path) -> None:
    found = Git.discover(repo)
    first = git(repo, "rev-parse", "HEAD")
    commit(repo, {"a.txt": "changed"}, "second")
    assert [found.read_file_at(first, path) for path in ("a.txt", "src", "nope")] == [b"a\n", None, None]


def test_a_patch_is_cut_and_says_so(repo: Path, tmp_path: Path) -> None:
    first = git(repo, "rev-parse", "HEAD")
    second = commit(repo, {"big.txt": "line\n" * 1000}, "big")
    found = Git.discover(repo)
    found.write_patch(first, second, tmp_path / "whole.patch", max_bytes=100_000)
    found.write_patch(first, second, tmp_path / "cut.patch", max_bytes=300)
    whole = (tmp_path / "whole.patch").read_bytes()
    cut = (tmp_path / "cut.patch").read_text()
    assert whole.count(b"+line\n") == 1000
    assert cut.encode()[:300] == whole[:300]
    assert cut.endswith(f"[cut: {len(whole) - 300} more bytes; git diff {first[:12]} {second[:12]}]\n")


def test_planted_configuration_and_hooks_change_the_shared_state(repo: Path) -> None:
    found = Git.discover(repo)
    states = [found.shared_state(), found.shared_state()]
    git(repo, "config", "core.fsmonitor", "/tmp/evil")
    states.append(found.shared_state())
    (repo / ".git/hooks/post-commit").write_text("#!/bin/sh\n")
    states.append(found.shared_state())
    (repo / ".git/hooks/post-commit").chmod(0o755)
    states.append(found.shared_state())
    assert states[0] == states[1]
    assert len(set(states)) == 4


def test_our_git_runs_no_hooks(repo: Path) -> None:
    hook = repo / ".git/hooks/reference-transaction"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\ntouch ran\nexit 1\n")
    hook.chmod(0o755)
    assert Git.discover(repo).update_ref("refs/loop/x", git(repo, "rev-parse", "HEAD"), old=None)
    assert not (repo / "ran").exists()


def test_an_identity_is_only_made_up_where_there_is_none(repo: Path) -> None:
    assert Git.discover(repo).identity_env() == {}
    (Path.home() / ".gitconfig").write_text("")
    assert Git.discover(repo).identity_env() == {
        "GIT_AUTHOR_NAME": "hew-loop",
        "GIT_AUTHOR_EMAIL": "loop@hew-loop.invalid",
        "GIT_COMMITTER_NAME": "hew-loop",
        "GIT_COMMITTER_EMAIL": "loop@hew-loop.invalid",
    }


def test_only_old_locks_of_our_own_refs_are_removed(repo: Path) -> None:
    found = Git.discover(repo)
    store = repo / ".git"
    ours = [store / "refs/heads/loop/r/t.1.lock", store / "refs/loop/r/integration.lock", store / "packed-refs.lock"]
    young, theirs = store / "refs/loop/r/candidate.lock", store / "refs/heads/main.lock"
    for lock in (*ours, young, theirs):
        lock.parent.mkdir(parents=True, exist_ok=True)
        lock.touch()
        if lock != young:
            os.utime(lock, (1, 1))
    assert set(found.remove_stale_locks(older_than_s=60)) == set(ours)
    assert [lock.exists() for lock in (*ours, young, theirs)] == [False, False, False, True, True]


def test_the_upstream_is_fetched_without_moving_anything_of_the_users(repo: Path, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(repo), str(clone))
    before = git(clone, "for-each-ref", "refs/remotes", "refs/heads")
    newest = commit(repo, {"a.txt": "new"}, "by others")
    found = Git.discover(clone)
    assert found.fetch_upstream("main") == newest
    assert git(clone, "for-each-ref", "refs/remotes", "refs/heads") == before
    with pytest.raises(RepoError, match="no upstream"):
        Git.discover(repo).fetch_upstream("main")


@pytest.mark.parametrize(
    ("path", "prefixes", "expected"),
    [
        (".beads/x", [".beads"], True),
        (".beads", [".beads/"], True),
        (".beadsx", [".beads"], False),
        ("a/.beads", [".beads"], False),
        ("docs/TODO.md", ["docs/TODO.md"], True),
        ("docs/", ["docs/TODO.md"], False),
        ("x", [""], False),
    ],
)  # fmt: skip
def test_a_prefix_is_a_whole_path(path: str, prefixes: list[str], expected: bool) -> None:
    assert is_under(path, prefixes) is expected


def test_a_git_that_does_not_end_is_a_refusal(repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Git.discover(repo)
    fake_git(tmp_path / "bin", "exec tail -f /dev/null", monkeypatch)
    done = found.call("gc", timeout_s=0.2)
    assert command.refusal(done, "gc").message == "git gc did not end in time and was stopped."
