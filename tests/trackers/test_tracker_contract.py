"""The trackers that live in a file keep the contract."""

from __future__ import annotations

from pathlib import Path

from hew_loop.trackers.base import Tracker
from hew_loop.trackers.beads_store import BeadsStore
from hew_loop.trackers.checklist import ChecklistTracker
from tests.trackers.beads_files import issue, write
from tests.trackers.contract import TITLES, TrackerContract


class TestBeadsStore(TrackerContract):
    def fill(self, directory: Path) -> None:
        rows = [issue(f"tt-{n}", title=t, created_at=f"2026-01-01T00:0{n}:00Z") for n, t in enumerate(TITLES)]
        write(directory / ".beads", rows)

    def open(self, directory: Path) -> Tracker:
        return BeadsStore(directory / ".beads")


class TestChecklist(TrackerContract):
    def fill(self, directory: Path) -> None:
        (directory / "PLAN.md").write_text("# Tea\n\n" + "".join(f"- [ ] {title}\n" for title in TITLES))

    def open(self, directory: Path) -> Tracker:
        return ChecklistTracker(directory / "PLAN.md", state=directory / ".hew" / "checklist" / "PLAN.json")
