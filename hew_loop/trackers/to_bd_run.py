"""What bd holds, asked of bd itself; and a plan's commands run on it, until it holds what was wanted."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from hew_loop.errors import TrackerError
from hew_loop.process import Completed
from hew_loop.trackers.bd_call import ACTOR, Bd, is_busy
from hew_loop.trackers.beads_file import Snapshot
from hew_loop.trackers.beads_format import Line
from hew_loop.trackers.beads_import import read_import
from hew_loop.trackers.to_bd import Plan, Step, Version, Wish, plan

_PER_LINE_S: Final = 0.1
"""bd 1.0.5 takes 34 ms for each of 10,000 issues."""


def held(bd: Bd) -> tuple[Version, tuple[Line, ...]]:
    """bd's version and all that it exports. Raises TrackerError."""
    said = bd.call("version").object().get("version")
    found = re.match(r"v?(\d+)\.(\d+)\.(\d+)", said) if isinstance(said, str) else None
    if found is None:
        raise TrackerError(f"{bd.program} does not tell its version.", hint="Is that beads' bd? See: bd version")
    version = tuple(map(int, found.groups()))
    # 0.49 has no --all, and leaves nothing out.
    words = ("export",) if version < (0, 50) else ("export", "--all")
    done = _run(bd, words, ACTOR, b"")
    if not done.ok:
        raise TrackerError(f"bd export: {_words(done)}", hint="Try it by hand: bd export")
    return version, read_import(done.stdout, "bd export")


def carry_out(bd: Bd, store: Snapshot, done: Plan, wish: Wish, *, actor: str) -> None:
    """Run the steps, then ask bd again. Raises TrackerError when one fails or something is still not as wanted."""
    for number, step in enumerate(done.steps, start=1):
        patient = replace(bd, timeout_s=bd.timeout_s + _PER_LINE_S * step.stdin.count(b"\n"))
        answer = _run(patient, step.argv[1:], actor, step.stdin)
        if not answer.ok:
            raise _stopped(f"{_named(step)}: {_words(answer)}", number - 1, len(done.steps))
    left = plan(store, held(bd)[1], replace(wish, overwrite=True)).steps if done.steps else ()
    # What was left alone on purpose is no failure.
    touched = {name for step in done.steps for name in _ids(step)}
    missing = sorted({name for step in left for name in _ids(step)} & touched)
    if missing:
        raise _stopped(f"bd did not take all of it: {', '.join(missing[:5])}", len(done.steps), len(done.steps))


def _run(bd: Bd, words: Sequence[str], actor: str, stdin: bytes) -> Completed:
    done = bd.raw(words, actor=actor, stdin=stdin)
    for pause_s in bd.pauses_s:
        if not is_busy(done):
            break
        time.sleep(pause_s)
        done = bd.raw(words, actor=actor, stdin=stdin)
    return done


def _stopped(what: str, ran: int, of: int) -> TrackerError:
    return TrackerError(
        f"{what}. {ran} of {of} commands were run.",
        hint="See what is left: loop task export --to-bd --overwrite",
    )


def _named(step: Step) -> str:
    return " ".join(word for word in step.argv[:4] if not word.startswith("--"))


def _ids(step: Step) -> set[str]:
    """Every id that a step names: its own words, and those of the lines that it imports."""
    return {line.id for line in read_import(step.stdin, "plan") if line.id} | set(step.argv[2:])


def _words(done: Completed) -> str:
    """The first line in which bd complains, on whichever stream."""
    text = (done.stderr + b"\n" + done.stdout).decode("utf-8", "replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    complaint = next((line for line in lines if re.match(r"Error|Import failed|\"error\"", line)), "")
    return (complaint or (lines[0] if lines else "it failed and said nothing"))[:300]
