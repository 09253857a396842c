"""`touch`: what it buys to start first, among equal priorities, what changes no file that others change now."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import median

from benchmarks.ground import Ground, Spent, ground, task
from benchmarks.measure import Measurement, interleaved

CONFLICTS_GOAL = 0.5
WALL_GOAL = 1.0
NO_WAY_OUT_GOAL = 1.0
"""Where a third of all tasks change one file and there are more than three slots, they are what is left in the end."""

AGENT = """\
#!/bin/sh
# Works for a second, then writes its own file; and adds a line to the file that its description names, if that is a
# shared one, above or below what others added meanwhile.
sleep 1
echo done > "src/$HEW_TASK_ID.txt"
shared=$(cat "{shared}/$HEW_TASK_ID" 2> /dev/null) || exit 0
sed -i '/^<<<<<<< /d; /^=======$/d; /^>>>>>>> /d; /^||||||| /d' "$shared"
grep -q "^$HEW_TASK_ID$" "$shared" || echo "$HEW_TASK_ID" >> "$shared"
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    spent: Spent
    conflicts: int


def measure(*, quick: bool) -> Iterator[Measurement]:
    """Every third task changes one of a few files that others change, too; its description says which."""
    if quick:
        yield from _one("touch, 1 file, 2 jobs", count=6, files=1, jobs=2, rounds=1)
        return
    yield from _one("touch, 4 files, 4 jobs", count=48, files=4, jobs=4, rounds=3)
    yield from _one("touch, 4 files, 8 jobs", count=96, files=4, jobs=8, rounds=3)
    yield from _one("touch, 1 file, 4 jobs", count=48, files=1, jobs=4, rounds=3, goal=NO_WAY_OUT_GOAL)


def _one(
    name: str, *, count: int, files: int, jobs: int, rounds: int, goal: float = CONFLICTS_GOAL
) -> Iterator[Measurement]:
    """Conflicts and wall time, each against the same backlog in plain graph order."""
    found: dict[bool, list[Outcome]] = {True: [], False: []}

    def run(*, avoid: bool) -> Spent:
        found[avoid].append(_run(count, files, jobs, avoid=avoid))
        return found[avoid][-1].spent

    pairs = interleaved(lambda: run(avoid=True), lambda: run(avoid=False), rounds=rounds)
    ours, theirs = (median(o.conflicts for o in found[avoid]) for avoid in (True, False))
    note = f"{count} tasks; each conflict costs an iteration"
    ratio = ours / theirs if theirs else 1.0
    yield Measurement(name, f"{ours:g} conflicts", f"{theirs:g} conflicts", ratio, goal, note)
    yield pairs.compare(f"{name}, time", WALL_GOAL)


def _run(count: int, files: int, jobs: int, *, avoid: bool) -> Outcome:
    with ground() as place:
        _prepare(place, count, files)
        place = replace(place, env=place.env | {"HEW_LOOP_AVOID_CONFLICTS": str(avoid).lower()})
        spent = place.run("--jobs", str(jobs), "--no-gate", "--attempts", "99")
        lines = (place.path / ".hew" / "loop" / "latest" / "events.jsonl").read_text().splitlines()
        events = [json.loads(line)["event"] for line in lines]
        return Outcome(spent, sum(len(e["conflicts"]) for e in events if e["type"] == "chain_built"))


def _prepare(place: Ground, count: int, files: int) -> None:
    shared = place.top / "shared"
    shared.mkdir()
    (place.top / "agent.sh").write_text(AGENT.format(shared=shared))
    names = [f"src/shared{n}.txt" for n in range(files)]
    for name in names:
        (place.path / name).write_text("A line for each task that was here.\n")
    place.git("add", "-A")
    place.git("commit", "-qm", "Add what is shared")
    tasks = [task(number) for number in range(count)]
    for number in range(0, count, 3):
        name = names[number * files // count]
        (shared / str(tasks[number]["id"])).write_text(name)
        tasks[number]["description"] = f"Add a line to `{name}`."
    place.plan(tasks)
