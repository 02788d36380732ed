"""Every cause in words, for people who have not read the documentation."""

from __future__ import annotations

from lmstrix.models import Cause

__all__ = ["CAUSE_SENTENCES"]

CAUSE_SENTENCES = {
    Cause.DECLARED_MAXIMUM: (
        "Nothing failed up to the declared context; whether the model could do more was not asked."
    ),
    Cause.MAX_CONTEXT: (
        "Nothing failed up to the largest context that was to be tried; more may work."
    ),
    Cause.NOTHING_FAILED: (
        "Nothing failed in what was read; no more was read for it, so it is at least that long."
    ),
    Cause.LOAD_REFUSED: (
        "The engine's memory guard refused to load a larger context before trying it."
    ),
    Cause.LOAD_FAILED: "The engine could not load a larger context.",
    Cause.CLAMPED: "The engine loaded a smaller context than it was asked for.",
    Cause.CRASHED_ON_FILL: (
        "A larger context loads, but the engine crashes once the window is filled."
    ),
    Cause.OVERFLOW: "The engine says that a longer prompt does not fit, although it loaded it.",
    Cause.GIBBERISH: "With a longer prompt the model answers gibberish.",
    Cause.FORGETS: (
        "With a longer prompt the model forgets what it was told: its answers are wrong."
    ),
    Cause.TOO_SLOW: "A longer prompt takes longer than the limit that was set.",
    Cause.NOT_MEASURABLE: (
        "The model cannot do the task even with a short prompt, so this validator cannot"
        " measure it. That says nothing about its context."
    ),
    Cause.INVALID_MODEL: "The model's file is truncated, corrupt, or not a model.",
    Cause.UNSUPPORTED_MODEL: "The model cannot be asked questions; it may be an embedding model.",
    Cause.MODEL_NOT_FOUND: "There is no such model.",
    Cause.BUDGET_SPENT: (
        "The budget was spent before the search ended. The numbers are what was known by then."
    ),
    Cause.INTERRUPTED: ("The measurement was interrupted. The numbers are what was known by then."),
    Cause.INFRASTRUCTURE: (
        "The engine was away or stopped answering. That says nothing about the model."
    ),
    Cause.INCONCLUSIVE: "Too many replies could be judged neither right nor wrong.",
}
"""One sentence or two for each `Cause`."""
