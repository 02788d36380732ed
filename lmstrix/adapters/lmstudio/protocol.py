"""LM Studio's wire protocol: what it is sent, and what its errors and packets mean. Pure.

Keys are those of LM Studio's own configuration schema (`lms-kv-config` in lmstudio-js).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from lmstrix.adapters import streaming
from lmstrix.adapters.http import MEMORY_WORDS, OVERFLOW_WORDS, crashed
from lmstrix.adapters.lmstudio_home import CONTEXT_KEY
from lmstrix.adapters.streaming import ThoughtSplitter
from lmstrix.errors import (
    ContextOverflow,
    EngineUnavailable,
    LMStrixError,
    LoadFailed,
    LoadRefused,
    ModelNotFound,
    OutOfMemory,
    PredictionError,
)
from lmstrix.json_values import MAX_RATE, Json, as_count, as_object, as_seconds, as_text
from lmstrix.models import PrefillProgress, Reply, ReplyChunk, StopReason

# Requests ----------------------------------------------------------------------------------------

ONE_SESSION: Mapping[str, object] = {
    # By default four sessions share the cache, and the context is fitted to the memory. An engine
    # ignores the keys of the other one.
    "llm.load.numParallelSessions": 1,
    "llm.load.useUnifiedKvCache": True,
    "llm.load.llama.autoFit": False,
    "llm.load.mlx.autoFit": False,
}
"""Load settings besides the context length that the SDK's public API does not know. The cache
is unified, so that one prompt gets all of it, even if the server ignores the number."""

_PASS_THROUGH = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


def specifier(identifier: str) -> Json:
    """Names a loaded instance."""
    return {"type": "query", "query": {"identifier": identifier}}


def history(text: str, system: str = "") -> Json:
    """A chat of one user message, with a system message before it unless that is empty."""
    said = [("system", system)] * bool(system) + [("user", text)]
    return {
        "messages": [
            {"role": role, "content": [{"type": "text", "text": content}]} for role, content in said
        ]
    }


def load_stack(context_length: int) -> Json:
    """The configuration of a load."""
    return _stack({CONTEXT_KEY: context_length, **ONE_SESSION})


def load_request(key: str, identifier: str, context_length: int, ttl_s: int) -> Json:
    """Parameter of `loadModel`, which always makes a new instance."""
    return {
        "modelKey": key,
        "identifier": identifier,
        "ttlMs": ttl_s * 1000,
        "loadConfigStack": load_stack(context_length),
    }


def template_request(identifier: str, text: str, system: str) -> Json:
    """Parameter of `applyPromptTemplate` for one user message, and a system message before it."""
    return {
        "specifier": specifier(identifier),
        "history": history(text, system),
        "predictionConfigStack": {"layers": []},
        "opts": {},
    }


def predict_request(
    identifier: str, text: str, *, max_tokens: int, stop: Sequence[str], raw: bool, system: str = ""
) -> Json:
    """Parameter of a greedy `predict` that refuses to shorten its prompt.

    With `raw` the text is continued as it is: a template that passes it through replaces the
    model's own. The repeat penalty is off, as it would punish repeating what was asked for.
    """
    fields: dict[str, object] = {
        "llm.prediction.contextOverflowPolicy": "stopAtLimit",
        "llm.prediction.maxPredictedTokens": _checked(max_tokens),
        "llm.prediction.temperature": 0,
        "llm.prediction.topKSampling": 1,
        "llm.prediction.repeatPenalty": _checked(1.0),
        "llm.prediction.stopStrings": list(stop),
    }
    if raw:
        fields["llm.prediction.promptTemplate"] = {
            "type": "jinja",
            "stopStrings": [],
            "jinjaPromptTemplate": {
                "template": _PASS_THROUGH,
                "bosToken": "",
                "eosToken": "",
                "inputConfig": {
                    "messagesConfig": {"contentConfig": {"type": "string"}},
                    "useTools": False,
                },
            },
        }
    return {
        "modelSpecifier": specifier(identifier),
        "history": history(text, system),
        "predictionConfigStack": _stack(fields),
    }


def _checked(value: object) -> Json:
    return {"checked": True, "value": value}


def _stack(fields: Mapping[str, object]) -> Json:
    pairs = [{"key": key, "value": value} for key, value in fields.items()]
    return {"layers": [{"layerName": "apiOverride", "config": {"fields": pairs}}]}


# Errors ------------------------------------------------------------------------------------------
# LM Studio gives loads no error codes, so the words of its messages decide.

START_HINT = (
    "Start LM Studio and its server (lms server start), or name another one with --host HOST:PORT."
    " Without LM Studio: --adapter ollama, llama-server or openai, or llamacpp for GGUF files."
)

_WORDS = 500
_GUARDRAIL = re.compile(r"insufficient system resources|guardrail", re.IGNORECASE)
_CRASHED = re.compile(r"has crashed|exit code", re.IGNORECASE)
_NO_MODEL = re.compile(
    r"generic\.(?:noModelMatchingQuery|pathNotFound)|cannot find a model|model not found",
    re.IGNORECASE,
)
_GONE = re.compile(
    r"model (?:is |was )?unloaded|generic\.(?:identifierNotFound|specificModelUnloaded)"
    r"|no model found that fits|cannot find a loaded model|unexpectedly disconnected"
    r"|authentication|operation cancell?ed",
    re.IGNORECASE,
)


def _said(text: str) -> str:
    return " ".join(text.split())[:_WORDS] or "no reason given"


def _gone(words: str) -> LMStrixError:
    return EngineUnavailable(f"LM Studio: {words}", hint=START_HINT)


def load_error(text: str) -> LMStrixError:
    """Why a load gave no model. `text` is all that the server said of it."""
    words = _said(text)
    if _GUARDRAIL.search(text):
        return LoadRefused(
            f"LM Studio's guardrail refused the load: {words}",
            hint="The guardrail can be changed in LM Studio's settings.",
        )
    if MEMORY_WORDS.search(text):
        return OutOfMemory(f"the engine ran out of memory while loading: {words}")
    if _NO_MODEL.search(text):
        return ModelNotFound(f"LM Studio: {words}")
    if _GONE.search(text):
        return _gone(words)
    return LoadFailed(f"LM Studio could not load the model: {words}")


def prediction_error(text: str) -> LMStrixError:
    """Why a prediction gave no reply."""
    words = _said(text)
    if OVERFLOW_WORDS.search(text):
        return ContextOverflow(f"the prompt does not fit: {words}")
    if _GONE.search(text):
        return _gone(words)
    if _CRASHED.search(text) or MEMORY_WORDS.search(text):
        return crashed(words)
    return PredictionError(f"LM Studio gave no reply: {words}")


def call_error(text: str) -> LMStrixError:
    """Why a remote call failed."""
    words = _said(text)
    if _CRASHED.search(text):
        return crashed(words)
    if _NO_MODEL.search(text) and not _GONE.search(text):
        return ModelNotFound(f"LM Studio: {words}")
    wants_token = re.search("authenticat|api.?token|unauthorized", text, re.IGNORECASE)
    hint = (
        "Put LM Studio's API token into the variable LMSTUDIO_API_TOKEN; version 1.5 of its SDK"
        " takes none: pip install --upgrade --pre lmstudio."
    )
    return EngineUnavailable(f"LM Studio refused a call: {words}", hint=hint if wants_token else "")


MISCOUNTED = 1 / 200
"""By so large a part a server's tokenizer and its engine may count differently."""

