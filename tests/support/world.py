"""A simulated world of values: tracker, git, agents and people around the pure core, with kills at any event.

`World.run` is the engine's tick without I/O. Two byte strings of a scenario choose what agents do and what happens
next; when they are used up everything goes its straight way, so that every run ends. `support.promises` are checked
on the way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import get_args

from hew_loop.core import actions as ac
from hew_loop.core import events as ev
from hew_loop.core import recovery
from hew_loop.core.dispatcher import decide, next_wake
from hew_loop.core.iteration import FailureClass, IterationResult, Usage
from hew_loop.core.names import bug_ref
from hew_loop.core.state import RunState
from hew_loop.core.task import Edge, Task
from hew_loop.core.transitions import apply, begin, replay
from hew_loop.core.verdict import Verdict
from tests.support import promises
from tests.support.world_parts import BASE, RUN_ID, T0, Agent, Choices, Git, Scenario, Tracker, task

MAX_STEPS = 4000
ACTIONS: tuple[type, ...] = get_args(get_args(ac.Action)[0])


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
        self.left: dict[int, Open] = {}
        """What was open at a kill: the worktrees of lost agents."""
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
                    promises.check_end(self)
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
                promises.check_rest(self)
                return
            for decision in decisions:
                if isinstance(decision, ACTIONS):
                    n = self.state.next_n
                    promises.check_action(self, decision)
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
        promises.check_state(self)
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
            self.left |= self.open
            self.open = {}
            try:
                self.append(ev.Resumed(settle=self.scenario.settle_last and self.until_kill is None, pid=2))
                for n, action, look in recovery.looks(self.state):
                    self.append(recovery.settled(n, action, self.found(action, look, self.left.get(n))))
            except Killed:
                continue
            return

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
            case ac.AskPlanner():
                under_way.result = self.advice(n, action)
            case ac.BuildChain():
                under_way.result = self.build(n, action)
            case ac.RunGate():
                under_way.result = self.gate(n, action)
            case ac.Land():
                under_way.result = self.land(n, action)
            case ac.CloseTask() | ac.ReleaseTask() | ac.FileBug():
                under_way.result = self.write(n, action)
            case ac.Remember():
                under_way.result = ev.Remembered(n, "the tracker is locked" if self.moves.one_in(4) else "")
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

    def advice(self, n: int, action: ac.AskPlanner) -> ev.BatchPlanned:
        """Of a planner that names what it likes: blocked, finished and running tasks, none at all, or that fails."""
        pick = self.moves.pick
        ids = sorted(self.tracker.tasks)
        planned = ev.BatchPlanned(
            action.number, "planner", after=action.after, covers=action.covers, n=n, took_s=float(pick(40)),
            usage=Usage(10, 1) if pick(3) else None,
        )  # fmt: skip
        if not pick(4):
            return replace(planned, source="skipped", reason="runtime_error: it was ended after 120 s")
        return replace(planned, task_ids=tuple(ids[pick(len(ids))] for _ in range(pick(4))))

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
                promises.check_close(self, action.task)
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
