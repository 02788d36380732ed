"""What a probe costs, and how that is learnt from a measurement's own trials."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import attrs
import pytest

from lmstrix.problem import CostModel, Reuse, learn_costs
from lmstrix.models import Baseline, Judgement, Trial
from lmstrix.problem import PassRule, SearchProblem

BASELINE = Baseline(passes=12, trials=12, length_tokens=512)
RULE = PassRule()
QUESTION = 9
PREFIX = CostModel(probe=0.0, question_tokens=10.0, generated_tokens=2.0, generated_token=5.0)


def engine(
    probes: Sequence[tuple[int, int]],
    reuse: Reuse = Reuse.PREFIX,
    *,
    seconds: float = 0.001,
    attention: float | None = None,
    noise: float = 0.0,
    counts: bool = True,
) -> list[Trial]:
    """The trials of an engine: (length, how many questions), one document."""
    rng = Random(1)
    held = 0
    ends: list[int] = []
    trials: list[Trial] = []
    for length, asked in probes:
        for index in range(asked):
            body = length - QUESTION
            cached = min(held, body)
            if reuse is Reuse.NONE:
                cached = 0
            elif reuse is Reuse.CHECKPOINTS and held > body:
                cached = max((end for end in ends if end <= body), default=0)
            quadratic = 0.0 if attention is None else (length**2 - cached**2) / attention
            took = (length - cached + quadratic) * seconds * rng.uniform(1 - noise, 1 + noise)
            trials.append(
                Trial(
                    phase="search",
                    length_tokens=length,
                    seed=1,
                    index=index,
                    depth=0.5,
                    kind="middle",
                    judgement=Judgement.PASS,
                    prompt_tokens=length,
                    cached_tokens=cached if counts else None,
                    generated_tokens=4,
                    ttft_s=took,
                    tokens_per_second=100 * rng.uniform(1 - noise, 1 + noise),
                )
            )
            held = body
            ends = [end for end in ends if end < body] + [body]
    return trials


CLIMB = [(512, 4), (1024, 4), (2048, 4), (4096, 4), (8192, 4), (6144, 4), (7168, 4)]


@pytest.mark.parametrize("reuse", Reuse)
def test_reuse_is_told_from_the_engines_own_counts(reuse: Reuse) -> None:
    assert learn_costs(engine(CLIMB, reuse)).reuse is reuse


def test_a_step_back_that_reads_all_again_is_an_engine_with_checkpoints() -> None:
    """Where no earlier prompt ended below."""
    assert learn_costs(engine([(8192, 4), (4096, 4)], Reuse.CHECKPOINTS)).reuse is Reuse.CHECKPOINTS


def test_one_lost_cache_is_no_rule() -> None:
    trials = engine(CLIMB)
    lost = attrs.evolve(trials[-1], cached_tokens=0)
    assert learn_costs([*trials[:-1], lost]).reuse is Reuse.PREFIX


def test_the_size_of_questions_and_answers() -> None:
    learnt = learn_costs(engine(CLIMB))
    assert learnt.question_tokens == QUESTION
    assert learnt.generated_tokens == 4


@pytest.mark.parametrize("reuse", [Reuse.PREFIX, Reuse.NONE])
def test_where_nothing_is_counted_times_tell(reuse: Reuse) -> None:
    learnt = learn_costs(engine(CLIMB, reuse, counts=False, noise=0.05))
    assert learnt.reuse is reuse
    assert learnt.seconds_per_token == pytest.approx(0.001, rel=0.25)


def test_with_neither_counts_nor_times_it_is_the_default() -> None:
    untimed = [attrs.evolve(t, ttft_s=None) for t in engine(CLIMB, counts=False)]
    assert learn_costs(untimed) == attrs.evolve(CostModel(), generated_tokens=4.0)


def test_nothing_known_is_the_default() -> None:
    assert learn_costs([]) == CostModel()


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_speed_and_attention_are_learnt_to_an_octave(noise: float) -> None:
    learnt = learn_costs(engine(CLIMB, attention=16384.0, noise=noise))
    assert learnt.seconds_per_token == pytest.approx(0.001, rel=0.25)
    assert learnt.attention_tokens is not None
    assert 8192 <= learnt.attention_tokens <= 32768
    assert 4 <= learnt.generated_token <= 16


def test_little_noise_changes_nothing() -> None:
    quiet, noisy = learn_costs(engine(CLIMB)), learn_costs(engine(CLIMB, noise=0.01))
    assert noisy == quiet


def test_few_times_teach_nothing() -> None:
    learnt = learn_costs(engine([(512, 2)]))
    assert learnt.attention_tokens is None
    assert learnt.generated_token == CostModel().generated_token


def test_no_attention_is_seen_where_there_is_none() -> None:
    attention = learn_costs(engine(CLIMB)).attention_tokens
    assert attention is None or attention > 100_000


def test_extending_reads_the_new_part() -> None:
    assert PREFIX.prompt_tokens(3000, cached=2000, trials=3) == 1030
    assert PREFIX.tokens(3000, cached=2000, trials=3) == 1036
    assert PREFIX.cost(3000, cached=2000, trials=3) == 1000 + 3 * (10 + 2 * 5)


def test_going_to_another_length_costs_something_of_its_own() -> None:
    costs = attrs.evolve(PREFIX, probe=64.0)
    assert costs.cost(3000, cached=2000) == PREFIX.cost(3000, cached=2000) + 64
    assert costs.cost(2000, cached=2000) == PREFIX.cost(2000, cached=2000)


def test_stepping_back_depends_on_the_engine() -> None:
    checkpoints = attrs.evolve(PREFIX, reuse=Reuse.CHECKPOINTS)
    nothing = attrs.evolve(PREFIX, reuse=Reuse.NONE)
    assert PREFIX.prompt_tokens(3000, cached=5000, checkpoint=2000) == 10
    assert checkpoints.prompt_tokens(3000, cached=5000, checkpoint=2000) == 1010
    assert checkpoints.prompt_tokens(3000, cached=5000) == 3010
    assert nothing.prompt_tokens(3000, cached=2999, trials=2) == 6020


def test_attention_makes_the_long_end_dearer() -> None:
    quadratic = attrs.evolve(PREFIX, attention_tokens=1000.0)
    assert quadratic.reading(1000) == 2000
    assert quadratic.cost(2000, cached=1000) == (2000 + 4000) - 2000 + 10 * 5 + 10


def test_seconds_need_a_speed() -> None:
    assert PREFIX.seconds(1000) is None
    assert attrs.evolve(PREFIX, seconds_per_token=0.5).seconds(1000) == 510


@pytest.mark.parametrize(
    ("tokens", "affordable"), [(None, 4), (1048, 4), (1047, 3), (1012, 1), (1011, 0), (0, 0)]
)
def test_a_budget_pays_for_so_many_trials(tokens: int | None, affordable: int) -> None:
    problem = SearchProblem(
        floor=512,
        ceiling=8192,
        baseline=BASELINE,
        rule=RULE,
        costs=PREFIX,
        cached_tokens=2000,
        remaining_tokens=tokens,
    )
    assert problem.affordable(3000, 4) == affordable


@pytest.mark.parametrize(("seconds", "affordable"), [(2.0, 4), (1.05, 2), (1.0, 0)])
def test_time_is_a_budget_too(seconds: float, affordable: int) -> None:
    problem = SearchProblem(
        floor=512,
        ceiling=8192,
        baseline=BASELINE,
        rule=RULE,
        costs=attrs.evolve(PREFIX, seconds_per_token=0.001),
        cached_tokens=2000,
        remaining_s=seconds,
    )
    assert problem.affordable(3000, 4) == affordable
