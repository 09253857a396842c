"""Secrets are known by the names of their variables; their values are kept out of every log, event and report (P13)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

from hew_loop.core.policy import Policy

MASK = "********"
MIN_LENGTH = 8
"""A shorter value is no key; masking every `true` would make logs unreadable."""

_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL", re.IGNORECASE)
_NOT_A_SECRET = re.compile(r"^(GIT_CONFIG_KEY_\d+|SSH_AUTH_SOCK)$|_FILE$|_PATH$", re.IGNORECASE)


def is_secret_name(name: str) -> bool:
    return _NAME.search(name) is not None and _NOT_A_SECRET.search(name) is None


def secret_values(env: Mapping[str, str]) -> tuple[str, ...]:
    """The values to mask, longest first, so that one inside another does not leave its rest behind."""
    values = {value for name, value in env.items() if is_secret_name(name) and len(value) >= MIN_LENGTH}
    return tuple(sorted(values, key=lambda v: (-len(v), v)))


def masked(text: str, secrets: Iterable[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, MASK)
    return text


def without_secrets(policy: Policy) -> Policy:
    """The policy as it may be journalled: the names in `worktree.env` stay, the values of secrets do not."""
    env = tuple((name, MASK if is_secret_name(name) else value) for name, value in policy.worktree.env)
    return replace(policy, worktree=replace(policy.worktree, env=env))


class StreamMask:
    """Masks a stream of bytes that comes in pieces cut anywhere."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._secrets = tuple(secret.encode("utf-8", "surrogateescape") for secret in secrets)
        self._kept = b""

    def feed(self, data: bytes) -> bytes:
        """What may be passed on now; the beginning of a secret at the end is kept back."""
        if not self._secrets:
            return data
        data = self._kept + data
        for secret in self._secrets:
            data = data.replace(secret, MASK.encode())
        held = max(_overlap(data, secret) for secret in self._secrets)
        self._kept = data[len(data) - held :]
        return data[: len(data) - held]

    def flush(self) -> bytes:
        """The rest, at the end of the stream."""
        kept, self._kept = self._kept, b""
        return kept


def _overlap(data: bytes, secret: bytes) -> int:
    """Length of the longest end of `data` that begins `secret`."""
    longest = min(len(secret) - 1, len(data))
    return next((n for n in range(longest, 0, -1) if data.endswith(secret[:n])), 0)
