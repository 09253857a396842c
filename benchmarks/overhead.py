"""`overhead`: what the loop itself costs, against a shell script that does the same git work."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.ground import Spent, ground, task
from benchmarks.measure import Measurement, interleaved

GOAL = 0.8
SCRIPT = Path(__file__).with_name("overhead.sh")


def measure(*, quick: bool) -> Iterator[Measurement]:
    """Independent tasks, an agent that writes one file and exits, four at a time, no gate; each time from nothing."""
    count, files, rounds = (8, 50, 1) if quick else (100, 2000, 3)

    def with_loop() -> Spent:
        with ground(files=files) as place:
            place.plan([task(number) for number in range(count)])
            return place.run("--jobs", "4", "--no-gate")

    def with_script() -> Spent:
        with ground(files=files) as place:
            listing = place.top / "tasks.txt"
            listing.write_text("".join(f"{task(number)['id']}\n" for number in range(count)))
            words = (str(SCRIPT), str(place.top / "agent.sh"), str(place.top / "by-script"), "4")
            spent = place.spend("sh", "-c", 'exec sh "$@" < "$0"', str(listing), *words)
            landed = place.git("ls-tree", "--name-only", "HEAD", "src/").splitlines()
            if len(landed) != count + 1:
                raise SystemExit(f"the script landed {len(landed) - 1} of {count}")
            return spent

    yield interleaved(with_loop, with_script, rounds=rounds).compare("overhead", GOAL)
