"""What each search strategy costs and how near it comes, on simulated models with a known limit.

    python benchmarks/search.py [--limits 24] [--kinds cliff,soft] [--strategies bayes,gallop]
        [--lapses 0.04] [--no-reuse] [--no-certify] [--seed 1]

Whole measurements, with certificates: everything but the model is the product's own code. Counts
only: prompt tokens really read as a multiple N of the true limit, loads, questions, errors. Small
by default; 24 limits of each kind take about ten minutes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from math import log

import attrs
from _binary import Binary
from _simulation import (
    DECLARED,
    FLOOR,
    Knows,
    Simulated,
    cliff,
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

from lmstrix import ContextReport, MeasureOptions
from lmstrix.ports import SearchStrategy
from lmstrix.search.bayes import Bayes
from lmstrix.search.gallop import Gallop

STRATEGIES: Mapping[str, SearchStrategy] = {
    "bayes": Bayes(),
    "gallop": Gallop(),
    "binary": Binary(),
}

KINDS: Mapping[str, Callable[[float], Knows]] = {
    "cliff": cliff,
    "soft": lambda limit: logistic(limit, 12),
    "gradual": lambda limit: logistic(limit, 4),
    "kept last": kept_last,
    "kept first": kept_first,
    "kept ends": loses_middle,
    "lost band": lambda limit: loses_band(limit, 0.4, 0.6),
}

SHORTEST, LONGEST = 2048, 100_000
ASSUMPTIONS = f"""\
True limits are log-uniform in [{SHORTEST}, {LONGEST}], {DECLARED} tokens are declared, every load
works. cliff: knows everything up to the limit, and nothing above. soft, gradual: the pass rate
falls everywhere alike, logistic in log length, slopes 12 and 4; the limit is where it is 85 % of
the rate at {FLOOR}. kept last, first, ends: knows as many tokens there. lost band: above the limit,
what stands between 40 and 60 % of the window is lost. The error is |ln(true context / limit)|,
`cover` the share of 90 % intervals that hold the limit."""

HEAD = (
    f"{'model':<12}{'strategy':<10}{'error':>8}{'p90':>8}{'cover':>7}"
    f"{'tokens/N':>10}{'p90':>7}{'loads':>7}{'questions':>11}{'certified':>11}"
)


@attrs.frozen(kw_only=True)
class Outcome:
    """One measurement against the truth."""

    limit: float
    report: ContextReport

    @property
    def error(self) -> float:
        """Distance of the answer, in natural logarithms."""
        return abs(log((self.report.true_context or 1) / self.limit))

    @property
    def covered(self) -> bool:
        """Whether the interval holds the limit."""
        found = self.report.interval
        return found.low <= self.limit and (found.high is None or self.limit <= found.high)

    @property
    def tokens(self) -> float:
        """Prompt tokens that were really read, as a multiple of the limit."""
        return self.report.cost.prompt_tokens / self.limit

    @property
    def questions(self) -> int:
        """Questions that were answered, the certificate's among them."""
        return sum(point.trials for point in self.report.curve)


def line(kind: str, strategy: str, found: Sequence[Outcome]) -> str:
    """A line of the table."""
    errors, tokens = [o.error for o in found], [o.tokens for o in found]
    return (
        f"{kind:<12}{strategy:<10}{quantile(errors, 0.5):>8.1%}{quantile(errors, 0.9):>8.1%}"
        f"{mean([o.covered for o in found]):>7.2f}{mean(tokens):>10.2f}"
        f"{quantile(tokens, 0.9):>7.2f}{mean([o.report.cost.loads for o in found]):>7.1f}"
        f"{mean([o.questions for o in found]):>11.0f}"
        f"{mean([o.report.certified for o in found]):>11.2f}"
    )


def main() -> None:
    """Parse the command line and print the table."""
    parser = argparse.ArgumentParser(description="Compare search strategies on simulated models.")
    parser.add_argument("--limits", type=int, default=2, help="models of each kind")
    parser.add_argument("--kinds", default=",".join(KINDS), help="with commas")
    parser.add_argument("--strategies", default=",".join(STRATEGIES), help="with commas")
    parser.add_argument("--lapses", type=float, default=0.04, help="misses anywhere, as a share")
    parser.add_argument("--no-reuse", dest="reuse", action="store_false", help="no prefix cache")
    parser.add_argument("--no-certify", dest="certify", action="store_false")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    print(ASSUMPTIONS)
    print(f"\n{arguments.limits} models of each kind, {arguments.lapses:.0%} lapses")
    print(f"prefix reuse: {arguments.reuse}, certificates: {arguments.certify}\n\n{HEAD}")
    truths = limits(arguments.limits, arguments.seed, SHORTEST, LONGEST)
    for kind in arguments.kinds.split(","):
        for name in arguments.strategies.split(","):
            found = [
                Outcome(
                    limit=limit,
                    report=measure(
                        Simulated(
                            limit=limit,
                            knows=KINDS[kind](limit),
                            lapses=arguments.lapses,
                            reuses=arguments.reuse,
                            seed=number,
                        ),
                        MeasureOptions(certify=arguments.certify),
                        strategy=STRATEGIES[name],
                    ),
                )
                for number, limit in enumerate(truths)
            ]
            print(line(kind, name, found), flush=True)


if __name__ == "__main__":
    main()
