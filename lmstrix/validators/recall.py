"""Recall: does the model still know a fact from each region of the window?

One fact per question, from a document that fills the window; or several, for an engine that would
read the document again for each. An answer prefix lets chat, base and reasoning models all answer
within a few tokens (RULER, arXiv 2404.06654, does the same).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from random import Random

import attrs

from lmstrix.errors import ConfigurationError
from lmstrix.models import Judgement, Prompt, Question, Region, Reply
from lmstrix.ports import LoadedModel
from lmstrix.validators.haystack import PLAIN, Cut, Haystack, HaystackSpec, Placed, asked_of
from lmstrix.validators.judging import judge_reply
from lmstrix.validators.needles import (
    SPARE_FACTS,
    Needle,
    beginning_of,
    choices,
    deck,
    fresh_value,
    region_of_turn,
)

ANSWER_TOKENS = 16
"""Reserved for the reply: the longest value takes 8 tokens if each digit is one."""
SHORT_ANSWER_TOKENS = 12
"""The same up to `SHORT_TOKENS`, of which 16 are over 3 %: the prompt is to fill 97 % there too.
Twelve are too few to tell a loop from another wrong answer; longer lengths do that."""
SHORT_TOKENS = 512

PHRASINGS = (
    "Now repeat one of the facts from the text above.",
    "Complete the sentence with the fact from the text.",
    "Say again what the text says.",
    "Quote a fact from the text word by word.",
    "Finish the sentence just as the text does.",
)
"""Ways of asking, so that further trials on one needle differ a little.

None names the fact: the answer prefix does. So further questions at one length re-read the
prefix alone, 9 tokens instead of 27 with a question of its own for each fact, and the model is
not distracted by a second mention of it. (SmolLM2-135M at 5632, three documents: 28 of 29 facts
against 18 of 29.)
"""

SEVERAL_PHRASINGS = (
    "Repeat the facts from the text that begin with these words, each as a whole sentence:",
    "Quote the sentences of the text that begin as follows, each on a numbered line:",
)
"""The list holds the first words of each fact, not its stem: a small model would go on from a stem
as the list does, with the next line, and never give a value."""

LINE_TOKENS = 14
"""Reserved for the number of a line, a value and the line's end."""


