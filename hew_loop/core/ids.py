"""Ids as beads makes them: PREFIX-HASH, as short as the number of issues allows, and PARENT.N for children."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Container, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_SHORTEST, _LONGEST = 3, 8
_MAX_COLLISION = 0.25
_HASH_BYTES = {3: 2, 4: 3, 5: 4, 6: 4, 7: 5, 8: 5}
_NONCES = 10
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Seed:
    """What the hash of a new issue is made from."""

    title: str
    description: str
    creator: str
    created_at: datetime


def new_id(prefix: str, seed: Seed, *, taken: Container[str], count: int) -> str:
    """A free id. `count` is the number of issues without a dot: it decides how long the hash begins.

    Hashes of four and more characters hold a digit, else beads cannot tell where a prefix with hyphens ends.
    """
    nonces = range(_NONCES)
    for length in range(hash_length(count), _LONGEST + 1):
        if length == _LONGEST:
            nonces = range(1_000_000)
        for nonce in nonces:
            tail = _hash(seed, length, nonce)
            candidate = f"{prefix}-{tail}"
            if candidate not in taken and (length == _SHORTEST or any(c.isdigit() for c in tail)):
                return candidate
    raise AssertionError("a million hashes of eight characters are taken")


def child_id(parent: str, known: Iterable[str]) -> str:
    """The next PARENT.N above every number in `known`; with ids that are only mentioned in it, none ever comes back."""
    head = parent + "."
    numbers = (rest for name in known if name.startswith(head) for rest in [name[len(head) :].split(".")[0]])
    return f"{head}{max((int(n) for n in numbers if n.isascii() and n.isdigit()), default=0) + 1}"


def hash_length(count: int) -> int:
    """Shortest length at which `count` issues collide with a chance of at most a quarter."""
    for length in range(_SHORTEST, _LONGEST):
        if 1 - math.exp(-count * count / (2 * 36**length)) <= _MAX_COLLISION:
            return length
    return _LONGEST


def prefix_of(task_id: str) -> str:
    """The prefix of an id by beads' own rule; empty when it has none.

    >>> prefix_of("my-app-a3f.2"), prefix_of("my-app-setup")
    ('my-app', 'my')
    """
    head, _, last = task_id.rpartition("-")
    tail = last.split(".")[0]
    if not head:
        return ""
    if re.fullmatch(r"[0-9]+|[A-Za-z0-9]{3}|(?=[A-Za-z]*[0-9])[A-Za-z0-9]{4,8}", tail):
        return head
    return task_id.partition("-")[0]


def clean_prefix(name: str) -> str:
    """A prefix that every tool accepts, from the name of a directory."""
    return re.sub(r"^[^a-z]+|-+$", "", re.sub(r"[^a-z0-9]+", "-", name.lower()))[:40].rstrip("-") or "task"


def _hash(seed: Seed, length: int, nonce: int) -> str:
    nanoseconds = (seed.created_at - _EPOCH) // timedelta(microseconds=1) * 1000
    text = f"{seed.title}|{seed.description}|{seed.creator}|{nanoseconds}|{nonce}"
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    number = int.from_bytes(digest[: _HASH_BYTES[length]], "big")
    tail = ""
    while len(tail) < length:
        number, digit = divmod(number, 36)
        tail = _DIGITS[digit] + tail
    return tail
