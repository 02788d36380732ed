"""What a caller may ask of a measurement, a map or a benchmark: policy as data."""

from __future__ import annotations

from typing import cast

import attrs

from lmstrix.errors import ConfigurationError
from lmstrix.json_values import MAX_CONTEXT
from lmstrix.models import Cause, ContextReport
from lmstrix.problem import PassRule

SHORTEST = 512
"""The first length of a map and of a benchmark in tokens, as the baseline's."""
QUICK_TOLERANCE = 1 / 16
"""The bracket of a quick measurement, relative to the answer."""
MAP_STEP = 256
"""The lengths of a map are multiples of this, in tokens."""

_POSITIVE = (
    "budget_s",
    "budget_tokens",
    "load_timeout_s",
    "max_memory_bytes",
    "min_tokens_per_second",
    "max_ttft_s",
)


_KINDS = {
    "bool": (bool, "True or False"),
    "int": (int, "a whole number"),
    "float": (int | float, "a number"),
}
_MOST = 2**63
"""Numbers are stored in 64 bits."""


def _check_kinds(options: attrs.AttrsInstance) -> None:
    """Raises `ConfigurationError` for a value of another kind than its field's, not-a-number
    included: it could be measured with, but not stored.
    """
    for field in attrs.fields(type(options)):
        value: object = getattr(options, field.name)
        name = str(field.type).removesuffix(" | None")
        if name == "RetryPolicy" and not isinstance(value, RetryPolicy):
            raise ConfigurationError(f"{field.name} must be a RetryPolicy, not {value!r:.50}")
        if name not in _KINDS or (value is None and name != field.type):
            continue
        kind, words = _KINDS[name]
        is_kind = isinstance(value, kind) and isinstance(value, bool) == (name == "bool")
        if not is_kind or not abs(cast("float", value)) < _MOST:
            raise ConfigurationError(f"{field.name} must be {words}, not {value!r:.50}")


@attrs.frozen(kw_only=True)
class RetryPolicy:
    """How trouble that says nothing about the model is met: again, on a new engine.

    `attempts` counts the first one. Waits grow from `first_wait_s`, doubled each time, to at
    most `longest_wait_s`, with as much jitter again. A crash is retried too, `crashes` times
    at one length, before it counts as the model's: a kill by somebody else happens once, a
    window that cannot be filled fails every time.
    """

    attempts: int = 3
    first_wait_s: float = 0.2
    longest_wait_s: float = 5.0
    crashes: int = 1

    def __attrs_post_init__(self) -> None:
        _check_kinds(self)
        if self.attempts < 1 or self.crashes < 0:
            raise ConfigurationError("attempts must be at least 1, crashes at least 0")
        if self.first_wait_s < 0 or self.longest_wait_s < 0:
            raise ConfigurationError("a wait cannot be negative")


