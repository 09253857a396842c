"""What landed, as people read it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from hew_loop.repo.git import Git
from hew_loop.repo.history import LandedCommit, landed_commits
from hew_loop.repo.merge import Merged, merge
from tests.support.repos import commit, git, make_repo


def test_each_landed_merge_is_told_with_its_author_and_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repo = make_repo(tmp_path / "repo", {"a.txt": "1\n2\n", "b.txt": "b\n"})
    found = Git.discover(repo)
    base = tip = git(repo, "rev-parse", "main")
    monkeypatch.setenv("GIT_COMMITTER_DATE", "2025-03-01T12:00:00+02:00")
    landed: list[str] = []
    for number, files in enumerate(({"a.txt": "1\nx\ny\n"}, {"b.txt": "", "dir/ü.txt": "u\n"})):
        git(repo, "checkout", "-q", "--detach", base)
        monkeypatch.setenv("GIT_AUTHOR_NAME", f"Agent {number}")
        commit(repo, {}, "an inner commit that is not told")
        made = merge(found, tip=tip, head=commit(repo, files, "work"), message=f"Land t{number}\n\nTask: t{number}\n")
        assert isinstance(made, Merged)
        tip = made.commit
        landed.append(tip)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))
    when = datetime(2025, 3, 1, 10, tzinfo=UTC)
    assert landed_commits(found, base, tip) == (
        LandedCommit(landed[0], "Land t0", "Agent 0", when, ("a.txt",), 2, 1),
        LandedCommit(landed[1], "Land t1", "Agent 1", when, ("b.txt", "dir/ü.txt"), 1, 1),
    )
    assert landed_commits(found, tip, tip) == ()
