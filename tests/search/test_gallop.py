"""The gallop: what it makes of lapses and holes."""

from __future__ import annotations

from random import Random

import pytest

from lmstrix.models import Baseline
from lmstrix.problem import PassRule, SearchProblem
from lmstrix.search.gallop import Gallop
from lmstrix.testing.contracts.strategy import Search

PROBLEM = SearchProblem(
    floor=512,
    ceiling=32768,
    baseline=Baseline(passes=10, trials=10, length_tokens=512),
    rule=PassRule(),
)


def test_one_lapse_in_ten_decides_nothing() -> None:
    """At every length the fourth of ten questions is missed, whatever the length."""
    search = Search(Gallop(), PROBLEM, lambda length, index, _: length <= 9000 and index % 10 != 3)
    done = search.run()
    assert done.low <= 9000
    assert done.high is not None
    assert done.high > 9000
    assert PROBLEM.is_tight(done.low, done.high)


def test_lengths_below_the_answer_were_tried() -> None:
    """So that a hole there shows: one at 2048 is the answer, though longer ones pass."""
    done = Search(Gallop(), PROBLEM, lambda length, _, __: not 1900 <= length <= 2200).run()
    assert done.high is not None
    assert done.low < 1900 <= done.high


def test_lapses_seldom_move_the_answer() -> None:
    """Of models that miss one question in fifty, all but few are found within an eighth."""
    rng = Random(5)
    near = 0
    for seed in range(20):
        truth = rng.randrange(2000, 30000)

        def answer(
            length: int, index: int, _: object, truth: int = truth, seed: int = seed
        ) -> bool:
            lapse = Random(f"{seed} {length} {index}").random() < 0.02
            return length <= truth and not lapse

        done = Search(Gallop(), PROBLEM, answer).run()
        near += truth * 7 / 8 <= done.low <= truth
    assert near >= 18


@pytest.mark.parametrize("factor", [1.0, 0.5, -2.0, float("nan")])
def test_a_factor_that_does_not_climb_is_refused(factor: float) -> None:
    with pytest.raises(ValueError, match="greater than 1"):
        Gallop(factor)
