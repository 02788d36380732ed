"""What every validator must do, as a pytest suite.

::

class TestMyValidator(ValidatorContract):
    @pytest.fixture
    def validator(self) -> Validator:
        return MyValidator()

The loaded model is simulated and has a perfect memory: it goes on from the answer prefix as
the text does. Override `perfect_reply` if your questions need another kind of answer.
"""
# ruff: noqa: S101 - a test suite asserts, also if it is shipped

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from itertools import pairwise, takewhile

import pytest

from lmstrix.models import Judgement, Question, Region, Reply, StopReason
from lmstrix.ports import LoadedModel, SeveralSource, SeveralValidator, Validator
from lmstrix.testing.simulated import SimulatedAdapter, SimulatedModel

HUGE = 1_000_000
"""Context of the simulated model, in tokens: nothing here comes near it."""

LENGTHS = (1000, 2048, 3001, 8192)
"""Also lengths that are not powers of two."""

SLACK_TOKENS = 64
"""The longest question falls short of its length by less than one sentence."""

ASKED = 24
"""Questions looked at per length: two rounds or so."""

LONG = 30_000

SEVERAL_LENGTHS = (2048, 8192)
SEVERAL_CHARACTERS = 4000
"""A request for several facts, and the room for its reply, may be so long."""

ODD_TEXTS = ("\x00", "\ud800", "\u202e1", "\U0010ffff" * 9, "1," * 5000, "a" * 50_000, "\n" * 999)
"""Controls, half a surrogate pair, private characters, and texts without an end."""


def _shared(*texts: str) -> int:
    """Characters that all begin with."""
    columns = zip(*texts, strict=False)
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))


