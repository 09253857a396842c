"""What an agent says in its last message: a `loop_result` block or tag, or hew's two forms of `next_iteration`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

Status = Literal["done", "no_change", "blocked", "failed"]

MAX_IDS: Final = 200
MAX_ID_LENGTH: Final = 200
MAX_SUMMARY: Final = 10_000

_STATUSES: Final[dict[str, Status]] = {
    "done": "done",
    "no_change": "no_change",
    "blocked": "blocked",
    "failed": "failed",
}
_FENCE: Final = re.compile(r"[ \t]*(?P<marks>`{3,}|~{3,})[ \t]*(?P<info>[^`]*)$")
_INLINE: Final = re.compile(r"[ \t]*(?P<marks>`{3,})[ \t]*loop_result[ \t]*(?P<body>\{.*\})[ \t]*(?P=marks)[ \t]*$")
_RESULT_TAG: Final = re.compile(r"<loop_result>(.*?)</loop_result>", re.DOTALL)
_TAG: Final = re.compile(r"<next_iteration>([^<>]*)</next_iteration>")
# Not in a task id: white space and control characters (C0, DEL, C1), and halves of surrogate pairs.
_UNFIT: Final = re.compile(r"[\s\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@dataclass(frozen=True, slots=True)
class AgentAnswer:
    """`next_iteration`: None when nothing was said, empty for "nothing", else ids as given, unchecked."""

    status: Status | None = None
    summary: str = ""
    next_iteration: tuple[str, ...] | None = None
    problem: str = ""
    """Why what it gave could not be read, for the record; empty when all was well."""


def parse_answer(text: str) -> AgentAnswer:
    """Never raises. The last block of a name wins, and a `loop_result` wins over hew's forms where it names ids.

    A block wins over a tag, which is for agents whose program takes a fenced block for a file.
    A fence of more than three marks quotes what is in it: an agent that repeats its prompt has not answered.
    """
    blocks, prose = _split(text)
    problems: list[str] = []
    result: dict[str, Any] = {}
    if "loop_result" in blocks:
        result = _object(blocks["loop_result"], problems)
    elif tagged := _RESULT_TAG.findall(prose):
        result = _object(tagged[-1], problems)
    ids = _ids_of_result(result, problems)
    if ids is None:
        ids = _ids_of_fence(blocks["next_iteration"], problems) if "next_iteration" in blocks else None
    if ids is None:
        ids = _ids_of_tag(prose)
    return AgentAnswer(
        status=_status(result, problems),
        summary=_summary(result, problems),
        next_iteration=ids,
        problem="; ".join(problems),
    )


def _split(text: str) -> tuple[dict[str, str], str]:
    """The last body of each answer block, and what stands outside of them and of quoting fences."""
    blocks: dict[str, str] = {}
    prose: list[str] = []
    quoted_by = ""
    lines = iter(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"))
    for line in lines:
        if not quoted_by and (inline := _INLINE.match(line)) is not None:
            blocks["loop_result"] = inline["body"]
            continue
        fence = _FENCE.match(line)
        if quoted_by:
            if fence is not None and _closes(fence, quoted_by):
                quoted_by = ""
        elif fence is None:
            prose.append(line)
        elif (name := _block_name(fence["info"])) is not None:
            body, is_closed = _until_closed(lines, fence["marks"])
            blocks[name] = "\n".join([_body_beside(fence["info"], name), *body])
            prose += [] if is_closed else body
        elif len(fence["marks"]) > 3:
            quoted_by = fence["marks"]
    return blocks, "\n".join(prose)


def _until_closed(lines: Iterator[str], marks: str) -> tuple[list[str], bool]:
    body: list[str] = []
    for line in lines:
        fence = _FENCE.match(line)
        if fence is not None and _closes(fence, marks):
            return body, True
        body.append(line)
    return body, False


def _body_beside(info: str, name: str) -> str:
    """JSON that begins on the line of the fence itself; another word there (`json`) is none."""
    rest = info.partition(name)[2].strip()
    return rest if rest.startswith(("{", "[")) else ""


def _closes(fence: re.Match[str], marks: str) -> bool:
    return fence["marks"].startswith(marks) and not fence["info"].strip()


def _block_name(info: str) -> str | None:
    words = info.split()
    return next((name for name in ("loop_result", "next_iteration") if name in words), None)


def _object(body: str, problems: list[str]) -> dict[str, Any]:
    value = _json(body)
    if isinstance(value, dict):
        return cast("dict[str, Any]", value)
    problems.append("loop_result is no JSON object")
    return {}


def _json(body: str) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _status(result: dict[str, Any], problems: list[str]) -> Status | None:
    if "status" not in result:
        return None
    given = result["status"]
    known = _STATUSES.get(re.sub(r"[\s-]+", "_", given.strip().lower())) if isinstance(given, str) else None
    if known is None:
        problems.append(f"loop_result has an unknown status: {_short(given)}")
    return known


def _summary(result: dict[str, Any], problems: list[str]) -> str:
    given = result.get("summary")
    if given is None:
        return ""
    if not isinstance(given, str):
        problems.append("the summary of loop_result is no text")
        return ""
    plain = _CONTROL.sub("", given.encode("utf-8", "replace").decode("utf-8")).strip()
    return plain[:MAX_SUMMARY]


def _ids_of_result(result: dict[str, Any], problems: list[str]) -> tuple[str, ...] | None:
    given = result.get("next_iteration")
    if given is None:
        return None
    if not isinstance(given, list):
        problems.append(f"next_iteration of loop_result is no list: {_short(given)}")
        return None
    return _ids(cast("list[object]", given))


def _ids_of_fence(body: str, problems: list[str]) -> tuple[str, ...] | None:
    """A JSON list; hew took `[a, b]` without quotes as well."""
    value = _json(body)
    if isinstance(value, list):
        return _ids(cast("list[object]", value))
    bare = body.strip()
    if value is None and bare.startswith("[") and bare.endswith("]"):
        return _ids(_bare(bare[1:-1]))
    problems.append("next_iteration is no JSON list")
    return None


def _ids_of_tag(prose: str) -> tuple[str, ...] | None:
    found = _TAG.findall(prose)
    return _ids(_bare(found[-1].strip().removeprefix("[").removesuffix("]"))) if found else None


def _bare(listed: str) -> list[str]:
    return [item.strip().strip("\"'").strip() for item in listed.split(",")]


def _ids(given: Iterable[object]) -> tuple[str, ...]:
    fit = (item for item in given if isinstance(item, str) and 0 < len(item) <= MAX_ID_LENGTH)
    return tuple(dict.fromkeys(item for item in fit if _UNFIT.search(item) is None))[:MAX_IDS]


def _short(value: object) -> str:
    return ascii(value)[:80]
