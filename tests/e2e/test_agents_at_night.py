"""What real agent CLIs meet at two in the morning: each night against the scripted model server, through `loop run`."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.aftermath import Aftermath, backlog, fates
from tests.support.fake_llm import FakeLLM
from tests.support.project import Done, Project, marked_processes, wait_until

CLAUDE = os.environ.get("HEW_LOOP_CLAUDE_BIN") or shutil.which("claude")
CODEX = os.environ.get("HEW_LOOP_CODEX_BIN") or shutil.which("codex")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.agent_cli,
    pytest.mark.skipif(CLAUDE is None, reason="the claude CLI is not on PATH (npm install @anthropic-ai/claude-code)"),
]
needs_codex = pytest.mark.skipif(CODEX is None, reason="the codex CLI is not on PATH (npm install @openai/codex)")

PROVIDER = """\
model = "gpt-5-codex"
model_provider = "fake"
[model_providers.fake]
name = "fake"
base_url = "{url}/v1"
wire_api = "responses"
env_key = "FAKE_KEY"
"""
ANSWER = 'Done.\n```loop_result\n{"status": "done", "summary": "wrote it"}\n```'
# With so long a wait named claude gives up at once, and codex waits; with none named codex gives up at once.
LIMIT = {"always": True, "error": "rate_limit", "retry_after": 3600}
UNNAMED_LIMIT = {"always": True, "error": "rate_limit"}
REQUESTS = 4
"""So often claude asks in all before it gives up."""
DEAD = {"always": True, "error": "auth"}
Rule = dict[str, Any]


def work(task: str, *faults: Mapping[str, Any], of: str = "", answer: str = ANSWER, **more: Any) -> Rule:
    """The agent commits a file of the task's name, which meets `faults`, and answers. `of`: only for this CLI."""
    bash = f"echo done > {task}.txt && git add -A && git commit -qm Work"
    rule: Rule = {"match": f"id: {task}\n", "steps": [{"bash": bash, "inject": faults, **more}, {"text": answer}]}
    return {**rule, "header": ["user-agent", of]} if of else rule


@dataclass
class Night:
    project: Project
    server: FakeLLM
    env: dict[str, str]
    before: Aftermath

    def run(self, *args: str) -> Done:
        """`loop run`, and what holds after every run."""
        done = self.project.run("--no-gate", *args, **self.env)
        self.before.check()
        return done

    def asked(self, **want: Any) -> Sequence[dict[str, Any]]:
        """The requests that were made for a model."""
        return [r for r in self.server.records(**want) if r.get("proto")]


@contextmanager
def night(project: Project, *rules: Rule, **script: Any) -> Iterator[Night]:
    home = project.places / "codex"
    home.mkdir(exist_ok=True)
    with FakeLLM({"rules": rules, **script}) as server:
        (home / "config.toml").write_text(PROVIDER.format(url=server.url))
        env = {
            "ANTHROPIC_BASE_URL": server.url,
            "ANTHROPIC_API_KEY": "dummy",
            "CLAUDE_CONFIG_DIR": str(project.places / "claude"),
            "HEW_LOOP_CLAUDE_BIN": str(CLAUDE),
            "CODEX_HOME": str(home),
            "FAKE_KEY": "dummy",
            "HEW_LOOP_CODEX_BIN": str(CODEX),
        }
        yield Night(project, server, env, Aftermath.of(project))


def names(count: int) -> list[str]:
    return [chr(ord("a") + number) for number in range(count)]


def ids(count: int) -> list[str]:
    return [f"p-{name}" for name in names(count)]


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def fences(ids: Sequence[str]) -> str:
    return f"```next_iteration\n{json.dumps(ids)}\n```"


def batches(project: Project) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(project.folder().glob("batch-*.json"))]


def test_sixteen_sessions_at_once_of_which_the_server_takes_four_all_land(project: Project) -> None:
    backlog(project, *names(16))
    rules = [work(task, delay=3) for task in ids(16)]
    with night(project, *rules, limits={"concurrent": 4}) as here:
        done = here.run("--runtime", "claude", "--no-planner", "--jobs", "16")
        stats = here.server.stats()
    assert done.code == 0, done.err
    assert {f"{task}.txt" for task in ids(16)} <= project.landed_files()
    assert stats["peak"] > 4
    assert stats["counts"]["error 429"] > 0
    ends = Counter(fates(project).values())
    assert ends["landed"] == 16
    assert set(ends) <= {"landed", "rate_limit"}, "no attempt is used up"


