"""The engine's server on the wire: requests to JSON, and its event stream to facts."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Sequence

from lmstrix.adapters.streaming import ThoughtSplitter
from lmstrix.errors import (
    ContextOverflow,
    EngineUnavailable,
    LMStrixError,
    PredictionError,
    PromptTruncated,
)
from lmstrix.json_values import MAX_RATE, Json, as_count, as_object, as_text, parse_object
from lmstrix.models import PrefillProgress, Reply, ReplyChunk, StopReason

__all__ = ["EventReader", "Generation", "completion_request", "server_error"]

MAX_LINE_BYTES = 2**24
"""Longest line accepted from the server; its own have a few hundred bytes."""

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


class EventReader:
    """Reads server-sent events from chunks of bytes, one JSON object at a time."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""
        self._ready: deque[Json] = deque()

    async def next(self) -> Json | None:
        """The next event, or None at the end of the stream.

        Raises `EngineUnavailable` for anything else: the server is not the one expected.
        """
        while not self._ready:
            try:
                chunk = await anext(self._chunks)
            except StopAsyncIteration:
                return None
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            if len(self._rest) > MAX_LINE_BYTES:
                raise EngineUnavailable("the engine sent a line without an end")
            self._ready.extend(event for line in lines if (event := _event(line)) is not None)
        return self._ready.popleft()


def _event(line: bytes) -> Json | None:
    """The JSON object in one line; None for blank lines, comments and other fields."""
    field, _, data = line.strip().partition(b":")
    data = data.strip()
    if field not in (b"data", b"error") or data == b"[DONE]":
        return None
    event = parse_object(data)
    if event is None:
        raise EngineUnavailable("the engine sent an event that is not JSON")
    return {"error": event} if field == b"error" and "error" not in event else event


def server_error(status: int, body: Json | None) -> LMStrixError:
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
    if status in (401, 403, 404, 503) or not told:
        return EngineUnavailable(f"the engine's server answered {status}: {message}")
    return PredictionError(f"the engine's server answered {status}: {message}")


class Generation:
    """One reply as it arrives: takes events and returns the facts in them.

    `prompt_tokens` is the number of tokens sent, `in_thought` whether the prompt ends in an open
    thought. Times are seconds since the request was sent.
    """

    def __init__(self, *, prompt_tokens: int, max_tokens: int, in_thought: bool) -> None:
        self._prompt_tokens = prompt_tokens
        self._max_tokens = max_tokens
        self._splitter = ThoughtSplitter(inside=in_thought)
        self._ttft_s: float | None = None
        self._pieces: list[ReplyChunk] = []
        self.reply: Reply | None = None
        """The whole reply, after the last event."""

    def feed(self, event: Json, elapsed_s: float) -> list[PrefillProgress | ReplyChunk]:
        """The facts in one event; raises `ContextOverflow`, `PromptTruncated`,
        `PredictionError` or `EngineUnavailable`.
        """
        if "error" in event:
            raise server_error(200, event)
        progress = as_object(event.get("prompt_progress"))
        if progress:
            return [_progress(progress)]
        if self._ttft_s is None:
            self._ttft_s = elapsed_s
        content = event.get("content")
        pieces = self._splitter.feed(content if isinstance(content, str) else "")
        if event.get("stop") is True:
            pieces += self._splitter.finish()
        self._pieces += pieces
        if event.get("stop") is True:
            self.reply = self._finished(event)
        return [*pieces]

    def _finished(self, event: Json) -> Reply:
        timings = as_object(event.get("timings"))
        read = as_count(event.get("tokens_evaluated"))
        generated = (
            as_count(timings.get("predicted_n")) or as_count(event.get("tokens_predicted")) or 0
        )
        if read is not None and read < self._prompt_tokens:
            raise PromptTruncated(
                f"the engine read {read} prompt tokens of {self._prompt_tokens} that were sent: "
                "it shortened the prompt",
                read_tokens=read,
                sent_tokens=self._prompt_tokens,
            )
        if read is not None and read > self._prompt_tokens:
            raise PredictionError(
                f"the engine read {read} prompt tokens of {self._prompt_tokens} that were sent"
            )
        # The flag is also set when the reply ends in the very last cell: then all is there.
        if event.get("truncated") is True and generated < self._max_tokens:
            raise ContextOverflow(
                "the context filled up before the reply was complete",
                prompt_tokens=self._prompt_tokens,
            )
        return Reply(
            text="".join(piece.text for piece in self._pieces if not piece.is_reasoning),
            reasoning="".join(piece.text for piece in self._pieces if piece.is_reasoning),
            stop_reason=_stop_reason(event.get("stop_type")),
            prompt_tokens=self._prompt_tokens,
            cached_tokens=as_count(timings.get("cache_n")),
            generated_tokens=generated,
            ttft_s=self._ttft_s,
            tokens_per_second=_speed(timings, generated),
        )


def _progress(progress: Json) -> PrefillProgress:
    return PrefillProgress(
        prompt_tokens=as_count(progress.get("total")) or 0,
        cached_tokens=as_count(progress.get("cache")) or 0,
        processed_tokens=as_count(progress.get("processed")) or 0,
    )


def _stop_reason(told: object) -> StopReason:
    known = _STOP_REASONS.get(told) if isinstance(told, str) else None
    return known or StopReason.UNKNOWN


def _speed(timings: Json, generated: int) -> float | None:
    """Tokens per second; None for a single token, which comes with the prefill."""
    speed = timings.get("predicted_per_second")
    if generated < 2 or not isinstance(speed, (int, float)) or not 0 < speed <= MAX_RATE:
        return None
    return float(speed)
