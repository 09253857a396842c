"""What landed, read from the history: the place where GitPython is used, for reading only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from git import Commit, Repo

from hew_loop.repo.git import Git

_ENVIRONMENT = {
    "LC_ALL": "C",
    "GIT_CONFIG_COUNT": "1",
    "GIT_CONFIG_KEY_0": "core.quotePath",
    "GIT_CONFIG_VALUE_0": "no",
}


@dataclass(frozen=True, slots=True)
class LandedCommit:
    id: str
    subject: str
    author: str
    """Who wrote the work that was merged."""
    when: datetime
    files: tuple[str, ...]
    insertions: int
    deletions: int


def landed_commits(git: Git, old: str, new: str) -> tuple[LandedCommit, ...]:
    """Each merge on the first-parent line from `old` to `new`, oldest first, with what it changed on that line."""
    with Repo(git.root) as repo:
        repo.git.update_environment(GIT_DIR=str(git.common_dir), GIT_WORK_TREE=str(git.root), **_ENVIRONMENT)
        line = repo.iter_commits(f"{old}..{new}", first_parent=True)
        return tuple(_landed(commit) for commit in reversed([c for c in line if len(c.parents) > 1]))


def _landed(commit: Commit) -> LandedCommit:
    stats = commit.stats
    summary = commit.summary
    return LandedCommit(
        id=commit.hexsha,
        subject=summary if isinstance(summary, str) else summary.decode("utf-8", "backslashreplace"),
        author=commit.parents[1].author.name or "",
        when=commit.committed_datetime.astimezone(UTC),
        files=tuple(sorted(str(name) for name in stats.files)),
        insertions=stats.total["insertions"],
        deletions=stats.total["deletions"],
    )
