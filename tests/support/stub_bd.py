"""A program `bd` for tests: it replays a recorded conversation, or hands the calls to a real bd and records them.

A conversation is a list of steps in the form of the recorded ones (tests/data/bd). The calls of a replay must be the
recorded ones in their order, up to the spelling of options; any other call, or one that is missing, fails the test.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Step = dict[str, Any]
DATA = Path(__file__).resolve().parents[1] / "data" / "bd"
VERSIONS = ("0.49.5", "1.0.5")
TAKES_VALUE = {
    *("--append-notes", "--assignee", "--description", "--external-ref", "--id", "--key", "--labels", "--limit"),
    *("--notes", "--priority", "--reason", "--sort", "--status", "--title", "--type"),
}
LONG = {"-d": "--description", "-l": "--labels", "-n": "--limit", "-p": "--priority", "-t": "--type"}
SAME_ANSWER = {"--json", "--include-gates", "--include-templates"}
"""The shared recordings hold neither gates nor templates: showing them too changes nothing."""


def normal_form(argv: Sequence[str]) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """Positional words in their order, options sorted with their values."""
    words: list[str] = []
    options: list[tuple[str, str]] = []
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        name = LONG.get(name, name)
        if word == "--":
            words += rest
            break
        if not word.startswith("-"):
            words.append(word)
        elif name not in SAME_ANSWER:
            options.append((name, value if equals else rest.pop(0) if name in TAKES_VALUE and rest else ""))
    return tuple(words), tuple(sorted(options))


def recorded(version: str, *wanted: str) -> list[Step]:
    """Steps by `scenario`, all of it, or `scenario:number`, in the order asked for."""
    lines = (DATA / f"{version}.jsonl").read_text().splitlines()
    steps = [json.loads(line) for line in lines]
    found: list[Step] = []
    for each in wanted:
        scenario, _, number = each.partition(":")
        of_it = [s for s in steps if s["scenario"] == scenario and number in ("", str(s["step"]))]
        assert of_it, f"{each} is not recorded for bd {version}"
        found += of_it
    return found


@contextmanager
def replaying(folder: Path, steps: Sequence[Step], *, repo: Path) -> Iterator[None]:
    """Put a `bd` that replays `steps` into `folder`; fails behind the block unless exactly these were asked for."""
    _install(folder, {"steps": list(steps), "places": {"{REPO}": str(repo)}})
    yield
    assert not (folder / "failures").exists(), (folder / "failures").read_text()
    asked = int((folder / "asked").read_text())
    assert asked == len(steps), f"never asked for: {[s['argv'] for s in steps[asked:]]}"


@contextmanager
def recording(folder: Path, scenario: str, *, real: str, repo: Path, to: Path | None) -> Iterator[None]:
    """Put a `bd` into `folder` that hands calls to `real`; afterwards they are appended to `to` as one scenario."""
    _install(folder, {"real": real, "scenario": scenario, "places": {"{REPO}": str(repo)}})
    yield
    steps = folder / "steps.jsonl"
    if to is not None and steps.exists():
        with open(to, "a") as out:
            out.write(steps.read_text())


def _install(folder: Path, plan: Mapping[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plan.json").write_text(json.dumps(plan))
    (folder / "asked").write_text("0")
    script = folder / "bd"
    shutil.copy(__file__, script.with_name("stub_bd.py"))
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "{script.with_name("stub_bd.py")}" "$@"\n')
    script.chmod(0o755)


def _main() -> int:
    folder = Path(__file__).resolve().parent
    plan = json.loads((folder / "plan.json").read_text())
    number = int((folder / "asked").read_text()) + 1
    (folder / "asked").write_text(str(number))
    return _record(folder, plan, number) if "real" in plan else _replay(folder, plan, number)


def _replay(folder: Path, plan: Mapping[str, Any], number: int) -> int:
    steps, argv = plan["steps"], sys.argv[1:]
    step = steps[number - 1] if number <= len(steps) else None
    wrong = _differences(step, argv, plan["places"])
    if step is None or wrong:
        with open(folder / "failures", "a") as out:
            out.write(f"call {number}, {argv}: {wrong}\n")
        return 99
    if step["exit_code"] is None:
        signal.pause()
    sys.stdout.write(_placed(step["stdout"], plan["places"]))
    sys.stderr.write(_placed(step["stderr"], plan["places"]))
    return int(step["exit_code"])


def _differences(step: Step | None, argv: list[str], places: Mapping[str, str]) -> str:
    if step is None:
        return "no further call was recorded"
    expected = [_placed(word, places) for word in step["argv"]]
    if normal_form(expected) != normal_form(argv):
        return f"recorded is {expected}"
    if os.environ.get("BD_ACTOR") != os.environ.get("BEADS_ACTOR") or not os.environ.get("BEADS_DIR"):
        return "the actor or the store is not told"
    if "--claim" in argv and os.environ["BD_ACTOR"] != step["env"]["BD_ACTOR"]:
        return f"recorded is the actor {step['env']['BD_ACTOR']}"
    return ""


def _record(folder: Path, plan: Mapping[str, Any], number: int) -> int:
    done = subprocess.run([plan["real"], *sys.argv[1:]], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    back = {path: place for place, path in plan["places"].items()}
    step = {
        "scenario": plan["scenario"],
        "step": number,
        "argv": sys.argv[1:],
        "env": {"BD_ACTOR": os.environ.get("BD_ACTOR", "")},
        "stdout": _placed(done.stdout.decode("utf-8", "replace"), back),
        "stderr": _placed(done.stderr.decode("utf-8", "replace"), back),
        "exit_code": done.returncode,
    }
    with open(folder / "steps.jsonl", "a") as out:
        out.write(json.dumps(step, ensure_ascii=False) + "\n")
    sys.stdout.buffer.write(done.stdout)
    sys.stderr.buffer.write(done.stderr)
    return done.returncode


def _placed(text: str, places: Mapping[str, str]) -> str:
    for place, path in places.items():
        text = text.replace(place, path)
    return text


if __name__ == "__main__":
    sys.exit(_main())
