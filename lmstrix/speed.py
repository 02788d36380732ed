"""How long a prompt would take to read, from what reading its parts took.

A measurement reads each token once: the first question at a greater length reads what is new,
and its time to first token is the time for that. The whole prompt's time is the sum over its
parts, so no prompt has to be read twice to know it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from statistics import median

import attrs

from lmstrix.models import CurvePoint, Trial

FEWEST_TOKENS = 64
"""New tokens below which the time to first token is mostly the request's own."""


@attrs.frozen
class _Part:
    """What one prompt read: from token `start` to token `end`, in `seconds`."""

    start: int
    end: int
    seconds: float


class ReadingTimes:
    """The time that a fresh prompt needs, by its length. Of trials without a count of cached tokens
    it is not known what they read, so they are left out.
    """

    def __init__(self, trials: Iterable[Trial]) -> None:
        parts = [
            _Part(trial.cached_tokens, trial.prompt_tokens, trial.ttft_s)
            for trial in trials
            if trial.ttft_s is not None
            and trial.cached_tokens is not None
            and trial.prompt_tokens - trial.cached_tokens >= FEWEST_TOKENS
        ]
        ends = sorted({0, *(p.start for p in parts), *(p.end for p in parts)})
        self._pieces: list[tuple[int, int, float]] = []
        known = 0.0
        for start, end in pairwise(ends):
            covering = [
                p.seconds / (p.end - p.start) for p in parts if p.start <= start and end <= p.end
            ]
            # Where nothing was timed, a token takes as long as the ones before it.
            known = median(covering) if covering else known
            self._pieces.append((start, end, known))

    def ttft_s(self, length_tokens: int) -> float | None:
        """Expected time to first token of a prompt of `length_tokens` of which nothing is cached,
        in seconds; None beyond the tokens read (except for a question's own length).
        """
        if not self._pieces or length_tokens <= 0:
            return None
        _, last, speed = self._pieces[-1]
        beyond = max(0, length_tokens - last)
        if beyond >= FEWEST_TOKENS:
            return None
        read = sum(
            (min(end, length_tokens) - start) * per_token
            for start, end, per_token in self._pieces
            if start < length_tokens
        )
        return read + beyond * speed


def usable_context(
    curve: Sequence[CurvePoint],
    true_context: int,
    *,
    min_tokens_per_second: float | None = None,
    max_ttft_s: float | None = None,
) -> int | None:
    """The largest measured length, up to `true_context`, that is fast enough, as is every
    shorter one whose speed is known; None if there is none.

    `min_tokens_per_second` is of generation; `max_ttft_s` of a fresh prompt of that length.
    """
    usable: int | None = None
    for point in sorted(curve, key=lambda p: p.length_tokens):
        speed, wait = point.tokens_per_second, point.full_ttft_s
        known = speed is not None or min_tokens_per_second is None
        slow = speed is not None and speed < (min_tokens_per_second or 0.0)
        late = max_ttft_s is not None and (wait is None or wait > max_ttft_s)
        if slow or late or point.length_tokens > true_context:
            break
        if known:  # a reply of one token has no speed
            usable = point.length_tokens
    return usable
