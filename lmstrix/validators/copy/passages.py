"""Which passage is to be copied: the words that are shown must say which one it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import attrs

from lmstrix.validators.haystack import Cut, Sentence

__all__ = ["COMPARED_WORDS", "Passage", "passage_near"]

SENTENCES = 3
"""In one passage: some 30 words."""

FEWEST_SHOWN, MOST_SHOWN = 8, 16
"""Words of a passage that are shown: how many differs from question to question."""

SHOWN_STEP = 4
"""Coprime to the number of possibilities, so that all of them come in turn."""

COMPARED_WORDS = 4


@attrs.frozen(kw_only=True)
class Passage:
    """A piece of the document: the words that are shown, and those that follow."""

    shown: str
    following: str
    position_tokens: int


def passage_near(cut: Cut, target_tokens: float, turn: int) -> Passage | None:
    """A passage near a place, shown up to another word for each `turn`.

    A passage is filler alone, since values that cannot be foreseen would measure recall again;
    but for short texts that are full of facts. None where the document has no passage whose
    beginning is its own.
    """
    for filler_only in (True, False):
        starts = sorted(
            _starts(cut.sentences, filler_only=filler_only),
            key=lambda i: abs(cut.sentences[i].position_tokens - target_tokens),
        )
        passages = (_passage(cut.text, cut.sentences[i : i + SENTENCES], turn) for i in starts)
        found = next((passage for passage in passages if passage is not None), None)
        if found is not None:
            return found
    return None


def _starts(sentences: Sequence[Sentence], *, filler_only: bool) -> Iterator[int]:
    """Where runs of `SENTENCES` sentences begin."""
    run = 0
    for at, sentence in enumerate(sentences):
        run = 0 if filler_only and sentence.planted is not None else run + 1
        if run >= SENTENCES:
            yield at - SENTENCES + 1


def _passage(text: str, sentences: tuple[Sentence, ...], turn: int) -> Passage | None:
    words = " ".join(s.text for s in sentences).split(" ")
    most = min(MOST_SHOWN, len(words) - COMPARED_WORDS)
    count = FEWEST_SHOWN + turn * SHOWN_STEP % (most - FEWEST_SHOWN + 1)
    shown = " ".join(words[:count])
    if text.count(shown) != 1:
        return None
    return Passage(
        shown=shown,
        following=" ".join(words[count : count + COMPARED_WORDS]),
        position_tokens=sentences[0].position_tokens,
    )
