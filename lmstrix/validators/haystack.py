"""The haystack: one document that all validators ask about, cut so that a question fills a length.

The same seed and spec give the same text, and every prompt of every validator begins with a part
of it, so no validator makes the engine read text again that it has read for another. Lengths are
counted by the model's own tokenizer; each part is tokenized once or twice, however many are asked.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from math import inf
from random import Random
from typing import Any, Generic, TypeVar, cast
from weakref import WeakKeyDictionary, WeakMethod

import attrs

from lmstrix.errors import ConfigurationError, EngineUnavailable
from lmstrix.models import Prompt
from lmstrix.ports import LoadedModel, Validator
from lmstrix.validators.needles import (
    SPARE_FACTS,
    Distractor,
    Entry,
    Link,
    Needle,
    chain_links,
    crowd_entries,
    deck,
    distractors,
    needle_positions,
)

Planted = Needle | Distractor | Entry | Link


@attrs.frozen(kw_only=True)
class HaystackSpec:
    """The facts planted besides the needles of recall, which are always there.

    Validators of one measurement share one spec, so that their prompts begin alike.
    """

    crowd: bool = False
    chains: bool = False

    def __or__(self, other: HaystackSpec) -> HaystackSpec:
        """Everything that either one plants."""
        return HaystackSpec(crowd=self.crowd or other.crowd, chains=self.chains or other.chains)


PLAIN = HaystackSpec()
WITH_CROWD = HaystackSpec(crowd=True)
WITH_CHAINS = HaystackSpec(chains=True)


@attrs.define(kw_only=True)
class _Row:
    """Facts of one kind, planted one after another, each at its position in tokens or later."""

    things: Iterator[Planted]
    positions: Iterator[float]
    _next: float | None = attrs.field(default=None, init=False)

    def due(self, position: float) -> Planted | None:
        """The next thing if `position` is far enough in, else None."""
        if self._next is None:
            self._next = next(self.positions, inf)
        if position < self._next:
            return None
        self._next = None
        return next(self.things, None)


def _apart(first: float, gap: float, ratio: float) -> Iterator[float]:
    """Positions `gap` tokens apart, or `ratio` times as far in if that is further."""
    while True:
        yield first
        first = max(first + gap, first * ratio)


DISTRACTORS = (300, 0, 4.0)
"""One in the baseline, three at 8k."""

CROWD = (24, 56, 25 / 24)
"""Eight at 512 tokens, about 70 at 8k, three in the last tenth."""

CHAINS = (36, 32, 1.03)
"""Each link: three chains or so at 512 tokens, 30 at 8k; a chain spans a tenth of the window."""


def _rows(seed: int, spec: HaystackSpec) -> tuple[_Row, ...]:
    """The rows of facts in the document of `seed`, the rarest first."""
    needles = deck(seed)
    placed, taken = needles[SPARE_FACTS:], frozenset(n.value for n in needles)
    planned = [
        _Row(things=distractors(placed, seed), positions=_apart(*DISTRACTORS)),
        _Row(things=iter(placed), positions=needle_positions(seed, inf)),
    ]
    if spec.chains:
        planned.append(_Row(things=chain_links(seed, taken), positions=_apart(*CHAINS)))
    if spec.crowd:
        planned.append(_Row(things=crowd_entries(seed, taken), positions=_apart(*CROWD)))
    return tuple(planned)


INTRODUCTION = "Read the text and remember the facts in it.\n\n"
"""The same for every validator, so that prompts begin alike."""

Frame = Callable[[str], Prompt]
"""Makes a question's prompt from a document."""

Thing = TypeVar("Thing")

BLOCK_SENTENCES = 24
"""Sentences made and tokenised together: some 400 tokens."""

SHORTEST_TOKENS = 128
"""The shortest document, with everything around it except the reply."""

MARGIN_TOKENS = 4
"""A value may be a few tokens longer than the one the overhead was counted with."""

CHECK_RATIO = 4
"""The whole prompt is counted again whenever the document is this many times as long as at the
last count. Together these counts are a third of the longest prompt."""

