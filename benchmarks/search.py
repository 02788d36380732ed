"""What each search strategy costs and how near it comes, on simulated models with a known limit.

    python benchmarks/search.py [--limits 200] [--noisy 100] [--seed 1] [--full]

Counts only: prompt tokens as a multiple N of the true limit, probes, generated tokens, errors.
Small by default; `--full` runs every strategy on 200 limits and on 200 noisy models of each kind
and takes some minutes.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

from _simulation import (
    BASELINE_TRIALS,
    DECLARED,
    FLOOR,
    LAPSE,
    ONE,
    SHORTEST,
    SLOPES,
    Model,
    Outcome,
    limits,
    mean,
    problem_for,
    quantile,
    search,
)
from lmstrix.search.auto import Auto
from lmstrix.search.binary import Binary
from lmstrix.search.cost_aware import CostAware

from lmstrix.ports import SearchStrategy
from lmstrix.problem import CostModel, PassRule, Reuse
from lmstrix.search.bayes import Bayes
from lmstrix.search.gallop import Gallop

FINE, COARSE = 1 / 64, 1 / 16
ATTENTION = 32_768.0
GENERATED = 5.0
ANSWER = 25.0
"""Prompt tokens of one question to a noisy model."""

STRATEGIES: Mapping[str, SearchStrategy] = {
    "binary": Binary(),
    "gallop x2": Gallop(2),
    "gallop x1.41": Gallop(),
    "gallop x1.25": Gallop(1.25),
    "cost_aware": CostAware(),
    "bayes": Bayes(),
    "auto": Auto(),
}
CHEAP = ("binary", "gallop x1.41", "auto")
"""Rows of the tables that only show a setting's influence."""

KINDS = ", ".join(f"{kind} {slope:.0f}" for kind, slope in SLOPES.items())
ASSUMPTIONS = f"""\
Assumed: true limits N log-uniform in [{SHORTEST}, {DECLARED}], {DECLARED} declared, {FLOOR} known
good and in the cache, one load. A question costs s prompt tokens beside the document, and plans
weigh prompt tokens alone. Clean models pass up to N and fail above. Noisy ones pass with a rate
that is logistic in the logarithm of the length (slopes {KINDS}),
with {LAPSE:.0%} lapses; N is where it is 85 % of the rate at {FLOOR}, of which
{BASELINE_TRIALS} answers are seen."""


def clean_rows(
    names: Sequence[str],
    count: int,
    seed: int,
    costs: CostModel,
    *,
    granularity: int = 1,
    rule: PassRule = ONE,
) -> Mapping[str, list[Outcome]]:
    """Every strategy on the same clean models."""
    models = [Model(limit=limit) for limit in limits(count, seed)]
    return {
        name: [
            search(
                STRATEGIES[name],
                model,
                problem_for(model, costs, rule=rule, tolerance=FINE, granularity=granularity),
            )
            for model in models
        ]
        for name in names
    }


def print_clean(title: str, rows: Mapping[str, list[Outcome]], floor: float | None) -> None:
    """Costs: one line for each strategy, and the physical limit."""
    print(f"\n{title}\n")
    print(
        f"{'strategy':<14}{'tokens/N':>9}{'p90':>7}{'max':>7}{'probes':>8}{'loads':>7}"
        f"{'generated/N':>13}{'work/N':>9}"
    )
    for name, found in rows.items():
        tokens = [o.prompt for o in found]
        print(
            f"{name:<14}{mean(tokens):>9.2f}{quantile(tokens, 0.9):>7.2f}{max(tokens):>7.2f}"
            f"{mean([o.probes for o in found]):>8.1f}{1:>7}"
            f"{mean([o.generated for o in found]):>13.3f}{mean([o.cost for o in found]):>9.2f}"
        )
    if floor is not None:
        print(f"{'limit':<14}{floor:>9.2f}")


def physical(count: int, seed: int, tokens: float, reuse: Reuse) -> float:
    """Mean of the least that shows "N works and N (1 + e) does not"."""
    shares = [2 * tokens / limit for limit in limits(count, seed)]
    return mean(shares) + (2 + FINE if reuse is Reuse.NONE else 1 + FINE)


