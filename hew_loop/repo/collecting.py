"""After the agent: all that it left becomes a commit on its branch, or a salvage that is kept and does not land."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from hew_loop.errors import RepoError
from hew_loop.repo import admin
from hew_loop.repo.admin import Worktree
from hew_loop.repo.command import refusal
from hew_loop.repo.git import Git
from hew_loop.repo.leftovers import commit_index
from hew_loop.repo.porcelain import STATUS, IndexEntry, Status, StatusEntry, fields, parse_index, parse_status, shown

_MARKERS = (rb"^<<<<<<< ", rb"^>>>>>>> ")
_ADDED = (re.compile(rb"^\+<<<<<<< ", re.MULTILINE), re.compile(rb"^\+>>>>>>> ", re.MULTILINE))
_FEW = 50
"""So many paths are staged by name; the whole tree is not looked through a second time."""
_MAX_SCAN_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Left:
    """What to do with what an agent left."""

    branch: str
    message: str
    """Of the commit for what the agent did not commit itself."""
    salvage_ref: str
    start: str
    """The commit it started from."""
    aside: Path
    """A directory, made when needed, for what has to be moved out of the worktree."""
    litter: tuple[str, ...] = ()
    """Names, with wildcards, of what the agent's program leaves for itself at the top: taken away where not tracked."""


@dataclass(frozen=True, slots=True)
class Collected:
    head: str
    """What the branch holds now."""
    dirty: bool
    """Something was left uncommitted."""
    unmerged: tuple[str, ...]
    """Paths in conflict or with markers added; `(rebase in progress)` where an operation was not ended. Not empty:
    what was left uncommitted is in `salvage` and not on the branch."""
    salvage: str | None
    """The full ref that keeps what is not on the branch."""
    descends: bool
    """The start is an ancestor of the head."""
    repaired: tuple[str, ...] = ()
    """What was odd and has been put right, in sentences."""


def collect(git: Git, worktree: Worktree, left: Left) -> Collected:
    """See `Pool.collect`. Can be called again after a crash at any point."""
    return _Collection(git, worktree, left).run()


