"""What doctor makes of memory and money: rules of numbers, asked for themselves."""

from __future__ import annotations

import pytest

from hew_loop.commands.doctor_runtimes import memory_findings, price_findings
from hew_loop.core.policy import ModelSettings, PlannerSettings, Policy, Price, RuntimeSettings
from hew_loop.engine.checkup import Finding

NO_PLANNER = PlannerSettings(enabled=False)
COMMAND = RuntimeSettings("mine", ("my-agent",))


@pytest.mark.parametrize(
    ("policy", "free_mib", "level", "fix"),
    [
        (Policy(jobs=4), 1880.0, "ok", ""),
        (Policy(jobs=4), 1879.0, "warn", "loop config set loop.jobs 3, or: loop run -j 3"),
        (Policy(jobs=4), 100.0, "warn", "loop config set loop.jobs 1, or: loop run -j 1"),
        (Policy(jobs=1), 100.0, "warn", "end what else takes memory: ps -e -o rss,pid,args --sort=-rss | head"),
        (Policy(jobs=4), None, "ok", ""),
        (Policy(jobs=4, fallback_runtime="opencode"), 5199.0, "warn", "loop config set loop.jobs 3, or: loop run -j 3"),
        (Policy(jobs=64, runtime="mine", runtimes=(COMMAND,)), 100.0, "ok", ""),
    ],
)
def test_agents_may_take_half_of_the_free_memory(policy: Policy, free_mib: float | None, level: str, fix: str) -> None:
    (finding,) = memory_findings(policy, free_mib)
    assert (finding.level, finding.fix) == (level, fix)


def test_a_budget_of_money_asks_for_the_prices_of_an_agent_that_tells_no_cost() -> None:
    models = ModelSettings(default="gpt-x", by_priority=(("P0", "gpt-y"),))
    prices = (("gpt-x", Price(1, 2)), ("gpt-y", Price(1, 2)))

    def levels(**changes: object) -> list[tuple[str, str]]:
        policy = Policy(**{"budget_usd": 5.0, "planner": NO_PLANNER, **changes})  # type: ignore[arg-type]
        return [(f.level, f.text.split(":")[0]) for f in price_findings(policy)]

    assert levels(runtime="claude") == []
    assert levels(runtime="codex", budget_usd=None) == []
    unknown = "codex tells no cost, and which model it uses is not known, since loop.model.default is not set"
    assert levels(runtime="codex") == [("warn", unknown)]
    assert levels(runtime="codex", prices=prices) == [("warn", unknown)]
    missing = "codex tells no cost, and loop.prices has none for gpt-x, gpt-y"
    assert levels(runtime="codex", model=models) == [("warn", missing)]
    nameless = [("warn", "codex tells no cost, and which model it uses is not known")]
    assert levels(runtime="claude", fallback_runtime="codex", model=models, prices=prices) == nameless
    assert levels(runtime="codex", model=models, prices=prices) == [("ok", "codex tells no cost")]
    assert levels(runtime="gemini", prices=prices) == [("ok", "gemini tells no cost")]
    planner = PlannerSettings(runtime="codex", model="gpt-z")
    asked = levels(runtime="claude", planner=planner, model=models, prices=prices)
    assert asked == [("warn", "codex tells no cost, and loop.prices has none for gpt-z")]
    assert levels(runtime="mine", runtimes=(COMMAND,)) == [("ok", "mine tells neither tokens nor cost")]


def test_what_is_missing_is_told_with_the_line_that_mends_it() -> None:
    policy = Policy(runtime="codex", budget_usd=5.0, planner=NO_PLANNER, model=ModelSettings(forced="gpt-x"))
    text = (
        "codex tells no cost, and loop.prices has none for gpt-x: "
        "each of its iterations counts $0.50 against the budget of $5"
    )
    line = 'in .hew.toml, [loop]: prices = [{ model = "gpt-x", input = USD, output = USD }], for a million tokens'
    assert list(price_findings(policy)) == [Finding("prices", "warn", text, line)]
