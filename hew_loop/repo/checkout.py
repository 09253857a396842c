"""Moving a checkout that a person uses: every file by rename, the index at once, the branch last.

git's own fast-forward unlinks and rewrites files in place, so a kill leaves some absent or half written, which nobody
can tell from a person's work afterwards. Here each file is the old or the new one at any moment.
"""

from __future__ import annotations

import filecmp
import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from hew_loop.repo.git import Git
from hew_loop.repo.porcelain import IndexEntry, fields, is_under, parse_index, shown

_MARK = Path("hew-loop delivery")
_ASIDE_INDEX, _ASIDE_FILES = "hew-loop.index", "hew-loop.files"
_LINK, _SUBMODULE = "120000", "160000"
_BUSY = {
    "MERGE_HEAD": "merge",
    "CHERRY_PICK_HEAD": "cherry-pick",
    "REVERT_HEAD": "revert",
    "rebase-merge": "rebase",
    "rebase-apply": "rebase",
    "sequencer": "cherry-pick",
}


@dataclass(frozen=True, slots=True)
class InTheWay:
    reason: str
    tip: str | None = None
    """Set when the branch moved under us."""


@dataclass(frozen=True, slots=True)
class _Side:
    """A path at one commit. Mode `000000` where it does not exist."""

    mode: str
    blob: str

    @property
    def exists(self) -> bool:
        return self.mode != "000000"


@dataclass(frozen=True, slots=True)
class _Change:
    raw: bytes
    old: _Side
    new: _Side
    touch_file: bool = True
    touch_index: bool = True

    @property
    def path(self) -> str:
        return shown(self.raw)


def forget_killed(git_dir: Path) -> None:
    """Remove the lock and the files that a killed delivery left in a git directory; nobody else's."""
    lock = git_dir / "index.lock"
    if lock.is_symlink() and lock.readlink() == _MARK:
        lock.unlink()
    shutil.rmtree(git_dir / _ASIDE_FILES, ignore_errors=True)
    for leftover in (git_dir / _ASIDE_INDEX, git_dir / f"{_ASIDE_INDEX}.lock"):
        leftover.unlink(missing_ok=True)


