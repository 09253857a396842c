"""The tick: take events, journal and apply them, decide, journal the intents, act. One writer, so no locks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import anyio
from anyio.abc import TaskGroup

from hew_loop.core import actions as ac
from hew_loop.core import events as ev
from hew_loop.core.dispatcher import decide, next_wake
from hew_loop.core.state import RunState
from hew_loop.core.transitions import apply
from hew_loop.engine import stops
from hew_loop.engine.context import RunContext
from hew_loop.engine.journal import Journal
from hew_loop.engine.perform import perform

EVENTS = (ev.BatchPlanned, ev.Stopping, ev.Suspended, ev.RunEnded)
"""What `decide` may say that has no effect outside: it goes straight into the journal."""


class Observer(Protocol):
    """Listens; called after each event with the states before and behind it. Must not raise nor block for long."""

    def __call__(self, stamped: ev.Stamped, before: RunState, state: RunState) -> None: ...


@dataclass
class Loop:
    context: RunContext
    journal: Journal
    state: RunState
    observers: Sequence[Observer] = ()

    def __post_init__(self) -> None:
        self._post, self._inbox = anyio.create_memory_object_stream[ev.Event](math.inf)

    async def run(self) -> RunState:
        """Drive the run to its RunEnded event. Raises what ends the program: a full disk, or a bug."""
        async with anyio.create_task_group() as group, self._post, self._inbox:
            await group.start(stops.watch_signals, self.post)
            group.start_soon(stops.watch_stop_file, self.context.folder.stop_file, self.post)
            self._act(group)
            while not (self.state.ended or self.state.suspended):
                for event in await self._events():
                    self._take(event)
                self._act(group)
            group.cancel_scope.cancel()
        return self.state

    def post(self, event: ev.Event) -> None:
        self._post.send_nowait(event)

    async def _events(self) -> list[ev.Event]:
        """The next event and all that wait behind it; none when it is time to decide again."""
        wake = next_wake(self.state, self.context.clock())
        timeout_s = math.inf if wake is None else max((wake - self.context.clock()).total_seconds(), 0.0)
        events: list[ev.Event] = []
        with anyio.move_on_after(timeout_s):
            events.append(await self._inbox.receive())
        while self._inbox.statistics().current_buffer_used:
            events.append(self._inbox.receive_nowait())
        return events

    def _take(self, event: ev.Event) -> None:
        stamped = self.journal.append(event)
        before, self.state = self.state, apply(self.state, stamped)
        if self.state.stop_now:
            self.context.stop_now.set()
        if self.state.stopping:
            self.context.stop_planner.set()
        for observer in self.observers:
            observer(stamped, before, self.state)

    def _act(self, group: TaskGroup) -> None:
        """Follow the rules until they say nothing more; what they intend is on the disk before it is begun."""
        begun: list[tuple[int, ac.Action]] = []
        while decisions := decide(self.state, self.context.clock()):
            for decision in decisions:
                if isinstance(decision, EVENTS):
                    self._take(decision)
                else:
                    begun.append((self.state.next_n, decision))
                    self._take(ev.Intended(self.state.next_n, decision))
        self.journal.sync()
        for n, action in begun:
            group.start_soon(self._perform, n, action)

    async def _perform(self, n: int, action: ac.Action) -> None:
        self.post(await perform(self.context, self.state, n, action))
