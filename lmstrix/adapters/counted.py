"""A loaded model of a server without a tokenizer: sizes come from the server's own counts."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from contextlib import aclosing, suppress

import attrs

from lmstrix.adapters.streaming import Items, StreamedModel, require_room, whole_reply
from lmstrix.adapters.token_counts import TokenCounts, common_length
from lmstrix.errors import (
    ConfigurationError,
    ConnectionLost,
    ContextOverflow,
    EngineUnavailable,
    PredictionError,
    PromptTruncated,
)
from lmstrix.models import ModelInfo, Prompt, Reply, StopReason

Ask = Callable[[Prompt, int, Sequence[str]], Items]
"""Sends a prompt with the most tokens of its reply and its stop strings. The prompt tokens of the
reply are the server's count, cached ones included, or 0 if it gives none."""

ALWAYS_COUNTED = 1024
"""Prompts of up to so many tokens are counted exactly."""
CERTAIN = 1 / 64
"""A longer prompt is estimated: never too low, and too high by this part of it at most, or less
below `WHOLLY_CERTAIN` tokens, in proportion to its length: a few tokens are a larger part there."""
WHOLLY_CERTAIN = 8192
COUNTED_SHARE = 7 / 8
"""To that end, so much of what is new in it is counted. Not all of it: the prompt may turn out to
be longer than it was meant to be."""
MOST_SENT = 3
"""How often. Once is enough, unless some passages of the text are much denser than others."""
MUCH_FASTER = 0.6
"""A prompt of some 600 tokens of which all but a few are in a cache takes less of the time."""
MOST_SILENT = 3
"""A server that has counted may leave out so many counts in a row, less one: they are estimated."""
LEAST_COUNTED = 1 / 2
"""Of the tokens that prose has: a server that counts fewer counts something else."""
UNCOUNTED = (
    "The server does not count the tokens of whole prompts: lengths are estimated and may be off by"
    " an eighth."
)
SMALL = Prompt(user="Hello")
PROSE = Prompt(
    user="The old mill stands by the river, and in the evening the miller walks along the bank to"
    " look at the weir. In 1874 the water rose by 3 metres and carried the bridge away; it was"
    " built again of stone within two years. Since then the road has led past the church and the"
    " school, where on most days some 45 children play under the lime trees until the bell rings."
)
"""Ordinary writing, to learn how many tokens it takes."""
SEAM_TOKENS, SEAM_SHARE = 16, 1 / 200
"""The halves of a prompt may have so many tokens more than the whole."""


