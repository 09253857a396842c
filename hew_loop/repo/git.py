"""Typed git: one funnel for all our git processes, and the questions and ref moves that everybody needs."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from hew_loop import process
from hew_loop.errors import RepoError
from hew_loop.repo import porcelain, shared_files
from hew_loop.repo.command import DURABLE, TIMEOUT_S, refusal, run, version
from hew_loop.repo.porcelain import DirtyPath, ListedWorktree, Status, fields, is_under, shown

MINIMUM_VERSION = (2, 38, 0)
FALLBACK_IDENTITY = ("hew-loop", "loop@hew-loop.invalid")

_PLACES = ("--is-bare-repository", "--git-common-dir", "--git-dir", "--show-toplevel")
_ID = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")


@dataclass(frozen=True, slots=True)
class Head:
    branch: str | None
    """Short name; None when detached."""
    commit: str | None
    """None before the first commit."""


@dataclass(frozen=True)
class Git:
    """One repository. Blocking; safe to share between threads."""

    root: Path
    """Top of the main worktree."""
    launch_root: Path
    """Top of the worktree the command was started in; a linked one may differ from `root`."""
    common_dir: Path
    version: tuple[int, int, int]

    @classmethod
    def discover(cls, start: Path) -> Git:
        """The repository around `start`. Raises RepoError with the way out when there is none that we can work in."""
        found = version(start)
        if found < MINIMUM_VERSION:
            raise RepoError(
                f"git {'.'.join(map(str, found))} is too old: `git merge-tree --write-tree` came with 2.38.",
                hint="Install git 2.38 or newer.",
            )
        asked = run(
            ("rev-parse", "--path-format=absolute", *_PLACES),
            cwd=start,
        )
        lines = os.fsdecode(asked.stdout).splitlines()
        if not asked.ok or len(lines) != 4:
            raise _not_usable(asked, lines, start)
        common_dir, git_dir, launch_root = (Path(line).resolve() for line in lines[1:])
        root = launch_root if git_dir == common_dir else _main_worktree(common_dir, start)
        return cls(root=root, launch_root=launch_root, common_dir=common_dir, version=found)

    def call(
        self,
        *args: str,
        cwd: Path | None = None,
        stdin: bytes = b"",
        timeout_s: float = TIMEOUT_S,
        env: Mapping[str, str] | None = None,
        durable: bool = False,
    ) -> process.Completed:
        """Run git with our options. `durable` makes what it writes survive a power cut."""
        options = DURABLE if durable else ()
        return run((*options, *args), cwd=cwd or self.root, stdin=stdin, timeout_s=timeout_s, env=env)

    def must(
        self,
        *args: str,
        cwd: Path | None = None,
        stdin: bytes = b"",
        timeout_s: float = TIMEOUT_S,
        env: Mapping[str, str] | None = None,
        durable: bool = False,
    ) -> bytes:
        """The output of a git command that has no other way to end well; else RepoError with git's last words."""
        done = self.call(*args, cwd=cwd, stdin=stdin, timeout_s=timeout_s, env=env, durable=durable)
        if not done.ok:
            raise refusal(done, args[0])
        return done.stdout

    # -- commits and trees

    def commit_id(self, rev: str) -> str | None:
        """The commit that `rev` names, read from the repository; None when it names none."""
        known = self._loose_ref(rev)
        if known is not None:
            return known
        return self._object_id(f"{rev}^{{commit}}")

    def tree_id(self, commit: str) -> str:
        tree = self._object_id(f"{commit}^{{tree}}")
        if tree is None:
            raise RepoError(f"{commit} is not a commit of this repository.")
        return tree

    def head(self) -> Head:
        name = self.call("symbolic-ref", "-q", "HEAD", cwd=self.launch_root)
        branch = shown(name.stdout).strip().removeprefix("refs/heads/") if name.ok else None
        commit = self.call("rev-parse", "--verify", "-q", "HEAD^{commit}", cwd=self.launch_root)
        return Head(branch=branch, commit=commit.stdout.decode().strip() if commit.ok else None)

    def is_ancestor(self, ancestor: str, descendant: str) -> bool:
        if ancestor == descendant:
            return True
        done = self.call("merge-base", "--is-ancestor", ancestor, descendant)
        if done.exit_code not in (0, 1):
            raise refusal(done, "merge-base")
        return done.exit_code == 0

    def changed_files(self, old: str, new: str) -> tuple[str, ...]:
        names = fields(self.must("diff-tree", "-r", "-z", "--name-only", "--no-renames", old, new))
        return tuple(shown(name) for name in names)

    def write_patch(self, old: str, new: str, to: Path, *, max_bytes: int) -> None:
        """Leave the difference as a patch in `to`, cut (and saying so) at `max_bytes`; never held in memory."""
        aside = to.with_name(to.name + ".partial")
        self.must("diff", "--no-ext-diff", "--no-textconv", "--no-color", f"--output={aside}", old, new)
        size = aside.stat().st_size
        if size > max_bytes:
            with aside.open("r+b") as patch:
                patch.truncate(max_bytes)
                patch.seek(0, os.SEEK_END)
                patch.write(f"\n[cut: {size - max_bytes} more bytes; git diff {old[:12]} {new[:12]}]\n".encode())
        aside.replace(to)

    def ls_files_at(self, commit: str) -> tuple[str, ...]:
        listing = self.must("ls-tree", "-r", "-z", "--name-only", "--full-tree", commit)
        return tuple(shown(name) for name in fields(listing))

    def read_file_at(self, commit: str, path: str) -> bytes | None:
        blob = self._object_id(f"{commit}:{path}")
        done = self.call("cat-file", "blob", blob) if blob else None
        return done.stdout if done is not None and done.ok else None

    # -- refs

    def refs(self, prefix: str) -> dict[str, str]:
        """Full ref name to object id, for the ref `prefix` itself and all below it."""
        return self._listed_refs("for-each-ref", f"--format={_REF_FORMAT}", prefix.rstrip("/"))

    def refs_merged_into(self, commit: str, prefix: str, *, not_merged_into: str | None = None) -> dict[str, str]:
        """Those below `prefix` whose commit `commit` contains, without those that `not_merged_into` contains too."""
        without = (f"--no-merged={not_merged_into}",) if not_merged_into else ()
        return self._listed_refs(
            "for-each-ref", f"--format={_REF_FORMAT}", f"--merged={commit}", *without, prefix.rstrip("/")
        )

    def update_ref(self, ref: str, new: str, *, old: str | None) -> bool:
        """Compare-and-swap; `old` None means: it must not exist yet. False when somebody else was there first."""
        _check_ref(ref)
        expected = "0" * len(new) if old is None else old
        done = self.call("update-ref", "--no-deref", ref, new, expected, durable=True)
        if done.ok:
            return True
        if self._ref_value(ref) != old:
            return False
        raise refusal(done, f"update-ref {ref}")

    def delete_ref(self, ref: str, *, old: str) -> bool:
        """Delete it while it is at `old`. Already gone is True; False when it has moved."""
        _check_ref(ref)
        done = self.call("update-ref", "--no-deref", "-d", ref, old, durable=True)
        if done.ok:
            return True
        now = self._ref_value(ref)
        if now is None:
            return True
        if now != old:
            return False
        raise refusal(done, f"update-ref -d {ref}")

    def delete_refs(self, refs: Mapping[str, str]) -> None:
        """Delete each that is still where the mapping says; one process unless one of them has moved."""
        for ref in refs:
            _check_ref(ref)
        wanted = "".join(f"delete {ref} {old}\n" for ref, old in refs.items())
        if wanted and not self.call("update-ref", "--no-deref", "--stdin", stdin=wanted.encode(), durable=True).ok:
            for ref, old in refs.items():
                self.delete_ref(ref, old=old)

    def blocking_branch(self, run_id: str | None = None) -> str | None:
        """A branch of the user's whose name leaves no room for `loop/<run-id>/...` branches, or None."""
        existing = self.refs("refs/heads/loop")
        names = ["loop", *([f"loop/{run_id}"] if run_id else [])]
        return next((name for name in names if f"refs/heads/{name}" in existing), None)

    # -- worktrees and checkouts

    def worktrees(self) -> tuple[ListedWorktree, ...]:
        return porcelain.parse_worktrees(self.must("worktree", "list", "--porcelain", "-z"))

    def checked_out(self) -> dict[str, Path]:
        """Which worktree holds which branch (short name), for every worktree that still exists."""
        return {tree.branch: tree.path for tree in self.worktrees() if tree.branch is not None and not tree.missing}

    def status(self, top: Path, *, untracked: str = "normal", env: Mapping[str, str] | None = None) -> Status:
        return porcelain.parse_status(self.must(*porcelain.STATUS, f"--untracked-files={untracked}", cwd=top, env=env))

    def dirty_paths(self, top: Path, *, exclude: Sequence[str] = ()) -> tuple[DirtyPath, ...]:
        """What is modified, staged or untracked at `top`; whatever lies at or below `exclude` never counts."""
        return tuple(
            DirtyPath(path=e.path, staged=e.kind != "?" and e.code[0] != ".", untracked=e.kind == "?")
            for e in self.status(top).entries
            if not is_under(e.path, exclude)
        )

    def shared_state(self) -> str:
        """A hash over shared configuration and hooks, which an agent can change under everybody; no git process."""
        return shared_files.state_hash(self.common_dir)

    def stale_locks(self, *, older_than_s: float) -> tuple[Path, ...]:
        """Lock files in our own ref namespace and of the packed refs. Only for recovery, under the run lock."""
        return shared_files.stale_locks(self.common_dir, older_than_s=older_than_s)

    def remove_stale_locks(self, *, older_than_s: float) -> tuple[Path, ...]:
        """Remove them. The caller holds the run lock and knows that no git process of ours lives."""
        locks = self.stale_locks(older_than_s=older_than_s)
        for lock in locks:
            lock.unlink(missing_ok=True)
        return locks

    # -- the rest

    def fetch_upstream(self, branch: str, *, timeout_s: float = TIMEOUT_S) -> str:
        """The newest commit of the branch's upstream, kept under a ref of ours; no branch or tracking ref moves."""
        where = self.must("for-each-ref", "--format=%(upstream:remotename)%00%(upstream:remoteref)", _head_ref(branch))
        remote, _, ref = shown(where).strip("\n").partition("\0")
        if not remote or not ref:
            raise RepoError(
                f"The branch {branch} has no upstream to fetch.",
                hint=f"git branch --set-upstream-to=<remote>/<branch> {branch}",
            )
        ours = fetched_ref(branch)
        options = (
            "--no-tags",
            "--no-write-fetch-head",
            "--no-auto-maintenance",
            "--no-recurse-submodules",
            "--refmap=",
        )
        self.must("fetch", "-q", *options, remote, f"+{ref}:{ours}", timeout_s=timeout_s)
        commit = self.commit_id(ours)
        if commit is None:
            raise RepoError(f"{remote} gave no commit for {ref}.")
        return commit

    @cached_property
    def _identity(self) -> dict[str, str]:
        """Asked once: without an identity git would make one up from the name of the machine, or refuse."""
        found: dict[str, str] = {}
        for role in ("AUTHOR", "COMMITTER"):
            if not self.call("-c", "user.useConfigOnly=true", "var", f"GIT_{role}_IDENT").ok:
                found |= dict(zip((f"GIT_{role}_NAME", f"GIT_{role}_EMAIL"), FALLBACK_IDENTITY, strict=True))
        return found

    def identity_env(self) -> dict[str, str]:
        """What to add to the environment of a command that commits; empty where an identity is configured."""
        return dict(self._identity)

    def _listed_refs(self, *args: str) -> dict[str, str]:
        lines = os.fsdecode(self.must(*args)).splitlines()
        return {name: commit for commit, _, name in (line.partition(" ") for line in lines)}

    def _ref_value(self, ref: str) -> str | None:
        return self._loose_ref(ref) or self._object_id(ref)

    def _object_id(self, rev: str) -> str | None:
        done = self.call("rev-parse", "--verify", "-q", "--end-of-options", rev)
        found = done.stdout.decode("ascii", "replace").strip()
        return found if done.ok and _ID.fullmatch(found) else None

    def _loose_ref(self, ref: str) -> str | None:
        """A full ref of the shared store that has a file of its own: no process. The file always beats packed-refs."""
        if not ref.startswith(("refs/heads/loop/", "refs/loop/")) or ".." in ref:
            return None
        try:
            text = (self.common_dir / ref).read_text("ascii").strip()
        except (OSError, ValueError):
            return None
        return text if _ID.fullmatch(text) else None


