"""Follow a measurement event by event, and keep its report as JSON.

    python examples/watch_progress.py [MODEL.gguf] [--quick] [--report FILE]

Without a path it measures the demo model, fetched once into the user's cache.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import anyio

from lmstrix import ContextReport, LMStrix, MeasureOptions, dump_report
from lmstrix.demo import fetch_demo_model
from lmstrix.events import (
    BaselineMeasured,
    BracketChanged,
    Event,
    LoadFinished,
    MeasurementFinished,
    PrefillProgressed,
    ProbeFinished,
)

QUICK = MeasureOptions(max_context=512, certify=False)


async def watch(path: str | None, options: MeasureOptions) -> ContextReport | None:
    """Print what happens; the last event holds the report."""
    model = path or str(await fetch_demo_model(announce=print))
    report = None
    # Recall alone: without levels, the model is not made to write freely as well.
    client = LMStrix(store="memory", levels=())
    # Leaving the block early cancels the measurement.
    async with client as lmstrix, lmstrix.watch(model, options) as feed:
        async for event in feed:
            if isinstance(event, MeasurementFinished):
                report = event.report
            elif line := describe(event):
                print(line)
    return report


def describe(event: Event) -> str:
    """One line for the events worth one, else an empty string."""
    match event:
        case LoadFinished(effective_context=int() as context):
            return f"loaded with {context} tokens"
        case BaselineMeasured(baseline=baseline):
            return f"{baseline.passes} of {baseline.trials} right at short length"
        case PrefillProgressed(length_tokens=length, progress=done):
            return f"reading {length}: {done.processed_tokens} of {done.prompt_tokens} tokens"
        case ProbeFinished(length_tokens=length, passes=passes, trials=trials, verdict=verdict):
            return f"{length}: {passes} of {trials}, {verdict}"
        case BracketChanged(low=low, high=high):
            return f"true context: at least {low}" + (f", below {high}" if high else "")
        case _:
            return ""


def main() -> None:
    """Parse the command line, watch, and write the report where it is wanted."""
    parser = argparse.ArgumentParser(description="Follow a measurement.")
    parser.add_argument("model", nargs="?", help="path of a GGUF file")
    parser.add_argument("--quick", action="store_true", help="stop at 512 tokens")
    parser.add_argument("--report", type=Path, help="write the report here")
    arguments = parser.parse_args()
    options = QUICK if arguments.quick else MeasureOptions()
    report = anyio.run(watch, arguments.model, options)
    if report is not None:
        print(f"true {report.true_context} ({report.cause})")
        if arguments.report:
            arguments.report.write_text(dump_report(report) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
