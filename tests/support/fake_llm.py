#!/usr/bin/env python3
# ruff: noqa: B904, PTH103, PTH105, PTH118, PTH120, RET503, RUF005, SIM115, UP031
# fmt: off
"""fake_llm.py - a scripted model server for testing coding-agent CLIs on loopback.

Pure standard library (3.9+), one file, threads, no state outside the process.  It
listens on 127.0.0.1 only and speaks what the real CLIs speak:

  Anthropic Messages    POST /v1/messages (SSE and not), /v1/messages/count_tokens
  OpenAI Responses      POST [/v1]/responses (SSE and not)
  OpenAI Chat           POST [/v1]/chat/completions (SSE and not)
  Google Gemini         POST /v1beta/models/M:generateContent, :streamGenerateContent
  anything else         GET /v1/models lists models, HEAD gets 200, the rest a 404 and a log line
  for tests             GET /__health, /__stats (counters), /__log (all log records),
                        POST /__reset (forget the counters), POST /__script (load a new script)

QUICK START
  python3 fake_llm.py --script play.json --port 0 --port-file port.txt --log req.jsonl
  or, from a test:
      from fake_llm import FakeLLM
      with FakeLLM({"rules": [{"match": "T-1", "steps": [{"bash": "echo hi"}, {"text": "ok"}]}]}) as s:
          ... s.url, s.records(), s.stats() ...

POINTING A CLI AT IT
  claude    ANTHROPIC_BASE_URL=http://127.0.0.1:PORT  ANTHROPIC_API_KEY=dummy
  codex     -c model_provider=fake -c 'model_providers.fake={name="fake",
            base_url="http://127.0.0.1:PORT/v1",wire_api="responses",env_key="FAKE_KEY"}'
  opencode  OPENCODE_CONFIG_CONTENT with a provider of npm "@ai-sdk/openai-compatible" or an
            "anthropic" provider whose options.baseURL is http://127.0.0.1:PORT/v1
  gemini    GOOGLE_GEMINI_BASE_URL=http://127.0.0.1:PORT  GEMINI_API_KEY=dummy
  aider     OPENAI_API_BASE=http://127.0.0.1:PORT/v1 --model openai/fake

THE SCRIPT (JSON)
  {
    "models": ["m1", "m2"],          optional: any other model answers 404 not found
    "salt": "x",                     optional: part of every generated id
    "limits": {"concurrent": 4},     optional: more at once than that answers 429
    "outages": [{"after_requests": 5, "count": 3, "error": "overloaded"},
                {"from_s": 10, "to_s": 20, "error": "rate_limit", "retry_after": 5}],
    "aux": {"text": "..."},          optional: what side requests (titles, summaries) get
    "rules": [ RULE, ... ],          the first that matches the newest prompt wins
    "default": RULE                  when none matches (without "match"); else "Done."
  }
  RULE
    "match": "T-1"       substring of a user prompt, or "match_re": "T-(\\d+)"
    "steps": [STEP...]   one per model turn; after the last, its text again (or "Done.")
    "runs": [[STEP...],  instead of steps: the 1st CLI process plays the 1st list, the 2nd
             [STEP...]]  the 2nd ... the last list repeats.  A run is a new session id, or,
                         where the CLI sends none, a new conversation after a finished one
    "loop": true         play the steps round and round (for max-turns tests)
    "model": "m"         only for requests naming this model
    "header": ["x-app", "cli"]   only for requests with this header containing this value
  STEP   any of
    "text": "final words"  or {"repeat": "abc", "count": 100000} for a huge output
    "thinking": "..."    a thinking or reasoning block first (Anthropic, Responses)
    "bash": "cmd"        one shell call, given to whichever shell tool the request offers
    "write": {"path": "a.txt", "content": "..."}   likewise for the file-writing tool; where
                         none is offered (codex) it becomes a shell call
    "tool": {"name": "Edit", "input": {...}}       a call by exact name, sent as it is
    "calls": [STEP...]   several calls in one turn
    "delay": 1.5         seconds before the answer begins
    "chunk": 40, "chunk_delay": 0.05               size and pace of the text deltas
    "stop": "max_tokens" the stop reason, in Anthropic's words (mapped to the others)
    "usage": {...}       replaces the computed numbers, key by key
    "inject": [FAULT...] the 1st request at this step gets the 1st fault, and so on; when
                         they are used up the step answers normally
  FAULT  {"times": 2, ...}  plays that often; {"always": true, ...} for ever; "per_run": true
         counts anew in each run; {} is no fault
    "error": NAME        rate_limit usage_limit overloaded auth forbidden credit server
                         unavailable gateway not_found bad_request prompt_too_long too_large
                         (names for status, type and message); or by hand:
    "status": 418, "type": "teapot", "message": "...", "body": "raw text"
    "retry_after": 3     adds retry-after (seconds; a string goes out as it is)
    "headers": {...}     more response headers
    "stall": 30          seconds of silence; "where": "connect" (before the headers, the
                         default), "headers" (after them) or "stream" (after half the
                         events).  Then it goes on, or with "then": "close" hangs up
    "truncate": 0.5      sends that share of the events, then ends.  "how": "reset" (RST),
                         "close" (FIN with no last chunk, the default) or "clean" (well
                         formed HTTP, but no closing event)
    "sse_error": {"type": "overloaded_error", "message": "..."}   an error event inside a
                         200 stream, after half the events
    "garbage": "..."     a 200 with this body
  Strings in steps and faults may hold {{match}} (what matched), {{1}}.. (regex groups),
  {{run}}, {{step}}, {{attempt}} and {{now+N}} (epoch seconds from now).

WHAT IS DETERMINISTIC
  A step is found from the conversation itself (the tool calls it holds since the newest
  matching prompt), not from arrival order, so sessions do not disturb each other and a
  restarted server goes on.  Only "inject", "runs", "limits" and "outages" count, per
  matched text.  Ids and usage depend on the script and the request alone.  A request to
  summarise a conversation (compaction) gets a summary that names what matched, and the
  session, if the CLI sends an id, goes on with its next step.

USAGE NUMBERS
  About one token for four bytes.  The first request of a session writes the cache, later
  ones read what the one before had written and add the difference; output is the length
  of what was sent.  "usage" takes input_tokens, cache_creation_input_tokens,
  cache_read_input_tokens and output_tokens, and each protocol gets them in its own shape
  (OpenAI and Gemini count the cached part inside the input).

THE LOG  one JSON object a request: n, t, proto, path, model, stream, key, rule, run, step,
  attempt, session, did ("answer", "error 429", "stall", ...), status, in_bytes, out_bytes,
  dt, gone (the client hung up).  Keys and authorization are never logged.  --dump DIR keeps
  the request bodies too.
"""
import argparse
import hashlib
import json
import os
import re
import socket
import struct
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ERRORS = {  # name: (status, anthropic type, openai code, message)
    "rate_limit": (429, "rate_limit_error", "rate_limit_exceeded",
                   "This request would exceed your organization's rate limit."),
    "usage_limit": (429, "rate_limit_error", "usage_limit_reached", "The usage limit has been reached"),
    "overloaded": (529, "overloaded_error", "server_is_overloaded", "Overloaded"),
    "auth": (401, "authentication_error", "invalid_api_key", "invalid x-api-key"),
    "forbidden": (403, "permission_error", "permission_denied", "Your API key does not have permission."),
    "credit": (400, "invalid_request_error", "insufficient_quota",
               "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing."),
    "server": (500, "api_error", "server_error", "Internal server error"),
    "unavailable": (503, "api_error", "service_unavailable", "Service unavailable"),
    "gateway": (502, "api_error", "bad_gateway", "Bad gateway"),
    "not_found": (404, "not_found_error", "model_not_found", "model: {model}"),
    "bad_request": (400, "invalid_request_error", "invalid_request", "messages: bad request"),
    "prompt_too_long": (400, "invalid_request_error", "context_length_exceeded",
                        "prompt is too long: 210000 tokens > 200000 maximum"),
    "too_large": (413, "request_too_large", "request_too_large", "Request exceeds the maximum size"),
}
STOPS = {  # anthropic: (chat, gemini)
    "end_turn": ("stop", "STOP"), "tool_use": ("tool_calls", "STOP"),
    "max_tokens": ("length", "MAX_TOKENS"), "refusal": ("content_filter", "SAFETY"),
}
SHELLS = ["Bash", "bash", "exec_command", "shell_command", "shell", "local_shell", "run_shell_command",
          "execute_command", "container.exec"]
