from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hew_loop.core.agent_answer import AgentAnswer, parse_answer


def fenced(body: str, *, name: str = "loop_result", marks: str = "```") -> str:
    return f"{marks}{name}\n{body}\n{marks}\n"


WHOLE = '{"status": "blocked", "summary": "No schema.", "next_iteration": ["ab-1", "x.2"]}'
ANSWER = AgentAnswer(status="blocked", summary="No schema.", next_iteration=("ab-1", "x.2"))


@pytest.mark.parametrize(
    "text",
    [
        fenced(WHOLE),
        f"I looked.\n\n{fenced(WHOLE)}\nThat is all.",
        fenced(WHOLE).replace("\n", "\r\n"),
        fenced(WHOLE, marks="~~~"),
        fenced(WHOLE, marks="`````"),
        fenced(WHOLE, name=" loop_result json"),
        fenced(WHOLE, name="json loop_result"),
        "\n".join(f"   {line}" for line in fenced(WHOLE).split("\n")),
        fenced(json.dumps(json.loads(WHOLE), indent=4)),
        f"```loop_result {WHOLE} ```",
        f"```loop_result {WHOLE}\n```",
        f"```loop_result\n{WHOLE}",
        f"```text\nsome output\n```\n{fenced(WHOLE)}",
        f"```text\nnever closed\n{fenced(WHOLE)}",
        fenced('{"status": "done"}') + fenced(WHOLE),
        fenced("{broken") + fenced(WHOLE),
    ],
)
def test_a_result_block_is_found_in_whatever_surrounds_it(text: str) -> None:
    assert parse_answer(text) == ANSWER


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Done.",
        "loop_result",
        "```json\n" + WHOLE + "\n```",
        f"I would answer:\n````text\n{fenced(WHOLE)}<next_iteration>a</next_iteration>\n````\n",
        f"~~~~\n{fenced(WHOLE)}~~~~\n",
    ],
)
def test_nothing_said_is_nothing_read(text: str) -> None:
    assert parse_answer(text) == AgentAnswer()


@pytest.mark.parametrize("status", ["done", "no_change", "blocked", "failed", " No-Change ", "DONE", "no change"])
def test_a_status_is_known_by_its_words(status: str) -> None:
    expected = status.strip().lower().replace("-", "_").replace(" ", "_")
    assert parse_answer(fenced(json.dumps({"status": status}))) == AgentAnswer(status=expected)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("{broken", "loop_result is no JSON object"),
        ("[1]", "loop_result is no JSON object"),
        ("", "loop_result is no JSON object"),
        ("[" * 100_000, "loop_result is no JSON object"),
        ('{"status": "success"}', "loop_result has an unknown status: 'success'"),
        ('{"status": 1}', "loop_result has an unknown status: 1"),
        ('{"summary": 1}', "the summary of loop_result is no text"),
        ('{"next_iteration": "a,b"}', "next_iteration of loop_result is no list: 'a,b'"),
    ],
)
def test_what_cannot_be_read_is_a_recorded_problem(body: str, problem: str) -> None:
    assert parse_answer(fenced(body)) == AgentAnswer(problem=problem)


def test_the_last_block_counts_even_when_it_is_broken() -> None:
    assert parse_answer(fenced(WHOLE) + fenced("{")) == AgentAnswer(problem="loop_result is no JSON object")


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        (fenced('["a-1", "b.2"]', name="next_iteration"), ("a-1", "b.2")),
        (fenced("[a-1, 'b.2']", name="next_iteration"), ("a-1", "b.2")),
        (fenced("[]", name="next_iteration"), ()),
        ("<next_iteration>a-1, b.2</next_iteration>", ("a-1", "b.2")),
        ("<next_iteration>\n[a-1,\nb.2]\n</next_iteration>", ("a-1", "b.2")),
        ("```\n<next_iteration>a-1,b.2</next_iteration>\n```", ("a-1", "b.2")),
        ("<next_iteration></next_iteration>", ()),
        ("<next_iteration>x</next_iteration> or <next_iteration>y</next_iteration>", ("y",)),
        ("```next_iteration\nnever closed\n<next_iteration>a</next_iteration>", ("a",)),
        ("<next_iteration>a", None),
        (fenced('{"next_iteration": []}'), ()),
        (fenced('{"next_iteration": null}'), None),
        (fenced("{}"), None),
    ],
)
def test_absent_empty_and_non_empty_are_three_answers(text: str, ids: tuple[str, ...] | None) -> None:
    assert parse_answer(text).next_iteration == ids


