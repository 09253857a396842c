"""Merging without a checkout: two commits in, a merge commit, a list of conflicting files, or a reason why not, out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from hew_loop.repo.git import FALLBACK_IDENTITY, Git
from hew_loop.repo.porcelain import fields, shown

_DATE = re.compile(rb"^committer .*> (\d+ [+-]\d{4})$", re.MULTILINE)
_ID = re.compile(rb"[0-9a-f]{40}(?:[0-9a-f]{24})?")


@dataclass(frozen=True, slots=True)
class Merged:
    """`head` is the second parent of `commit`; where the tip contained `head` already, `commit` is the tip itself."""

    commit: str
    tree: str


@dataclass(frozen=True, slots=True)
class Conflict:
    files: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CouldNotMerge:
    """Neither merged nor a conflict: an unknown commit, a missing object, histories without a common start."""

    message: str


def merge(
    git: Git, *, tip: str, head: str, message: str, keep: Sequence[str] = (".beads",)
) -> Merged | Conflict | CouldNotMerge:
    """Merge commit `head` on `tip` (full ids). The same three arguments give the same commit id, at any time.

    What `tip` has at and below the paths of `keep` stays as it is, whatever `head` did there. No ref is moved.
    """
    read = _read(git, tip, head, keep)
    if isinstance(read, CouldNotMerge):
        return read
    side = head
    if read.keep_differs:
        if git.is_ancestor(head, tip):
            return Merged(commit=tip, tree=read.tip_tree)
        side = _with_kept_paths(git, tip=tip, read=read, head=head, keep=keep)
    # Exit code 1 is a conflict, and is an unknown commit too: only a tree as first word tells that it merged at all.
    done = git.call("merge-tree", "--write-tree", "-z", "--name-only", "--no-messages", tip, side, durable=True)
    words = fields(done.stdout)
    if done.exit_code not in (0, 1) or not words or not _ID.fullmatch(words[0]):
        return CouldNotMerge(shown(done.stderr).strip() or done.error or f"git merge-tree ended with {done.exit_code}")
    if done.exit_code == 1:
        return Conflict(tuple(sorted({shown(name) for name in words[1:] if name})))
    tree = words[0].decode()
    if tree == read.tip_tree and git.is_ancestor(head, tip):
        return Merged(commit=tip, tree=tree)
    return Merged(commit=_commit(git, tree, (tip, head), message, read.head_date), tree=tree)


@dataclass(frozen=True, slots=True)
class _Read:
    tip_tree: str
    head_date: str
    head_parents: tuple[str, ...]
    head_tree: str
    keep_differs: bool


def _read(git: Git, tip: str, head: str, keep: Sequence[str]) -> _Read | CouldNotMerge:
    """All that is to know before merging, in one process."""
    kept = [path.strip("/") for path in keep]
    asked = [f"info {tip}^{{tree}}", f"info {head}^{{tree}}"]
    asked += [f"info {commit}:{path}" for path in kept for commit in (tip, head)]
    asked.append(f"contents {head}^{{commit}}")
    done = git.call("cat-file", "--batch-command", stdin="\n".join(asked).encode() + b"\n")
    if not done.ok:
        return CouldNotMerge(shown(done.stderr).strip() or done.error or "git cat-file failed")
    *infos, rest = done.stdout.split(b"\n", len(asked) - 1)
    ids = [None if line.endswith(b" missing") else line.split(b" ", 1)[0].decode() for line in infos]
    header, _, body = rest.partition(b"\n")
    date = _DATE.search(body)
    if ids[0] is None or ids[1] is None or b" commit " not in header or date is None:
        return CouldNotMerge(f"{tip if ids[0] is None else head} is not a commit of this repository")
    parents = re.findall(rb"^parent ([0-9a-f]+)$", body.partition(b"\n\n")[0], re.MULTILINE)
    return _Read(
        tip_tree=ids[0],
        head_tree=ids[1],
        head_date=date[1].decode(),
        head_parents=tuple(parent.decode() for parent in parents),
        keep_differs=any(ids[i] != ids[i + 1] for i in range(2, len(ids), 2)),
    )


def _with_kept_paths(git: Git, *, tip: str, read: _Read, head: str, keep: Sequence[str]) -> str:
    """A stand-in for `head`, with its parents, in which the paths of `keep` are as in `tip`: those cannot conflict."""
    tree = read.head_tree
    for path in keep:
        entry = _entry(git, tip, path.strip("/"))
        tree = _replaced(git, tree, path.strip("/").split("/"), entry) or _made(git, [])
    return _commit(git, tree, read.head_parents, f"stand-in for {head}", read.head_date)


def _entry(git: Git, commit: str, path: str) -> bytes | None:
    """`mode type id` of a path in a commit."""
    found = fields(git.must("ls-tree", "-z", "--full-tree", commit, "--", path))
    return found[0].partition(b"\t")[0] if found else None


def _replaced(git: Git, tree: str | None, parts: Sequence[str], entry: bytes | None) -> str | None:
    """The id of `tree` with the path of `parts` set to `entry` (None: taken out); None when nothing is left in it."""
    lines = fields(git.must("ls-tree", "-z", tree)) if tree else []
    name = parts[0].encode()
    old = next((line for line in lines if line.partition(b"\t")[2] == name), None)
    if len(parts) > 1:
        inner = old.split()[2].decode() if old is not None and old.split()[1] == b"tree" else None
        if inner is None and entry is None:
            return tree
        below = _replaced(git, inner, parts[1:], entry)
        entry = f"040000 tree {below}".encode() if below else None
    rest = [line for line in lines if line is not old]
    if entry is not None:
        rest.append(entry + b"\t" + name)
    return _made(git, rest) if rest else None


def _made(git: Git, lines: Sequence[bytes]) -> str:
    return git.must("mktree", "-z", stdin=b"".join(line + b"\0" for line in lines), durable=True).decode().strip()


def _commit(git: Git, tree: str, parents: Sequence[str], message: str, date: str) -> str:
    """Always the same name and the date of the work: whoever rebuilds a candidate gets the same id."""
    name, email = FALLBACK_IDENTITY
    env = {
        f"GIT_{role}_{what}": value
        for role in ("AUTHOR", "COMMITTER")
        for what, value in (("NAME", name), ("EMAIL", email), ("DATE", f"@{date}"))
    }
    options = [word for parent in parents for word in ("-p", parent)]
    text = message.encode("utf-8", "backslashreplace")
    return git.must("commit-tree", tree, *options, "-F", "-", stdin=text, env=env, durable=True).decode().strip()
