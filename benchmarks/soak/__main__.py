"""Many measurements of scripted models, with faults injected at random while they run.

    python benchmarks/soak [--seed 1] [--count 300] [--workers 2] [--only K] [--keep FOLDER]

Each one is `lmstrix test` with the LM Studio adapter, its SDK and the stand-in server, in processes
of their own: the process that measures is killed; the server is killed, restarted, frozen in the
middle of a prediction, or floods the client with replies that never end; sockets are torn down,
1 % of the server's frames are malformed, the disk is slow; the store is deleted, replaced or moved
away. What was killed, or gave up, is started again until there is a report. Then the answer must be
right, every trial must be there once and be counted once, nothing of ours may be loaded any more,
and what the user had loaded must be as it was. A report whose store is gone must be printed, with
exit code 1. The exit code is 1 where anything of that is not so; `--only K` repeats that one.

The same seed draws the same models and faults. What a fault hits depends on the machine's speed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import anyio
from soaking import Outcome, soak


def main() -> int:
    """The exit code."""
    options = _options()
    numbers = range(options.count) if options.only is None else [options.only]
    started = time.monotonic()
    with ExitStack() as stack:
        if options.keep is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
        else:
            folder = options.keep
            folder.mkdir(parents=True)

        async def run() -> list[Outcome]:
            return await soak(
                options.seed,
                numbers,
                workers=min(options.workers, len(numbers)),
                folder=folder,
                tell=lambda outcome: tell(outcome, options.seed, folder),
            )

        outcomes = anyio.run(run)
    print(table(outcomes, time.monotonic() - started))
    return int(any(outcome.failed for outcome in outcomes) or len(outcomes) != len(numbers))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--workers", type=int, default=2, help="how many measure at once")
    parser.add_argument("--only", type=int, metavar="K", help="one measurement alone")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="a new folder for the stores")
    return parser.parse_args()


def tell(outcome: Outcome, seed: int, folder: Path) -> None:
    """One line on a measurement, and what is wrong with it."""
    print(
        f"{outcome.number:4} {'WRONG' if outcome.failed else 'right'} runs {outcome.runs} "
        f"trials {outcome.trials} {outcome.seconds:.1f} s",
        flush=True,
    )
    if not outcome.failed:
        return
    for text in [*outcome.wrong, *outcome.trouble]:
        print(f"     {text}")
    if outcome.left or outcome.touched:
        print(f"     instances left: {outcome.left}, of the user touched: {outcome.touched}")
    errors = folder / str(outcome.number) / "errors"
    if errors.exists():
        print("     " + errors.read_text(errors="replace")[-4000:].replace("\n", "\n     "))
    print(f"     again: --seed {seed} --only {outcome.number}", flush=True)


def table(outcomes: Sequence[Outcome], seconds: float) -> str:
    """The sums of everything."""
    rows: dict[str, float] = {
        "measurements": len(outcomes),
        "processes killed while measuring": sum(o.kills for o in outcomes),
        "servers killed": sum(o.engine_kills for o in outcomes),
        "servers restarted": sum(o.restarts for o in outcomes),
        "servers frozen": sum(o.freezes for o in outcomes),
        "servers that flooded": sum(o.floods for o in outcomes),
        "stores taken away": sum(o.stores_gone for o in outcomes),
        "sockets dropped": sum(o.sockets_dropped for o in outcomes),
        "malformed frames sent": sum(o.malformed for o in outcomes),
        "slow writes": sum(o.slow_writes for o in outcomes),
        "trials acknowledged": sum(o.trials for o in outcomes),
        "runs that gave up, resumed": sum(o.errors for o in outcomes),
        "resumptions": sum(o.runs - 1 - o.marked for o in outcomes),
        "asked again with --force": sum(o.marked for o in outcomes),
        "instances left to the server's time limit": sum(o.orphans for o in outcomes),
        "results on stdout only, exit code 1": sum(o.printed for o in outcomes),
        "wrong answers": sum(bool(o.wrong) for o in outcomes),
        "trials lost or counted twice": sum(len(o.trouble) for o in outcomes),
        "crashes": sum(o.crashes for o in outcomes),
        "instances left": sum(o.left for o in outcomes),
        "user's instances touched": sum(o.touched for o in outcomes),
        "seconds": round(seconds),
    }
    return "\n".join(f"{name:42} {value:8.0f}" for name, value in rows.items())


if __name__ == "__main__":
    sys.exit(main())