def show_clean(count: int, seed: int) -> None:
    """Reuse, size of the questions, attention, granularity."""
    for reuse in Reuse:
        for tokens in (320.0, 64.0):
            costs = CostModel(
                question_tokens=tokens,
                generated_tokens=GENERATED * tokens / 64,
                generated_token=0.0,
                probe=0.0,
                reuse=reuse,
            )
            rows = clean_rows(tuple(STRATEGIES), count, seed, costs)
            title = f"Clean, reuse: {reuse}, s = {tokens:.0f} ({tokens / 64:.0f} x 64), e = 1/64"
            print_clean(title, rows, physical(count, seed, tokens, reuse))
    for reuse in Reuse:
        costs = CostModel(
            question_tokens=320.0,
            generated_tokens=5 * GENERATED,
            generated_token=0.0,
            probe=0.0,
            reuse=reuse,
            attention_tokens=ATTENTION,
        )
        title = f"Clean, reuse: {reuse}, s = 320, with n + n^2/{ATTENTION:.0f} (in `work`)"
        print_clean(title, clean_rows(CHEAP, count, seed, costs), None)
    for rule, what in ((ONE, "s = 320"), (PassRule(), "4 to 20 questions of 13")):
        costs = CostModel(
            question_tokens=320.0 if rule is ONE else 13.0,
            generated_tokens=GENERATED,
            generated_token=0.0,
            probe=0.0,
        )
        rows = clean_rows(CHEAP, count, seed, costs, granularity=256, rule=rule)
        print_clean(f"Clean, reuse: prefix, multiples of 256, {what}", rows, None)


NOISY: Mapping[str, tuple[SearchStrategy, PassRule]] = {
    "binary, one question": (Binary(), ONE),
    "gallop, one question": (Gallop(), ONE),
    "gallop, 4 to 20": (Gallop(), PassRule()),
    "cost_aware, 4 to 20": (CostAware(), PassRule()),
    "auto (bayes), 4 to 20": (Auto(), PassRule()),
}


def show_noisy(count: int, seed: int) -> None:
    """Errors, cost and coverage by kind of model."""
    costs = CostModel(
        question_tokens=ANSWER, generated_tokens=GENERATED, generated_token=0.0, probe=0.0
    )
    print(
        f"\nNoisy, reuse: prefix, s = {ANSWER:.0f} a question, e = 1/16; |ln error| of the estimate"
    )
    print("(without one, of the bracket's middle) and of its lower end\n")
    print(
        f"{'model':<9}{'strategy':<23}{'median':>7}{'p90':>8}{'low':>8}{'p90':>8}{'cover':>7}"
        f"{'tokens/N':>10}{'p90':>7}{'questions':>11}{'generated/N':>13}"
    )
    for kind, slope in SLOPES.items():
        models = [
            Model(limit=limit, slope=slope, seed=i) for i, limit in enumerate(limits(count, seed))
        ]
        for name, (strategy, rule) in NOISY.items():
            found = [
                search(
                    strategy,
                    model,
                    problem_for(model, costs, rule=rule, tolerance=COARSE, granularity=1),
                )
                for model in models
            ]
            print_noisy(kind, name, found)


def print_noisy(kind: str, name: str, found: Sequence[Outcome]) -> None:
    """One line."""
    errors, lows = [o.error for o in found], [o.low_error for o in found]
    tokens = [o.prompt for o in found]
    print(
        f"{kind:<9}{name:<23}{quantile(errors, 0.5):>7.1%}{quantile(errors, 0.9):>8.1%}"
        f"{quantile(lows, 0.5):>8.1%}{quantile(lows, 0.9):>8.1%}"
        f"{mean([o.covered for o in found]):>7.2f}{mean(tokens):>10.2f}"
        f"{quantile(tokens, 0.9):>7.2f}"
        f"{mean([o.questions for o in found]):>11.0f}{mean([o.generated for o in found]):>13.3f}",
        flush=True,
    )


def main() -> None:
    """Parse the command line and print the tables."""
    parser = argparse.ArgumentParser(description="Compare search strategies on simulated models.")
    parser.add_argument("--limits", type=int, default=24, help="clean models")
    parser.add_argument("--noisy", type=int, default=6, help="noisy models of each kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--full", action="store_true", help="200 of each")
    arguments = parser.parse_args()
    if arguments.full:
        arguments.limits = arguments.noisy = 200
    print(f"{arguments.limits} clean models, {arguments.noisy} noisy ones of each kind")
    print(ASSUMPTIONS)
    show_clean(arguments.limits, arguments.seed)
    show_noisy(arguments.noisy, arguments.seed)


if __name__ == "__main__":
    main()