DRIFT_TOKENS = 2
"""Counts of pieces add up if they differ from the count of the whole by no more than this."""

MAX_CHECKS = 6
"""How many cuts are tried if counts do not add up."""

RECENT_CUTS = 8

FILLED_TOKENS = 5120
"""Prompts of up to so many tokens are filled up: a sentence or two are 3 % of shorter ones."""
COUNTED_TOKENS = 1024
"""Up to here every prompt is counted exactly, also without a tokenizer."""
MAX_FILLS = 4
"""How many ways of filling a prompt are counted without a tokenizer."""
FILLERS = (
    "Nobody was in a hurry that day, and the road to the coast was almost empty.",
    "The clouds moved on towards the hills, and the light came back.",
    "For a long time there was nothing to be heard but the wind.",
    "The evening was mild and very quiet.",
    "Somewhere a door was closed.",
    "A dog barked twice.",
    "Then it rained.",
    "It was late.",
    "Time passed.",
    "Fog rose.",
    "Silence.",
    "Rain.",
)
"""Sentences without a fact, the longest first."""


def asked_of(document: str, asked: str, *, closing: str = "", answer_prefix: str = "") -> Prompt:
    """The prompt that every validator makes: introduction, document, request.

    `closing` is a last sentence of the text, added for this question alone.
    """
    body = f"{document} {closing}" if closing else document
    return Prompt(user=f"{INTRODUCTION}{body}\n\n{asked}", answer_prefix=answer_prefix)


@attrs.frozen(kw_only=True)
class Sentence:
    """One sentence, its position in tokens from the start, and the fact in it, if any."""

    text: str
    position_tokens: int
    planted: Planted | None


@attrs.frozen(kw_only=True)
class Placed(Generic[Thing]):
    """A fact in the document and its position."""

    thing: Thing
    position_tokens: int


@attrs.frozen(kw_only=True)
class Cut:
    """A beginning of the document, ended at a sentence boundary."""

    text: str
    tokens: int
    sentences: tuple[Sentence, ...]

    def placed(self, kind: type[Thing]) -> tuple[Placed[Thing], ...]:
        """All facts of one kind in `text`, in order."""
        return tuple(
            Placed(thing=s.planted, position_tokens=s.position_tokens)
            for s in self.sentences
            if isinstance(s.planted, kind)
        )


@attrs.frozen(kw_only=True)
class _Block:
    """Sentences `first` up to `first + BLOCK_SENTENCES`, and the tokens in front of them."""

    first: int
    start_tokens: int
    known: dict[int, int]
    """By a number of sentences from the start of the block, their tokens, as far as counted."""

    @property
    def tokens(self) -> int:
        return self.known[BLOCK_SENTENCES]


Count = Callable[[str], Awaitable[int]]


def _weakly(count: Count) -> Callable[[], Count | None]:
    """`count` as long as its model lives. A document would otherwise keep alive the model that it
    is kept for, and neither would ever go.
    """
    try:
        return WeakMethod(count)
    except TypeError:  # no method, or of a model that cannot be referred to weakly
        return lambda: count