@dataclass(slots=True)
class _Collection:
    git: Git
    worktree: Worktree
    left: Left
    notes: list[str] = field(default_factory=list[str])

    def run(self) -> Collected:
        is_there = self._mend_place()
        status = self._read() if is_there else None
        if status is None:
            return self._commits_only()
        before, branch_tip = self._heads(status)
        unmerged = {e.path for e in status.entries if e.kind == "u" and not self._is_resolved(e)}
        operation = admin.unfinished(self.worktree)
        if operation is not None and not unmerged:
            unmerged.add(f"({operation} in progress)")
        dirty = bool(status.entries) or (self.worktree.git_dir / "MERGE_HEAD").exists()
        if dirty:
            self._stage(status)
        if before != self.left.start or (dirty and self._may_have_markers(status)):
            unmerged |= self._with_markers()
        lost_tip = self._unreachable(branch_tip, before)
        if unmerged:
            extra = [tip for tip in (lost_tip,) if tip]
            salvage = self._salvage(before, extra) if dirty or extra else None
            head = before
        else:
            head = before
            if dirty:
                head = commit_index(self.git, self.worktree, on=before, message=self.left.message)
            salvage = self._keep(lost_tip) if lost_tip else None
        self._settle(branch_tip, head)
        return Collected(
            head=head,
            dirty=dirty,
            unmerged=tuple(sorted(unmerged)),
            salvage=salvage,
            descends=self.left.start in (before, head) or self.git.is_ancestor(self.left.start, head),
            repaired=tuple(self.notes),
        )

    # -- putting the place right

    def _mend_place(self) -> bool:
        """Bring the worktree's link and locks in order. False when its files are gone."""
        path = self.worktree.path
        link = path / ".git"
        if path.is_symlink() or not path.is_dir() or not any(path.iterdir()):
            self.notes.append("The worktree's directory was gone; only what was committed is kept.")
            return False
        if not admin.names_admin(self.worktree):
            what = "was missing" if not os.path.lexists(link) else "did not lead to this repository any more"
            if os.path.lexists(link):
                self._move_aside(link)
            admin.write_link(self.worktree)
            self.notes.append(f"The worktree's .git {what}; it has been restored.")
        for lock in (*(self.worktree.git_dir / name for name in admin.LOCKS), self._branch_lock()):
            if lock.exists():
                lock.unlink(missing_ok=True)
                self.notes.append(f"A git process of the agent was killed; its {lock.name} has been removed.")
        return True

    def _branch_lock(self) -> Path:
        return self.git.common_dir / "refs/heads" / f"{self.left.branch}.lock"

    def _read(self) -> Status:
        """The status of the worktree, after hidden changes and repositories inside have been made visible."""
        with ThreadPoolExecutor(max_workers=1) as beside:
            reading = beside.submit(self._index)
            status, index = self._status(), reading.result()
        if status is None:
            admin.rebuild_admin(self.git, self.worktree, head=self._default_head())
            self._run("read-tree", "HEAD")
            self.notes.append("git's own record of the worktree was broken; it has been rebuilt.")
            status, index = self._status(), self._index()
        elif status.commit is None:
            admin.write_head(self.worktree, self._default_head())
            self.notes.append("The agent started a history without a past; its files are kept, on top of the branch.")
            status = self._status()
        if status is None:
            raise RepoError(f"git cannot read the worktree {self.worktree.path}.")
        untracked = [e.raw for e in status.entries if e.kind == "?"]
        if self._unhide(index) | self._free_nested(untracked) | self._clear(untracked):
            status = self._read_again()
        return status

    def _clear(self, untracked: list[bytes]) -> bool:
        tops = ((name, os.fsdecode(name).partition("/")[0]) for name in untracked)
        litter = [name for name, top in tops if any(fnmatchcase(top, pattern) for pattern in self.left.litter)]
        for name in litter:
            with suppress(OSError):  # what cannot be taken away is collected
                self._at(name).unlink()
        return bool(litter)

    def _read_again(self) -> Status:
        """Once more, as often as moving one repository away shows another."""
        status = self._status()
        if status is None:
            raise RepoError(f"git cannot read the worktree {self.worktree.path}.")
        while self._free_nested(e.raw for e in status.entries if e.kind == "?"):
            status = self.git.status(self.worktree.path, untracked="all", env=self._env)
        return status

    def _status(self) -> Status | None:
        done = self.git.call(*STATUS, "--untracked-files=all", cwd=self.worktree.path, env=self._env)
        return parse_status(done.stdout) if done.ok else None

    def _default_head(self) -> str:
        ref = f"refs/heads/{self.left.branch}"
        return f"ref: {ref}" if self.git.commit_id(ref) else self.left.start

    def _index(self) -> bytes:
        """Empty when git cannot read it, which the status says as well."""
        done = self.git.call("ls-files", "-v", "-s", "-z", cwd=self.worktree.path, env=self._env)
        return done.stdout if done.ok else b""

    def _unhide(self, index: bytes) -> bool:
        """Take back `--assume-unchanged` and `--skip-worktree`, which hide changes from us and from every reset."""
        listing = fields(index)
        # Of the ordinary files, often tens of thousands, only the folders matter.
        listed = list(parse_index(b"\0".join(line for line in listing if not line.startswith(b"H 100"))))
        hidden = [entry for entry in listed if self._is_hidden(entry)]
        for option in ("--no-assume-unchanged", "--no-skip-worktree"):
            if hidden:
                self._run("update-index", option, "-z", "--stdin", stdin=b"".join(e.raw + b"\0" for e in hidden))
        if hidden:
            names = ", ".join(shown(entry.raw) for entry in hidden[:5])
            self.notes.append(f"Changes to files were hidden from git, and count again ({len(hidden)}: {names}).")
        direct = {line.partition(b"\t")[2].rpartition(b"/")[0] for line in listing}
        folders = {name for folder in direct if folder for name in (folder, *_parents(folder))}
        found = [name for name in sorted(folders) if os.path.lexists(self._at(name) / ".git")]
        links = self._made_links([entry.raw for entry in listed if entry.mode == "160000"])
        for name in (*found, *links):
            self._free(name)
        return bool(hidden or found or links)

    def _made_links(self, links: list[bytes]) -> list[bytes]:
        """Repositories inside that the agent added as links to commits that nobody else has; taken off the index."""
        if not links:
            return []
        listing = fields(self._run("ls-tree", "-r", "-z", self.left.start))
        known = {line.partition(b"\t")[2] for line in listing if line.startswith(b"160000")}
        made = [link for link in links if link not in known and (self._at(link) / ".git").is_dir()]
        if made:
            self._run("update-index", "--force-remove", "-z", "--stdin", stdin=b"".join(m + b"\0" for m in made))
        return made

    def _is_hidden(self, entry: IndexEntry) -> bool:
        if entry.tag.islower():
            return True
        return entry.tag == "S" and os.path.lexists(self._at(entry.raw))

    def _free_nested(self, untracked: Iterable[bytes]) -> bool:
        """Of repositories made inside, the files count: their `.git` goes aside. They end in a slash in the listing."""
        nested = [name for name in untracked if name.endswith(b"/")]
        for name in nested:
            self._free(name.rstrip(b"/"))
        return bool(nested)

    def _free(self, folder: bytes) -> None:
        moved = self._move_aside(self._at(folder) / ".git")
        self.notes.append(f"The agent made a repository in {shown(folder)}; its .git is kept as {moved}.")

    def _move_aside(self, path: Path) -> Path:
        self.left.aside.mkdir(parents=True, exist_ok=True)
        stem = re.sub(r"[^A-Za-z0-9._-]+", "-", str(path.relative_to(self.worktree.path))).strip("-.")[:80]
        target = next(t for n in range(10_000) if not os.path.lexists(t := self.left.aside / f"{stem}.{n}"))
        shutil.move(path, target)
        return target

    # -- what was left

    def _heads(self, status: Status) -> tuple[str, str | None]:
        """Where HEAD is, and where the branch is: the same unless the agent left its branch."""
        head = status.commit or self.left.start
        if status.branch == self.left.branch:
            return head, head
        tip = self.git.commit_id(f"refs/heads/{self.left.branch}")
        if tip != head:
            where = f"on the branch {status.branch}" if status.branch else "on no branch"
            self.notes.append(f"The agent ended {where}; its commits are on {self.left.branch} now.")
        if status.branch is not None:
            self._run("update-ref", "--no-deref", "HEAD", head)  # what we commit must not move a branch of others
        return head, tip

    def _stage(self, status: Status) -> None:
        if len(status.entries) <= _FEW:  # else git compares each file with each path
            paths = b"\0".join(e.raw for e in status.entries)
            few = ("--literal-pathspecs", "add", "-A", "--pathspec-from-file=-", "--pathspec-file-nul")
            if paths and self.git.call(*few, cwd=self.worktree.path, env=self._env, stdin=paths).ok:
                return
        done = self.git.call("add", "-A", "--ignore-errors", cwd=self.worktree.path, env=self._env)
        if done.exit_code == 1 and not done.timed_out:
            self.notes.append(f"Not everything could be read: {shown(done.stderr).strip()[:500]}")
        elif not done.ok:
            raise refusal(done, f"add in {self.worktree.path}")

    def _may_have_markers(self, status: Status) -> bool:
        return any(self._has_markers(self._at(e.raw)) for e in status.entries)

    def _is_resolved(self, entry: StatusEntry) -> bool:
        """A text in conflict whose markers are gone and that is not simply our side: edited, only not `git add`ed.

        Without markers to look for (binary files, a side that deleted it, `-merge` in the attributes) nobody can tell.
        """
        path = self._at(entry.raw)
        if entry.code not in ("UU", "AA") or path.is_symlink() or not path.is_file():
            return False
        content = path.read_bytes()
        if b"\0" in content or any(re.search(marker, content, re.MULTILINE) for marker in _MARKERS):
            return False
        stages = fields(self._run("ls-files", "-u", "-z", "--", f":(literal,top){entry.path}"))
        ours = next((line.split(b" ")[1] for line in stages if b" 2\t" in line), b"")
        mine = self._run("hash-object", "--stdin", stdin=content).strip()
        return ours not in (b"", mine)

    def _has_markers(self, path: Path) -> bool:
        try:
            if path.is_symlink() or not path.is_file() or path.stat().st_size > _MAX_SCAN_BYTES:
                return False
            content = path.read_bytes()
        except OSError:
            return False
        return all(re.search(marker, content, re.MULTILINE) for marker in _MARKERS)

    def _with_markers(self) -> set[str]:
        """Files to which the difference between the start and the index adds both kinds of marker."""
        options = ("--cached", "-M", "--no-ext-diff", "--no-textconv", "-G^(<<<<<<<|>>>>>>>) ", self.left.start)
        names = fields(self._run("diff", "--name-only", "-z", *options))
        if not names:
            return set()
        patch = self._run("diff", "-U0", *options)
        sections = re.split(rb"^diff --git ", patch, flags=re.MULTILINE)[1:]
        pairs = zip(names, sections, strict=True)
        return {shown(name) for name, section in pairs if all(marker.search(section) for marker in _ADDED)}

    # -- keeping it

    def _unreachable(self, tip: str | None, head: str) -> str | None:
        """The old tip of the branch when moving the branch to `head` would lose it."""
        if tip is None or tip in (head, self.left.start) or self.git.is_ancestor(tip, head):
            return None
        return tip

    def _salvage(self, head: str, extra: list[str]) -> str:
        """The files as they are, as one commit on top of everything that would be lost with the branch."""
        tree = self._run("write-tree").decode().strip()
        old = self.git.commit_id(self.left.salvage_ref)
        if old is not None and self.git.tree_id(old) == tree:
            return self.left.salvage_ref
        parents = [word for parent in (head, *extra, *([old] if old else [])) for word in ("-p", parent)]
        env = {**self._env, **self.git.identity_env()}
        text = self.left.message.encode("utf-8", "backslashreplace")
        made = self.git.must("commit-tree", tree, *parents, "-F", "-", stdin=text, env=env, durable=True)
        self._move(self.left.salvage_ref, made.decode().strip(), old=old)
        return self.left.salvage_ref

    def _keep(self, tip: str) -> str:
        """A commit that the agent took off its branch again."""
        old = self.git.commit_id(self.left.salvage_ref)
        if old is None:
            self._move(self.left.salvage_ref, tip, old=None)
        elif not self.git.is_ancestor(tip, old):
            return self._salvage(tip, [])
        return self.left.salvage_ref

    def _settle(self, branch_tip: str | None, head: str) -> None:
        """The branch at `head`, and HEAD off the branch."""
        ref = f"refs/heads/{self.left.branch}"
        now = self.git.commit_id(ref)
        if now != head:
            self._move(ref, head, old=now if now is not None else branch_tip)
        if admin.read_head(self.worktree) != head:
            admin.write_head(self.worktree, head)

    def _commits_only(self) -> Collected:
        """The files are gone: the branch keeps what was committed on it, or on its HEAD."""
        ref = f"refs/heads/{self.left.branch}"
        tip = self.git.commit_id(ref)
        text = admin.read_head(self.worktree) or ""
        head = self.git.commit_id(text.removeprefix("ref: ")) if text else None
        head = head or tip or self.left.start
        lost = self._unreachable(tip, head)
        if tip != head:
            self._move(ref, head, old=tip)
        if lost is not None and self.git.commit_id(self.left.salvage_ref) is None:
            self._move(self.left.salvage_ref, lost, old=None)
        if self.worktree.git_dir.is_dir():
            admin.write_head(self.worktree, head)
        return Collected(
            head=head,
            dirty=False,
            unmerged=(),
            salvage=self.left.salvage_ref if lost else None,
            descends=self.git.is_ancestor(self.left.start, head),
            repaired=tuple(self.notes),
        )

    def _move(self, ref: str, new: str, *, old: str | None) -> None:
        if not self.git.update_ref(ref, new, old=old):
            raise RepoError(f"{ref} moved while the worktree was collected.")

    @property
    def _env(self) -> dict[str, str]:
        return self.worktree.env(self.git)

    def _run(self, *args: str, stdin: bytes = b"") -> bytes:
        return self.git.must(*args, cwd=self.worktree.path, env=self._env, stdin=stdin)

    def _at(self, name: bytes) -> Path:
        return self.worktree.path / os.fsdecode(name)


def _parents(name: bytes) -> Iterable[bytes]:
    while b"/" in name:
        name = name.rpartition(b"/")[0]
        yield name
