"""The exhaustive check: ask at every length, whatever a search would have skipped.

    python benchmarks/recall.py [MODEL.gguf] [--step 512] [--trials 10] [--documents 2]

A measurement's bracket rests on few lengths. This asks the same questions at every `--step`
tokens from `--shortest` to the declared context, `--trials` about each region on each of
`--documents` texts that the measurement has not seen, and prints one line for each length, with
the passes by region. A region is lost if its Wilson interval lies below 85 % of the pass rate at
512 tokens; such regions are marked with ``!``. It takes some minutes for the demo model (the
default) and is not part of the tests.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

import anyio
import attrs

from lmstrix.adapters.llamacpp import LlamaCppAdapter
from lmstrix.demo import fetch_demo_model
from lmstrix.models import Judgement, Region
from lmstrix.ports import LoadedModel
from lmstrix.stats import wilson
from lmstrix.validators.recall import Recall

FIRST_SEED = 900_000
"""Far from the seeds of a measurement's own documents, so that the texts are fresh."""


RATIO = 0.85
BASELINE_TOKENS = 512


@attrs.define(kw_only=True)
class Row:
    """What was asked at one length."""

    length_tokens: int
    asked: Counter[Region] = attrs.field(factory=Counter[Region])
    passed: Counter[Region] = attrs.field(factory=Counter[Region])

    def add(self, region: Region, judgement: Judgement) -> None:
        """One more answer."""
        if judgement is not Judgement.INCONCLUSIVE:
            self.asked[region] += 1
            self.passed[region] += judgement is Judgement.PASS

    @property
    def rate(self) -> float:
        """Passes per trial over all regions."""
        return self.passed.total() / max(1, self.asked.total())

    def line(self, baseline: float) -> str:
        """The line of the table; `baseline` is the pass rate at short length."""
        interval = wilson(self.passed.total(), self.asked.total())
        passes = f"{self.passed.total()} of {self.asked.total()}"
        head = f"{self.length_tokens:>7}{passes:>12}{self.rate:6.0%}"
        cells = (self._cell(region, baseline) for region in Region)
        return f"{head}   {interval.low:.2f} to {interval.high:.2f}{''.join(cells)}"

    def _cell(self, region: Region, baseline: float) -> str:
        passed, asked = self.passed[region], self.asked[region]
        lost = asked and wilson(passed, asked).high < RATIO * baseline
        return f"{f'{passed}/{asked}' if asked else '-':>8}{'!' if lost else ' '}"


HEAD = f"{'length':>7}{'passes':>12}{'rate':>6}   {'Wilson 95 %':<12}" + "".join(
    f"{region:>8} " for region in Region
)


async def ask(loaded: LoadedModel, rows: list[Row], *, seed: int, trials: int) -> None:
    """Climb through all lengths on one document, so that each token is read once."""
    validator = Recall()
    source = validator.questions(loaded, seed)
    for row in rows:
        for region in validator.regions:
            for index in range(trials):
                question = await source.question(row.length_tokens, index, region)
                reply = await loaded.complete(
                    question.prompt, max_tokens=question.max_tokens, stop=question.stop
                )
                row.add(region, validator.judge(question, reply))
        sys.stderr.write(f"document {seed - FIRST_SEED + 1}:{row.line(1.0)}\n")


async def check(arguments: argparse.Namespace) -> None:
    """Load once, ask everything, print the table."""
    path = arguments.model or await fetch_demo_model(announce=print)
    adapter = LlamaCppAdapter(threads=arguments.threads)
    model = await adapter.find_model(str(path))
    longest = arguments.longest or model.declared_context or 8192
    shortest = arguments.shortest or arguments.step
    lengths = sorted({BASELINE_TOKENS, *range(shortest, longest + 1, arguments.step)})
    rows = [Row(length_tokens=n) for n in lengths]
    async with adapter.load(model, longest) as loaded:
        for document in range(arguments.documents):
            await ask(loaded, rows, seed=FIRST_SEED + document, trials=arguments.trials)
    print(f"{model.key}, declared {model.declared_context}")
    print(f"{arguments.trials} questions per region on each of {arguments.documents} documents\n")
    print(HEAD, *(row.line(rows[0].rate) for row in rows), sep="\n")


def main() -> None:
    """Parse the command line and run the check."""
    parser = argparse.ArgumentParser(description="Ask recall questions at every length.")
    parser.add_argument("model", nargs="?", type=Path, help="path of a GGUF file")
    parser.add_argument("--step", type=int, default=512, help="tokens between lengths")
    parser.add_argument("--trials", type=int, default=10, help="questions per region")
    parser.add_argument("--documents", type=int, default=2, help="texts, each with its own facts")
    parser.add_argument("--shortest", type=int, help="first length; default: the step")
    parser.add_argument("--longest", type=int, help="last length; default: what is declared")
    parser.add_argument("--threads", type=int, help="engine threads; default: the cores")
    anyio.run(check, parser.parse_args())


if __name__ == "__main__":
    main()