def fetched_ref(branch: str) -> str:
    """What `fetch_upstream` found last."""
    return f"refs/loop/fetched/{branch}"


_REF_FORMAT = "%(objectname) %(refname)"


def _not_usable(asked: process.Completed, lines: list[str], start: Path) -> RepoError:
    if b"dubious ownership" in asked.stderr:
        named = re.search(r"repository at '([^']+)'", shown(asked.stderr))
        return RepoError(
            f"git refuses {named[1] if named else start}: it belongs to another user.",
            hint=f"git config --global --add safe.directory {named[1] if named else start}",
        )
    if lines[:1] == ["true"]:
        return RepoError(f"{start} is a bare repository; the loop needs a checkout.", hint="Run it in a clone of it.")
    if lines:
        return RepoError(f"{start} is inside a git directory, not in a checkout.", hint="Change to the checkout.")
    return RepoError(f"{start} is not in a git repository.", hint="git init, and commit something")


def _main_worktree(common_dir: Path, start: Path) -> Path:
    """The main worktree of a linked one: beside `.git`, or wherever a separate git directory says."""
    if common_dir.name == ".git" and not _is_bare(common_dir, start):
        return common_dir.parent
    named = run(("--git-dir", str(common_dir), "config", "core.worktree"), cwd=common_dir)
    if named.ok:
        return Path(os.path.normpath(common_dir / os.fsdecode(named.stdout).rstrip("\n")))
    raise RepoError(
        f"{start} is a worktree of the bare repository {common_dir}; the loop needs a main checkout.",
        hint="Run it in a clone that is not bare.",
    )


def _is_bare(common_dir: Path, start: Path) -> bool:
    done = run(("--git-dir", str(common_dir), "config", "--bool", "core.bare"), cwd=start)
    return done.stdout.strip() == b"true"


def _check_ref(ref: str) -> None:
    if not ref.startswith("refs/") or ".." in ref or any(c.isspace() for c in ref):
        raise ValueError(f"not a full ref name: {ref!r}")


def _head_ref(branch: str) -> str:
    return f"refs/heads/{branch}"
