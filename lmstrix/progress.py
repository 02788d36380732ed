"""The current state of a measurement, from its events. The terminal and notebooks draw it.

Names, reasons and errors in it are untrusted and not escaped.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Sequence
from statistics import fmean

import attrs

from lmstrix.events import (
    BaselineMeasured,
    BracketChanged,
    Event,
    LoadFinished,
    LoadProgressed,
    LoadStarted,
    MeasurementFinished,
    MeasurementStarted,
    PhaseStarted,
    PrefillProgressed,
    ProbeFinished,
    ProbeStarted,
    ReplyTimed,
    Retrying,
    TrialFinished,
    WaitingForTurn,
)
from lmstrix.models import BenchSample, ContextReport, Trial

PHASES = {
    "start": "getting ready",
    "load": "loading the model",
    "baseline": "asking questions at short length",
    "several": "asking several questions in one request",
    "truncation": "checking that nothing is cut off",
    "search": "searching for the limit",
    "regions": "searching for the limit",
    "elsewhere": "asking on another text",
    "levels": "asking the questions of the other levels",
    "coherence": "checking coherence",
    "certify": "confirming on a fresh text",
    "weak": "asking again about the weak regions",
    "map": "asking at all depths",
    "bench": "timing replies",
    "end": "done",
}

WEAK_QUESTIONS = 45
"""The typical number of questions about weak regions, if there are any: 20 to 100."""
AGAIN_QUESTIONS = 40
"""That of a search that goes on after a certificate that did not hold: 2 to 136."""
LEVEL_QUESTIONS = 2
"""Questions of a level that passes at the longest prompt, as most do."""
ABRUPT = 1 / 5
"""No more correct answers than this part are nearly none."""
FEWEST_TIMED = 4
"""Fewest replies for an estimate of the remaining time."""
FEWEST_NEW = 64
"""Fewest new tokens for which a reply's time is mostly reading."""


@attrs.frozen
class _Expected:
    """What a measurement takes, by how its answers end: chosen so that the time told is within a
    factor of 1.5 most often, for simulated models a quarter, a half and three quarters through.
    """

    search: float
    """Questions of the search with its regions."""
    certify: float
    """Questions of a certificate."""
    weak: float
    """The part of certificates that ask about weak regions too."""
    again: float
    """Certificates after the first."""


_ABRUPT = _Expected(60, 60, 0.0, 0.0)
"""All answers are right, and then nearly none."""
_LAPSES = _Expected(90, 70, 0.2, 0.2)
"""The same, with misses before."""
_PARTLY = _Expected(180, 60, 0.2, 0.0)
"""All answers are right, and then some."""
_FADES = _Expected(110, 60, 0.8, 0.3)
"""Some answers are wrong already where it works."""
_UNKNOWN = _Expected(100, 60, 0.3, 0.1)
"""Nothing has failed."""
_SEVERAL = _Expected(32, 36, 0.0, 0.0)
"""One request asks several questions: each reads everything again, so the search asks fewer."""


def say_phase(phase: str) -> str:
    """A phase in a few words; its own name if it is unknown."""
    return PHASES.get(phase, phase)


def say_waiting(event: WaitingForTurn) -> str:
    """``waiting for process 1234 to measure MODEL``, as far as that is known."""
    who = "another process" if event.pid is None else f"process {event.pid}"
    what = f" to measure {event.holder_key}" if event.holder_key else ""
    return f"waiting for {who}{what}"


@attrs.define
class _Pace:
    """The speed of reading and asking so far, and so the expected one.

    Both times grow with the length of the prompt, because of attention; a straight line is close
    enough. If the engine reuses nothing, each question reads the whole prompt.
    """

    replies: int = 0
    asked: dict[int, list[float]] = attrs.field(factory=dict[int, list[float]])
    """Seconds of each reply whose document was read before, by length."""
    read: list[tuple[int, int, float]] = attrs.field(factory=list[tuple[int, int, float]])
    """First token, last token and seconds of each reply that read more of a document."""
    reuses: bool = False
    """Whether the engine has read only a part of some prompt, or does not report it."""
    last: tuple[int, int] = (0, 0)
    """The last reply's document and its length."""

    def hear(self, trial: Trial, seconds: float) -> None:
        """Count one more reply, which took `seconds`."""
        self.replies += 1
        self.reuses = self.reuses or trial.cached_tokens != 0
        document, length = self.last
        known = min(length if trial.seed == document else 0, trial.length_tokens)
        if trial.cached_tokens is not None and trial.seed != document:
            known = min(trial.cached_tokens, trial.length_tokens)
        if trial.length_tokens - known < FEWEST_NEW:
            # Gibberish is longer than an answer, and asked for less often.
            if trial.judgement != "gibberish" or not self.asked:
                self.asked.setdefault(trial.length_tokens, []).append(seconds)
        else:
            self.read.append((known, trial.length_tokens, seconds))
        self.last = trial.seed, trial.length_tokens

    def asking_s(self, length: float) -> float:
        """Seconds for one question at `length`; its document was read before, if it is reused."""
        known = [(n, fmean(s), len(s)) for n, s in self.asked.items()]
        if not self.reuses:
            known += [(end, seconds, 1) for _, end, seconds in self.read]
        return _on_line(known, length)

    def reading_s(self, start: float, end: float) -> float:
        """Seconds for the document from token `start` to token `end`, without questions."""
        if not self.reuses:
            return 0.0
        speeds = [
            ((a + b) / 2, max(0.0, s - self.asking_s(b)) / (b - a), b - a) for a, b, s in self.read
        ]
        return max(0.0, end - start) * _on_line(speeds, (start + end) / 2)


