"""`startup`: what `loop` adds to one agent's wall time, before its first request and from its end to the next start."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from statistics import median

from benchmarks.ground import Ground, ground, task
from benchmarks.measure import Measurement, shown
from hew_loop.runtimes.base import AgentRequest
from hew_loop.runtimes.claude import ClaudeRuntime
from tests.support.fake_llm import FakeLLM

LIMIT_S = 0.060
MODEL = "claude-sonnet-4-5"

# Stands in for the program, in a run of ours and without one, so that both pay for it.
STAMPED = """\
#!/usr/bin/env bash
name=${{HEW_TASK_ID:-$BARE_ID}}
echo "$name began $EPOCHREALTIME" >> "{stamps}"
"{claude}" "$@"
code=$?
echo "$name ended $EPOCHREALTIME" >> "{stamps}"
exit $code
"""


def measure(*, quick: bool) -> Iterator[Measurement]:
    """The real claude on a scripted server, one at a time, without `loop` and with it in turns, in one repository."""
    claude = os.environ.get("HEW_LOOP_CLAUDE_BIN") or shutil.which("claude")
    if claude is None:
        print("startup: the claude CLI is not on PATH, so there is nothing to measure", file=sys.stderr)
        return
    count, files, rounds = (2, 50, 1) if quick else (6, 2000, 5)
    steps = [{"write": {"path": "src/{{1}}.txt", "content": "done\n"}}, {"text": "Done."}]
    # A bare one is told of the others' files, which are not committed, in front of its prompt.
    rules = [{"match_re": rf"{before}(bench-\d+x0)", "steps": steps} for before in ("(?<=Do )", "")]
    with ground(files=files) as place, FakeLLM({"rules": rules}) as server:
        times = Times(server, place.top / "stamps")
        program = place.top / "claude"
        program.write_text(STAMPED.format(stamps=times.stamps, claude=claude))
        program.chmod(0o755)
        place.env.update(
            ANTHROPIC_BASE_URL=server.url,
            ANTHROPIC_API_KEY="dummy",
            CLAUDE_CONFIG_DIR=str(place.top / "claude-config"),
            HEW_LOOP_CLAUDE_BIN=str(program),
        )
        bare = place.top / "bare"
        place.git("worktree", "add", "-q", "--detach", str(bare))
        for number in range(2):  # a first start fills caches, and makes the CLI's own files
            _bare(place, bare, program, f"bench-{90000 + number}x0")
        for turn in range(rounds):
            first = turn * count
            names = [f"bench-{50000 + number}x0" for number in range(first, first + count)]
            times.bare.append({name: _bare(place, bare, program, name) for name in names})
            place.plan([task(number) for number in range(first, first + count)])
            place.run("--jobs", "1", "--no-gate", "--no-planner", "--runtime", "claude", "--model", MODEL)
            times.runs.append(_decisions(place))
        yield from times.measurements()


@dataclass
class Times:
    """Of each turn, by task in order: when the bare program was started, and when `loop` decided to."""

    server: FakeLLM
    stamps: Path
    bare: list[dict[str, float]] = field(default_factory=list[dict[str, float]])
    runs: list[dict[str, float]] = field(default_factory=list[dict[str, float]])

    def measurements(self) -> Iterator[Measurement]:
        asked = self._first_requests()
        began, ended = self._stamped()
        decided, started = ({name: at for turn in each for name, at in turn.items()} for each in (self.runs, self.bare))
        ours, alone = (median(asked[name] - at for name, at in each.items()) for each in (decided, started))
        begun = [median(began[name] - at for name, at in each.items()) for each in (decided, started)]
        note = f"loop {shown(ours)}, bare claude {shown(alone)}; until the program begins "
        yield _added("startup, to first request", ours - alone, f"{note}{shown(begun[0])} against {shown(begun[1])}")
        gaps, alone_gaps = ([began[b] - ended[a] for a, b in _pairs(each)] for each in (self.runs, self.bare))
        ours, alone = median(gaps), median(alone_gaps)
        decision = median(decided[b] - ended[a] for a, b in _pairs(self.runs))
        note = f"loop {shown(ours)}, at best {shown(min(gaps))}, bare claude again and again {shown(alone)}; "
        note += f"until the decision {shown(decision)}"
        yield _added("startup, end to next start", ours - alone, note)

    def _first_requests(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for record in sorted(self.server.records(), key=lambda r: r["n"]):
            if record.get("key"):
                found.setdefault(record["key"], self.server.server.player.started + record["t"])
        return found

    def _stamped(self) -> tuple[dict[str, float], dict[str, float]]:
        found: dict[str, dict[str, float]] = {"began": {}, "ended": {}}
        for name, what, at in map(str.split, self.stamps.read_text().splitlines()):
            found[what][name] = float(at)
        return found["began"], found["ended"]


def _pairs(turns: list[dict[str, float]]) -> list[tuple[str, str]]:
    """Each task with the one after it."""
    return [pair for turn in turns for pair in zip(turn, list(turn)[1:], strict=False)]


def _added(name: str, added_s: float, note: str) -> Measurement:
    return Measurement(name, shown(added_s), shown(LIMIT_S), added_s / LIMIT_S, 1.0, note)


def _bare(place: Ground, tree: Path, program: Path, name: str) -> float:
    """Start it as the runtime would, and wait for its end; when it was started."""
    prompt = tree.parent / "prompt.md"
    call = ClaudeRuntime(program=str(program)).invocation(AgentRequest(name, f"Do {name}.", prompt, tree, MODEL))
    env: Mapping[str, str] = {**place.env, **dict(call.env), "BARE_ID": name}
    began = time.time()
    subprocess.run(call.argv, cwd=tree, env=env, input=call.stdin, stdout=subprocess.DEVNULL, check=True)
    return began


def _decisions(place: Ground) -> dict[str, float]:
    """Of the newest run: each task, in order, with the time at which it was decided to start it."""
    journal = (place.path / ".hew" / "loop" / "latest").resolve() / "events.jsonl"
    found: dict[str, float] = {}
    for line in journal.read_text().splitlines():
        stamped = json.loads(line)
        action = stamped["event"].get("action", {})
        if stamped["event"]["type"] == "intended" and action.get("type") == "start_iteration":
            found[action["spec"]["task"]] = datetime.fromisoformat(stamped["at"]).timestamp()
    return found
