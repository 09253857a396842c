"""`overhead`: what the loop itself costs, against a shell script that does the same git work."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

from benchmarks.ground import Ground, Spent, ground, task
from benchmarks.measure import Measurement, interleaved

GOAL = 0.8
SCRIPT = Path(__file__).with_name("overhead.sh")


def measure(*, quick: bool) -> Iterator[Measurement]:
    """Independent tasks, an agent that writes one file and exits, four at a time, no gate."""
    count, files, rounds = (8, 50, 1) if quick else (100, 2000, 2)
    tasks = [task(number) for number in range(count)]
    with ground(files=files) as place:
        begin = place.git("rev-parse", "HEAD").strip()

        def with_loop() -> Spent:
            _start_over(place, begin)
            place.plan(tasks)
            return place.run("--jobs", "4", "--no-gate")

        def with_script() -> Spent:
            _start_over(place, begin)
            listing = place.top / "tasks.txt"
            listing.write_text("".join(f"{t['id']}\n" for t in tasks))
            words = (str(SCRIPT), str(place.top / "agent.sh"), str(place.top / "by-script"), "4")
            spent = place.spend("sh", "-c", 'exec sh "$@" < "$0"', str(listing), *words)
            landed = place.git("ls-tree", "--name-only", "HEAD", "src/").splitlines()
            if len(landed) != count + 1:
                raise SystemExit(f"the script landed {len(landed) - 1} of {count}")
            return spent

        yield interleaved(with_loop, with_script, rounds=rounds).compare("overhead", GOAL)


def _start_over(place: Ground, commit: str) -> None:
    """As at the beginning, but for the worktree pool, which is kept between runs."""
    place.git("reset", "-q", "--hard", commit)
    place.git("reflog", "expire", "--expire=now", "--all")
    subprocess.run(["git", "gc", "-q", "--prune=now"], cwd=place.path, env=place.env, check=True)
