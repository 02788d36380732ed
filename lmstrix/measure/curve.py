"""What is known at each length that was tried."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import median

from lmstrix.measure.ledger import MAIN, Ledger
from lmstrix.models import CurvePoint, DepthTally, Judgement, Trial, Verdict
from lmstrix.problem import SearchProblem
from lmstrix.speed import ReadingTimes
from lmstrix.stats import wilson

__all__ = ["REGIONS", "curve_of"]

REGIONS = (("head", 0.1), ("early", 0.35), ("middle", 0.65), ("late", 0.9), ("tail", 1.0))
"""Regions of the window, each with the depth at which it ends."""


def curve_of(
    ledger: Ledger, problem: SearchProblem | None, level: str = MAIN
) -> Iterable[CurvePoint]:
    """What is known at each length that was tried for one level, in ascending order."""
    times = ReadingTimes(ledger.trials)
    for seen in ledger.history(level):
        trials = ledger.at(seen.length_tokens, level)
        waits = [t.ttft_s for t in trials if t.ttft_s is not None]
        speeds = [t.tokens_per_second for t in trials if t.tokens_per_second]
        yield CurvePoint(
            length_tokens=seen.length_tokens,
            trials=seen.trials,
            passes=seen.passes,
            verdict=problem.rule.verdict(seen, problem.baseline) if problem else Verdict.UNDECIDED,
            wilson=wilson(seen.passes, seen.trials),
            ttft_s=max(waits, default=None),
            tokens_per_second=median(speeds) if speeds else None,
            full_ttft_s=_rounded(times.ttft_s(max((t.prompt_tokens for t in trials), default=0))),
            inconclusive=seen.inconclusive,
            depths=_by_region(trials),
            failure=seen.failure,
        )


def _rounded(seconds: float | None) -> float | None:
    """To the millisecond: it is an estimate."""
    return None if seconds is None else round(seconds, 3)


def _by_region(trials: Sequence[Trial]) -> tuple[DepthTally, ...]:
    passes: Counter[str] = Counter()
    counted: Counter[str] = Counter()
    for trial in trials:
        if trial.depth is None or trial.judgement is Judgement.INCONCLUSIVE:
            continue
        region = next((name for name, end in REGIONS if trial.depth <= end), REGIONS[-1][0])
        counted[region] += 1
        passes[region] += trial.judgement is Judgement.PASS
    return tuple(
        DepthTally(region=name, passes=passes[name], trials=counted[name])
        for name, _ in REGIONS
        if counted[name]
    )