@pytest.mark.anyio
class ValidatorContract:
    """Subclass it and override the fixture `validator`."""

    tells_values = True
    """Whether an answer is a value that stands in the text once. Set False for any other kind."""

    covers_regions_from = 4096
    """The length, in tokens, from which each region holds something to ask about."""

    @pytest.fixture
    def validator(self) -> Validator:
        """The validator that is held to the contract."""
        raise NotImplementedError("override the fixture `validator`")

    @pytest.fixture
    async def loaded(self) -> AsyncGenerator[LoadedModel, None]:
        """A simulated model that forgets nothing."""
        adapter = SimulatedAdapter(SimulatedModel(declared=HUGE, true_context=HUGE))
        model = await adapter.find_model("simulated")
        async with adapter.load(model, HUGE) as loaded:
            yield loaded

    async def perfect_reply(self, loaded: LoadedModel, question: Question) -> Reply:
        """What a model with a perfect memory answers."""
        return await loaded.complete(
            question.prompt, max_tokens=question.max_tokens, stop=question.stop
        )

    async def test_it_is_a_validator(self, validator: Validator) -> None:
        """It has the port's shape, a name, and a length for the baseline."""
        assert isinstance(validator, Validator)
        assert validator.name
        assert validator.baseline_length > 0

    async def test_questions_can_be_asked_again(
        self, validator: Validator, loaded: LoadedModel
    ) -> None:
        """The same one every time, whatever was asked in between, and from a new source."""
        source = validator.questions(loaded, 7)
        wanted = [(n, i) for n in LENGTHS for i in range(6)]
        first = {key: await source.question(*key) for key in wanted}
        other = validator.questions(loaded, 7)
        for key in reversed(wanted):
            assert await other.question(*key) == first[key]
            assert await source.question(*key) == first[key]

    async def test_questions_fill_their_length(
        self, validator: Validator, loaded: LoadedModel
    ) -> None:
        """Prompt and reserved reply never exceed it, and the longest question nearly fills it."""
        source = validator.questions(loaded, 7)
        for length in (validator.baseline_length, *LENGTHS):
            sizes: list[int] = []
            for index in range(ASKED):
                question = await source.question(length, index)
                tokens = await loaded.count_prompt_tokens(question.prompt)
                assert question.max_tokens > 0
                sizes.append(tokens + question.max_tokens)
            assert length - SLACK_TOKENS < max(sizes) <= length

    async def test_questions_at_one_length_share_their_text(
        self, validator: Validator, loaded: LoadedModel
    ) -> None:
        """All but the end, so that an engine's prefix cache serves them all."""
        source = validator.questions(loaded, 7)
        for length in LENGTHS:
            texts = [(await source.question(length, i)).prompt.user for i in range(ASKED)]
            assert _shared(*texts) > 0.9 * max(len(text) for text in texts)

    async def test_a_longer_length_extends_the_document(
        self, validator: Validator, loaded: LoadedModel
    ) -> None:
        """What was read for a shorter length need not be read again."""
        source = validator.questions(loaded, 7)
        texts = [(await source.question(length, 0)).prompt.user for length in LENGTHS]
        for shorter, longer in pairwise(texts):
            assert _shared(shorter, longer) > 0.9 * len(shorter)

    async def test_seeds_make_different_documents(
        self, validator: Validator, loaded: LoadedModel
    ) -> None:
        """A fresh document certifies what another one found."""
        texts: list[str] = []
        for seed in (0, 1, 2**31):
            question = await validator.questions(loaded, seed).question(2048, 0)
            texts.append(question.prompt.user)
        for one, other in pairwise(texts):
            assert _shared(one, other) < 0.1 * len(one)

    async def test_depths_are_shares(self, validator: Validator, loaded: LoadedModel) -> None:
        """From 0 to 1, or None if a question has no one place."""
        source = validator.questions(loaded, 7)
        for length in LENGTHS:
            for index in range(ASKED):
                depth = (await source.question(length, index)).depth
                assert depth is None or 0 <= depth <= 1

    async def test_questions_are_about_their_region(
        self, validator: Validator, loaded: LoadedModel
    ) -> None:
        """A question names the region it was asked for, and its answer stands there."""
        source = validator.questions(loaded, 7)
        for length in LENGTHS:
            for region in validator.regions:
                for index in range(10):
                    question = await source.question(length, index, region)
                    assert question.region is region
                    assert question.depth is not None
                    if length >= self.covers_regions_from:
                        assert Region.at(question.depth) is region

    async def test_ten_questions_cover_their_region(
        self, validator: Validator, loaded: LoadedModel
    ) -> None:
        """A third of its span or more lies between the first answer and the last."""
        source = validator.questions(loaded, 7)
        for region in validator.regions:
            questions = [await source.question(LONG, index, region) for index in range(10)]
            depths = [q.depth for q in questions if q.depth is not None]
            begin, end = region.span
            if self.covers_regions_from <= LONG:
                assert max(depths) - min(depths) > 0.3 * (end - begin)
            assert len({(q.prompt.answer_prefix, q.prompt.user) for q in questions}) == 10

    async def test_without_a_region_all_take_turns(
        self, validator: Validator, loaded: LoadedModel
    ) -> None:
        """So that a caller who names no region samples the whole window."""
        if not validator.regions:
            return
        source = validator.questions(loaded, 7)
        asked = {(await source.question(8192, index)).region for index in range(5)}
        assert asked == set(validator.regions)

    async def test_several_questions_in_one_request(
        self, validator: Validator, loaded: LoadedModel
    ) -> None:
        """Same rules as for one: it fills its length, shares the text, and each part is judged."""
        source = validator.questions(loaded, 7)
        if not isinstance(validator, SeveralValidator) or not isinstance(source, SeveralSource):
            return
        for length in SEVERAL_LENGTHS:
            one = await source.question(length, 0)
            for most in (2, validator.most_facts):
                wanted = [(region, at) for at in range(5) for region in validator.regions][:most]
                question = await source.several(length, wanted)
                assert question == await source.several(length, wanted)
                assert [part.region for part in question.parts] == [region for region, _ in wanted]
                tokens = await loaded.count_prompt_tokens(question.prompt)
                assert length - SLACK_TOKENS < tokens + question.max_tokens <= length
                same = _shared(question.prompt.user, one.prompt.user)
                assert same > len(one.prompt.user) - SEVERAL_CHARACTERS
                reply = await self.perfect_reply(loaded, question)
                judged = list(validator.judge_each(question, reply))
                assert judged == [Judgement.PASS] * most
                nothing = Reply(text="", prompt_tokens=900, stop_reason=StopReason.END)
                assert set(validator.judge_each(question, nothing)) == {Judgement.EMPTY}

    async def test_values_cannot_be_guessed(
        self, validator: Validator, loaded: LoadedModel
    ) -> None:
        """The value stands in the text once at most, and not in the answer's first words."""
        if not self.tells_values:
            return
        source = validator.questions(loaded, 7)
        for length in LENGTHS:
            for index in range(ASKED):
                question = await source.question(length, index)
                value = re.compile(rf"(?<!\w){re.escape(question.expected)}(?!\w)")
                assert len(value.findall(question.prompt.user)) <= 1
                assert not value.search(question.prompt.answer_prefix)

    async def test_a_perfect_reply_passes(self, validator: Validator, loaded: LoadedModel) -> None:
        """At every length and for every question."""
        source = validator.questions(loaded, 7)
        for length in (validator.baseline_length, *LENGTHS):
            for index in range(ASKED):
                question = await source.question(length, index)
                reply = await self.perfect_reply(loaded, question)
                assert validator.judge(question, reply) is Judgement.PASS

    async def test_no_answer_does_not_pass(self, validator: Validator, loaded: LoadedModel) -> None:
        """Silence, blanks and noise are failures, and judged as such."""
        question = await validator.questions(loaded, 7).question(1000, 0)
        for text in ("", " \n\t", "…!?" * 4, "the " * 12):
            reply = Reply(text=text, prompt_tokens=900, stop_reason=StopReason.END)
            judged = validator.judge(question, reply)
            assert judged not in (Judgement.PASS, Judgement.INCONCLUSIVE)

    async def test_any_text_is_judged(self, validator: Validator, loaded: LoadedModel) -> None:
        """Whatever a broken engine sends: one judgement, and no error."""
        question = await validator.questions(loaded, 7).question(1000, 0)
        for text in ODD_TEXTS:
            for stop in StopReason:
                reply = Reply(text=text, prompt_tokens=900, stop_reason=stop)
                assert validator.judge(question, reply) in Judgement

    async def test_another_answer_does_not_pass(
        self, validator: Validator, loaded: LoadedModel
    ) -> None:
        """What is right for one question is wrong for one with another answer."""
        if not self.tells_values:
            return
        source = validator.questions(loaded, 7)
        questions = [await source.question(2048, i) for i in range(ASKED)]
        for question in questions:
            reply = await self.perfect_reply(loaded, question)
            for other in questions:
                if other.expected != question.expected:
                    assert validator.judge(other, reply) is not Judgement.PASS

    async def test_a_reply_that_was_not_finished_is_inconclusive(
        self, validator: Validator, loaded: LoadedModel
    ) -> None:
        """A thought that ran out, and a reply that was cancelled, say nothing of the model."""
        question = await validator.questions(loaded, 7).question(1000, 0)
        ran_out = Reply(
            text="",
            reasoning="The text says a lot of things, so",
            stop_reason=StopReason.MAX_TOKENS,
            prompt_tokens=900,
        )
        cancelled = Reply(text=" 1", stop_reason=StopReason.CANCELLED, prompt_tokens=900)
        for reply in (ran_out, cancelled):
            assert validator.judge(question, reply) is Judgement.INCONCLUSIVE
