"""The prompt of one iteration: a prefix that stays the same byte for byte, and a tail for the task."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final

from hew_loop.core.skill import CONFLICT, RETRY, RULES, SKILL, TAGGED_RULES
from hew_loop.core.task import TaskText

MAX_CHARACTERS: Final = 1_000_000

# Limits of the parts, in characters. Together with the rules and the fences they stay below MAX_CHARACTERS.
_MAX_SKILL: Final = 100_000
_MAX_PRIMER: Final = 150_000
_MAX_DESCRIPTION: Final = 200_000
_MAX_FIELD: Final = 100_000
_MAX_EVIDENCE: Final = 12_000
_MAX_SUMMARY: Final = 1000
_MAX_FILES: Final = 2000
_MAX_CONFLICT_FILES: Final = 20_000
_MAX_LINE: Final = 500
_NEWEST_EVIDENCE: Final = 10
_MOST_DEPENDENCIES: Final = 20

_TITLE: Final = "# One task of a backlog\n"
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_LINE_END: Final = re.compile(r"\r\n|[\r\u2028\u2029]")
_MAX_TICKS: Final = 100
_TICKS: Final = re.compile(r"`+")
_LONG_TICKS: Final = re.compile("`{%d,}" % (_MAX_TICKS + 1))  # noqa: UP031 (braces)


@dataclass(frozen=True, slots=True)
class LandedDependency:
    """What a task that this one depends on brought."""

    id: str
    title: str
    summary: str = ""
    files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PromptInput:
    """Everything that the prompt is made of. No text of a task that this one does not depend on is in it."""

    task: TaskText
    base: str
    attempt: int = 1
    primer: str = ""
    """What the project says about itself."""
    dependencies: tuple[LandedDependency, ...] = ()
    evidence: tuple[str, ...] = ()
    """What went wrong before, newest last."""
    conflict_files: tuple[str, ...] = ()
    """Files with conflict markers of the merge that is in progress in the worktree."""
    skill: str = SKILL
    fenced_answers: bool = True
    """The agent's program leaves a fenced block in an answer alone."""


@dataclass(frozen=True, slots=True)
class Prompt:
    text: str
    prefix_hash: str
    """The same for all iterations that share the model's cache: the first 16 hex digits of a SHA-256."""
    parts: tuple[tuple[str, int], ...]
    """Names and estimated tokens, in order; parts that are not there are left out."""


def build_prompt(given: PromptInput) -> Prompt:
    """At most 1,000,000 characters, never beginning with `/`, and always encodable.

    What others wrote stands in fences that it cannot end.
    """
    prefix = [
        ("skill", _skill(given.skill, RULES if given.fenced_answers else TAGGED_RULES)),
        ("primer", _primer(given.primer)),
    ]
    tail = [
        ("task", _task(given)),
        ("dependencies", _dependencies(given.dependencies)),
        ("evidence", _evidence(given.evidence)),
        ("conflict", _conflict(given.conflict_files)),
        ("end", f"Do this task now, and end with the `loop_result` {'block' if given.fenced_answers else 'line'}.\n"),
    ]
    prefix_text = _join(prefix)
    return Prompt(
        text=f"{prefix_text}\n{_join(tail)}",
        prefix_hash=hashlib.sha256(prefix_text.encode()).hexdigest()[:16],
        parts=tuple((name, estimated_tokens(text)) for name, text in prefix + tail if text),
    )


def estimated_tokens(text: str) -> int:
    """About one for four bytes."""
    return (len(text.encode("utf-8", "replace")) + 3) // 4


def _join(parts: list[tuple[str, str]]) -> str:
    return "\n".join(text for _, text in parts if text)


def _skill(skill: str, rules: str) -> str:
    return f"{_TITLE}\n{_cut(_clean(skill), _MAX_SKILL).strip()}\n\n{rules}"


def _primer(primer: str) -> str:
    block = _block(primer, _MAX_PRIMER)
    return f"## About this project\n\nWhere this disagrees with the rules, the rules win.\n\n{block}" if block else ""


