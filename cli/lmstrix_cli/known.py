"""What need not be measured again: the store has it, and nothing that it depends on changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lmstrix import LMStrix, MeasureOptions
from lmstrix.models import Cause, ContextReport, ModelInfo

__all__ = ["known_reports"]


async def known_reports(
    client: LMStrix, models: Sequence[ModelInfo], options: MeasureOptions
) -> Mapping[str, ContextReport]:
    """The newest results of those of `models` that `options` would measure the same way again,
    by the model's key.

    "The same" is the key that the store keeps results under: the model's content, the adapter,
    the engine's version and the method. None with `MeasureOptions.fresh` or `only_at`.
    """
    if options.fresh or options.only_at is not None:
        return {}
    stored = {summary.key for summary in await client.summaries()}
    keys = {model.key: await (await client.measurement(model, options)).key() for model in models}
    if stored.isdisjoint(keys.values()):
        return {}
    reports = {one.key: one.report for one in await client.reports()}
    return {
        name: reports[key]
        for name, key in keys.items()
        if key in reports and _answers(reports[key], options)
    }


def _answers(report: ContextReport, options: MeasureOptions) -> bool:
    """Whether it says all that was asked for, as far as that is not in the key."""
    if report.cause is Cause.NOT_MEASURABLE:
        return True
    if not report.measured or (options.certify and not report.certified):
        return False
    if options.force and report.cause is Cause.LOAD_REFUSED:
        return False  # more is to be tried this time
    usable = report.usable
    told = (usable.min_tokens_per_second, usable.max_ttft_s) if usable else (None, None)
    wanted = (options.min_tokens_per_second, options.max_ttft_s)
    return wanted in {(None, None), told}
