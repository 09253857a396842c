"""The tracker of beads' own program `bd`: few calls, each answer checked for the state that it should show."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from hew_loop.core.task import NEEDS_HUMAN, Edge, Task, TaskText
from hew_loop.errors import TrackerError
from hew_loop.trackers.base import BugReport
from hew_loop.trackers.bd_call import ACTOR, Answer, Bd, passable
from hew_loop.trackers.bd_json import read_task, tasks_of, text_of
from hew_loop.trackers.beads_checks import cut_title, memory_key
from hew_loop.trackers.beads_format import Issue
from hew_loop.trackers.choose import live_lines, missing_bd

KNOWN_VERSIONS: Final = ((0, 49), (1, 0), (1, 1), (1, 2), (1, 3))
MEMORY_LABEL: Final = "memory"
"""Before 0.58 bd keeps no memories: they are closed issues with this label then."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class BdTracker:
    """`Tracker` on bd's store in the beads directory `directory`."""

    kind = "bd"

    def __init__(self, bd: Bd) -> None:
        self._bd = bd
        self._seen: frozenset[str] = frozenset()

    @classmethod
    def open(cls, directory: Path, env: Mapping[str, str] = os.environ) -> BdTracker:
        """Starts nothing. Raises TrackerError when there is no `bd` on PATH."""
        program = shutil.which("bd", path=env.get("PATH"))
        if program is None:
            raise missing_bd(directory)
        return cls(Bd(program, directory.absolute(), dict(env)))

    def carrying(self, env: Mapping[str, str]) -> BdTracker:
        """The same, its children with these variables too: so that they end with the run that started them."""
        return BdTracker(replace(self._bd, env={**self._bd.env, **env}))

    @property
    def store(self) -> str:
        return str(self._bd.directory)

    @property
    def program(self) -> str:
        """Absolute path of the `bd` that is called."""
        return self._bd.program

    def version(self) -> str:
        """`1.0.5`. Raises TrackerError when it cannot be told."""
        answer = self._bd.call("version")
        said = answer.object().get("version")
        found = re.match(r"v?(\d+\.\d+\.\d+\S*)", said) if isinstance(said, str) else None
        if not answer.ok or found is None:
            raise TrackerError(f"{self.program} does not tell its version.", hint="Is that beads' bd? See: bd version")
        return found[1]

    def read(self) -> tuple[Task, ...]:
        """One call, whatever the number of tasks: `bd list` shows their edges on every known version."""
        # Gates and templates are hidden otherwise; a gate that is not seen would block nobody.
        shown = ("--include-gates", "--include-templates")
        tasks = tasks_of(self._bd.call("list", "--all", "--limit=0", "--sort=id", *shown).issues())
        if not tasks:
            self._doubt_emptiness()
        self._seen = frozenset(task.id for task in tasks)
        return tasks

    def show(self, task_id: str) -> TaskText | None:
        self._check_id(task_id)
        answer = self._bd.call("show", task_id)
        if not (answer.ok and answer.value is not None) and _is_unknown(answer, task_id):
            return None
        for issue in answer.issues():
            if issue.get("id") == task_id:
                return text_of(issue)
        return None  # bd takes a part of an id for the whole one; ours does not exist

    def claim(self, task_id: str, actor: str) -> str:
        before = self.show(task_id)
        if before is None:
            return f"there is no task {task_id}"
        if (why_not := _why_not_ours(before.task, actor)) is None:
            return ""
        if before.task.status != "open" or before.task.assignee not in ("", actor):
            return why_not
        if before.task.assignee:
            self._update(task_id, "--assignee=")  # 0.49 refuses even the same actor
        answer = self._bd.call("update", task_id, "--claim", actor=actor)
        after = self.show(task_id)
        if after is None:
            return "it was deleted while it was being claimed"
        if (why_not := _why_not_ours(after.task, actor)) is None:
            return ""
        if after.task.status == "open" and not after.task.assignee:
            raise answer.failure()  # nobody took it, so it was not a refusal
        return why_not

    def release(self, task_id: str, actor: str, note: str) -> None:
        """A status that somebody gave it meanwhile (blocked, deferred) stays; only the claim goes."""
        found = self.show(task_id)
        if found is None or found.task.is_closed or found.task.assignee != actor:
            return
        status = "open" if found.task.status == "in_progress" else found.task.status
        changes = (f"--status={status}",) if status != found.task.status else ()
        task = self._update(task_id, *changes, "--assignee=", *_appended(found, note))
        self._expect(task, status=status, assignee="")

    def close(self, task_id: str, reason: str) -> None:
        """What has landed is closed, also where a person gave it a blocker meanwhile."""
        found = self._existing(task_id)
        if not found.task.is_closed:
            words = ("close", task_id, f"--reason={reason or 'Closed'}")
            answer = self._bd.call(*words)
            if "--force" in answer.error:
                answer = self._bd.call(*words, "--force")
            self._expect(self._one(answer, task_id), status="closed")
        if found.task.assignee and (not found.task.is_closed or found.task.assignee.startswith(f"{ACTOR}/")):
            self._expect(self._update(task_id, "--assignee="), status="closed", assignee="")

    def reopen(self, task_id: str, reason: str) -> None:
        found = self._existing(task_id)
        if found.task.is_closed:
            # `update --status` would leave the time and the reason of its closing on some versions.
            self._expect(self._one(self._bd.call("reopen", task_id), task_id), status="open")
        changes = _appended(found, reason)
        if found.task.assignee or changes or found.task.status not in ("open", "closed"):
            task = self._update(task_id, "--status=open", "--assignee=", *changes)
            self._expect(task, status="open", assignee="")

    def file_bug(self, bug: BugReport) -> str:
        """The bug is filed even when the parked task is gone from the store."""
        issues = {str(issue.get("id")): issue for issue in self._list()}
        bug_id = next((id for id, each in issues.items() if each.get("external_ref") == bug.external_ref), "")
        if not bug_id:
            bug_id = self._create(bug)
        parked = issues.get(bug.blocks)
        task = read_task(parked) if parked is not None else None
        if task is not None and Edge(bug_id) not in task.edges:
            # Never `create --deps`: what `blocks:` means there was turned round in 0.51.
            added = self._bd.call("dep", "add", bug.blocks, bug_id).object()
            if (added.get("issue_id"), added.get("depends_on_id")) != (bug.blocks, bug_id):
                raise TrackerError(f"bd was to make {bug.blocks} wait for {bug_id}, and answered {added!r}.")
        return bug_id

    def note(self, task_id: str, text: str) -> None:
        changes = _appended(self._existing(task_id), text)
        if changes:
            self._update(task_id, *changes)

    def remember(self, text: str) -> None:
        """`bd remember`; before 0.58 a closed issue labelled `memory`, found again by its description."""
        answer = self._bd.call("memories")
        if "unknown command" in answer.error:
            self._remember_as_issue(text)
            return
        memories = answer.object()
        if text not in memories.values():
            key = memory_key(text, taken=memories)
            kept = self._bd.call("remember", f"--key={key}", "--", text).object()
            if kept.get("value") != passable(text):
                raise TrackerError(f"bd was to remember {text!r}, and answered {kept!r}.")

    def _remember_as_issue(self, text: str) -> None:
        for issue in self._list():
            if MEMORY_LABEL in (issue.get("labels") or ()) and issue.get("description") == passable(text):
                return
        title = cut_title(" ".join(text.split()) or "memory")
        words = (f"--title={title}", "--type=chore", f"--description={text}", f"--labels={MEMORY_LABEL},{NEEDS_HUMAN}")
        self.close(_id_of(self._bd.call("create", *words)), "A memory, not work.")

    def _create(self, bug: BugReport) -> str:
        """Read back, because labels of a new issue may be lost silently, and one of them keeps the loop off it."""
        answer = self._bd.call(
            "create",
            f"--title={cut_title(bug.title)}",
            "--type=bug",
            f"--priority={bug.priority}",
            f"--external-ref={bug.external_ref}",
            f"--description={bug.description or bug.title}",
            *([f"--labels={','.join(bug.labels)}"] if bug.labels else ()),
        )
        bug_id = _id_of(answer)
        made = self._existing(bug_id).task
        if missing := sorted(set(bug.labels) - set(made.labels)):
            raise TrackerError(
                f"bd created {bug_id} without its labels {', '.join(missing)}.",
                hint=f"bd label add {bug_id} {missing[0]}",
            )
        return bug_id

    def _list(self) -> list[Issue]:
        return self._bd.call("list", "--all", "--limit=0", "--sort=id").issues()

    def _existing(self, task_id: str) -> TaskText:
        found = self.show(task_id)
        if found is None:
            raise TrackerError(f"There is no task {task_id!r}.", hint="See all: bd list --all --limit 0")
        return found

    def _update(self, task_id: str, *changes: str) -> Task:
        return self._one(self._bd.call("update", task_id, *changes), task_id)

    def _one(self, answer: Answer, task_id: str) -> Task:
        """The one task that was changed. Raises TrackerError when it is another: bd completes a part of an id."""
        issues = answer.issues()
        ids = [issue.get("id") for issue in issues]
        if ids != [task_id]:
            if not ids:
                raise answer.failure()
            raise TrackerError(f"{answer.words} was meant for {task_id!r}, but bd changed {ids}.", hint="See: bd show")
        task = read_task(issues[0])
        if task is None:
            raise TrackerError(f"{task_id} was deleted meanwhile.")
        return task

    def _expect(self, task: Task, *, status: str, assignee: str | None = None) -> None:
        if task.status != status or (assignee is not None and task.assignee != assignee):
            owner = f", assigned to {task.assignee}" if task.assignee else ""
            raise TrackerError(
                f"{task.id} should be {status} now, but bd shows it {task.status}{owner}.", hint=f"bd show {task.id}"
            )

    def _check_id(self, task_id: str) -> None:
        """Without an id bd acts on the issue that was touched last; with a part of one, on whatever it fits."""
        is_full = "-" in task_id.strip() or task_id in self._seen
        if not task_id.strip() or task_id.startswith("-") or _CONTROL.search(task_id) or not is_full:
            raise TrackerError(f"{task_id!r} is not a full task id.", hint="Full ids: bd list --all --limit 0 --json")

    def _doubt_emptiness(self) -> None:
        """A lost or damaged database is made anew without a word, and is empty then."""
        if self._seen:
            raise TrackerError(
                f"bd suddenly shows no task in {self.store}; a moment ago there were {len(self._seen)}.",
                hint="Look at the store: bd where, bd list --all",
            )
        lines = live_lines(self._bd.directory / "issues.jsonl")
        if lines:
            raise TrackerError(
                f"bd shows an empty store, but {self._bd.directory / 'issues.jsonl'} holds {lines} issues.",
                hint="Is the file right? bd import -i FILE (1.x: bd import FILE). Is the store? Then move the file away.",
            )


