from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from hew_loop.core.secrets import MASK, StreamMask, is_secret_name, masked, secret_values


def test_a_secret_is_known_by_the_name_of_its_variable() -> None:
    env = {
        "API_KEY": "abcdefgh1",
        "my_token": "abcdefgh",
        "PATH": "/usr/bin:/bin",
        "SHORT_KEY": "x",
        "KEY_FILE": "/a/b/c/d/e",
    }
    assert secret_values(env) == ("abcdefgh1", "abcdefgh")
    assert [is_secret_name(n) for n in ("GIT_CONFIG_KEY_0", "DB_PASSWORD", "HOME")] == [False, True, False]
    assert masked("a abcdefgh1 b abcdefgh", secret_values(env)) == f"a {MASK} b {MASK}"


@settings(deadline=None)
@given(st.text("ab", max_size=40), st.lists(st.integers(0, 60)), st.text("ab", max_size=10))
def test_no_cut_of_a_stream_lets_a_secret_through(before: str, cuts: list[int], after: str) -> None:
    secret = "abbabbaab"
    data = (before + secret + after).encode()
    mask = StreamMask((secret,))
    points = [0, *sorted(c for c in cuts if c <= len(data)), len(data)]
    pieces = [mask.feed(data[a:b]) for a, b in pairwise(points)]
    whole = b"".join(pieces) + mask.flush()
    assert secret.encode() not in whole
    assert whole.replace(MASK.encode(), secret.encode()) == data