# Replies -----------------------------------------------------------------------------------------

_STOP_REASONS = {
    "eosFound": StopReason.END,
    "toolCalls": StopReason.END,
    "stopStringFound": StopReason.STOP_STRING,
    "maxPredictedTokensReached": StopReason.MAX_TOKENS,
    "contextLengthReached": StopReason.CONTEXT_LENGTH,
    "userStopped": StopReason.CANCELLED,
}
_TAGS = ("reasoningStartTag", "reasoningEndTag")


class Generation(streaming.Generation):
    """One reply as it arrives in packets, from a model loaded at `context` tokens."""

    def __init__(
        self, *, prompt_tokens: int | None, max_tokens: int, context: int, in_thought: bool
    ) -> None:
        super().__init__(prompt_tokens=prompt_tokens, max_tokens=max_tokens, in_thought=in_thought)
        self._context = context
        self._cached: int | None = None
        self._processed = 0
        self.surplus = 0
        """Prompt tokens that the server read beyond those that were sent."""

    def _facts(self, event: Json, elapsed_s: float) -> list[PrefillProgress | ReplyChunk]:
        kind = event.get("type")
        if not isinstance(kind, str):
            raise _malformed("a message without a type")
        if kind == "promptProcessingProgress":
            return [*self._progress(event)]
        if kind == "fragment":
            return self._said(self._fragment(as_object(event.get("fragment")), elapsed_s))
        if kind == "success":
            last = self._said(self._splitter.finish())
            self.reply = self._finished(as_object(event.get("stats")), elapsed_s)
            return last
        return []

    def _fragment(self, fragment: Json, elapsed_s: float) -> list[ReplyChunk]:
        content, kind = fragment.get("content"), fragment.get("reasoningType")
        # Without its piece the reply would be another one, and might be judged as wrong.
        if not isinstance(content, str) or not isinstance(kind, str | None):
            raise _malformed("a piece of the reply that cannot be read")
        self._written(content, elapsed_s)
        if kind in (None, "none"):
            return self._splitter.feed(content)
        # The server marks reasoning itself; everything else is the answer.
        chunks = self._splitter.finish()
        self._splitter = ThoughtSplitter(plain=True)
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
        known = min(self._cached or 0, prompt)  # the total may differ from packet to packet
        if total is not None and left is not None:
            processed = total - left
        else:
            processed = int(min(as_seconds(packet.get("progress")) or 0.0, 1.0) * prompt)
        self._processed = min(prompt, max(self._processed, known, processed))
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
            text=self._text(reasoning=False),
            reasoning=self._text(reasoning=True),
            stop_reason=_STOP_REASONS.get(as_text(reason), StopReason.UNKNOWN),
            prompt_tokens=read,
            cached_tokens=None if self._cached is None else min(self._cached, read),
            generated_tokens=generated,
            ttft_s=ttft if ttft and ttft <= elapsed_s else self._ttft_s,
            tokens_per_second=None if rate is None or rate > MAX_RATE else rate,
        )

    def _check_reason(self, reason: object, told: object, read: int | None, generated: int) -> None:
        """Raises what `reason` means; `read` is the count that was `told`, if it is one."""
        if reason == "modelUnloaded":
            raise EngineUnavailable("the model was unloaded while it worked", hint=START_HINT)
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
                f"the engine reached the end of its context of {self._context:,} tokens with a "
                f"prompt of {'?' if asked is None else asked} and a reply of {generated}",
                prompt_tokens=asked,
                context_length=self._context,
            )

    def _checked(self, read: int | None) -> int:
        """The prompt's length as the server counts it, which must be what was sent."""
        if not read or read > self._context:
            raise EngineUnavailable("LM Studio does not tell how many prompt tokens it read")
        self._require_whole_prompt(read, self._context, spare=MISCOUNTED)
        sent = self._prompt_tokens
        self.surplus = 0 if sent is None else read - sent
        return read


def _malformed(what: str) -> EngineUnavailable:
    return EngineUnavailable(f"LM Studio sent {what}", hint=START_HINT)
