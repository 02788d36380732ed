"""Measure one model from a trio program, within a time limit.

    python examples/find_true_context_trio.py [MODEL.gguf] [--quick]

Without a path it measures the demo model, fetched once into the user's cache.
"""

from __future__ import annotations

import argparse

import trio

from lmstrix import ContextReport, LMStrix, MeasureOptions
from lmstrix.demo import fetch_demo_model

QUICK = MeasureOptions(max_context=512, certify=False)
LIMIT_S = 3600.0


async def measure(path: str | None, options: MeasureOptions) -> ContextReport | None:
    """Measure the model at `path`; None where the time limit cancelled it.

    A cancelled measurement has stopped its engine by the time the scope is left. To get a
    report of what is known by a time of your own, use `MeasureOptions.budget_s` instead.
    """
    model = path or str(await fetch_demo_model(announce=print))
    with trio.move_on_after(LIMIT_S):
        # Recall alone: without levels, the model is not made to write freely as well.
        async with LMStrix(store="memory", levels=()) as lmstrix:
            return await lmstrix.find_true_context(model, options)
    return None


def main() -> None:
    """Parse the command line, measure, and print the three numbers."""
    parser = argparse.ArgumentParser(description="Measure one model on trio.")
    parser.add_argument("model", nargs="?", help="path of a GGUF file")
    parser.add_argument("--quick", action="store_true", help="stop at 512 tokens")
    arguments = parser.parse_args()
    options = QUICK if arguments.quick else MeasureOptions()
    report = trio.run(measure, arguments.model, options)
    if report is None:
        print("out of time")
        return
    print(f"declared {report.declared_context}")
    print(f"loadable {report.loadable_context}")
    print(f"true {report.true_context} ({report.cause})")


if __name__ == "__main__":
    main()
