"""Verdicts, and the reasons for them: what can be said of a reply, a length, a measurement."""

from __future__ import annotations

import enum

__all__ = ["UNFINISHED", "Cause", "Judgement", "StopReason", "Verdict"]


class StopReason(enum.StrEnum):
    """Why the engine stopped generating."""

    END = "end"
    STOP_STRING = "stop_string"
    MAX_TOKENS = "max_tokens"
    CONTEXT_LENGTH = "context_length"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"


class Judgement(enum.StrEnum):
    """What a validator says of one reply. Only ``INCONCLUSIVE`` counts neither way."""

    PASS = "pass"
    WRONG = "wrong"
    GIBBERISH = "gibberish"
    EMPTY = "empty"
    INCONCLUSIVE = "inconclusive"


class Verdict(enum.StrEnum):
    """What all the trials at one length say together."""

    PASS = "pass"
    FAIL = "fail"
    UNDECIDED = "undecided"


class Cause(enum.StrEnum):
    """Why the true context is not larger, or why there is none."""

    DECLARED_MAXIMUM = "declared_maximum"
    """Nothing failed up to the declared context: the answer is censored there."""
    MAX_CONTEXT = "max_context"
    """Nothing failed up to the largest context that the user asked to try."""
    NOTHING_FAILED = "nothing_failed"
    """Nothing failed in what was read, and no more was read for it: it is at least that long."""
    LOAD_REFUSED = "load_refused"
    LOAD_FAILED = "load_failed"
    LOAD_HUNG = "load_hung"
    """A load made no progress, while the server answered other calls."""
    CLAMPED = "clamped"
    CRASHED_ON_FILL = "crashed_on_fill"
    OVERFLOW = "overflow"
    TRUNCATED = "truncated"
    """The server dropped part of the prompt and did not say so."""
    GIBBERISH = "gibberish"
    FORGETS = "forgets"
    TOO_SLOW = "too_slow"
    NOT_MEASURABLE = "not_measurable"
    """The model cannot do the validator's task even at the baseline's short length."""
    INVALID_MODEL = "invalid_model"
    UNSUPPORTED_MODEL = "unsupported_model"
    MODEL_NOT_FOUND = "model_not_found"
    BUDGET_SPENT = "budget_spent"
    INTERRUPTED = "interrupted"
    INFRASTRUCTURE = "infrastructure"
    """The engine was away or silent. Says nothing about the model."""
    INCONCLUSIVE = "inconclusive"
    """Too many replies could be judged neither way."""


UNFINISHED = frozenset(
    {
        Cause.NOT_MEASURABLE,
        Cause.INVALID_MODEL,
        Cause.UNSUPPORTED_MODEL,
        Cause.MODEL_NOT_FOUND,
        Cause.BUDGET_SPENT,
        Cause.INTERRUPTED,
        Cause.INFRASTRUCTURE,
        Cause.INCONCLUSIVE,
    }
)
"""Causes that say that the measurement did not end with a verdict."""
