"""One prompt for one loaded model: whether it fits, and what to do if it does not."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from lmstrix.errors import ConfigurationError, ContextOverflow
from lmstrix.models import UNFINISHED, ModelInfo, Prompt
from lmstrix.ports import LoadedModel
from lmstrix.stores.export import ReportSummary

REPLY_TOKENS = 512
"""Largest reply of `LMStrix.infer` unless told otherwise."""
UNTESTED_CONTEXT = 4096
"""Context loaded for `LMStrix.infer` if nothing was measured, in tokens."""


def as_prompt(prompt: str | Prompt) -> Prompt:
    """Plain text as the user's message; a `Prompt` as it is."""
    return Prompt(user=prompt) if isinstance(prompt, str) else prompt


def cautious_context(model: ModelInfo) -> int:
    """The context to load, in tokens, for a model that was not measured."""
    return min(UNTESTED_CONTEXT, model.declared_context or UNTESTED_CONTEXT)


def known_context(summaries: Iterable[ReportSummary], model: ModelInfo) -> int | None:
    """The newest true context of this very model in tokens, None if there is none.

    `summaries` are those of `LMStrix.summaries`, the newest first.
    """
    for known in summaries:
        same = known.model_identity == model.identity
        if same and known.true_context and known.cause not in UNFINISHED:
            return known.true_context
    return None


async def require_room(
    loaded: LoadedModel,
    prompt: Prompt,
    max_tokens: int,
    *,
    tested: int | None,
    on_note: Callable[[str], None] | None = None,
) -> None:
    """Count the prompt with the model's own tokenizer and template.

    `tested` is the true context of this model in tokens, None if it is not known; `on_note`
    hears a sentence for the user if prompt and reply fit, but may need more than that. Raises
    `ContextOverflow`, which says what would fit, if prompt and reply do not; and
    `ConfigurationError` for a reply of less than one token.
    """
    if max_tokens < 1:
        raise ConfigurationError(f"max_tokens must be at least 1, got {max_tokens}")
    tokens = await loaded.count_prompt_tokens(prompt)
    context = loaded.effective_context
    needed = tokens + max_tokens
    if needed <= context:
        if tested is not None and needed > tested and on_note is not None:
            on_note(
                f"Prompt and reply may need {needed:,} tokens; the true context of this model is"
                f" {tested:,}. Beyond it, replies may be wrong."
            )
        return
    declared = loaded.model.declared_context
    raise ContextOverflow(
        f"the prompt is {tokens:,} tokens long; with {max_tokens:,} for the reply it does not fit"
        f" the context of {context:,} that is loaded (tested:"
        f" {f'{tested:,}' if tested else 'not yet'}, declared:"
        f" {f'{declared:,}' if declared else 'unknown'})",
        prompt_tokens=tokens,
        context_length=context,
        hint=_advice(tokens, max_tokens, context, tested=tested, declared=declared),
    )


def _advice(
    tokens: int, max_tokens: int, context: int, *, tested: int | None, declared: int | None
) -> str:
    """What would make it fit, one sentence."""
    ways = ["Shorten the prompt"]
    if tokens < context:
        ways.append(f"allow a reply of at most {context - tokens:,} tokens (--max-tokens)")
    needed = tokens + max_tokens
    if needed <= (declared or needed):
        beyond = (
            "" if tested is None or needed <= tested else ", which is more than was found to work"
        )
        ways.append(f"load a context of at least {needed:,} (--context {needed}){beyond}")
    said = ", or ".join(ways) + "."
    return said if tested else f"{said} What it really handles is not known: see `lmstrix test`."
