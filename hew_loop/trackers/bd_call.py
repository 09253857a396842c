"""One call of the `bd` program: its environment, its deadline, and whether its answer can be believed."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from hew_loop import process
from hew_loop.errors import TrackerError
from hew_loop.trackers.beads_format import Issue

TIMEOUT_S: Final = 60.0
"""bd has no deadline of its own that holds: 0.49.5 ran past its --lock-timeout, 1.0.5 waits for a lock without end."""
PAUSES_S: Final = (0.1, 0.2, 0.4, 0.8, 1.6)
"""Before each repetition of a call that bd refused because somebody else was at the store."""
ACTOR: Final = "loop"

_SETTINGS: Final = {
    # Variables and not flags: an unknown variable is ignored, an unknown flag ends the call (0.49 and 1.0 share few).
    "BEADS_NO_DAEMON": "1",
    "BEADS_AUTO_START_DAEMON": "false",
    "BD_NON_INTERACTIVE": "1",
    "BD_DISABLE_METRICS": "1",
    "DOLT_DISABLE_EVENT_FLUSH": "1",
    "CI": "true",
    "NO_COLOR": "1",
    "GIT_TERMINAL_PROMPT": "0",
}
_OTHER_STORES: Final = ("BEADS_DB", "BD_DB")
_BUSY = re.compile(
    r"out of sync with JSONL|database is locked|database table is locked|holds the exclusive lock", re.IGNORECASE
)
_DOUBT = re.compile(r"failed to load beads config|Staleness check skipped", re.IGNORECASE)
"""After these the answer may come from an empty store in place of the real one, or from an old state."""
_WARNING = re.compile(r"^\W*(?:warning|error)\b.*", re.IGNORECASE | re.MULTILINE)
_HARMLESS = re.compile(r"beads\.role not configured|has permissions 0\d+ \(recommended|JSONL file hash mismatch")
_SHOWN = 300


@dataclass(frozen=True, slots=True)
class Answer:
    """How a call ended. `value` is what stdout says, out of its envelope; None where it holds no JSON."""

    words: str
    ok: bool
    """Exit code 0: never enough by itself, since 0.49 refuses with 0 and an empty stdout."""
    value: Any
    error: str
    """What bd complains of, on whichever stream; empty when it does not."""
    warning: str

    def issues(self) -> list[Issue]:
        """The issues that it lists. Raises TrackerError for anything but a believable list."""
        value: object = self.value
        if not self.ok or not isinstance(value, list):
            raise self.failure()
        found = cast("list[object]", value)
        if not all(isinstance(each, dict) for each in found):
            raise TrackerError(f"{self.words} answered a list of something else than issues.")
        if not found and self.warning:
            raise TrackerError(
                f"{self.words} shows an empty store, with a warning: {self.warning}",
                hint="A damaged store can look empty. Mend what bd warns of, then try again.",
            )
        return cast("list[Issue]", found)

    def object(self) -> Issue:
        """The one object that it answers. Raises TrackerError."""
        value: object = self.value
        if not self.ok or not isinstance(value, dict):
            raise self.failure()
        return cast("Issue", value)

    def failure(self) -> TrackerError:
        return TrackerError(
            f"{self.words}: {self.error or self.warning or 'it answered nothing'}", hint=_way_out(self.error)
        )


@dataclass(frozen=True, slots=True)
class Bd:
    """The program and the one store that it is to work on."""

    program: str
    directory: Path
    """The beads directory itself, so that no worktree or redirect leads bd somewhere else."""
    env: Mapping[str, str]
    timeout_s: float = TIMEOUT_S
    pauses_s: Sequence[float] = PAUSES_S

    def call(self, *words: str, actor: str = ACTOR) -> Answer:
        """Run `bd --json WORDS`. Raises TrackerError when it cannot be started, does not end, or reads elsewhere."""
        answer = self._once(words, actor)
        for pause_s in self.pauses_s:
            if not _BUSY.search(answer.error):
                break
            time.sleep(pause_s)
            answer = self._once(words, actor)
        return answer

    def raw(self, words: Sequence[str], *, actor: str = ACTOR, stdin: bytes = b"") -> process.Completed:
        """One run of `bd WORDS`, whatever its exit code and format. Raises TrackerError as `call` does."""
        argv = [self.program, *map(passable, words)]
        env = self._environment(actor)
        done = process.run(argv, cwd=self.directory.parent, env=env, timeout_s=self.timeout_s, stdin=stdin)
        shown = _shown(words)
        if done.timed_out:
            raise TrackerError(
                f"{shown} did not end within {self.timeout_s:g} s.",
                hint=f"Another program may hold the store. See which one: fuser -v -m {self.directory}",
            )
        if done.exit_code is None:
            raise TrackerError(f"bd {done.error}", hint="Install bd again, then: bd version")
        stderr = done.stderr.decode("utf-8", "replace")
        if doubt := _DOUBT.search(stderr):
            line = next(line for line in stderr.splitlines() if doubt[0] in line)
            raise TrackerError(
                f"{shown} cannot be believed: {_short(line)}",
                hint=f"Mend {self.directory} first: bd may show another store, or an old state.",
            )
        return done

    def _once(self, words: tuple[str, ...], actor: str) -> Answer:
        done = self.raw(("--json", *words), actor=actor)
        stderr = done.stderr.decode("utf-8", "replace")
        value = _json(done.text())
        warnings = [line for line in _WARNING.findall(stderr) if not _HARMLESS.search(line)]
        return Answer(
            words=_shown(words),
            ok=done.ok,
            value=value,
            error=_complaint(value, stderr) if not done.ok or value is None else "",
            warning=_short(warnings[0]) if warnings else "",
        )

    def _environment(self, actor: str) -> dict[str, str]:
        actors = {"BD_ACTOR": actor, "BEADS_ACTOR": actor}
        env = process.child_environment({**_SETTINGS, **actors, "BEADS_DIR": str(self.directory)}, base=self.env)
        for name in _OTHER_STORES:
            env.pop(name, None)
        return env


def _shown(words: Sequence[str]) -> str:
    return " ".join(("bd", *[word for word in words if word != "--json"][:2])).rstrip()


def is_busy(done: process.Completed) -> bool:
    """Whether bd refused because somebody else was at the store: the same call may succeed a moment later."""
    return not done.ok and bool(_BUSY.search((done.stdout + done.stderr).decode("utf-8", "replace")))


def passable(text: str) -> str:
    """The text as a program's argument: no NUL, which cannot be passed, and nothing that is not Unicode."""
    return text.replace("\0", "�").encode("utf-8", "replace").decode()