def test_an_outage_is_waited_for_and_what_was_committed_before_it_lands(project: Project) -> None:
    backlog(project, *names(6))
    # The first two have committed when the server goes away, and find nothing left to do afterwards.
    rules = [work(task, answer="ok") for task in ids(6)]
    for rule in rules[:2]:
        rule["steps"][1]["inject"] = [{"times": REQUESTS, "error": "overloaded"}]
    with night(project, *rules) as here:
        done = here.run("--runtime", "claude", "--no-planner", "--jobs", "2")
    assert (done.code, set(project.statuses().values())) == (0, {"closed"}), done.err
    ends = fates(project)
    assert {t: end for t, end in ends.items() if end != "landed"} == {"a.1": "overloaded", "b.1": "overloaded"}
    assert {"a.2", "b.2"} < set(ends), "no attempt is used up, and none is made twice"
    one, two, third, *_ = project.iterations()
    assert at(third["started_at"]) - min(at(one["ended_at"]), at(two["ended_at"])) >= timedelta(seconds=59)
    assert "claude is held back until" in done.err


@pytest.mark.parametrize(
    ("runtime", "limit"),
    [
        ("claude", LIMIT),
        pytest.param("codex", UNNAMED_LIMIT, marks=needs_codex),
        pytest.param("codex", LIMIT, marks=needs_codex),
    ],
    ids=["claude", "codex", "codex waits"],
)
def test_a_limit_past_the_wall_budget_ends_the_run_at_once(project: Project, runtime: str, limit: Rule) -> None:
    backlog(project, *names(6))
    with night(project, *(work(task, limit) for task in ids(6))) as here:
        args = ("--runtime", runtime, "--no-planner", "--jobs", "3", "--budget-wall", "50s", "--stall-timeout", "15s")
        done = here.run(*args)
    assert (done.code, project.summary()["stop_reason"]) == (4, "all_limited"), done.err
    assert set(project.statuses().values()) == {"open"}
    assert list(fates(project).values()) == ["rate_limit"] * 3


@needs_codex
def test_what_a_limit_cut_off_is_finished_by_the_fallback_and_not_done_twice(project: Project) -> None:
    backlog(project, "a", "b")
    rules = [{**work(task), "header": ["user-agent", "claude"]} for task in ids(2)]
    for rule in rules:
        rule["steps"][1]["inject"] = [LIMIT]
    with night(project, *rules, *(work(task, answer="It is all there.") for task in ids(2))) as here:
        done = here.run("--runtime", "claude", "--fallback-runtime", "codex", "--no-planner", "--jobs", "2")
    assert (done.code, set(project.statuses().values())) == (0, {"closed"}), done.err
    assert fates(project) == {"a.1": "rate_limit", "b.1": "rate_limit", "a.2": "landed", "b.2": "landed"}
    assert project.git("log", "--format=%s").splitlines().count("Work") == 2


@needs_codex
def test_a_login_that_ends_after_ten_tasks_leaves_ten_landed_and_the_rest_to_another_agent(project: Project) -> None:
    backlog(project, *names(13))
    rules = [work(task, *([DEAD] if number >= 10 else []), of="claude") for number, task in enumerate(ids(13))]
    with night(project, *rules, *(work(task) for task in ids(13))) as here:
        done = here.run("--runtime", "claude", "--no-planner", "--jobs", "4")
        assert (done.code, project.summary()["stop_reason"]) == (69, "runtime_error"), done.err
        assert {f"{task}.txt" for task in ids(13)} & project.landed_files() == {f"{task}.txt" for task in ids(10)}
        assert Counter(project.statuses().values()) == {"closed": 10, "open": 3}
        assert Counter(fates(project).values())["auth"] <= 3
        assert "loop run --scope ready" in project.loop("summary").out
        done = here.run("--runtime", "claude", "--fallback-runtime", "codex", "--no-planner", "--jobs", "4")
    assert (done.code, set(project.statuses().values())) == (0, {"closed"}), done.err
    assert {i["runtime_used"] for i in project.iterations() if i["fate"] == "landed"} == {"codex"}


@needs_codex
def test_with_both_logins_dead_the_run_stops_after_one_start_for_each_slot(project: Project) -> None:
    backlog(project, *names(5))
    with night(project, *(work(task, DEAD) for task in ids(5))) as here:
        done = here.run("--runtime", "claude", "--fallback-runtime", "codex", "--no-planner", "--jobs", "2")
    assert (done.code, set(project.statuses().values())) == (69, {"open"}), done.err
    assert set(fates(project).values()) == {"auth"}
    assert len(project.iterations()) <= 4
    assert "claude: auth" in project.summary()["stop_detail"]


def claude_of(project: Project, task: str) -> int:
    """The process id of the agent itself; other tests at this moment have tasks of the same name."""
    for pid in marked_processes(str(project.places)):
        place = Path(f"/proc/{pid}")
        is_of_task = f"HEW_TASK_ID={task}".encode() in (place / "environ").read_bytes().split(b"\0")
        if is_of_task and b"stream-json" in (place / "cmdline").read_bytes():
            return pid
    raise AssertionError(f"no claude works on {task}")


