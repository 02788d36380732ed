"""What the packets of one prediction mean. Pure: JSON in, facts out."""

from __future__ import annotations

from collections.abc import Callable

from lmstrix.adapters.lmstudio import failures
from lmstrix.adapters.streaming import ThoughtSplitter
from lmstrix.errors import (
    ContextOverflow,
    EngineUnavailable,
    PredictionError,
    PromptTruncated,
)
from lmstrix.json_values import MAX_RATE, Json, as_count, as_object, as_seconds
from lmstrix.models import PrefillProgress, Reply, ReplyChunk, StopReason

__all__ = ["Generation"]

_STOP_REASONS = {
    "eosFound": StopReason.END,
    "toolCalls": StopReason.END,
    "stopStringFound": StopReason.STOP_STRING,
    "maxPredictedTokensReached": StopReason.MAX_TOKENS,
    "contextLengthReached": StopReason.CONTEXT_LENGTH,
    "userStopped": StopReason.CANCELLED,
}
_TAGS = ("reasoningStartTag", "reasoningEndTag")


class Generation:
    """One reply as it arrives: feed it packets, take what they mean.

    `prompt_tokens` is how many tokens the server should read, None if that is not known
    yet; `in_thought` whether the prompt ends within an open thought. Times are seconds since
    the request was sent.
    """

    def __init__(
        self, *, prompt_tokens: int | None, max_tokens: int, context: int, in_thought: bool
    ) -> None:
        self._prompt_tokens = prompt_tokens
        self._max_tokens = max_tokens
        self._context = context
        self._splitter = ThoughtSplitter(inside=in_thought)
        self._pieces: list[ReplyChunk] = []
        self._cached: int | None = None
        self._processed = 0
        self._ttft_s: float | None = None
        self.reply: Reply | None = None
        """The whole reply, once the last packet has come."""
        self.surplus = 0
        """Prompt tokens that the server read beyond those that were sent."""

    def feed(self, packet: Json, elapsed_s: float) -> list[PrefillProgress | ReplyChunk]:
        """What one packet says; nothing where its type is unknown.

        Raises `ContextOverflow`, `PromptTruncated`, `PredictionError` or `EngineUnavailable`.
        """
        kind = packet.get("type")
        if not isinstance(kind, str):
            raise _malformed("a message without a type")
        if kind == "promptProcessingProgress":
            return [*self._progress(packet)]
        if kind == "fragment":
            if self._ttft_s is None:
                self._ttft_s = elapsed_s
            return [*self._kept(self._fragment(as_object(packet.get("fragment"))))]
        if kind == "success":
            last = self._kept(self._splitter.finish())
            self.reply = self._finished(as_object(packet.get("stats")), elapsed_s)
            return [*last]
        return []

    def _kept(self, chunks: list[ReplyChunk]) -> list[ReplyChunk]:
        self._pieces += chunks
        return chunks

    def _fragment(self, fragment: Json) -> list[ReplyChunk]:
        content, kind = fragment.get("content"), fragment.get("reasoningType")
        # Without its piece the reply would be another one, and might be judged as wrong.
        if not isinstance(content, str) or not isinstance(kind, str | None):
            raise _malformed("a piece of the reply that cannot be read")
        if kind in (None, "none"):
            return self._splitter.feed(content)
        # The server marks reasoning itself; everything else is the answer.
        chunks = self._splitter.finish()
        self._splitter = _plain_splitter()
        if kind not in _TAGS and content:
            chunks.append(ReplyChunk(text=content, is_reasoning=True))
        return chunks

    def _progress(self, packet: Json) -> list[PrefillProgress]:
        """Counts from the packet's details; older servers tell the fraction alone."""
        details = as_object(packet.get("details"))
        total = as_count(details.get("totalPromptTokenCount"))
        left = as_count(details.get("unprocessedPromptTokenCount"))
        cached = as_count(details.get("cachedTokenCount"))
        prompt = total if self._prompt_tokens is None else self._prompt_tokens
        if prompt is None:
            return []
        if cached is not None:
            self._cached = min(cached, prompt)
        known = self._cached or 0
        if total is not None and left is not None:
            processed = total - left
        else:
            processed = int(min(as_seconds(packet.get("progress")) or 0.0, 1.0) * prompt)
        self._processed = max(self._processed, known, min(processed, prompt))
        return [
            PrefillProgress(
                prompt_tokens=prompt, cached_tokens=known, processed_tokens=self._processed
            )
        ]

    def _finished(self, stats: Json, elapsed_s: float) -> Reply:
        read = as_count(stats.get("promptTokensCount"))
        generated = min(as_count(stats.get("predictedTokensCount")) or 0, self._context)
        reason = stats.get("stopReason")
        self._check_reason(reason, stats.get("promptTokensCount"), read, generated)
        read = self._checked(read)
        ttft = as_seconds(stats.get("timeToFirstTokenSec"))
        rate = as_seconds(stats.get("tokensPerSecond"))
        return Reply(
            text=self._joined(lambda piece: not piece.is_reasoning),
            reasoning=self._joined(lambda piece: piece.is_reasoning),
            stop_reason=_stop_reason(reason),
            prompt_tokens=read,
            cached_tokens=None if self._cached is None else min(self._cached, read),
            generated_tokens=generated,
            ttft_s=self._ttft_s if ttft is None or ttft > elapsed_s else ttft,
            tokens_per_second=None if rate is None or rate > MAX_RATE else rate,
        )

    def _joined(self, wanted: Callable[[ReplyChunk], bool]) -> str:
        return "".join(piece.text for piece in self._pieces if wanted(piece))

    def _check_reason(self, reason: object, told: object, read: int | None, generated: int) -> None:
        """Raises what `reason` means; `read` is the count that was `told`, if it is one."""
        if reason == "modelUnloaded":
            raise EngineUnavailable(
                "the model was unloaded while it worked", hint=failures.START_HINT
            )
        if reason == "failed":
            raise PredictionError("LM Studio says that the prediction failed")
        if reason != "contextLengthReached":
            return
        if told is not None and (not read or read > self._context):
            # The prompt was counted and fits. A server whose count is nonsense is not believed.
            raise EngineUnavailable("LM Studio does not tell how many prompt tokens it read")
        asked = self._prompt_tokens if read is None else read
        over = asked is not None and asked + self._max_tokens > self._context
        if over or not (generated or self._pieces):
            raise ContextOverflow(
                f"the engine reached the end of its context of {self._context} tokens with a "
                f"prompt of {'?' if asked is None else asked} and a reply of {generated}",
                prompt_tokens=asked,
                context_length=self._context,
            )

    def _checked(self, read: int | None) -> int:
        """The prompt's length as the server counts it, which must be what was sent."""
        if not read or read > self._context:
            raise EngineUnavailable("LM Studio does not tell how many prompt tokens it read")
        sent = self._prompt_tokens
        if sent is not None and read < sent:
            raise PromptTruncated(
                f"the engine read {read} prompt tokens of {sent} that were sent: it shortened "
                "the prompt",
                read_tokens=read,
                sent_tokens=sent,
                context_length=self._context,
            )
        self.surplus = 0 if sent is None else read - sent
        return read


def _stop_reason(told: object) -> StopReason:
    known = _STOP_REASONS.get(told) if isinstance(told, str) else None
    return known or StopReason.UNKNOWN


def _malformed(what: str) -> EngineUnavailable:
    return EngineUnavailable(f"LM Studio sent {what}", hint=failures.START_HINT)


def _plain_splitter() -> ThoughtSplitter:
    """One that takes everything as the answer."""
    splitter = ThoughtSplitter()
    splitter.feed("</")
    splitter.finish()
    return splitter
