"""Ask the planner: one small agent process that suggests what to start next. Whatever goes wrong, it only skips."""

from __future__ import annotations

from functools import partial

from hew_loop.core import actions as ac
from hew_loop.core import events as ev
from hew_loop.core.agent_answer import parse_answer
from hew_loop.core.iteration import AgentReport
from hew_loop.core.planner_prompt import PlannerPrompt, build_planner_prompt, candidates
from hew_loop.core.state import RunState
from hew_loop.engine.agent_process import Bounds, run_agent
from hew_loop.engine.context import RunContext
from hew_loop.engine.worker import in_thread
from hew_loop.errors import HewError, TrackerError
from hew_loop.runtimes.base import AgentRequest

MAX_OUTPUT_BYTES = 4 * 1024 * 1024
NO_BLOCK = "parse_error: planner response missing next_iteration block"


async def ask(context: RunContext, state: RunState, n: int, action: ac.AskPlanner) -> ev.BatchPlanned:
    """The batch plan, with hew's reason strings for one that is skipped. Its prompt and output stay in the run folder.

    Raises nothing for what a planner does: it can neither starve the run nor end it.
    """
    began = context.clock()
    try:
        prompt = await _prompt(context, state)
        budget = context.policy.planner.budget_tokens
        if prompt.tokens > budget:
            return _skipped(n, action, f"budget_exceeded: estimated {prompt.tokens} tokens > budget {budget}")
        report = await _run(context, action, prompt)
    except (HewError, OSError) as error:
        return _skipped(n, action, f"runtime_error: {error}")
    # One that was never started has used nothing, and that is known.
    took_s = None if report.failure == "spawn_error" else (context.clock() - began).total_seconds()
    answered = partial(
        ev.BatchPlanned, action.number, after=action.after, covers=action.covers, n=n, usage=report.usage,
        cost_usd=report.cost_usd, model=report.model, took_s=took_s,
    )  # fmt: skip
    if report.failure is not None:
        said = f": {report.message[:300]}" if report.message else ""
        return answered("skipped", reason=f"runtime_error: {report.failure}{said}")
    ids = parse_answer(report.final_text).next_iteration
    if ids is None:
        return answered("skipped", reason=NO_BLOCK)
    known = state.backlog.tasks
    return answered("planner", tuple(t for t in ids if t in known), tuple(t for t in ids if t not in known))


def _skipped(n: int, action: ac.AskPlanner, reason: str) -> ev.BatchPlanned:
    return ev.BatchPlanned(action.number, "skipped", reason=reason, after=action.after, covers=action.covers, n=n)


async def _prompt(context: RunContext, state: RunState) -> PlannerPrompt:
    ids = candidates(state, context.clock())
    bare = build_planner_prompt(state, ids, {})
    if bare.tokens > context.policy.planner.budget_tokens:
        return bare  # too big even without the descriptions: they need not be read
    try:
        async with context.tracker_lock:
            briefs = await in_thread(context.tracker.briefs, ids)
    except TrackerError:
        return bare
    return build_planner_prompt(state, ids, briefs)


async def _run(context: RunContext, action: ac.AskPlanner, prompt: PlannerPrompt) -> AgentReport:
    """Outside of the repository, so that it finds no project there to read or to change."""
    settings = context.policy.planner
    folder = context.folder.planner(action.number)
    place = context.pool.root / ".planner"
    prompt_file = folder / "prompt.md"

    def prepare() -> None:
        folder.mkdir(parents=True, exist_ok=True)
        place.mkdir(parents=True, exist_ok=True)
        prompt_file.write_text(prompt.text, encoding="utf-8")

    await in_thread(prepare)
    request = AgentRequest("planner", prompt.text, prompt_file, place, settings.model, purpose="plan")
    report, _ = await run_agent(
        context.runtimes[action.runtime],
        request,
        env={**context.env, "HEW_PROMPT_FILE": str(prompt_file)},
        log=folder / "output.log",
        mark=context.mark(f"planner-{action.number}"),
        bounds=Bounds(settings.timeout_s, settings.timeout_s, MAX_OUTPUT_BYTES),
        stop=context.stop_planner,
    )
    return report
