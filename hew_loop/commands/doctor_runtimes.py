"""What `loop doctor` says of the agents: their programs, logins, memory for `--jobs`, prices, and a sandbox's reach."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Literal

from hew_loop import config, process, wiring
from hew_loop.core.policy import Policy
from hew_loop.core.secrets import masked, secret_values
from hew_loop.engine.checkup import Finding, checked
from hew_loop.repo.git import Git
from hew_loop.repo.worktrees import Pool
from hew_loop.runtimes.installed import INSTALLED, Installed, available_mib
from hew_loop.runtimes.logins import Login, Place

VERSION_TIMEOUT_S = 20.0
_MEMINFO = Path("/proc/meminfo")
_GIB = 1024.0
_TRY_ONE = "try it on one task first: loop run --task ID"

Role = Literal["run", "fallback", "planner"]


@dataclass(frozen=True, slots=True)
class Probe:
    """One runtime as it is on this machine. `facts` None: a command of the user's, of which nothing is known."""

    name: str
    program: str
    is_there: bool
    facts: Installed | None
    version: str = ""
    """Empty also where it was not asked."""
    problem: str = ""
    """Why there is no version."""

    @property
    def was_tried(self) -> bool:
        if self.facts is None or not self.version:
            return True
        major, minor, patch = map(int, self.version.split("."))
        return self.facts.was_tried((major, minor, patch))


def agent_findings(policy: Policy, git: Git | None) -> Iterator[Finding]:
    """Everything about agents; `git` None outside of a repository."""
    root = git.root if git else Path.cwd()
    probes: dict[str, Probe] = {}
    place = Place(os.environ, Path.home(), root, is_mac=sys.platform == "darwin")

    def look() -> Iterator[Finding]:
        probes.update(_probes(policy, root))
        yield from _wrong_names(policy, probes)
        roles = roles_of(policy)
        for name, probe in probes.items():
            if name in roles:
                yield from _in_use(probe, roles[name], place)
            else:
                yield _not_in_use(probe, place)

    yield from checked("runtimes", look)
    yield from checked("memory", lambda: memory_findings(policy, _free_mib()))
    yield from checked("prices", partial(price_findings, policy))
    if git is not None:
        yield from checked("sandbox", partial(sandbox_findings, policy, git))


def roles_of(policy: Policy) -> dict[str, Role]:
    """The runtimes that a run would start, each with the first of its roles."""
    roles: dict[str, Role] = {policy.runtime: "run"}
    if policy.fallback_runtime:
        roles.setdefault(policy.fallback_runtime, "fallback")
    if policy.planner_runtime:
        roles.setdefault(policy.planner_runtime, "planner")
    return roles


