"""What an interrupted measurement goes on with, when the world has changed meanwhile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from random import Random

import anyio
import anyio.lowlevel
import attrs
import pytest

from lmstrix import Cause, LMStrix, MeasureOptions
from lmstrix.adapters.token_counts import common_length
from lmstrix.events import Event, LoadStarted, TrialFinished
from lmstrix.models import (
    ContextReport,
    Cost,
    Judgement,
    ModelInfo,
    Question,
    Region,
    Reply,
    StoredMeasurement,
    Trial,
)
from lmstrix.stores.sqlite import SqliteStore
from lmstrix.testing.simulated import Beyond, SimulatedAdapter, SimulatedModel
from lmstrix.validators.recall import Recall

MODEL = SimulatedModel(key="m", declared=8192, true_context=6000, beyond=Beyond.FORGETS_ALL)


async def spend(store: SqliteStore, tokens: int, model: SimulatedModel = MODEL) -> None:
    """A measurement that ends early, because of its budget."""
    client = LMStrix(adapter=SimulatedAdapter(model), store=store)
    report = await client.find_true_context("m", MeasureOptions(budget_tokens=tokens))
    assert report.cause is Cause.BUDGET_SPENT


@pytest.mark.parametrize("certify", [True, False])
async def test_where_less_loads_than_before_the_answer_is_within_it(*, certify: bool) -> None:
    """What was found out above is about another load, also where all of it passed."""
    store = SqliteStore(":memory:")
    await spend(store, 9000)
    less = SimulatedAdapter(attrs.evolve(MODEL, loadable=3000))
    client = LMStrix(adapter=less, store=store)
    report = await client.find_true_context("m", MeasureOptions(certify=certify))
    assert report.loadable_context is not None
    assert report.true_context == report.loadable_context
    low, high = report.bracket
    assert high is not None
    assert low == report.true_context
    assert low <= 3000 < high <= low + 256
    assert (report.cause, report.certified) == (Cause.LOAD_FAILED, certify)
    assert max(point.length_tokens for point in report.curve) <= 3000
    assert max(level.limit_tokens or 0 for level in report.levels) <= 3000
    assert "an earlier run loaded a larger context" in " ".join(report.notes)


class Killed(Exception):
    """Stands for the end of the process."""


class DyingStore(SqliteStore):
    """Keeps the mark of a load, and ends the run there, as a kill would."""

    dies = True

    async def mark_load(self, measurement_id: str, context_length: int) -> None:
        await super().mark_load(measurement_id, context_length)
        if self.dies:
            raise Killed

    async def clear_load(self, measurement_id: str) -> None:
        if not self.dies:  # a killed process writes nothing more
            await super().clear_load(measurement_id)


async def test_a_size_at_which_two_runs_died_is_left_out() -> None:
    """Also by the run after the next one; a single death may have had any reason."""
    store, sizes = DyingStore(":memory:"), list[int]()

    def hear(event: Event) -> None:
        if isinstance(event, LoadStarted):
            sizes.append(event.context_length)

    def client() -> LMStrix:
        adapter = SimulatedAdapter(MODEL, owns_engine=True)
        return LMStrix(adapter=adapter, store=store, observers=[hear])

    for _ in range(2):
        with pytest.raises(Killed):
            await client().find_true_context("m")
    store.dies = False
    partial = await client().find_true_context("m", MeasureOptions(budget_tokens=1000))
    assert partial.cause is Cause.BUDGET_SPENT
    report = await client().find_true_context("m")
    assert not sizes or max(sizes) < 8192
    assert "2 earlier runs died" in " ".join(report.notes)
    await client().find_true_context("m", MeasureOptions(force=True))
    assert max(sizes) == 8192


class Keyed(SqliteStore):
    """Tells under which key the last measurement is kept."""

    key = ""

    async def begin(self, key: str, model: ModelInfo) -> StoredMeasurement:
        self.key = key
        return await super().begin(key, model)


async def test_a_load_that_ends_leaves_no_mark() -> None:
    store = Keyed(":memory:")
    adapter = SimulatedAdapter(attrs.evolve(MODEL, loadable=4096), owns_engine=True)
    client = LMStrix(adapter=adapter, store=store)
    report = await client.find_true_context("m", MeasureOptions(budget_tokens=2000))
    assert report.cause is Cause.BUDGET_SPENT
    stored = await store.unfinished(store.key)
    assert stored is not None
    assert stored.deaths == ()


class Costless(SqliteStore):
    """Has no cost, as if the process was killed before it said what it had spent."""

    async def save_cost(self, measurement_id: str, cost: Cost) -> None:
        """Nothing: it was killed."""


async def test_the_cost_of_a_killed_run_is_counted() -> None:
    store, adapter = Costless(":memory:"), SimulatedAdapter(MODEL)
    client = LMStrix(adapter=adapter, store=store)
    await client.find_true_context("m", MeasureOptions(budget_tokens=9000))
    report = await client.find_true_context("m")
    assert report.cost.prompt_tokens == adapter.counters.prompt_tokens
    assert report.cost.cached_tokens == adapter.counters.cached_tokens


class Slow(SqliteStore):
    """Lets go of the event loop before it writes, and says so first."""

    def __init__(self, before: Callable[[], object]) -> None:
        super().__init__(":memory:")
        self.kept: list[Trial] = []
        self._before = before

    async def append_trials(self, measurement_id: str, trials: Sequence[Trial]) -> Sequence[Trial]:
        self._before()
        await anyio.lowlevel.checkpoint()
        counted = await super().append_trials(measurement_id, trials)
        self.kept += trials
        return counted


async def test_an_answer_that_has_come_is_kept_though_cancelled_while_it_is_written() -> None:
    scope = anyio.CancelScope()
    store = Slow(scope.cancel)
    with scope:
        await LMStrix(adapter=SimulatedAdapter(MODEL), store=store).find_true_context("m")
    assert scope.cancelled_caught
    assert len(store.kept) == 1
    asked = Counter[tuple[object, ...]]()

    def hear(event: Event) -> None:
        if isinstance(event, TrialFinished):
            t = event.trial
            asked[t.level, t.phase, t.length_tokens, t.seed, t.region, t.index] += 1

    await LMStrix(adapter=SimulatedAdapter(MODEL), store=store, observers=[hear]).find_true_context(
        "m"
    )
    (t,) = store.kept[:1]
    assert not asked[t.level, t.phase, t.length_tokens, t.seed, t.region, t.index]
    assert set(asked.values()) == {1}


class Dying(SqliteStore):
    """Ends the run before or after it has kept its `at`-th request."""

    def __init__(self) -> None:
        super().__init__(":memory:")
        self.at: int | None = None
        self.requests = 0
        self.sizes = set[int]()
        self.asked: list[tuple[object, ...]] = []

    async def append_trials(self, measurement_id: str, trials: Sequence[Trial]) -> Sequence[Trial]:
        self.requests += 1
        self.sizes.add(len(trials))
        self.asked += [
            (t.level, t.phase, t.length_tokens, t.seed, t.region, t.index) for t in trials
        ]
        counted = await super().append_trials(measurement_id, trials)
        if self.requests == self.at:
            raise Killed
        return counted


SMALL = SimulatedModel(key="m", declared=4096, true_context=2200)


@pytest.mark.parametrize(
    "model",
    [
        SMALL,
        attrs.evolve(SMALL, beyond=Beyond.FORGETS_MIDDLE, lapses=0.04),
        attrs.evolve(SMALL, reuses_prefixes=False),
    ],
    ids=["head", "middle, lapses", "no reuse"],
)
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_kill_between_any_two_requests_changes_nothing(model: SimulatedModel) -> None:
    """Bracket, cause and regions are those of a run that was not killed, and nothing is asked
    twice.
    """

    async def measured(store: Dying) -> ContextReport:
        client = LMStrix(adapter=SimulatedAdapter(model), store=store, levels=())
        return await client.find_true_context("m")

    whole = Dying()
    expected = await measured(whole)
    for at in range(1, whole.requests, max(1, whole.requests // 8)):
        store = Dying()
        store.at = at
        with pytest.raises(Killed):
            await measured(store)
        report = await measured(store)
        assert (report.bracket, report.cause) == (expected.bracket, expected.cause)
        assert report.regions == expected.regions
        assert report.certified is expected.certified
        assert len(store.asked) == len(set(store.asked))
    assert max(whole.sizes) == (1 if model.reuses_prefixes else 8)


class FadesEarly(Recall):
    """Above 5,000 tokens, 28 % of the facts of the early region are forgotten."""

    def judge(self, question: Question, reply: Reply) -> Judgement:
        long = len(question.prompt.user) > 5_000 * 4.6
        if question.region is Region.EARLY and long and Random(question.expected).random() < 0.28:
            return Judgement.WRONG
        return super().judge(question, reply)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_kill_after_certificates_that_did_not_hold_changes_nothing() -> None:
    """Also if the search had nothing to ask between two of them."""
    model = attrs.evolve(SMALL, declared=8192, true_context=8192)

    async def measured(store: Dying) -> ContextReport:
        adapter = SimulatedAdapter(model, seed=64)
        client = LMStrix(adapter=adapter, store=store, levels=(), validator=FadesEarly())
        return await client.find_true_context("m", MeasureOptions(seed=64))

    whole = Dying()
    expected = await measured(whole)
    certifying = [at for at, asked in enumerate(whole.asked, 1) if asked[1] in {"certify", "weak"}]
    for at in certifying[len(certifying) // 4 :: len(certifying) // 3]:
        store = Dying()
        store.at = at
        with pytest.raises(Killed):
            await measured(store)
        report = await measured(store)
        assert (report.bracket, report.certified) == (expected.bracket, expected.certified)
        assert report.regions == expected.regions


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_cache_for_long_prompts_alone_changes_nothing_after_a_kill(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As OpenAI's, which begins at 1,024 tokens: the baseline shows none."""
    model = attrs.evolve(SMALL, declared=16384, true_context=9000, lapses=0.04)

    def common(one: Sequence[str], other: Sequence[str]) -> int:
        return common_length(one, other) if len(one) >= 600 else 0

    monkeypatch.setattr("lmstrix.testing.simulated.common_length", common)
    whole = Dying()
    client = LMStrix(adapter=SimulatedAdapter(model), store=whole)
    expected = await client.find_true_context("m")
    store = Dying()
    store.at = whole.requests // 2
    with pytest.raises(Killed):
        await LMStrix(adapter=SimulatedAdapter(model), store=store).find_true_context("m")
    report = await LMStrix(adapter=SimulatedAdapter(model), store=store).find_true_context("m")
    assert (report.bracket, report.regions) == (expected.bracket, expected.regions)
    assert store.asked == whole.asked
