"""Measure one model from an asyncio program.

    python examples/find_true_context_asyncio.py [MODEL.gguf] [--quick]

Without a path it measures the demo model, fetched once into the user's cache.
"""

from __future__ import annotations

import argparse
import asyncio  # noqa: TID251 - the point of this example: any asyncio program can do this

from lmstrix import ContextReport, LMStrix, MeasureOptions
from lmstrix.demo import fetch_demo_model

QUICK = MeasureOptions(max_context=512, certify=False)


async def measure(path: str | None, options: MeasureOptions) -> ContextReport:
    """Measure the model at `path`, and do something else meanwhile."""
    model = path or str(await fetch_demo_model(announce=print))
    # "memory" keeps nothing; without it every answer is kept, and can be gone on from.
    # Recall alone: without levels, the model is not made to write freely as well.
    client = LMStrix(store="memory", levels=())
    async with client as lmstrix, asyncio.TaskGroup() as group:
        clock = group.create_task(tick())
        report = await lmstrix.find_true_context(model, options)
        clock.cancel()
    return report


async def tick() -> None:
    """Show that the event loop stays free."""
    while True:
        await asyncio.sleep(5)
        print("still measuring")


def main() -> None:
    """Parse the command line, measure, and print the three numbers."""
    parser = argparse.ArgumentParser(description="Measure one model on asyncio.")
    parser.add_argument("model", nargs="?", help="path of a GGUF file")
    parser.add_argument("--quick", action="store_true", help="stop at 512 tokens")
    arguments = parser.parse_args()
    options = QUICK if arguments.quick else MeasureOptions()
    report = asyncio.run(measure(arguments.model, options))
    print(f"declared {report.declared_context}")
    print(f"loadable {report.loadable_context}")
    print(f"true {report.true_context} ({report.cause})")


if __name__ == "__main__":
    main()
