"""What a simulated model answers."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import islice
from random import Random

import attrs

from lmstrix.errors import EngineCrashed
from lmstrix.models import Prompt
from lmstrix.testing.simulated_model import (
    ENDLESS,
    INCOHERENT,
    TEMPLATE_TOKENS,
    TOKEN,
    Beyond,
    SimulatedModel,
    token_starts,
)
from lmstrix.validators.haystack import filler_sentences
from lmstrix.validators.planting import answer_from

__all__ = ["answer"]

_WORD = re.compile(r"\w+")
_NOISE = "#$%&*+=@^~|<>"
"""Each is one token."""
FORGOTTEN = " something else."
REFUSAL = " I'm sorry, but I cannot help with that."
NUMBER = " 48213."
CHANCE = 0.1
_SENTENCE_END = re.compile(r"\.(?:\s|$)")
_WRITES = re.compile(r"\n\n(?:Write|Tell|Explain|Describe)\b[^\n]*\s*\Z")
_LISTED = re.compile(r"^\d+\. (.+)$", re.MULTILINE)
"""A sentence of a numbered list, which is to be completed."""
_COPIES = re.compile(r"\n\n(?:Copy|Continue)\b[^\n]*\s*\Z")

Answer = tuple[str, bool]
"""The text, and whether it was cut off."""


def answer(
    model: SimulatedModel, prompt: Prompt, *, length: int, max_tokens: int, seed: int
) -> Answer:
    """What `model` says to `prompt` of `length` tokens, and whether it was cut off.

    It completes a numbered list of sentences line by line if the answer begins with ``1.``.
    Raises `EngineCrashed` if the model does so.
    """
    if not prompt.answer_prefix.startswith("1. "):
        return _answer(model, prompt, length=length, max_tokens=max_tokens, seed=seed)
    listed = [match[1] for match in _LISTED.finditer(_request(prompt.user))]
    stems = [prompt.answer_prefix.removeprefix("1. "), *listed[1:]]
    parts = [
        _answer(
            model,
            attrs.evolve(prompt, answer_prefix=stem),
            length=length,
            max_tokens=max_tokens,
            seed=seed,
        )
        for stem in stems
    ]
    if parts[0][1]:  # broken language without an end needs no question to be said
        return parts[0]
    lines = [
        f"\n{n}. {stem}{said.rstrip()}"
        for n, (stem, (said, _)) in enumerate(zip(stems, parts, strict=True), 1)
    ]
    return "".join(lines).removeprefix(f"\n{prompt.answer_prefix}"), False


def _answer(
    model: SimulatedModel, prompt: Prompt, *, length: int, max_tokens: int, seed: int
) -> Answer:
    """What it says to one question."""
    random = Random(f"{seed} {length} {prompt.user[-200:]} {prompt.answer_prefix}")  # noqa: S311 - reproducible
    fits = length + max_tokens <= model.true_context
    if not fits and model.beyond is Beyond.CRASHES:
        raise EngineCrashed("the engine died (simulated)")
    if _WRITES.search(prompt.user):
        return _written(model, prompt, length + max_tokens, max_tokens, random)
    # the same question on the same text always lapses, or never: decoding is greedy
    if not model.knows or random.random() < model.lapses:
        return " nothing that I know of.", False
    complete = _continued(max_tokens) if _COPIES.search(prompt.user) else _completed
    if fits:
        return complete(prompt.user, prompt.answer_prefix)
    if model.band is not None:
        visible = _without_band(prompt.user, model.band, length + max_tokens)
        return complete(visible, prompt.answer_prefix)
    room = int(model.true_context * model.kept) - TEMPLATE_TOKENS - max_tokens
    if model.beyond is Beyond.KEEPS_FIRST:
        first = room + max_tokens + TEMPLATE_TOKENS // 2
        return complete(_first_of_document(prompt.user, first), prompt.answer_prefix)
    return _beyond(model.beyond, prompt, room, max_tokens, complete, random)


Complete = Callable[[str, str], Answer]


def _beyond(
    beyond: Beyond,
    prompt: Prompt,
    room: int,
    max_tokens: int,
    complete: Complete,
    random: Random,
) -> Answer:
    """The answer to a prompt of which only `room` tokens can be seen."""
    user, stem = prompt.user, prompt.answer_prefix
    if beyond is Beyond.FORGETS_HEAD:
        return complete(_last_tokens(user, room), stem)
    if beyond is Beyond.FORGETS_MIDDLE:
        return complete(_without_middle(user, room), stem)
    if beyond in (Beyond.FORGETS_HALF, Beyond.GUESSES):
        share = CHANCE if beyond is Beyond.GUESSES else 0.5
        return complete(user, stem) if random.random() < share else (FORGOTTEN, False)
    return _broken(beyond, user, max_tokens, random)


def _broken(beyond: Beyond, user: str, max_tokens: int, random: Random) -> Answer:
    """What needs no question to be said."""
    if beyond in ENDLESS:
        return _endless(beyond, user, max_tokens, random), True
    if beyond is Beyond.ECHOES:
        return f" {_first_tokens(user, max_tokens)}", True
    return {
        Beyond.GIBBERISH: " the the the the the the",
        Beyond.EMPTY: "",
        Beyond.SAME_NUMBER: NUMBER,
        Beyond.REFUSES: REFUSAL,
    }.get(beyond, FORGOTTEN), False


def _written(
    model: SimulatedModel, prompt: Prompt, length: int, max_tokens: int, random: Random
) -> Answer:
    """Free writing: some sentences of its own while it can, and else what it does instead."""
    limit, beyond = model.coherent_context, model.beyond
    if limit is None:
        always = beyond not in INCOHERENT and beyond is not Beyond.REFUSES
        limit = length if always else model.true_context
    elif beyond not in INCOHERENT:
        beyond = Beyond.WORD_SALAD
    if length > limit:
        return _broken(beyond, prompt.user, max_tokens, random)
    sentences = filler_sentences(random.randrange(10**9))
    text = " ".join(next(sentences) for _ in range(max_tokens // 8 + 1))
    return f" {_first_tokens(text, max_tokens)}", True


def _endless(beyond: Beyond, text: str, max_tokens: int, random: Random) -> str:
    words = _WORD.findall(text) or ["word"]
    if beyond is Beyond.NOISE:
        return "".join(f" {random.choice(_NOISE)}" for _ in range(max_tokens))
    if beyond is Beyond.WORD_SALAD:
        return "".join(f" {random.choice(words)}" for _ in range(max_tokens))
    end = words[-8:]
    return "".join(f" {end[n % len(end)]}" for n in range(max_tokens))


def _without_middle(text: str, room: int) -> str:
    spans = token_starts(text)
    half = room // 2
    if room >= len(spans) or half < 1:
        return text
    return f"{text[: spans[half]]} {text[spans[-half] :]}"


def _without_band(text: str, band: tuple[float, float], length: int) -> str:
    """`text` without the tokens from one share of the length to another, its request excepted."""
    starts = token_starts(text)
    most = len(starts)
    begin, end = (max(0, int(share * length) - TEMPLATE_TOKENS // 2) for share in band)
    before = text[: starts[begin]] if begin < most else text
    return f"{before} {text[starts[end] :] if end < most else _request(text)}"


def _first_of_document(text: str, count: int) -> str:
    """The first `count` tokens of the document, and the request."""
    starts = token_starts(text)
    return f"{text[: starts[count]]} {_request(text)}" if 0 < count < len(starts) else text


def _request(text: str) -> str:
    """Everything from the last blank line on; nothing if there is none."""
    at = text.rfind("\n\n")
    return text[at:] if at >= 0 else ""


def _last_tokens(text: str, count: int) -> str:
    """The part of `text` that holds its last `count` tokens."""
    spans = token_starts(text)
    return text[spans[-count] :] if 0 < count < len(spans) else text


def _first_tokens(text: str, count: int) -> str:
    """The part of `text` that holds its first `count` tokens."""
    last = next(islice(TOKEN.finditer(text), max(0, count - 1), None), None)
    return text[: last.end()] if last else text


def _continued(max_tokens: int) -> Complete:
    """Goes on with the text behind a stem until the reply is full."""

    def go_on(visible: str, stem: str) -> Answer:
        at = visible.rfind(stem) if stem else -1
        if at < 0:
            return FORGOTTEN, False
        return _first_tokens(visible[at + len(stem) :], max_tokens), True

    return go_on


def _completed(visible: str, stem: str) -> Answer:
    """What stands behind `stem` in the text, as a model with perfect memory would copy it, or
    what follows from it.
    """
    document = visible[: len(visible) - len(_request(visible))]
    visible = document or visible
    at = visible.rfind(stem) if stem else -1
    if at < 0:
        traced = answer_from(visible, stem)
        return FORGOTTEN if traced is None else f" {traced}.", False
    rest = visible[at + len(stem) :]
    end = _SENTENCE_END.search(rest)
    return (rest[: end.end()] if end else rest), False
