"""A simulated world of values: tracker, git, agents and people around the pure core, with kills at any event.

`World.run` is the engine's tick without I/O. Two byte strings of a scenario choose what agents do and what happens
next; when they are used up everything goes its straight way, so that every run ends. Promises are checked on the way.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import get_args

from hew_loop.core import actions as ac
from hew_loop.core import events as ev
from hew_loop.core import recovery
from hew_loop.core.dispatcher import decide, next_wake
from hew_loop.core.iteration import FailureClass, IterationResult, Usage
from hew_loop.core.names import bug_ref
from hew_loop.core.policy import GateSettings, PlannedCommand, Policy, VerifySettings
from hew_loop.core.startable import is_startable, startable
from hew_loop.core.state import FINAL, HOLDS_SLOT, RunState
from hew_loop.core.task import Edge, Task
from hew_loop.core.transitions import apply, begin, replay
from hew_loop.core.verdict import Verdict

T0 = datetime(2026, 3, 1, 22, 0, tzinfo=UTC)
RUN_ID = "loop-20260301T220000Z-0123abcd"
BASE = "base"
MAX_STEPS = 4000
ACTIONS: tuple[type, ...] = get_args(get_args(ac.Action)[0])


def task(
    task_id: str,
    *after: str,
    priority: int = 2,
    status: str = "open",
    kind: str = "task",
    labels: tuple[str, ...] = (),
    parent: str = "",
    minutes: int = 0,
) -> Task:
    """A task that waits for those in `after`; `minutes` makes it younger."""
    edges = tuple(Edge(target) for target in after) + ((Edge(parent, "parent-child"),) if parent else ())
    return Task(
        task_id, f"Task {task_id}", T0 + timedelta(minutes=minutes - 600),
        status=status, priority=priority, type=kind, labels=labels, edges=edges,
    )  # fmt: skip


def policy(**changes: object) -> Policy:
    """Two slots, a gate, a verify."""
    settings = Policy(
        jobs=2,
        runtime="fake",
        gate=GateSettings(commands=(PlannedCommand("make test"),)),
        verify=VerifySettings(commands=(PlannedCommand("make"),)),
    )
    return replace(settings, **changes)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Agent:
    """What one iteration does. `trait`: red, hang, flaky, or the name of a shared file that it edits."""

    outcome: str = "done"
    failure: FailureClass | None = None
    trait: str = ""
    closes: tuple[str, ...] = ()
    creates: str = ""
    next_iteration: tuple[str, ...] | None = None
    usage: Usage | None = field(default_factory=lambda: Usage(100, 10))


@dataclass(frozen=True)
class Scenario:
    tasks: tuple[Task, ...]
    policy: Policy = field(default_factory=policy)
    agents: bytes = b""
    """Choices of the agents, one after another."""
    moves: bytes = b""
    """Which open action goes on next, what people do, what fails."""
    kills: tuple[int, ...] = ()
    """Kill after so many more events, each counted from the last kill."""
    settle_last: bool = False
    """After the last kill the run is only settled."""
    script: tuple[tuple[str, tuple[Agent, ...]], ...] = ()
    """Task -> what its first iterations do, instead of `agents`."""
    base_verdict: Verdict = "passed"
    gate_dies_after: int | None = None
    """So many gate runs work; then it does not run any more, on whatever tree."""
    verify_verdict: Verdict | None = None
    """None: `moves` choose."""
    refuses: str = ""
    """A task that the tracker shows as free, and whose claim it always refuses."""
    launch_branch: str | None = "main"


class Choices:
    """Numbers out of a byte string; 0, the straight way, when it is used up."""

    def __init__(self, data: bytes) -> None:
        self._data = iter(data)

    def pick(self, options: int) -> int:
        return next(self._data, 0) % options

    def one_in(self, options: int) -> bool:
        return self.pick(options) == options - 1


class Git:
    """Commits are values: an id and the ids of all its ancestors, itself among them."""

    def __init__(self) -> None:
        self.ancestors: dict[str, frozenset[str]] = {BASE: frozenset((BASE,))}
        self.traits: dict[str, str] = {}
        self.owner: dict[str, str] = {}
        self.integration = BASE
        self.launch = BASE

    def commit(self, name: str, *parents: str) -> str:
        self.ancestors[name] = frozenset((name,)).union(*(self.ancestors[p] for p in parents))
        return name

    def work(self, name: str, owner: str, trait: str, *parents: str) -> str:
        """A commit with content of its own."""
        self.owner[name], self.traits[name] = owner, trait
        return self.commit(name, *parents)

    def contains(self, commit: str, other: str) -> bool:
        return other in self.ancestors[commit]

    def content(self, commit: str) -> frozenset[str]:
        return frozenset(w for w in self.ancestors[commit] if w in self.owner)

    def tree(self, commit: str) -> str:
        return _digest("tree", *sorted(self.content(commit)))

    def clashes(self, ours: str, theirs: str) -> tuple[str, ...]:
        """Shared files that both sides changed since they parted."""
        mine, its = self.content(ours) - self.content(theirs), self.content(theirs) - self.content(ours)
        return tuple(sorted(self._files(mine) & self._files(its)))

    def merge(self, ours: str, theirs: str) -> str | None:
        """The merge commit, the same for the same parents; None for a conflict."""
        return None if self.clashes(ours, theirs) else self.commit(_digest("merge", ours, theirs), ours, theirs)

    def _files(self, works: Iterable[str]) -> set[str]:
        return {self.traits[w] for w in works if self.traits[w].startswith("file")}


class Tracker:
    def __init__(self, tasks: Iterable[Task]) -> None:
        self.tasks = {t.id: t for t in tasks}
        self.bugs: dict[str, str] = {}
        self.notes: list[tuple[str, str]] = []

    def put(self, task_id: str, **changes: object) -> None:
        self.tasks[task_id] = replace(self.tasks[task_id], **changes)  # type: ignore[arg-type]

    def claim(self, task_id: str, actor: str) -> str:
        t = self.tasks[task_id]
        if (t.status, t.assignee) not in (("open", ""), ("in_progress", actor)):
            return f"{t.status}, {t.assignee or 'nobody'}"
        self.put(task_id, status="in_progress", assignee=actor)
        return ""

    def release(self, task_id: str, actor: str, note: str) -> None:
        t = self.tasks[task_id]
        if note and (task_id, note) not in self.notes:
            self.notes.append((task_id, note))
        if t.assignee == actor or t.is_closed:
            self.put(task_id, status="open", assignee="")

    def file_bug(self, task_id: str, reference: str) -> str:
        if reference not in self.bugs:
            bug = f"bug-{len(self.bugs) + 1}"
            self.bugs[reference] = bug
            self.tasks[bug] = replace(task(bug, minutes=500), type="bug", labels=("needs-human",))
            self.put(task_id, edges=(*self.tasks[task_id].edges, Edge(bug)))
        return self.bugs[reference]


@dataclass
class Open:
    """An action under way: `result` is there once its effect is."""

    action: ac.Action
    began_at: datetime
    result: ev.Event | None = None
    snapshot: dict[str, Task] | None = None
    known: Mapping[str, Task] = field(default_factory=dict[str, Task])
    """The tasks as the state had them when the action was begun."""


class Killed(Exception):
    """The loop died behind the newest event."""


class World:
    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.tracker = Tracker(scenario.tasks)
        self.git = Git()
        self.agents = Choices(scenario.agents)
        self.moves = Choices(scenario.moves)
        self.now = T0
        self.journal: list[ev.Stamped] = []
        self.lines: list[bytes] = []
        self.live: RunState | None = None
        self.open: dict[int, Open] = {}
        self.kills = list(scenario.kills)
        self.until_kill = self.kills.pop(0) if self.kills else None
        self.gated: dict[str, list[Verdict]] = {}
        """What the gate said of each commit, judged."""
        self.closed_by: dict[str, int] = {}
        """Task -> iteration whose agent closed it, though it was not its own."""
        self.no_change: set[str] = set()
        self.people_at = T0
        self.read_at = T0
        self.starts: list[ac.StartIteration] = []
        self.created = 0
        self.flaked: set[str] = set()

    @property
    def state(self) -> RunState:
        assert self.live is not None
        return self.live

    # -- the loop -----------------------------------------------------------------------------------------------

    def run(self) -> RunState:
        """Until the run has ended."""
        try:
            start = ev.RunStarted(
                RUN_ID, BASE, self.scenario.policy, self.scenario.launch_branch, BASE, "fake", "store", pid=1
            )  # fmt: skip
            self.append(start)
        except Killed:
            self.resume()
        for _ in range(MAX_STEPS):
            try:
                self.tick()
                if self.state.ended:
                    self.check_end()
                    return self.state
                self.step()
            except Killed:
                self.resume()
        raise AssertionError("the run does not end")

    def tick(self) -> None:
        """Ask until no rule says anything; every action is journalled before it is begun."""
        for _ in range(200):
            decisions = decide(self.state, self.now)
            if not decisions:
                self.check_rest()
                return
            for decision in decisions:
                if isinstance(decision, ACTIONS):
                    n = self.state.next_n
                    self.check_action(decision)
                    self.append(ev.Intended(n, decision))
                    self.open[n] = Open(decision, self.now, known=self.state.backlog.tasks)
                else:
                    self.append(decision)
                if self.state.ended:
                    return
        raise AssertionError(f"decide never comes to rest: {self.journal[-1].event}")

    def append(self, event: ev.Event) -> None:
        self.now += timedelta(milliseconds=1)
        stamped = ev.Stamped(len(self.journal) + 1, self.now, event)
        self.journal.append(stamped)
        self.lines.append(ev.to_line(stamped))
        self.live = begin(stamped) if self.live is None else apply(self.live, stamped)
        self.check_state()
        if self.until_kill is not None:
            self.until_kill -= 1
            if self.until_kill < 0:
                self.until_kill = self.kills.pop(0) if self.kills else None
                raise Killed

    def step(self) -> None:
        """One thing happens: an open action goes on, people do something, or time passes."""
        move = self.moves.pick(16)
        if move == 15:
            return self.people()
        wake = next_wake(self.state, self.now)
        if not self.open or (move == 14 and wake is not None):
            assert wake is not None, "nothing is open, nothing is due, and the run goes on"
            assert wake > self.now
            self.now = wake
            return None
        n = sorted(self.open)[self.moves.pick(len(self.open))]
        under_way = self.open[n]
        if under_way.result is None:
            self.effect(n, under_way)
            if move % 2:
                return None
        del self.open[n]
        assert under_way.result is not None
        self.append(self.view(under_way) or under_way.result)
        return None

    def resume(self) -> None:
        """A new process: what is known is the journal and what the world holds."""
        while True:
            replayed = replay(ev.from_line(line) for line in self.lines)
            assert replayed == self.state, "replaying the journal gives another state (P12)"
            self.live = replayed
            if replayed.ended:
                return
            left, self.open = {**self.left_over(), **self.open}, {}
            self._left = left
            try:
                self.append(ev.Resumed(settle=self.scenario.settle_last and self.until_kill is None, pid=2))
                for n, action, look in recovery.looks(self.state):
                    self.append(recovery.settled(n, action, self.found(action, look, left.get(n))))
                self._left = {}
            except Killed:
                continue
            return

    _left: dict[int, Open] = {}  # noqa: RUF012

    def left_over(self) -> dict[int, Open]:
        return self._left

    def found(self, action: ac.Action, look: recovery.Look, begun: Open | None) -> recovery.Found:
        """What recovery finds by looking at the world alone; of an agent, what its worktree holds."""
        match action:
            case ac.Claim() if look == "claim":
                t = self.tracker.tasks[action.task]
                return recovery.Found((t.status, t.assignee) == ("in_progress", action.actor))
            case ac.Land() if look == "tip":
                return recovery.Found(self.git.contains(self.git.integration, action.new))
            case ac.CloseTask() if look == "status":
                return recovery.Found(self.tracker.tasks[action.task].is_closed)
            case ac.StartIteration(spec=spec) if look == "iteration" and begun and begun.result:
                assert isinstance(begun.result, ev.IterationEnded)
                head = begun.result.result.head
                return recovery.Found(True, IterationResult("failed", "lost", "killed", start=spec.base, head=head))
            case _:
                assert look in ("nothing", "iteration")
                return recovery.Found()

    # -- effects ------------------------------------------------------------------------------------------------

    def effect(self, n: int, under_way: Open) -> None:
        """Do it: `result` says how it ended; until it is journalled nobody knows."""
        action = under_way.action
        if isinstance(action, ac.BuildChain | ac.RunGate | ac.Land) and self.moves.one_in(60):
            under_way.result = ev.IntegrationFailed(n, "no space left on the device")
            return
        match action:
            case ac.ReadTasks():
                if self.moves.one_in(24):
                    under_way.result = ev.ViewFailed(n, "the tracker is locked")
                else:
                    under_way.snapshot = dict(self.tracker.tasks)
                    under_way.result = ev.ViewRead(n, under_way.began_at)
            case ac.Claim():
                if self.moves.one_in(24):
                    under_way.result = ev.ClaimRefused(n, "the tracker is locked", tracker_failed=True)
                else:
                    refused = "no" if action.task == self.scenario.refuses else ""
                    why = refused or self.tracker.claim(action.task, action.actor)
                    under_way.result = ev.ClaimRefused(n, why) if why else ev.Claimed(n)
            case ac.StartIteration():
                under_way.result = ev.IterationEnded(n, self.agent(action))
            case ac.BuildChain():
                under_way.result = self.build(n, action)
            case ac.RunGate():
                under_way.result = self.gate(n, action)
            case ac.Land():
                under_way.result = self.land(n, action)
            case ac.CloseTask() | ac.ReleaseTask() | ac.FileBug():
                under_way.result = self.write(n, action)
            case ac.Verify():
                verdicts: tuple[Verdict, ...] = ("passed",) * 6 + ("failed", "could_not_run", "not_tested")
                drawn = verdicts[self.moves.pick(len(verdicts))]
                under_way.result = ev.Verified(n, self.scenario.verify_verdict or drawn)
            case ac.Deliver():
                under_way.result = self.deliver(n, action)

    def view(self, under_way: Open) -> ev.ViewRead | None:
        """The difference to what the state knows, made when the read comes back."""
        result, seen = under_way.result, under_way.snapshot
        if not isinstance(result, ev.ViewRead) or seen is None:
            return None
        known = under_way.known
        self.read_at = under_way.began_at
        changed = tuple(t for t in seen.values() if known.get(t.id) != t)
        return replace(result, changed=changed, removed=tuple(t for t in known if t not in seen))

    def agent(self, action: ac.StartIteration) -> IterationResult:
        spec = action.spec
        t = self.tracker.tasks[spec.task]
        if self.taken_back(t, spec.actor):
            return IterationResult("failed", "withdrawn", "taken back by a person", start=spec.base)
        self.starts.append(action)
        does = self.script(spec.task, spec.attempt) or self.improvise()
        for other in (spec.task if c == "self" else c for c in does.closes):
            if other in self.tracker.tasks and not self.tracker.tasks[other].is_closed:
                self.tracker.put(other, status="closed")
                if other != spec.task:
                    self.closed_by[other] = spec.number
        if does.creates:
            self.create(does.creates)
        git = self.git
        parents = (spec.base,)
        if spec.carry is not None:
            merged = git.merge(spec.base, spec.carry)
            parents = (merged,) if merged else (spec.base, spec.carry)
        answer = IterationResult(
            "failed", does.failure, "said so", start=parents[0], head=parents[0],
            summary=f"did {spec.task}", next_iteration=does.next_iteration, usage=does.usage, exit_code=0,
        )  # fmt: skip
        if does.outcome in ("done", "foreign") or does.failure:
            stolen = self.unlanded_head(spec.task) if does.outcome == "foreign" else None
            work = git.work(
                f"{spec.task}.{spec.attempt}", spec.task, does.trait, *parents, *([stolen] if stolen else [])
            )
            outcome = "failed" if does.failure else "done"
            return replace(answer, outcome=outcome, head=work, files=(does.trait,) if does.trait else ())
        if does.outcome == "no_change":
            self.no_change.add(spec.task)
        return replace(answer, outcome=does.outcome)  # type: ignore[arg-type]

    def script(self, task_id: str, attempt: int) -> Agent | None:
        acts = dict(self.scenario.script).get(task_id, ())
        if self.scenario.script and attempt > len(acts):
            return Agent()
        return acts[attempt - 1] if acts else None

    def improvise(self) -> Agent:
        pick = self.agents.pick
        ids = sorted(self.tracker.tasks)
        outcome = ("done",) * 10 + ("no_change", "blocked", "failed", "failed", "failed", "foreign")
        chosen = outcome[pick(len(outcome))]
        traits = ("",) * 5 + ("red", "red", "hang", "flaky", "file-a", "file-a", "file-b")
        extra = pick(12)
        failures = get_args(FailureClass)
        said: tuple[str, ...] | None = None
        if extra in (6, 7, 8):
            said = tuple(("nonsense-1", *ids)[pick(len(ids) + 1)] for _ in range(pick(4)))
        return Agent(
            chosen,
            failure=failures[pick(len(failures))] if chosen == "failed" else None,
            trait=traits[pick(len(traits))],
            closes=(ids[pick(len(ids))],) if extra == 9 else ("self",) if extra == 10 else (),
            creates=ids[pick(len(ids))] if extra == 11 else "",
            next_iteration=said,
            usage=Usage(100, 10) if pick(4) < 3 else None,
        )

    def unlanded_head(self, not_of: str) -> str | None:
        landed = self.git.ancestors[self.git.integration]
        heads = [w for w, owner in self.git.owner.items() if w not in landed and owner not in (not_of, "people")]
        return heads[-1] if heads else None

    def create(self, after: str) -> None:
        self.created += 1
        new = f"new-{self.created}"
        self.tracker.tasks[new] = task(new, *((after,) if self.created % 2 else ()), minutes=100 + self.created)

    def taken_back(self, t: Task, actor: str) -> bool:
        """Deferred or reassigned by a person; what an agent or a person closed is not taken back."""
        if t.defer_until is not None and t.defer_until > self.now:
            return True
        return not t.is_closed and t.assignee not in (actor, "")

    def build(self, n: int, action: ac.BuildChain) -> ev.ChainBuilt:
        git, tip = self.git, action.tip
        links: list[ev.Link] = []
        conflicts: list[ev.SentBack] = []
        refused: list[ev.SentBack] = []
        withdrawn: list[ev.SentBack] = []
        for entry in action.entries:
            if entry.number != ac.LAUNCH:
                record = self.state.records[entry.task]
                if self.taken_back(self.tracker.tasks[entry.task], record.actor):
                    withdrawn.append(ev.SentBack(entry.number, "taken back by a person"))
                    continue
                new = git.content(entry.head) - git.content(action.tip)
                if any(git.owner[w] != entry.task for w in new):
                    refused.append(ev.SentBack(entry.number, "it contains another task's work"))
                    continue
            if files := git.clashes(action.tip, entry.head):
                conflicts.append(ev.SentBack(entry.number, "conflict", files))
            elif merged := git.merge(tip, entry.head):
                tip = merged
                links.append(ev.Link(entry.number, merged, git.tree(merged)))
        return ev.ChainBuilt(n, tuple(links), tuple(conflicts), tuple(refused), tuple(withdrawn))

    def gate(self, n: int, action: ac.RunGate) -> ev.GateEnded:
        verdict = self.scenario.base_verdict if action.purpose == "base" else self.oracle(action.commit)
        self.gated.setdefault(action.commit, []).append(verdict)
        return ev.GateEnded(n, verdict, reason=verdict, tail="the end", log=f"gates/gate-{action.number:03d}.log")

    def oracle(self, commit: str) -> Verdict:
        dies_after = self.scenario.gate_dies_after
        dead = dies_after is not None and sum(len(v) for v in self.gated.values()) > dies_after
        if dead or self.moves.one_in(32):
            return "could_not_run"
        traits = {w: self.git.traits[w] for w in self.git.content(commit)}
        if "hang" in traits.values():
            return "could_not_run"
        if "red" in traits.values():
            return "failed"
        flaky = {w for w, trait in traits.items() if trait == "flaky"} - self.flaked
        if flaky:
            self.flaked |= flaky
            return "failed"
        return self.scenario.base_verdict if self.scenario.base_verdict == "not_tested" else "passed"

    def land(self, n: int, action: ac.Land) -> ev.Landed | ev.LandRefused:
        if self.git.integration != action.old:
            return ev.LandRefused(n, self.git.integration)
        assert self.git.contains(action.new, action.old), "the integration branch only goes forward"
        self.git.integration = action.new
        return ev.Landed(n)

    def write(self, n: int, action: ac.CloseTask | ac.ReleaseTask | ac.FileBug) -> ev.Event:
        fails = self.moves.pick(24)
        if fails == 22:
            return ev.TrackerWriteFailed(n, "the tracker is locked")
        result: ev.Event
        match action:
            case ac.CloseTask():
                self.check_close(action.task)
                self.tracker.put(action.task, status="closed", assignee="")
                result = ev.TaskClosed(n)
            case ac.ReleaseTask():
                self.tracker.release(action.task, action.actor, action.note)
                result = ev.TaskReleased(n)
            case ac.FileBug():
                reference = bug_ref(RUN_ID, action.task, action.attempt)
                result = ev.BugFiled(n, self.tracker.file_bug(action.task, reference))
        # It was done, and the answer was lost: doing it again must be the same.
        return ev.TrackerWriteFailed(n, "no answer") if fails == 23 else result

    def deliver(self, n: int, action: ac.Deliver) -> ev.Event:
        git = self.git
        if not git.contains(action.new, git.launch):
            return ev.LaunchMoved(n, git.launch)
        if self.moves.one_in(12):
            return ev.DeliveryRefused(n, "the checkout is dirty")
        if not git.contains(git.launch, action.new):
            git.launch = action.new
        return ev.Delivered(n, action.new)

    def people(self) -> None:
        """Somebody is awake."""
        self.people_at = self.now
        ids = sorted(self.tracker.tasks)
        chosen = ids[self.moves.pick(len(ids))]
        match self.moves.pick(10):
            case 0:
                trait = ("", "red", "file-a")[self.moves.pick(3)]
                self.git.launch = self.git.work(f"people-{len(self.git.owner)}", "people", trait, self.git.launch)
            case 1:
                self.tracker.put(chosen, status="closed", assignee="")
            case 2:
                self.tracker.put(chosen, defer_until=self.now + timedelta(days=30))
            case 3 if not self.tracker.tasks[chosen].is_closed:
                self.tracker.put(chosen, status="in_progress", assignee="a person")
            case 4 if self.tracker.tasks[chosen].is_closed:
                self.tracker.put(chosen, status="open", assignee="")
            case 5 if not self.state.ended:
                by = ("SIGINT", "SIGTERM", "cancel", "stop_file")[self.moves.pick(4)]
                how = "drain" if by == "stop_file" or self.moves.pick(2) else "now"
                self.append(ev.StopRequested(how, by))
            case 6:
                other = ids[self.moves.pick(len(ids))]
                if chosen < other:
                    edges = self.tracker.tasks[other].edges
                    self.tracker.put(other, edges=(*edges, Edge(chosen)))
            case _:
                self.create(chosen)

    # -- promises -----------------------------------------------------------------------------------------------

    def check_state(self) -> None:
        """P6: one live iteration per task, no two tasks in one slot."""
        state = self.state
        held = [r for r in state.records.values() if r.phase in HOLDS_SLOT]
        assert len({r.slot for r in held}) == len(held) <= state.policy.jobs
        assert all(0 <= r.slot < state.policy.jobs for r in held)
        running = [i.spec.task for i in state.iterations.values() if i.fate == "running"]
        assert sorted(running) == sorted(r.task for r in held if r.phase == "running")
        landings = [i.spec.task for i in state.iterations.values() if i.fate == "landed"]
        assert len(set(landings)) == len(landings), "landed twice"
        waiting = {n for n, i in state.iterations.items() if i.fate == "waiting"}
        assert waiting == set(state.queue.waiting)

    def check_action(self, action: ac.Action) -> None:
        state, git = self.state, self.git
        match action:
            case ac.Claim():
                assert not state.stopping
                assert is_startable(state, action.task, self.now)
                assert state.base_verdict in ("passed", "not_tested") or not state.policy.gate.commands
                if state.suggestion and any(t.id in state.suggestion.ids for t in startable(state, self.now)):
                    # The other slots of this tick may have taken the suggested ones a moment ago.
                    assert action.why == "agent" or action.task not in state.suggestion.ids
            case ac.StartIteration(spec=spec):
                assert not state.stopping
                assert self.tracker_holds(spec.task, spec.actor), "started without a claim"
                assert git.contains(git.integration, spec.base)
                self.check_base(spec.task, spec.base)
            case ac.Land():
                if state.policy.gate.commands:
                    verdict = self.gated[action.new][-1]
                    assert verdict == "passed" or verdict == self.scenario.base_verdict == "not_tested"
            case ac.Deliver():
                verify = state.verify
                assert verify is not None
                assert (verify.commit, action.new) == (git.integration, git.integration)
                assert verify.verdict in ("passed", "not_tested")
            case _:
                pass

    def tracker_holds(self, task_id: str, actor: str) -> bool:
        """The claim is ours as far as the loop can know: nobody took it since."""
        t = self.tracker.tasks[task_id]
        return t.assignee == actor or t.is_closed or t.assignee == "a person" or self.people_at > T0

    def check_base(self, task_id: str, base: str) -> None:
        """P2: what it depends on and was worked on here is in its base; nothing of it is under way."""
        for dependency in self.state.backlog.dependencies(task_id):
            record = self.state.records.get(dependency)
            if record is not None:
                assert record.phase in ("landed", "done", "accepted", "unchanged"), f"{dependency} is {record.phase}"
                works = [i for i in record.iterations if self.state.iterations[i].fate == "landed"]
                assert works or dependency in self.no_change
                for number in works:
                    result = self.state.iterations[number].result
                    assert result is not None
                    assert result.head is not None
                    assert self.git.contains(base, result.head)
            elif dependency in self.closed_by:
                by = self.state.iterations[self.closed_by[dependency]]
                assert by.fate not in ("running", "waiting"), f"{dependency} was closed by an agent that has not landed"

    def check_close(self, task_id: str) -> None:
        """P3: closed by us only when its work is on the integration branch, or no change was accepted."""
        mine = [w for w, owner in self.git.owner.items() if owner == task_id]
        landed = any(self.git.contains(self.git.integration, w) for w in mine)
        assert landed or (task_id in self.no_change and self.state.policy.accept_no_change)

    def check_rest(self) -> None:
        """P8: at rest no slot is free while something could start."""
        state = self.state
        if state.stopping or state.view is None or (state.hold and self.now < state.hold.until):
            return
        if state.write_failures:
            return
        if state.base_gate is not None and state.base_gate.verdict is None:
            return
        used = sum(1 for r in state.records.values() if r.phase in HOLDS_SLOT)
        limit = state.policy.max_iter
        starting = len(state.in_phase("claiming", "claimed"))
        if used < state.policy.jobs and (limit is None or len(state.iterations) + starting < limit):
            idle = [t.id for t in startable(state, self.now)]
            assert not idle, f"a slot stays free while {idle} could start"
            assert not state.in_phase("retry")
        assert not [r for r in state.in_phase("claimed") if limit is None]

    def check_end(self) -> None:
        state, tracker, git = self.state, self.tracker, self.git
        assert not self.open
        written = state.write_failures < 5
        ours = [t.id for t in tracker.tasks.values() if t.status != "open" and t.assignee.startswith("loop/")]
        if written:
            assert not [t for t in ours if not tracker.tasks[t].is_closed], f"claims are left: {ours}"
            assert all(r.phase in FINAL for r in state.records.values())
        assert state.stopping is not None
        assert state.stopping != "stuck"
        assert state.exit_code != 70
        for record in state.records.values():
            self.check_nothing_lost(record.task)
        if state.stopping == "ready_empty" and self.people_at < self.read_at:
            assert state.backlog.tasks == tracker.tasks
            assert not list(startable(state, self.now))
        if state.delivery and state.delivery.state == "merged":
            assert git.contains(git.launch, state.delivery.commit)
        self.check_exit_code()

    def check_nothing_lost(self, task_id: str) -> None:
        record = self.state.records[task_id]
        results = [(n, self.state.iterations[n]) for n in record.iterations]
        landed = [n for n, i in results if i.fate == "landed"]
        for n, iteration in results:
            head = iteration.result.head if iteration.result else None
            assert head is None or head in self.git.ancestors
            if n in landed:
                assert head is not None
                assert self.git.contains(self.git.integration, head)
        if not landed and record.phase in ("done", "unchanged"):
            assert task_id in self.no_change
        if record.phase in ("parked", "returned") and self.people_at == T0 and task_id not in self.closed_by:
            assert not self.tracker.tasks[task_id].is_closed
        if record.phase == "parked":
            assert record.bug in self.tracker.bugs.values()

    def check_exit_code(self) -> None:
        state = self.state
        parked = [r for r in state.records.values() if r.phase == "parked"]
        red = state.verify is not None and state.verify.verdict in ("failed", "could_not_run")
        refused = state.delivery is not None and state.delivery.state == "refused"
        if state.exit_code == 0:
            assert not parked
            assert not red
            assert not refused
            assert state.stopping == "ready_empty"
            assert all(r.phase in ("done", "unchanged", "withdrawn") for r in state.records.values())
            if state.landed_something and state.start.launch_branch:
                assert state.delivery is not None
                assert self.git.contains(self.git.launch, self.git.integration)
        if state.stopping == "ready_empty":
            assert state.exit_code == (1 if parked or red or refused else 4 if state.in_phase("returned") else 0)


def events(world: World, *kinds: type) -> list[ev.Event]:
    """What was journalled of these kinds, in order."""
    return [s.event for s in world.journal if isinstance(s.event, kinds)]


def intended(world: World, *kinds: type) -> list[ac.Action]:
    return [
        s.event.action for s in world.journal if isinstance(s.event, ev.Intended) and isinstance(s.event.action, kinds)
    ]


def run(tasks: Sequence[Task], *, script: dict[str, Sequence[Agent]] | None = None, **changes: object) -> World:
    """A run without chaos: every action is done when it is asked for, oldest first."""
    acts = tuple((k, tuple(v)) for k, v in (script or {}).items()) or (("", ()),)
    world = World(Scenario(tuple(tasks), script=acts, **changes))  # type: ignore[arg-type]
    world.run()
    return world


def _digest(kind: str, *parts: str) -> str:
    return f"{kind}-{hashlib.sha256('|'.join(parts).encode()).hexdigest()[:12]}"
