"""One line per event, with its UTC time: what a log file or a pipe shows of a run."""

from __future__ import annotations

from hew_loop.core import actions as ac
from hew_loop.core import events as ev
from hew_loop.core import runtime_choice
from hew_loop.core.actions import LAUNCH
from hew_loop.core.iteration import IterationResult
from hew_loop.core.state import RunState
from hew_loop.core.transitions import apply
from hew_loop.reports.summary import scope_text
from hew_loop.reports.text import duration, plain, utc

MAX_CHARS = 300
_WHY: dict[ac.Why, str] = {
    "graph": "graph order",
    "agent": "an agent's suggestion",
    "planner": "the planner's suggestion",
    "retry": "retry",
}


def line(stamped: ev.Stamped, before: RunState) -> str | None:
    """The line for an event, None for one of no interest. `before` is the run without it (any run for RunStarted).

    Raises ValueError when `before` knows the event already: what the event answers is no longer in it then.
    """
    event = stamped.event
    if not isinstance(event, ev.RunStarted) and before.seq >= stamped.seq:
        raise ValueError(f"event {stamped.seq} is in the state already")
    n = getattr(event, "n", None)
    action = before.intents.get(n) if n is not None else None
    text = _work(event, action, stamped, before) or _end(event, before)
    return f"{utc(stamped.at)}  {plain(text, max_chars=MAX_CHARS)}" if text else None


def _work(event: ev.Event, action: ac.Action | None, stamped: ev.Stamped, before: RunState) -> str | None:
    match event, action:
        case ev.Intended(action=ac.StartIteration(spec=spec, why=why)), _:
            return f"iter {spec.number} started: {spec.task}, attempt {spec.attempt}, slot {spec.slot} ({_WHY[why]})"
        case ev.Claimed(), ac.Claim():
            return f"claimed {action.task} for slot {action.slot}"
        case ev.ClaimRefused(), ac.Claim():
            return f"could not claim {action.task}: {event.reason}"
        case ev.IterationEnded(), ac.StartIteration(spec=spec):
            held = _held_back(spec.runtime, before, stamped) if event.result.failure else ""
            return f"iter {spec.number} {spec.task}: {_result(event.result)}{held}"
        case ev.Intended(action=ac.AskPlanner(number=number, runtime=runtime)), _:
            return f"batch {number}: {runtime} is asked what to start next"
        case ev.BatchPlanned(source="agent" | "planner"), _ if event.task_ids:
            return f"batch {event.number} from the {event.source}: {', '.join(event.task_ids)}"
        case ev.BatchPlanned(), ac.AskPlanner():
            return f"batch {event.number}: no suggestion ({event.reason or 'the planner names none'})"
        case ev.ChainBuilt(), _:
            return _sent_back(event, before)
        case ev.GateEnded(), ac.RunGate():
            facts = apply(before, stamped).gates[action.number]
            verdict = (facts.verdict or event.verdict).replace("_", " ")
            what = "the base commit" if action.purpose == "base" else _tasks(before, action.entries)
            how = "from a kept result" if event.cached else f"in {duration(event.duration_s)}"
            reason = f" ({event.reason})" if event.reason and verdict != "passed" else ""
            return f"gate {action.number} {verdict} {how}{reason}: {what}"
        case ev.Landed(), ac.Land():
            return f"landed {_tasks(before, action.entries)} as {action.new[:12]}"
        case ev.Delivered(), ac.Deliver():
            return f"delivered {event.commit[:12]} to {action.branch}"
        case ev.TaskClosed(), ac.CloseTask() if before.records[action.task].phase == "accepted":
            return f"closed {action.task} without change: {before.records[action.task].summary or 'none was needed'}"
        case ev.TaskReleased(), ac.ReleaseTask() if before.records[action.task].then not in ("parked", "withdrawn"):
            return f"returned {action.task}"
        case ev.BugFiled(), ac.FileBug():
            return f"parked {action.task} ({action.kind}), bug {event.bug}: {before.records[action.task].reason}"
        case _:
            return None


def _end(event: ev.Event, before: RunState) -> str | None:
    match event:
        case ev.RunStarted():
            policy = event.policy
            gate = f"gate from {policy.gate.origin or 'the configuration'}" if policy.gate.commands else "no gate"
            return (
                f"run {event.run_id} started: base {event.base[:12]}, scope {scope_text(policy.scope)}, "
                f"jobs {policy.jobs}, {gate}"
            )
        case ev.Resumed():
            onto = f", to deliver to {event.onto}" if event.onto else ""
            return f"carried on{onto}{': nothing new is started' if event.settle else ''}"
        case ev.ViewFailed() | ev.TrackerWriteFailed():
            return f"tracker: {event.message}"
        case ev.Verified():
            reason = f" ({event.reason})" if event.reason and event.verdict != "passed" else ""
            return f"verify {event.verdict.replace('_', ' ')} in {duration(event.duration_s)}{reason}"
        case ev.LaunchMoved():
            return f"the launch branch moved to {event.tip[:12]}: it is merged and gated first"
        case ev.LandRefused():
            return f"the integration branch was moved to {event.tip[:12]} by somebody else"
        case ev.DeliveryRefused():
            return f"delivery refused: {event.reason}; then: loop deliver {before.run_id}"
        case ev.StopRequested():
            how = "what runs is ended" if event.how == "now" else "what runs may finish"
            return f"asked to stop ({event.by}): {how}"
        case ev.Stopping():
            return f"stopping: {event.reason}" + (f" ({event.detail})" if event.detail else "")
        case ev.Noticed():
            about = f"iter {', '.join(map(str, event.iterations))}: " if event.iterations else ""
            return f"notice: {about}{event.text}"
        case ev.RunEnded():
            return f"run {before.run_id} ended with exit code {event.exit_code}"
        case _:
            return None


def _result(result: IterationResult) -> str:
    tokens = f"{result.usage.total:,} tokens" if result.usage else "unknown tokens"
    cost = f", ${result.cost_usd:.2f}" if result.cost_usd is not None else ""
    outcome = result.outcome.replace("_", " ")
    failure = f" ({result.failure})" if result.failure else ""
    message = f": {result.message}" if result.message and result.outcome in ("failed", "blocked") else ""
    return f"{outcome}{failure} in {duration(result.duration_s)}, {tokens}{cost}{message}"


def _held_back(runtime: str, before: RunState, stamped: ev.Stamped) -> str:
    """How the run goes on without the runtime that has just reached a limit."""
    state = apply(before, stamped)
    health, earlier = runtime_choice.health_of(state, runtime), runtime_choice.health_of(before, runtime)
    if health.until is None or health.until == earlier.until:
        return ""
    until = "" if health.is_broken else f" until {utc(health.until)}"
    other = runtime_choice.choose(state, state.now)
    return f"; {runtime} is held back{until}" + (f", {other} takes over" if other else "")


def _sent_back(event: ev.ChainBuilt, before: RunState) -> str | None:
    said = [
        *(f"{_tasks(before, (b.number,))} conflicts in {', '.join(b.files) or b.reason}" for b in event.conflicts),
        *(f"{_tasks(before, (b.number,))} was refused: {b.reason}" for b in event.refused),
        *(f"{_tasks(before, (b.number,))} was withdrawn: {b.reason}" for b in event.withdrawn),
    ]
    return "; ".join(said) or None


def _tasks(before: RunState, entries: tuple[int, ...]) -> str:
    names = ("the launch branch" if n == LAUNCH else before.iterations[n].spec.task for n in entries)
    return ", ".join(names) or "the integration tip"
