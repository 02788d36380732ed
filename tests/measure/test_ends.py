"""How measurements end that have no easy end: each with what is true, and a name for it."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import pytest

from lmstrix import Cause, LMStrix, MeasureOptions
from lmstrix.errors import ConfigurationError
from lmstrix.measure import Measurement
from lmstrix.models import ContextReport, Judgement, Observation, Prompt, Question, Region, Reply
from lmstrix.ports import LoadedModel, QuestionSource, SearchStrategy, Validator
from lmstrix.problem import Ask, CostModel, Done, SearchProblem
from lmstrix.search.bayes import Bayes
from lmstrix.search.gallop import Gallop
from lmstrix.stores.sqlite import SqliteStore
from lmstrix.testing.simulated import SimulatedAdapter, SimulatedModel, prompt_tokens
from lmstrix.validators.recall import Recall

MODEL = SimulatedModel(key="m", declared=8192, true_context=10**6)


async def measure(validator: Validator, strategy: SearchStrategy) -> ContextReport:
    adapter = SimulatedAdapter(MODEL)
    measurement = Measurement(
        adapter=adapter,
        model=await adapter.find_model("m"),
        strategy=strategy,
        validator=validator,
        store=SqliteStore(":memory:"),
        options=MeasureOptions(),
    )
    return await measurement.run()


async def test_a_template_that_leaves_no_room_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the baseline's length, by a model that comes with instructions of its own."""

    def wordy(prompt: Prompt) -> list[str]:
        return [*["<s>"] * 600, *prompt_tokens(prompt)]

    monkeypatch.setattr("lmstrix.testing.simulated.prompt_tokens", wordy)
    report = await measure(Recall(), Gallop())
    assert (report.true_context, report.cause) == (None, Cause.NOT_MEASURABLE)
    assert report.notes == (
        "at 512 tokens nothing can be asked: a question does not fit in 496 tokens",
    )


@pytest.mark.parametrize("options", [MeasureOptions(max_context=511), MeasureOptions(only_at=511)])
async def test_a_length_too_short_to_ask_anything_is_no_limit(options: MeasureOptions) -> None:
    """It is a mistake in the options, told before anything is loaded."""
    adapter = SimulatedAdapter(MODEL)
    client = LMStrix(adapter=adapter, store="memory")
    with pytest.raises(ConfigurationError, match="511 tokens are too few"):
        await client.find_true_context("m", options)
    assert adapter.counters.loads == 0


async def test_a_pass_rate_that_it_misses_when_short_is_no_limit() -> None:
    """Not even its shortest prompt passes, so there is no length that is known to."""
    adapter = SimulatedAdapter(attrs.evolve(MODEL, lapses=0.4))
    client = LMStrix(adapter=adapter, store="memory")
    report = await client.find_true_context("m", MeasureOptions(ratio=0.99, absolute=True))
    assert 0.5 <= report.baseline.rate < 0.9
    assert (report.true_context, report.cause) == (None, Cause.NOT_MEASURABLE)


class Careful(Gallop):
    """Asks one thing more where it does not know what that costs."""

    def next_step(self, problem: SearchProblem, history: Sequence[Observation]) -> Ask | Done:
        step = super().next_step(problem, history)
        more = isinstance(step, Done) and problem.costs == CostModel()
        return Ask(length_tokens=1024, trials=1) if more else step


async def test_without_a_budget_none_is_spent() -> None:
    report = await measure(Recall(), Careful())
    assert (report.true_context, report.cause) == (8192, Cause.DECLARED_MAXIMUM)


@attrs.frozen
class _Marked:
    """Recall's questions, with the number of their document as their kind."""

    inner: QuestionSource
    seed: int

    async def question(
        self, length_tokens: int, index: int, region: Region | None = None
    ) -> Question:
        question = await self.inner.question(length_tokens, index, region)
        return attrs.evolve(question, kind=str(self.seed))


LIMITS = {1000: 10**6, 1001: 10**6, 1002: 4400, 1003: 3400, 1004: 2600, 1005: 2000}


@attrs.frozen
class Downhill:
    """A task with another limit on each document: each certificate's is lower than the last."""

    name: str = "downhill"
    baseline_length: int = 512
    regions: tuple[Region, ...] = tuple(Region)

    def questions(self, loaded: LoadedModel, seed: int) -> QuestionSource:
        return _Marked(Recall().questions(loaded, seed), seed)

    def judge(self, question: Question, reply: Reply) -> Judgement:
        length = reply.prompt_tokens + question.max_tokens
        return Judgement.PASS if length <= LIMITS[int(question.kind)] else Judgement.WRONG


async def test_after_the_last_certificate_the_search_goes_on_to_an_answer() -> None:
    """It moved the bracket too: what is reported is as narrow as any other."""
    report = await measure(Downhill(), Bayes())
    low, high = report.bracket
    assert not report.certified
    assert "4 certificates did not hold" in " ".join(report.notes)
    assert high is not None
    assert low <= 2000 < high
    assert high - low <= 256
