"""What a search costs on a real engine, beside what it could cost at the least.

    python benchmarks/engine.py [MODEL.gguf] [--longest N] [--strategies bayes,gallop]

Measures the model (default: the demo model) once with each strategy, without certificates, in one
run on one machine. Beside them stand

- the floor: one prefill of the answer's length from nothing, and the answers at that length;
- `binary` on an engine that reuses no prefix: a full prompt for every question. Once with one
  question for each probe, which is far less evidence, and once with the questions that all others
  ask, stopped at four times the seconds of the first strategy, where it has long lost
  (`--no-anew` leaves both out: they take longest).

Seconds are printed as ratios to the floor: they say nothing on another machine. Tokens are exact.
Run it alone: two engine threads on busy cores wait for each other.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import anyio
import attrs
from _binary import Binary

from lmstrix import LMStrix, MeasureOptions
from lmstrix.adapters.llamacpp import LlamaCppAdapter
from lmstrix.demo import fetch_demo_model
from lmstrix.events import Event, TrialFinished
from lmstrix.models import Cause, ContextReport, ModelInfo, Region, Reply
from lmstrix.ports import SearchStrategy
from lmstrix.problem import PassRule
from lmstrix.speed import FEWEST_TOKENS
from lmstrix.validators.recall import Recall

STRATEGIES = ("bayes", "gallop")
BOX = 4.0
"""Part of the first strategy's seconds after which a search without reuse is stopped."""
FLOOR_SEED = 900_000
"""A document that no measurement reads."""


@attrs.frozen(kw_only=True)
class OneEach(MeasureOptions):
    """One question decides a length."""

    @property
    def rule(self) -> PassRule:
        """See `MeasureOptions.rule`."""
        return PassRule(ratio=self.ratio, first=1, full=1, most=1)


@attrs.define(kw_only=True)
class Row:
    """One search and what it cost."""

    name: str
    answer: int
    seconds: float
    prompt_tokens: int
    generated_tokens: int
    questions: int
    at_answer: int = 0
    """Questions that were asked at the answer's length."""
    answering: float = 0.0
    """Seconds for all answers: their questions, and what was generated."""
    finished: bool = True
    """False: stopped by its budget."""

    def text(self, floor: Row) -> str:
        """A line of the table."""
        of_answer = self.prompt_tokens / self.answer if self.answer else 0.0
        return (
            f"{self.name:<28}{self.answer:>8}{self.seconds / floor.seconds:>10.2f}"
            f"{self.prompt_tokens:>10}{of_answer:>8.2f}{self.generated_tokens:>11}"
            f"{self.questions:>11}"
        )


HEAD = (
    f"{'':<28}{'answer':>8}{'seconds':>10}{'prompt':>10}{'tokens':>8}{'generated':>11}"
    f"{'questions':>11}\n{'':<28}{'':>8}{'/ floor':>10}{'tokens':>10}{'/ N':>8}{'tokens':>11}"
)


class Watch:
    """Counts questions, and how many of them were asked at each length."""

    def __init__(self) -> None:
        self.lengths: list[int] = []
        self.answering = 0.0

    def __call__(self, event: Event) -> None:
        """Hear one event."""
        if isinstance(event, TrialFinished):
            trial = event.trial
            self.lengths.append(trial.length_tokens)
            new = trial.prompt_tokens - (trial.cached_tokens or 0)
            if new < FEWEST_TOKENS:  # else its time to first token is that of reading
                self.answering += trial.ttft_s or 0.0
            self.answering += trial.generated_tokens / (trial.tokens_per_second or 1e9)
            sys.stderr.write(".")
            sys.stderr.flush()


async def measure(
    name: str,
    adapter: LlamaCppAdapter,
    model: ModelInfo,
    options: MeasureOptions,
    *,
    strategy: SearchStrategy | str,
) -> Row:
    """One measurement from nothing to its report."""
    watch = Watch()
    sys.stderr.write(f"{name} ")
    started = time.monotonic()
    async with LMStrix(
        adapter=adapter, strategy=strategy, levels=(), store="memory", observers=[watch]
    ) as client:
        report = await client.find_true_context(model, options)
    seconds = time.monotonic() - started
    sys.stderr.write(f" {_summary(report)}, {seconds:.1f} s\n")
    return Row(
        name=name,
        answer=report.true_context or 0,
        seconds=seconds,
        prompt_tokens=report.cost.prompt_tokens,
        generated_tokens=report.cost.generated_tokens,
        questions=len(watch.lengths),
        at_answer=watch.lengths.count(report.true_context or 0),
        answering=watch.answering,
        finished=report.cause is not Cause.BUDGET_SPENT,
    )


