"""What must hold after a measurement, whatever went wrong meanwhile."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from drawing import Draw
from measuring import ack

from lmstrix.measure.state import BASELINE
from lmstrix.models import ContextReport, Judgement
from lmstrix.stores.export import KeptMeasurement
from lmstrix.stores.sqlite import SqliteStore

SENTENCE = 32
"""A prompt may fall short of its length by as many tokens, and so pass just above the truth."""
DIED = "earlier runs died while they loaded"
"""What a report says if it went no further than a load at which processes were killed."""


async def kept_in(store: Path) -> Sequence[KeptMeasurement]:
    """Everything that the store has, as another process sees it."""
    opened = SqliteStore(store)
    try:
        return (await opened.contents()).measurements
    finally:
        await opened.aclose()


def died_at_load(report: ContextReport) -> bool:
    """Whether the report tells its reader to use --force."""
    return any(DIED in note for note in report.notes)


def wrong(drawn: Draw, report: ContextReport) -> str:
    """What is wrong about an answer, or an empty string."""
    found = report.true_context
    if found is None or not drawn.truth - drawn.slack <= found <= drawn.truth + SENTENCE:
        return f"found {found}, and the truth is {drawn.truth} (slack {drawn.slack})"
    if report.cause is not drawn.cause:
        return f"the cause is {report.cause}, and should be {drawn.cause}"
    return ""


def lost_or_doubled(
    kept: Sequence[KeptMeasurement], acks: Sequence[str], *, gone: int, interrupted: int
) -> Iterator[str]:
    """Trials that are missing, there twice, not counted, or counted twice.

    The first `gone` of those acknowledged went with a store that was taken away. `interrupted` runs
    and stores may each have one that could not be acknowledged any more.
    """
    stored = Counter(ack(m.id, trial) for m in kept for trial in m.trials)
    yield from (f"twice in the store: {name}" for name, n in stored.items() if n > 1)
    said = Counter(acks)
    yield from (f"acknowledged twice: {name}" for name, n in said.items() if n > 1)
    lost = set(acks[gone:]) - stored.keys()
    yield from (f"acknowledged and lost: {name}" for name in lost)
    silent = stored.keys() - said.keys()
    if len(silent) > interrupted:
        yield f"{len(silent)} trials were never acknowledged, after {interrupted} interruptions"
    for measurement in kept:
        if measurement.report is not None:
            yield from _miscounted(measurement, measurement.report)


def _miscounted(measurement: KeptMeasurement, report: ContextReport) -> Iterator[str]:
    counted = Counter({p.length_tokens: p.trials + p.inconclusive for p in report.curve})
    there = defaultdict[int, Counter[int]](Counter)  # of each text, in their order
    for trial in measurement.trials:
        if not trial.level and trial.phase != BASELINE:
            there[trial.length_tokens][trial.seed] += 1
    for length in counted.keys() | there.keys():
        texts = list(there[length].values())
        # A certificate may overrule the texts before its own: those count no more.
        if counted[length] not in {sum(texts[at:]) for at in range(len(texts) or 1)}:
            yield f"at {length}: {sum(texts)} trials stored, {counted[length]} reported"
    judged = sum(
        not t.level and t.phase == BASELINE and t.judgement is not Judgement.INCONCLUSIVE
        for t in measurement.trials
    )
    if judged != report.baseline.trials:
        yield f"baseline: {judged} trials stored, {report.baseline.trials} reported"
