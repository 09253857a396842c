"""Which finished iterations are gated next, and what a verdict means: values in, the next step out.

One frozen prefix of the queue is merged into a chain of commits. Its last commit is gated. Red: shorter prefixes of
the same chain are gated by halving, every passing one lands at once, and when only one entry is left between the
landed prefix and the red one, that tree is gated once more before the entry goes back (architecture.md, "The merge
queue"). One culprit in n costs at most 1 + 2·log2(n) gate runs and the confirmation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from hew_loop.core.actions import GatePurpose
from hew_loop.core.events import Link
from hew_loop.core.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Chain:
    """A frozen prefix: `links[i]` is the integration tip with the first i+1 entries merged."""

    tip: str
    links: tuple[Link, ...]
    landed: int = 0
    """So many links are on the integration branch."""
    passed: int = 0
    """So many links may land (≥ landed)."""
    red: int | None = None
    """Length of the shortest prefix known to fail."""
    purpose: GatePurpose = "prefix"
    tip_passed: bool = False
    """The integration tip passed within the same limit: what cannot run here is the entry's own fault."""

    @property
    def target(self) -> int:
        """Length of the prefix that is gated next: all of it, the middle of what is in doubt, or the red one itself."""
        if self.red is None:
            return len(self.links)
        return self.landed + max((self.red - self.landed) // 2, 1)


@dataclass(frozen=True, slots=True)
class MergeQueue:
    """`waiting`: iteration numbers that finished with work, oldest first; they stay until landed or sent back."""

    tip: str
    waiting: tuple[int, ...] = ()
    chain: Chain | None = None


@dataclass(frozen=True, slots=True)
class Build:
    entries: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Gate:
    link: Link | None
    """None: the integration tip itself."""
    purpose: GatePurpose
    entries: tuple[int, ...]

    @property
    def fresh(self) -> bool:
        """Only a plain prefix may be answered from kept results."""
        return self.purpose != "prefix"


@dataclass(frozen=True, slots=True)
class LandPrefix:
    link: Link
    entries: tuple[int, ...]


Step = Build | Gate | LandPrefix


def next_step(queue: MergeQueue, *, gated: bool) -> Step | None:
    """The one thing to do now, given that nothing of the queue is in flight; None when nothing waits."""
    chain = queue.chain
    if chain is None:
        return Build(queue.waiting) if queue.waiting else None
    if not gated and chain.passed < len(chain.links):
        chain = replace(chain, passed=len(chain.links))
    if chain.passed > chain.landed:
        return LandPrefix(chain.links[chain.passed - 1], _numbers(chain, chain.landed, chain.passed))
    if chain.purpose == "tip":
        return Gate(None, "tip", _numbers(chain, chain.landed, chain.target))
    return Gate(chain.links[chain.target - 1], chain.purpose, _numbers(chain, chain.landed, chain.target))


def start_chain(queue: MergeQueue, links: tuple[Link, ...]) -> MergeQueue:
    """The candidate was built; without a link there is nothing to gate."""
    return replace(queue, chain=Chain(queue.tip, links) if links else None)


def drop(queue: MergeQueue, numbers: tuple[int, ...]) -> MergeQueue:
    """These entries wait no longer."""
    return replace(queue, waiting=tuple(n for n in queue.waiting if n not in numbers))


@dataclass(frozen=True, slots=True)
class AfterGate:
    """`sent_back`: the one entry whose fault it is. `broken`: the gate itself does not work here; the run stops."""

    queue: MergeQueue
    sent_back: int | None = None
    broken: bool = False


def after_gate(queue: MergeQueue, verdict: Verdict) -> AfterGate:
    """What a verdict on the tree of `next_step` means. `verdict` is already judged against the base (P9)."""
    chain = queue.chain
    if chain is None:
        return AfterGate(queue)
    lands = verdict in ("passed", "not_tested")
    if chain.purpose == "tip":
        if not lands:
            return AfterGate(queue, broken=True)
        return _failed(queue, replace(chain, tip_passed=True), twice=True)
    if lands:
        return AfterGate(replace(queue, chain=replace(chain, passed=chain.target)))
    if verdict == "could_not_run" and not chain.tip_passed:
        step: GatePurpose = "tip" if chain.purpose in ("again", "confirm") else "again"
        return AfterGate(replace(queue, chain=replace(chain, purpose=step)))
    return _failed(queue, chain, twice=chain.purpose == "confirm")


def after_landing(queue: MergeQueue) -> tuple[MergeQueue, tuple[int, ...]]:
    """The prefix that `next_step` named has landed: the queue behind it, and the numbers that landed."""
    chain = queue.chain
    if chain is None:
        return queue, ()
    upto = chain.passed if chain.passed > chain.landed else len(chain.links)
    numbers = _numbers(chain, chain.landed, upto)
    behind = drop(replace(queue, tip=chain.links[upto - 1].commit), numbers)
    if upto == len(chain.links) or chain.red is None or upto >= chain.red:
        return replace(behind, chain=None), numbers
    return replace(behind, chain=_narrowed(chain, landed=upto, red=chain.red)), numbers


def _failed(queue: MergeQueue, chain: Chain, *, twice: bool) -> AfterGate:
    """The tree of `chain.target` is red: narrow the search, or name the culprit."""
    if twice and chain.target - chain.landed == 1:
        culprit = chain.links[chain.landed].number
        return AfterGate(drop(replace(queue, chain=None), (culprit,)), sent_back=culprit)
    return AfterGate(replace(queue, chain=_narrowed(chain, landed=chain.landed, red=chain.target)))


def _narrowed(chain: Chain, *, landed: int, red: int) -> Chain:
    purpose: GatePurpose = "confirm" if red - landed == 1 else "prefix"
    return replace(chain, landed=landed, passed=landed, red=red, purpose=purpose)


def _numbers(chain: Chain, start: int, end: int) -> tuple[int, ...]:
    return tuple(link.number for link in chain.links[start:end])