def _summary(report: ContextReport) -> str:
    low, high = report.bracket
    return f"{low} works, {high or 'nothing'} does not"


async def floor(
    adapter: LlamaCppAdapter, model: ModelInfo, longest: int, length: int, questions: int
) -> Row:
    """Read one prompt of `length` from nothing, and answer `questions` about it."""
    async with adapter.load(model, longest) as loaded:
        source = Recall().questions(loaded, FLOOR_SEED)
        wanted = [(region, i) for i in range(questions) for region in Region][:questions]
        asked = [await source.question(length, index, region) for region, index in wanted]
        times, replies = [time.monotonic()], list[Reply]()
        for q in asked:
            replies.append(await loaded.complete(q.prompt, max_tokens=q.max_tokens, stop=q.stop))
            times.append(time.monotonic())
        seconds = times[-1] - times[0]
    return Row(
        answering=times[-1] - times[1],
        name=f"floor: one prefill, {questions} answers",
        answer=length,
        seconds=seconds,
        prompt_tokens=sum(r.prompt_tokens - (r.cached_tokens or 0) for r in replies),
        generated_tokens=sum(r.generated_tokens for r in replies),
        questions=len(replies),
    )


async def compare(arguments: argparse.Namespace) -> None:
    """Run everything, print the table."""
    path = arguments.model or await fetch_demo_model(announce=print)
    adapter = LlamaCppAdapter()
    model = await adapter.find_model(str(path))
    longest = min(arguments.longest or 10**9, model.declared_context or 8192)
    options = MeasureOptions(certify=False, max_context=longest)
    names: list[str] = arguments.strategies.split(",")
    rows = [await measure(name, adapter, model, options, strategy=name) for name in names]
    first = rows[0]
    least = await floor(adapter, model, longest, first.answer, max(1, first.at_answer))
    if arguments.anew:
        rows += await _without_reuse(model, longest, BOX * first.seconds)
    print(f"{model.key}, declared {model.declared_context}, at most {longest}\n")
    print(HEAD)
    for row in (least, *rows):
        print(row.text(least))
    prefill = least.seconds - least.answering
    both = prefill + first.answering
    print(
        f"\n{first.name}: its answers took {first.answering / first.seconds:.2f} of its time;"
        f" the whole {first.seconds / both:.2f} times one prefill and its own answers,"
        f" {first.seconds / least.seconds:.2f} times the floor"
    )
    for row in rows[1:]:
        bound = "" if row.finished else "less than "
        print(f"{first.name} / {row.name}: {bound}{first.seconds / row.seconds:.2f}")


async def _without_reuse(model: ModelInfo, longest: int, box_s: float) -> list[Row]:
    """`binary` where every question is a full prompt: with little evidence, and with all of it."""
    anew = LlamaCppAdapter(reuse_prefixes=False)
    single = OneEach(certify=False, average=True, max_context=longest)
    boxed = MeasureOptions(certify=False, max_context=longest, budget_s=box_s)
    return [
        await measure("binary anew, 1 question", anew, model, single, strategy=Binary()),
        await measure("binary anew", anew, model, boxed, strategy=Binary()),
    ]


def main() -> None:
    """Parse the command line and run the comparison."""
    parser = argparse.ArgumentParser(description="Search strategies on a real engine.")
    parser.add_argument("model", nargs="?", type=Path, help="path of a GGUF file")
    parser.add_argument("--longest", type=int, help="largest length; default: what is declared")
    parser.add_argument(
        "--strategies", default=",".join(STRATEGIES), help="with commas; the first sets the floor"
    )
    parser.add_argument(
        "--no-anew", dest="anew", action="store_false", help="skip the search without reuse"
    )
    anyio.run(compare, parser.parse_args())


if __name__ == "__main__":
    main()
