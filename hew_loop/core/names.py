"""Names made from things that others chose: a task id never becomes a path or a ref as it is (P13)."""

from __future__ import annotations

import hashlib
import re

_PLAIN = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]|\.(?=[A-Za-z0-9_-]))*")


def slug(task_id: str) -> str:
    """The id itself where git and file systems take it as a name, else a readable rest and a hash of the whole.

    >>> slug("hew-a1b.2")
    'hew-a1b.2'
    """
    if len(task_id) <= 80 and _PLAIN.fullmatch(task_id) and not task_id.endswith(".lock"):
        return task_id
    rest = re.sub(r"[^A-Za-z0-9_-]+", "-", task_id).strip("-")[:40] or "task"
    return f"{rest}-{hashlib.sha256(task_id.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def one_line(text: str) -> str:
    """An id or a title for a commit message: it can neither hold a NUL, which git refuses, nor add a trailer."""
    return re.sub(r"[\s\x00-\x1f\x7f-\x9f\ud800-\udfff]+", " ", text).strip()


def branch_name(run_id: str, task_id: str, attempt: int) -> str:
    return f"loop/{run_id}/{slug(task_id)}.{attempt}"


def integration_ref(run_id: str) -> str:
    return f"refs/loop/{run_id}/integration"


def candidate_ref(run_id: str) -> str:
    return f"refs/loop/{run_id}/candidate"


def salvage_ref(run_id: str, task_id: str, attempt: int) -> str:
    return f"refs/loop/{run_id}/salvage/{slug(task_id)}.{attempt}"


def integration_branch(run_id: str) -> str:
    return f"loop/{run_id}/integration"


def actor_name(run_id: str, slot: int) -> str:
    return f"loop/{run_id}/{slot}"


def bug_ref(run_id: str, task_id: str, attempt: int) -> str:
    """The external_ref of the bug that a park files, so that a second filing finds the first."""
    return f"loop:{run_id}/{task_id}.{attempt}"