def version_note(version: str) -> str:
    """What doctor says about a version that is none of those the adapter was built on; else empty."""
    numbers = tuple(int(n) for n in re.findall(r"\d+", version)[:2])
    if numbers in KNOWN_VERSIONS:
        return ""
    known = ", ".join(f"{major}.{minor}.x" for major, minor in KNOWN_VERSIONS)
    return f"bd {version} is none of the versions that this was built on ({known}); it is used all the same"


def _why_not_ours(task: Task, actor: str) -> str | None:
    """None when it is in progress by `actor`."""
    if task.assignee and task.assignee != actor:
        return f"already claimed by {task.assignee}"
    if task.status != "in_progress" or task.assignee != actor:
        return f"its status is {task.status}"
    return None


def _is_unknown(answer: Answer, task_id: str) -> bool:
    """bd says that no issue has this id, or that it fits several; anything else is a store that cannot be read."""
    text = f"{answer.error}\n{answer.warning}"
    return f'no issue found matching "{task_id}"' in text or f'ambiguous ID "{task_id}"' in text


def _appended(found: TaskText, note: str) -> tuple[str, ...]:
    """The change that appends `note`; none when it is empty or there already."""
    return (f"--append-notes={note}",) if note and passable(note) not in found.notes else ()


def _id_of(answer: Answer) -> str:
    value = answer.object().get("id")
    if not isinstance(value, str) or not value:
        raise answer.failure()
    return value
