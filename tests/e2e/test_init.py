"""`loop init` and `loop config` through the installed command, in real repositories."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hew_loop.commands.init import starter

LOOP = Path(sys.executable).with_name("loop")


def _run(*args: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(args, cwd=cwd, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "repo"
    root.mkdir()
    _run("git", "init", "-q", cwd=root)
    _run("git", "commit", "-q", "--allow-empty", "-m", "start", cwd=root)
    return root.resolve()


def test_init_writes_the_starter_file_and_config_show_reads_it(repository: Path) -> None:
    done = _run(LOOP, "init", cwd=repository)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"wrote {repository}/.hew.toml\n", "")
    assert (repository / ".hew.toml").read_text() == starter()
    shown = json.loads(_run(LOOP, "config", "show", "--json", cwd=repository).stdout)
    assert shown["loop.jobs"] == {"value": 1, "layer": "default", "source": "default"}


def test_init_in_a_subdirectory_of_a_linked_worktree_writes_to_the_main_worktree(repository: Path) -> None:
    linked = repository.parent / "linked"
    _run("git", "worktree", "add", "-q", "--detach", linked, cwd=repository)
    (linked / "deep").mkdir()
    done = _run(LOOP, "init", "--json", cwd=linked / "deep")
    assert json.loads(done.stdout) == {"path": f"{repository}/.hew.toml", "replaced": False}
    assert (repository / ".hew.toml").is_file()


def test_init_never_overwrites_unless_forced(repository: Path) -> None:
    (repository / ".hew.toml").write_text("[loop]\njobs = 4\n")
    refused = _run(LOOP, "init", cwd=repository)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == (
        f"loop: {repository}/.hew.toml is already there\n  Edit it, or replace it: loop init --force\n"
    )
    assert (repository / ".hew.toml").read_text() == "[loop]\njobs = 4\n"
    forced = _run(LOOP, "init", "--force", "--json", cwd=repository)
    assert json.loads(forced.stdout) == {"path": f"{repository}/.hew.toml", "replaced": True}
    assert [path.name for path in repository.iterdir() if path.name != ".git"] == [".hew.toml"]


def test_init_outside_a_repository_says_so(tmp_path: Path) -> None:
    done = _run(LOOP, "init", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (69, "")
    assert done.stderr.startswith("loop: ")


def test_config_shows_values_with_their_sources_and_masks_secrets(repository: Path) -> None:
    (repository / ".hew.toml").write_text(
        "[loop]\njobs = 4\n[worktree]\nenv = { API_TOKEN = 'tok-123', PLAIN = 'x' }\n"
    )
    shown = _run(LOOP, "config", "show", cwd=repository).stdout
    rows = dict(line.rsplit("  # ", 1) for line in shown.splitlines())
    by_name = {row.split(" = ")[0]: (row.split(" = ")[1].strip(), source) for row, source in rows.items()}
    assert by_name["loop.jobs"] == ("4", f"{repository}/.hew.toml")
    assert by_name["loop.iter_timeout"] == ('"60m"', "default")
    assert by_name["loop.gate.commands"] == ("detected", "default")
    assert by_name["worktree.env.API_TOKEN"][0] == '"********"'
    assert by_name["worktree.env.PLAIN"][0] == '"x"'
    assert "tok-123" not in shown + _run(LOOP, "config", "show", "--json", cwd=repository).stdout


def test_config_get_prints_one_value_or_a_table(repository: Path) -> None:
    (repository / ".hew.toml").write_text("[loop.model.by_priority]\nP0 = 'big'\n[loop]\njobs = 4\n")
    assert _run(LOOP, "config", "get", "loop.jobs", cwd=repository).stdout == "4\n"
    assert _run(LOOP, "config", "get", "loop.iter_timeout", cwd=repository).stdout == "60m\n"
    assert _run(LOOP, "config", "get", "loop.model", cwd=repository).stdout.splitlines() == [
        "loop.model.default = none          # default",
        "loop.model.fallback = none         # default",
        f'loop.model.by_priority.P0 = "big"  # {repository}/.hew.toml',
    ]
    unknown = _run(LOOP, "config", "get", "loop.job", cwd=repository)
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert unknown.stderr == "loop: no value is named loop.job\n  The nearest is loop.jobs; all: loop config show\n"


def test_config_path_names_the_files_that_are_read(repository: Path, home: Path) -> None:
    done = _run(LOOP, "config", "path", "--json", cwd=repository)
    assert json.loads(done.stdout) == [
        {"layer": "user", "path": f"{home}/.config/hew/config.toml", "exists": False},
        {"layer": "project", "path": f"{repository}/.hew.toml", "exists": False},
    ]


def test_a_broken_configuration_is_one_sentence_and_exit_2(repository: Path) -> None:
    (repository / ".hew.toml").write_text("[loop]\njobs == 4\n")
    done = _run(LOOP, "config", "show", cwd=repository)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"loop: {repository}/.hew.toml, line 2: not valid TOML: ")
