"""What a probe costs: the model that strategies plan with, learnt from a measurement's trials.

The unit is the time that the engine needs to read one new prompt token at short context.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from itertools import combinations, pairwise
from math import log2
from statistics import median

import attrs

from lmstrix.models import Trial

__all__ = ["CostModel", "Reuse", "learn_costs"]


class Reuse(StrEnum):
    """What an engine keeps of the previous prompt when the next one arrives."""

    PREFIX = "prefix"
    """The common beginning of both, however long: as llama-server does it."""
    CHECKPOINTS = "checkpoints"
    """The cache can be extended, not stepped back: a shorter prompt is read again from the
    longest earlier prompt that it extends, or from the start (recurrent and hybrid models,
    sliding windows)."""
    NONE = "none"
    """Nothing: each question reads its whole prompt."""


@attrs.frozen(kw_only=True)
class CostModel:
    """What reading, asking and answering cost on one engine with one model.

    The defaults describe an engine with prefix reuse and short answers, of which nothing is
    known yet. A length is that of the prompt's document; each question adds its own tokens.
    """

    question_tokens: float = 16.0
    """New prompt tokens that one question costs beside the document."""
    generated_tokens: float = 6.0
    """Tokens generated for one answer."""
    cached_token: float = 0.0
    """Weight of a prompt token that is not read again."""
    generated_token: float = 8.0
    """Weight of a generated token. Single-stream decoding is that much slower than prefill,
    or more, on all the machines that a local model runs on."""
    probe: float = 64.0
    """Weight of going to another length at all: a document to cut to size and to tokenize, a
    request. An assumption (a tenth of a second at 640 tokens per second); it is not learnt."""
    load: float = 0.0
    """Weight of one load of the model."""
    attention_tokens: float | None = None
    """The length at which attention costs as much as everything else: reading the first *n*
    tokens costs ``n + n**2 / attention_tokens``. None: not known, so left out."""
    reuse: Reuse = Reuse.PREFIX
    seconds_per_token: float | None = None
    """Seconds for one new prompt token at short context; None where it is not known."""

    def reread_from(self, length: int, cached: int, checkpoint: int = 0) -> int:
        """The position at which the engine starts to read for a prompt of `length`.

        `cached` is the length of the document that it has read last, `checkpoint` the longest
        earlier prompt that is no longer than `length`.
        """
        if self.reuse is Reuse.NONE:
            return 0
        if cached <= length:
            return cached
        return length if self.reuse is Reuse.PREFIX else min(length, checkpoint)

    def prompt_tokens(
        self, length: int, *, cached: int = 0, trials: int = 1, checkpoint: int = 0
    ) -> float:
        """Expected prompt tokens that are really read for `trials` questions at `length`."""
        questions = trials * self.question_tokens
        if self.reuse is Reuse.NONE:
            return trials * length + questions
        return length - self.reread_from(length, cached, checkpoint) + questions

    def tokens(
        self, length: int, *, cached: int = 0, trials: int = 1, checkpoint: int = 0
    ) -> float:
        """Expected tokens, read or generated: what a token budget is charged."""
        read = self.prompt_tokens(length, cached=cached, trials=trials, checkpoint=checkpoint)
        return read + trials * self.generated_tokens

    def reading(self, length: float) -> float:
        """Cost of reading the first `length` tokens of a document."""
        quadratic = 0.0 if self.attention_tokens is None else length / self.attention_tokens
        return length * (1 + quadratic)

    def asking(self, length: float) -> float:
        """Cost of one more question at `length`, whose document is in the cache."""
        slope = 0.0 if self.attention_tokens is None else 2 * length / self.attention_tokens
        answer = self.generated_tokens * self.generated_token
        again = self.reading(length) if self.reuse is Reuse.NONE else self.cached_token * length
        return self.question_tokens * (1 + slope) + answer + again

    def cost(self, length: int, *, cached: int = 0, trials: int = 1, checkpoint: int = 0) -> float:
        """Expected cost of `trials` questions at `length`, in new tokens at short context."""
        start = self.reread_from(length, cached, checkpoint)
        new = 0.0 if self.reuse is Reuse.NONE else self.reading(length) - self.reading(start)
        going = 0.0 if cached == length else self.probe
        return going + new + trials * self.asking(length)

    def seconds(
        self, length: int, *, cached: int = 0, trials: int = 1, checkpoint: int = 0
    ) -> float | None:
        """Expected seconds of the same; None where the speed is not known."""
        if self.seconds_per_token is None:
            return None
        cost = self.cost(length, cached=cached, trials=trials, checkpoint=checkpoint)
        return cost * self.seconds_per_token


MANY = 256
"""New tokens from which a time to first token says something about the reading speed."""

FEW = 4
"""Samples below which nothing is concluded from times."""

SPAN = 4
"""Longest over shortest read from which the quadratic part of attention can be told."""


NO_FASTER = 0.75
"""Time of a further question over the first one's from which nothing is reused."""

FLAT = 8
"""An attention length beyond so many times the longest read is noise, and changes no plan."""


