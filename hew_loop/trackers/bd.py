"""The tracker of beads' own program `bd`: few calls, each answer checked for the state that it should show."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from hew_loop.core.graph import BLOCKING
from hew_loop.core.task import NEEDS_HUMAN, Edge, Task, TaskText, brief
from hew_loop.errors import TrackerError
from hew_loop.trackers import bd_prime
from hew_loop.trackers.base import BugReport
from hew_loop.trackers.bd_call import ACTOR, Answer, Bd, passable
from hew_loop.trackers.bd_checks import check_id, check_state, doubt_emptiness, is_unknown
from hew_loop.trackers.bd_json import read_task, tasks_of, text_of
from hew_loop.trackers.beads_checks import cut_title, new_memory_key
from hew_loop.trackers.beads_issue import EXTERNAL
from hew_loop.trackers.choose import missing_bd

MEMORY_LABEL: Final = "memory"
"""Before 0.58 bd keeps no memories: there they are closed issues with this label."""
_LIST: Final = ("list", "--all", "--limit=0", "--sort=id")


class BdTracker:
    """`Tracker` on bd's store in a beads directory."""

    kind = "bd"

    def __init__(self, bd: Bd) -> None:
        self._bd = bd
        self._seen: frozenset[str] = frozenset()
        self._briefs: dict[str, str] = {}

    @classmethod
    def open(cls, directory: Path, env: Mapping[str, str] = os.environ) -> BdTracker:
        """Starts nothing yet. Raises TrackerError when there is no `bd` on PATH."""
        program = shutil.which("bd", path=env.get("PATH"))
        if program is None:
            raise missing_bd(directory)
        return cls(Bd(program, directory.absolute(), dict(env)))

    def carrying(self, env: Mapping[str, str]) -> BdTracker:
        """The same, with more variables for its children: so that they end with the run that started them."""
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
        said = self._bd.call("version").object().get("version")
        found = re.match(r"v?(\d+\.\d+\.\d+\S*)", said) if isinstance(said, str) else None
        if found is None:
            raise TrackerError(f"{self.program} does not tell its version.", hint="Is that beads' bd? See: bd version")
        return found[1]

    def primer(self) -> str:
        """What the store says about the project, for every prompt. Raises TrackerError."""
        return bd_prime.primer(self._bd)

    def read(self) -> tuple[Task, ...]:
        """One call, whatever the number of tasks: `bd list` shows their edges too."""
        # Gates and templates are hidden otherwise; a gate that is not seen would block nobody.
        issues = self._bd.call(*_LIST, "--include-gates", "--include-templates").issues()
        self._briefs = {str(i.get("id")): brief(str(i.get("description") or "")) for i in issues}
        tasks = tasks_of(issues)
        if not tasks:
            doubt_emptiness(self._bd, seen=len(self._seen))
        tasks += self._hidden_blockers(tasks)
        self._seen = frozenset(task.id for task in tasks)
        return tasks

    def briefs(self, ids: Collection[str]) -> dict[str, str]:
        """As of the last `read`: one call each would take longer than anybody waits for a planner."""
        return {i: self._briefs[i] for i in ids if i in self._briefs}

    def show(self, task_id: str) -> TaskText | None:
        check_id(task_id, seen=self._seen)
        answer = self._bd.call("show", task_id)
        if is_unknown(answer, task_id):
            return None
        # bd takes a part of an id for the whole one: another id means that there is no such task.
        found = next((issue for issue in answer.issues() if issue.get("id") == task_id), None)
        return text_of(found) if found is not None else None

    def claim(self, task_id: str, actor: str) -> str:
        before = self.show(task_id)
        if before is None:
            return f"there is no task {task_id}"
        why_not = _why_not_ours(before.task, actor)
        if why_not is None:
            return ""
        # 0.49 takes tasks that are blocked or deferred, too.
        if before.task.status != "open" or before.task.assignee not in ("", actor):
            return why_not
        if before.task.assignee:
            self._change(before, "--assignee=")  # 0.49 refuses its own actor
        answer = self._bd.call("update", task_id, "--claim", actor=actor)
        after = self.show(task_id)
        if after is None:
            return "it was deleted while it was being claimed"
        why_not = _why_not_ours(after.task, actor)
        if why_not is not None and after.task.status == "open" and not after.task.assignee:
            raise answer.failure()  # nobody else took it: that was no refusal
        return why_not or ""

    def release(self, task_id: str, actor: str, note: str) -> None:
        """A status that somebody gave it meanwhile (blocked, deferred) stays; only the claim goes."""
        found = self.show(task_id)
        if found is None or found.task.is_closed or found.task.assignee != actor:
            return
        was_in_progress = found.task.status == "in_progress"
        status = ("--status=open",) if was_in_progress else ()
        task = self._change(found, *status, "--assignee=", note=note)
        check_state(task, status="open" if was_in_progress else found.task.status, assignee="")

    def close(self, task_id: str, reason: str) -> None:
        """What has landed is closed, also where a person gave it a blocker meanwhile."""
        found = self._existing(task_id)
        if not found.task.is_closed:
            words = ("close", task_id, f"--reason={reason or 'Closed'}")
            answer = self._bd.call(*words)
            if "--force" in answer.error:
                answer = self._bd.call(*words, "--force")
            check_state(_changed(answer, task_id), status="closed")
        is_ours = found.task.assignee.startswith(f"{ACTOR}/")  # closed by its own agent
        if found.task.assignee and (is_ours or not found.task.is_closed):
            check_state(self._change(found, "--assignee="), status="closed", assignee="")

    def reopen(self, task_id: str, reason: str) -> None:
        found = self._existing(task_id)
        if found.task.is_closed:
            check_state(_changed(self._bd.call("reopen", task_id), task_id), status="open")
        elif found.task.status == "open" and not found.task.assignee and not _is_new(found, reason):
            return
        task = self._change(found, "--status=open", "--assignee=", note=reason)
        check_state(task, status="open", assignee="")

    def file_bug(self, bug: BugReport) -> str:
        """The bug is filed even when the parked task is gone from the store."""
        issues = {str(issue.get("id")): issue for issue in self._bd.call(*_LIST).issues()}
        filed = (task_id for task_id, issue in issues.items() if issue.get("external_ref") == bug.external_ref)
        bug_id = next(filed, "") or self._create(bug)
        parked = issues.get(bug.blocks)
        task = read_task(parked) if parked is not None else None
        if task is not None and Edge(bug_id) not in task.edges:
            # Never `create --deps`: what `blocks:` means there was turned round in 0.51.
            added = self._bd.call("dep", "add", bug.blocks, bug_id).object()
            if (added.get("issue_id"), added.get("depends_on_id")) != (bug.blocks, bug_id):
                raise TrackerError(f"bd was to make {bug.blocks} wait for {bug_id}, and answered {added!r}.")
        return bug_id

    def note(self, task_id: str, text: str) -> None:
        self._change(self._existing(task_id), note=text)

    def remember(self, text: str) -> None:
        """`bd remember`; before 0.58 a closed issue labelled `memory`, found again by its description."""
        answer = self._bd.call("memories")
        if "unknown command" in answer.error:
            self._remember_as_issue(passable(text))
            return
        memories = answer.object()
        if passable(text) not in memories.values():
            kept = self._bd.call("remember", f"--key={new_memory_key(text, taken=memories)}", "--", text).object()
            if kept.get("value") != passable(text):
                raise TrackerError(f"bd was to remember {text!r}, and answered {kept!r}.")

    def _remember_as_issue(self, text: str) -> None:
        for issue in self._bd.call(*_LIST).issues():
            if MEMORY_LABEL in (issue.get("labels") or ()) and issue.get("description") == text:
                return
        title = cut_title(" ".join(text.split())) or MEMORY_LABEL
        words = (f"--title={title}", "--type=chore", f"--description={text}", f"--labels={MEMORY_LABEL},{NEEDS_HUMAN}")
        self.close(_new_id(self._bd.call("create", *words)), "A memory, not work.")

    def _create(self, bug: BugReport) -> str:
        """Read back, because the labels of a new issue may be lost silently, and one of them keeps the loop off it."""
        answer = self._bd.call(
            "create",
            f"--title={cut_title(bug.title)}",
            "--type=bug",
            f"--priority={bug.priority}",
            f"--external-ref={bug.external_ref}",
            f"--description={bug.description or bug.title}",
            f"--labels={','.join(bug.labels)}",
        )
        bug_id = _new_id(answer)
        missing = sorted(set(bug.labels) - set(self._existing(bug_id).task.labels))
        if missing:
            raise TrackerError(
                f"bd created {bug_id} without its labels {', '.join(missing)}.",
                hint=f"bd label add {bug_id} {missing[0]}",
            )
        return bug_id

    def _hidden_blockers(self, tasks: tuple[Task, ...]) -> tuple[Task, ...]:
        """What blocks without being listed: messages, agents and others that bd keeps apart. One call for all."""
        listed = {task.id for task in tasks}
        targets = {edge.target for task in tasks if not task.is_closed for edge in task.edges if edge.kind in BLOCKING}
        wanted = sorted(target for target in targets - listed if not target.startswith(("-", EXTERNAL)))
        if not wanted:
            return ()
        answer = self._bd.call("show", *wanted)
        if answer.value is None or not answer.ok:
            if is_unknown(answer, wanted[0]):
                return ()  # deleted: they block nobody
            raise answer.failure()
        texts = (text_of(issue) for issue in answer.issues() if issue.get("id") in wanted)
        return tuple(text.task for text in texts if text is not None)

    def _existing(self, task_id: str) -> TaskText:
        found = self.show(task_id)
        if found is None:
            raise TrackerError(f"There is no task {task_id!r}.", hint="See all: bd list --all --limit 0")
        return found

    def _change(self, found: TaskText, *changes: str, note: str = "") -> Task:
        """Make the changes and append `note`, unless it is there already; the task as bd shows it afterwards."""
        task_id = found.task.id
        note = note if _is_new(found, note) else ""
        if not changes and not note:
            return found.task
        answer = self._bd.call("update", task_id, *changes, *([f"--append-notes={note}"] if note else ()))
        if "unknown flag: --append-notes" in answer.error:  # 0.49.0
            whole = f"{found.notes}\n{note}" if found.notes else note
            answer = self._bd.call("update", task_id, *changes, f"--notes={whole}")
        return _changed(answer, task_id)


def _changed(answer: Answer, task_id: str) -> Task:
    """The one task that was changed. Raises TrackerError when it is none, or another: bd completes parts of ids."""
    issues = answer.issues()
    ids = [issue.get("id") for issue in issues]
    if ids and ids != [task_id]:
        raise TrackerError(f"{answer.words} was meant for {task_id!r}, but bd changed {ids}.", hint="See: bd show")
    task = read_task(issues[0]) if ids else None
    if task is None:
        raise answer.failure()
    return task


def _why_not_ours(task: Task, actor: str) -> str | None:
    """None when it is in progress by `actor`."""
    if task.assignee and task.assignee != actor:
        return f"already claimed by {task.assignee}"
    if task.status != "in_progress" or task.assignee != actor:
        return f"its status is {task.status}"
    return None


def _is_new(found: TaskText, note: str) -> bool:
    return bool(note) and passable(note) not in found.notes


def _new_id(answer: Answer) -> str:
    value = answer.object().get("id")
    if not isinstance(value, str) or not value:
        raise answer.failure()
    return value
