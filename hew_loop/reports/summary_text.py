"""The summary as text for a person: the headline, the numbers, then one line per task with what to type next."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from rich.cells import cell_len

from hew_loop.reports.spend import ModelSpend, cost_words, dollars, tokens_words
from hew_loop.reports.summary import Delivery, GateRuns, Summary, VerifyRun
from hew_loop.reports.task_lines import TaskLine
from hew_loop.reports.text import clock, cut, duration, pad, plain, plural, utc

LABEL = 12
INDENT = 17
MAX_TITLE = 40
MAX_NEVER_STARTED = 30
MAX_NOTICES = 20
MAX_SHARED = 10
MODEL_COLUMNS = (
    "model", "runtime", "iterations", "tasks", "input", "cache read", "cache create", "output", "cost"
)  # fmt: skip

_WORDS = {"unchanged": "no change", "never_started": "never started"}


def to_text(summary: Summary, *, width: int = 200) -> str:
    """Lines are folded at `width` columns, but for the commands, which are there to be copied."""
    lines: list[str] = [*_fold(plain(summary.headline), width, indent=0), ""]
    for label, text in _facts(summary):
        lines += _fold(pad(label, LABEL) + plain(text, max_chars=2000), width, indent=LABEL)
    if summary.delivery.next:
        lines.append(" " * LABEL + summary.delivery.next)
    lines += _models(summary.models, width)
    lines += _notices(summary, width)
    lines += _tasks(summary, width)
    lines += _shared_files(summary, width)
    return "\n".join(lines) + "\n"


def _facts(summary: Summary) -> Iterator[tuple[str, str]]:
    yield "run", summary.run_id + _ending(summary)
    yield "time", f"{duration(summary.duration_s)}, from {utc(summary.started_at)}" + _until(summary)
    outcomes = ", ".join(f"{count} {label}" for label, count in summary.outcomes.items())
    yield "iterations", f"{summary.iterations:,}" + (f": {outcomes}" if outcomes else "")
    yield "scope", f"{summary.scope}; {plural(summary.in_scope_at_start, 'open task')} at the start"
    plans = summary.planner
    if plans.agent or plans.planner or plans.skipped:
        yield "batch plans", f"agent {plans.agent}, planner {plans.planner}, skipped {plans.skipped}"
    yield "gate", _gate(summary.gate)
    if summary.verify is not None:
        yield "verify", _verify(summary.verify)
    if summary.stop_reason is not None:
        yield "stopped", summary.stop_reason + (f": {summary.stop_detail}" if summary.stop_detail else "")
    yield "tokens", tokens_words(summary.tokens)
    if summary.cache_read_percent is not None:
        yield "cache", f"{summary.cache_read_percent:g}% of the input was read from the cache"
    yield "cost", cost_words(summary.cost)
    yield "delivery", _delivery(summary.delivery)
    if (changes := summary.changes) is not None:
        lines = f"+{changes.insertions:,} -{changes.deletions:,}"
        yield "changed", f"{plural(changes.files, 'file')}, {lines} in {plural(changes.merges, 'merge')}"


def _ending(summary: Summary) -> str:
    resumed = f", resumed {summary.resumes}x" if summary.resumes else ""
    match summary.status:
        case "ended":
            return f", exit code {summary.exit_code}{resumed}"
        case "died":
            return f", died{resumed}; carry it on: loop resume {summary.run_id}"
        case "suspended":
            return ", between two steps; the next one: loop step"
        case "running":
            return f", running{resumed}"


def _until(summary: Summary) -> str:
    return f" to {utc(summary.ended_at)}" if summary.ended_at else ""


def _gate(gate: GateRuns) -> str:
    if not gate.commands:
        return f"none ({gate.origin or 'no stack was found'}): nothing was tested before it landed"
    base = f"; base {_verdict(gate.base)}" if gate.base else ""
    if gate.base in ("failed", "could_not_run") and gate.base_reason:
        base += f" ({gate.base_reason})"
    verdicts = ", ".join(f"{count} {_verdict(v)}" for v, count in gate.verdicts.items())
    kept = f"; {gate.cached} from kept results" if gate.cached else ""
    runs = f"{plural(gate.runs, 'run')} in {duration(gate.time_s)} ({verdicts})" if gate.runs else "no run"
    return f"{runs}{kept}{base}"


def _verify(verify: VerifyRun) -> str:
    reason = f" ({verify.reason})" if verify.verdict != "passed" and verify.reason else ""
    command = f": {verify.command}" if verify.command else ""
    return f"{_verdict(verify.verdict)}{reason} in {duration(verify.duration_s)}{command}"


def _delivery(delivery: Delivery) -> str:
    reason = f": {delivery.reason}" if delivery.reason else ""
    match delivery.state:
        case "merged":
            return f"merged into {delivery.branch} as {delivery.commit[:12]}"
        case "nothing":
            return "nothing landed"
        case "pending":
            return f"into {delivery.branch}, at the end" if delivery.branch else "kept as a branch, at the end"
        case "kept":
            return f"kept as the branch {delivery.branch}{reason}"
        case "refused":
            return f"refused{reason}; the work is on the branch {delivery.branch}"
        case "not_delivered":
            return f"not done{reason}; the work is on the branch {delivery.branch}"


def _verdict(verdict: str) -> str:
    return verdict.replace("_", " ")


def _models(models: Sequence[ModelSpend], width: int) -> Iterator[str]:
    """A table, or where that is too wide a sentence for each; nothing when nobody said anything."""
    if not any(used.model or used.tokens.total is not None for used in models):
        return
    rows = [MODEL_COLUMNS, *map(_model_row, models)]
    widths = [max(cell_len(row[column]) for row in rows) for column in range(len(MODEL_COLUMNS))]
    yield from ("", "models")
    if sum(widths) + 2 * len(widths) <= width:
        for row in rows:
            names = [pad(cell, widths[column]) for column, cell in enumerate(row[:2])]
            numbers = [" " * (widths[column] - len(cell)) + cell for column, cell in enumerate(row[2:], 2)]
            yield "  " + "  ".join(names + numbers)
        return
    for row in rows[1:]:
        facts = ", ".join(f"{name} {cell}" for name, cell in zip(MODEL_COLUMNS[2:], row[2:], strict=True))
        yield from _fold(f"  {row[0]} ({row[1]}): {facts}", width, indent=4)


def _model_row(used: ModelSpend) -> tuple[str, ...]:
    def counted(count: int | None) -> str:
        return "unknown" if count is None else f"{count:,}"

    tokens, cost = used.tokens, used.cost
    silent = (
        f" ({tokens.unknown_iterations:,} unknown)" if tokens.unknown_iterations and tokens.total is not None else ""
    )
    unpaid = f" (+ {cost.unknown_iterations:,} unknown)" if cost.unknown_iterations and cost.usd is not None else ""
    return (
        cut(plain(used.model or "not said"), MAX_TITLE),
        plain(used.runtime),
        f"{used.iterations:,}{silent}",
        f"{used.tasks:,}",
        counted(tokens.input),
        counted(tokens.cache_read),
        counted(tokens.cache_create),
        counted(tokens.output),
        dollars(cost) + unpaid,
    )


def _notices(summary: Summary, width: int) -> Iterator[str]:
    if not summary.notices:
        return
    yield from ("", "notices")
    for note in summary.notices[:MAX_NOTICES]:
        at = f"{clock(note.at)} " if note.at else ""
        about = f"iter {', '.join(map(str, note.iterations))}: " if note.iterations else ""
        yield from _fold(f"  {at}{about}{plain(note.text)}", width, indent=4)
    if len(summary.notices) > MAX_NOTICES:
        yield f"  and {len(summary.notices) - MAX_NOTICES} more: loop summary {summary.run_id} --json"


def _tasks(summary: Summary, width: int) -> Iterator[str]:
    """Tasks in a row with the same next command share it, below the last of them."""
    shown = _shown(summary.tasks)
    if not shown:
        return
    yield from ("", "tasks")
    ids = min(max(len(plain(line.task)) for line in shown), 30)
    titles = min(max(len(plain(line.title)) for line in shown), MAX_TITLE, max(width // 4, 10))
    for i, line in enumerate(shown):
        word = _WORDS.get(line.state, line.state)
        title = pad(cut(plain(line.title), titles), titles) + "  " if titles else ""
        head = f"  {word:13}  {pad(plain(line.task), ids)}  {title}"
        yield from _fold(head + _detail(line), width, indent=INDENT)
        if i + 1 == len(shown) or shown[i + 1].next != line.next:
            yield from (" " * INDENT + command for command in line.next)
    if hidden := len(summary.tasks) - len(shown):
        yield f"  and {hidden:,} more that were never started: loop summary {summary.run_id} --json"


def _shared_files(summary: Summary, width: int) -> Iterator[str]:
    """Where tasks met: first the files of most of them."""
    shared = sorted(summary.shared_files.items(), key=lambda item: -len(item[1]))
    if not shared:
        return
    yield from ("", "files touched by several tasks")
    for path, tasks in shared[:MAX_SHARED]:
        yield from _fold(f"  {plain(path)}: {', '.join(map(plain, tasks))}", width, indent=4)
    if len(shared) > MAX_SHARED:
        yield f"  and {len(shared) - MAX_SHARED:,} more: loop summary {summary.run_id} --json"


def _shown(tasks: Sequence[TaskLine]) -> tuple[TaskLine, ...]:
    taken = [t for t in tasks if t.state != "never_started"]
    return (*taken, *[t for t in tasks if t.state == "never_started"][:MAX_NEVER_STARTED])


def _detail(line: TaskLine) -> str:
    text = plain(line.why)
    if line.state == "landed" and not line.tested:
        text += "; not tested"
    if line.files:
        text += f"; {plural(len(line.files), 'file')}"
    if line.attempts > 1 or (line.attempts and line.state == "parked"):
        text += f"; {plural(line.attempts, 'attempt')}"
    if line.bug:
        text += f"; bug {plain(line.bug)}"
    return text


def _fold(line: str, width: int, *, indent: int) -> list[str]:
    folded = textwrap.wrap(
        line, max(width, 40), subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False,
        drop_whitespace=True, replace_whitespace=False,
    )  # fmt: skip
    return folded or [""]