class Checkout:
    """The worktree at `top`; files at and below `keep` are the tracker's own."""

    def __init__(self, git: Git, top: Path, keep: Sequence[str]) -> None:
        self._git = git
        self._top = top
        self._keep = keep
        found = git.must("rev-parse", "--absolute-git-dir", cwd=top)
        self._git_dir = Path(os.fsdecode(found).rstrip("\n"))
        self._index = self._git_dir / "index"
        self._lock = self._git_dir / "index.lock"
        self._new_index = self._git_dir / _ASIDE_INDEX
        self._new_files = self._git_dir / _ASIDE_FILES

    def fast_forward(self, ref: str, *, old: str, new: str) -> InTheWay | None:
        """From `old` to `new`: files, index, branch. None when done; else nothing has been changed.

        An exception (a full disk) can leave files of both sides; calling again completes it.
        """
        busy = next((what for name, what in _BUSY.items() if (self._git_dir / name).exists()), None)
        if busy is not None:
            return InTheWay(f"a {busy} is in progress in {self._top}")
        if not self._take_lock():
            return InTheWay(f"a git process is at work in {self._top}, or was killed there ({self._lock})")
        try:
            changes = self._changes(old, new)
            blocked = self._blocked(changes, old=old, new=new)
            if isinstance(blocked, InTheWay):
                return blocked
            self._move(blocked)
            if self._git.call("update-ref", "-m", "loop: fast-forward", ref, new, old, cwd=self._top, durable=True).ok:
                return None
            back = [_Change(raw=c.raw, old=c.new, new=c.old, touch_file=c.touch_file, touch_index=c.touch_index)
                    for c in blocked]  # fmt: skip
            self._move(back)
            return InTheWay(f"{ref} could not be moved", tip=self._git.commit_id(ref))
        finally:
            forget_killed(self._git_dir)

    def _take_lock(self) -> bool:
        """The lock that git itself takes. A link: made at once, and it says whose it is."""
        try:
            self._lock.symlink_to(_MARK)
        except FileExistsError:
            return False
        return True

    # -- what is there

    def _changes(self, old: str, new: str) -> list[_Change]:
        words = iter(fields(self._git.must("diff-tree", "-r", "-z", "--raw", "--no-renames", old, new)))
        found: list[_Change] = []
        for head in words:
            old_mode, new_mode, old_blob, new_blob, _ = head.decode().lstrip(":").split(" ")
            found.append(_Change(raw=next(words), old=_Side(old_mode, old_blob), new=_Side(new_mode, new_blob)))
        return found

    def _blocked(self, changes: Sequence[_Change], *, old: str, new: str) -> list[_Change] | InTheWay:
        """The changes that are to be made, or the files that a person has touched."""
        listed = self._git.must("ls-files", "-v", "-s", "-z", cwd=self._top)
        index: dict[bytes, list[IndexEntry]] = {}
        wanted = {change.raw for change in changes}
        for entry in parse_index(listed):
            if entry.raw in wanted:
                index.setdefault(entry.raw, []).append(entry)
        hidden = [shown(raw) for raw, entries in index.items() if any(e.tag.upper() == "S" for e in entries)]
        if hidden:
            return InTheWay(f"{_listed(hidden)} left out of the checkout {self._top} (sparse checkout)")
        agreeing = self._agreeing(changes, old=old, new=new)
        kept: list[_Change] = []
        in_the_way: list[str] = []
        for change in changes:
            index_ok = _index_agrees(change, index.get(change.raw, []))
            file_ok = change.raw in agreeing
            if is_under(change.path, self._keep):
                touch_file = file_ok and index_ok
                kept.append(_Change(change.raw, change.old, change.new, touch_file=touch_file, touch_index=index_ok))
            elif index_ok and file_ok:
                kept.append(change)
            else:
                in_the_way.append(change.path)
        if in_the_way:
            return InTheWay(f"{_listed(in_the_way)} changed in {self._top} and would be overwritten")
        return kept

    def _agreeing(self, changes: Sequence[_Change], *, old: str, new: str) -> set[bytes]:
        """The paths whose file is the old or the new one, or is rightly absent."""
        blobs = self._blobs(changes)
        leaving = {change.raw for change in changes if not change.new.exists}
        agreeing = {change.raw for change in changes if self._file_agrees(change, blobs, leaving)}
        # Where attributes change too and a delivery was killed, git stores the file of one side differently by now.
        doubtful = [c for c in changes if c.raw not in agreeing and c.raw in blobs and not self._astray(c, leaving)]
        for commit in (old, new) if doubtful else ():
            sides = [(c, c.old if commit == old else c.new) for c in doubtful]
            there = [(c, side) for c, side in sides if side.mode.startswith("100")]
            self._new_index.unlink(missing_ok=True)
            self._git.must("read-tree", commit, cwd=self._top, env={"GIT_INDEX_FILE": str(self._new_index)})
            self._make_files([c.raw for c, _ in there])
            for change, side in there:
                made, now = self._new_files / os.fsdecode(change.raw), self._at(change.raw)
                same_mode = blobs[change.raw].mode == side.mode or not self._has_modes
                if same_mode and filecmp.cmp(made, now, shallow=False):
                    agreeing.add(change.raw)
        return agreeing

    def _blobs(self, changes: Sequence[_Change]) -> dict[bytes, _Side]:
        """Mode and id of each path as it is in the checkout now, as git would store it."""
        found: dict[bytes, _Side] = {}
        regular: list[bytes] = []
        for change in changes:
            path = self._at(change.raw)
            if path.is_symlink():
                target = os.fsencode(path.readlink())
                found[change.raw] = _Side(_LINK, _blob_id(target, len(change.new.blob)))
            elif path.is_file():
                regular.append(change.raw)
        # Line by line, and unquoted: names with a newline, a quote in front or a return at the end go one by one.
        plain = [raw for raw in regular if b"\n" not in raw and raw[:1] != b'"' and raw[-1:] != b"\r"]
        ids = self._git.must("hash-object", "--stdin-paths", cwd=self._top, stdin=b"".join(p + b"\n" for p in plain))
        names = dict(zip(plain, ids.decode().split(), strict=True))
        for raw in regular:
            blob = names.get(raw) or self._git.must("hash-object", "--", os.fsdecode(raw), cwd=self._top).decode()
            executable = self._at(raw).stat().st_mode & 0o100
            found[raw] = _Side("100755" if executable else "100644", blob.strip())
        return found

    def _file_agrees(self, change: _Change, blobs: dict[bytes, _Side], leaving: set[bytes]) -> bool:
        """Whether the file is the old or the new one."""
        if self._astray(change, leaving):
            return not change.new.exists
        now = blobs.get(change.raw)
        if now is not None:
            return self._same(now, change.old) or self._same(now, change.new)
        path = self._at(change.raw)
        if _SUBMODULE in (change.old.mode, change.new.mode):
            return change.new.mode in (_SUBMODULE, "000000") or not path.is_dir() or not any(path.iterdir())
        if path.is_dir():
            if not change.new.exists:
                return True  # the file is gone already
            return not change.old.exists and self._empties(path, leaving)
        return not os.path.lexists(path) and not (change.old.exists and change.new.exists)

    def _astray(self, change: _Change, leaving: set[bytes]) -> bool:
        """Whether a file or a link of somebody's stands where a directory above the path should be."""
        folders = (p for p in self._folders(change.raw) if self._raw(p) not in leaving)
        return any(folder.is_symlink() or folder.is_file() for folder in folders)

    def _same(self, now: _Side, side: _Side) -> bool:
        if now.mode != side.mode and self._has_modes:
            return False
        return side.exists and now.blob == side.blob and (now.mode == _LINK) == (side.mode == _LINK)

    @cached_property
    def _has_modes(self) -> bool:
        """False where the file system has no executable bits and git was told so."""
        return self._git.call("config", "--bool", "core.fileMode", cwd=self._top).stdout.strip() != b"false"

    def _empties(self, folder: Path, leaving: set[bytes]) -> bool:
        """Whether nothing but files that leave lies in a directory whose place a file takes."""
        return all(
            self._raw(Path(top) / name) in leaving
            for top, folders, names in os.walk(folder)
            for name in (*names, *(f for f in folders if (Path(top) / f).is_symlink()))
        )

    # -- changing it

    def _move(self, changes: Sequence[_Change]) -> None:
        """Files and index to the new side. Files that are new already stay as they are."""
        if self._index.exists():
            # With its time: git compares it with those of the files, to see which could have changed unnoticed.
            shutil.copy2(self._index, self._new_index)
        env = {"GIT_INDEX_FILE": str(self._new_index)}
        listed = [c for c in changes if c.touch_index]
        gone = b"".join(b"0 %s\t%s\0" % (b"0" * len(c.new.blob), c.raw) for c in listed if not c.new.exists)
        made = b"".join(f"{c.new.mode} {c.new.blob}\t".encode() + c.raw + b"\0" for c in listed if c.new.exists)
        self._git.must("update-index", "-z", "--index-info", cwd=self._top, env=env, stdin=gone + made)
        files = [c for c in changes if c.touch_file]
        for change in files:
            if change.old.exists and not change.new.exists and change.old.mode != _SUBMODULE:
                self._delete(change.raw)
        self._write([c for c in files if c.new.exists])
        self._git.call("update-index", "-q", "--refresh", cwd=self._top, env=env)
        self._new_index.replace(self._index)

    def _delete(self, raw: bytes) -> None:
        path = self._at(raw)
        if any(folder.is_symlink() for folder in self._folders(raw)) or (path.is_dir() and not path.is_symlink()):
            return
        try:
            path.unlink(missing_ok=True)
        except NotADirectoryError:
            return
        for folder in self._folders(raw):
            try:
                folder.rmdir()
            except OSError:
                return

    def _make_files(self, names: Sequence[bytes]) -> None:
        """Write those files of the new index aside; in a worktree of their own, so that its attributes count."""
        shutil.rmtree(self._new_files, ignore_errors=True)
        self._new_files.mkdir()
        env = {
            "GIT_DIR": str(self._git_dir),
            "GIT_COMMON_DIR": str(self._git.common_dir),
            "GIT_WORK_TREE": str(self._new_files),
            "GIT_INDEX_FILE": str(self._new_index),
        }
        listing = b"".join(name + b"\0" for name in names)
        self._git.must("checkout-index", "-f", "-z", "--stdin", cwd=self._new_files, env=env, stdin=listing)

    def _write(self, changes: Sequence[_Change]) -> None:
        self._make_files([c.raw for c in changes if c.new.mode != _SUBMODULE])
        for change in changes:
            target = self._at(change.raw)
            target.parent.mkdir(parents=True, exist_ok=True)
            if change.new.mode == _SUBMODULE:
                if target.is_symlink() or not target.is_dir():
                    target.unlink(missing_ok=True)
                    target.mkdir()
                continue
            if target.is_dir() and not target.is_symlink():
                _remove_empty(target)
            source = self._new_files / os.fsdecode(change.raw)
            try:
                source.replace(target)
            except OSError:  # the git directory is on another file system
                aside = target.with_name(f".{target.name}.hew-loop")
                shutil.move(source, aside)
                aside.replace(target)

    def _folders(self, raw: bytes) -> Iterator[Path]:
        """The directories above a path, innermost first, without the top."""
        path = self._at(raw).parent
        while path != self._top:
            yield path
            path = path.parent

    def _at(self, raw: bytes) -> Path:
        return self._top / os.fsdecode(raw)

    def _raw(self, path: Path) -> bytes:
        return os.fsencode(path.relative_to(self._top))


def _index_agrees(change: _Change, entries: Sequence[IndexEntry]) -> bool:
    if not entries:
        return not change.old.exists or not change.new.exists
    return len(entries) == 1 and entries[0].stage == 0 and (
        _Side(entries[0].mode, entries[0].blob) in (change.old, change.new)
    )  # fmt: skip


def _blob_id(content: bytes, digits: int) -> str:
    algorithm = hashlib.sha256 if digits == 64 else hashlib.sha1
    return algorithm(b"blob %d\0" % len(content) + content).hexdigest()


def _remove_empty(folder: Path) -> None:
    for top, _, _ in os.walk(folder, topdown=False):
        Path(top).rmdir()


def _listed(paths: Iterable[str]) -> str:
    names = sorted(paths)
    rest = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(names[:10]) + rest + (" is" if len(names) == 1 else " are")