def _json(text: str) -> object:
    """None for what is not JSON: a help text, `No updates specified`, nothing."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(value, dict) and cast("Issue", value).keys() == {"schema_version", "data"}:
        return cast("Issue", value)["data"]
    return cast("object", value)


def _complaint(value: object, stderr: str) -> str:
    """The `error` member of stdout or of stderr (a plain warning may stand before it), else stderr's first line."""
    start = stderr.find("{")
    for found in (value, _json(stderr[start:]) if start >= 0 else None):
        if isinstance(found, dict) and isinstance(error := cast("Issue", found).get("error"), str):
            return _short(error)
    lines = [line for line in stderr.splitlines() if line.strip() and not _HARMLESS.search(line)]
    lines.sort(key=lambda line: not line.startswith(("Error", "cannot ")))
    return _short(lines[0].removeprefix("Error: ")) if lines else ""


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else line[: _SHOWN - 1] + "…"


def _way_out(error: str) -> str:
    if "out of sync with JSONL" in error:
        return "issues.jsonl was changed by hand or by git. Take that in first: bd sync --import-only"
    if "no beads database found" in error:
        return "A clone without its database: bd bootstrap --yes (or bd init). Else see: bd where"
    if re.search(r"permission denied|readonly database", error):
        return "The store must be writable, for reading too."
    if "locked" in error:
        return "Another program is writing all the time. Wait for it, then try again."
    return "Try it by hand; bd doctor may know more."
