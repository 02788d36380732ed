"""Is it language? A piece of writing told from loops, word salad, symbols and nothing.

No second model is asked: everything is counted in the text itself, and compared with the
model's own writing at a short length where that is given.
"""

from __future__ import annotations

from collections.abc import Callable

from lmstrix.validators.coherence import thresholds as at
from lmstrix.validators.coherence.kinds import Assessment, Kind
from lmstrix.validators.coherence.signals import Signals, signals_of

__all__ = ["assess"]

Finding = tuple[Kind, str]


def assess(text: str, *, own: str | None = None, ended: bool = False) -> Assessment:
    """What `text` is.

    Args:
        text: what the model wrote freely, 64 tokens or more; only the last 4,000 characters
            are read.
        own: what the same model wrote at a short length. What is broken there in the same
            way is `Kind.LIKE_OWN`, which is inconclusive.
        ended: whether the model ended the reply itself, rather than a limit.
    """
    signals = signals_of(text)
    yardstick = signals_of(own) if own else None
    kind, why = _nothing(signals, yardstick, ended=ended) or _broken(signals, yardstick)
    if yardstick and kind in {Kind.LOOP, Kind.WORD_SALAD, Kind.SYMBOLS}:
        own_kind, _ = _broken(yardstick, None)
        if own_kind is kind:
            return Assessment(kind=Kind.LIKE_OWN, why=f"{why}, as at short length", signals=signals)
    return Assessment(kind=kind, why=why, signals=signals)


def _nothing(s: Signals, own: Signals | None, *, ended: bool) -> Finding | None:
    """Empty, stopped at once, or too short to tell."""
    if s.characters == 0:
        return Kind.EMPTY, "no characters"
    if _is_symbols(s) or _is_loop(s):
        return None
    short = s.words < at.LEAST_WORDS and s.characters < at.LEAST_CHARACTERS
    if not short:
        return None
    least = float(at.INSTANT_WORDS)
    if own is not None:
        least = max(own.words * at.INSTANT_SHARE, min(least, own.words / 3))
    if ended and s.words <= least:
        return Kind.INSTANT_STOP, f"ended after {s.words} words"
    return Kind.TOO_SHORT, f"{s.words} words"


def _broken(s: Signals, own: Signals | None) -> Finding:
    checks: tuple[Callable[[], Finding | None], ...] = (
        lambda: _symbols(s, own),
        lambda: _loop(s),
        lambda: _salad(s),
        lambda: _unlike(s, own) if own else None,
    )
    found = next((finding for check in checks if (finding := check())), None)
    return found or (Kind.FINE, "")


def _is_symbols(s: Signals) -> bool:
    return _symbols(s, None) is not None


def _is_loop(s: Signals) -> bool:
    return s.words >= 8 and _loop(s) is not None


def _symbols(s: Signals, own: Signals | None) -> Finding | None:
    if s.characters < 8:
        return None
    mixed = sum(share >= 0.05 for _, share in s.scripts) >= 3
    foreign = own is not None and s.script != own.script and s.switches > 0
    reasons = {
        "undecodable characters": s.garbled > at.GARBLED,
        "marks instead of words": s.solid < at.SOLID
        or (s.letters < at.LETTERS and s.characters >= at.MARKS_CHARACTERS)
        or (s.solid < at.SOLID_MANY and s.distinct_marks >= at.MANY_MARKS),
        "several scripts": mixed and s.switches >= at.SWITCHES,
        "scripts within words": s.torn >= at.TORN,
        "another script": foreign and _foreign_share(s, own) >= at.FOREIGN and s.switches > 0.1,
    }
    return next(((Kind.SYMBOLS, why) for why, holds in reasons.items() if holds), None)


def _foreign_share(s: Signals, own: Signals | None) -> float:
    known = {name for name, _ in own.scripts} if own else set[str]()
    return sum(share for name, share in s.scripts if name not in known)


def _loop(s: Signals) -> Finding | None:
    dense = s.punctuated >= at.CODE_MARKS
    if s.cover >= at.COVER and s.rounds >= at.ROUNDS:
        return Kind.LOOP, f"{s.cover:.0%} of it goes round {s.rounds:.1f} times"
    if s.repeated >= (at.CODE_REPEATED if dense else at.REPEATED):
        return Kind.LOOP, f"{s.repeated:.0%} of its strings of words were there before"
    if s.compression >= (at.CODE_COMPRESSION if dense else at.COMPRESSION):
        return Kind.LOOP, f"shrinks {s.compression:.1f} times"
    return None


def _salad(s: Signals) -> Finding | None:
    bare = s.punctuated < at.UNPUNCTUATED
    if s.language in at.CJ_FLUENT:
        low = s.clashes >= at.CLASHES and _order(s) < at.CJ_FLUENT[s.language]
        return (Kind.WORD_SALAD, f"{s.clashes} impossible neighbours") if low else None
    least, rate = at.CLASHES - bare, at.CLASH_RATE * (at.BARE_SHARE if bare else 1)
    if s.punctuated >= at.CODE_MARKS:
        least, rate = at.CODE_CLASHES, at.CODE_CLASH_RATE
    if s.clashes >= least and s.clashes > rate * s.words:
        return Kind.WORD_SALAD, f"{s.clashes} impossible neighbours in {s.words} words"
    if bare and s.script == "Latin" and s.common < at.FEW_COMMON and s.words >= at.LEAST_WORDS:
        return Kind.WORD_SALAD, f"no punctuation, {s.common:.0%} common words"
    return None


def _order(s: Signals) -> float:
    """Share in common strings, less what speaks for words in no order."""
    bare = s.punctuated < at.UNPUNCTUATED
    return s.fluent - at.CJ_DISORDER * s.clashes / max(1, s.words) - at.CJ_BARE * bare


def _unlike(s: Signals, own: Signals) -> Finding | None:
    """Hardly any common word or string where the model's own writing is full of them."""
    if s.language in at.CJ_FLUENT and s.language == own.language:
        least = min(at.CJ_FLUENT[s.language], at.CJ_OWN_SHARE * _order(own))
        low = _order(s) < least
        why = f"{s.fluent:.0%} in common strings, {own.fluent:.0%} at short length"
        return (Kind.WORD_SALAD, why) if low else None
    prose = own.common >= at.PROSE and s.punctuated < at.DENSE_MARKS and s.words >= at.LEAST_WORDS
    comparable = prose and s.script == own.script and s.language in {"", own.language}
    if comparable and s.common < at.OWN_SHARE * own.common:
        return Kind.WORD_SALAD, f"{s.common:.0%} common words, {own.common:.0%} at short length"
    return None
