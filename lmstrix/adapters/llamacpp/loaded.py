"""A model loaded in the embedded engine, used over loopback HTTP."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from time import perf_counter
from typing import TypeVar, cast

import anyio
import httpx

from lmstrix.adapters.llamacpp.engine import Engine
from lmstrix.adapters.llamacpp.wire import (
    EventReader,
    Generation,
    completion_request,
    server_error,
)
from lmstrix.adapters.streaming import (
    Items,
    StallDeadline,
    ends_in_thought,
    require_room,
    visible_items,
    whole_reply,
    with_answer_prefix,
)
from lmstrix.errors import (
    ConfigurationError,
    EngineTimeout,
    EngineUnavailable,
    LMStrixError,
)
from lmstrix.json_values import Json, as_object, parse_object
from lmstrix.models import ModelInfo, PrefillProgress, Prompt, Reply, ReplyChunk

__all__ = ["LlamaCppModel"]

T = TypeVar("T")

CALL_S = 30.0
CHARACTERS_PER_S = 100_000
"""Deadline of a call that formats or tokenizes: `CALL_S`, plus a second for so many characters; a
small machine does ten million."""
WEIGHT_BYTES_PER_S = 64 * 2**20
"""One step may take as long as reading all weights once, from a slow disk if memory is short."""
CLOSE_S = 2.0
DEATH_S = 2.0
"""Time in which a process that dropped its connection must turn out to be dead."""


class LlamaCppModel:
    """A `lmstrix.ports.LoadedModel` over llama.cpp's server in a child process.

    One request at a time; others wait. The longest time between two signs of progress (a batch
    read, a token written) is `stall_timeout_s` plus the time to read the weights once, or ten
    times the slowest step so far if that is more. A reply has no other deadline.
    """

    def __init__(
        self,
        engine: Engine,
        client: httpx.AsyncClient,
        model: ModelInfo,
        *,
        has_template: bool,
        stall_timeout_s: float,
        reuse_prefixes: bool = True,
    ) -> None:
        self._engine = engine
        self._client = client
        self._model = model
        self._has_template = has_template
        self._reuse_prefixes = reuse_prefixes
        self._stall = StallDeadline(stall_timeout_s + model.size_bytes / WEIGHT_BYTES_PER_S)
        self._context = 0
        # A semaphore, not a lock: an abandoned stream may be closed by another task.
        self._turn = anyio.Semaphore(1)

    @property
    def model(self) -> ModelInfo:
        """The model that was loaded."""
        return self._model

    @property
    def effective_context(self) -> int:
        """The context length that the engine's server reports, in tokens."""
        return self._context

    async def read_properties(self) -> None:
        """Ask the server for the effective context; raises `EngineUnavailable`."""
        properties = await self._call("GET", "/props", None, CALL_S)
        context = as_object(properties.get("default_generation_settings")).get("n_ctx")
        if not isinstance(context, int) or context < 1:
            raise EngineUnavailable("the engine did not report its context length")
        self._context = context

    async def count_tokens(self, text: str) -> int:
        """Number of tokens of plain `text`, without template and special tokens."""
        return len(await self._tokens(text, special=False))

    async def count_prompt_tokens(self, prompt: Prompt) -> int:
        """Number of tokens that `complete` would send for `prompt`."""
        return len(await self._tokens(await self._formatted(prompt), special=True))

    async def complete(
        self,
        prompt: Prompt,
        *,
        max_tokens: int,
        stop: Sequence[str] = (),
        on_progress: Callable[[PrefillProgress], None] | None = None,
    ) -> Reply:
        """Greedy reply to `prompt`; see `lmstrix.ports.LoadedModel.complete`.

        Raises `ContextOverflow` also if the prompt fits and `max_tokens` more would not.
        """
        return await whole_reply(self._generate(prompt, max_tokens, stop), on_progress)

    def stream(
        self, prompt: Prompt, *, max_tokens: int, stop: Sequence[str] = ()
    ) -> AsyncGenerator[ReplyChunk | Reply, None]:
        """The same reply piece by piece; the last item is the whole `Reply`.

        Closing the generator early stops the engine.
        """
        return visible_items(self._generate(prompt, max_tokens, stop))

    async def _generate(self, prompt: Prompt, max_tokens: int, stop: Sequence[str]) -> Items:
        if max_tokens < 1:
            raise ConfigurationError(f"max_tokens must be at least 1, got {max_tokens}")
        async with self._turn:
            formatted = await self._formatted(prompt)
            tokens = await self._tokens(formatted, special=True)
            require_room(len(tokens), max_tokens, self._context)
            generation = Generation(
                prompt_tokens=len(tokens),
                max_tokens=max_tokens,
                in_thought=ends_in_thought(formatted),
            )
            request = completion_request(
                tokens, max_tokens, stop, reuse_prefixes=self._reuse_prefixes
            )
            async with aclosing(self._events(request)) as events:
                async for event, elapsed_s in events:
                    for item in generation.feed(event, elapsed_s):
                        yield item
            if generation.reply is None:
                raise await self._lost("the reply ended too early")
        yield generation.reply

    async def _events(self, body: Json) -> AsyncGenerator[tuple[Json, float], None]:
        """Events of one completion, with the seconds since its request.

        Leaving early closes the connection, and the engine stops at its next batch.
        """
        started = perf_counter()
        request = self._client.build_request("POST", "/completion", json=body)
        response = await self._bounded(
            lambda: self._client.send(request, stream=True), self._stall.seconds
        )
        chunks = response.aiter_bytes()
        reader = EventReader(chunks)

        async def read(deadline_s: float) -> Json | None:
            return await self._bounded(reader.next, deadline_s)

        try:
            if not response.is_success:
                content = await self._bounded(response.aread, CALL_S)
                raise server_error(response.status_code, parse_object(content))
            while (event := await self._stall.step(read)) is not None:
                yield event, perf_counter() - started
        finally:
            with anyio.move_on_after(CLOSE_S, shield=True):
                await response.aclose()
                # The body's generators are suspended in each other. Reading on ends them all here
                # and now: it fails on the closed connection once the data received is used up.
                with suppress(httpx.HTTPError, httpx.StreamError, RuntimeError):
                    async for _ in chunks:
                        pass

    async def _formatted(self, prompt: Prompt) -> str:
        """The text that the engine continues."""
        if not self._has_template:
            before = f"{prompt.system}\n\n" if prompt.system else ""
            return before + prompt.user + prompt.answer_prefix
        said = [("system", prompt.system)] * bool(prompt.system) + [("user", prompt.user)]
        messages = [{"role": role, "content": text} for role, text in said]
        body: dict[str, object] = {"messages": messages}
        if prompt.answer_prefix:
            body["chat_template_kwargs"] = {"enable_thinking": False}
        answer = await self._call(
            "POST",
            "/apply-template",
            body,
            CALL_S + sum(len(text) for _, text in said) / CHARACTERS_PER_S,
        )
        formatted = answer.get("prompt")
        if not isinstance(formatted, str):
            raise EngineUnavailable("the engine did not apply the chat template")
        # Appended here rather than sent as a message: the server refuses to continue an answer
        # if the template would think first, and never changes it otherwise.
        return with_answer_prefix(formatted, prompt.answer_prefix)

    async def _tokens(self, text: str, *, special: bool) -> list[int]:
        """Token ids of `text`; with `special` as the server reads a prompt: with the beginning of
        sequence if the model wants it, and with the template's own tokens.
        """
        body = {"content": text, "add_special": special, "parse_special": special}
        deadline_s = CALL_S + len(text) / CHARACTERS_PER_S
        tokens = (await self._call("POST", "/tokenize", body, deadline_s)).get("tokens")
        if not isinstance(tokens, list):
            raise EngineUnavailable("the engine did not tokenize")
        return cast("list[int]", tokens)

    async def _call(self, method: str, path: str, body: Json | None, deadline_s: float) -> Json:
        try:
            request = self._client.build_request(method, path, json=body)
        except UnicodeEncodeError as error:
            raise ConfigurationError(
                "the text contains a lone surrogate, which is not valid Unicode"
            ) from error
        response = await self._bounded(lambda: self._client.send(request), deadline_s)
        answer = parse_object(response.content)
        if not response.is_success or answer is None:
            raise server_error(response.status_code, answer)
        return answer

    async def _bounded(self, call: Callable[[], Awaitable[T]], deadline_s: float) -> T:
        """Await `call()` with a deadline, and translate its failures."""
        if self._client.is_closed:
            raise EngineUnavailable("the model was released")
        try:
            with anyio.fail_after(deadline_s):
                return await call()
        except TimeoutError as error:
            if (crash := await self._engine.death(0)) is not None:
                raise crash from error
            raise EngineTimeout(
                f"the engine made no progress for {round(deadline_s, 1) or 0.1:g} s"
            ) from error
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise await self._lost(f"the connection was lost ({type(error).__name__})") from error

    async def _lost(self, what: str) -> LMStrixError:
        """The engine's death if it died, else an error that it cannot be reached."""
        return await self._engine.death(DEATH_S) or EngineUnavailable(what)
