"""Token counts for servers without a tokenizer, learned from the counts of their replies."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import attrs

_PIECE = re.compile(r"\d{1,3}|[A-Za-z]{1,8}|[^\W\dA-Za-z_]|[^\w\s]|_|\s{2,}")
"""Roughly a token of most tokenizers; how many there really are is learned."""

FIRST_DENSITY = 1.0
"""Tokens for each piece, before anything is known. English prose has 1.06 for SmolLM2, whose
vocabulary is small, and 0.94 if each word is one token; code has 1.0."""
LEAST_SAMPLE = 24
"""Pieces that a sample must hold to say something."""
LEAST_PASSAGE = 200
"""The same for the densest and the sparsest passage of a text."""
LEAST_DENSE, MOST_DENSE = 0.75, 1.08
"""Of the average: how dense any passage may be at least, and one of the same text at most."""
MOST_KNOWN = 8


@attrs.frozen(kw_only=True)
class Estimate:
    """How many tokens a text has: `tokens`, but at least `least`, and hardly more than `most`."""

    tokens: int
    least: int
    most: int

    @property
    def is_certain(self) -> bool:
        """Whether the server said so."""
        return self.least == self.most


class TokenCounts:
    """Counts that the server gave for whole prompts, and estimates for other texts.

    A prompt is compared with the most similar one that was counted. Only the passage in which
    they differ is estimated, so a document that grows is known to within a fraction of its growth.
    """

    def __init__(self) -> None:
        self._known: dict[str, int] = {}
        self._density = FIRST_DENSITY
        self._passages: dict[str, float] = {}
        """The density of the last passage of a known text, and of no others."""
        self._sparsest, self._densest = math.inf, 0.0
        self._longest = 0

    def learn(self, text: str, tokens: int) -> None:
        """The server counted `tokens` for `text`."""
        self._learn_passage(text, tokens)
        shortest = min(self._known, key=len, default=None)
        if shortest is not None and len(text) > self._longest:
            more, fewer = map(_pieces, _differences(text, shortest))
            if more - fewer >= LEAST_SAMPLE and tokens > self._known[shortest]:
                density = (tokens - self._known[shortest]) / (more - fewer)
                self._density = min(8.0, max(0.1, density))
                self._longest = len(text)
        self._known.pop(text, None)
        self._known[text] = tokens
        if len(self._known) > MOST_KNOWN:
            # The first and shortest ones stay: they show what a template adds.
            oldest = list(self._known)[2]
            del self._known[oldest]
            self._passages.pop(oldest, None)

    def estimate(self, text: str) -> Estimate:
        """How many tokens the server would count for the whole prompt `text`."""
        if (count := self._known.get(text)) is not None:
            return Estimate(tokens=count, least=count, most=count)
        if not self._known:
            tokens = self.plain(text)
            return Estimate(tokens=tokens, least=tokens // 2, most=2 * tokens)
        other, one, two = self._nearest(text)
        count = self._known[other]
        more, fewer = _pieces(one), _pieces(two)
        usual = self._passages.get(other, self._density)
        low, high = min(usual, self._density), max(usual, self._density)
        dense = max(MOST_DENSE * usual, self._densest)
        sparse = min(usual / MOST_DENSE, self._sparsest)
        return Estimate(
            tokens=max(1, count + round(usual * (more - fewer))),
            least=math.floor(count + LEAST_DENSE * low * more - fewer * high / LEAST_DENSE) - 2,
            most=math.ceil(count + dense * more - sparse * fewer) + 2,
        )

    def _nearest(self, text: str) -> tuple[str, str, str]:
        """The most similar known text, and in what both differ."""
        found = [(other, *_differences(text, other)) for other in self._known]
        return min(found, key=lambda one: len(one[1]) + len(one[2]))

    def _learn_passage(self, text: str, tokens: int) -> None:
        """How dense the end of `text` is, if it goes on where a known one ends."""
        if not self._known:
            return
        other, one, two = self._nearest(text)
        count, more, fewer = self._known[other], _pieces(one), _pieces(two)
        if more - fewer >= LEAST_PASSAGE and 4 * fewer < more and tokens > count:
            density = min(8.0, max(0.1, (tokens - count) / (more - fewer)))
            self._passages[text] = density
            self._sparsest = min(self._sparsest, density)
            self._densest = max(self._densest, density)

    def same(self, text: str) -> int:
        """Length of the longest beginning of `text`, in characters, that was counted before."""
        return max((common_length(text, other) for other in self._known), default=0)

    def plain(self, text: str) -> int:
        """About how many tokens `text` has by itself."""
        return math.ceil(self._density * _pieces(text))


def _pieces(text: str) -> int:
    return len(_PIECE.findall(text))


def _differences(one: str, two: str) -> tuple[str, str]:
    """Both texts without their common beginning and their common end."""
    same = common_length(one, two)
    one, two = one[same:], two[same:]
    same = common_length(one[::-1], two[::-1])
    return one[: len(one) - same], two[: len(two) - same]


def common_length(one: Sequence[object], two: Sequence[object]) -> int:
    """Length of the common beginning; by bisection, which compares in C."""
    same, differs = 0, min(len(one), len(two)) + 1
    while differs - same > 1:
        middle = (same + differs) // 2
        if one[same:middle] == two[same:middle]:
            same = middle
        else:
            differs = middle
    return same
