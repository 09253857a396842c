"""What a run amounts to: its exit code, and the sentences that it leaves in the tracker."""

from __future__ import annotations

from hew_loop.core.state import FINAL, Iteration, RunState, TaskRecord
from hew_loop.errors import (
    EXIT_BUG,
    EXIT_FAILED,
    EXIT_LIMIT,
    EXIT_OK,
    EXIT_SIGINT,
    EXIT_SIGTERM,
    EXIT_UNAVAILABLE,
)

MAX_BUG_TEXT = 8_000


def failed_something(state: RunState) -> bool:
    """A task is parked, verify did not pass, or the delivery was refused."""
    if state.verify is not None and state.verify.verdict in ("failed", "could_not_run"):
        return True
    if state.delivery is not None and state.delivery.state == "refused":
        return True
    return any(r.phase == "parked" or r.then == "parked" for r in state.records.values())


def exit_code(state: RunState) -> int:
    """The table of product.md §3. What the tracker was never told outweighs why the run stopped, but for a cancel."""
    if state.stopping not in ("cancelled", "stuck") and any(r.phase not in FINAL for r in state.records.values()):
        return EXIT_UNAVAILABLE
    match state.stopping:
        case "cancelled":
            by = state.stop_request.by if state.stop_request else ""
            return {"SIGINT": EXIT_SIGINT, "SIGTERM": EXIT_SIGTERM}.get(by, EXIT_LIMIT)
        case "stuck":
            return EXIT_BUG
        case "gate_error" if state.base_verdict == "failed":
            return EXIT_FAILED
        case "runtime_error" | "tracker_error" | "gate_error":
            return EXIT_UNAVAILABLE
        case "guard_trip":
            return EXIT_FAILED
        case "ready_empty":
            left = EXIT_LIMIT if state.in_phase("returned") else EXIT_OK
            return EXIT_FAILED if failed_something(state) else left
        case _:
            return EXIT_FAILED if failed_something(state) else EXIT_LIMIT


def close_reason(state: RunState, record: TaskRecord) -> str:
    said = f": {record.summary}" if record.summary else ""
    if record.phase == "accepted":
        return f"no change needed{said} ({state.run_id})"[:2000]
    return f"landed as {record.landed[:12]} by {state.run_id}{said}"[:2000]


def release_note(state: RunState, record: TaskRecord) -> str:
    """What is appended to the notes of a task that is given back; carries a reference, so that it is written once."""
    if record.then == "parked":
        bug = f", bug {record.bug}" if record.bug else ""
        return f"parked by {state.run_id}{bug}: {_first_line(record.reason)}"
    if not record.iterations:
        return ""
    work = newest_work(state, record)
    where = f"; its work is on {work.spec.branch}" if work else ""
    return f"returned by {state.run_id} after attempt {record.attempts}{where}"


def newest_work(state: RunState, record: TaskRecord) -> Iteration | None:
    """The last iteration of the task that left something; the branches of those after it are gone."""
    return next((i for n in reversed(record.iterations) if (i := state.iterations[n]).has_work), None)


def park_bug(state: RunState, record: TaskRecord) -> tuple[str, str]:
    """Title and description of the bug that blocks a parked task."""
    title = f"[{record.kind}] {record.task}: {_first_line(record.reason)}"[:200]
    last = record.iterations[-1] if record.iterations else 0
    attempts = f"{record.attempts} attempt{'' if record.attempts == 1 else 's'}"
    work = newest_work(state, record)
    lines = [
        f"The loop gave up on {record.task} after {attempts} ({state.run_id}).",
        "",
        f"Reason: {record.reason}",
        f"Branch: {work.spec.branch if work else 'none, no attempt left any work'}",
        "",
        "Look at it:",
        *([f"    git log -p {work.spec.base[:12]}..{work.spec.branch}"] if work else []),
        f"    loop logs {state.run_id} --iter {last}",
        "",
        "When it is mended, or the task may be tried again, close this bug: it blocks the task until then.",
    ]
    if record.evidence:
        lines += ["", "What the last attempt was up against:", "", record.evidence[-1]]
    for earlier in reversed(record.evidence[:-1]):
        lines += ["", "And before that:", "", earlier]
    return title, "\n".join(lines)[:MAX_BUG_TEXT]


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "no reason was given")
