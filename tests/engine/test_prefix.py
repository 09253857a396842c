"""What every prompt of a run begins with: from the base commit, or from the tracker, asked once."""

from __future__ import annotations

from pathlib import Path

import pytest

from hew_loop.core.policy import Policy
from hew_loop.core.skill import SKILL
from hew_loop.engine import prefix
from hew_loop.engine.run_folder import RunFolder, create
from hew_loop.errors import TrackerError, UsageError
from hew_loop.repo.git import Git
from tests.support.repos import commit, make_repo

RUN_ID = "loop-20260301T220000Z-0badcafe"


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    return make_repo(tmp_path / "repo", {"README.md": "A project.\n"})


@pytest.fixture
def folder(repo: Path) -> RunFolder:
    return create(repo, RUN_ID)


def silent() -> str:
    raise TrackerError("bd does not answer.")


def test_the_skill_is_ours_or_the_bases(repo: Path) -> None:
    git, old = Git.discover(repo), Policy(prompt_file="how.md")
    assert prefix.skill(git, Policy(), "HEAD") == SKILL
    with pytest.raises(UsageError, match=r"^loop\.prompt\.file = 'how\.md': there is no such file in the base commit"):
        prefix.skill(git, old, "HEAD")
    commit(repo, {"how.md": "/Quickly.\n"}, "Say how")
    (repo / "how.md").unlink()
    assert prefix.skill(git, old, "HEAD") == "/Quickly.\n"
    with pytest.raises(UsageError, match="there is no such file"):
        prefix.skill(git, Policy(prompt_file="src"), commit(repo, {"src/how.md": ""}, "A folder is no file"))


@pytest.mark.parametrize("text", ["Use make.\n", ""])
def test_the_primer_of_the_base_beats_the_tracker(repo: Path, folder: RunFolder, text: str) -> None:
    base = commit(repo, {prefix.PRIMER: text}, "Prime")
    assert prefix.primer(Git.discover(repo), folder, base, lambda: "bd's") == (text, "")


def test_the_tracker_is_asked_once_in_a_run(repo: Path, folder: RunFolder) -> None:
    git, answers = Git.discover(repo), iter(["Use make.\r\nAlways.\n", "Something else by now.\n"])
    assert prefix.primer(git, folder, "HEAD", None) == ("", "")
    first = prefix.primer(git, folder, "HEAD", lambda: next(answers))
    assert first == prefix.primer(git, folder, "HEAD", lambda: next(answers)) == ("Use make.\r\nAlways.\n", "")


def test_a_tracker_that_does_not_answer_is_a_problem_to_be_told_and_no_more(repo: Path, folder: RunFolder) -> None:
    git = Git.discover(repo)
    told = "prompts go without what the tracker knows of the project: bd does not answer."
    assert prefix.primer(git, folder, "HEAD", silent) == ("", told)
    # The prompts of a run that is carried on begin as they did before.
    assert prefix.primer(git, folder, "HEAD", lambda: "Here I am.") == ("", "")
