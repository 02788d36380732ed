"""A model loaded in the embedded engine, used over loopback HTTP."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from time import perf_counter
from typing import TypeVar, cast
from urllib.parse import quote

import anyio
import httpx

from lmstrix.adapters import streaming
from lmstrix.adapters.http import (
    KEY_HINT,
    MAX_LINE_BYTES,
    OF_THE_ACCOUNT,
    TIMED_OUT,
    EventLines,
    close_response,
    hidden,
)
from lmstrix.adapters.llamacpp.engine import Engine
from lmstrix.adapters.streaming import (
    Items,
    StallDeadline,
    StreamedModel,
    chat_messages,
    ends_in_thought,
    require_room,
    spoken_s,
    with_answer_prefix,
)
from lmstrix.errors import (
    ConfigurationError,
    ConnectionLost,
    ContextOverflow,
    EngineTimeout,
    EngineUnavailable,
    LMStrixError,
    PredictionError,
)
from lmstrix.json_values import MAX_RATE, Json, as_count, as_object, as_text, parse_object
from lmstrix.models import ModelInfo, PrefillProgress, Prompt, Reply, ReplyChunk, StopReason

T = TypeVar("T")

CALL_S = 30.0
CHARACTERS_PER_S = 100_000
"""Deadline of a call that formats or tokenizes: `CALL_S`, plus a second for so many characters; a
small machine does ten million."""
WEIGHT_BYTES_PER_S = 64 * 2**20
"""One step may take as long as reading all weights once, from a slow disk if memory is short."""
SLOWEST_TOKENS_PER_S = 20.0
"""A server that tells no progress may read its prompt as slowly as this."""
DEATH_S = 2.0
"""Time in which a process that dropped its connection must turn out to be dead."""


class LlamaCppModel(StreamedModel):
    """A `lmstrix.ports.LoadedModel` over llama.cpp's server in a child process.

    One request at a time; others wait. The longest time between two signs of progress (a batch
    read, a token written) is `stall_timeout_s` plus the time to read the weights once, or ten
    times the slowest step so far if that is more. A reply has no other deadline.

    Args:
        engine: the process; None for a server that somebody else started.
        has_template: whether the model has a chat template; None: as the server says.
        routed: what a router calls the model; empty without one.
    """

    def __init__(
        self,
        engine: Engine | None,
        client: httpx.AsyncClient,
        model: ModelInfo,
        *,
        has_template: bool | None = None,
        stall_timeout_s: float,
        reuse_prefixes: bool = True,
        routed: str = "",
    ) -> None:
        super().__init__(model, 0)
        self._engine = engine
        self._client = client
        self._key = client.headers.get("authorization", "").removeprefix("Bearer ")
        self._routed = routed
        self.notes: list[str] = []
        """What the reader of a report should know."""
        self.counts_tokens = True
        self._has_template = has_template
        self._tells_progress = False
        self._shares = False
        """Whether other clients' prompts may take the room of ours."""
        self._reuse_prefixes = reuse_prefixes
        self._stall = StallDeadline(stall_timeout_s + model.size_bytes / WEIGHT_BYTES_PER_S)

    async def read_properties(self) -> Json:
        """Ask the server for its properties, of which the effective context is one.

        Raises `EngineUnavailable`.
        """
        query = f"?model={quote(self._routed, safe='')}" if self._routed else ""
        properties = await self._call("GET", f"/props{query}", None, CALL_S)
        context = as_object(properties.get("default_generation_settings")).get("n_ctx")
        if not isinstance(context, int) or context < 1:
            raise EngineUnavailable("the engine did not report its context length")
        self._context = context
        slots = as_count(properties.get("total_slots")) or 1
        self._shares = self._engine is None and slots > 1
        if self._has_template is None:
            self._has_template = bool(properties.get("chat_template"))
        return properties

    async def count_tokens(self, text: str) -> int:
        """Number of tokens of plain `text`, without template and special tokens."""
        return len(await self._tokens(text, special=False))

    async def count_prompt_tokens(self, prompt: Prompt) -> int:
        """Number of tokens that `complete` would send for `prompt`."""
        return len(await self._tokens(await self._formatted(prompt), special=True))

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
            try:
                async with aclosing(self._events(request, len(tokens))) as events:
                    async for event, elapsed_s in events:
                        for item in generation.feed(event, elapsed_s):
                            yield item
            except ContextOverflow as error:
                if self._shares and error.prompt_tokens is None:
                    raise ConnectionLost(
                        "llama-server gave up the prompt: its slots may share one cache, and other"
                        " clients' prompts may have filled it"
                    ) from error
                raise
            if generation.reply is None:
                raise await self._lost("the reply ended too early")
        yield generation.reply

    async def _events(
        self, body: Json, prompt_tokens: int
    ) -> AsyncGenerator[tuple[Json, float], None]:
        """Events of one completion, with the seconds since its request.

        Leaving early closes the connection, and the engine stops at its next batch.
        """
        started = perf_counter()
        request = self._client.build_request("POST", "/completion", json=self._addressed(body))
        response = await self._bounded(
            lambda: self._client.send(request, stream=True), self._stall.seconds
        )
        chunks = response.aiter_bytes()
        events = read_events(chunks, self._key)

        async def read(deadline_s: float) -> Json | None:
            return await self._bounded(lambda: anext(events, None), deadline_s)

        try:
            if not response.is_success:
                content = await self._bounded(response.aread, CALL_S)
                told = parse_object(hidden(content, self._key, in_error=True))
                raise server_error(response.status_code, told)
            if not self._tells_progress:  # builds before September 2025 do not
                first_s = self._stall.seconds + prompt_tokens / SLOWEST_TOKENS_PER_S
                if (event := await read(first_s)) is None:
                    return
                self._tells_progress = "prompt_progress" in event
                yield event, perf_counter() - started
            while (event := await self._stall.step(read)) is not None:
                yield event, perf_counter() - started
        finally:
            await events.aclose()
            await close_response(response, chunks)

    async def _formatted(self, prompt: Prompt) -> str:
        """The text that the engine continues."""
        if not self._has_template:
            before = f"{prompt.system}\n\n" if prompt.system else ""
            return before + prompt.user + prompt.answer_prefix
        body: dict[str, object] = {"messages": chat_messages(prompt.system, prompt.user)}
        if prompt.answer_prefix:
            body["chat_template_kwargs"] = {"enable_thinking": False}
        answer = await self._call(
            "POST",
            "/apply-template",
            body,
            CALL_S + len(prompt.system + prompt.user) / CHARACTERS_PER_S,
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
            addressed = None if body is None else self._addressed(body)
            request = self._client.build_request(method, path, json=addressed)
        except UnicodeEncodeError as error:
            raise ConfigurationError(
                "the text contains a lone surrogate, which is not valid Unicode"
            ) from error
        response = await self._bounded(lambda: self._client.send(request), deadline_s)
        refused = not response.is_success
        answer = parse_object(hidden(response.content, self._key, in_error=refused))
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
            if self._engine is not None and (crash := await self._engine.death(0)) is not None:
                raise crash from error
            raise EngineTimeout(
                f"the engine made no progress for {spoken_s(deadline_s)}"
            ) from error
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise await self._lost(f"the connection was lost ({type(error).__name__})") from error

    async def _lost(self, what: str) -> LMStrixError:
        """The engine's death if it died, else an error that it cannot be reached.

        The death of a server that is not ours shows as a lost connection only.
        """
        if self._engine is None:
            return ConnectionLost(what)
        return await self._engine.death(DEATH_S) or EngineUnavailable(what)

    def _addressed(self, body: Json) -> Json:
        return {**body, "model": self._routed} if self._routed else body


# The server on the wire --------------------------------------------------------------------------

_STOP_REASONS = {
    "eos": StopReason.END,
    "word": StopReason.STOP_STRING,
    "limit": StopReason.MAX_TOKENS,
}


def completion_request(
    tokens: Sequence[int], max_tokens: int, stop: Sequence[str], *, reuse_prefixes: bool = True
) -> Json:
    """Body of a greedy completion of `tokens`, streamed with its progress."""
    return {
        "prompt": tokens,
        "n_predict": max_tokens,
        "stop": list(stop),
        "temperature": 0,
        "top_k": 1,
        "repeat_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "dry_multiplier": 0.0,
        "cache_prompt": reuse_prefixes,
        "stream": True,
        "return_progress": True,
        # Without this the last event repeats the whole prompt.
        "response_fields": [
            "content",
            "stop",
            "stop_type",
            "truncated",
            "tokens_evaluated",
            "tokens_predicted",
            "timings",
        ],
    }


async def read_events(chunks: AsyncIterator[bytes], key: str = "") -> AsyncGenerator[Json, None]:
    """The objects in chunks of server-sent events.

    Raises `EngineUnavailable` for anything else: the server is not the one expected.
    """
    reader, rest = EventLines("the engine", key), b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > MAX_LINE_BYTES:
            raise EngineUnavailable("the engine sent a line without an end")
        for line in lines:
            if (event := reader.event(line)) is not None:
                yield event
    reader.event(b"")  # raises if the last event is not whole


def server_error(  # noqa: PLR0911 - one for each kind
    status: int, body: Json | None
) -> LMStrixError:
    """The error that an answer of the engine's server stands for; `body` is its JSON object."""
    told = as_object((body or {}).get("error"))
    message = as_text(told.get("message"))[:500] or "no message"
    if told.get("type") == "exceed_context_size_error":
        return ContextOverflow(
            f"the prompt does not fit: {message}",
            prompt_tokens=as_count(told.get("n_prompt_tokens")),
            context_length=as_count(told.get("n_ctx")),
        )
    if "context size has been exceeded" in message.lower():
        return ContextOverflow(f"the prompt does not fit: {message}")
    answered = f"the engine's server answered {status}: {message}"
    if status in OF_THE_ACCOUNT:
        return EngineUnavailable(answered, hint=KEY_HINT if status in (401, 403) else "")
    if status in TIMED_OUT:
        return EngineTimeout(f"{answered}. A time limit of a proxy has passed")
    if status == 502 or (status >= 500 and status != 503 and not (body or {}).get("error")):
        return ConnectionLost(answered)  # what a router or a proxy says of an engine that died
    if status in (404, 503) or not told:
        return EngineUnavailable(answered)
    return PredictionError(answered)


class Generation(streaming.Generation):
    """One reply as it arrives in server-sent events."""

    def _facts(self, event: Json, elapsed_s: float) -> list[PrefillProgress | ReplyChunk]:
        if "error" in event:
            raise server_error(200, event)
        progress = as_object(event.get("prompt_progress"))
        if progress:
            return [
                PrefillProgress(
                    prompt_tokens=as_count(progress.get("total")) or 0,
                    cached_tokens=as_count(progress.get("cache")) or 0,
                    processed_tokens=as_count(progress.get("processed")) or 0,
                )
            ]
        content = event.get("content")
        text = content if isinstance(content, str) else ""
        self._written(text, elapsed_s)
        pieces = self._splitter.feed(text)
        if event.get("stop") is not True:
            return self._said(pieces)
        last = self._said([*pieces, *self._splitter.finish()])
        self.reply = self._finished(event)
        return last

    def _finished(self, event: Json) -> Reply:
        timings = as_object(event.get("timings"))
        read = as_count(event.get("tokens_evaluated"))
        generated = (
            as_count(timings.get("predicted_n")) or as_count(event.get("tokens_predicted")) or 0
        )
        sent = self._prompt_tokens or 0
        if read is not None:
            self._require_whole_prompt(read)
            if read > sent:
                raise PredictionError(
                    f"the engine read {read} prompt tokens of {sent} that were sent"
                )
        # The flag is also set when the reply ends in the very last cell: then all is there.
        if event.get("truncated") is True and generated < self._max_tokens:
            raise ContextOverflow(
                "the context filled up before the reply was complete",
                prompt_tokens=sent,
            )
        return Reply(
            text=self._text(reasoning=False),
            reasoning=self._text(reasoning=True),
            stop_reason=_STOP_REASONS.get(as_text(event.get("stop_type")), StopReason.UNKNOWN),
            prompt_tokens=sent,
            cached_tokens=as_count(timings.get("cache_n")),
            generated_tokens=generated,
            ttft_s=self._ttft_s,
            tokens_per_second=_speed(timings, generated),
        )


def _speed(timings: Json, generated: int) -> float | None:
    """Tokens per second; None for a single token, which comes with the prefill."""
    speed = timings.get("predicted_per_second")
    if generated < 2 or not isinstance(speed, (int, float)) or not 0 < speed <= MAX_RATE:
        return None
    return float(speed)
