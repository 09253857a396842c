"""Merging without a checkout: ids that can be rebuilt, conflicts with their files, the tracker's files left alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hew_loop.repo.git import Git
from hew_loop.repo.merge import Conflict, CouldNotMerge, Merged, merge
from tests.support.repos import commit, git, make_repo

NONE = "0" * 40


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    files = {"a.txt": "a\n", "b.txt": "b\n", ".beads/issues.jsonl": "base\n", "docs/TODO.md": "- [ ] x\n"}
    return make_repo(tmp_path / "repo", files)


def side(repo: Path, files: dict[str, str], *, name: str, start: str, delete: tuple[str, ...] = ()) -> str:
    git(repo, "checkout", "-q", "-b", name, start)
    for path in delete:
        git(repo, "rm", "-q", "-r", path)
    made = commit(repo, files, f"work of {name}")
    git(repo, "checkout", "-q", "main")
    return made


def parents(repo: Path, commit_id: str) -> list[str]:
    return git(repo, "show", "-s", "--format=%P", commit_id).split()


def content(repo: Path, commit_id: str, path: str) -> str | None:
    shown = git(repo, "show", f"{commit_id}:{path}", check=False)
    return shown if git(repo, "ls-tree", commit_id, path) else None


def test_a_merge_has_the_head_as_second_parent_and_leaves_the_checkout_alone(repo: Path) -> None:
    base = git(repo, "rev-parse", "main")
    head = side(repo, {"b.txt": "mine\n"}, name="w", start=base)
    tip = commit(repo, {"a.txt": "tip\n"}, "tip")
    (repo / "a.txt").write_text("dirty\n")
    index = (repo / ".git/index").read_bytes()
    made = merge(Git.discover(repo), tip=tip, head=head, message="Land w")
    assert isinstance(made, Merged)
    assert parents(repo, made.commit) == [tip, head]
    assert git(repo, "rev-parse", f"{made.commit}^{{tree}}") == made.tree
    assert [content(repo, made.commit, p) for p in ("a.txt", "b.txt")] == ["tip", "mine"]
    assert git(repo, "show", "-s", "--format=%B%an %ad|%cd", made.commit).startswith("Land w")
    assert (repo / "a.txt").read_text() == "dirty\n"
    assert (repo / ".git/index").read_bytes() == index
    assert git(repo, "rev-parse", "main") == tip


def test_rebuilding_gives_the_same_id_for_whoever_does_it(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = git(repo, "rev-parse", "main")
    head = side(repo, {"b.txt": "mine\n", ".beads/issues.jsonl": "w\n"}, name="w", start=base)
    tip = commit(repo, {"a.txt": "tip\n"}, "tip")
    first = merge(Git.discover(repo), tip=tip, head=head, message="Land w")
    monkeypatch.setenv("GIT_COMMITTER_NAME", "Somebody Else")
    monkeypatch.setenv("GIT_AUTHOR_DATE", "2001-01-01T00:00:00Z")
    (Path.home() / ".gitconfig").write_text("[i18n]\n\tcommitEncoding = latin1\n")
    assert merge(Git.discover(repo), tip=tip, head=head, message="Land w") == first


def test_a_head_that_the_tip_contains_is_the_tip_itself(repo: Path) -> None:
    base = git(repo, "rev-parse", "main")
    tip = commit(repo, {"a.txt": "tip\n", ".beads/issues.jsonl": "tip\n"}, "tip")
    found = Git.discover(repo)
    expected = Merged(commit=tip, tree=found.tree_id(tip))
    assert [merge(found, tip=tip, head=head, message="m") for head in (base, tip)] == [expected, expected]


def test_work_that_changes_nothing_in_the_end_still_becomes_an_ancestor(repo: Path) -> None:
    base = git(repo, "rev-parse", "main")
    head = side(repo, {}, name="w", start=base)
    made = merge(Git.discover(repo), tip=base, head=head, message="m")
    assert isinstance(made, Merged)
    assert parents(repo, made.commit) == [base, head]


def test_a_conflict_names_its_files(repo: Path) -> None:
    base = git(repo, "rev-parse", "main")
    head = side(repo, {"a.txt": "mine\n"}, name="w", start=base, delete=("b.txt",))
    tip = commit(repo, {"a.txt": "tip\n", "b.txt": "tip\n"}, "tip")
    assert merge(Git.discover(repo), tip=tip, head=head, message="m") == Conflict(("a.txt", "b.txt"))


def test_an_unknown_commit_is_not_a_conflict(repo: Path) -> None:
    tip = git(repo, "rev-parse", "main")
    found = Git.discover(repo)
    for pair in ((tip, NONE), (NONE, tip)):
        made = merge(found, tip=pair[0], head=pair[1], message="m")
        assert made == CouldNotMerge(f"{NONE} is not a commit of this repository")


def test_histories_without_a_common_start_could_not_be_merged(repo: Path) -> None:
    tip = git(repo, "rev-parse", "main")
    git(repo, "checkout", "-q", "--orphan", "alien")
    head = commit(repo, {"c.txt": "c"}, "alien")
    made = merge(Git.discover(repo), tip=tip, head=head, message="m")
    assert isinstance(made, CouldNotMerge)
    assert "unrelated histories" in made.message


@pytest.mark.parametrize(
    ("files", "delete"),
    [
        ({".beads/issues.jsonl": "mine\n"}, ()),
        ({".beads/extra/deep.txt": "new\n"}, ()),
        ({}, (".beads",)),
        ({"docs/TODO.md": "- [x] x\n", "docs/other.md": "stays\n"}, ()),
        ({}, ("docs",)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("tip_moved", [False, True])
def test_the_trackers_files_stay_as_the_tip_has_them(
    repo: Path, files: dict[str, str], delete: tuple[str, ...], tip_moved: bool
) -> None:
    keep = (".beads/", "docs/TODO.md")
    tip = base = git(repo, "rev-parse", "main")
    head = side(repo, {"b.txt": "mine\n", **files}, name="w", start=base, delete=delete)
    if tip_moved:
        tip = commit(repo, {"a.txt": "t\n", ".beads/issues.jsonl": "tip\n", "docs/TODO.md": "- [ ] tip\n"}, "tip")
    made = merge(Git.discover(repo), tip=tip, head=head, message="m", keep=keep)
    assert isinstance(made, Merged)
    assert parents(repo, made.commit) == [tip, head]
    expected = {"b.txt"} | {path for path in files if path == "docs/other.md"}
    assert set(git(repo, "diff", "--name-only", tip, made.commit).split()) == expected


def test_a_tip_without_the_trackers_files_gets_none(repo: Path) -> None:
    base = git(repo, "rev-parse", "main")
    head = side(repo, {"b.txt": "mine\n", ".beads/issues.jsonl": "w\n"}, name="w", start=base)
    git(repo, "rm", "-q", "-r", ".beads")
    tip = commit(repo, {}, "no tracker")
    made = merge(Git.discover(repo), tip=tip, head=head, message="m")
    assert isinstance(made, Merged)
    assert git(repo, "diff", "--name-only", tip, made.commit) == "b.txt"


WORK = st.lists(st.dictionaries(st.integers(0, 3), st.sampled_from("xy"), max_size=3), min_size=1, max_size=4)


def test_a_chain_lands_every_head_that_it_did_not_refuse(tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "chain", {f"{n}.txt": "base\n" for n in range(4)})
    found = Git.discover(repo)
    base = git(repo, "rev-parse", "main")

    @settings(max_examples=12, deadline=None)
    @given(WORK)
    def check(work: list[dict[int, str]]) -> None:
        tip = base
        expected: dict[int, str] = {}
        for number, files in enumerate(work):
            git(repo, "checkout", "-q", "--detach", base)
            head = commit(repo, {f"{n}.txt": f"{text}\n" for n, text in files.items()}, f"{number}")
            made = merge(found, tip=tip, head=head, message=f"Land {number}")
            clashes = sorted(f"{n}.txt" for n, text in files.items() if expected.get(n, text) != text)
            if clashes:
                assert made == Conflict(tuple(clashes))
                continue
            assert isinstance(made, Merged)
            assert found.is_ancestor(head, made.commit)
            expected |= files
            tip = made.commit
        contents = {n: git(repo, "show", f"{tip}:{n}.txt") for n in range(4)}
        assert contents == {n: expected.get(n, "base") for n in range(4)}

    check()