class MasterDocument:
    """Grows on demand, and never changes the text it has.

    Token counts add up: a piece is counted together with the sentence in front of it, whose own
    tokens are subtracted. So neither a token that the tokenizer adds to every text nor one that
    crosses the boundary is counted twice.
    """

    def __init__(self, loaded: LoadedModel, seed: int, spec: HaystackSpec) -> None:
        self._filler = filler_sentences(seed)
        self._rows = _rows(seed, spec)
        self._count_tokens = _weakly(loaded.count_tokens)
        self._blocks: list[_Block] = []
        self._sentences: list[Sentence] = []
        self._ends: list[int] = []
        self._text = ""
        self._context: dict[int, int] = {}
        self._recent: dict[int, Cut] = {}
        self._tokens_per_char = 0.25  # a guess for the first block only
        self.checked_tokens = 0
        """The longest cut whose whole prompt was counted."""
        self.adds_up: bool = getattr(loaded, "has_tokenizer", True)
        """Whether that count was the sum of its pieces. If not, or if they are estimated, every cut
        must be counted."""

    async def _count(self, text: str) -> int:
        count = self._count_tokens()
        if count is None:
            raise RuntimeError("the model was released")
        return await count(text)

    @property
    def tokens(self) -> int:
        """Tokens made so far."""
        last = self._blocks[-1] if self._blocks else None
        return last.start_tokens + last.tokens if last else 0

    async def cut(self, budget_tokens: int) -> Cut:
        """The longest beginning of at most `budget_tokens` that ends with a sentence; an empty one
        if there is no room at all.
        """
        budget_tokens = max(0, budget_tokens)
        while self.tokens <= budget_tokens:
            await self._grow()
        at = bisect_right(self._blocks, budget_tokens, key=lambda block: block.start_tokens) - 1
        block = self._blocks[at]
        count = await self._fit(block, budget_tokens - block.start_tokens)
        return self._beginning(block.first + count, block.start_tokens + block.known[count])

    async def first_sentence(self) -> Cut:
        """The shortest beginning that is not empty."""
        if not self._blocks:
            await self._grow()
        block = self._blocks[0]
        return self._beginning(1, await self._tokens_of(block, 1))

    def _beginning(self, count: int, tokens: int) -> Cut:
        known = self._recent.pop(count, None)
        if known is None:
            known = Cut(
                text=self._text[: self._ends[count - 1]] if count else "",
                tokens=tokens,
                sentences=tuple(self._sentences[:count]),
            )
        self._recent[count] = known
        if len(self._recent) > RECENT_CUTS:
            del self._recent[next(iter(self._recent))]
        return known

    async def _fit(self, block: _Block, room_tokens: int) -> int:
        """How many sentences of `block` fit in `room_tokens`."""
        while True:
            low = max(n for n, tokens in block.known.items() if tokens <= room_tokens)
            high = min((n for n, t in block.known.items() if t > room_tokens), default=low + 1)
            if high <= low + 1:
                return low
            share = (room_tokens - block.known[low]) / (block.known[high] - block.known[low])
            guess = low + int(share * (high - low))
            await self._tokens_of(block, min(high - 1, max(low + 1, guess)))

    async def _tokens_of(self, block: _Block, count: int) -> int:
        """Tokens of the first `count` sentences of `block`; from then on they are known."""
        if count not in block.known:
            low = max(n for n in block.known if n < count)
            more = await self._tokens_between(block.first + low, block.first + count)
            block.known[count] = block.known[low] + more
        return block.known[count]

    async def _tokens_between(self, first: int, end: int) -> int:
        """Tokens of the sentences from `first` up to `end`, as they follow the one in front."""
        texts = [s.text for s in self._sentences[max(0, first - 1) : end]]
        if first == 0:
            return await self._count(_joined(texts))
        if first not in self._context:
            self._context[first] = await self._count(_joined(texts[:1]))
        return await self._count(_joined(texts)) - self._context[first]

    async def _grow(self) -> None:
        """Make one more block. Positions are estimates: only the order of the facts must hold."""
        made: list[tuple[str, Planted | None]] = []
        start, first = self.tokens, len(self._sentences)
        position = float(start)
        for _ in range(BLOCK_SENTENCES):
            text, planted = self._next_sentence(position)
            made.append((text, planted))
            position += (len(text) + 1) * self._tokens_per_char
        text = _joined(text for text, _ in made)
        context = [self._sentences[-1].text] if first else []
        if first and first not in self._context:
            self._context[first] = await self._count(_joined(context))
        whole = await self._count(_joined([*context, *(text for text, _ in made)]))
        tokens = whole - self._context.get(first, 0)
        if not 0 < tokens <= 2 * len(text.encode()):
            raise EngineUnavailable(
                f"the engine counts {tokens} tokens in a text of {len(text)} characters: its"
                " tokenizer does not work"
            )
        self._tokens_per_char = tokens / len(text)
        begins = accumulate((len(text) + 1 for text, _ in made), initial=0)
        for (sentence, planted), begin in zip(made, begins, strict=False):
            self._sentences.append(
                Sentence(
                    text=sentence,
                    position_tokens=start + round(tokens * begin / len(text)),
                    planted=planted,
                )
            )
            self._ends.append((self._ends[-1] + 1 if self._ends else 0) + len(sentence))
        self._text = f"{self._text}{text}" if first else text[1:]
        self._blocks.append(
            _Block(first=first, start_tokens=start, known={0: 0, BLOCK_SENTENCES: tokens})
        )

    def _next_sentence(self, position: float) -> tuple[str, Planted | None]:
        for row in self._rows:
            planted = row.due(position)
            if planted is not None:
                return planted.sentence, planted
        return next(self._filler), None


