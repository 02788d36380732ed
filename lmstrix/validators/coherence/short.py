"""The same for replies of some 16 tokens, where hardly any statistic holds.

Only what is certain is called broken. Loops and marks are told reliably. Words in no order are
told where two or more neighbours are impossible, which catches about half of them; the rest counts
as a wrong answer, which it also is.
"""

from __future__ import annotations

from lmstrix.validators.coherence.kinds import Kind
from lmstrix.validators.coherence.signals import Signals, signals_of

__all__ = ["looks_broken"]

ALIKE_WORDS = 4
"""So many words, all the same, are a loop."""
LOOP_WORDS, LOOP_COVER, LOOP_ROUNDS = 6, 0.85, 3.0
"""A shorter loop has to go round three times..."""
TWICE_WORDS, TWICE_COVER = 12, 0.95
"""...a longer one twice, and nothing may stand beside it."""
MARKS, FEW_MARKS = 8, 4
SOLID = 0.25
GARBLED = 0.1
SALAD_WORDS, SALAD_CLASHES = 8, 2


def looks_broken(text: str) -> Kind | None:
    """`Kind.LOOP`, `Kind.SYMBOLS` or `Kind.WORD_SALAD`; None for everything else.

    None is no praise: a wrong answer, a refusal and an empty reply are None too.
    """
    s = signals_of(text)
    if _is_symbols(s):
        return Kind.SYMBOLS
    if _is_loop(s):
        return Kind.LOOP
    if s.words >= SALAD_WORDS and s.clashes >= max(SALAD_CLASHES, s.words // 16):
        return Kind.WORD_SALAD
    return None


def _is_symbols(s: Signals) -> bool:
    if s.garbled > GARBLED and s.characters >= FEW_MARKS:
        return True
    if s.words == 0:
        return s.characters >= FEW_MARKS
    return s.characters >= MARKS and s.letters < SOLID and s.solid < 0.5


def _is_loop(s: Signals) -> bool:
    if s.words >= ALIKE_WORDS and s.top_word == 1:
        return True
    if s.words >= LOOP_WORDS and s.cover >= LOOP_COVER and s.rounds >= LOOP_ROUNDS:
        return True
    return s.words >= TWICE_WORDS and s.cover >= TWICE_COVER and s.rounds >= 2