def _on_line(points: Sequence[tuple[float, float, float]], at: float) -> float:
    """The value at `at` on a line that does not fall, fitted to (place, value, weight); 0 without
    points.
    """
    total = sum(w for _, _, w in points)
    if not total:
        return 0.0
    place = sum(x * w for x, _, w in points) / total
    value = sum(y * w for _, y, w in points) / total
    spread = sum(w * (x - place) ** 2 for x, _, w in points)
    rise = sum(w * (x - place) * (y - value) for x, y, w in points) / spread if spread else 0.0
    return max(0.0, value + max(0.0, rise) * (at - place))


@attrs.define
class ProgressState:
    """The newest information of each kind, and the verdict at each length."""

    model_key: str = ""
    phase: str = "start"
    activity: str = ""
    """The current activity besides questions, in words: a load, a retry, waiting."""
    fraction: float | None = None
    """The finished share of the load or the prompt's new tokens, from 0 to 1; None if unknown."""
    length_tokens: int = 0
    judged: int = 0
    passes: int = 0
    tokens_per_second: float | None = None
    low: int = 0
    high: int | None = None
    floor: int = 0
    """The length of the baseline, which every measurable model passes."""
    ceiling: int | None = None
    certifies: bool = True
    """Whether a certificate follows the search."""
    probes: dict[int, ProbeFinished] = attrs.field(factory=dict[int, ProbeFinished])
    """The newest probe at each length."""
    report: ContextReport | None = None
    """The result, once there is one."""
    _pace: _Pace = attrs.field(factory=_Pace)
    _level_pace: _Pace = attrs.field(factory=_Pace)
    """The same for the levels, whose replies may be far longer."""
    _levels: set[str] = attrs.field(factory=set[str])
    """Those that were asked about: what they pass says nothing about the search."""
    _planned: int = 0
    """The questions that were announced last, at one length."""
    _replies: Counter[str] = attrs.field(factory=Counter[str])
    """Questions answered in each phase of this run."""
    _requests: int = 0
    """Requests of the search and the certificate, which may ask several questions each."""
    _certificates: int = 0
    """Those that did not hold."""
    _longest: int = 0
    """The longest prompt of the search."""
    _since_s: float = 0.0
    _load_began_s: float = 0.0
    _load_s: float = 0.0

    def hear(  # noqa: C901, PLR0912 - one case for each kind
        self, event: Event, now_s: float | None = None
    ) -> None:
        """Update the state; `now_s` is the time by a monotonic clock, None to read the clock."""
        now_s = time.monotonic() if now_s is None else now_s
        self.model_key = event.model_key
        match event:
            case WaitingForTurn():
                self._start("turn", say_waiting(event))
            case MeasurementStarted():
                self._start("start")
                self.ceiling = event.model.declared_context
                self.certifies = event.certifies
            case PhaseStarted():
                self._hear_certificate(event.phase)
                self._start(event.phase)
            case LoadStarted() | LoadProgressed() | LoadFinished():
                self._hear_load(event, now_s)
            case ProbeStarted():
                lower = self.phase == "certify" and event.length_tokens < self.length_tokens
                if lower or self.phase == "weak":
                    self._hear_certificate(event.phase)
                self._start(event.phase)
                self.length_tokens = event.length_tokens
                self.judged = self.passes = 0
                self._planned = event.trials
            case PrefillProgressed():
                seen = event.progress
                new = max(1, seen.prompt_tokens - seen.cached_tokens)
                self.fraction = min(1.0, max(0, seen.processed_tokens - seen.cached_tokens) / new)
            case TrialFinished():
                self._hear_reply(event.trial)
                self._hear_time(event.trial, now_s - self._since_s)
            case ReplyTimed():
                self._hear_reply(event.sample)
            case BaselineMeasured():
                self.floor = event.baseline.length_tokens
            case ProbeFinished() if event.phase not in self._levels:
                self.probes[event.length_tokens] = event
            case BracketChanged():
                self.low, self.high = event.low, event.high
            case Retrying():
                self.activity = f"attempt {event.attempt}: {event.reason}"
            case MeasurementFinished():
                self._start("end")
                self.report = event.report
                self.low, self.high = event.report.bracket
            case _:  # other kinds change nothing
                pass
        if not isinstance(event, PrefillProgressed | ProbeFinished | BracketChanged):
            self._since_s = now_s

    def _start(self, phase: str, activity: str = "") -> None:
        self.phase, self.activity, self.fraction = phase, activity, None

    def _hear_certificate(self, phase: str) -> None:
        """A certificate begins, perhaps at the next lower length after one that did not hold; or
        the search goes on after it, and another certificate follows.
        """
        if phase in {"certify", "search"} and self._replies["certify"]:
            self._replies["certify"] = self._replies["weak"] = 0
            self._certificates += 1
            self._replies["search"] //= 2

    def _hear_load(self, event: LoadStarted | LoadProgressed | LoadFinished, now_s: float) -> None:
        self.activity, self.fraction = f"loading {event.context_length:,} tokens", None
        if isinstance(event, LoadStarted):
            self._load_began_s = now_s
        elif isinstance(event, LoadProgressed):
            self.fraction = event.fraction
        else:
            failed = event.effective_context is None
            self.activity = f"{event.context_length:,} tokens did not load" if failed else ""
            self.ceiling = event.effective_context or self.ceiling
            self._load_s = now_s - self._load_began_s

    def _hear_reply(self, reply: Trial | BenchSample) -> None:
        if isinstance(reply, Trial):
            self.judged += 1
            self.passes += reply.judgement == "pass"
        self.tokens_per_second = reply.tokens_per_second or self.tokens_per_second
        self.fraction, self.activity = None, ""

    def _hear_time(self, trial: Trial, seconds: float) -> None:
        if trial.phase in {"regions", "elsewhere"}:
            phase = "search"
        elif trial.level and trial.phase != "baseline":
            phase = "levels"
        else:
            phase = trial.phase
        self._replies[phase] += 1
        if trial.level:
            self._levels.add(trial.level)
        if trial.prompt_tokens:  # the first of those that one reply answered
            self._requests += phase in {"search", "certify"}
            (self._level_pace if trial.level else self._pace).hear(trial, seconds)
        if phase == "search":
            self._longest = max(self._longest, trial.length_tokens)

    def longest_clean(self) -> int:
        """The largest length that works, or at which all answers so far are correct."""
        clean = [n for n, seen in self.probes.items() if 0 < seen.trials == seen.passes]
        return max([self.low, *clean])

    def _growth(self, length: int) -> float:
        """The time of a reply at `length`, over that at the length of the level's replies."""
        known = max(self._level_pace.asked, default=length)
        now_s = self._pace.asking_s(known)
        return self._pace.asking_s(length) / now_s if known < length and now_s else 1.0

    def _expected(self) -> _Expected:
        """They depend on how answers end: all at once, some, or some already at the largest length
        that works. Until something fails, this is not known, and the middle is assumed.
        """
        missed = [n for n, seen in self.probes.items() if seen.passes < seen.trials]
        fails = self.probes.get(self.high or max(missed, default=0))
        if fails is None and self.low < (self.ceiling or 0):
            return _UNKNOWN
        works = self.probes.get(self.low)
        perfect = works is None or works.passes == works.trials
        if fails is None or fails.passes <= ABRUPT * fails.trials:
            return _ABRUPT if perfect else _LAPSES
        return _PARTLY if perfect else _FADES

    def seconds_left(self) -> float | None:
        """A rough estimate for the rest of the measurement, from its own speed so far.

        Until something fails, the limit may be anywhere up to `ceiling`: it is assumed half-way on
        a logarithmic scale. None if too little is known, and for maps and benchmarks.
        """
        if self._pace.replies < FEWEST_TIMED or self.report is not None or not self.ceiling:
            return None
        half_way = math.sqrt(self.ceiling * (self.longest_clean() or self.ceiling))
        end = self.high or round(half_way)
        pace, done = self._pace, self._replies
        per_reply = max(1.0, (done["search"] + done["certify"]) / max(1, self._requests))
        expected = self._expected() if per_reply == 1 else _SEVERAL
        ask_s, read_s = pace.asking_s(end) / per_reply, pace.reading_s(0, end)
        weak_s = expected.weak * (read_s + WEAK_QUESTIONS * ask_s)
        again = expected.again / (1 + self._certificates)
        again_s = again * (read_s + (expected.certify + AGAIN_QUESTIONS) * ask_s + weak_s)
        announced = max(0, self._planned - self.judged)
        unread_s = 0.0 if done[self.phase] else (1 - (self.fraction or 0)) * read_s
        if self.phase == "weak":
            return unread_s + announced * ask_s  # most measurements end with it
        if self.phase == "certify":
            certify = max(announced, expected.certify - done["certify"])
            return unread_s + certify * ask_s + weak_s + again_s
        # A search always has some questions left until it ends.
        search = max(expected.search / 4, expected.search - done["search"])
        certify = max(0, expected.certify - done["certify"]) if self.certifies else 0
        levels = max(0, LEVEL_QUESTIONS - done["levels"])
        return (
            pace.reading_s(self._longest, end)
            + (search + certify) * ask_s
            + levels * self._level_pace.asking_s(end) * self._growth(end)
            + (self._load_s + read_s + weak_s + again_s if self.certifies else 0)
        )
