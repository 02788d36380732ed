"""How long a prompt takes to read, from what its parts took."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmstrix.models import CurvePoint, Trial
from lmstrix.speed import ReadingTimes, usable_context
from lmstrix.testing.samples import sample_report, sample_trial


def read(cached: int | None, prompt: int, seconds: float | None) -> Trial:
    return sample_trial(prompt_tokens=prompt, cached_tokens=cached, ttft_s=seconds)


def point(length: int, *, ttft: float | None, speed: float | None) -> CurvePoint:
    passed = sample_report().curve[0]
    return attrs.evolve(passed, length_tokens=length, tokens_per_second=speed, full_ttft_s=ttft)


def test_parts_add_up_to_the_whole() -> None:
    """1000 tokens a second at first, 500 later: a prompt of 3000 takes 1 + 4 seconds."""
    times = ReadingTimes([read(0, 1000, 1.0), read(1000, 3000, 4.0)])
    assert times.ttft_s(3000) == pytest.approx(5.0)
    assert times.ttft_s(2000) == pytest.approx(3.0)
    assert times.ttft_s(500) == pytest.approx(0.5)


def test_a_second_reading_and_a_question_alone_change_little() -> None:
    """The median of two readings; a prompt that was cached but for a few tokens says nothing."""
    times = ReadingTimes([read(0, 1000, 1.0), read(0, 1000, 3.0), read(990, 1000, 9.0)])
    assert times.ttft_s(1000) == pytest.approx(2.0)


def test_without_a_count_it_is_not_known_what_was_read() -> None:
    assert ReadingTimes([read(None, 1000, 1.0)]).ttft_s(1000) is None


def test_what_was_not_timed_is_as_fast_as_what_came_before() -> None:
    times = ReadingTimes([read(0, 1000, 1.0), read(2000, 3000, 3.0)])
    assert times.ttft_s(2000) == pytest.approx(2.0)
    assert times.ttft_s(3000) == pytest.approx(5.0)


def test_beyond_what_was_read_nothing_is_known() -> None:
    times = ReadingTimes([read(0, 1000, 1.0), read(0, 1200, None)])
    assert times.ttft_s(1064) is None
    assert times.ttft_s(1010) == pytest.approx(1.01)
    assert times.ttft_s(0) is None
    assert ReadingTimes([]).ttft_s(10) is None


CURVE = [
    point(1000, ttft=1.0, speed=50.0),
    point(2000, ttft=3.0, speed=40.0),
    point(4000, ttft=9.0, speed=20.0),
    point(8000, ttft=None, speed=None),
]


@pytest.mark.parametrize(
    ("speed", "wait", "limit"),
    [
        (None, 3.0, 2000),
        (30.0, None, 2000),
        (15.0, 5.0, 2000),
        (20.0, 9.0, 4000),
        (60.0, None, None),
    ],
)
def test_the_usable_context(speed: float | None, wait: float | None, limit: int | None) -> None:
    found = usable_context(CURVE, 8000, min_tokens_per_second=speed, max_ttft_s=wait)
    assert found == limit


def test_an_unknown_speed_hides_no_known_one() -> None:
    curve = [point(1000, ttft=1.0, speed=None), point(2000, ttft=3.0, speed=40.0)]
    assert usable_context(curve, 2000, min_tokens_per_second=30.0) == 2000
    assert usable_context(curve, 1500, min_tokens_per_second=30.0) is None


def test_no_more_is_usable_than_is_true() -> None:
    assert usable_context(CURVE, 2500, max_ttft_s=100.0) == 2000


@given(st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 5000), st.floats(0, 100))))
def test_longer_never_takes_less(parts: list[tuple[int, int, float]]) -> None:
    times = ReadingTimes(read(start, start + more, s) for start, more, s in parts)
    waits = [times.ttft_s(n) for n in range(100, 10_000, 700)]
    known = [w for w in waits if w is not None]
    assert known == sorted(known)
    assert waits[len(known) :] == [None] * (len(waits) - len(known))
