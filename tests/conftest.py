"""Every test runs with a HOME, a git configuration and caches of its own; nothing of the machine's user is read."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

# Under nohup, as some CI systems run, it is ignored, and so it would be in every `loop` that a test starts.
signal.signal(signal.SIGHUP, signal.SIG_DFL)

GIT_CONFIG = """\
[user]
\tname = Test User
\temail = test@example.org
[init]
\tdefaultBranch = main
[commit]
\tgpgsign = false
[protocol "file"]
\tallow = always
"""


@pytest.fixture(autouse=True)
def _hermetic(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path_factory.mktemp("home")
    (home / ".gitconfig").write_text(GIT_CONFIG)
    for name in ("HEW_CONFIG", "HEW_USER_CONFIG", "BEADS_DIR", "BEADS_DB", "CI", "NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(home / ".gitconfig"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / ".config"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / ".cache"))
    monkeypatch.setenv("HEW_WORKTREE_ROOT", str(home / "worktrees"))
    monkeypatch.setenv("TZ", "UTC")


@pytest.fixture
def home() -> Path:
    """The hermetic home directory."""
    return Path.home()
