"""Small real repositories for tests: built with plain git, not with the code under test."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path


def git(repo: Path, *args: str, check: bool = True) -> str:
    """What plain git prints, without the last newline. A failure raises with git's words, unless `check` is off."""
    done = subprocess.run(
        ["git", *args], cwd=repo, env={**os.environ, "LC_ALL": "C"}, capture_output=True, stdin=subprocess.DEVNULL
    )
    if check and done.returncode != 0:
        raise AssertionError(f"git {' '.join(args)}: {done.stderr.decode(errors='replace')}")
    return os.fsdecode(done.stdout).rstrip("\n")


def write(top: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode("utf-8", "surrogateescape"))


def make_repo(path: Path, files: Mapping[str, str]) -> Path:
    """A repository on branch `main` with one commit that holds `files`."""
    path.mkdir(parents=True)
    git(path, "init", "-q", "-b", "main")
    commit(path, files, "first")
    return path


def commit(repo: Path, files: Mapping[str, str], message: str) -> str:
    """Write `files`, commit all that is there (nothing is fine too), and give the commit's id."""
    write(repo, files)
    git(repo, "add", "-A")
    git(repo, "commit", "-q", "--allow-empty", "-m", message)
    return git(repo, "rev-parse", "HEAD")