def test_a_fence_wins_over_a_tag_and_a_result_over_both() -> None:
    both = fenced('["fence"]', name="next_iteration") + "<next_iteration>tag</next_iteration>\n"

    assert parse_answer(both).next_iteration == ("fence",)
    assert parse_answer(both + fenced('{"next_iteration": ["result"]}')).next_iteration == ("result",)
    assert parse_answer(both + fenced('{"next_iteration": []}')).next_iteration == ()
    assert parse_answer(both + fenced('{"status": "done"}')).next_iteration == ("fence",)


def test_a_result_in_a_tag_is_for_agents_that_must_not_use_a_fence() -> None:
    tagged = 'Done.\n<loop_result>{"status": "no_change", "summary": "It is there."}</loop_result>\n'

    assert parse_answer(tagged) == AgentAnswer("no_change", "It is there.")
    assert parse_answer(f"{tagged}<next_iteration>a, b</next_iteration>").next_iteration == ("a", "b")
    assert parse_answer(f'<loop_result>{{"status": "done"}}</loop_result>{tagged}').status == "no_change"
    assert parse_answer(tagged + fenced('{"status": "done"}')) == AgentAnswer("done")
    assert parse_answer(f"````text\n{tagged}````\n") == AgentAnswer()
    assert parse_answer("<loop_result>done</loop_result>") == AgentAnswer(problem="loop_result is no JSON object")


def test_a_block_of_another_kind_under_the_name_is_a_problem() -> None:
    assert parse_answer(fenced('{"next": "tests"}', name="next_iteration")) == AgentAnswer(
        problem="next_iteration is no JSON list"
    )


def test_ids_are_kept_as_given_but_for_what_no_id_can_be() -> None:
    given_ids = [
        "b",
        "a",
        "b",
        "",
        " ",
        "two words",
        "tab\t",
        "nul\0",
        "é-1",
        7,
        None,
        ["x"],
        "x" * 201,
        "\ud800",
        "../up",
    ]

    assert parse_answer(fenced(json.dumps({"next_iteration": given_ids}))).next_iteration == ("b", "a", "é-1", "../up")


def test_at_most_200_ids_are_taken() -> None:
    many = [f"t-{number}" for number in range(1000)]

    assert parse_answer(fenced(json.dumps(many), name="next_iteration")).next_iteration == tuple(many[:200])


def test_a_summary_is_bounded_and_holds_no_control_characters() -> None:
    summary = "a\x1b[31m\r\n\tb\ud800" + "x" * 20_000

    read = parse_answer(fenced(json.dumps({"summary": summary}))).summary

    assert (len(read), read[:12]) == (10_000, "a[31m\n\tb?xxx")


pieces = st.sampled_from(
    ["```", "~~~", "````", "loop_result", "next_iteration", "\n", "\r\n", " ", "{", "}", "[", "]", '"status"', ":",
     '"done"', ",", "<next_iteration>", "</next_iteration>", "a-1", "\x00", "\ud800", '{"status": "done"}', '["a"]']
)  # fmt: skip


@settings(deadline=None)
@given(st.lists(pieces | st.text(max_size=5), max_size=40).map("".join))
def test_no_text_makes_it_raise_and_every_answer_can_be_written(text: str) -> None:
    answer = parse_answer(text)

    json.dumps([answer.summary, answer.next_iteration, answer.problem]).encode()
    (answer.summary + answer.problem + "".join(answer.next_iteration or ())).encode()


ids = st.lists(st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=8), unique=True, max_size=5)


@settings(deadline=None)
@given(ids, st.sampled_from(["done", "no_change", "blocked", "failed"]), st.sampled_from(["```", "~~~", "`````"]))
def test_what_is_written_as_told_is_read_back(next_ids: list[str], status: str, marks: str) -> None:
    body = json.dumps({"status": status, "summary": "s", "next_iteration": next_ids})

    assert parse_answer(f"Text.\n\n{fenced(body, marks=marks)}") == AgentAnswer(
        status=status,  # type: ignore[arg-type]
        summary="s",
        next_iteration=tuple(next_ids),
    )
