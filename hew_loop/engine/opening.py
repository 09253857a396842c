"""The start of a run: what cannot work is said before anything is claimed, and what it starts from is pinned."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from hew_loop import __version__
from hew_loop.core import stack
from hew_loop.core.events import RunStarted
from hew_loop.core.names import integration_branch, integration_ref
from hew_loop.core.policy import PlannedCommand, Policy
from hew_loop.engine.run_folder import RunFolder, runs
from hew_loop.errors import RepoError, UsageError
from hew_loop.repo.git import Git, fetched_ref

NOT_CARRIED = ("foreign_work", "lost", "cancelled")
"""Failure classes of attempts whose branch is kept, but not built upon."""


@dataclass(frozen=True, slots=True)
class Ground:
    """What a run stands on: the base commit and the branch that it is to be delivered to."""

    base: str
    branch: str | None
    launch_commit: str


def ground(git: Git, policy: Policy, *, base: str | None) -> Ground:
    """Raises UsageError for what cannot be delivered in the end, RepoError for a repository without a commit."""
    head = git.head()
    if head.commit is None:
        raise RepoError("this repository has no commit yet", hint='git add -A && git commit -m "Begin"')
    commit = git.commit_id(base) if base else head.commit
    if commit is None:
        raise UsageError(f"--base {base}: there is no such commit", hint="see: git log --oneline --all")
    if (blocking := git.blocking_branch()) is not None:
        raise RepoError(
            f"the branch {blocking!r} blocks every branch below loop/",
            hint=f"rename it: git branch -m {blocking} {blocking}-old",
        )
    if policy.deliver == "merge":
        if head.branch is None:
            raise UsageError(
                "HEAD is detached: there is no branch to deliver to", hint="git switch BRANCH, or --deliver branch"
            )
        if not git.is_ancestor(commit, head.commit) and not _was_fetched(git, head.branch, head.commit, commit):
            raise UsageError(
                f"{head.branch} does not descend from {base}: the result could not be fast-forwarded",
                hint="git switch to a branch that does, or --deliver branch",
            )
    return Ground(commit, head.branch, head.commit)


def _was_fetched(git: Git, branch: str, tip: str, commit: str) -> bool:
    """The branch is only behind its own upstream (`--fetch`): the result is a fast-forward of both."""
    return git.commit_id(fetched_ref(branch)) == commit and git.is_ancestor(tip, commit)


def detected(git: Git, policy: Policy, base: str) -> Policy:
    """The policy with the commands of the base's own stack where none are configured."""
    if policy.gate.origin and (policy.verify.origin or not policy.verify.enabled):
        return policy

    def read(path: str) -> str | None:
        data = git.read_file_at(base, path)
        return None if data is None else data.decode("utf-8", "replace")

    found = stack.detect(git.ls_files_at(base), read)
    gate, verify = policy.gate, policy.verify
    if not gate.origin:
        origin = ", ".join(dict.fromkeys(c.origin for c in found.commands)) or "no test command was found"
        gate = replace(gate, commands=_planned(found.commands), origin=origin)
    if not verify.origin:
        tests = found.of_kind("test")
        # What a person chose as the gate says more about this project than a guess from its files.
        commands = policy.gate.commands or _planned(tests)
        origin = gate.origin if policy.gate.commands else ", ".join(c.origin for c in tests)
        verify = replace(verify, commands=commands, origin=origin)
    return replace(policy, gate=gate, verify=verify)


def _planned(commands: tuple[stack.DetectedCommand, ...]) -> tuple[PlannedCommand, ...]:
    return tuple(PlannedCommand(c.command, c.kind, c.directory) for c in commands)


