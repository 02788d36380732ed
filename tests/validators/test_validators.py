"""The shipped validators keep their contract; and what copy, crowd and tracing are about."""

from __future__ import annotations

import pytest

from lmstrix.errors import ConfigurationError
from lmstrix.models import Judgement, Region, Reply, StopReason
from lmstrix.ports import LoadedModel, Validator
from lmstrix.testing.contracts.validator import ValidatorContract
from lmstrix.testing.simulated import Beyond, SimulatedAdapter, SimulatedModel
from lmstrix.validators.coherence import Coherence
from lmstrix.validators.copy import Copy, copied_share
from lmstrix.validators.haystack import HaystackSpec
from lmstrix.validators.needles import names_stem, stem_of
from lmstrix.validators.recall import Recall
from lmstrix.validators.ruler import Crowd, Tracing

HUGE = 10**6


class TestContract(ValidatorContract):
    @pytest.fixture(params=[Recall, Coherence, Copy, Crowd, Tracing])
    def validator(self, request: pytest.FixtureRequest) -> Validator:
        self.tells_values = request.param not in (Coherence, Copy)
        if request.param is Tracing:  # a chain is spread over a tenth of the window
            self.covers_regions_from = 10**9
        return request.param()


@pytest.mark.parametrize("kind", [Crowd, Tracing])
def test_what_is_not_planted_cannot_be_asked_for(kind: type[Crowd | Tracing]) -> None:
    with pytest.raises(ConfigurationError, match="needs a haystack"):
        kind(spec=HaystackSpec())


def reply(text: str) -> Reply:
    return Reply(text=text, prompt_tokens=900, stop_reason=StopReason.MAX_TOKENS)


FOLLOWING = "heavy lantern, near the"


@pytest.mark.parametrize(
    ("text", "score"),
    [
        (" heavy lantern, near the river before sunrise", 1),
        (" HEAVY LANTERN near the", 1),
        (" heavy lantern, near a river", 0.75),
        (" heavy lantern", 0.5),
        (" heavy barrel, near the river", 0.25),
        (" light lantern, near the river", 0),
        (" the heavy lantern near the", 0),
        ("", 0),
        ("?!", 0),
    ],
)
def test_the_score_counts_words_up_to_the_first_slip(text: str, score: float) -> None:
    assert copied_share(FOLLOWING, text) == score


@pytest.mark.parametrize(("validator", "within"), [(Copy(), 0.03), (Recall(), 0.1)])
async def test_a_map_asks_at_the_depth_it_wants(
    loaded: LoadedModel, validator: Copy | Recall, within: float
) -> None:
    source = validator.questions(loaded, 3)
    for depth in (0.0, 0.2, 0.5, 0.8):
        question = await source.at_depth(8192, depth)
        assert abs((question.depth or 0.0) - depth) < within
        assert await source.at_depth(8192, depth) == question
        assert await source.at_depth(8192, depth, turn=1) != question


async def test_chains_are_followed_and_gathered(loaded: LoadedModel) -> None:
    source = Tracing().questions(loaded, 3)
    hop, names = [await source.question(4096, i, Region.MIDDLE) for i in range(2)]
    assert (hop.kind, names.kind) == ("number", "names")
    # the number stands beside the first name of the chain, the last one is asked for
    first, last = names.expected.split(", ")[0], names.expected.split(", ")[-1]
    assert f"The flask with the {first} holds {hop.expected} drops." in hop.prompt.user
    assert hop.prompt.answer_prefix == stem_of(last)
    assert names.prompt.answer_prefix == names_stem(hop.expected)
    judge = Tracing().judge
    given = names.expected.split(", ")
    assert judge(names, reply(" " + " and the ".join(reversed(given)))) is Judgement.PASS
    assert judge(names, reply(" " + ", ".join(given[:-1]))) is Judgement.WRONG
    everything = ", ".join([*given, "amber star", "lilac rose", "white key"])
    assert judge(names, reply(everything)) is Judgement.WRONG


@pytest.mark.parametrize("kind", [Copy, Crowd, Tracing])
async def test_without_the_head_it_cannot_be_done(kind: type[Copy | Crowd | Tracing]) -> None:
    validator: Validator = kind(spec=HaystackSpec(crowd=True, chains=True))
    model = SimulatedModel(declared=HUGE, true_context=2000, beyond=Beyond.FORGETS_HEAD)
    adapter, judged = SimulatedAdapter(model), list[Judgement]()
    async with adapter.load(model.info, HUGE) as loaded:
        source = validator.questions(loaded, 3)
        for region in (Region.HEAD, Region.TAIL):
            asked = await source.question(4000, 0, region)
            given = await loaded.complete(
                asked.prompt, max_tokens=asked.max_tokens, stop=asked.stop
            )
            judged.append(validator.judge(asked, given))
    assert judged[0] is Judgement.WRONG
    if kind is not Tracing:  # a chain is spread over a tenth of the window
        assert judged[1] is Judgement.PASS


@pytest.mark.parametrize("length", [512, 8192, 40_000])
async def test_the_words_before_a_passage_stand_there_once(
    loaded: LoadedModel, length: int
) -> None:
    source = Copy().questions(loaded, 3)
    for index in range(10):
        question = await source.question(length, index)
        text, begun = question.prompt.user, question.prompt.answer_prefix
        assert text.count(begun) == 1
        assert f"{begun} {question.expected}" in text
