"""How an iteration ended: by what is left in git, then by the agent's word, and never by its exit code alone."""

from __future__ import annotations

from hew_loop import process
from hew_loop.core.agent_answer import AgentAnswer
from hew_loop.core.iteration import AgentReport, FailureClass, Outcome
from hew_loop.repo.worktrees import Collected


def verdict_on(
    *,
    report: AgentReport,
    answer: AgentAnswer,
    left: Collected,
    files: tuple[str, ...],
    foreign: tuple[str, ...],
    carried: bool,
    cut_off: bool,
) -> tuple[Outcome, FailureClass | None, str]:
    """Outcome, failure class and message: judged by the diff, then by the agent's word.

    `files` are what it changed apart from the tracker's own files; `carried`: it started on top of work of the task
    that has not landed, so that its `no_change` means this work as it is, and not that the task needs none. `cut_off`:
    that work was cut off by a limit, perhaps right before its end, so that an agent that was told to go on from there
    and ends well without a change has found it complete.
    """
    if report.failure is not None and not (report.failure == "empty" and files):
        return "failed", report.failure, report.message
    if left.unmerged:
        return "failed", "unmerged", f"conflict markers or unmerged paths in {', '.join(left.unmerged[:10])}"
    if not left.descends:
        return "failed", "foreign_work", "its branch does not descend from the commit that it started from"
    if foreign:
        return "failed", "foreign_work", f"it contains work that has not landed: {', '.join(foreign[:5])}"
    if answer.status in ("blocked", "failed"):
        said = answer.summary or "no reason was given"
        return ("blocked", "agent_blocked", said) if answer.status == "blocked" else ("failed", "agent_failed", said)
    if files or (cut_off and not report.denials):
        return "done", None, ""
    if answer.status == "no_change":
        return ("done", None, "") if carried else ("no_change", None, answer.summary)
    if report.denials:
        return "failed", "permission_denied", f"refused tools: {', '.join(sorted(set(report.denials)))}"
    return "failed", "no_diff", "the agent ended well, but nothing has changed"


def process_warnings(ended: process.Ended | None) -> tuple[str, ...]:
    if ended is None:
        return ()
    told: list[str] = []
    if ended.leftovers:
        some = "1 process" if ended.leftovers == 1 else f"{ended.leftovers} processes"
        told.append(f"{some} outlived the agent and {'was' if ended.leftovers == 1 else 'were'} ended")
    if ended.dropped_bytes:
        told.append(f"output.log was cut: {ended.dropped_bytes:,} of {ended.output_bytes:,} bytes are not in it")
    if ended.error:
        told.append(ended.error)
    return tuple(told)
