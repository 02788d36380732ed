"""The gallop: its exact steps, and what it makes of lapses."""

from __future__ import annotations

from math import inf
from random import Random

import attrs
import pytest

from lmstrix.models import Baseline, Observation, Region
from lmstrix.problem import Ask, PassRule, SearchProblem
from lmstrix.search.gallop import Gallop
from lmstrix.testing.contracts.strategy import Answers, Search

PROBLEM = SearchProblem(
    floor=512,
    ceiling=32768,
    baseline=Baseline(passes=10, trials=10, length_tokens=512),
    rule=PassRule(),
)


def steps(truth: float) -> list[tuple[int, int]]:
    """(length, trials) of every step on a noiseless cliff."""
    known: dict[int, Observation] = {}
    asked: list[tuple[int, int]] = []
    while isinstance(step := Gallop().next_step(PROBLEM, list(known.values())), Ask):
        length = step.length_tokens
        asked.append((length, step.trials))
        trials = step.trials + (known[length].trials if length in known else 0)
        passes = trials if length <= truth else 0
        known[length] = Observation(length_tokens=length, passes=passes, trials=trials)
    return asked


CLIMB = [768, 1024, 1536, 2048, 2816, 4096, 5888]


def test_it_climbs_closes_in_and_completes_both_ends() -> None:
    asked = [(n, 4) for n in [*CLIMB, 8448, 7168, 6400, 6144]]
    assert steps(6100) == [*asked, (6144, 6), (5888, 6)]


def test_it_ends_at_the_ceiling() -> None:
    asked = [(n, 4) for n in [*CLIMB, 8448, 12032, 16896, 23808, 32768]]
    assert steps(inf) == [*asked, (32768, 6)]


def test_a_limit_at_the_floor_takes_one_length() -> None:
    assert steps(600) == [(768, 4), (768, 6)]


def test_an_open_length_is_settled_before_anything_else() -> None:
    history = [
        Observation(length_tokens=768, passes=4, trials=4),
        Observation(length_tokens=1024, passes=3, trials=4),
    ]
    assert Gallop().next_step(PROBLEM, history) == Ask(length_tokens=1024, trials=6)


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


def test_with_regions_one_after_the_other_is_asked_about() -> None:
    regional = attrs.evolve(PROBLEM, rule=PassRule(regions=tuple(Region)))
    search = Search(Gallop(), regional, Answers(kind="cliff", truth=6100, region=Region.LATE))
    done = search.run()
    assert (done.low, done.high) == (5888, 6144)
    found = {o.length_tokens: {t.region: t.passes for t in o.regions} for o in search.history}
    assert found[5888] == dict.fromkeys(Region, 4)
    assert found[6144][Region.LATE] == 0


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
