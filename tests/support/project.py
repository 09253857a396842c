"""A real repository with a scripted agent, driven through the installed `loop` command."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hew_loop.cli import loop

AGENT = """\
#!/bin/sh
# Plays $PLAN/<task>.<attempt>, else $PLAN/<task>, else writes one file of the task's own.
if [ -f "$PLAN/$HEW_TASK_ID.$HEW_ATTEMPT" ]; then . "$PLAN/$HEW_TASK_ID.$HEW_ATTEMPT"
elif [ -f "$PLAN/$HEW_TASK_ID" ]; then . "$PLAN/$HEW_TASK_ID"
else echo "$HEW_TASK_ID" > "$HEW_TASK_ID.txt"; fi
"""

CONFIG = """\
[loop]
runtime = "script"

[runtime.script]
command = ["sh", "{agent}"]
prompt = "file"
"""


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line)["event"] for line in self.out.splitlines()]


class Project:
    """`path` is the repository, `plan` the folder of the agent's scripts, `places` a folder for whatever else."""

    def __init__(self, top: Path, *, files: Mapping[str, str] | None = None, config: str = "") -> None:
        self.path, self.plan, self.places = top / "repo", top / "plan", top / "places"
        for folder in (self.path, self.plan, self.places):
            folder.mkdir(parents=True)
        (top / "agent.sh").write_text(AGENT)
        self.git("init", "-q")
        for name, text in {"README.md": "A project.\n", **(files or {})}.items():
            target = self.path / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
        self.config(config, agent=top / "agent.sh")
        self.git("add", "-A")
        self.git("commit", "-qm", "Begin")

    def config(self, more: str = "", *, agent: Path | None = None) -> None:
        """`more` may begin with keys of [loop]; further tables follow it."""
        agent = agent or self.path.parent / "agent.sh"
        head, tail = CONFIG.split("[runtime.script]")
        text = head.rstrip() + "\n" + more.strip() + "\n\n[runtime.script]" + tail.format(agent=agent)
        (self.path / ".hew.toml").write_text(text)

    # -- the outside

    def env(self, **more: str) -> dict[str, str]:
        # Without its bytecode each `loop` compiles the whole package again, which takes longer than most of the tests.
        own = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        return {**own, "PLAN": str(self.plan), "PLACES": str(self.places), "COLUMNS": "200", **more}

    def loop(self, *args: str, cwd: Path | None = None, timeout_s: float = 120, **env: str) -> Done:
        """Run `loop` to its end."""
        done = subprocess.run(
            [sys.executable, "-m", "hew_loop", *args],
            cwd=cwd or self.path,
            env=self.env(**env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def ask(self, *args: str) -> Any:
        """The JSON that a command prints, asked in this process: preparing and looking, not what is being tested."""
        with contextlib.chdir(self.path), contextlib.redirect_stdout(io.StringIO()) as out:
            code = loop.main([*args, "--json"], prog_name="loop", standalone_mode=False)
        assert not code, out.getvalue()
        return json.loads(out.getvalue())

    def run(self, *args: str, **env: str) -> Done:
        """`loop run --scope ready` with the scripted agent."""
        return self.loop("run", "--scope", "ready", *args, **env)

    def spawn(self, *args: str, **env: str) -> subprocess.Popen[str]:
        """Start `loop` in a process group of its own; the caller waits for it or kills it."""
        return subprocess.Popen(
            [sys.executable, "-m", "hew_loop", *args],
            cwd=self.path,
            env=self.env(**env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def git(self, *args: str, cwd: Path | None = None) -> str:
        done = subprocess.run(["git", *args], cwd=cwd or self.path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    # -- the backlog

    def add(self, title: str, *args: str, script: str | None = None) -> str:
        """A task, and what the agent does for it; the id."""
        value = self.ask("task", "add", title, *args)
        task = value[0]["id"] if isinstance(value, list) else value["id"]
        if script is not None:
            self.script(task, script)
        return str(task)

    def script(self, task: str, script: str, *, attempt: int | None = None) -> None:
        name = task if attempt is None else f"{task}.{attempt}"
        (self.plan / name).write_text(script)

    def tasks(self) -> dict[str, dict[str, Any]]:
        return {t["id"]: t for t in self.ask("task", "list", "--all")}

    def statuses(self) -> dict[str, str]:
        return {task: value["status"] for task, value in self.tasks().items()}

    # -- the newest run

    def folder(self) -> Path:
        return (self.path / ".hew" / "loop" / "latest").resolve()

    def events(self, *types: str) -> list[dict[str, Any]]:
        """The journal's events, of these types only if any are given; an intent counts as the type of its action."""
        lines = (self.folder() / "events.jsonl").read_text().splitlines()
        events = [json.loads(line)["event"] for line in lines]
        return [e for e in events if not types or e["type"] in types or e.get("action", {}).get("type") in types]

    def iterations(self) -> list[dict[str, Any]]:
        return [json.loads(p.read_text()) for p in sorted(self.folder().glob("iter-*.json"))]

    def summary(self) -> dict[str, Any]:
        return self.ask("summary")

    def landed_files(self, rev: str = "HEAD") -> set[str]:
        return set(self.git("ls-tree", "-r", "--name-only", rev).splitlines())


def wait_until(condition: Callable[[], bool], *, timeout_s: float = 30) -> None:
    """Poll without sleeping in a test's own words; fails when it does not come true."""
    end = time.monotonic() + timeout_s
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        pause.wait(0.02)


def marked_processes(text: str) -> list[int]:
    """Living processes with `text` in their environment or command line."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            what = (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes()
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if text.encode() in what and state != "Z":
            found.append(int(entry.name))
    return found