WRITERS = ["Write", "write", "write_file", "create_file", "write_to_file"]
ID_STEP = re.compile(r"_s(\d+)n\d+_")
TITLES = ["title generator", "Generate a concise", "generates concise"]  # in the system prompt of side requests
SUMMARIES = ["CONTEXT CHECKPOINT COMPACTION", "create a detailed summary", "<state_snapshot>", "anchored summary",
             "Summarize the conversation", "summarize the conversation", "handoff summary"]  # in the newest prompt


class Gone(Exception):
    """The client hung up, or the script told us to."""


def tokens(n_bytes):
    return max(1, n_bytes // 4)


def sh_quote(s):
    return "'" + s.replace("'", "'\\''") + "'"


# ------------------------------------------------------------------ reading a request
def texts_of(content):
    """Plain texts in a message content, tool results left out."""
    if isinstance(content, str):
        return [content]
    out = []
    for b in content or []:
        if isinstance(b, str):
            out.append(b)
        elif isinstance(b, dict) and isinstance(b.get("text"), str) \
                and b.get("type", "text") in ("text", "input_text", "output_text"):
            out.append(b["text"])
    return out


def conversation(proto, body):
    """[(role, text, ids)], role being user, assistant or tool; ids of the calls in it."""
    turns = []
    if proto == "anthropic":
        for m in body.get("messages") or []:
            content = m.get("content")
            blocks = content if isinstance(content, list) else []
            ids = [b["id"] for b in blocks if isinstance(b, dict) and b.get("type") == "tool_use"]
            text = "\n".join(texts_of(content))
            role = m.get("role")
            if role == "user" and not text:
                role = "tool"
            turns.append((role, text, ids))
    elif proto == "responses":
        items = body.get("input")
        if isinstance(items, str):
            items = [{"type": "message", "role": "user", "content": items}]
        for it in items or []:
            kind = it.get("type", "message")
            if kind == "message":
                turns.append((it.get("role", "user"), "\n".join(texts_of(it.get("content"))), []))
            elif kind.endswith("_output"):
                turns.append(("tool", "", []))
            elif kind.endswith("_call"):
                turns.append(("assistant", "", [it.get("call_id") or it.get("id") or ""]))
    elif proto == "chat":
        for m in body.get("messages") or []:
            ids = [c.get("id") or "" for c in m.get("tool_calls") or []]
            turns.append((m.get("role"), "\n".join(texts_of(m.get("content"))), ids))
    elif proto == "gemini":
        for m in body.get("contents") or []:
            parts = m.get("parts") or []
            role = {"model": "assistant"}.get(m.get("role"), "user")
            ids = [p["functionCall"].get("id") or "" for p in parts if "functionCall" in p]
            text = "\n".join(p["text"] for p in parts if isinstance(p.get("text"), str))
            if any("functionResponse" in p for p in parts):
                role, text = "tool", ""
            turns.append((role, text, ids))
    return turns


def offered_tools(proto, body):
    """{name: tool} of what the request offers, Codex namespaces as 'ns.name'."""
    out = {}
    for t in body.get("tools") or []:
        if proto == "gemini":
            for f in t.get("functionDeclarations") or t.get("function_declarations") or []:
                out[f.get("name")] = f
        elif proto == "chat":
            f = t.get("function") or {}
            out[f.get("name")] = f
        else:
            out[t.get("name") or t.get("type")] = t
    return out


def schema_of(tool):
    for k in ("input_schema", "parameters", "parametersJsonSchema", "inputSchema"):
        if isinstance(tool.get(k), dict):
            return tool[k].get("properties") or {}
    return {}


# ------------------------------------------------------------------ from steps to blocks
def shell_call(cmd, tools):
    """(name, input, kind) of a shell call with the tools on offer."""
    for name in SHELLS:
        if name in tools:
            props = schema_of(tools[name])
            if name == "exec_command":
                return name, {"cmd": cmd}, "function"
            if name in ("shell", "local_shell", "container.exec"):
                return name, {"command": ["bash", "-lc", cmd]}, "function"
            arg = {"command": cmd}
            if "description" in props:
                arg["description"] = "Run a scripted command"
            return name, arg, "function"
    if "exec" in tools:  # codex code mode: JavaScript with tools.exec_command
        js = "const r = await tools.exec_command({cmd: %s});\ntext(JSON.stringify(r));" % json.dumps(cmd)
        return "exec", js, "custom"
    return "Bash", {"command": cmd}, "function"


def blocks_of(step, tools):
    """[("thinking", text) | ("text", text) | ("call", name, input, kind)]"""
    out = []
    if step.get("thinking"):
        out.append(("thinking", step["thinking"]))
    text = step.get("text")
    if isinstance(text, dict):
        text = text["repeat"] * int(text["count"])
    if text is not None:
        out.append(("text", text))
    if "bash" in step:
        out.append(("call",) + shell_call(step["bash"], tools))
    if "write" in step:
        path, content = step["write"]["path"], step["write"]["content"]
        for name in WRITERS:
            if name in tools:
                props = schema_of(tools[name])
                key = next((k for k in ("file_path", "filePath", "path") if k in props), "file_path")
                out.append(("call", name, {key: path, "content": content}, "function"))
                break
        else:
            d = os.path.dirname(path)
            cmd = ("mkdir -p %s && " % sh_quote(d) if d else "") + \
                "printf %%s %s > %s" % (sh_quote(content), sh_quote(path))
            out.append(("call",) + shell_call(cmd, tools))
    if "tool" in step:
        t = step["tool"]
        out.append(("call", t["name"], t.get("input", {}), t.get("kind", "function")))
    for sub in step.get("calls") or []:
        out.extend(blocks_of(sub, tools))
    return out or [("text", "Done.")]


def fill(value, env):
    """{{name}} in every string of a JSON value."""
    if isinstance(value, str):
        if "{{" not in value:
            return value

        def one(m):
            name = m.group(1)
            if name.startswith("now"):
                return str(int(time.time()) + int(name[3:] or 0))
            return str(env.get(name, m.group(0)))
        return re.sub(r"\{\{([A-Za-z0-9_]+(?:[+-]\d+)?)\}\}", one, value)
    if isinstance(value, list):
        return [fill(v, env) for v in value]
    if isinstance(value, dict):
        return {k: fill(v, env) for k, v in value.items()}
    return value


# ------------------------------------------------------------------ the script player
class Player:
    def __init__(self, script):
        self.lock = threading.Lock()
        self.load(script)

    def load(self, script):
        with self.lock:
            self.script = script or {}
            self.started = time.time()
            self.n = 0            # model requests so far
            self.now = 0          # model requests in progress
            self.peak = 0
            self.attempts = {}    # (key, run or None, step) -> requests so far
            self.runs = {}        # key -> {"n", "sessions": {sid: n}, "done": bool}
            self.cache = {}       # (key, run, model) -> tokens of the request before
            self.latest = {}      # (key, session) -> (step, size) of the request before
            self.counts = {}      # what was done -> how often

    def find(self, turns, model, headers):
        """rule, matched text, groups, steps played since the prompt."""
        rules = self.script.get("rules") or []
        for i in range(len(turns) - 1, -1, -1):
            role, text, _ = turns[i]
            if role != "user" or not text:
                continue
            for rule in rules:
                if "model" in rule and rule["model"] != model:
                    continue
                if "header" in rule:
                    h, v = rule["header"]
                    if v not in (headers.get(h) or ""):
                        continue
                if "match_re" in rule:
                    m = re.search(rule["match_re"], text)
                    if m:
                        return rule, m.group(0), (m.group(0),) + m.groups(), self.played(turns[i + 1:])
                elif rule.get("match") is not None and rule["match"] in text:
                    return rule, rule["match"], (rule["match"],), self.played(turns[i + 1:])
        rule = self.script.get("default") or {"steps": [{"text": "Done."}]}
        last = max((i for i, t in enumerate(turns) if t[0] == "user" and t[1]), default=-1)
        first = next((t[1] for t in turns if t[0] == "user" and t[1]), "")
        key = "default:" + hashlib.sha256(first.encode()).hexdigest()[:8]
        return rule, key, (key,), self.played(turns[last + 1:])

    @staticmethod
    def played(turns):
        seen = [int(m) for _, _, ids in turns for i in ids for m in ID_STEP.findall(i)]
        if seen:
            return max(seen) + 1
        n, inside = 0, False
        for role, _, _ in turns:
            if role == "assistant" and not inside:
                n += 1
            inside = role == "assistant"
        return n

    def run_of(self, key, session, step):
        r = self.runs.setdefault(key, {"n": 0, "sessions": {}, "done": True})
        if session:
            if session not in r["sessions"] and step == 0:
                r["n"] += 1
                r["sessions"][session] = r["n"]
            return r["sessions"].get(session, max(1, r["n"]))
        if step == 0 and r["done"]:
            r["n"] += 1
            r["done"] = False
        return max(1, r["n"])

    def fault_of(self, faults, key, run, step):
        """The fault that this attempt gets, and the number of the attempt."""
        per_run = any(f.get("per_run") for f in faults)
        k = (key, run if per_run else None, step)
        n = self.attempts[k] = self.attempts.get(k, 0) + 1
        at = 0
        for f in faults:
            if f.get("always"):
                return f, n
            at += int(f.get("times", 1))
            if n <= at:
                return f, n
        return None, n

    def outage(self):
        for o in self.script.get("outages") or []:
            if "after_requests" in o:
                if o["after_requests"] < self.n <= o["after_requests"] + o.get("count", 1):
                    return o
            elif o.get("from_s", 0) <= time.time() - self.started < o.get("to_s", 1e9):
                return o
        return None

    def usage(self, key, run, model, body_len, blocks, given):
        size = tokens(body_len)
        k = (key, run, model)
        before = min(self.cache.get(k, 0), size)
        self.cache[k] = size
        out = sum(tokens(len(b[1]) if b[0] != "call" else len(json.dumps(b[2])) + 40) for b in blocks)
        u = {"input_tokens": 4, "cache_creation_input_tokens": max(0, size - before - 4),
             "cache_read_input_tokens": before, "output_tokens": out}
        u.update(given or {})
        return u

    def plan(self, proto, body, headers, session, aux):
        """What to do with a request: a dict with rule, key, run, step, attempt, blocks, fault, usage."""
        model = body.get("model") or "?"
        with self.lock:
            self.n += 1
            body_len = body.get("__len", 0)
            allowed = self.script.get("models")
            if allowed and model not in allowed:
                return {"key": "-", "rule": "models", "run": 0, "step": 0, "attempt": 1, "model": model,
                        "fault": {"error": "not_found"}, "blocks": [], "usage": {}, "opts": {}}
            limit = (self.script.get("limits") or {}).get("concurrent")
            over = self.outage()
            if limit and self.now > limit:
                over = {"error": "rate_limit", "retry_after": 1}
            tools = offered_tools(proto, body)
            if aux:
                step = dict(self.script.get("aux") or {"text": "Scripted task" if proto == "chat" else
                                                       '{"title": "Scripted task", "isNewTopic": false}'})
                blocks = blocks_of(step, {})
                return {"key": "aux", "rule": "aux", "run": 0, "step": 0, "attempt": 1, "model": model,
                        "fault": over, "blocks": blocks, "opts": step,
                        "usage": self.usage("aux", session, model, body_len, blocks, step.get("usage"))}
            turns = conversation(proto, body)
            rule, key, groups, at = self.find(turns, model, headers)
            newest = turns[-1][1] if turns and turns[-1][0] == "user" else ""
            if any(w in newest for w in SUMMARIES):
                blocks = [("text", "<state_snapshot>Summary of the work on %s.</state_snapshot>" % key)]
                return {"key": key, "rule": "compaction", "run": 0, "step": at, "attempt": 1, "model": model,
                        "fault": over, "blocks": blocks, "opts": {},
                        "usage": self.usage(key, session, model, body_len, blocks, None)}
            if session:  # a history that shrank was compacted: go on after the step before
                step, size = self.latest.get((key, session), (-1, 0))
                if at < step and body_len < 0.8 * size:
                    at = step + 1
                self.latest[(key, session)] = (at, body_len)
            run = self.run_of(key, session, at)
            steps = rule.get("steps") or []
            if rule.get("runs"):
                steps = rule["runs"][min(run, len(rule["runs"])) - 1]
            steps = steps or [{"text": "Done."}]
            if at < len(steps):
                step = steps[at]
            elif rule.get("loop"):
                step = steps[at % len(steps)]
            else:
                last = steps[-1]
                step = {"text": last["text"]} if "text" in last else {"text": "Done."}
            fault, attempt = self.fault_of(step.get("inject") or [], key, run, at)
            env = {"match": key, "run": run, "step": at, "attempt": attempt}
            env.update({str(i): g for i, g in enumerate(groups)})
            step, fault = fill(step, env), fill(fault, env)
            blocks = blocks_of(step, tools)
            if not fault and not over and not any(b[0] == "call" for b in blocks):
                self.runs[key]["done"] = True
            return {"key": key, "rule": rule.get("match") or rule.get("match_re") or "default", "run": run,
                    "step": at, "attempt": attempt, "model": model, "fault": over or fault or None,
                    "blocks": blocks, "opts": step,
                    "usage": self.usage(key, run, model, body_len, blocks, step.get("usage"))}


# ------------------------------------------------------------------ writing the answers
def ident(prefix, salt, *parts):
    return prefix + hashlib.sha256("|".join(map(str, (salt,) + parts)).encode()).hexdigest()[:24]


def pieces(text, size):
    size = max(1, int(size or 2000))
    return [text[i:i + size] for i in range(0, len(text), size)] or [""]


def call_id(prefix, salt, plan, n):
    return "%s_s%02dn%d_%s" % (prefix, plan["step"], n, ident("", salt, plan["key"], plan["run"], plan["step"], n)[:12])


def anthropic_answer(plan, salt):
    """(events, whole message)"""
    blocks, u, opts = plan["blocks"], plan["usage"], plan["opts"]
    mid = ident("msg_", salt, plan["key"], plan["run"], plan["step"], plan["attempt"])
    stop = opts.get("stop") or ("tool_use" if any(b[0] == "call" for b in blocks) else "end_turn")
    usage = {"input_tokens": u["input_tokens"],
             "cache_creation_input_tokens": u["cache_creation_input_tokens"],
             "cache_read_input_tokens": u["cache_read_input_tokens"],
             "cache_creation": {"ephemeral_5m_input_tokens": u["cache_creation_input_tokens"],
                                "ephemeral_1h_input_tokens": 0},
             "output_tokens": u["output_tokens"], "service_tier": "standard"}
    head = {"id": mid, "type": "message", "role": "assistant", "model": plan["model"], "content": [],
            "stop_reason": None, "stop_sequence": None, "usage": dict(usage, output_tokens=1)}
    ev = [("message_start", {"type": "message_start", "message": head}), ("ping", {"type": "ping"})]
    content = []
    for i, b in enumerate(blocks):
        if b[0] == "call":
            block = {"type": "tool_use", "id": call_id("toolu", salt, plan, i), "name": b[1], "input": {}}
            deltas = [{"type": "input_json_delta", "partial_json": p}
                      for p in pieces(json.dumps(b[2]), opts.get("chunk"))]
            content.append(dict(block, input=b[2]))
        elif b[0] == "thinking":
            block = {"type": "thinking", "thinking": "", "signature": ""}
            deltas = [{"type": "thinking_delta", "thinking": p} for p in pieces(b[1], opts.get("chunk"))]
            deltas.append({"type": "signature_delta", "signature": "c2NyaXB0ZWQ="})
            content.append({"type": "thinking", "thinking": b[1], "signature": "c2NyaXB0ZWQ="})
        else:
            block = {"type": "text", "text": ""}
            deltas = [{"type": "text_delta", "text": p} for p in pieces(b[1], opts.get("chunk"))]
            content.append({"type": "text", "text": b[1]})
        ev.append(("content_block_start", {"type": "content_block_start", "index": i, "content_block": block}))
        ev += [("content_block_delta", {"type": "content_block_delta", "index": i, "delta": d}) for d in deltas]
        ev.append(("content_block_stop", {"type": "content_block_stop", "index": i}))
    ev.append(("message_delta", {"type": "message_delta", "delta": {"stop_reason": stop, "stop_sequence": None},
                                 "usage": usage}))
    ev.append(("message_stop", {"type": "message_stop"}))
    return ev, dict(head, content=content, stop_reason=stop, usage=usage)


def responses_answer(plan, salt):
    blocks, u, opts = plan["blocks"], plan["usage"], plan["opts"]
    rid = ident("resp_", salt, plan["key"], plan["run"], plan["step"], plan["attempt"])
    cached = u["cache_read_input_tokens"]
    inp = u["input_tokens"] + u["cache_creation_input_tokens"] + cached
    usage = {"input_tokens": inp, "input_tokens_details": {"cached_tokens": cached},
             "output_tokens": u["output_tokens"], "output_tokens_details": {"reasoning_tokens": 0},
             "total_tokens": inp + u["output_tokens"]}
    base = {"id": rid, "object": "response", "created_at": 1700000000, "model": plan["model"],
            "status": "in_progress", "output": [], "error": None, "incomplete_details": None, "usage": None}
    ev, items = [("response.created", {"response": base}), ("response.in_progress", {"response": base})], []
    for i, b in enumerate(blocks):
        iid = ident("it_", salt, plan["key"], plan["run"], plan["step"], i)
        if b[0] == "call":
            cid = call_id("call", salt, plan, i)
            if b[3] == "custom":
                item = {"id": iid, "type": "custom_tool_call", "status": "completed", "call_id": cid,
                        "name": b[1], "input": b[2]}
                empty, field, kind = dict(item, input="", status="in_progress"), b[2], "custom_tool_call_input"
            else:
                item = {"id": iid, "type": "function_call", "status": "completed", "call_id": cid,
                        "name": b[1], "arguments": json.dumps(b[2])}
                empty, field, kind = dict(item, arguments="", status="in_progress"), item["arguments"], \
                    "function_call_arguments"
            ev.append(("response.output_item.added", {"output_index": i, "item": empty}))
            ev += [("response.%s.delta" % kind, {"item_id": iid, "output_index": i, "delta": p})
                   for p in pieces(field, opts.get("chunk"))]
        elif b[0] == "thinking":
            item = {"id": iid, "type": "reasoning", "summary": [{"type": "summary_text", "text": b[1]}]}
            ev.append(("response.output_item.added", {"output_index": i, "item": dict(item, summary=[])}))
            ev.append(("response.reasoning_summary_part.added",
                       {"item_id": iid, "output_index": i, "summary_index": 0,
                        "part": {"type": "summary_text", "text": ""}}))
            ev += [("response.reasoning_summary_text.delta",
                    {"item_id": iid, "output_index": i, "summary_index": 0, "delta": p})
                   for p in pieces(b[1], opts.get("chunk"))]
        else:
            part = {"type": "output_text", "text": b[1], "annotations": []}
            item = {"id": iid, "type": "message", "role": "assistant", "status": "completed", "content": [part]}
            at = {"item_id": iid, "output_index": i, "content_index": 0}
            ev.append(("response.output_item.added",
                       {"output_index": i, "item": dict(item, content=[], status="in_progress")}))
            ev.append(("response.content_part.added", dict(at, part=dict(part, text=""))))
            ev += [("response.output_text.delta", dict(at, delta=p)) for p in pieces(b[1], opts.get("chunk"))]
            ev.append(("response.output_text.done", dict(at, text=b[1])))
            ev.append(("response.content_part.done", dict(at, part=part)))
        ev.append(("response.output_item.done", {"output_index": i, "item": item}))
        items.append(item)
    whole = dict(base, status="completed", output=items, usage=usage)
    end = "response.completed"
    if opts.get("stop") in ("max_tokens", "refusal"):
        end = "response.incomplete"
        whole.update(status="incomplete", incomplete_details={
            "reason": "max_output_tokens" if opts["stop"] == "max_tokens" else "content_filter"})
    ev.append((end, {"response": whole}))
    return [(n, dict({"type": n, "sequence_number": i}, **d)) for i, (n, d) in enumerate(ev)], whole


def chat_answer(plan, salt):
    blocks, u, opts = plan["blocks"], plan["usage"], plan["opts"]
    cid = ident("chatcmpl-", salt, plan["key"], plan["run"], plan["step"], plan["attempt"])
    base = {"id": cid, "created": 1700000000, "model": plan["model"]}
    stop = STOPS.get(opts.get("stop") or ("tool_use" if any(b[0] == "call" for b in blocks) else "end_turn"),
                     ("stop", "STOP"))[0]
    cached = u["cache_read_input_tokens"]
    inp = u["input_tokens"] + u["cache_creation_input_tokens"] + cached
    usage = {"prompt_tokens": inp, "completion_tokens": u["output_tokens"],
             "total_tokens": inp + u["output_tokens"], "prompt_tokens_details": {"cached_tokens": cached}}

    def chunk(delta, end=None):
        return ("", dict(base, object="chat.completion.chunk",
                         choices=[{"index": 0, "delta": delta, "finish_reason": end}]))
    ev, text, calls = [chunk({"role": "assistant", "content": ""})], "", []
    for i, b in enumerate(blocks):
        if b[0] == "call":
            args = b[2] if isinstance(b[2], str) else json.dumps(b[2])
            c = {"id": call_id("call", salt, plan, i), "type": "function",
                 "function": {"name": b[1], "arguments": args}}
            ev.append(chunk({"tool_calls": [dict(c, index=len(calls))]}))
            calls.append(c)
        elif b[0] == "text":
            ev += [chunk({"content": p}) for p in pieces(b[1], opts.get("chunk"))]
            text += b[1]
    ev.append(chunk({}, stop))
    ev.append(("", dict(base, object="chat.completion.chunk", choices=[], usage=usage)))
    ev.append(("", "[DONE]"))
    msg = {"role": "assistant", "content": text or None}
    if calls:
        msg["tool_calls"] = calls
    return ev, dict(base, object="chat.completion", usage=usage,
                    choices=[{"index": 0, "message": msg, "finish_reason": stop}])


def gemini_answer(plan, salt):
    blocks, u, opts = plan["blocks"], plan["usage"], plan["opts"]
    cached = u["cache_read_input_tokens"]
    inp = u["input_tokens"] + u["cache_creation_input_tokens"] + cached
    meta = {"promptTokenCount": inp, "candidatesTokenCount": u["output_tokens"],
            "totalTokenCount": inp + u["output_tokens"], "cachedContentTokenCount": cached}
    stop = STOPS.get(opts.get("stop") or "end_turn", ("stop", "STOP"))[1]
    ev, parts = [], []
    for i, b in enumerate(blocks):
        if b[0] == "call":
            new = [{"functionCall": {"id": call_id("call", salt, plan, i), "name": b[1], "args": b[2]}}]
        elif b[0] == "thinking":
            new = [{"text": b[1], "thought": True}]
        else:
            new = [{"text": p} for p in pieces(b[1], opts.get("chunk"))]
        parts += new
        ev += [("", {"candidates": [{"index": 0, "content": {"role": "model", "parts": [p]}}],
                     "modelVersion": plan["model"]}) for p in new]
    ev.append(("", {"candidates": [{"index": 0, "content": {"role": "model", "parts": [{"text": ""}]},
                                    "finishReason": stop}], "usageMetadata": meta, "modelVersion": plan["model"]}))
    return ev, {"candidates": [{"index": 0, "content": {"role": "model", "parts": parts}, "finishReason": stop}],
                "usageMetadata": meta, "modelVersion": plan["model"]}


ANSWERS = {"anthropic": anthropic_answer, "responses": responses_answer, "chat": chat_answer,
           "gemini": gemini_answer}


def error_body(proto, fault, model):
    name = fault.get("error")
    status, kind, code, message = ERRORS.get(name, (500, "api_error", "server_error", "Internal server error"))
    status = fault.get("status", status)
    kind, code = fault.get("type", kind), fault.get("type", code)
    message = fault.get("message", message).replace("{model}", model)
    if "body" in fault:
        return status, fault["body"].encode()
    if proto == "anthropic":
        doc = {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_scripted"}
    elif proto == "gemini":
        g = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND",
             429: "RESOURCE_EXHAUSTED", 503: "UNAVAILABLE"}.get(status, "INTERNAL")
        doc = {"error": {"code": status, "message": message, "status": g}}
    else:
        doc = {"error": {"message": message, "type": kind if status != 429 else code, "param": None, "code": code}}
        for k in ("resets_at", "resets_in_seconds", "plan_type"):
            if k in fault:
                doc["error"][k] = int(fault[k]) if k != "plan_type" else fault[k]
    return status, json.dumps(doc).encode()


# ------------------------------------------------------------------ HTTP
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "fake_llm"
    sys_version = ""
    disable_nagle_algorithm = True
    timeout = 900

    def log_message(self, *a):
        pass

    # -- low level
    def put(self, data):
        try:
            self.wfile.write(data)
            self.wfile.flush()
        except (BrokenPipeError, ConnectionResetError, OSError, ValueError) as e:
            raise Gone(str(e))
        self.sent += len(data)

    def whole(self, status, data, headers=None, kind="application/json"):
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        self.send_header("request-id", "req_scripted")
        for k, v in (headers or {}).items():
            self.send_header(k, str(v))
        try:
            self.end_headers()
        except OSError as e:
            raise Gone(str(e))
        if self.command != "HEAD":
            self.put(data)
        self.status = status

    def chunk(self, data):
        self.put(b"%x\r\n%s\r\n" % (len(data), data))

    def pause(self, seconds):
        """Sleeps, but notices a client that hangs up."""
        end = time.time() + seconds
        while time.time() < end and not self.server.stopping:
            time.sleep(min(0.1, max(0.0, end - time.time())))
            try:
                self.connection.setblocking(False)
                try:
                    if self.connection.recv(1, socket.MSG_PEEK) == b"":
                        raise Gone("client hung up")
                finally:
                    self.connection.settimeout(self.timeout)
            except (BlockingIOError, InterruptedError):
                pass
            except OSError as e:
                raise Gone(str(e))

    def hang_up(self, how):
        self.close_connection = True
        if how == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        try:
            if how != "reset":
                self.connection.shutdown(socket.SHUT_RDWR)
            self.connection.close()
        except OSError:
            pass
        raise Gone(how)

    def read_body(self):
        n = self.headers.get("content-length")
        if n is not None:
            return self.rfile.read(int(n))
        if "chunked" in (self.headers.get("transfer-encoding") or ""):
            out = b""
            while True:
                size = int(self.rfile.readline().split(b";")[0] or b"0", 16)
                if not size:
                    self.rfile.readline()
                    return out
                out += self.rfile.read(size)
                self.rfile.readline()
        return b""

    # -- routing
    def do_GET(self):
        self.serve()

    do_POST = do_HEAD = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_GET

    def serve(self):
        t0, self.sent, self.status = time.time(), 0, 0
        path = self.path.split("?")[0]
        rec = {"t": round(t0 - self.server.player.started, 3), "method": self.command, "path": path,
               "agent": (self.headers.get("user-agent") or "")[:60]}
        try:
            raw = self.read_body()
            if (self.headers.get("content-encoding") or "") in ("gzip", "deflate"):
                import zlib
                raw = zlib.decompress(raw, 47)
            rec["in_bytes"] = len(raw)
            self.route(path, raw, rec)
        except Gone as e:
            rec["gone"] = str(e)[:80]
            self.close_connection = True
        except (OSError, ValueError) as e:
            rec["failed"] = repr(e)[:200]
            self.close_connection = True
        rec.update(status=self.status, out_bytes=self.sent, dt=round(time.time() - t0, 3))
        if not path.startswith("/__"):
            self.server.note(rec)

    def route(self, path, raw, rec):
        s = self.server
        if path == "/__health":
            return self.whole(200, b'{"ok": true}')
        if path == "/__stats":
            p = s.player
            return self.whole(200, json.dumps({"requests": p.n, "in_flight": p.now, "peak": p.peak,
                                               "counts": p.counts, "runs": {k: v["n"] for k, v in p.runs.items()}
                                               }).encode())
        if path == "/__log":
            return self.whole(200, json.dumps(s.log).encode())
        if path == "/__reset":
            s.player.load(s.player.script)
            s.log = []
            return self.whole(200, b"{}")
        if path == "/__script":
            s.player.load(json.loads(raw))
            return self.whole(200, b"{}")
        proto = None
        if self.command == "POST":
            if path.endswith("/messages/count_tokens"):
                rec.update(proto="anthropic", did="count_tokens")
                return self.whole(200, json.dumps({"input_tokens": tokens(len(raw))}).encode())
            if path.endswith("/messages"):
                proto = "anthropic"
            elif path.endswith("/responses"):
                proto = "responses"
            elif path.endswith("/chat/completions"):
                proto = "chat"
            elif path.endswith(":countTokens"):
                rec.update(proto="gemini", did="count_tokens")
                return self.whole(200, json.dumps({"totalTokens": tokens(len(raw))}).encode())
            elif "enerateContent" in path:
                proto = "gemini"
        if proto:
            p = s.player
            with p.lock:
                p.now += 1
                p.peak = max(p.peak, p.now)
            try:
                return self.model(proto, path, raw, rec)
            finally:
                with p.lock:
                    p.now -= 1
                    p.counts[rec.get("did")] = p.counts.get(rec.get("did"), 0) + 1
        if self.command == "GET" and path.rstrip("/").endswith("/models"):
            names = s.player.script.get("models") or ["fake-model"]
            rec["did"] = "models"
            return self.whole(200, json.dumps({"object": "list", "has_more": False, "data": [
                {"id": n, "object": "model", "type": "model", "display_name": n,
                 "created_at": "2025-01-01T00:00:00Z"} for n in names]}).encode())
        rec["did"] = "unknown"
        if self.command == "HEAD" or path == "/api/hello":
            return self.whole(200, b"{}")
        return self.whole(404, b'{"type": "error", "error": {"type": "not_found_error", "message": "no such path"}}')

    def session(self, proto, body):
        h = self.headers
        for name in ("x-claude-code-session-id", "session_id", "session-id", "conversation_id", "thread-id",
                     "x-session-id", "x-opencode-session", "x-session-affinity"):
            if h.get(name):
                return h.get(name)
        user = (body.get("metadata") or {}).get("user_id") or ""
        m = re.search(r'session(?:_id"\s*:\s*"|_)([0-9a-f-]{36})', user)
        return m.group(1) if m else body.get("prompt_cache_key")

    def model(self, proto, path, raw, rec):
        s = self.server
        body = json.loads(raw)
        stream = bool(body.get("stream"))
        if proto == "gemini":
            body["model"] = path.rsplit("/", 1)[-1].split(":")[0]
            stream = "stream" in path
        body["__len"] = len(raw)
        # side requests (titles, topic checks) offer no tools; chat clients without tools are real
        aux = not body.get("tools") and proto != "chat"
        system = json.dumps(body.get("system") or body.get("instructions") or body.get("systemInstruction") or "")
        if proto == "chat":
            system = json.dumps([m for m in body.get("messages") or [] if m.get("role") in ("system", "developer")])
        if any(w in system for w in TITLES):
            aux = True
        if s.player.script.get("aux") is False:
            aux = False
        session = self.session(proto, body)
        plan = s.player.plan(proto, body, self.headers, session, aux)
        rec.update(proto=proto, model=plan["model"], stream=stream, key=plan["key"], rule=plan["rule"],
                   run=plan["run"], step=plan["step"], attempt=plan["attempt"], session=session,
                   tools=len(offered_tools(proto, body)))
        if s.dump:
            with s.lock:
                s.dumped += 1
                name = "%04d-%s-%s.json" % (s.dumped, proto, re.sub(r"[^\w.-]", "_", plan["key"]))
            doc = {"headers": {k: ("..." if k.lower() in ("authorization", "x-api-key", "x-goog-api-key") else v)
                               for k, v in self.headers.items()}, "path": self.path,
                   "body": {k: v for k, v in body.items() if k != "__len"}}
            with open(os.path.join(s.dump, name), "w") as f:
                json.dump(doc, f, indent=1)
        fault, opts = plan["fault"] or {}, plan["opts"]
        headers = dict(opts.get("headers") or {})
        headers.update(fault.get("headers") or {})
        if "retry_after" in fault:
            headers["retry-after"] = fault["retry_after"]
        if opts.get("delay"):
            self.pause(float(opts["delay"]))
        rec["did"] = "answer"
        if "stall" in fault and fault.get("where", "connect") == "connect":
            rec["did"] = "stall"
            self.pause(float(fault["stall"]))
            if fault.get("then") == "close":
                self.hang_up("close")
        if "garbage" in fault:
            rec["did"] = "garbage"
            return self.whole(200, fault["garbage"].encode(), headers)
        if "error" in fault or "status" in fault:
            status, data = error_body(proto, fault, plan["model"])
            rec["did"] = "error %d" % status
            return self.whole(status, data, headers)
        events, whole = ANSWERS[proto](plan, s.player.script.get("salt", ""))
        if not stream:
            return self.whole(200, json.dumps(whole).encode(), headers)
        self.send_events(proto, events, fault, opts, headers, rec)

    def send_events(self, proto, events, fault, opts, headers, rec):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream; charset=utf-8")
        self.send_header("cache-control", "no-cache")
        self.send_header("transfer-encoding", "chunked")
        self.send_header("request-id", "req_scripted")
        for k, v in headers.items():
            self.send_header(k, str(v))
        try:
            self.end_headers()
            self.wfile.flush()
        except OSError as e:
            raise Gone(str(e))
        self.status = 200
        if "stall" in fault and fault.get("where") == "headers":
            rec["did"] = "stall"
            self.pause(float(fault["stall"]))
            if fault.get("then") == "close":
                self.hang_up("close")
        middle = len(events) // 2
        stop_at = int(len(events) * float(fault["truncate"])) if "truncate" in fault else None
        pace = float(opts.get("chunk_delay") or 0)
        buf = b""
        for i, (name, data) in enumerate(events):
            if i == middle and "sse_error" in fault:
                rec["did"] = "sse_error"
                e = fault["sse_error"]
                if proto == "responses":
                    doc = {"type": "response.failed", "sequence_number": i, "response": {
                        "id": "resp_failed", "object": "response", "status": "failed", "output": [], "usage": None,
                        "error": {"code": e.get("code", e.get("type")), "message": e.get("message", "")}}}
                    self.chunk(buf + b"event: response.failed\ndata: %s\n\n" % json.dumps(doc).encode())
                else:
                    doc = {"type": "error", "error": e}
                    self.chunk(buf + b"event: error\ndata: %s\n\n" % json.dumps(doc).encode())
                return self.put(b"0\r\n\r\n")
            if i == middle and "stall" in fault and fault.get("where") == "stream":
                rec["did"] = "stall"
                if buf:
                    self.chunk(buf)
                buf = b""
                self.pause(float(fault["stall"]))
                if fault.get("then") == "close":
                    self.hang_up("close")
            if stop_at is not None and i >= stop_at:
                rec["did"] = "truncate"
                if buf:
                    self.chunk(buf)
                if fault.get("how") == "clean":
                    return self.put(b"0\r\n\r\n")
                self.hang_up(fault.get("how", "close"))
            line = data if isinstance(data, str) else json.dumps(data)
            buf += (("event: %s\n" % name if name else "") + "data: %s\n\n" % line).encode()
            if pace or len(buf) > 65536:
                self.chunk(buf)
                buf = b""
                if pace:
                    self.pause(pace)
        if buf:
            self.chunk(buf)
        self.put(b"0\r\n\r\n")


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    allow_reuse_address = True

    def __init__(self, port, script, log_file=None, dump=None):
        super().__init__(("127.0.0.1", port), Handler)
        self.player = Player(script)
        self.lock = threading.Lock()
        self.log = []
        self.seen = 0
        self.dumped = 0
        self.dump = dump
        self.stopping = False
        self.out = open(log_file, "a", buffering=1) if log_file else None
        if dump:
            os.makedirs(dump, exist_ok=True)

    def note(self, rec):
        with self.lock:
            self.seen += 1
            rec = dict({"n": self.seen}, **rec)
            self.log.append(rec)
            if self.out:
                self.out.write(json.dumps(rec) + "\n")

    def handle_error(self, request, client_address):
        pass


class FakeLLM:
    """The server in a thread, for tests: with FakeLLM(script) as s: s.url ..."""

    def __init__(self, script=None, port=0, log=None, dump=None):
        if isinstance(script, str):
            with open(script) as f:
                script = json.load(f)
        self.server = Server(port, script or {}, log, dump)
        self.port = self.server.server_address[1]
        self.url = "http://127.0.0.1:%d" % self.port

    def __enter__(self):
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *exc):
        self.server.stopping = True
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(5)

    def load(self, script):
        self.server.player.load(script)

    def records(self, **want):
        with self.server.lock:
            return [r for r in self.server.log if all(r.get(k) == v for k, v in want.items())]

    def stats(self):
        p = self.server.player
        return {"requests": p.n, "in_flight": p.now, "peak": p.peak, "counts": dict(p.counts)}


def main(argv=None):
    ap = argparse.ArgumentParser(description="A scripted model server on loopback; see the docstring.")
    ap.add_argument("--script", help="JSON file")
    ap.add_argument("--port", type=int, default=0)
    ap.add_argument("--port-file", help="the port is written here once it listens")
    ap.add_argument("--log", help="JSONL of requests")
    ap.add_argument("--dump", help="folder for request bodies")
    a = ap.parse_args(argv)
    script = {}
    if a.script:
        with open(a.script) as f:
            script = json.load(f)
    srv = Server(a.port, script, a.log, a.dump)
    port = srv.server_address[1]
    if a.port_file:
        tmp = a.port_file + ".tmp"
        with open(tmp, "w") as f:
            f.write(str(port))
        os.replace(tmp, a.port_file)
    print("listening on http://127.0.0.1:%d" % port, flush=True)
    try:
        srv.serve_forever(0.1)
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
