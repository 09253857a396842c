"""What a store of bd's says about its project: the project's own words, without bd's manual."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from hew_loop.errors import TrackerError
from hew_loop.trackers.bd_call import Bd

TIMEOUT_S: Final = 10.0
MAX_CHARACTERS: Final = 16_000
"""What memories may take of every prompt: they grow from run to run."""

_MANUAL = re.compile(r"^# Beads (?:Workflow Context|Issue Tracker)|SESSION CLOSE PROTOCOL", re.MULTILINE)
_OUR_NOTES: Final = "STATUS:loop-"
"""What the loop itself remembers of single tasks: none of it concerns the others."""


def primer(bd: Bd) -> str:
    """A PRIME.md as `bd prime` prints it, else the store's memories. Raises TrackerError.

    Where a project has written no PRIME.md, `bd prime` prints bd's manual, for an agent that looks for its work itself:
    it is to close its tasks, file one before it writes code, push, and start others. The rules forbid all of that.
    """
    quick = replace(bd, timeout_s=TIMEOUT_S)
    text = _prime(quick)
    # One that was made with --export and then changed has the manual's words in it, and is the project's all the same.
    if not _MANUAL.search(text) or text != _prime(quick, "--export"):
        return text
    answer = quick.call("memories")
    if "unknown command" in answer.error:  # before 0.58
        return ""
    kept = {key: value for key, value in answer.object().items() if isinstance(value, str)}
    return memories_text({key: value for key, value in kept.items() if not value.startswith(_OUR_NOTES)})


def memories_text(memories: dict[str, str]) -> str:
    """In the order of their keys, so that the same memories are the same bytes."""
    told, room = list[str](), MAX_CHARACTERS
    for key, value in sorted(memories.items()):
        told.append(f"- {key}: {value.strip()}\n")
        room -= len(told[-1])
        if room < 0:
            told.pop()
            break
    left_out = len(memories) - len(told)
    rest = f"{left_out} more are not shown here; see: bd memories\n" if left_out else ""
    return f"What was remembered about this project:\n\n{''.join(told)}{rest}" if memories else ""


def _prime(bd: Bd, *flags: str) -> str:
    done = bd.raw(("prime", "--full", *flags))  # --full: whatever the user's own agent has connected
    if not done.ok:
        said = done.stderr.decode("utf-8", "replace").strip()
        raise TrackerError(f"bd prime: {said.splitlines()[0] if said else f'exit code {done.exit_code}'}")
    return done.text()
