"""Sample facts, complete and plausible, for tests that need one but do not care which.

Every keyword replaces that field: ``sample_trial(index=3)``.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import attrs

from lmstrix.models import (
    Baseline,
    Cause,
    ContextMap,
    ContextReport,
    Cost,
    CurvePoint,
    DepthTally,
    Environment,
    Interval,
    Judgement,
    Layer,
    LevelReport,
    MapCost,
    Method,
    ModelInfo,
    Proportion,
    Region,
    RegionReport,
    StopReason,
    Trial,
    Usable,
    Verdict,
    cells_of,
)

_STARTED = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def sample_model(**changes: Any) -> ModelInfo:  # noqa: ANN401 - any field of `ModelInfo`
    """A small model that declares 8192 tokens."""
    model = ModelInfo(
        key="sample/model-135m",
        path="sample/model-135m.gguf",
        format="gguf",
        architecture="llama",
        size_bytes=98_000_000,
        declared_context=8192,
        parameters="135M",
        quantization="Q4_1",
        digest="size:98000000",
    )
    return attrs.evolve(model, **changes)


def sample_trial(**changes: Any) -> Trial:  # noqa: ANN401 - any field of `Trial`
    """A question at 4096 tokens that was answered well."""
    trial = Trial(
        phase="search",
        length_tokens=4096,
        seed=7,
        index=0,
        depth=0.25,
        kind="number",
        judgement=Judgement.PASS,
        prompt_tokens=4064,
        cached_tokens=3000,
        generated_tokens=9,
        ttft_s=1.5,
        tokens_per_second=40.25,
        stop_reason=StopReason.END,
        expected="4711",
        reply=" 4711.",
    )
    return attrs.evolve(trial, **changes)


def sample_report(**changes: Any) -> ContextReport:  # noqa: ANN401 - any field of `ContextReport`
    """A certified measurement: declared 8192, true 6144, because the model forgets the head.

    The other regions work at 8192.
    """
    report = ContextReport(
        model=sample_model(),
        declared_context=8192,
        loadable_context=8192,
        true_context=6144,
        cause=Cause.FORGETS,
        certified=True,
        bracket=(6144, 6400),
        interval=Interval(low=5888, high=6400, level=0.95),
        monotone=True,
        baseline=Baseline(passes=10, trials=10, length_tokens=512),
        curve=_sample_curve(),
        cost=Cost(
            loads=2, prompt_tokens=15_000, cached_tokens=40_000, generated_tokens=300, seconds=66.5
        ),
        method=Method(
            strategy="gallop",
            validator="recall",
            tolerance=1 / 64,
            ratio=0.85,
            seed=7,
            levels=("coherence",),
        ),
        environment=Environment(
            adapter="simulated",
            engine="simulated",
            versions={"lmstrix": "2.0.0"},
            load_config={"threads": "2"},
        ),
        started_at=_STARTED,
        finished_at=_STARTED + timedelta(seconds=66.5),
        regions=_sample_regions(),
        levels=(
            LevelReport(
                name="coherence",
                limit_tokens=8192,
                bracket=(8192, None),
                cause=Cause.DECLARED_MAXIMUM,
                baseline=Baseline(passes=4, trials=4, length_tokens=512),
            ),
            LevelReport(
                name="recall",
                limit_tokens=6144,
                bracket=(6144, 6400),
                cause=Cause.FORGETS,
                baseline=Baseline(passes=10, trials=10, length_tokens=512),
            ),
        ),
        estimate=6272,
        usable=Usable(limit_tokens=6144, min_tokens_per_second=30.0, max_ttft_s=20.0),
        notes=("The head of the document is forgotten first.",),
    )
    return attrs.evolve(report, **changes)


def sample_map(**changes: Any) -> ContextMap:  # noqa: ANN401 - any field of `ContextMap`
    """Recall at two lengths; at the longer one the head is lost and the tail half known."""
    answers = [(512, 0.05, True, 1.0), (512, 0.95, True, 1.0)]
    answers += [(1024, 0.05, False, 0.0), (1024, 0.95, True, 0.5)]
    found = ContextMap(
        model=sample_model(),
        lengths=(512, 1024),
        layers=(Layer(name="recall", cells=cells_of(answers)),),
        cost=MapCost(document_tokens=1024, question_tokens=120, generated_tokens=40, questions=4),
        environment=Environment(adapter="simulated", engine="simulated"),
        seed=7,
        ratio=0.85,
        started_at=_STARTED,
        finished_at=_STARTED + timedelta(seconds=6),
        notes=("A note & more.",),
    )
    return attrs.evolve(found, **changes)


def _sample_curve() -> tuple[CurvePoint, ...]:
    passed = CurvePoint(
        length_tokens=6144,
        trials=10,
        passes=10,
        verdict=Verdict.PASS,
        wilson=Proportion(low=0.72, high=1.0),
        ttft_s=2.5,
        tokens_per_second=38.0,
        full_ttft_s=14.5,
    )
    failed = CurvePoint(
        length_tokens=6400,
        trials=10,
        passes=5,
        verdict=Verdict.FAIL,
        wilson=Proportion(low=0.24, high=0.76),
        inconclusive=1,
        depths=(
            DepthTally(region=Region.HEAD, passes=0, trials=5),
            DepthTally(region=Region.TAIL, passes=5, trials=5),
        ),
        failure=None,
    )
    return passed, failed


def _sample_regions() -> tuple[RegionReport, ...]:
    kept = (
        RegionReport(
            region=region,
            limit_tokens=8192,
            bracket=(8192, None),
            cause=Cause.DECLARED_MAXIMUM,
        )
        for region in Region
        if region is not Region.HEAD
    )
    lost = RegionReport(
        region=Region.HEAD, limit_tokens=6144, bracket=(6144, 6400), cause=Cause.FORGETS
    )
    return lost, *kept