def memory_findings(policy: Policy, free_mib: float | None) -> Iterator[Finding]:
    """Half of the free memory is left to what the agents build and test (RT-41)."""
    peaks = {n: facts.peak_mib for n in _workers(policy) if (facts := _facts(policy, n)) is not None}
    if not peaks:
        yield Finding("memory", "ok", f"what {policy.runtime} takes is not known; try --jobs 2 and look")
        return
    name = max(peaks, key=lambda n: peaks[n])
    needed = policy.jobs * peaks[name]
    amount = f"{policy.jobs} x {name} takes up to {needed / _GIB:.1f} GiB"
    if free_mib is None:
        yield Finding("memory", "ok", f"{amount}; how much is free is not known on this system")
        return
    free = f"{free_mib / _GIB:.1f} GiB that are free"
    if needed <= free_mib / 2:
        yield Finding("memory", "ok", f"{amount} of the {free}; builds and tests come on top")
        return
    fewer = max(1, int(free_mib / 2 // peaks[name]))
    fix = f"loop config set loop.jobs {fewer}, or: loop run -j {fewer}"
    if fewer >= policy.jobs:
        fix = "end what else takes memory: ps -e -o rss,pid,args --sort=-rss | head"
    text = f"{amount}, more than half of the {free}: too little is left for builds and tests"
    yield Finding("memory", "warn", text, fix)


def price_findings(policy: Policy) -> Iterator[Finding]:
    """A budget of money needs a cost: what has none counts as configured, which is a guess (RT-17)."""
    if policy.budget_usd is None:
        return
    guess = f"each of its iterations counts ${policy.unknown_usd:.2f} against the budget of ${policy.budget_usd:g}"
    for name in roles_of(policy):
        facts = _facts(policy, name)
        if facts is None:
            text = f"{name} tells neither tokens nor cost: {guess}"
            yield Finding("prices", "ok", text, "loop config set loop.unknown_usd USD")
        elif not facts.tells_cost:
            yield from _prices_of(policy, name, facts, guess)


def _prices_of(policy: Policy, name: str, facts: Installed, guess: str) -> Iterator[Finding]:
    models, priced = _models(policy, name), dict(policy.prices)
    line = 'prices = [{{ model = "{}", input = USD, output = USD }}]'
    if missing := sorted(model for model in models if model and model not in priced):
        text = f"{name} tells no cost, and loop.prices has none for {', '.join(missing)}: {guess}"
        yield Finding("prices", "warn", text, f"in .hew.toml, [loop]: {line.format(missing[0])}, for a million tokens")
    elif None in models and not (facts.tells_model and priced):
        text = f"{name} tells no cost, and which model it uses is not known"
        key = models[None]
        set_both = f'in .hew.toml: {key} = "MODEL", and in [loop]: {line.format("MODEL")}'
        fix = set_both if key else "loop config set loop.unknown_usd USD"
        yield Finding("prices", "warn", f"{text}{f', since {key} is not set' if key else ''}: {guess}", fix)
    else:
        yield Finding("prices", "ok", f"{name} tells no cost: it is estimated from loop.prices")


def _models(policy: Policy, name: str) -> dict[str | None, str]:
    """The models that a runtime is started with; for None, its own, the key that would name one, if there is one."""
    found: dict[str | None, str] = {}
    if name == policy.fallback_runtime:  # the names of models are the first runtime's
        found[None] = ""
    if name == policy.planner_runtime:
        found[policy.planner.model] = "loop.planner.model"
    if name == policy.runtime:
        models = policy.model
        by_task = () if models.forced else (*dict(models.by_priority).values(), *dict(models.by_type).values())
        named = (models.forced or models.default, *by_task, *((models.fallback,) if models.fallback else ()))
        found |= dict.fromkeys(named, "loop.model.default")
    return found


def sandbox_findings(policy: Policy, git: Git) -> Iterator[Finding]:
    """What an agent reaches in spite of its sandbox (RT-39)."""
    names = [n for n in _workers(policy) if (facts := _facts(policy, n)) is not None and facts.is_sandboxed]
    if not names:
        return
    name = names[0]
    text = (
        f"{name}: to commit, its sandbox may write all of {git.common_dir}: hooks, configuration and every ref. "
        "loop runs its own git without hooks, moves refs by compare-and-swap, and says so when an agent changed the "
        "configuration or the hooks"
    )
    yield Finding("sandbox", "ok", text)
    root = Pool.default_root(git).resolve()
    temporary = {Path(path).resolve() for path in ("/tmp", os.environ.get("TMPDIR") or "/tmp")}
    if any(root.is_relative_to(folder) for folder in temporary):
        text = f"{name}: its sandbox may write temporary directories, and with {root} the worktrees of all slots"
        yield Finding("sandbox", "warn", text, 'export HEW_WORKTREE_ROOT="$HOME/.cache/hew-loop"')


def _free_mib() -> float | None:
    return available_mib(_MEMINFO.read_text()) if _MEMINFO.is_file() else None


def _workers(policy: Policy) -> list[str]:
    """The runtimes that work on tasks."""
    return [name for name, role in roles_of(policy).items() if role != "planner"]


def _facts(policy: Policy, name: str) -> Installed | None:
    """Also None for a built-in name that a table of the configuration has taken."""
    return None if any(settings.name == name for settings in policy.runtimes) else INSTALLED.get(name)


def _probes(policy: Policy, root: Path) -> dict[str, Probe]:
    """All at a time: some take seconds to tell their version."""
    programs = {name: wiring.agent_program(runtime, root) for name, runtime in wiring.make_runtimes(policy).items()}
    with ThreadPoolExecutor(max_workers=max(1, len(programs))) as pool:
        asked = [pool.submit(_probe, name, program, _facts(policy, name), root) for name, program in programs.items()]
        return {probe.name: probe for probe in (each.result() for each in asked)}


def _probe(name: str, program: str, facts: Installed | None, root: Path) -> Probe:
    where = str(root / program) if "/" in program else program
    if shutil.which(where) is None or facts is None:
        return Probe(name, program, shutil.which(where) is not None, facts)
    env = process.child_environment(dict(facts.version_env))
    done = process.run((program, "--version"), cwd=root, env=env, timeout_s=VERSION_TIMEOUT_S)
    found = re.search(r"\d+\.\d+\.\d+", done.text())
    if done.ok and found is not None:
        return Probe(name, program, is_there=True, facts=facts, version=found[0])
    said = "it did not answer in time" if done.timed_out else done.error or repr(done.text()[:200])
    return Probe(name, program, is_there=True, facts=facts, problem=masked(said, secret_values(env)))


def _wrong_names(policy: Policy, probes: dict[str, Probe]) -> Iterator[Finding]:
    """What a run refuses."""
    named = {"": policy.runtime, "fallback-": policy.fallback_runtime, "planner-": policy.planner.runtime}
    for option, name in named.items():
        if name is not None and name not in probes:
            fix = f"loop run --{option}runtime {config.nearest(name, probes)}"
            yield Finding("runtimes", "error", f"there is no runtime {name!r} for --{option}runtime", fix)
    if policy.fallback_runtime == policy.runtime:
        text = f"the fallback runtime is {policy.runtime} itself"
        yield Finding("runtimes", "error", text, "loop run --fallback-runtime NAME")


def _in_use(probe: Probe, role: Role, place: Place) -> Iterator[Finding]:
    name, program, facts = probe.name, probe.program, probe.facts
    without = {
        "run": "or name another: loop run --runtime NAME",
        "fallback": "or name another: loop run --fallback-runtime NAME",
        "planner": "or: loop run --no-planner",
    }[role]
    if not probe.is_there:
        text = f"{name}: the program {program!r} is not there{_as(role)}"
        yield Finding("runtimes", _gravity(role), text, f"{facts.install if facts else 'install it'}, {without}")
        return
    if probe.problem:
        text = f"{name}: `{program} --version` does not tell a version{_as(role)}: {probe.problem}"
        yield Finding("runtimes", _gravity(role), text, f"{quote(program)} --version, {without}")
    elif facts is None or probe.was_tried:
        yield Finding("runtimes", "ok", f"{name}: {program} {probe.version}".rstrip() + _as(role))
    else:
        oldest, newest = (".".join(map(str, each)) for each in facts.recorded)
        tried = f"{oldest} to {newest} were" if oldest != newest else f"{newest} was"
        text = f"{name}: {program} {probe.version} was never tried with this loop; {tried}"
        yield Finding("runtimes", "warn", text, _TRY_ONE)
    if facts is not None:
        yield _login_finding(name, facts, facts.login(place))


def _login_finding(name: str, facts: Installed, login: Login) -> Finding:
    match login.state:
        case "present":
            return Finding("login", "ok", f"{name}: there is a login: {login.where}")
        case "unknown":
            text = f"{name}: whether there is a login is not known: {login.where}"
            return Finding("login", "ok", text, facts.asks_login)
        case "absent":
            text = f"{name}: no login was found (looked at: {login.where})"
            return Finding("login", "warn", text, login.fix or facts.log_in)


def _not_in_use(probe: Probe, place: Place) -> Finding:
    if not probe.is_there:
        return Finding("runtimes", "ok", f"{probe.name}: not in use; the program {probe.program!r} is not there")
    said = f" {probe.version}" if probe.version else ""
    said += "" if probe.was_tried else ", never tried with this loop"
    said += ", which does not tell a version" if probe.problem else ""
    if probe.facts is not None:
        state = probe.facts.login(place).state
        said += {"present": ", with a login", "absent": ", no login found", "unknown": ", login not known"}[state]
    return Finding("runtimes", "ok", f"{probe.name}: not in use; {probe.program}{said}")


def _gravity(role: Role) -> Literal["warn", "error"]:
    """A run cannot begin without its agents; without its planner it can."""
    return "warn" if role == "planner" else "error"


def _as(role: Role) -> str:
    return "" if role == "run" else f" (the {role})"