def learn_costs(trials: Sequence[Trial]) -> CostModel:
    """The cost model that a measurement's own `trials`, in order, speak for.

    Reuse and the size of a question come from the engine's exact token counts. What comes
    from times is a median, needs several samples, and is rounded to a power of two (seconds:
    of its fourth root), so that a little noise does not change a search's path. What is not
    known yet stays at its default. Where the engine counts no cached tokens, times must tell
    whether it reuses prefixes.
    """
    default = CostModel()
    counted = any(_known(t) for t in trials)
    trials = trials if counted else _imputed(trials, default.question_tokens)
    steps = [(a, b) for a, b in pairwise(trials) if a.seed == b.seed]
    again = [b for a, b in steps if a.length_tokens == b.length_tokens and _known(b)]
    question = _typical([_new(b) for b in again], default.question_tokens)
    reuse = _reuse(steps, again, question)
    if reuse is Reuse.NONE:
        # The whole prompt is read for each question; the length says so already.
        question = 0.0
    seconds, attention = _reading_speed(trials)
    return CostModel(
        question_tokens=question,
        generated_tokens=_typical([t.generated_tokens for t in trials], default.generated_tokens),
        cached_token=_cached_weight(again, question, seconds),
        generated_token=_generated_weight(trials, seconds, default.generated_token),
        attention_tokens=attention,
        reuse=reuse,
        seconds_per_token=seconds,
    )


def _imputed(trials: Sequence[Trial], question: float) -> Sequence[Trial]:
    """The trials of an engine without counts, with those that its times speak for.

    With prefix reuse, a further question at one length takes far less time than the first.
    """
    pairs = list(pairwise(trials))
    shares = [
        b.ttft_s / a.ttft_s
        for a, b in pairs
        if a.ttft_s and b.ttft_s and a.index == 0 and _same(a, b, "seed", "length_tokens")
    ]
    if len(shares) < FEW:
        return trials
    if median(shares) > NO_FASTER:
        return [attrs.evolve(t, cached_tokens=0) for t in trials]
    shared = {id(b): min(a.prompt_tokens, b.prompt_tokens) for a, b in pairs if _same(a, b, "seed")}
    return [
        attrs.evolve(t, cached_tokens=max(0, shared[id(t)] - round(question)))
        if id(t) in shared
        else attrs.evolve(t, cached_tokens=0)
        for t in trials
    ]


def _same(a: Trial, b: Trial, *names: str) -> bool:
    return all(getattr(a, name) == getattr(b, name) for name in names)


def _known(trial: Trial) -> bool:
    return trial.cached_tokens is not None and trial.prompt_tokens > 0


def _new(trial: Trial) -> int:
    return trial.prompt_tokens - (trial.cached_tokens or 0)


def _typical(values: Iterable[float], default: float) -> float:
    found = list(values)
    return float(round(median(found))) if found else default


def _reuse(steps: Sequence[tuple[Trial, Trial]], again: Sequence[Trial], question: float) -> Reuse:
    """From counts alone; an engine that tells none is taken to reuse prefixes, as most do."""
    if again and 2 * median([_new(t) / t.prompt_tokens for t in again]) > 1:
        return Reuse.NONE
    slack = max(128.0, 4 * question)
    back = [_new(b) > slack for a, b in steps if b.length_tokens < a.length_tokens and _known(b)]
    return Reuse.CHECKPOINTS if 2 * sum(back) > len(back) else Reuse.PREFIX


def _reading_speed(trials: Sequence[Trial]) -> tuple[float | None, float | None]:
    """Seconds per token and attention's length, from the reads that were long enough.

    Reading from *a* to *b* takes ``c * (b - a) * (1 + (a + b) / n_c)`` seconds: the time per
    token is a line over *a* + *b*. The line is Theil and Sen's: the median of all slopes.
    """
    reads = [
        (float(t.prompt_tokens + (t.cached_tokens or 0)), t.ttft_s / _new(t))
        for t in trials
        if t.ttft_s and _known(t) and _new(t) >= MANY
    ]
    if not reads:
        return None, None
    speed = median([per_token for _, per_token in reads])
    positions = [position for position, _ in reads]
    if len(reads) < FEW or max(positions) < SPAN * min(positions):
        return _rounded(speed, 4), None
    slope = median([(t - s) / (b - a) for (a, s), (b, t) in combinations(reads, 2) if a != b])
    intercept = median([t - slope * a for a, t in reads])
    if slope <= 0 or intercept <= 0 or intercept / slope > FLAT * max(positions):
        return _rounded(speed, 4), None
    return _rounded(intercept, 4), _rounded(intercept / slope, 1)


def _generated_weight(trials: Sequence[Trial], seconds: float | None, default: float) -> float:
    speeds = [t.tokens_per_second for t in trials if t.tokens_per_second]
    if seconds is None or len(speeds) < FEW:
        return default
    return _rounded(1 / (median(speeds) * seconds), 1)


def _cached_weight(again: Sequence[Trial], question: float, seconds: float | None) -> float:
    """What a further question takes beyond its own tokens, spread over those not read again."""
    shares = [
        max(0.0, t.ttft_s / seconds - question) / t.cached_tokens
        for t in again
        if seconds and t.ttft_s and t.cached_tokens
    ]
    if len(shares) < FEW or (share := median(shares)) < 1 / 1024:
        return 0.0
    return _rounded(share, 1)


def _rounded(value: float, per_octave: int) -> float:
    """The nearest power of the `per_octave`-th root of two."""
    return 2.0 ** (round(log2(value) * per_octave) / per_octave)