def _joined(sentences: Iterable[str]) -> str:
    """Sentences with a blank before each."""
    return "".join(f" {sentence}" for sentence in sentences)


_documents: WeakKeyDictionary[LoadedModel, dict[tuple[int, HaystackSpec], MasterDocument]] = (
    WeakKeyDictionary()
)


def _document_of(loaded: LoadedModel, seed: int, spec: HaystackSpec) -> MasterDocument:
    """The document shared by all validators that ask the same loaded model."""
    try:
        known = _documents.setdefault(loaded, {})
    except TypeError:  # cannot be a key, so nothing is shared
        known = {}
    if (seed, spec) not in known:
        known[seed, spec] = MasterDocument(loaded, seed, spec)
    return known[seed, spec]


class Haystack:
    """The document of one seed, for one loaded model, cut to fit one validator's questions.

    `frames` are the prompts that its questions may make; the longest one decides.
    `reply_tokens` is reserved for the reply, and for text that the frames lack.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        seed: int,
        spec: HaystackSpec,
        *,
        frames: Sequence[Frame],
        reply_tokens: int,
    ) -> None:
        self._loaded = loaded
        self._document = _document_of(loaded, seed, spec)
        self._frames = tuple(frames)
        self._reply_tokens = reply_tokens
        self._overhead: tuple[int, Frame] | None = None
        self._budgets: dict[int, int] = {}
        self._known: dict[str, int] = {}

    async def cut(self, length_tokens: int) -> Cut:
        """The beginning with which the longest question fills `length_tokens`.

        Raises `ConfigurationError` for a length that is too short for any document.
        """
        known = self._budgets.get(length_tokens)
        if known is not None:
            return await self._document.cut(known)
        if length_tokens < SHORTEST_TOKENS + self._reply_tokens:
            shortest = SHORTEST_TOKENS + self._reply_tokens
            raise ConfigurationError(f"a question needs {shortest} tokens or more")
        overhead, frame = await self._longest()
        cut = await self._fit(length_tokens - self._reply_tokens, overhead, frame)
        self._budgets[length_tokens] = cut.tokens
        return cut

    async def cut_for(self, length_tokens: int, frame: Frame, reply_tokens: int) -> Cut:
        """The beginning with which a request of another form fills `length_tokens`."""
        return await self._fit(length_tokens - reply_tokens, await self._around(frame), frame)

    async def filled(self, cut: Cut, prompt_tokens: int, frame: Frame) -> Prompt:
        """The prompt that `frame` makes of `cut`. All questions share a cut, so that most leave
        room: short prompts are filled with sentences up to `prompt_tokens`.
        """
        text, limit = cut.text, prompt_tokens
        if limit > FILLED_TOKENS:
            return frame(text)
        overhead, longest = await self._longest()
        if self._document.adds_up:
            around = overhead + await self._plain(frame) - await self._plain(longest)
            left = limit - DRIFT_TOKENS - around - cut.tokens
            return frame(" ".join([text, *await self._fillers(FILLERS, left)]))
        if limit > COUNTED_TOKENS:  # counts are estimates
            limit -= limit // 128
        left, unused = limit - await self._loaded.count_prompt_tokens(frame(text)), FILLERS
        for _ in range(MAX_FILLS):
            more = await self._fillers(unused, left)
            if not more:
                break
            longer = " ".join([text, *more])
            room = limit - await self._loaded.count_prompt_tokens(frame(longer))
            if room < 0:  # denser than estimated: fewer of them
                left += room
            else:
                text, left = longer, room
                unused = [filler for filler in unused if filler not in more]
        return frame(text)

    async def _fillers(self, unused: Sequence[str], room_tokens: int) -> Sequence[str]:
        """Those of `unused` that fit, the longest first."""
        found = list[str]()
        for filler in unused:
            tokens = await self.tokens(f" {filler}")
            if tokens <= room_tokens:
                found.append(filler)
                room_tokens -= tokens
        return found

    async def _plain(self, frame: Frame) -> int:
        """Tokens of what a question adds to its document, as plain text."""
        prompt = frame("")
        return await self.tokens(f"{prompt.user.removeprefix(INTRODUCTION)}{prompt.answer_prefix}")

    async def tokens(self, text: str) -> int:
        """Tokens of a short text; counted once."""
        if text not in self._known:
            self._known[text] = await self._loaded.count_tokens(text)
        return self._known[text]

    async def _fit(self, prompt_tokens: int, overhead: int, frame: Frame) -> Cut:
        """The longest beginning with which a prompt has at most `prompt_tokens`.

        Counts add up with every tokenizer that splits text into words. This is checked now and
        then on the whole prompt; if they do not add up, every whole prompt is counted.
        """
        room = prompt_tokens - MARGIN_TOKENS - DRIFT_TOKENS
        document, best, checks = self._document, None, 0
        # Tokens of two cuts by their parts, and of their whole prompts: one fits, one does not.
        low: tuple[int, int] = (0, overhead)
        high: tuple[int, int] | None = None
        cut = await document.cut(room - overhead)
        while cut.sentences:
            if document.adds_up and cut.tokens <= CHECK_RATIO * document.checked_tokens:
                return cut
            whole = await self._loaded.count_prompt_tokens(frame(cut.text))
            excess = whole - overhead - cut.tokens
            document.checked_tokens = max(document.checked_tokens, cut.tokens)
            document.adds_up &= abs(excess) <= DRIFT_TOKENS
            if document.adds_up:
                return cut
            if whole <= room:
                best, low = cut, (cut.tokens, whole)
            else:
                high = (cut.tokens, whole)
            budget = room - overhead - excess
            if high is not None and high[1] > low[1]:
                share = (room - low[1]) / (high[1] - low[1])
                budget = low[0] + int(share * (high[0] - low[0]))
            following = await document.cut(min(budget, cut.tokens - 1) if whole > room else budget)
            checks += 1
            if best and (checks >= MAX_CHECKS or following.tokens <= best.tokens):
                return best
            cut = following
        raise ConfigurationError(f"a question does not fit in {prompt_tokens} tokens")

    async def _around(self, frame: Frame) -> int:
        """Tokens of everything in a prompt except the document."""
        first = await self._document.first_sentence()
        return await self._loaded.count_prompt_tokens(frame(first.text)) - first.tokens

    async def _longest(self) -> tuple[int, Frame]:
        """Tokens of everything but the document in the longest question, and its frame."""
        if self._overhead is None:
            counted = [await self._around(frame) for frame in self._frames]
            longest = max(range(len(counted)), key=counted.__getitem__)
            self._overhead = counted[longest], self._frames[longest]
        return self._overhead


def share_haystack(validators: Sequence[Validator]) -> tuple[Validator, ...]:
    """The same validators, each with a haystack that has everything any of them needs.

    Validators from other packages, which have no `spec`, are left as they are.
    """
    spec = PLAIN
    for validator in validators:
        spec |= _spec_of(validator) or PLAIN
    return tuple(
        v if _spec_of(v) is None else attrs.evolve(cast("Any", v), spec=spec) for v in validators
    )


def _spec_of(validator: Validator) -> HaystackSpec | None:
    spec = getattr(validator, "spec", None)
    return spec if isinstance(spec, HaystackSpec) and attrs.has(type(validator)) else None


# A small English grammar with about 10^9 sentences, each drawn anew. One block repeated many times
# would be a special case: a model may compress it, or loop.

_PEOPLE = tuple(
    "the miller|the ferryman|a young surveyor|the harbour clerk|an old gardener|the night porter|"
    "the glazier|a travelling tailor|the librarian|the beekeeper|the mason|a quiet student|"
    "the baker's apprentice|the weaver|the postmaster|the cooper|the stable hand|the potter|"
    "a retired pilot|the innkeeper|a patient fisherman|the organ builder|two of the carpenters|"
    "the shepherd's daughter|a cheerful carter|the bookbinder|the lamplighter|her elder brother|"
    "the schoolteacher|a wandering painter|the basket maker|the toll keeper".split("|")
)
_DEEDS = tuple(
    "carried|repaired|measured|borrowed|painted|counted|admired|sorted|wrapped|delivered|polished|"
    "inspected|stacked|sketched|returned|cleaned|weighed|labelled|traded|hid|mended|lifted|"
    "examined|bought|dried|unloaded|covered|arranged|collected|lost and found".split("|")
)
_QUALITIES = tuple(
    "heavy|narrow|bright|broken|wooden|copper|faded|round|ancient|plain|striped|hollow|damp|"
    "polished|crooked|sturdy|silver|woollen|dusty|gentle|painted|rusty|slender|borrowed|"
    "half-finished|clumsy|elegant|weathered|spotless|curious".split("|")
)
_THINGS = tuple(
    "lantern|barrel|ladder|ledger|basket|clock|blanket|kettle|map|window frame|saddle|mirror|"
    "wheel|jar|rope|bench|coat|spoon|cart|drum|chest|shutter|churn|anvil|broom|stool|sail|"
    "wheelbarrow|candlestick|fence post".split("|")
)
_PLACES = tuple(
    "near the river|behind the chapel|at the market|under the bridge|in the upper meadow|"
    "beside the old mill|along the harbour wall|by the orchard gate|on the hill road|"
    "inside the long barn|at the crossroads|in the quiet square|below the waterfall|"
    "across the common|outside the town gate|in the shade of the elms".split("|")
)
_TIMES = tuple(
    "before sunrise|in the late afternoon|during the first frost|after the rain|"
    "on a windy morning|towards evening|at noon|while the others slept|early in spring|"
    "on market day|when the fog had cleared|soon after the harvest|on the shortest day|"
    "between two showers".split("|")
)
_ENDINGS = tuple(
    "and nobody asked why|because the weather was turning|so the work could go on|"
    "although it took most of the day|and then walked home|while a dog watched from the step|"
    "as the season required|and thought no more about it|with great care|for a fair price|"
    "which surprised everyone a little|until the light was gone|as had always been the custom|"
    "and whistled all the while|without saying a word|just as the letter had asked".split("|")
)


def _sentence(rng: Random) -> str:
    who, did = rng.choice(_PEOPLE), rng.choice(_DEEDS)
    what = f"{rng.choice(_QUALITIES)} {rng.choice(_THINGS)}"
    where, when, end = rng.choice(_PLACES), rng.choice(_TIMES), rng.choice(_ENDINGS)
    shapes = (
        f"{who} {did} the {what} {where} {when}",
        f"{when}, {who} {did} the {what} {where}, {end}",
        f"{where}, {who} {did} the {what} {end}",
        f"{who} {did} the {what}, {end}",
        f"{when} {who} came by and {did} the {what}",
        f"it was {who} who {did} the {what} {where}",
    )
    text = rng.choice(shapes)
    return f"{text[0].upper()}{text[1:]}."


def filler_sentences(seed: int) -> Iterator[str]:
    """Endless sentences; the same ones for the same `seed`."""
    rng = Random(f"filler {seed}")  # noqa: S311 - reproducible text, not a secret
    while True:
        yield _sentence(rng)
