"""The map: one climb, every depth, tokens counted apart."""

from __future__ import annotations

import attrs
import pytest

from lmstrix.errors import ConfigurationError, EngineCrashed, EngineUnavailable, LMStrixError
from lmstrix.measure import MapOptions, RetryPolicy
from lmstrix.measure.sweep import map_context
from lmstrix.models import ContextMap, cells_of
from lmstrix.testing.simulated import Beyond, SimulatedAdapter, SimulatedModel
from lmstrix.validators.copy import Copy
from lmstrix.validators.recall import Recall

TRUTH = 3000
MODEL = SimulatedModel(key="m", declared=4096, true_context=TRUTH, beyond=Beyond.FORGETS_HEAD)
QUICK = RetryPolicy(first_wait_s=0.001, longest_wait_s=0.002)
OPTIONS = MapOptions(lengths=8, retry=QUICK)


@pytest.fixture
def anyio_backend() -> str:
    """Nothing here knows of the event loop."""
    return "asyncio"


async def draw(
    adapter: SimulatedAdapter, options: MapOptions = OPTIONS, model: SimulatedModel = MODEL
) -> ContextMap:
    return await map_context(adapter, model.info, [Recall(), Copy()], options)


async def test_the_head_is_lost_beyond_the_window() -> None:
    """Everything is right up to the truth, and above it the head fails and the tail does not."""
    found = await draw(SimulatedAdapter(MODEL))
    assert found.lengths[0] == 512
    assert found.lengths[-1] == 4096
    for layer in found.layers:
        inside = [c for c in layer.cells if c.length_tokens <= TRUTH]
        assert inside
        assert all(c.score == 1 for c in inside), layer.name
        top = {c.depth_bin: c.score for c in layer.cells if c.length_tokens == 4096}
        assert top[0] < 1
        assert top[max(top)] == 1


async def test_the_document_is_read_once() -> None:
    """Acceptance: its tokens at most 1.1 times the mapped length, questions counted apart."""
    adapter = SimulatedAdapter(MODEL)
    found = await draw(adapter)
    cost = found.cost
    assert 0.9 * 4096 <= cost.document_tokens <= 1.1 * 4096
    assert cost.questions == len(found.lengths) * 2 * OPTIONS.trials
    assert cost.document_tokens + cost.question_tokens == adapter.counters.prompt_tokens
    assert cost.cached_tokens == adapter.counters.cached_tokens
    assert cost.loads == adapter.counters.loads == 1
    assert adapter.counters.left_behind == 0


async def test_its_limit_is_the_last_length_that_keeps_its_score() -> None:
    found = await draw(SimulatedAdapter(MODEL))
    limit = found.layer("recall").limit(0.85)
    assert limit is not None
    assert TRUTH * 0.85 <= limit <= TRUTH / 0.85
    with pytest.raises(KeyError):
        found.layer("nosuch")


async def test_without_reuse_it_says_the_price_and_stops() -> None:
    forgetful = attrs.evolve(MODEL, reuses_prefixes=False)
    adapter = SimulatedAdapter(forgetful)
    with pytest.raises(ConfigurationError, match="prompt tokens instead of 4,096") as caught:
        await draw(adapter, model=forgetful)
    assert "--force" in caught.value.hint
    assert adapter.counters.prompt_tokens < 2 * OPTIONS.trials * 512
    assert adapter.counters.left_behind == 0


async def test_without_reuse_it_can_be_forced() -> None:
    forgetful = attrs.evolve(MODEL, reuses_prefixes=False)
    options = MapOptions(lengths=2, trials=2, max_context=1024, force=True)
    found = await draw(SimulatedAdapter(forgetful), options, forgetful)
    assert found.lengths == (512, 1024)
    assert "reads every prompt from the start" in found.notes[0]


async def test_a_lost_engine_is_tried_again() -> None:
    adapter = SimulatedAdapter(MODEL, faults=[EngineUnavailable("away"), EngineUnavailable("away")])
    found = await draw(adapter)
    assert found.lengths[-1] == 4096
    assert adapter.counters.left_behind == 0


@pytest.mark.parametrize("error", [EngineCrashed("it died"), EngineUnavailable("away")])
async def test_what_was_asked_before_a_failure_is_the_map(error: LMStrixError) -> None:
    class Dies(SimulatedAdapter):
        async def before_reply(self, prompt_tokens: int) -> None:
            if prompt_tokens > 2500:
                raise error

    found = await draw(Dies(MODEL))
    assert 512 < found.lengths[-1] <= 2560
    assert {cell.length_tokens for layer in found.layers for cell in layer.cells} == {
        *found.lengths
    }
    assert any(str(error) in note for note in found.notes)


async def test_every_tenth_of_the_window_is_asked_about() -> None:
    found = await draw(SimulatedAdapter(MODEL), attrs.evolve(OPTIONS, trials=10))
    longest = found.lengths[-1]
    cells = found.layer("recall").cells
    assert len({c.depth_bin for c in cells if c.length_tokens == longest}) >= 9


async def test_what_is_clamped_is_mapped_as_far_as_it_goes() -> None:
    clamped = attrs.evolve(MODEL, clamped_to=2048)
    found = await draw(SimulatedAdapter(clamped), model=clamped)
    assert found.lengths[-1] == 2048


@pytest.mark.parametrize(
    "bad", [{"max_context": 100}, {"lengths": 1}, {"trials": 0}, {"ratio": 0.0}, {"ratio": 1.5}]
)
def test_settings_out_of_range_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError):
        MapOptions(**bad)  # type: ignore[arg-type]


def test_cells_are_means() -> None:
    cells = cells_of([(512, 0.05, True, 1.0), (512, 0.09, False, 0.5), (512, 1.0, True, 1.0)])
    assert [(c.depth_bin, c.trials, c.passes, c.score) for c in cells] == [
        (0, 2, 1, 0.75),
        (9, 1, 1, 1.0),
    ]


@pytest.mark.parametrize("force", [False, True])
async def test_no_more_is_loaded_than_memory_is_expected_to_hold(*, force: bool) -> None:
    adapter = SimulatedAdapter(MODEL, memory_bytes=3000 * MODEL.bytes_per_token)
    found = await draw(adapter, attrs.evolve(OPTIONS, force=force))
    assert 3000 - 512 <= found.lengths[-1] <= 3000
    assert "are available" in " ".join(found.notes)
    assert adapter.counters.loads == 1