class CountedModel(StreamedModel):
    """A `lmstrix.ports.LoadedModel` whose prompts are counted by sending them for one token.

    A server with a prefix cache has read the prompt then, so that counting costs next to nothing.
    Short prompts are counted exactly, longer ones estimated from the most similar one that was
    counted; see `CERTAIN`.

    What is read to size a prompt is part of the next reply's tokens and time, as if that had read
    it. If the server does not say how much it had in its cache, two prompts that begin alike show
    after the load whether it has one.

    A count that is too low for the text is checked against those of its halves: a server that cuts
    prompts without saying so is found out.
    """

    has_tokenizer = False
    """Counts of plain text are estimates, also if one happens to be right."""

    def __init__(
        self, model: ModelInfo, context: int, ask: Ask, *, note: Callable[[str], None]
    ) -> None:
        super().__init__(model, context)
        self._ask = ask
        self._note = note
        self.notes: list[str] = []
        """What the reader of a report should know."""
        self._counts = TokenCounts()
        self._template_tokens = 0
        self._reuses: bool | None = None
        """Whether the server has the beginning of the last prompt in a cache; None: not known."""
        self._last = ""
        self._sized_tokens, self._sized_s = 0, 0.0
        """What was read for sizes since the last reply."""
        self._uncounted = False
        self._silent = 0
        """Replies in a row without a count."""
        self._counts_whole = True
        """Whether its counts are about whole prompts; False: nothing is made of them."""
        self._released = False

    @property
    def counts_tokens(self) -> bool:
        """Whether the server counts its prompts; else lengths are estimated."""
        return not self._uncounted

    async def learn(self) -> None:
        """Send a few short prompts, to learn how the server counts and whether it has a cache.

        Once, after the load.
        """
        with suppress(ContextOverflow):
            async with self._turn:
                template_tokens = await self._sent(SMALL)
                if not self._uncounted:
                    more = await self._sent(PROSE) - template_tokens
                    self._template_tokens = template_tokens
                    if more < LEAST_COUNTED * TokenCounts().plain(PROSE.user):
                        self._give_up_counts()
                await self._learn_reuse()
        self._sized_tokens, self._sized_s = 0, 0.0

    async def _learn_reuse(self, *, again: bool = True) -> None:
        """Whether a prompt that begins like the last one is read much faster. If only times tell,
        a second pair has to agree: the first prompt of its size may be slow for another reason. If
        it is not much faster, the requests themselves may take most of the time: that is left open.
        """
        new = f"{secrets.token_hex(4)}. "  # read before by nobody
        prompts = [Prompt(user=f"{new}{PROSE.user * 5}\n\n{end}") for end in ("One", "Two")]
        replies = [await whole_reply(self._asked(prompt, 1, ())) for prompt in prompts]
        cold, warm = (reply.prompt_tokens for reply in replies)
        left_out = 0 < warm < MUCH_FASTER * cold  # both have the same length
        if left_out:
            self._give_up_counts()
        for prompt, reply in zip(prompts, replies, strict=True):
            await self._checked(prompt, reply)
        cold_s, warm_s = (reply.ttft_s for reply in replies)
        if left_out:
            self._reuses = True
        elif any(reply.cached_tokens is not None for reply in replies):
            self._reuses = bool(replies[1].cached_tokens)
        elif cold_s and warm_s:
            self._reuses = True if warm_s < MUCH_FASTER * cold_s else None
            if again and self._reuses:
                await self._learn_reuse(again=False)

    def release(self) -> None:
        """Refuse further requests: the model is unloaded."""
        self._released = True

    async def count_tokens(self, text: str) -> int:
        """About the number of tokens of plain `text`."""
        return self._counts.plain(text)

    async def count_prompt_tokens(self, prompt: Prompt) -> int:
        """Number of tokens that `complete` would send for `prompt`; see the class.

        Raises what `complete` raises, except that a prompt which does not fit is estimated.
        """
        estimate = self._counts.estimate(_text(prompt))
        if self._uncounted or estimate.is_certain or estimate.least > self._context:
            return estimate.tokens
        certain = CERTAIN * min(1.0, estimate.tokens / WHOLLY_CERTAIN)
        async with self._turn:
            if estimate.most <= ALWAYS_COUNTED:
                try:
                    return await self._sent(prompt)
                except ContextOverflow as error:
                    return error.prompt_tokens or max(estimate.tokens, self._context + 1)
            for _ in range(MOST_SENT):
                if self._uncounted or not self._counts_whole:
                    return estimate.tokens
                if estimate.most - estimate.tokens <= certain * estimate.tokens:
                    break
                same = self._counts.same(_text(prompt)) - len(prompt.system) - 1
                more = int(COUNTED_SHARE * (len(prompt.user) - max(0, same)))
                try:
                    await self._sent(attrs.evolve(prompt, user=prompt.user[: max(0, same) + more]))
                except (PredictionError, ConnectionLost):
                    break  # it will go wrong again with the question, whose length is known
                estimate = self._counts.estimate(_text(prompt))
        return self._counts.estimate(_text(prompt)).most

    async def _generate(self, prompt: Prompt, max_tokens: int, stop: Sequence[str]) -> Items:
        if max_tokens < 1:
            raise ConfigurationError(f"max_tokens must be at least 1, got {max_tokens}")
        async with self._turn:
            reply = None
            async with aclosing(self._asked(prompt, max_tokens, stop)) as items:
                async for item in items:
                    if isinstance(item, Reply):
                        reply = item
                    else:
                        yield item
            if reply is None:
                raise EngineUnavailable("the server gave no reply")
            reply = self._accounted(prompt, await self._checked(prompt, reply))
        require_room(reply.prompt_tokens, max_tokens, self._context)
        yield reply

    async def _asked(self, prompt: Prompt, max_tokens: int, stop: Sequence[str]) -> Items:
        """The server's reply; a prompt that cannot fit is not sent: it might be cut."""
        if self._released:
            raise EngineUnavailable("the model was released")
        least = self._counts.estimate(_text(prompt)).least
        require_room(least, 0, self._context)
        async with aclosing(self._ask(prompt, max_tokens, stop)) as items:
            async for item in items:
                yield item

    async def _sent(self, prompt: Prompt) -> int:
        """The server's own count of `prompt`."""
        reply = self._cached(prompt, await self._reply_to(prompt))
        self._sized_tokens += reply.prompt_tokens - (reply.cached_tokens or 0)
        self._sized_s += reply.ttft_s or 0.0
        return reply.prompt_tokens

    async def _reply_to(self, prompt: Prompt) -> Reply:
        """The reply to a prompt that is sent for its size. A question takes many such requests, so
        a short one that is lost is sent once more, before the load counts as lost.
        """
        try:
            reply = await whole_reply(self._asked(prompt, 1, ()))
        except ConnectionLost:
            if self._counts.estimate(_text(prompt)).most > ALWAYS_COUNTED:
                raise
            reply = await whole_reply(self._asked(prompt, 1, ()))
        if reply.prompt_tokens <= 0 and not self._template_tokens:
            reply = await whole_reply(self._asked(prompt, 1, ()))  # it may leave out one
        return await self._checked(prompt, reply)

    def _accounted(self, prompt: Prompt, reply: Reply) -> Reply:
        """`reply` with what was read for sizes before it."""
        tokens, seconds = self._sized_tokens, self._sized_s
        self._sized_tokens, self._sized_s = 0, 0.0
        reply = self._cached(prompt, reply)
        if not self._reuses or reply.cached_tokens is None:
            return reply
        return attrs.evolve(
            reply,
            cached_tokens=max(0, reply.cached_tokens - tokens),
            ttft_s=None if reply.ttft_s is None else reply.ttft_s + seconds,
        )

    def _cached(self, prompt: Prompt, reply: Reply) -> Reply:
        """`reply` with the cached tokens, if the server does not say and it is known."""
        text, last = _text(prompt), self._last
        self._last = text
        if reply.cached_tokens is not None or self._reuses is None:
            return reply
        new = self._counts.plain(text[common_length(text, last) :]) if self._reuses else None
        cached = 0 if new is None else max(0, reply.prompt_tokens - new - self._template_tokens)
        return attrs.evolve(reply, cached_tokens=cached)

    def _give_up_counts(self) -> None:
        """Forget the counts so far, and use none from now on."""
        self._counts, self._counts_whole = TokenCounts(), False

    async def _checked(self, prompt: Prompt, reply: Reply) -> Reply:
        """`reply` with a count that can be relied on; raises `PromptTruncated`."""
        text, told = _text(prompt), reply.prompt_tokens if self._counts_whole else 0
        estimate = self._counts.estimate(text)
        broken_off = told <= 0 and reply.stop_reason is StopReason.UNKNOWN
        if not broken_off:
            self._silent = 0 if told > 0 else self._silent + 1
        if told <= 0:
            counts = self._counts_whole and self._template_tokens
            missing = counts and self._silent < MOST_SILENT
            if not self._uncounted and not missing:
                self._uncounted = True
                self.notes.append(UNCOUNTED)
                self._note(UNCOUNTED)
            return attrs.evolve(reply, prompt_tokens=max(1, estimate.tokens))
        if told < estimate.least and self._template_tokens:
            sent = await self._counted_in_halves(prompt)
            if sent > told + SEAM_TOKENS + SEAM_SHARE * told:
                raise PromptTruncated(
                    f"the server read {told} prompt tokens of about {sent} that were sent: it cut"
                    " the prompt",
                    read_tokens=told,
                    sent_tokens=sent,
                    context_length=self._context,
                )
        self._counts.learn(text, told)
        return reply

    async def _counted_in_halves(self, prompt: Prompt) -> int:
        """The tokens of both halves of the user's text, sent one after the other."""
        half = len(prompt.user) // 2
        halves = (
            attrs.evolve(prompt, user=prompt.user[:half]),
            Prompt(user=prompt.user[half:]),
        )
        counts = [(await whole_reply(self._asked(part, 1, ()))).prompt_tokens for part in halves]
        return sum(counts) - self._template_tokens


def _text(prompt: Prompt) -> str:
    """One text for each prompt."""
    return f"{prompt.system}\0{prompt.user}\0{prompt.answer_prefix}"
