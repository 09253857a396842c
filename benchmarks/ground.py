"""Where the benchmarks run: throw-away repositories with a backlog and a scripted agent, in a clean environment."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

LOOP = (sys.executable, "-m", "hew_loop")

AGENT = """\
#!/bin/sh
# Sleeps for the seconds at the end of the task's id (bench-0007x4: four), then writes one file.
seconds=${HEW_TASK_ID##*x}
test "$seconds" = 0 || sleep "$seconds"
echo done > "src/$HEW_TASK_ID.txt"
"""

CONFIG = """\
[loop]
runtime = "script"

[runtime.script]
command = ["sh", "{agent}"]
prompt = "file"
"""

GIT_CONFIG = "[user]\n\tname = Benchmark\n\temail = benchmark@example.org\n[init]\n\tdefaultBranch = main\n"
FILE_LINES = 20


@dataclass(frozen=True, slots=True)
class Spent:
    """What a program took. `cpu_s` is that of its whole process tree: steadier than `wall_s` while others work."""

    wall_s: float
    cpu_s: float


@dataclass(frozen=True)
class Ground:
    """`path` is the repository; what else belongs to it lies beside it in `top`."""

    top: Path
    path: Path
    env: dict[str, str]

    def spend(self, *argv: str, meanwhile: Callable[[int], None] | None = None) -> Spent:
        """Run a program in the repository to its end; `meanwhile` is called with its process id until then."""
        log = self.top / "output.log"
        before = _children_cpu_s()
        began = time.perf_counter()
        with log.open("wb") as output:
            program = subprocess.Popen(
                argv, cwd=self.path, env=self.env, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
            while meanwhile is not None and program.poll() is None:
                meanwhile(program.pid)
            code = program.wait()
        spent = Spent(time.perf_counter() - began, _children_cpu_s() - before)
        if code != 0:
            raise SystemExit(f"{' '.join(argv)} ended with {code}:\n{log.read_text(errors='replace')[-4000:]}")
        return spent

    def run(self, *options: str, meanwhile: Callable[[int], None] | None = None) -> Spent:
        """A whole `loop run` over the backlog; all of it must have landed and been delivered."""
        wanted = self.open_tasks()
        spent = self.spend(*LOOP, "run", "--scope", "ready", "--no-verify-tests", *options, meanwhile=meanwhile)
        landed = set(self.git("ls-tree", "--name-only", "HEAD", "src/").splitlines())
        missing = [task for task in wanted if f"src/{task}.txt" not in landed]
        if missing or self.open_tasks():
            raise SystemExit(f"not everything was done: {missing or self.open_tasks()}")
        return spent

    def open_tasks(self) -> list[str]:
        issues = map(json.loads, (self.path / ".beads" / "issues.jsonl").read_text().splitlines())
        return [issue["id"] for issue in issues if issue["status"] != "closed"]

    def plan(self, tasks: Sequence[dict[str, object]]) -> None:
        """Make this the whole backlog."""
        store = self.path / ".beads"
        store.mkdir(exist_ok=True)
        (store / "issues.jsonl").write_text("".join(json.dumps(task) + "\n" for task in tasks))

    def git(self, *args: str) -> str:
        return subprocess.run(
            ["git", *args], cwd=self.path, env=self.env, check=True, capture_output=True, text=True
        ).stdout


def task(number: int, *, seconds: int = 0, waits_for: Sequence[int] = (), priority: int = 2) -> dict[str, object]:
    """An open issue; the agent takes `seconds` for it. Tasks are started in the order of their numbers."""
    created = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=number)
    task_id = _task_id(number, seconds)
    edges = [{"issue_id": task_id, "depends_on_id": _task_id(other, 0), "type": "blocks"} for other in waits_for]
    return {
        "id": task_id,
        "title": f"Write the file of task {number}",
        "description": "One file, nothing else.",
        "status": "open",
        "priority": priority,
        "issue_type": "task",
        "created_at": f"{created:%Y-%m-%dT%H:%M:%SZ}",
        "updated_at": f"{created:%Y-%m-%dT%H:%M:%SZ}",
        "dependencies": edges,
    }


@contextmanager
def ground(*, files: int = 1) -> Generator[Ground]:
    """A repository with `files` text files in folders of a hundred; everything is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="hew-loop-bench-") as name:
        top = Path(name).resolve()
        path = top / "repo"
        (path / "src").mkdir(parents=True)
        (top / "gitconfig").write_text(GIT_CONFIG)
        (top / "agent.sh").write_text(AGENT)
        (path / ".hew.toml").write_text(CONFIG.format(agent=top / "agent.sh"))
        (path / ".gitignore").write_text(".hew/\n")
        for number in range(files):
            folder = path / f"part{number // 100:03d}"
            folder.mkdir(exist_ok=True)
            (folder / f"file{number:05d}.txt").write_text(f"line of file {number}\n" * FILE_LINES)
        (path / "src" / "README").write_text("Here the agents write.\n")
        made = Ground(top, path, _environment(top))
        made.git("init", "-q")
        (path / ".git" / "info").mkdir(exist_ok=True)
        (path / ".git" / "info" / "exclude").write_text("/.beads/\n")
        made.git("add", "-A")
        made.git("commit", "-qm", "Begin")
        made.spend(*LOOP, "run", "--help")
        yield made


def _environment(top: Path) -> dict[str, str]:
    mine = {
        "HOME": str(top),
        "GIT_CONFIG_GLOBAL": str(top / "gitconfig"),
        "GIT_CONFIG_NOSYSTEM": "1",
        "XDG_CONFIG_HOME": str(top / "config"),
        "XDG_CACHE_HOME": str(top / "cache"),
        "HEW_WORKTREE_ROOT": str(top / "worktrees"),
        # The tree in which these benchmarks lie, whatever is installed.
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    # Modules are compiled once, as after an installation: by the first call in `ground`.
    foreign = {"CI", "COLUMNS", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX"}
    kept = {k: v for k, v in os.environ.items() if k not in foreign and not k.startswith(("GIT_", "HEW_", "BEADS_"))}
    return kept | mine


def _task_id(number: int, seconds: int) -> str:
    return f"bench-{number:05d}x{seconds}"


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
