"""Perform one action and say how it ended, as exactly one event."""

from __future__ import annotations

from dataclasses import replace

from hew_loop.core import actions as ac
from hew_loop.core import events as ev
from hew_loop.core import retry, touch
from hew_loop.core.iteration import IterationResult
from hew_loop.core.model_choice import choose_model
from hew_loop.core.prompt import LandedDependency, PromptInput
from hew_loop.core.state import RunState
from hew_loop.core.task import TaskText
from hew_loop.engine import landing, planning, tracking
from hew_loop.engine.context import RunContext
from hew_loop.engine.worker import in_thread
from hew_loop.errors import HewError, TrackerError
from hew_loop.executors.base import WorkOrder


async def perform(context: RunContext, state: RunState, n: int, action: ac.Action) -> ev.Event:
    """Expected failures come back as events; any other exception is a bug and ends the program."""
    match action:
        case ac.ReadTasks():
            return await tracking.read_tasks(context, state, n)
        case ac.Claim():
            return await tracking.claim(context, n, action)
        case ac.CloseTask():
            return await tracking.close(context, n, action)
        case ac.ReleaseTask():
            return await tracking.release(context, n, action)
        case ac.FileBug():
            return await tracking.file_bug(context, n, action)
        case ac.Remember():
            return await tracking.remember(context, n, action)
        case ac.AskPlanner():
            return await planning.ask(context, state, n, action)
        case ac.StartIteration():
            return ev.IterationEnded(n, await _iterate(context, state, action))
        case ac.Deliver():
            return await landing.deliver(context, n, action)
        case ac.Verify():
            try:
                return await landing.verify(context, n, action)
            except (HewError, OSError) as error:
                return ev.Verified(n, "could_not_run", str(error))
        case ac.BuildChain() | ac.RunGate() | ac.Land():
            try:
                return await _integrate(context, state, n, action)
            except (HewError, OSError) as error:
                return ev.IntegrationFailed(n, str(error))


async def _integrate(
    context: RunContext, state: RunState, n: int, action: ac.BuildChain | ac.RunGate | ac.Land
) -> ev.Event:
    match action:
        case ac.BuildChain():
            return await landing.build_chain(context, state, n, action)
        case ac.RunGate():
            return await landing.run_gate(context, state, n, action)
        case ac.Land():
            return await landing.land(context, state, n, action)


async def _iterate(context: RunContext, state: RunState, action: ac.StartIteration) -> IterationResult:
    spec = action.spec
    try:
        async with context.tracker_lock:
            text = await in_thread(_text_for, context, spec.task, spec.actor)
    except TrackerError as error:
        return IterationResult(
            "failed", "worktree_broken", f"the task cannot be read: {error.message}", start=spec.base
        )
    if isinstance(text, str):
        return IterationResult("failed", "withdrawn", text, start=spec.base)
    prompt = PromptInput(
        task=text,
        base=spec.base,
        attempt=spec.attempt,
        primer=context.primer,
        skill=context.skill,
        dependencies=_landed_dependencies(state, spec.task),
        evidence=spec.evidence,
    )
    model = spec.model
    if model is None and spec.runtime == context.policy.runtime:  # the names of models are the first runtime's
        model = choose_model(
            context.policy.model,
            description=text.description,
            labels=text.task.labels,
            priority=text.task.priority,
            type=text.task.type,
        )
    order = WorkOrder(spec, prompt, model, cut_off=_was_cut_off(state, spec.carry))
    result = await context.executor.run(order, context.stop_now)
    return result if result.model or model is None else replace(result, model=model)


def _was_cut_off(state: RunState, head: str | None) -> bool:
    results = (i.result for i in state.iterations.values() if i.result is not None and head is not None)
    return any(r.head == head and r.failure and retry.row(r.failure).then in ("later", "run") for r in results)


def _text_for(context: RunContext, task_id: str, actor: str) -> TaskText | str:
    """The task as it is now, or why a person does not want it worked on any more."""
    found = context.tracker.show(task_id)
    if found is None:
        return "it was deleted"
    if found.task.is_closed:
        # Its last attempt closed it and did not land.
        context.tracker.reopen(task_id, "closed by its agent, but its work has not landed")
        if why := context.tracker.claim(task_id, actor):
            return why
    elif found.task.status == "deferred":
        return "a person deferred it"
    elif found.task.assignee not in ("", actor):
        return f"it was assigned to {found.task.assignee}"
    return found


def _landed_dependencies(state: RunState, task_id: str) -> tuple[LandedDependency, ...]:
    told: list[LandedDependency] = []
    for dependency in sorted(state.backlog.dependencies(task_id)):
        record, task = state.records.get(dependency), state.backlog.tasks.get(dependency)
        if record is None or task is None or not record.iterations:
            continue
        told.append(LandedDependency(dependency, task.title, record.summary, touch.changed(state, record)))
    return tuple(told)
