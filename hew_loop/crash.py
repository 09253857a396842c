"""The file that a bug leaves: versions, command line, traceback; for its owner's eyes, with known secrets masked."""

from __future__ import annotations

import os
import platform
import shlex
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from platformdirs import user_state_path

from hew_loop import __version__
from hew_loop.core.secrets import masked, secret_values

_PACKAGES = ("anyio", "click", "gitpython", "platformdirs", "pydantic", "rich")


def write_report(error: BaseException, args: Sequence[str]) -> str:
    """Write `crash-<time>-<pid>.txt` to the user's state directory; returns its path, or why there is none."""
    now = datetime.now(UTC)
    path = user_state_path("hew-loop") / f"crash-{now:%Y%m%dT%H%M%SZ}-{os.getpid()}.txt"
    text = without_secrets(_report(error, args, now))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as reason:
        return f"no file ({reason}) but here:\n{text}"
    return str(path)


def without_secrets(text: str) -> str:
    """`text` without the values of variables that are named like secrets."""
    return masked(text, secret_values(os.environ))


def _report(error: BaseException, args: Sequence[str], now: datetime) -> str:
    lines = [
        f"time      {now:%Y-%m-%dT%H:%M:%SZ}",
        f"hew-loop  {__version__}",
        f"python    {platform.python_version()} on {platform.platform()}",
        f"packages  {', '.join(f'{name} {_version(name)}' for name in _PACKAGES)}",
        f"directory {_directory()}",
        f"command   loop {shlex.join(args)}",
        "",
        "".join(traceback.format_exception(error)),
    ]
    return "\n".join(lines).encode("utf-8", "backslashreplace").decode("utf-8")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def _directory() -> str:
    try:
        return str(Path.cwd())
    except OSError as reason:
        return f"gone ({reason})"
