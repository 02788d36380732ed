"""What a simulated model is. What it answers is in `simulated_replies`."""

from __future__ import annotations

import enum
import re
from functools import lru_cache

import attrs

from lmstrix.models import ModelInfo, Prompt

__all__ = [
    "ENDLESS",
    "INCOHERENT",
    "TEMPLATE_TOKENS",
    "TOKEN",
    "Beyond",
    "SimulatedModel",
    "count",
    "prompt_tokens",
    "token_starts",
]

TEMPLATE_TOKENS = 8
"""What the simulated chat template adds to every prompt."""

TOKEN = re.compile(r"\w+|[^\w\s]")


class Beyond(enum.StrEnum):
    """What a simulated model does with a prompt that is longer than its true limit."""

    FORGETS_HEAD = "forgets_head"
    """Knows only the last tokens of the prompt, as many as its window holds."""
    FORGETS_MIDDLE = "forgets_middle"
    """Knows only the first and the last tokens, together as many: as after `truncateMiddle`."""
    KEEPS_FIRST = "keeps_first"
    """Knows only the first tokens of the prompt, as many as its window holds, and the request."""
    FORGETS_HALF = "forgets_half"
    """Misses every other question, wherever its answer stands."""
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
    SAME_NUMBER = "same_number"
    """Answers every question with one and the same number."""
    ECHOES = "echoes"
    """Repeats the beginning of the prompt."""
    GUESSES = "guesses"
    """Is right one time in ten."""
    REFUSES = "refuses"


ENDLESS = frozenset({Beyond.NOISE, Beyond.WORD_SALAD, Beyond.LOOPS})
"""These never end by themselves."""
INCOHERENT = ENDLESS | {Beyond.GIBBERISH, Beyond.EMPTY}
"""These write no language either."""


@attrs.frozen(kw_only=True)
class SimulatedModel:
    """A model with a known truth. Lengths are tokens.

    `true_context` is the longest prompt plus reply that it handles; `loadable` the largest
    context that loads; `refused_above` a guardrail; `clamped_to` what the engine gives
    instead of more; `lapses` the share of questions that it misses at any length.

    It reads the request in the prompt's last lines: it writes when told to write, tell, explain
    or describe, goes on with the text when told to copy or continue, and else completes
    one sentence of it, or each sentence of a numbered list. With `true_context` 0 it does at any
    length what `beyond` says.
    """

    key: str = "simulated"
    declared: int | None = 32768
    true_context: int = 8192
    loadable: int | None = None
    refused_above: int | None = None
    clamped_to: int | None = None
    beyond: Beyond = Beyond.FORGETS_HEAD
    kept: float = 1.0
    """The share of `true_context` that its window holds once it was exceeded. With 1 the facts
    leave it one by one. llama.cpp's context shift throws away half of a full window: 0.5."""
    band: tuple[float, float] | None = None
    """A part of the window that is lost at lengths above `true_context`, as shares of the length;
    `beyond` does not matter then."""
    lapses: float = 0.0
    coherent_context: int | None = None
    """The longest prompt plus reply at which it still writes language. None: `true_context`
    where what it does beyond is no language, else any length."""
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
    document, request = _parts(prompt.user)
    read = _tokens(document), TOKEN.findall(request)
    before = TOKEN.findall(prompt.system)
    return [*head, *before, *read[0], *read[1], *tail, *TOKEN.findall(prompt.answer_prefix)]


def token_starts(text: str) -> list[int]:
    """Where each token of `text` starts, in characters."""
    document, request = _parts(text)
    shift = len(document)
    return [*_starts(document), *(shift + match.start() for match in TOKEN.finditer(request))]


def count(text: str) -> int:
    """The number of tokens of plain text."""
    return len(TOKEN.findall(text))


def _parts(text: str) -> tuple[str, str]:
    """The document and the request. Many questions share a document, which is read but once;
    no token goes across the blank line between the two.
    """
    at = max(0, text.rfind("\n\n"))
    return text[:at], text[at:]


@lru_cache(maxsize=32)
def _tokens(document: str) -> tuple[str, ...]:
    return tuple(TOKEN.findall(document))


@lru_cache(maxsize=32)
def _starts(document: str) -> tuple[int, ...]:
    return tuple(match.start() for match in TOKEN.finditer(document))
