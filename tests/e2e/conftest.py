"""The e2e suite: every test goes through the installed `loop` command, on real git, with a scripted agent."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.project import Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A repository with a scripted agent and no gate of its own."""
    return Project(tmp_path)
