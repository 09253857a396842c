"""The real bd on PATH, of whatever version, on a store of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

ENV = {
    "BEADS_NO_DAEMON": "1",
    "BEADS_AUTO_START_DAEMON": "false",
    "CI": "true",
    "BD_NON_INTERACTIVE": "1",
    "BD_DISABLE_METRICS": "1",
    "BD_ACTOR": "ann",
    "BEADS_ACTOR": "ann",
}


class RealBd:
    """`path` is the repository that holds the store."""

    def __init__(self, path: Path) -> None:
        found = shutil.which("bd")
        if found is None:
            pytest.skip("there is no bd on PATH")
        self.program = found
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        said = str(json.loads(self.run("version", "--json"))["version"]).removeprefix("v")
        self.version = tuple(int(part) for part in said.split("-")[0].split("."))

    @property
    def is_old(self) -> bool:
        """The SQLite era."""
        return self.version < (0, 50)

    @property
    def store(self) -> Path:
        return self.path / ".beads"

    def init(self) -> RealBd:
        subprocess.run(["git", "init", "-q"], cwd=self.path, check=True)
        flags = () if self.is_old else ("--non-interactive", "--skip-agents")
        self.run("init", "--prefix", "tt", "--quiet", "--skip-hooks", *flags)
        return self

    def run(self, *words: str, stdin: str = "", ok: bool = True) -> str:
        done = subprocess.run(
            [self.program, *words],
            cwd=self.path,
            env={**os.environ, **ENV},
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
        assert not ok or done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    def take(self, issues: list[dict[str, Any]], *, ok: bool = True) -> None:
        lines = "".join(json.dumps(each) + "\n" for each in issues)
        self.run("import", *(() if self.is_old else ("-",)), stdin=lines, ok=ok)

    def export_text(self) -> str:
        return self.run("export", *(() if self.is_old else ("--all",)))

    def export(self) -> dict[str, dict[str, Any]]:
        """Live issues by id."""
        lines = [json.loads(line) for line in self.export_text().splitlines()]
        return {each["id"]: each for each in lines if "id" in each and each.get("status") != "tombstone"}