class RecallQuestions:
    """Questions on one master document, for one loaded model.

    A third of the questions about the tail ask for a fact in the last sentence before the request.
    It costs only its own tokens, and a model that misses it has collapsed, not forgotten.
    """

    def __init__(self, loaded: LoadedModel, seed: int, spec: HaystackSpec) -> None:
        self._loaded = loaded
        self._seed = seed
        needles = deck(seed)
        self._spare, placed = needles[:SPARE_FACTS], needles[SPARE_FACTS:]
        self._taken = {needle.value for needle in needles}
        self._longest_stem = max((needle.fact.stem for needle in placed), key=len)
        self._haystack = Haystack(
            loaded,
            seed,
            spec,
            # The longest prompts: all others lack the closing sentence.
            frames=[
                partial(
                    asked_of,
                    asked=max(PHRASINGS, key=len),
                    closing=needle.sentence,
                    answer_prefix=needle.fact.stem,
                )
                for needle in self._spare
            ],
            reply_tokens=ANSWER_TOKENS,
        )

    async def question(
        self, length_tokens: int, index: int, region: Region | None = None
    ) -> Question:
        """See `lmstrix.ports.QuestionSource`. Without a region, all five take turns."""
        if region is None:
            region, index = region_of_turn(index)
        cut = await self._haystack.cut(length_tokens)
        chosen = self._choice(cut.placed(Needle), cut.tokens, length_tokens, region, index)
        return await self._question(cut, length_tokens, region, *chosen)

    async def at_depth(self, length_tokens: int, depth: float, turn: int = 0) -> Question:
        """The question about the needle nearest to `depth`, in other words for each `turn`."""
        cut = await self._haystack.cut(length_tokens)
        target = depth * length_tokens
        needles = cut.placed(Needle)
        if not needles:
            raise ConfigurationError(f"{length_tokens} tokens hold no needle")
        placed = min(needles, key=lambda needle: abs(needle.position_tokens - target))
        region = Region.at(placed.position_tokens / length_tokens)
        return await self._question(cut, length_tokens, region, placed, turn, "")

    async def several(
        self, length_tokens: int, wanted: Sequence[tuple[Region | None, int]]
    ) -> Question:
        """See `lmstrix.ports.SeveralSource`.

        A longer request leaves less room for the document, so a question about the tail may ask for
        another needle than it does alone. A needle that is wanted twice is listed once.
        """
        cut = await self._haystack.cut(length_tokens)
        asked = [
            region_of_turn(index) if region is None else (region, index) for region, index in wanted
        ]
        per_line = 2 * await self._haystack.tokens(f" {self._longest_stem}") + LINE_TOKENS + 6
        closings = 0
        while True:
            end = cut.tokens - (len(asked) + closings) * per_line
            needles = [p for p in cut.placed(Needle) if p.position_tokens < end]
            chosen = [
                self._choice(needles, cut.tokens, length_tokens, region, index)
                for region, index in asked
            ]
            found = sum(bool(closing) for _, _, closing in chosen)
            if found <= closings:
                break
            closings = found
        lines: dict[str, Placed[Needle]] = {}
        for placed, _, _ in chosen:
            lines.setdefault(placed.thing.fact.stem, placed)
        closing = " ".join(
            placed.thing.sentence
            for placed in lines.values()
            if placed.thing.fact.stem in {n.fact.stem for n in self._spare}
        )
        phrasing = SEVERAL_PHRASINGS[max(n for _, n, _ in chosen) % len(SEVERAL_PHRASINGS)]
        listed = "".join(f"\n{n}. {beginning_of(stem)}" for n, stem in enumerate(lines, 1))
        frame = partial(
            asked_of,
            asked=f"{phrasing}{listed}",
            closing=closing,
            answer_prefix=f"1. {next(iter(lines))}",
        )
        reply_tokens = sum(
            [await self._haystack.tokens(f" {stem}") + LINE_TOKENS for stem in lines]
        )
        whole = await self._haystack.cut_for(length_tokens, frame, reply_tokens)
        return Question(
            prompt=frame(whole.text),
            expected="",
            kind="several",
            depth=None,
            max_tokens=reply_tokens,
            stop=(f"\n{len(lines) + 1}.",),
            parts=tuple(
                _part(lines[placed.thing.fact.stem], length_tokens, region)
                for (placed, _, _), (region, _) in zip(chosen, asked, strict=True)
            ),
        )

    def _choice(
        self,
        needles: Sequence[Placed[Needle]],
        end_tokens: int,
        length_tokens: int,
        region: Region,
        index: int,
    ) -> tuple[Placed[Needle], int, str]:
        """The needle a question asks for, how often earlier questions about the region asked for
        it, and its sentence if that closes the text.
        """
        positions = [placed.position_tokens for placed in needles]
        picks = choices(positions, length_tokens, region, index + 1)
        at, before = picks[index], picks[:index].count(picks[index])
        if at is not None:
            return needles[at], before, ""
        turn, spare = divmod(before, len(self._spare))
        fact = self._spare[spare].fact
        rng = Random(f"tail {self._seed} {length_tokens} {before}")  # noqa: S311 - reproducible
        needle = Needle(fact=fact, value=fresh_value(fact, rng, self._taken))
        return Placed(thing=needle, position_tokens=end_tokens), turn, needle.sentence

    async def _question(
        self,
        cut: Cut,
        length_tokens: int,
        region: Region,
        placed: Placed[Needle],
        asked: int,
        closing: str,
    ) -> Question:
        """Asks for one needle, for the `asked`-th time."""
        part = _part(placed, length_tokens, region)
        frame = partial(
            asked_of,
            asked=PHRASINGS[asked % len(PHRASINGS)],
            closing=closing,
            answer_prefix=part.prompt.answer_prefix,
        )
        prompt = await self._haystack.filled(cut, length_tokens - part.max_tokens, frame)
        return attrs.evolve(part, prompt=prompt)


