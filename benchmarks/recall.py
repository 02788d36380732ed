"""The exhaustive check: ask at every length, whatever a search would have skipped.

    python benchmarks/recall.py [MODEL.gguf] [--step 512] [--trials 10] [--documents 3]

A measurement's bracket rests on few lengths. This asks the same questions at every `--step`
tokens up to the declared context, `--trials` on each of `--documents` texts that the measurement
has not seen, and prints one line for each length. The true context by this table is the last
length before the pass rate stays below 85 % of the one at 512 tokens. It takes some minutes for the
demo model (the default) and is no part of the tests.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

import anyio
import attrs
from lmstrix.measure.curve import REGIONS

from lmstrix.adapters.llamacpp import LlamaCppAdapter
from lmstrix.demo import fetch_demo_model
from lmstrix.models import Judgement
from lmstrix.ports import LoadedModel
from lmstrix.stats import wilson
from lmstrix.validators.recall import Recall

FIRST_SEED = 900_000
"""Far from the seeds of a measurement's own documents, so that the texts are fresh."""


@attrs.define(kw_only=True)
class Row:
    """What was asked at one length."""

    length_tokens: int
    judged: Counter[Judgement] = attrs.field(factory=Counter[Judgement])
    asked: Counter[str] = attrs.field(factory=Counter[str])
    passed: Counter[str] = attrs.field(factory=Counter[str])

    def add(self, depth: float | None, judgement: Judgement) -> None:
        """One more answer."""
        self.judged[judgement] += 1
        if depth is None or judgement is Judgement.INCONCLUSIVE:
            return
        region = next((name for name, end in REGIONS if depth <= end), REGIONS[-1][0])
        self.asked[region] += 1
        self.passed[region] += judgement is Judgement.PASS

    def __str__(self) -> str:
        passes = self.judged[Judgement.PASS]
        trials = self.judged.total() - self.judged[Judgement.INCONCLUSIVE]
        interval = wilson(passes, trials)
        regions = "".join(
            f"{f'{self.passed[name]}/{self.asked[name]}' if self.asked[name] else '-':>8}"
            for name, _ in REGIONS
        )
        rate = f"{passes / trials:6.0%}" if trials else "     -"
        counts = f"{self.length_tokens:>7}{f'{passes} of {trials}':>12}{rate}"
        return f"{counts}   {interval.low:.2f} to {interval.high:.2f}{regions}"


HEAD = f"{'length':>7}{'passes':>12}{'rate':>6}   {'Wilson 95 %':<12}" + "".join(
    f"{name:>8}" for name, _ in REGIONS
)


async def ask(loaded: LoadedModel, rows: list[Row], *, seed: int, trials: int) -> None:
    """Climb through all lengths on one document, so that each token is read once."""
    validator = Recall()
    source = validator.questions(loaded, seed)
    for row in rows:
        for index in range(trials):
            question = await source.question(row.length_tokens, index)
            reply = await loaded.complete(
                question.prompt, max_tokens=question.max_tokens, stop=question.stop
            )
            row.add(question.depth, validator.judge(question, reply))
        sys.stderr.write(f"document {seed - FIRST_SEED + 1}:{row}\n")


async def check(arguments: argparse.Namespace) -> None:
    """Load once, ask everything, print the table."""
    path = arguments.model or await fetch_demo_model(announce=print)
    adapter = LlamaCppAdapter(threads=arguments.threads)
    model = await adapter.find_model(str(path))
    longest = arguments.longest or model.declared_context or 8192
    rows = [Row(length_tokens=n) for n in range(arguments.step, longest + 1, arguments.step)]
    async with adapter.load(model, longest) as loaded:
        for document in range(arguments.documents):
            await ask(loaded, rows, seed=FIRST_SEED + document, trials=arguments.trials)
    print(f"{model.key}, declared {model.declared_context}")
    print(f"{arguments.trials} questions on each of {arguments.documents} documents\n")
    print(HEAD, *rows, sep="\n")


def main() -> None:
    """Parse the command line and run the check."""
    parser = argparse.ArgumentParser(description="Ask recall questions at every length.")
    parser.add_argument("model", nargs="?", type=Path, help="path of a GGUF file")
    parser.add_argument("--step", type=int, default=512, help="tokens between lengths")
    parser.add_argument("--trials", type=int, default=10, help="questions per document and length")
    parser.add_argument("--documents", type=int, default=3, help="texts, each with its own facts")
    parser.add_argument("--longest", type=int, help="last length; default: what is declared")
    parser.add_argument("--threads", type=int, help="engine threads; default: the cores")
    anyio.run(check, parser.parse_args())


if __name__ == "__main__":
    main()
