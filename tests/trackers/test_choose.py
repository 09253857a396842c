"""Whose store it is: bd's where a database is or is named, ours where issues.jsonl stands alone or nothing is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hew_loop.trackers.choose import detect, refuse_bd, store_directory


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        ({}, "beads"),
        ({"issues.jsonl": ""}, "beads"),
        ({"issues.jsonl": "", "config.yaml": "issue-prefix: tt", "metadata.json": "{}"}, "beads"),
        ({"metadata.json": json.dumps({"jsonl_export": "issues.jsonl"})}, "beads"),
        ({"metadata.json": json.dumps({"database": "beads.db", "jsonl_export": "issues.jsonl"})}, "bd"),
        ({"issues.jsonl": "", "metadata.json": json.dumps({"backend": "dolt", "dolt_mode": "server"})}, "bd"),
        ({"issues.jsonl": "", "metadata.json": "not json"}, "bd"),
        ({"metadata.json": "[]"}, "beads"),
        ({"beads.db": ""}, "bd"),
        ({"old-name.db": "", "issues.jsonl": ""}, "bd"),
        ({"embeddeddolt/x": ""}, "bd"),
        ({"dolt/x": ""}, "bd"),
    ],
)
def test_the_files_decide(tmp_path: Path, files: dict[str, str], kind: str) -> None:
    for name, text in files.items():
        path = tmp_path / ".beads" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert detect(tmp_path, None) == kind


def test_beads_dir_names_the_directory(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "beads.db").touch()
    assert detect(tmp_path, str(tmp_path / "other")) == "bd"
    assert detect(tmp_path, "") == "beads"
    assert store_directory(tmp_path, str(tmp_path / "new")) == tmp_path / "new"
    assert store_directory(tmp_path, None) == tmp_path / ".beads"


@pytest.mark.parametrize("absolute", [True, False])
def test_a_redirect_is_followed_once(tmp_path: Path, absolute: bool) -> None:
    for name in ("a/.beads", "b/.beads", "c/.beads"):
        (tmp_path / name).mkdir(parents=True)
    target = tmp_path / "b" / ".beads"
    (tmp_path / "a" / ".beads" / "redirect").write_text(f"# moved\n\n{target if absolute else '../b/.beads'}\n")
    (target / "redirect").write_text(str(tmp_path / "c" / ".beads"))
    (target / "beads.db").touch()
    assert store_directory(tmp_path / "a", None) == target
    assert detect(tmp_path / "a", None) == "bd"


@pytest.mark.parametrize("text", ["", "# nothing", "/no/such/place"])
def test_a_redirect_to_nowhere_is_ignored(tmp_path: Path, text: str) -> None:
    (tmp_path / ".beads").mkdir()
    (tmp_path / ".beads" / "redirect").write_text(text)
    assert store_directory(tmp_path, None) == tmp_path / ".beads"


def test_the_refusal_says_whose_it_is_and_what_to_do(tmp_path: Path) -> None:
    error = refuse_bd(tmp_path)
    assert error.exit_code == 69
    assert error.message == f"{tmp_path} belongs to bd, and its issues.jsonl may be older than bd's database."
    assert "bd ready" in error.hint
