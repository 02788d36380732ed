"""Frozen facts of a benchmark: how fast a model reads and writes, by context length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from statistics import median

import attrs

from lmstrix.models import Environment, ModelInfo

__all__ = ["BENCH_SCHEMA_VERSION", "BenchPoint", "BenchSample", "SpeedBench", "point_of"]

BENCH_SCHEMA_VERSION = 1
"""Version of the JSON form of `SpeedBench`."""


@attrs.frozen(kw_only=True)
class BenchSample:
    """One reply, in the engine's own numbers.

    Where `warm` is false the prompt is a text that the engine has never seen; where it is true,
    the same text with another request at its end.
    """

    warm: bool
    prompt_tokens: int
    """The whole prompt, cached tokens included."""
    cached_tokens: int | None
    """Of these, not read again; None where the engine does not tell."""
    generated_tokens: int
    ttft_s: float | None
    tokens_per_second: float | None
    seconds: float
    """From asking to the whole reply, by our clock."""

    @property
    def read_tokens(self) -> int:
        """Prompt tokens that had to be read."""
        return self.prompt_tokens - (self.cached_tokens or 0)

    @property
    def prefill_tokens_per_second(self) -> float | None:
        """Tokens read in each second until the first token came; None where that is unknown."""
        return self.read_tokens / self.ttft_s if self.ttft_s else None

    @property
    def reused(self) -> float | None:
        """The part of the prompt that came from the KV cache, from 0 to 1."""
        if self.cached_tokens is None or not self.prompt_tokens:
            return None
        return self.cached_tokens / self.prompt_tokens


@attrs.frozen(kw_only=True)
class BenchPoint:
    """What was measured at one length: medians, and the samples that they come from.

    A value is None where the engine tells nothing of the kind.
    """

    length_tokens: int
    """Prompt and reserved reply."""
    prefill_tokens_per_second: float | None
    """Reading a prompt that was never seen."""
    ttft_s: float | None
    """Time to first token of such a prompt."""
    tokens_per_second: float | None
    """Generation, behind a window filled that far."""
    warm_ttft_s: float | None
    """Time to first token where only the request at the end is new."""
    reused: float | None
    """The part of that prompt that came from the KV cache, from 0 to 1."""
    samples: tuple[BenchSample, ...]


@attrs.frozen(kw_only=True)
class SpeedBench:
    """Speeds by context length. `complete` is false where it ended before the longest length."""

    model: ModelInfo
    context_length: int
    """What was loaded, as the engine reports it, in tokens."""
    points: tuple[BenchPoint, ...]
    complete: bool
    environment: Environment
    rounds: int
    seed: int
    seconds: float
    started_at: datetime
    finished_at: datetime
    notes: tuple[str, ...] = ()
    schema_version: int = BENCH_SCHEMA_VERSION


def point_of(length_tokens: int, samples: Sequence[BenchSample]) -> BenchPoint:
    """The medians of `samples`, of which there may be none of a kind."""
    cold = [sample for sample in samples if not sample.warm]
    warm = [sample for sample in samples if sample.warm]
    return BenchPoint(
        length_tokens=length_tokens,
        prefill_tokens_per_second=_median(cold, lambda s: s.prefill_tokens_per_second),
        ttft_s=_median(cold, lambda s: s.ttft_s),
        tokens_per_second=_median(samples, lambda s: s.tokens_per_second),
        warm_ttft_s=_median(warm, lambda s: s.ttft_s),
        reused=_median(warm, lambda s: s.reused),
        samples=tuple(samples),
    )


def _median(
    samples: Sequence[BenchSample], value: Callable[[BenchSample], float | None]
) -> float | None:
    known = [found for sample in samples if (found := value(sample)) is not None]
    return median(known) if known else None