def _task(given: PromptInput) -> str:
    text = given.task
    task = text.task
    facts = [
        f"id: {_line(task.id)}",
        f"title: {_line(task.title)}",
        f"type: {_line(task.type)}",
        f"priority: P{task.priority}",
        f"attempt: {given.attempt}",
        f"base commit: {_line(given.base)}",
    ]
    sections = ["# Your task\n\n" + _block("\n".join(facts), 10 * _MAX_LINE)]
    for heading, body, limit in (
        ("Description", text.description, _MAX_DESCRIPTION),
        ("Acceptance", text.acceptance, _MAX_FIELD),
        ("Design", text.design, _MAX_FIELD),
        ("Notes", text.notes, _MAX_FIELD),
    ):
        if block := _block(body, limit):
            sections.append(f"## {heading}\n\n{block}")
    return "\n".join(sections)


def _dependencies(dependencies: tuple[LandedDependency, ...]) -> str:
    if not dependencies:
        return ""
    blocks = [_block(_dependency(one), 10 * _MAX_LINE) for one in dependencies[:_MOST_DEPENDENCIES]]
    left_out = len(dependencies) - len(blocks)
    rest = f"\n{left_out} more are not shown; `git log` has them.\n" if left_out else ""
    return "## What the tasks that it depends on changed\n\nThis is in your worktree.\n\n" + "\n".join(blocks) + rest


def _dependency(one: LandedDependency) -> str:
    lines = [f"{_line(one.id)}: {_line(one.title)}", _cut(_clean(one.summary).strip(), _MAX_SUMMARY)]
    if one.files:
        lines.append(f"files: {_cut(', '.join(map(_line, one.files)), _MAX_FILES)}")
    return "\n".join(line for line in lines if line)


def _evidence(evidence: tuple[str, ...]) -> str:
    blocks = [block for text in evidence[-_NEWEST_EVIDENCE:] if (block := _block(text, _MAX_EVIDENCE))]
    return "\n".join([f"## What went wrong before\n\n{RETRY}", *blocks]) if blocks else ""


def _conflict(files: tuple[str, ...]) -> str:
    block = _block("\n".join(map(_line, files)), _MAX_CONFLICT_FILES)
    return f"## A merge is in progress\n\n{CONFLICT}\n{block}" if block else ""


def _block(text: str, limit: int) -> str:
    """`text` in a fence longer than any run of backticks in it; empty when there is nothing to show."""
    body = _cut(_clean(text), limit).strip("\n")
    if not body.strip():
        return ""
    # Four at least: a fence of three marks is how an agent answers, and one that repeats its prompt has not answered.
    marks = "`" * max(4, 1 + max(map(len, _TICKS.findall(body)), default=0))
    return f"{marks}text\n{body}\n{marks}\n"


def _clean(text: str) -> str:
    """Without control characters, text direction marks and halves of characters; backticks in runs of at most 100."""
    encodable = text.encode("utf-8", "replace").decode("utf-8")
    plain = _CONTROL.sub("", _LINE_END.sub("\n", encodable))
    # Else a text of backticks alone would make its two fences as long as itself.
    return _LONG_TICKS.sub("`" * _MAX_TICKS, plain)


def _line(text: str) -> str:
    """On one line: for ids, titles and paths."""
    # Cut twice: a title of megabytes is not worth cleaning whole.
    return " ".join(_cut(" ".join(_clean(_cut(text, 4 * _MAX_LINE)).split()), _MAX_LINE).split())


def _cut(text: str, limit: int) -> str:
    """Both ends of a text that is too long: its start says what it is, its end what came of it."""
    if len(text) <= limit:
        return text
    gap = f"\n[{len(text) - limit:,} characters or more are left out here, because the text is too long for a prompt]\n"
    half = (limit - len(gap)) // 2
    return f"{text[:half]}{gap}{text[-half:]}"
