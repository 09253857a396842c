"""Whole outputs kept as files: `UPDATE_GOLDEN=1 pytest …` writes them anew, to be read before they are committed."""

from __future__ import annotations

import os
from pathlib import Path


def golden(test_file: str, name: str, text: str) -> str:
    """What `text` has to be: the file `golden/NAME` beside the test."""
    path = Path(test_file).parent / "golden" / name
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return path.read_text(encoding="utf-8")