def test_a_stream_that_stalls_and_a_cli_that_is_killed_cost_one_attempt_each_and_leave_nothing(
    project: Project,
) -> None:
    backlog(project, "a", "b", "c")
    stalled = {"stall": 300, "where": "stream"}
    left = [{"bash": "(sleep 300 &) ; echo > $PLACES/here ; sleep 300"}]
    killed = {"match": "id: p-b\n", "runs": [left, work("p-b")["steps"]]}
    with night(project, work("p-a", stalled), killed, work("p-c")) as here:
        running = project.spawn(
            *("run", "--scope", "ready", "--runtime", "claude", "--no-gate", "--no-planner", "--jobs", "3"),
            *("--stall-timeout", "20s"),
            **here.env,
        )
        wait_until((project.places / "here").exists, timeout_s=60)
        os.kill(claude_of(project, "p-b"), signal.SIGKILL)
        said, _ = running.communicate(timeout=120)
        here.before.check()
    assert running.returncode == 0, said
    assert {"p-a.txt", "p-b.txt", "p-c.txt"} <= project.landed_files()
    assert fates(project) == {"a.1": "stalled", "b.1": "killed", "c.1": "landed", "a.2": "landed", "b.2": "landed"}
    assert "outlived the agent" in said


def test_a_model_that_nobody_knows_stops_the_run_or_is_replaced(project: Project) -> None:
    one = project.add("One", "-p", "0", "-l", "model:claude-sonnet-4-5")
    two = project.add("Two", "-p", "1", "-l", "model:no-such-model")
    with night(project, work(one), work(two), models=["claude-sonnet-4-5"]) as here:
        done = here.run("--runtime", "claude", "--no-planner")
        assert (done.code, project.statuses()) == (69, {one: "closed", two: "open"}), done.err
        assert "no-such-model" in project.summary()["stop_detail"]
        project.config('model.fallback = "claude-sonnet-4-5"\n')
        project.git("commit", "-qam", "Name a model to fall back to")
        here.before = Aftermath.of(project)
        done = here.run("--runtime", "claude", "--no-planner")
    assert (done.code, project.statuses()) == (0, {one: "closed", two: "closed"}), done.err
    assert [i["model"] for i in project.iterations()] == ["no-such-model", "claude-sonnet-4-5"]


def test_claude_as_the_planner_names_what_it_likes_and_changes_and_reads_nothing(project: Project) -> None:
    backlog(project, *names(7), z=["p-g"])
    reads = [
        {"bash": "touch $PLACES/was-here"},
        {"tool": {"name": "Read", "input": {"file_path": "/etc/passwd"}}},
        {"text": fences(["p-z", "p-nope", "p-a", "../../etc", "p-f", "x" * 5000])},
    ]
    plans = {"match": '"startable"', "steps": reads}
    with night(project, plans, *(work(task) for task in [*ids(7), "p-z"])) as here:
        done = here.run("--runtime", "claude", "--jobs", "2")
    assert (done.code, set(project.statuses().values())) == (0, {"closed"}), done.err
    first = batches(project)[0]
    assert (first["source"], first["task_ids"]) == ("planner", ["p-z", "p-a", "p-f"])
    assert first["planner_tokens"]["output"] > 0
    starts = [(e["action"]["spec"]["task"], e["action"]["why"]) for e in project.events("start_iteration")]
    assert ("p-f", "planner") in starts
    assert not (project.places / "was-here").exists()
    output = (project.folder() / "planner-001" / "output.log").read_text()
    assert "root:" not in output
    assert "planner" in {row["runtime"] for row in project.summary()["models"]}


def test_a_planner_that_never_answers_or_is_limited_is_waited_for_once(tmp_path: Path) -> None:
    silent = {"stall": 300, "always": True}
    for name, fault, reason in (("silent", silent, "cancelled"), ("limited", LIMIT, "rate_limit")):
        project = Project(tmp_path / name, config="planner.wait_s = 2")
        backlog(project, *names(6))
        plans = {"match": '"startable"', "steps": [{"text": fences([]), "inject": [fault]}]}
        with night(project, plans, *(work(task) for task in ids(6))) as here:
            done = here.run("--runtime", "claude", "--jobs", "2")
            questions = len(here.asked(key='"startable"'))
        assert (done.code, set(project.statuses().values())) == (0, {"closed"}), done.err
        assert questions <= 3
        assert reason in batches(project)[0]["reason"]
        assert set(fates(project).values()) == {"landed"}
