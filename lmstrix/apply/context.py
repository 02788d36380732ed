"""Which measurement to apply, the context length to set, and the setting for other servers."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from lmstrix.errors import ConfigurationError, NotMeasured
from lmstrix.models import RESUMABLE, Cause, ContextReport, ModelInfo, StoredReport
from lmstrix.names import reports_of

STEP_TOKENS = 256
"""Parts of a true context are rounded down to a multiple of this: llama.cpp pads the KV cache to
the same size."""
LARGEST_K = 200
"""A smaller number of tokens may be meant in thousands."""
LARGEST_SHOWN = 1e9
"""A message does not repeat larger percentages."""


def find_model(
    reports: Sequence[StoredReport], name: str, *, engines: Sequence[str] = ()
) -> ModelInfo:
    """The model that `name` means, from the report that `choose_report` takes, else its newest one.

    `reports` are newest first. Raises like `lmstrix.names.reports_of`.
    """
    try:
        return choose_report(reports, name, engines=engines).model
    except NotMeasured:
        return reports_of(reports, name)[0].model


def choose_report(
    reports: Sequence[StoredReport], name: str, *, engines: Sequence[str] = ()
) -> ContextReport:
    """The newest finished report with a true context of the model that `name` means. One that was
    measured with one of `engines` goes before others, and a full one before a quick one. One that
    `max_context` ended says nothing against a larger one.

    Raises `NotMeasured` if no measurement of the model was finished, and like
    `lmstrix.names.reports_of`.
    """
    mine = reports_of(reports, name)
    measured = [report for report in mine if report.measured]
    measured.sort(key=lambda report: report.method.quick)
    own = [report for report in measured if report.environment.adapter in engines]
    if measured:
        chosen, *older = own or measured
        for report in older:
            if chosen.cause is not Cause.MAX_CONTEXT:
                break
            if (report.true_context or 0) >= (chosen.true_context or 0):
                chosen = report
        return chosen
    key, cause = mine[0].model.key, mine[0].cause.replace("_", " ")
    name = shlex.join([*(["--"] if key.startswith("-") else []), key])
    raise NotMeasured(
        f"{key!r} has no finished true context: its newest measurement ended with {cause!r}",
        hint=f"Continue it: lmstrix test {name}"
        if mine[0].cause in RESUMABLE
        else f"The report says why: lmstrix report --format md {name}",
    )


def recommended_context(true_context: int, *, percent: float = 100, cap: int | None = None) -> int:
    """The context to set, in tokens: never more than `percent` of `true_context`.

    A part of it is rounded down to a multiple of `STEP_TOKENS`; all of it and a smaller `cap` are
    used as they are.
    Raises `ConfigurationError` for a percentage or cap that leaves nothing, and `NotMeasured`
    for a true context that is too small to set.

    >>> recommended_context(40000), recommended_context(40000, percent=90)
    (40000, 35840)
    >>> recommended_context(40000, cap=10000)
    10000
    """
    if not 0 < percent <= 100:
        # An integer may be too large to print, or to become a float.
        shown = f"{percent:g}" if abs(percent) < LARGEST_SHOWN else "That"
        raise ConfigurationError(
            f"{shown} is not a percentage of a true context",
            hint="Give a number above 0 and at most 100.",
        )
    if cap is not None and cap < STEP_TOKENS:
        hint = f"Did you mean {cap}k?" if 0 < cap < LARGEST_K else "Give a larger number."
        raise ConfigurationError(f"{cap:,} tokens are too few for a context", hint=hint)
    if true_context < STEP_TOKENS:
        raise NotMeasured(
            f"its true context is {true_context:,} tokens: no setting makes it usable",
            hint="Use another model.",
        )
    part = int(true_context * Fraction(str(percent)) / 100)
    rounded = part if percent == 100 else part // STEP_TOKENS * STEP_TOKENS
    if rounded < STEP_TOKENS:
        raise ConfigurationError(
            f"{percent:g} % of a true context of {true_context:,} tokens is less than"
            f" {STEP_TOKENS}: too little to set",
            hint="Use a larger part of it.",
        )
    return rounded if cap is None else min(rounded, cap)


def caveats(
    reports: Sequence[StoredReport], report: ContextReport, *, engine: str = ""
) -> tuple[str, ...]:
    """Warnings before the context of `report` is set, one sentence each.

    `engine` is the adapter whose setting it is; empty for any.
    """
    found: list[str] = []
    mine = [s.report for s in reports if _is_same(s.report.model, report.model)]
    if not report.certified:
        found.append("Not certified: no fresh load with fresh text confirmed this result.")
        certified = next((r for r in mine if r.certified), None)
        if certified is not None:
            found.append(f"Another result is certified: {certified.true_context:,} tokens.")
    if report.cause is Cause.MAX_CONTEXT:
        found.append("Nothing failed up to the largest context that was tried: more may work.")
    if mine and mine[0] is not report and not mine[0].measured:
        found.append(
            "A newer measurement of this model ended without a true context:"
            f" {mine[0].cause.replace('_', ' ')}."
        )
    if engine and report.environment.adapter != engine:
        found.append(
            f"Measured with {report.environment.adapter}, not with {engine}:"
            " memory and settings may differ there."
        )
    return tuple(found)


def _is_same(one: ModelInfo, other: ModelInfo) -> bool:
    """Whether two reports are about one model: files in two folders may have the same key."""
    return one.path == other.path and (one.key == other.key or Path(one.path).is_absolute())


MODEL_PLACEHOLDER = "NAME-OF-YOUR-MODEL"


def llama_server_arguments(context: int) -> str:
    """The arguments that set the context, in tokens, for llama.cpp's ``llama-server``.

    >>> llama_server_arguments(8192)
    '-c 8192'
    """
    return f"-c {context}"


def ollama_modelfile(model: ModelInfo, context: int, *, adapter: str = "") -> str:
    r"""An Ollama Modelfile that sets the context, in tokens.

    It names the model that was measured with the adapter ``ollama``, or else the GGUF file if
    there is one. Ollama has its own names for other models, so the user has to fill them in.

    >>> print(ollama_modelfile(ModelInfo(key="some/model"), 8192))
    FROM NAME-OF-YOUR-MODEL
    PARAMETER num_ctx 8192
    """
    return f"FROM {_source(model, adapter)}\nPARAMETER num_ctx {context}"


def _source(model: ModelInfo, adapter: str) -> str:
    """Names are untrusted: one that Ollama could read as more than a name is left out."""
    if adapter == "ollama" and re.fullmatch(r"[\w.:/-]+", model.key, re.ASCII):
        return model.key
    path = model.path
    plain = path.isprintable() and not set(path) & set("\"'#")
    if plain and path.lower().endswith(".gguf") and Path(path).is_absolute():
        return f'"{path}"' if " " in path else path
    return MODEL_PLACEHOLDER
