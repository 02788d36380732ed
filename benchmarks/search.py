"""How near whole measurements of simulated models come, and what they cost.

    python benchmarks/search.py [--count 2] [--full] [--jobs 2] [--only windows|fades|cost]

Three tables: windows and bands that lose a part of the prompt, models that forget everywhere alike,
and the cost of a clean cliff beside two simpler searches. Every row measures `--count` models whose
limits are log-uniform, certificates included; `--full` takes 100 of each, and 400 of each model
that fades.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import inf, log
from multiprocessing import get_context
from random import Random

import attrs
from _binary import Binary
from _simulation import (
    DECLARED,
    Knows,
    Simulated,
    cliff,
    fact_by_fact,
    kept_first,
    kept_last,
    limits,
    logistic,
    loses_band,
    loses_middle,
    mean,
    measure,
    quantile,
)

from lmstrix.models import Region
from lmstrix.ports import SearchStrategy
from lmstrix.search.bayes import Bayes
from lmstrix.search.gallop import Gallop

SEED = 1
WINDOWS = (2_000.0, 100_000.0)
FADES = (1_024.0, float(DECLARED))
LONG = 8_192
SLOPES: Mapping[str, float] = {"cliff": 200.0, "soft": 12.0, "gradual": 4.0}
"""Steepness of the pass rate over the logarithm of the length."""
LAPSES = (0.0, 0.04)
STRATEGIES: Mapping[str, Callable[[], SearchStrategy]] = {
    "bayes": Bayes,
    "gallop": Gallop,
    "binary": Binary,
}


@attrs.frozen(kw_only=True)
class Case:
    """One simulated model and how it is measured."""

    kind: str
    limit: float
    seed: int
    lapses: float = 0.0
    reuses: bool = True
    strategy: str = "bayes"


@attrs.frozen(kw_only=True)
class Outcome:
    """What one measurement found, and what it cost."""

    limit: float
    error: float
    """The reported true context over the limit, as a natural logarithm."""
    covered: bool
    """Whether the 90 % interval holds the limit."""
    prompt: float
    """Prompt tokens read, as a multiple of the limit."""
    loads: int
    questions: int


def knows(case: Case) -> Knows:
    """What the model of `case` knows."""
    windows: Mapping[str, Callable[[float], Knows]] = {
        "kept last": kept_last,
        "kept first": kept_first,
        "middle": loses_middle,
        "clean": cliff,
        "fact by fact": fact_by_fact,
        "band": partial(_band, Random(f"band {case.seed}")),
    }
    if case.kind in windows:
        return windows[case.kind](case.limit)
    return logistic(case.limit, SLOPES[case.kind])


def _band(rng: Random, limit: float) -> Knows:
    """A band at least a third as wide as its region, anywhere in it."""
    begin, end = rng.choice(list(Region)).span
    width = (end - begin) * rng.uniform(1 / 3, 1)
    start = rng.uniform(begin, end - width)
    return loses_band(limit, start, start + width)


def run(case: Case) -> Outcome:
    """One whole measurement."""
    simulated = Simulated(
        limit=case.limit,
        knows=knows(case),
        lapses=case.lapses,
        reuses=case.reuses,
        seed=case.seed,
    )
    report = measure(simulated, strategy=STRATEGIES[case.strategy]())
    low, high = report.interval.low, report.interval.high
    return Outcome(
        limit=case.limit,
        error=log((report.true_context or 1) / case.limit),
        covered=low <= case.limit <= (inf if high is None else high),
        prompt=report.cost.prompt_tokens / case.limit,
        loads=report.cost.loads,
        questions=sum(point.trials for point in report.curve),
    )


Runner = Callable[[Sequence[Case]], Sequence[Outcome]]


def cases(
    kind: str,
    count: int,
    span: tuple[float, float],
    *,
    lapses: float = 0.0,
    reuses: bool = True,
    strategy: str = "bayes",
) -> Sequence[Case]:
    """Models of one kind, with their limits spread over `span`."""
    return [
        Case(kind=kind, limit=n, seed=i, lapses=lapses, reuses=reuses, strategy=strategy)
        for i, n in enumerate(limits(count, SEED, *span))
    ]


def show_windows(runner: Runner, count: int, _: int) -> None:
    """Errors where a part of the prompt is lost."""
    print(f"\nA part of the window is lost ({count} models each): |ln(reported / limit)|\n")
    print(f"{'model':<14}{'lapses':>8}{'median':>9}{'p90':>9}{'largest':>9}")
    for kind in ("kept last", "kept first", "middle", "band"):
        for lapses in LAPSES:
            found = runner(cases(kind, count, WINDOWS, lapses=lapses))
            print(f"{kind:<14}{lapses:>8.0%}{_errors(found)}", flush=True)


def show_fades(runner: Runner, count: int, noisy: int) -> None:
    """Errors and coverage where everything is lost alike."""
    print(
        f"\nEverything is lost alike ({noisy} models each, clean {count}): |ln(reported / limit)|, "
        "and the share of 90 % intervals that hold the limit\n"
    )
    print(f"{'model':<14}{'lapses':>8}{'median':>9}{'p90':>9}{'largest':>9}{'held':>9}")
    noisy_kinds = (*SLOPES, "fact by fact")
    kinds = [("clean", 0.0), *((kind, lapses) for kind in noisy_kinds for lapses in LAPSES)]
    for kind, lapses in kinds:
        number = count if kind == "clean" else noisy
        found = runner(cases(kind, number, FADES, lapses=lapses))
        held = mean([o.covered for o in found])
        print(f"{kind:<14}{lapses:>8.0%}{_errors(found)}{held:>9.3f}", flush=True)


def show_cost(runner: Runner, count: int, _: int) -> None:
    """Prompt tokens, loads and questions for a clean cliff."""
    print(
        f"\nCost of a clean cliff at N ({count} models each), certificate included: prompt tokens "
        f"over N, of all limits and of those above {LONG}\n"
    )
    print(
        f"{'strategy':<14}{'reuse':>8}{'mean':>9}{'max':>9}{'mean >8k':>10}{'max >8k':>9}"
        f"{'loads':>8}{'questions':>11}"
    )
    for reuses in (True, False):
        for strategy in STRATEGIES:
            found = runner(cases("clean", count, FADES, reuses=reuses, strategy=strategy))
            every = [o.prompt for o in found]
            long = [o.prompt for o in found if o.limit > LONG]
            print(
                f"{strategy:<14}{'prefix' if reuses else 'none':>8}{mean(every):>9.2f}"
                f"{max(every):>9.2f}{mean(long):>10.2f}{max(long):>9.2f}"
                f"{mean([o.loads for o in found]):>8.2f}"
                f"{mean([o.questions for o in found]):>11.0f}",
                flush=True,
            )


TABLES = {"windows": show_windows, "fades": show_fades, "cost": show_cost}


def _errors(found: Sequence[Outcome]) -> str:
    errors = [abs(o.error) for o in found]
    return f"{quantile(errors, 0.5):>9.4f}{quantile(errors, 0.9):>9.4f}{max(errors):>9.4f}"


def main() -> None:
    """Parse the command line and print the tables."""
    parser = argparse.ArgumentParser(description="Measure simulated models whose limit is known.")
    parser.add_argument("--count", type=int, default=2, help="models of each kind")
    parser.add_argument("--full", action="store_true", help="100 of each, 400 of each that fades")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--only", choices=TABLES, help="one table")
    arguments = parser.parse_args()
    if arguments.count < 2:
        parser.error("--count must be at least 2")
    count, noisy = (100, 400) if arguments.full else (arguments.count, arguments.count)
    with get_context("spawn").Pool(arguments.jobs) as pool:
        runner: Runner = partial(pool.map, run, chunksize=1)
        for name, show in TABLES.items():
            if arguments.only in (None, name):
                show(runner, count, noisy)


if __name__ == "__main__":
    main()
