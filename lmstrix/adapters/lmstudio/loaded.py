"""A model loaded in LM Studio, spoken to over its SDK's connection."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from time import perf_counter

import anyio
import attrs

from lmstrix.adapters.lmstudio import protocol
from lmstrix.adapters.lmstudio.protocol import Generation
from lmstrix.adapters.lmstudio.sdk import Connection, Deadlines, require_asyncio
from lmstrix.adapters.streaming import (
    BEGIN,
    Items,
    StallDeadline,
    StreamedModel,
    ends_in_thought,
    require_room,
    room_to_repeat,
    with_answer_prefix,
)
from lmstrix.errors import ConfigurationError, EngineUnavailable
from lmstrix.json_values import as_count, as_object
from lmstrix.models import ModelInfo, PrefillProgress, Prompt, ReplyChunk

MOST_EXTRA_TOKENS = 2
"""A raw prompt may differ from its own count by the beginning of the sequence, counted or not,
and by an end. What differs more was changed by the server."""
MOST_SPECIAL_TOKENS = 64
SMALL = Prompt(user="Hello")


@attrs.frozen(kw_only=True)
class _Prepared:
    """A prompt as it is sent: `text`, the `system` text if that is not part of it yet, and the
    server's own `count` of both in tokens.
    """

    text: str
    system: str
    count: int
    in_thought: bool


class LMStudioModel(StreamedModel):
    """A `lmstrix.ports.LoadedModel` over LM Studio.

    One request at a time; further ones wait. A prompt is formatted by the server and sent as
    raw text, so that the answer's first words and a closed thought can stand behind it. The
    first request of all asks for one token, to learn whether the server reads what it counts;
    if it does not, prompts are sent as chats and `note` is told.
    """

    def __init__(
        self,
        connection: Connection,
        identifier: str,
        model: ModelInfo,
        context: int,
        *,
        deadlines: Deadlines,
        note: Callable[[str], None],
    ) -> None:
        super().__init__(model, context)
        self._connection = connection
        self._identifier = identifier
        self._deadlines = deadlines
        self._stall = StallDeadline(deadlines.stall_s)
        self._note = note
        self._raw = True
        self._extra: int | None = None
        self._empty: int | None = None
        self._learning = anyio.Semaphore(1)

    async def count_tokens(self, text: str) -> int:
        """Number of tokens of plain `text`, without template and special tokens."""
        require_asyncio()
        if self._empty is None:
            self._empty = await self._count("")
        return max(0, await self._count(text) - self._empty)

    async def count_prompt_tokens(self, prompt: Prompt) -> int:
        """Number of tokens that `complete` would send for `prompt`."""
        require_asyncio()
        extra = await self._learn()
        return (await self._prepare(prompt)).count + extra

    async def _generate(self, prompt: Prompt, max_tokens: int, stop: Sequence[str]) -> Items:
        require_asyncio()
        if max_tokens < 1:
            raise ConfigurationError(f"max_tokens must be at least 1, got {max_tokens}")
        extra = await self._learn()
        async with self._turn:
            prepared = await self._prepare(prompt)
            tokens = prepared.count + extra
            require_room(tokens, max_tokens, self._context)
            if not self._raw:  # the reply may repeat the first words
                room = self._context - tokens - max_tokens
                max_tokens += min(room, room_to_repeat(prompt.answer_prefix))
            generation = self._generation(prepared, tokens, max_tokens)
            async with aclosing(self._ask(prepared, generation, max_tokens, stop)) as items:
                async for item in items:
                    yield item
        if generation.surplus:
            more = "more" if generation.surplus > 0 else "fewer"
            number = abs(generation.surplus)
            self._note(f"LM Studio read {number} prompt tokens {more} than it had counted.")
        if generation.reply is not None:
            yield generation.reply

    def _generation(self, prepared: _Prepared, tokens: int | None, max_tokens: int) -> Generation:
        return Generation(
            prompt_tokens=tokens,
            max_tokens=max_tokens,
            context=self._context,
            in_thought=prepared.in_thought,
        )

    async def _ask(
        self, prepared: _Prepared, generation: Generation, max_tokens: int, stop: Sequence[str]
    ) -> AsyncGenerator[PrefillProgress | ReplyChunk, None]:
        """One prediction, until `generation` has its reply."""
        request = protocol.predict_request(
            self._identifier,
            prepared.text,
            max_tokens=max_tokens,
            stop=stop,
            raw=self._raw,
            system=prepared.system,
        )
        started = perf_counter()
        async with self._connection.channel(
            "predict",
            request,
            deadline_s=self._deadlines.for_text(prepared.system + prepared.text),
            classify=protocol.prediction_error,
        ) as channel:
            while generation.reply is None:
                packet = await self._stall.step(channel.next)
                if packet is None:
                    raise EngineUnavailable("LM Studio ended the reply too early")
                for item in generation.feed(packet, perf_counter() - started):
                    yield item

    async def _learn(self) -> int:
        """Tokens read but not counted by the server; decides how prompts are sent."""
        async with self._learning:
            if self._extra is None:
                extra = await self._extra_tokens()
                if self._raw and extra is not None and abs(extra) > MOST_EXTRA_TOKENS:
                    self._note(
                        f"LM Studio reads {extra:+} prompt tokens besides a raw text, so prompts "
                        "are sent as chats, and the answer's first words within the question."
                    )
                    self._raw = False
                    extra = await self._extra_tokens()
                self._extra = extra
            return self._extra or 0

    async def _extra_tokens(self) -> int | None:
        """What a small prompt's reply tells; None if not even that fits."""
        async with self._turn:
            prepared = await self._prepare(SMALL)
            if prepared.count + MOST_EXTRA_TOKENS >= self._context:
                return None
            generation = self._generation(prepared, None, 1)
            async with aclosing(self._ask(prepared, generation, 1, ())) as items:
                async for _ in items:
                    pass
            reply = generation.reply
            return None if reply is None else reply.prompt_tokens - prepared.count

    async def _prepare(self, prompt: Prompt) -> _Prepared:
        """The text that is sent, and how many tokens the server counts for it."""
        user, prefix = prompt.user, prompt.answer_prefix
        if not self._raw:
            user, prefix = user + BEGIN * bool(prefix) + prefix, ""
        answer = await self._connection.call(
            "llm",
            "applyPromptTemplate",
            protocol.template_request(self._identifier, user, prompt.system),
            deadline_s=self._deadlines.for_text(prompt.system + user),
        )
        formatted = as_object(answer).get("formatted")
        if not isinstance(formatted, str):
            raise EngineUnavailable("LM Studio did not apply the chat template")
        formatted = with_answer_prefix(formatted, prefix)
        return _Prepared(
            text=formatted if self._raw else user,
            system="" if self._raw else prompt.system,
            count=await self._count(formatted),
            in_thought=ends_in_thought(formatted),
        )

    async def _count(self, text: str) -> int:
        parameter = {"specifier": protocol.specifier(self._identifier), "inputString": text}
        answer = await self._connection.call(
            "llm", "countTokens", parameter, deadline_s=self._deadlines.for_text(text)
        )
        count = as_count(as_object(answer).get("tokenCount"))
        # A token stands for at least one byte, except those around a text. A count that
        # cannot be must not become an overflow, which is a limit of the model.
        if count is None or count > len(text.encode()) + MOST_SPECIAL_TOKENS:
            raise EngineUnavailable("LM Studio did not count tokens")
        return count
