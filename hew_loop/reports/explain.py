"""A task's story in sentences for a person, and the commands to type next."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from hew_loop.core.actions import Why
from hew_loop.reports.story import Other, Pass, Story, Told
from hew_loop.reports.text import clock, duration, plain, plural

MAX_FILES = 8
MAX_OTHERS = 20
_STATES = {
    "landed": "landed", "unchanged": "closed without a change", "parked": "parked", "returned": "returned",
    "withdrawn": "withdrawn", "starting": "starting", "running": "running", "waiting": "waiting",
    "retry": "to be tried again", "never_started": "never started", "closed": "closed", "gone": "gone",
}  # fmt: skip
_WHY: dict[Why, str] = {
    "graph": "it was its turn in graph order",
    "agent": "an agent suggested it",
    "planner": "the planner suggested it",
    "retry": "it was tried again",
}


def to_text(story: Story, *, width: int = 200) -> str:
    """Sentences are folded at `width` columns, but for the commands, which are there to be copied."""
    lines: list[str] = []
    for sentence in _sentences(story):
        indent = len(sentence) - len(sentence.lstrip())
        lines += _fold(sentence, width, indent=indent + 2) if sentence else [""]
    if story.next:
        lines += ["", "next:", *(f"  {command}" for command in story.next)]
    return "\n".join(lines) + "\n"


def _sentences(story: Story) -> Iterator[str]:
    level = f" (P{story.priority} {plain(story.type)})" if story.priority is not None else ""
    yield f"{plain(story.task)}  {plain(story.title)}{level}".rstrip()
    yield _now(story)
    yield ""
    if story.depends_on:
        yield f"It depends on {_named(story.depends_on)}."
    if story.needed_by:
        verb = "depends" if len(story.needed_by) == 1 else "depend"
        yield f"{_named(story.needed_by)} {verb} on it."
    if not story.depends_on and not story.needed_by:
        yield "It depends on nothing, and nothing depends on it."
    for told in story.iterations:
        yield ""
        yield from _iteration(told)
    yield from _touch(story)


def _now(story: Story) -> str:
    where = f"in {story.run_id}" if story.run_id else "no run has seen it"
    said = f": {plain(story.why)}" if story.why else ""
    if story.state == "landed":
        said = f" {plain(story.why)}" + {True: ", delivered", False: ", not delivered yet", None: ""}[story.delivered]
    if story.bug:
        said += f"; bug {plain(story.bug)}"
    if story.attempts > 1:
        said += f"; {plural(story.attempts, 'attempt')}"
    return f"{where}: {_STATES[story.state]}{said}"


def _iteration(told: Told) -> Iterator[str]:
    model = f", model {plain(told.model)}" if told.model else ""
    yield (
        f"iter {told.number}, attempt {told.attempt}, began at {clock(told.started_at)} in slot {told.slot}"
        f" on {plain(told.runtime)}{model}: {_chosen(told)}."
    )
    after = f" after {duration(told.duration_s)}" if told.duration_s is not None else ""
    reason = f": {plain(told.reason, max_chars=300)}" if told.reason else ""
    landed = f" as {told.commit[:12]}" if told.commit else ""
    yield f"  {told.outcome}{landed}{after}{reason}"
    if told.gate is not None and not told.outcome.startswith("gate"):
        yield f"  gate {told.gate.replace('_', ' ')}"
    if told.files:
        yield f"  changed {plural(len(told.files), 'file')}: {_listed(told.files)}"


def _chosen(told: Told) -> str:
    batch = f" in batch {told.batch}" if told.batch is not None else ""
    after = f" after iter {told.after}" if told.after else ""
    return f"{_WHY[told.why]}{batch}{after}"


def _touch(story: Story) -> Iterator[str]:
    if story.predicted and story.state not in ("landed", "unchanged", "closed", "gone"):
        yield ""
        yield f"It will probably change {plural(len(story.predicted), 'file')}: {_listed(story.predicted)}."
        for meeting in story.meets[:MAX_OTHERS]:
            yield f"  {plain(meeting.task)}, which is at work, probably changes too: {_listed(meeting.files)}"
    over = [p for p in story.passed if p.passed == story.task]
    taken = [p for p in story.passed if p.taken == story.task]
    if over or taken:
        yield ""
    if over:
        more = f"; so were {plural(len(over) - 1, 'other')} before" if len(over) > 1 else ""
        yield f"It was passed over: {plain(over[-1].taken)} was started in its place {_because(over[-1])}{more}."
    for p in taken:
        yield f"It was started in the place of {plain(p.passed)} {_because(p)}."


def _because(p: Pass) -> str:
    return f"at {clock(p.at)}, because others at work probably change {_listed(p.files)}"


def _named(others: Sequence[Other]) -> str:
    shown = [f"{plain(o.task)} ({plain(o.state).replace('_', ' ')})" for o in others[:MAX_OTHERS]]
    return ", ".join(shown) + _more(len(others) - len(shown))


def _listed(files: Sequence[str]) -> str:
    return ", ".join(plain(name) for name in files[:MAX_FILES]) + _more(len(files) - MAX_FILES)


def _more(count: int) -> str:
    return f" and {count:,} more" if count > 0 else ""


def _fold(line: str, width: int, *, indent: int) -> list[str]:
    return textwrap.wrap(
        line, max(width, 40), subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False,
        drop_whitespace=True, replace_whitespace=False,
    )  # fmt: skip
