"""What can go wrong for a user: each error has one clear sentence, a way out, and an exit code (product.md §3)."""

from __future__ import annotations

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_NOTHING_TO_DO = 3
EXIT_LIMIT = 4
EXIT_UNAVAILABLE = 69
EXIT_BUG = 70
EXIT_LOCKED = 75
EXIT_SIGINT = 130
EXIT_SIGTERM = 143


class HewError(Exception):
    """An expected end of a command, with its exit code; `hint` says what to do next, and both are printed."""

    exit_code = EXIT_FAILED

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(HewError):
    """The command line or a configuration file asks for something that cannot be."""

    exit_code = EXIT_USAGE


class TrackerError(HewError):
    """The tracker cannot be read or written; nothing that it said is trusted."""

    exit_code = EXIT_UNAVAILABLE


class RepoError(HewError):
    """git is missing, too old, or refused what was asked of it."""

    exit_code = EXIT_UNAVAILABLE


class AgentUnavailable(HewError):
    """The agent program cannot be started at all."""

    exit_code = EXIT_UNAVAILABLE


class LockHeld(HewError):
    """Another run of this repository is alive."""

    exit_code = EXIT_LOCKED
