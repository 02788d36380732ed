"""Noisy answers: how near the answer comes, and what it costs."""

from __future__ import annotations

from math import inf, log
from random import Random

import attrs
import pytest

from lmstrix.models import Baseline, Cause, Region, Verdict
from lmstrix.problem import Ask, CostModel, PassRule, Reuse, SearchProblem
from lmstrix.search.bayes import Bayes
from lmstrix.testing.contracts.strategy import Answers, Search

PROBLEM = SearchProblem(
    floor=512,
    ceiling=65_536,
    baseline=Baseline(passes=12, trials=12, length_tokens=512),
    rule=PassRule(),
    tolerance=1 / 16,
    costs=CostModel(question_tokens=25.0, generated_tokens=0.0, probe=0.0),
    cached_tokens=512,
)


def model(limit: float, slope: float, seed: int, lapse: float = 0.04) -> Search:
    """A search on a model whose pass rate is logistic in the logarithm of the length."""

    def answer(length: int, index: int, _: object) -> bool:
        rate = (1 - lapse) / (1 + (1 / 0.85 - 1) * (length / limit) ** slope)
        return Random(f"{seed} {length} {index}").random() < rate

    return Search(Bayes(), PROBLEM, answer)


@pytest.mark.parametrize(
    ("slope", "near", "cover"), [(100.0, 0.04, 8), (12.0, 0.12, 8), (4.0, 0.3, 8)]
)
def test_most_thresholds_are_found(slope: float, near: float, cover: int) -> None:
    """The estimate of four in five models is near, the interval holds nearly all, and the
    bracket's lower end is what its tally shows.
    """
    rng = Random(3)
    close = covered = 0
    for seed in range(10):
        limit = 1500 * 30 ** rng.random()
        search = model(limit, slope, seed)
        done = search.run()
        assert done.estimate is not None
        close += abs(log(done.estimate / limit)) < near + 128 / limit
        covered += done.interval.low - 128 <= limit <= (done.interval.high or inf) + 128
        assert done.low == 512 or search.verdicts()[done.low] is Verdict.PASS
    assert close >= 8
    assert covered >= cover


def test_a_clean_cliff_costs_little_more_than_reading_it() -> None:
    search = Search(Bayes(), PROBLEM, lambda length, _, __: length <= 30_000)
    done = search.run()
    assert done.low <= 30_000 < (done.high or inf)
    tokens = cached = 0.0
    for asked, _ in search.before:
        tokens += max(0.0, asked.cached_tokens - cached)
        cached = asked.cached_tokens
    questions = sum(o.trials for o in search.history)
    assert tokens + 25 * questions < 1.2 * 30_000


def test_the_answer_is_below_a_hole() -> None:
    """Wherever the climb meets it; longer lengths that pass change nothing."""
    done = Search(Bayes(), PROBLEM, lambda length, _, __: not 8000 <= length <= 9500).run()
    assert done.high is not None
    assert done.low < 8000 <= done.high <= 9500
    assert done.interval.high is not None


def test_one_lapse_on_the_way_up_does_not_stop_the_climb() -> None:
    search = Search(Bayes(), PROBLEM, lambda length, index, _: length <= 40_000 and index != 1)
    done = search.run()
    assert 36_000 < done.low <= 40_000


def test_a_broken_certificate_moves_the_answer_down() -> None:
    search = Search(Bayes(), PROBLEM, lambda length, _, __: length <= 20_000)
    first = search.run()
    search.known[first.low] = attrs.evolve(search.known[first.low], failure=Cause.FORGETS)
    second = search.run()
    assert second.low < first.low
    assert second.high is not None
    assert second.high <= first.low


REGIONAL = attrs.evolve(PROBLEM, rule=PassRule(regions=tuple(Region)), tolerance=1 / 64)


def test_without_reuse_it_asks_for_whole_requests() -> None:
    costs = CostModel(reuse=Reuse.NONE, facts=8, question_tokens=0.0)
    rule = PassRule(first=1, regions=tuple(Region))
    anew = attrs.evolve(REGIONAL, costs=costs, rule=rule)
    search = Search(Bayes(), anew, Answers(kind="cliff", truth=20_000, region=Region.HEAD))
    done = search.run()
    assert done.high is not None
    assert done.low <= 20_000 < done.high
    requests = [
        step
        for p, known in search.before
        if isinstance(step := Bayes().next_step(p, list(known.values())), Ask)
    ]
    assert sum(step.length_tokens * -(-step.trials // 8) for step in requests) < 14 * 20_000


@pytest.mark.parametrize("worth", [0.0, -1.0, float("nan")])
def test_a_worth_that_never_ends_is_refused(worth: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        Bayes(worth=worth)