def open_run(
    git: Git,
    folder: RunFolder,
    *,
    policy: Policy,
    where: Ground,
    tracker: str,
    store: str,
    keep: Sequence[str],
    pid: int,
) -> RunStarted:
    """Create the private integration ref at the base and describe the run."""
    if not git.update_ref(integration_ref(folder.run_id), where.base, old=None):
        raise RepoError(f"{integration_ref(folder.run_id)} exists already")
    return RunStarted(
        run_id=folder.run_id,
        base=where.base,
        policy=policy,
        launch_branch=where.branch,
        launch_commit=where.launch_commit,
        tracker=tracker,
        store=store,
        held=held(git, git.root, where.base),
        carries=carries(git, git.root, where.base),
        dirty=tuple(p.path for p in git.dirty_paths(git.launch_root, exclude=keep))[:100],
        version=__version__,
        pid=pid,
    )


def held(git: Git, root: Path, base: str) -> tuple[tuple[str, str], ...]:
    """(task, run id) of what landed in earlier runs and is not in this base (P2)."""
    found: dict[str, str] = {}
    for folder in runs(root):
        facts = _json(folder.path / "run.json")
        landed = cast("dict[str, Any]", facts.get("landed") or {})
        tip = facts.get("integration_commit")
        if not landed or not isinstance(tip, str):
            continue
        if _contains(git, base, tip):
            for task in landed:
                found.pop(task, None)
            continue
        for task, commit in landed.items():
            if isinstance(commit, str) and git.commit_id(commit) is not None and not _contains(git, base, commit):
                found[task] = folder.run_id
    return tuple(sorted(found.items()))


def carries(git: Git, root: Path, base: str) -> tuple[tuple[str, str], ...]:
    """(task slug, commit): the newest unlanded head of each task that earlier runs left on a branch.

    Not what was refused as another's work or as a rewritten history: it would land behind the back of that refusal.
    Nor what was cut off in the middle: on top of half a change the same agent finds nothing left to do (`no_diff`).
    """
    unlanded = git.refs("refs/heads/loop/")
    landed = git.refs_merged_into(base, "refs/heads/loop/") if unlanded else {}
    holders = {ref.split("/")[3] for ref in unlanded}
    refused = {run.run_id: _refused_heads(run) for run in runs(root) if run.run_id in holders} if unlanded else {}
    newest: dict[str, tuple[tuple[str, int], str]] = {}
    for ref, commit in unlanded.items():
        _, _, rest = ref.partition("refs/heads/loop/")
        run_id, _, name = rest.partition("/")
        task, _, attempt = name.rpartition(".")
        if ref in landed or not task or not attempt.isdigit() or commit in refused.get(run_id, ()):
            continue
        key = (run_id, int(attempt))
        if task not in newest or key > newest[task][0]:
            newest[task] = (key, commit)
    return tuple(sorted((task, commit) for task, (_, commit) in newest.items()))


def _refused_heads(folder: RunFolder) -> frozenset[str]:
    facts = (_json(path) for path in folder.path.glob("iter-*.json"))
    return frozenset(str(f.get("head_commit")) for f in facts if f.get("failure_class") in NOT_CARRIED)


def close_refs(git: Git, *, run_id: str, tip: str, base: str, merged: bool) -> None:
    """At the end: the private refs go; what was not merged becomes the branch `loop/<run-id>/integration`."""
    branch = f"refs/heads/{integration_branch(run_id)}"
    there = git.commit_id(branch)
    if not merged and tip != base and there != tip:
        git.update_ref(branch, tip, old=there)
    if merged and there is not None and git.is_ancestor(there, tip):
        git.delete_ref(branch, old=there)
    for ref, commit in git.refs(f"refs/loop/{run_id}/").items():
        if ref.endswith(("/integration", "/candidate")):
            git.delete_ref(ref, old=commit)


def _contains(git: Git, commit: str, ancestor: str) -> bool:
    return git.commit_id(ancestor) is not None and git.is_ancestor(ancestor, commit)


def _json(path: Path) -> dict[str, Any]:
    try:
        facts: object = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return cast("dict[str, Any]", facts) if isinstance(facts, dict) else {}
