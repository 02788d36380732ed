"""`MeasureOptions.quick`: a wider bracket for about half of the tokens, continued by a full run."""

from __future__ import annotations

import pytest

from lmstrix import LMStrix, MeasureOptions
from lmstrix.events import Event, MeasurementStarted
from lmstrix.testing.simulated import Beyond, SimulatedAdapter, SimulatedModel

QUICK = MeasureOptions(quick=True)

pytestmark = pytest.mark.parametrize("anyio_backend", ["asyncio"])  # nothing here knows of the loop


@pytest.mark.parametrize("beyond", [Beyond.FORGETS_HEAD, Beyond.FORGETS_ALL, Beyond.GIBBERISH])
async def test_a_quick_answer_costs_half_and_a_full_one_continues_from_it(beyond: Beyond) -> None:
    model = SimulatedModel(key="m", declared=32_768, true_context=12_000, beyond=beyond)
    started: list[MeasurementStarted] = []

    def hear(event: Event) -> None:
        if isinstance(event, MeasurementStarted):
            started.append(event)

    whole = LMStrix(adapter=SimulatedAdapter(model), store="memory")
    full = await whole.find_true_context("m")
    client = LMStrix(adapter=SimulatedAdapter(model), store="memory", observers=[hear])
    quick = await client.find_true_context("m", QUICK)
    assert quick.cause is full.cause
    assert not quick.certified
    low, high = quick.bracket
    assert high is not None
    assert high - low <= low / 16 + 256
    # The first fact stands 48 tokens into the text, so a window loses it a little later.
    assert quick.interval.low <= 12_000 * 65 / 64
    assert (quick.interval.high or 12_000) >= 12_000
    assert quick.cost.prompt_tokens <= 0.6 * full.cost.prompt_tokens
    assert [stored.report.method.quick for stored in await client.reports()] == [True]
    assert await client.known_reports([model.info]) == {}
    assert await client.known_reports([model.info], MeasureOptions(certify=False)) == {}
    again = await client.find_true_context("m")
    assert started[-1].resumed_trials > 0
    assert again.certified
    assert again.bracket == full.bracket
    assert [stored.report.method.quick for stored in await client.reports()] == [False]
    assert await client.known_reports([model.info], QUICK)
