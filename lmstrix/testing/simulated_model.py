"""What a simulated model is, and what it answers."""

from __future__ import annotations

import enum
import re
from random import Random

import attrs

from lmstrix.errors import EngineCrashed
from lmstrix.models import ModelInfo, Prompt

__all__ = ["TEMPLATE_TOKENS", "Beyond", "SimulatedModel", "answer", "count", "prompt_tokens"]

TEMPLATE_TOKENS = 8
"""What the simulated chat template adds to every prompt."""

_TOKEN = re.compile(r"\w+|[^\w\s]")
_WORD = re.compile(r"\w+")
_NOISE = "#$%&*+=@^~|<>"
"""Each is one token."""
_SENTENCE_END = re.compile(r"\.(?:\s|$)")


class Beyond(enum.StrEnum):
    """What a simulated model does with a prompt that is longer than its true limit."""

    FORGETS_HEAD = "forgets_head"
    """Knows only the last `true_context` tokens of the prompt."""
    FORGETS_MIDDLE = "forgets_middle"
    """Knows the first and the last half of `true_context` tokens, as after `truncateMiddle`."""
    FORGETS_ALL = "forgets_all"
    GIBBERISH = "gibberish"
    EMPTY = "empty"
    CRASHES = "crashes"
    NOISE = "noise"
    """Random characters up to the end of the reply."""
    WORD_SALAD = "word_salad"
    """Random words of the prompt, likewise."""
    LOOPS = "loops"
    """The last words of the prompt again and again, likewise."""


ENDLESS = frozenset({Beyond.NOISE, Beyond.WORD_SALAD, Beyond.LOOPS})
"""These never end by themselves."""


@attrs.frozen(kw_only=True)
class SimulatedModel:
    """A model with a known truth. Lengths are tokens.

    `true_context` is the longest prompt plus reply that it handles; `loadable` the largest
    context that loads; `refused_above` a guardrail; `clamped_to` what the engine gives
    instead of more; `lapses` the share of questions that it misses at any length.
    """

    key: str = "simulated"
    declared: int | None = 32768
    true_context: int = 8192
    loadable: int | None = None
    refused_above: int | None = None
    clamped_to: int | None = None
    beyond: Beyond = Beyond.FORGETS_HEAD
    lapses: float = 0.0
    knows: bool = True
    """False: it cannot do the task at any length."""
    reuses_prefixes: bool = True
    bytes_per_token: int = 1024
    reasoning: str = ""
    """What it thinks before it answers, unless the prompt has an answer prefix."""

    @property
    def info(self) -> ModelInfo:
        """The model as an adapter lists it."""
        return ModelInfo(
            key=self.key,
            path=f"simulated:{self.key}",
            format="simulated",
            architecture="simulated",
            size_bytes=1024,
            declared_context=self.declared,
            digest=f"simulated {self.key}",
        )


def prompt_tokens(prompt: Prompt) -> list[str]:
    """The tokens of `prompt` in the simulated chat template."""
    head = ["<s>"] * (TEMPLATE_TOKENS // 2)
    tail = ["</s>"] * (TEMPLATE_TOKENS // 2)
    return head + _TOKEN.findall(prompt.user) + tail + _TOKEN.findall(prompt.answer_prefix)


def count(text: str) -> int:
    """The number of tokens of plain text."""
    return len(_TOKEN.findall(text))


def answer(
    model: SimulatedModel, prompt: Prompt, *, length: int, max_tokens: int, seed: int
) -> tuple[str, bool]:
    """What `model` says to `prompt` of `length` tokens, and whether it was cut off.

    Raises `EngineCrashed` where the model does so.
    """
    random = Random(f"{seed} {length} {prompt.user[-200:]}")  # noqa: S311 - reproducible
    # the same question on the same text always lapses, or never: decoding is greedy
    if not model.knows or random.random() < model.lapses:
        return " nothing that I know of.", False
    if length + max_tokens <= model.true_context:
        return _recall(prompt.user, prompt.answer_prefix), False
    if model.beyond is Beyond.CRASHES:
        raise EngineCrashed("the engine died (simulated)")
    if model.beyond in ENDLESS:
        return _endless(model.beyond, prompt.user, max_tokens, random), True
    room = model.true_context - TEMPLATE_TOKENS - max_tokens
    return _beyond(model.beyond, prompt, room), False


def _beyond(beyond: Beyond, prompt: Prompt, room: int) -> str:
    """The answer to a prompt of which only `room` tokens can be seen."""
    if beyond is Beyond.FORGETS_HEAD:
        return _recall(_last_tokens(prompt.user, room), prompt.answer_prefix)
    if beyond is Beyond.FORGETS_MIDDLE:
        return _recall(_without_middle(prompt.user, room), prompt.answer_prefix)
    return {
        Beyond.GIBBERISH: " the the the the the the",
        Beyond.EMPTY: "",
        Beyond.FORGETS_ALL: " something else.",
    }[beyond]


def _endless(beyond: Beyond, text: str, max_tokens: int, random: Random) -> str:
    words = _WORD.findall(text) or ["word"]
    if beyond is Beyond.NOISE:
        return "".join(f" {random.choice(_NOISE)}" for _ in range(max_tokens))
    if beyond is Beyond.WORD_SALAD:
        return "".join(f" {random.choice(words)}" for _ in range(max_tokens))
    end = words[-8:]
    return "".join(f" {end[n % len(end)]}" for n in range(max_tokens))


def _without_middle(text: str, room: int) -> str:
    spans = [match.start() for match in _TOKEN.finditer(text)]
    half = room // 2
    if room >= len(spans) or half < 1:
        return text
    return f"{text[: spans[half]]} {text[spans[-half] :]}"


def _last_tokens(text: str, count: int) -> str:
    """The part of `text` that holds its last `count` tokens."""
    spans = [match.start() for match in _TOKEN.finditer(text)]
    return text[spans[-count] :] if 0 < count < len(spans) else text


def _recall(visible: str, stem: str) -> str:
    """What stands behind `stem` in the text, as a model with perfect memory would copy it."""
    at = visible.rfind(stem) if stem else -1
    if at < 0:
        return " something else."
    rest = visible[at + len(stem) :]
    end = _SENTENCE_END.search(rest)
    return rest[: end.end()] if end else rest
