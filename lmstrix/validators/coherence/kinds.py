"""What a piece of writing can be."""

from __future__ import annotations

import enum

import attrs

from lmstrix.models import Judgement
from lmstrix.validators.coherence.signals import Signals

__all__ = ["Assessment", "Kind"]


class Kind(enum.StrEnum):
    """What was written. `TOO_SHORT` and `LIKE_OWN` say nothing about the model."""

    FINE = "fine"
    LOOP = "loop"
    """The same words again and again."""
    WORD_SALAD = "word_salad"
    """Words, or pieces of words, in no order; or hardly any word of a known language."""
    SYMBOLS = "symbols"
    """Marks instead of words, several scripts through each other, undecodable characters."""
    EMPTY = "empty"
    INSTANT_STOP = "instant_stop"
    """The model ended its reply after next to nothing."""
    TOO_SHORT = "too_short"
    """Too little for any statistic."""
    LIKE_OWN = "like_own"
    """Broken, and so is the model's own writing at a short length, in the same way."""


_JUDGEMENTS = {
    Kind.FINE: Judgement.PASS,
    Kind.LOOP: Judgement.GIBBERISH,
    Kind.WORD_SALAD: Judgement.GIBBERISH,
    Kind.SYMBOLS: Judgement.GIBBERISH,
    Kind.EMPTY: Judgement.EMPTY,
    Kind.INSTANT_STOP: Judgement.EMPTY,
    Kind.TOO_SHORT: Judgement.INCONCLUSIVE,
    Kind.LIKE_OWN: Judgement.INCONCLUSIVE,
}


@attrs.frozen(kw_only=True)
class Assessment:
    """A kind, what spoke for it, and the counts that it rests on."""

    kind: Kind
    why: str
    signals: Signals

    @property
    def judgement(self) -> Judgement:
        """The kind in the words of the other validators."""
        return _JUDGEMENTS[self.kind]

    @property
    def is_broken(self) -> bool:
        """Whether the model failed to write language."""
        return self.judgement in {Judgement.GIBBERISH, Judgement.EMPTY}
