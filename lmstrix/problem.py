"""The problem of a search strategy: when a length passes, the steps, and their costs.

The unit of cost is the engine's time for reading one new prompt token at short context.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from itertools import combinations, groupby, pairwise
from math import ceil, log2
from statistics import median

import attrs

from lmstrix.models import Baseline, DepthTally, Interval, Observation, Region, Trial, Verdict
from lmstrix.stats import binomial_tail, fisher_tail

REGION_ORDER = (Region.HEAD, Region.MIDDLE, Region.TAIL, Region.EARLY, Region.LATE)
"""The order in which regions take turns if the caller does not choose one. The ends and the middle
come first, because windows are lost there."""

DOCUMENTS = 1000
"""A measurement's documents have the seeds ``seed * 1000 + 1`` and up; that of the baseline has
``seed * 1000``."""
LIKE_THE_FIRST = 2
"""Documents with the last seeds of a measurement, whose facts stand where the first one's do: at a
short length a shifted document has none in the head. The baseline needs one."""

REFUTED = 0.1
"""A pass rate is refuted if a rate that just passes gives so few passes less often than this."""
APART = 0.05
"""A region differs from the rest of the window if chance gives such a difference less often than
this (Fisher's exact test, one-sided)."""
DISLIKED = 1
"""Lost facts that decide nothing alone: a model dislikes a fact now and then."""
POOLED_FIRST = 4
"""Fewest answers at a length, over all regions, that can make it pass."""
MUTE = 4
"""Inconclusive replies per judged one from which more questions are useless."""


@attrs.frozen(kw_only=True)
class PassRule:
    """When the answers at one length count as a pass, relative to the model's own baseline.

    A rate passes if it is at least `ratio` of the baseline's. Evidence comes in stages: after
    `first` trials a length passes if all of them did, after `full` trials if their rate does, and
    `most` trials end it. At any stage it fails if so few passes are unlikely at a passing rate
    (see `refutes`). With the default ratio .85 and a perfect baseline it passes at 4 of 4, 9 of 10
    and 17 of 20, and fails at 1 of 4, 6 of 10 and 16 of 20; in between more questions are asked. So
    one lapse in ten decides nothing.

    With `regions` this applies to each region of the window: a length passes if all regions do, and
    fails if one does. A region is judged by its own answers if they differ from the others
    (Fisher's exact test, 5 %), else by all answers at the length together: with a few questions in
    each region, bad luck in one is likelier than a loss there alone. Without regions the rate is
    averaged over the window.
    """

    ratio: float = 0.85
    absolute: bool = False
    """Whether `ratio` is the pass rate itself, not a part of the baseline's."""
    first: int = 4
    full: int = 10
    most: int = 20
    regions: tuple[Region, ...] = ()
    careful: frozenset[Region] = frozenset()
    """Regions that pass after `full` trials at the earliest: a certificate found them lost at a
    length that had passed with fewer."""

    def threshold(self, baseline: Baseline) -> float:
        """Smallest pass rate that still counts as a pass."""
        return self.ratio if self.absolute else self.ratio * baseline.rate

    def verdict(self, observation: Observation, baseline: Baseline) -> Verdict:
        """Pass, fail, or undecided while more trials could still change it."""
        if observation.failure is not None:
            return Verdict.FAIL
        if not self.regions:
            return self._staged(observation.passes, observation.trials, baseline, self.first)
        found = self.region_verdicts(observation, baseline).values()
        if Verdict.FAIL in found:
            return Verdict.FAIL
        sure = len(found) == len(self.regions) and all(v is Verdict.PASS for v in found)
        return Verdict.PASS if sure else Verdict.UNDECIDED

    def region_verdicts(
        self, observation: Observation, baseline: Baseline
    ) -> Mapping[Region, Verdict]:
        """The verdict on each region that has trials at this length."""
        pooled = self._pooled(observation, baseline)
        found: dict[Region, Verdict] = {}
        for tally in observation.regions:
            if differs(tally, observation):
                found[tally.region] = self.alone(tally, baseline)
            elif pooled is Verdict.PASS and tally.trials < self.first:
                found[tally.region] = Verdict.UNDECIDED
            else:
                found[tally.region] = self._settled(pooled, tally, baseline)
        return found

    def hides(self, tally: DepthTally, baseline: Baseline) -> bool:
        """Whether so many replies about a region could not be judged, above the baseline's share
        and by more than chance, that it would not pass if they were wrong: a model may refuse what
        it does not know.
        """
        asked = tally.trials + tally.inconclusive
        asked_short = baseline.trials + baseline.inconclusive
        above = tally.inconclusive - baseline.inconclusive / max(1, asked_short) * asked
        if above <= DISLIKED or tally.passes >= self.threshold(baseline) * (tally.trials + above):
            return False
        judged = tally.trials + baseline.trials
        return fisher_tail(tally.trials, asked, judged, asked + asked_short) < APART

    def _settled(self, verdict: Verdict, tally: DepthTally, baseline: Baseline) -> Verdict:
        """`verdict`, or undecided if more must be known about the region before it passes."""
        early = tally.region in self.careful and tally.trials < self.full
        if verdict is Verdict.PASS and (early or self.hides(tally, baseline)):
            return Verdict.UNDECIDED
        return verdict

    def alone(self, tally: DepthTally, baseline: Baseline) -> Verdict:
        """The verdict on a region by its own answers. One fact alone does not fail it."""
        own = self._staged(tally.passes, tally.trials, baseline, self.first)
        own = self._forgiven(own, tally.trials, tally.lost_facts)
        return self._settled(own, tally, baseline)

    def _pooled(self, observation: Observation, baseline: Baseline) -> Verdict:
        """The verdict on all regions together that do not differ from the rest. One fact alone does
        not fail them.
        """
        passes, trials = _alike(observation)
        found = self._staged(passes, trials, baseline, self._pooled_first)
        missed = [t for t in _alike_regions(observation) if t.passes < t.trials]
        lost = [t.lost_facts for t in missed if t.lost_facts is not None]
        # Without a lost fact the misses are scattered, and there is nothing to forgive.
        return self._forgiven(
            found, trials, sum(lost) or None if len(lost) == len(missed) else None
        )

    def _forgiven(self, verdict: Verdict, trials: int, lost_facts: int | None) -> Verdict:
        """`verdict`, unless it is a failure and no more than `DISLIKED` facts are lost."""
        if verdict is not Verdict.FAIL or lost_facts is None or lost_facts > DISLIKED:
            return verdict
        return Verdict.UNDECIDED if trials < self.most else Verdict.PASS

    @property
    def _pooled_first(self) -> int:
        return max(self.first, min(POOLED_FIRST, self.full))

    def lost(self, observation: Observation, baseline: Baseline) -> set[Region]:
        """The regions that fail a length: with the rest, and below the threshold by themselves."""
        verdicts = self.region_verdicts(observation, baseline)
        enough = self.threshold(baseline)
        return {
            tally.region
            for tally in observation.regions
            if verdicts[tally.region] is Verdict.FAIL and tally.passes < enough * tally.trials
        }

    def clearly_lost(self, observation: Observation, baseline: Baseline) -> set[Region]:
        """Those of the lost regions that may be called so one by one: about which half of the
        answers are wrong, or more than a passing rate explains. All of them if there is none.

        The others fail with the rest, after so many questions in all that the rate decides.
        """
        lost = self.lost(observation, baseline)
        clear = {
            tally.region
            for tally in observation.regions
            if tally.region in lost
            and (
                2 * tally.passes <= tally.trials
                or self._tail(tally.passes, tally.trials, baseline) < REFUTED
            )
        }
        return clear or lost

    def weak(self, observation: Observation, baseline: Baseline) -> Sequence[Region]:
        """The regions that did badly: nearer to a rate that just passes than to the baseline's,
        with more than one lost fact or less than a full stage of trials. Empty without regions.
        """
        enough = (self.threshold(baseline) + baseline.rate) / 2
        return [
            tally.region
            for tally in observation.regions
            if tally.region in self.regions
            and tally.passes < enough * tally.trials
            # One of ten may be a fact that the model cannot answer; one of six may be more.
            and (
                tally.lost_facts is None or tally.lost_facts > DISLIKED or tally.trials < self.full
            )
        ]

    def wanted_in(self, region: Region, observation: Observation, baseline: Baseline) -> int:
        """How many more trials `region` needs at this length before it can pass; 0 if none."""
        tally = next((t for t in observation.regions if t.region is region), None)
        if tally is None or tally.trials < self.first:
            return self.first - (tally.trials if tally else 0)
        if self.hides(tally, baseline):
            return max(1, self._to_next_stage(tally.trials + tally.inconclusive))
        if region in self.careful and tally.trials < self.full:
            return self.full - tally.trials
        own = pooled = self.alone(tally, baseline)
        if not differs(tally, observation):
            pooled = self._pooled(observation, baseline)
            _, together = _alike(observation)
            if pooled is Verdict.UNDECIDED and together < self._pooled_first:
                return self._pooled_first - together
        settled = own is Verdict.PASS or pooled is not Verdict.UNDECIDED
        return 0 if settled else self._to_next_stage(tally.trials)

    def _staged(self, passes: int, trials: int, baseline: Baseline, first: int) -> Verdict:
        if trials < first:
            return Verdict.UNDECIDED
        passing = passes >= self.threshold(baseline) * trials
        if trials >= self.most:
            return Verdict.PASS if passing else Verdict.FAIL
        if self._tail(passes, trials, baseline) < REFUTED:
            return Verdict.FAIL
        agreed = passes == trials if trials < self.full else passing
        return Verdict.PASS if agreed else Verdict.UNDECIDED

    def refutes(self, observation: Observation, baseline: Baseline) -> bool:
        """Whether a passing rate gives so few passes less than one time in ten.

        One-sided exact binomial test of the threshold, at 10 %, over the whole window.
        """
        return observation.failure is not None or self.tail(observation, baseline) < REFUTED

    def tail(self, observation: Observation, baseline: Baseline) -> float:
        """Probability of so few passes, or fewer, at a rate that just passes."""
        return self._tail(observation.passes, observation.trials, baseline)

    def _tail(self, passes: int, trials: int, baseline: Baseline) -> float:
        return binomial_tail(passes, trials, min(1.0, self.threshold(baseline)))

    def is_mute(self, observation: Observation, baseline: Baseline) -> bool:
        """Whether so few replies can be judged, in all or about all regions that are open, that
        more questions are useless.
        """
        if self.verdict(observation, baseline) is Verdict.FAIL:
            return False
        if observation.inconclusive >= self.full + MUTE * observation.trials:
            return True
        mute = self.mute(observation, baseline)
        return bool(mute) and all(
            region in mute or not self.wanted_in(region, observation, baseline)
            for region in self.regions
        )

    def mute(self, observation: Observation, baseline: Baseline) -> set[Region]:
        """The regions about which so few replies can be judged that more questions are useless."""
        return {
            tally.region
            for tally in observation.regions
            if tally.trials + tally.inconclusive >= self.most and self.hides(tally, baseline)
        }

    def wanted(self, observation: Observation) -> int:
        """How many further trials reach the next stage, over the whole window."""
        return self._to_next_stage(observation.trials)

    def _to_next_stage(self, trials: int) -> int:
        stages = (self.first, self.full, self.most)
        return next((s - trials for s in stages if trials < s), 0)


def differs(tally: DepthTally, observation: Observation) -> bool:
    """Whether the answers about one region differ from those about the rest of the window."""
    low = fisher_tail(tally.passes, tally.trials, observation.passes, observation.trials)
    if low < APART:
        return True
    misses = tally.trials - tally.passes
    all_misses = observation.trials - observation.passes
    return fisher_tail(misses, tally.trials, all_misses, observation.trials) < APART


def _alike_regions(observation: Observation) -> Sequence[DepthTally]:
    return [t for t in observation.regions if not differs(t, observation)]


def _alike(observation: Observation) -> tuple[int, int]:
    """Passes and trials of all regions together that do not differ from the rest."""
    alike = _alike_regions(observation)
    return sum(t.passes for t in alike), sum(t.trials for t in alike)


class Reuse(StrEnum):
    """The part of the previous prompt that an engine keeps when the next one arrives."""

    PREFIX = "prefix"
    """The common beginning of both, as llama-server does."""
    CHECKPOINTS = "checkpoints"
    """The cache can be extended, but not shortened: a shorter prompt is read again from the longest
    earlier prompt that it extends, or from the start (recurrent and hybrid models, sliding
    windows)."""
    NONE = "none"
    """Nothing: each question reads its whole prompt."""


@attrs.frozen(kw_only=True)
class CostModel:
    """The cost of reading, asking and answering on one engine with one model.

    The defaults are for an unknown engine with prefix reuse and short answers. A length is that of
    the prompt's document; each question adds its own tokens.
    """

    question_tokens: float = 16.0
    """New prompt tokens that one question costs in addition to the document."""
    generated_tokens: float = 6.0
    """Tokens generated for one answer."""
    cached_token: float = 0.0
    """Weight of a prompt token that is not read again."""
    generated_token: float = 8.0
    """Weight of a generated token. On all machines for local models, single-stream decoding is at
    least this many times slower than prefill."""
    probe: float = 64.0
    """Weight of a change to another length: cutting and tokenizing a document, one request. An
    assumption (a tenth of a second at 640 tokens per second), which is not learned."""
    facts: int = 1
    """Questions that one request asks."""
    attention_tokens: float | None = None
    """The length at which attention costs as much as everything else: reading the first *n*
    tokens costs ``n + n**2 / attention_tokens``. None if unknown; then it is left out."""
    reuse: Reuse = Reuse.PREFIX
    seconds_per_token: float | None = None
    """Seconds for one new prompt token at short context; None if it is not known."""

    def reread_from(self, length: int, cached: int, checkpoint: int = 0) -> int:
        """The position at which the engine starts to read a prompt of `length`.

        `cached` is the length of the document it read last, `checkpoint` the longest earlier
        prompt that is not longer than `length`.
        """
        if self.reuse is Reuse.NONE:
            return 0
        if cached <= length:
            return cached
        return length if self.reuse is Reuse.PREFIX else min(length, checkpoint)

    def prompt_tokens(
        self, length: int, *, cached: int = 0, trials: int = 1, checkpoint: int = 0
    ) -> float:
        """Expected prompt tokens that the engine reads for `trials` questions at `length`."""
        questions = trials * self.question_tokens
        if self.reuse is Reuse.NONE:
            return ceil(trials / self.facts) * length + questions
        return length - self.reread_from(length, cached, checkpoint) + questions

    def tokens(
        self, length: int, *, cached: int = 0, trials: int = 1, checkpoint: int = 0
    ) -> float:
        """Expected tokens, read or generated, which count against a token budget."""
        read = self.prompt_tokens(length, cached=cached, trials=trials, checkpoint=checkpoint)
        return read + trials * self.generated_tokens

    def reading(self, length: float) -> float:
        """Cost of reading the first `length` tokens of a document."""
        quadratic = 0.0 if self.attention_tokens is None else length / self.attention_tokens
        return length * (1 + quadratic)

    def asking(self, length: float) -> float:
        """Cost of one more question at `length`, besides what it makes the engine read again."""
        slope = 0.0 if self.attention_tokens is None else 2 * length / self.attention_tokens
        answer = self.generated_tokens * self.generated_token
        again = 0.0 if self.reuse is Reuse.NONE else self.cached_token * length
        return self.question_tokens * (1 + slope) + answer + again

    def cost(self, length: int, *, cached: int = 0, trials: int = 1, checkpoint: int = 0) -> float:
        """Expected cost of `trials` questions at `length`, in new tokens at short context."""
        start = self.reread_from(length, cached, checkpoint)
        if self.reuse is Reuse.NONE:
            new = ceil(trials / self.facts) * self.reading(length)
        else:
            new = self.reading(length) - self.reading(start)
        going = 0.0 if cached == length else self.probe
        return going + new + trials * self.asking(length)

    def seconds(
        self, length: int, *, cached: int = 0, trials: int = 1, checkpoint: int = 0
    ) -> float | None:
        """Expected seconds of the same; None if the speed is not known."""
        if self.seconds_per_token is None:
            return None
        cost = self.cost(length, cached=cached, trials=trials, checkpoint=checkpoint)
        return cost * self.seconds_per_token


MANY = 256
"""Fewest new tokens for which a time to first token shows the reading speed."""

FEW = 4
"""Fewest samples for a conclusion from times."""

SPAN = 4
"""Least ratio of the longest to the shortest read that shows the quadratic part of attention."""

NO_FASTER = 0.75
"""Nothing is reused if a further question takes this share of the first one's time or more."""

FLAT = 8
"""An attention length of more than this many times the longest read is noise."""


def learn_costs(trials: Sequence[Trial]) -> CostModel:
    """The cost model that follows from a measurement's own `trials`, in order.

    Reuse and the size of a question come from the engine's exact token counts. Values from times
    are medians of several samples, rounded to a power of two (seconds: of its fourth root), so that
    a little noise does not change a search's path. Unknown values keep their defaults. If the
    engine does not count cached tokens, times show whether it reuses prefixes.
    """
    default = CostModel()
    trials = with_counts(trials)
    steps = [(a, b) for a, b in pairwise(trials) if a.seed == b.seed]
    again = [b for a, b in steps if a.length_tokens == b.length_tokens and _known(b)]
    # After a lost cache, as with another load, the size of a question cannot be seen.
    kept = [b for b in again if b.cached_tokens] or again
    question = _typical([_new(b) for b in kept], default.question_tokens)
    reuse = _reuse(steps, again, question)
    if reuse is Reuse.NONE:
        # Each question reads the whole prompt, which its length already counts.
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


def with_counts(trials: Sequence[Trial]) -> Sequence[Trial]:
    """`trials`, in order. If the engine counts no cached tokens, with the counts that its times
    suggest, as far as they do: with prefix reuse, a further question at one length takes far less
    time than the first, which reads more of a document than any before it.
    """
    if any(_known(t) for t in trials):
        return trials
    asked = [t for t in trials if t.prompt_tokens]  # not those that another one's reply answered
    longest: Counter[int] = Counter()
    shares: list[float] = []
    for (seed, _), visit in groupby(asked, key=lambda t: (t.seed, t.length_tokens)):
        first, *others = visit
        if first.ttft_s and first.prompt_tokens - longest[seed] >= MANY:
            shares += [t.ttft_s / first.ttft_s for t in others if t.ttft_s]
        longest[seed] = max(longest[seed], first.prompt_tokens)
    if len(shares) < FEW:
        return trials
    cached = {id(t): 0 for t in asked}
    if median(shares) <= NO_FASTER:
        question = round(CostModel().question_tokens)
        for a, b in pairwise(asked):
            if a.seed == b.seed:
                cached[id(b)] = max(0, min(a.prompt_tokens, b.prompt_tokens) - question)
    return [attrs.evolve(t, cached_tokens=cached.get(id(t))) for t in trials]


def _known(trial: Trial) -> bool:
    return trial.cached_tokens is not None and trial.prompt_tokens > 0


def _new(trial: Trial) -> int:
    return trial.prompt_tokens - (trial.cached_tokens or 0)


def _typical(values: Iterable[float], default: float) -> float:
    found = list(values)
    return float(round(median(found))) if found else default


def _reuse(steps: Sequence[tuple[Trial, Trial]], again: Sequence[Trial], question: float) -> Reuse:
    """From counts only; an engine without counts is assumed to reuse prefixes, as most do."""
    if again and 2 * median([_new(t) / t.prompt_tokens for t in again]) > 1:
        return Reuse.NONE
    slack = max(128.0, 4 * question)
    back = [_new(b) > slack for a, b in steps if b.length_tokens < a.length_tokens and _known(b)]
    return Reuse.CHECKPOINTS if 2 * sum(back) > len(back) else Reuse.PREFIX


def _reading_speed(trials: Sequence[Trial]) -> tuple[float | None, float | None]:
    """Seconds per token and attention's length, from the reads that were long enough.

    Reading from *a* to *b* takes ``c * (b - a) * (1 + (a + b) / n_c)`` seconds, so the time per
    token is a line over *a* + *b*. Its slope is the median of all slopes (Theil-Sen).
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
    """The time of a further question without its own tokens, per token that is not read again."""
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


COARSEST, COARSE_PART = 256, 24
"""Neighbouring lengths are this many tokens apart or more; below, a 24th of the length."""


def step_at(length: int, granularity: int) -> int:
    """The least distance of neighbouring lengths near `length`: `granularity`, doubled up to 256
    tokens as long as it is at most a 24th of the length.

    >>> [step_at(length, 64) for length in (512, 2048, 4096, 65536)]
    [64, 64, 128, 256]
    """
    step = granularity
    while 2 * step <= min(COARSEST, length / COARSE_PART):
        step *= 2
    return step


@attrs.frozen(kw_only=True)
class SearchProblem:
    """The problem that a strategy solves. All lengths are in tokens.

    `floor` is known to work (the baseline's length); `ceiling` is the largest length that may be
    tried. All lengths between them are multiples of `granularity`. The answer must be exact to
    ``max(step_at(answer), tolerance * answer)``.
    """

    floor: int
    ceiling: int
    baseline: Baseline
    rule: PassRule
    tolerance: float = 1 / 64
    granularity: int = 64
    costs: CostModel = attrs.field(factory=CostModel)
    """The costs as far as they are known."""
    cached_tokens: int = 0
    """Length of the prompt whose document is in the engine's cache now; 0 if there is none."""
    remaining_tokens: int | None = None
    """Tokens, read or generated, that the search may still spend; None for no limit."""
    remaining_s: float | None = None
    """Seconds that it may still take; None for no limit."""

    def step_at(self, length: int) -> int:
        """See `step_at`."""
        return step_at(length, self.granularity)

    def is_tight(self, low: int, high: int) -> bool:
        """Whether [low, high] is as narrow as it has to be."""
        return high - low <= max(self.step_at(low), self.tolerance * low)

    def affordable(self, length: int, trials: int, *, checkpoint: int = 0) -> int:
        """How many of `trials` questions at `length` fit in the expected rest of the budget."""
        fewer = range(trials, 0, -1)
        return next((n for n in fewer if self._can_pay(length, n, checkpoint)), 0)

    def _can_pay(self, length: int, trials: int, checkpoint: int) -> bool:
        costs, cached = self.costs, self.cached_tokens
        tokens = costs.tokens(length, cached=cached, trials=trials, checkpoint=checkpoint)
        if self.remaining_tokens is not None and tokens > self.remaining_tokens:
            return False
        if self.remaining_s is None:
            return True
        seconds = costs.seconds(length, cached=cached, trials=trials, checkpoint=checkpoint)
        return seconds is None or seconds <= self.remaining_s


@attrs.frozen(kw_only=True)
class Ask:
    """A strategy wants `trials` more questions at `length_tokens`.

    With a `region` they are all about that part of the window; without one the regions take turns,
    those with the fewest trials first.
    """

    length_tokens: int
    trials: int
    region: Region | None = None


@attrs.frozen(kw_only=True)
class Done:
    """A strategy has its answer: `low` works, `high` does not (None: nothing failed).

    `low` and `high` follow from the tallies. `estimate` is the best single guess of the threshold,
    if the strategy makes one: with noisy answers it may be outside of them, and it is nearer.
    """

    low: int
    high: int | None
    interval: Interval
    estimate: int | None = None


def missing_at(
    problem: SearchProblem,
    length: int,
    seen: Observation | None,
    *,
    full: bool = False,
    order: Sequence[Region] = (),
) -> Ask | None:
    """The questions still missing for the verdict on a length; None if none are.

    With regions they are about one region at a time, in `order` (default: the rule's). Without,
    `full` asks for `PassRule.full` answers in all, even if fewer decide.
    """
    rule, baseline = problem.rule, problem.baseline
    known = seen or Observation(length_tokens=length)
    if known.failure is not None:
        return None
    if not rule.regions:
        verdict = rule.verdict(known, baseline)
        missing = rule.wanted(known) if verdict is Verdict.UNDECIDED else 0
        missing = missing or (rule.full - known.trials if full else 0)
        return Ask(length_tokens=length, trials=missing) if missing > 0 else None
    if rule.verdict(known, baseline) is Verdict.FAIL:
        return None
    wanted = {r: rule.wanted_in(r, known, baseline) for r in order or rule.regions}
    mute = rule.mute(known, baseline)
    asking = [(r, n) for r, n in wanted.items() if n > 0]
    # Another region may fail, where one cannot be judged.
    region, missing = min(asking, key=lambda one: one[0] in mute, default=(None, 0))
    if not missing:
        return None
    if problem.costs.facts > 1:
        total, facts = sum(wanted.values()), problem.costs.facts
        region = None if total > missing else region
        missing = ceil(total / facts) * facts  # the requests are full
    return Ask(length_tokens=length, trials=missing, region=region)


def spread(
    regions: Sequence[Region], history: Sequence[Observation], length_tokens: int, trials: int
) -> list[Region | None]:
    """The regions of `trials` more questions at a length, if a strategy names none.

    Regions with the fewest trials at this length come first, then those with the fewest at all
    lengths, so a climb with two questions at each length covers all of them in turn.
    """
    if not regions:
        return [None] * trials
    here: Counter[Region] = Counter()
    everywhere: Counter[Region] = Counter()
    for seen in history:
        for tally in seen.regions:
            asked = tally.trials + tally.inconclusive
            everywhere[tally.region] += asked
            here[tally.region] += asked * (seen.length_tokens == length_tokens)
    order: list[Region | None] = []
    for _ in range(trials):
        chosen = min(
            (r for r in REGION_ORDER if r in regions), key=lambda r: (here[r], everywhere[r])
        )
        here[chosen] += 1
        everywhere[chosen] += 1
        order.append(chosen)
    return order