@attrs.frozen(kw_only=True)
class MeasureOptions:
    """Settings of one measurement; each default is what the command line uses.

    `tolerance` is relative to the answer and never asks for less than 256 tokens (128 below 6,144,
    64 below 3,072); `ratio` is the part of the model's own baseline that still counts as a pass
    (NoLiMa's 85 %), or with `absolute` the pass rate itself; `max_context` is the largest length to
    try, in tokens. With `average` the pass rate is averaged over the window, as published
    benchmarks do, and a lost region may hide in it; the default asks for the pass rate in every
    region.

    `quick` ends with a bracket of a 16th and without a certificate, for about half of the prompt
    tokens. A later measurement without it continues from there.

    `budget_s` and `budget_tokens` (read or generated, cached ones not counted) end the
    measurement with what is known by then. `certify` asks for a fresh load and fresh documents at
    the answer; `documents` is on how many texts both ends of the bracket are asked, the one that
    was searched on included: questions on one text are not independent, and each further text
    costs one more reading. `fresh` forgets an interrupted measurement; `force` goes beyond what
    the memory estimate says the machine can hold. `max_memory_bytes` is the most that a load may
    be expected to need, weights and context together; `force` does not go beyond that.
    `load_timeout_s` is how long a load may make no progress before it counts as hung, in seconds;
    very large files get longer. It is not a deadline for the whole load.

    `min_tokens_per_second` and `max_ttft_s` (of a fresh prompt, in seconds) ask for the usable
    context too: they change nothing else.

    `only_at` looks at one length, in tokens, instead of searching: the model is loaded there or
    not at all, and the report has no true context. See `lmstrix.LMStrix.check_context`.

    Raises `ConfigurationError` for a value outside its range, or of another kind.
    """

    tolerance: float = 1 / 64
    ratio: float = 0.85
    absolute: bool = False
    average: bool = False
    quick: bool = False
    seed: int = 1
    max_context: int | None = None
    budget_s: float | None = None
    budget_tokens: int | None = None
    certify: bool = True
    documents: int = 2
    fresh: bool = False
    force: bool = False
    max_memory_bytes: int | None = None
    load_timeout_s: float = 60.0
    min_tokens_per_second: float | None = None
    max_ttft_s: float | None = None
    only_at: int | None = None
    retry: RetryPolicy = attrs.field(factory=RetryPolicy)

    def __attrs_post_init__(self) -> None:
        _check_kinds(self)
        if not 0 < self.tolerance < 1:
            raise ConfigurationError("tolerance must lie between 0 and 1")
        if not 0 < self.ratio <= 1:
            raise ConfigurationError("ratio must be greater than 0 and at most 1")
        if self.documents < 2:
            raise ConfigurationError(
                "a certificate needs a second document: certify=False skips it"
            )
        if self.max_context is not None and self.max_context < 1:
            raise ConfigurationError("the largest context must be positive")
        if self.only_at is not None and self.only_at < 1:
            raise ConfigurationError("the one length must be positive")
        if max(self.max_context or 0, self.only_at or 0) > MAX_CONTEXT:
            raise ConfigurationError(f"no context is larger than {MAX_CONTEXT:,} tokens")
        for name in _POSITIVE:
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigurationError(f"{name} must be positive")

    @property
    def search_tolerance(self) -> float:
        """How narrow the bracket is made, relative to the answer."""
        return max(self.tolerance, QUICK_TOLERANCE) if self.quick else self.tolerance

    @property
    def certifies(self) -> bool:
        """Whether a certificate follows the search."""
        return self.certify and not self.quick

    def check_lengths(self, shortest: int) -> None:
        """Raises `ConfigurationError` if `only_at` or `max_context` is less than `shortest`,
        the length in tokens at which the model's own rate is measured.
        """
        for tokens in (self.only_at, self.max_context):
            if tokens is not None and tokens < shortest:
                raise ConfigurationError(
                    f"{tokens:,} tokens are too few: the questions at short length need"
                    f" {shortest:,}",
                    hint=f"Give {shortest:,} or more.",
                )

    def at_one_size(self) -> MeasureOptions:
        """These for a look at `only_at` alone."""
        return attrs.evolve(self, max_context=self.only_at, certify=False)

    def answered_by(self, report: ContextReport) -> bool:
        """Whether `report`, which the store keeps under the same key, says all that is asked for:
        a certificate, if there can be one, a usable context, and what the machine really loads with
        `force`.
        """
        if report.cause is Cause.NOT_MEASURABLE:
            return True
        # A vague result would be the same again.
        if not report.measured or (self.certifies and not (report.certified or report.vague)):
            return False
        if report.method.quick and not self.quick:
            return False  # its bracket is wider
        if self.force and report.cause is Cause.LOAD_REFUSED:
            return False  # more is to be tried this time
        usable = report.usable
        told = (usable.min_tokens_per_second, usable.max_ttft_s) if usable else (None, None)
        return (self.min_tokens_per_second, self.max_ttft_s) in {(None, None), told}

    @property
    def rule(self) -> PassRule:
        """The pass rule with this ratio."""
        return PassRule(ratio=self.ratio, absolute=self.absolute)


@attrs.frozen(kw_only=True)
class MapOptions:
    """Settings of a map. `max_context` is the largest length in tokens (default: what the model
    declares, at most 32768); `lengths` how many, evenly spaced; `trials` the questions of each
    validator at each length; `force` maps even if the engine reuses no prefix.

    Raises `ConfigurationError` for a value outside its range, or of another kind.
    """

    max_context: int | None = None
    lengths: int = 12
    trials: int = 10
    seed: int = 1
    ratio: float = 0.85
    force: bool = False
    retry: RetryPolicy = attrs.field(factory=RetryPolicy)

    def __attrs_post_init__(self) -> None:
        _check_kinds(self)
        if self.max_context is not None and self.max_context < SHORTEST:
            raise ConfigurationError(f"a map needs {SHORTEST:,} tokens or more")
        if self.lengths < 2 or self.trials < 1:
            raise ConfigurationError("a map needs two lengths and one question at each")
        if not 0 < self.ratio <= 1:
            raise ConfigurationError("ratio must be greater than 0 and at most 1")

    def grid(self, longest: int) -> list[int]:
        """The lengths: multiples of 256 from 512 on, and `longest` itself."""
        step = (longest - SHORTEST) / (self.lengths - 1)
        inner = (
            round((SHORTEST + step * i) / MAP_STEP) * MAP_STEP for i in range(1, self.lengths - 1)
        )
        return sorted({SHORTEST, *(n for n in inner if SHORTEST < n < longest), longest})


@attrs.frozen(kw_only=True)
class BenchOptions:
    """Settings of a benchmark.

    `max_context` is the largest length in tokens (default: the stored true context, else what the
    model declares, at most 8192); `rounds` how often each length is measured, each time on another
    text.

    Raises `ConfigurationError` for a value outside its range, or of another kind.
    """

    max_context: int | None = None
    rounds: int = 3
    seed: int = 1
    retry: RetryPolicy = attrs.field(factory=RetryPolicy)

    def __attrs_post_init__(self) -> None:
        _check_kinds(self)
        if self.max_context is not None and self.max_context < SHORTEST:
            raise ConfigurationError(f"a benchmark needs {SHORTEST:,} tokens or more")
        if self.rounds < 1:
            raise ConfigurationError("a benchmark needs one round at least")

    def lengths(self, longest: int) -> list[int]:
        """Doubling from 512 on, and `longest` itself.

        >>> BenchOptions().lengths(3000)
        [512, 1024, 2048, 3000]
        """
        found = [SHORTEST]
        while found[-1] * 2 < longest:
            found.append(found[-1] * 2)
        return [*found, longest] if longest > SHORTEST else found
