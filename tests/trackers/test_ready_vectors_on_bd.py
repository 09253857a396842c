"""The conformance vectors on the real bd on PATH: what the embedded store is held to is what bd really answers."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.real_bd import RealBd
from tests.trackers.beads_files import with_times
from tests.trackers.test_ready_vectors import VECTORS

pytestmark = [pytest.mark.real_bd, pytest.mark.slow]
CUSTOM = {"agent", "role", "rig", "merge-request"}
"""Types that bd takes only when the store's configuration names them."""


def column(version: tuple[int, ...]) -> str | None:
    """The column of the vectors that speaks of this version; None: only what all three agree on is known."""
    if version[:2] == (0, 49):
        return "0.49.0" if version < (0, 49, 4) else "0.49.5"
    return "1.0.5" if version >= (1, 0, 5) else None


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty store to copy: making one takes longer than a vector."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        patch.delenv("BEADS_DIR", raising=False)
        return RealBd(tmp_path_factory.mktemp("bd") / "repo").init().path


@pytest.mark.parametrize("vector", VECTORS, ids=[f"{v['n']}-{v['name']}" for v in VECTORS])
def test_a_vector_is_answered_by_bd_as_it_is_written_down(vector: dict[str, Any], fresh: Path, tmp_path: Path) -> None:
    path = tmp_path / "repo"
    shutil.copytree(fresh, path, symlinks=True)
    bd = RealBd(path)
    name = column(bd.version)
    if name is None and not vector["agree"]:
        pytest.skip(f"bd {'.'.join(map(str, bd.version))} has no column, and the three known versions differ here")
    expected = vector["expect"][name or "1.0.5"]
    if answer := answered(bd, vector):
        assert [each["id"] for each in json.loads(answer)] == expected
    else:
        assert not expected, "bd refused the graph or the options"


def answered(bd: RealBd, vector: dict[str, Any]) -> str:
    """What `bd ready` prints; nothing where this version refuses the graph or the options."""
    issues = json.loads(with_times(json.dumps(vector["issues"]), datetime.now(UTC)))
    if custom := {each["issue_type"] for each in issues} & CUSTOM:
        bd.run("config", "set", "types.custom", ",".join(sorted(custom)))
    if issues:
        bd.take(issues, ok=False)
    return bd.run("ready", "--json", "--limit", "0", *vector["args"], ok=False)