def _part(placed: Placed[Needle], length_tokens: int, region: Region) -> Question:
    """The question about one needle, without the document."""
    needle = placed.thing
    return Question(
        prompt=Prompt(user="", answer_prefix=needle.fact.stem),
        expected=needle.value,
        kind=needle.fact.kind,
        depth=min(1.0, max(0.0, placed.position_tokens / length_tokens)),
        max_tokens=ANSWER_TOKENS if length_tokens > SHORT_TOKENS else SHORT_ANSWER_TOKENS,
        stop=(". ", "\n"),
        region=region,
    )


@attrs.frozen(kw_only=True)
class Recall:
    """One fact per question, or up to eight.

    All validators of one measurement need the same `spec`, which says what else the document holds.
    """

    spec: HaystackSpec = PLAIN
    name: str = attrs.field(default="recall", init=False)
    baseline_length: int = attrs.field(default=512, init=False)
    """Short enough for any model, long enough to hold a head, a middle and a closing fact."""
    regions: tuple[Region, ...] = attrs.field(default=tuple(Region), init=False)
    most_facts: int = attrs.field(default=8, init=False)

    def questions(self, loaded: LoadedModel, seed: int) -> RecallQuestions:
        """See `lmstrix.ports.Validator`."""
        return RecallQuestions(loaded, seed, self.spec)

    def judge(self, question: Question, reply: Reply) -> Judgement:
        """See `lmstrix.ports.Validator`. A reply to several questions passes if all parts do."""
        if not question.parts:
            return judge_reply(question, reply)
        judged = self.judge_each(question, reply)
        return next((j for j in judged if j is not Judgement.PASS), Judgement.PASS)

    def judge_each(self, question: Question, reply: Reply) -> tuple[Judgement, ...]:
        """See `lmstrix.ports.SeveralValidator`."""
        said = reply.answer
        stems = list(dict.fromkeys(part.prompt.answer_prefix for part in question.parts))
        answers = {} if said is None else _answers(stems, said)
        return tuple(
            judge_reply(part, attrs.evolve(reply, text=answers[stem], reasoning=""))
            if (stem := part.prompt.answer_prefix) in answers
            else _judge_missing(part, reply)
            for part in question.parts
        )


def _judge_missing(part: Question, reply: Reply) -> Judgement:
    """A part without an answer is wrong, unless the whole reply is not an answer."""
    judged = judge_reply(part, reply)
    return Judgement.WRONG if judged is Judgement.PASS else judged


def _answers(stems: Sequence[str], said: str) -> dict[str, str]:
    """The answer to each stem that the reply answers: the text after the stem itself if the reply
    repeats it, else after its number, else on its line.
    """
    begun = re.match(rf"\s*(?:1[.):]\s*)?{re.escape(stems[0])}", said, re.IGNORECASE)
    text = said if begun else f"1. {stems[0]}{said}"
    by_stem = {stem: mark.span() for stem in stems if (mark := _mark(re.escape(stem), text, 0))}
    by_number = _number_marks(stems, text)
    starts = sorted(start for start, _ in [*by_stem.values(), *by_number.values()])
    found: dict[str, str] = {}
    for stem in stems:
        _, end = by_stem.get(stem) or by_number.get(stem) or (0, len(text))
        following = next((start for start in starts if start >= end), len(text))
        if not (stem not in by_stem and following in {start for start, _ in by_stem.values()}):
            found[stem] = text[end:following].strip().split("\n")[0]
    if len(by_stem) == 1 and len(by_number) <= 1:
        lines = [line for line in text[by_stem[stems[0]][1] :].split("\n") if line.strip()]
        found |= dict(zip(stems, lines, strict=False))
    return {stem: answer for stem, answer in found.items() if answer.strip()}


def _number_marks(stems: Sequence[str], text: str) -> dict[str, tuple[int, int]]:
    """The place of each line's number, up to the first that is missing."""
    marks: dict[str, tuple[int, int]] = {}
    at = 0
    for number, stem in enumerate(stems, 1):
        mark = _mark(rf"(?:\A|(?<=\s)){number}[.):](?=\s)", text, at)
        if mark is None:
            break
        marks[stem] = mark.span()
        at = mark.end()
    return marks


def _mark(pattern: str, text: str, at: int) -> re.Match[str] | None:
    return re.compile(pattern, re.IGNORECASE).search(text, at)
