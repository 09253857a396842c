"""Which runs are over, by the last line of their journals."""

from __future__ import annotations

from pathlib import Path

import pytest

from hew_loop.engine.run_folder import loop_dir
from hew_loop.engine.standing import Standing, is_settled, standings

RUN = "loop-20260101T000000Z-0123abcd"
BEGUN = '{"seq":1,"event":{"type":"run_started"}}\n'
ENDED = '{"seq":2,"event":{"type":"run_ended","exit_code":0}}\n'
RESUMED = '{"seq":3,"event":{"type":"resumed"}}\n'


@pytest.mark.parametrize(
    ("journal", "standing"),
    [
        ("", "stillborn"),
        ('{"seq":1', "stillborn"),
        (BEGUN, "died"),
        (BEGUN + ENDED, "ended"),
        (BEGUN + ENDED.rstrip(), "died"),
        (BEGUN + ENDED + '{"torn', "ended"),
        (BEGUN + ENDED + RESUMED, "died"),
        (BEGUN + ENDED + "not json\n", "died"),
        (BEGUN + "[]\n", "died"),
        (BEGUN + '{"seq":2,"event":{"type":"suspended","why":"planned"}}\n', "suspended"),
        (BEGUN + f'{{"seq":2,"event":{{"type":"noticed","text":"{"x" * 200_000}"}}}}\n' + ENDED, "ended"),
        (BEGUN + f'{{"seq":2,"event":{{"type":"run_ended","text":"{"x" * 200_000}"}}}}\n', "ended"),
    ],
)
def test_a_run_is_over_when_its_last_whole_line_says_so(tmp_path: Path, journal: str, standing: Standing) -> None:
    folder = loop_dir(tmp_path) / RUN
    folder.mkdir(parents=True)
    (folder / "events.jsonl").write_text(journal)
    assert standings(tmp_path, live=None) == {RUN: standing}
    assert standings(tmp_path, live=RUN) == {RUN: "live"}
    assert is_settled({RUN: standing}, RUN) == (standing in ("ended", "stillborn"))


def test_a_run_without_a_folder_is_over(tmp_path: Path) -> None:
    assert standings(tmp_path, live=RUN) == {}
    assert is_settled({}, RUN)
