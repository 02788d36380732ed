"""Any server with OpenAI's chat API as an adapter: vLLM, SGLang, mlx_lm, TabbyAPI, a provider."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import partial
from urllib.parse import urlsplit

from lmstrix.adapters.counted import CountedModel
from lmstrix.adapters.http import (
    BUSY_S,
    KEY_VARIABLE,
    Server,
    ServerAdapter,
    at_work,
    is_loopback,
    server_address,
)
from lmstrix.adapters.streaming import (
    BEGIN,
    Generation,
    Items,
    chat_messages,
    replied,
    room_to_repeat,
)
from lmstrix.errors import (
    ConfigurationError,
    ConnectionLost,
    ContextOverflow,
    EngineCrashed,
    EngineUnavailable,
    ModelNotFound,
    PredictionError,
)
from lmstrix.json_values import Json, as_context, as_count, as_list, as_object, as_text
from lmstrix.models import (
    LoadedInstance,
    LoadProgress,
    ModelInfo,
    PrefillProgress,
    Prompt,
    Reply,
    ReplyChunk,
    StopReason,
)

DEFAULT_ADDRESS = "http://127.0.0.1:8000"
START_HINT = (
    "Start the server, or name another one with --host HOST:PORT or --host https://HOST/v1. If it"
    f" wants an API key, put it into the variable {KEY_VARIABLE}."
)
LENGTHS = ("max_model_len", "context_length", "max_context_length", "context_window")
"""Where servers put the length that they declare; llama-server has it in ``meta``."""

_CONTINUE: Mapping[str, object] = {
    "add_generation_prompt": False,
    "continue_final_message": True,
    "chat_template_kwargs": {"enable_thinking": False},
    "repetition_penalty": 1.0,
}
"""What vLLM, SGLang and llama-server want in order to go on with an answer. vLLM would take the
penalty from the model's own settings, and punish repeating a fact of the prompt."""
FORMS = (
    "continued",
    "last message",
    "asked for",
    "asked for, without a temperature and stop strings",
    "asked for, without asking for counts",
)
"""How the first words of an answer are given: the first form that the server accepts."""

HIDDEN = "(not shown)"
"""The reasoning of a model that only counts it."""
ASKED_FOR = 2
"""From this form on the model writes the first words itself."""
FASTEST = 5_000.0
"""Tokens per second that no server generates for one reply: faster ones were held back on the way,
and came at once.
"""

_STOP_REASONS = {
    "stop": StopReason.END,
    "length": StopReason.MAX_TOKENS,
    "content_filter": StopReason.CANCELLED,
}
_BROKEN_OFF = {"abort", "cancelled", "error"}
"""Reasons by which a server says that it did not end the reply: its cache was full, for example."""


class OpenAIAdapter(ServerAdapter):
    """A `lmstrix.ports.Adapter` over ``/v1/chat/completions``. Runs on asyncio and on trio.

    Nothing is loaded or unloaded. The first words of an answer are sent as a last message of the
    assistant; a server that refuses this is asked to begin with them. Sizes come from ``usage``.

    Args:
        host: ``HOST:PORT`` or a URL such as ``https://HOST/v1``; by default ``LMSTRIX_HOST``, else
            port 8000 of this machine.
        declared: the context that the model declares, in tokens, if the server does not say.
        accept_cost: measure on a server that is not this machine, which may cost money.
        stall_timeout_s: longest silence of a working server, in seconds; more for long prompts.
        busy_s: how long to wait for a server that says that it is busy, in seconds.
    """

    name = "openai"
    engine = "OpenAI-compatible server"

    def __init__(
        self,
        host: str | None = None,
        *,
        declared: int | None = None,
        accept_cost: bool = False,
        stall_timeout_s: float = 120.0,
        busy_s: float = BUSY_S,
    ) -> None:
        if declared is not None and declared < 1:
            raise ConfigurationError(f"declared must be at least 1, got {declared}")
        address = server_address(host, DEFAULT_ADDRESS)
        if not urlsplit(address).path:
            address += "/v1"
        super().__init__(address)
        self.address = address
        self._server = Server(
            address, name="The server", hint=START_HINT, stall_s=stall_timeout_s, busy_s=busy_s
        )
        self._declared = declared
        self._accept_cost = accept_cost
        self._forms: dict[str, int] = {}
        """The last form that each model accepted."""
        self._repeating: set[str] = set()
        """The models whose replies begin with the first words that they were given."""
        self._settled: set[str] = set()
        """The models that accepted it with the first words of an answer."""

    async def list_models(self) -> Sequence[ModelInfo]:
        """Every model that the server lists, sorted by key; raises an `InfrastructureError`."""
        listed = as_list((await self._server.call("GET", "/models", busy_s=10)).get("data"))
        found: dict[str, ModelInfo] = {}
        for entry in map(as_object, listed):
            if key := as_text(entry.get("id")):
                found.setdefault(key, self._described(key, entry))
        return [found[key] for key in sorted(found)]

    def check_cost(self, context_length: int | None = None) -> None:
        """Raise `ConfigurationError` for another machine without `accept_cost`; sends nothing."""
        if self._accept_cost or is_loopback(self._address):
            return
        tokens = "twice as many tokens as the context has, and at most some 7 times as many"
        if context_length is not None:
            tokens = f"{2 * context_length:,} tokens"
        raise ConfigurationError(
            f"{self._address} is on another machine, so a measurement may cost money. With a prefix"
            f" cache it usually reads about {tokens}; without one, more",
            hint="Set a limit with --budget-tokens N, or accept any cost with --yes.",
        )

    @asynccontextmanager
    async def load(
        self,
        model: ModelInfo,
        context_length: int,
        *,
        on_progress: Callable[[LoadProgress], None] | None = None,
    ) -> AsyncGenerator[CountedModel, None]:
        """Loads nothing: the model, with the context that the server declares for it.

        Raises `ConfigurationError` for a server elsewhere without `accept_cost`, or what the two
        short requests raise with which the server's counts are learned.
        """
        if context_length < 1:
            raise ConfigurationError(f"context_length must be at least 1, got {context_length}")
        self.check_cost(context_length)
        context = model.declared_context or context_length
        loaded = CountedModel(model, context, partial(self._ask, model.key), note=self._note)
        async with self._listed_as_ours(model, context):
            try:
                try:
                    await at_work(loaded.learn, on_progress)
                except EngineCrashed as error:  # another size would be the same model
                    raise EngineUnavailable(f"at its first prompt, {error}") from error
                if on_progress is not None:
                    on_progress(LoadProgress(fraction=1.0))
                yield loaded
            finally:
                loaded.release()

    async def _state(self) -> tuple[str, Mapping[str, str], Sequence[LoadedInstance]]:
        await self._server.call("GET", "/models", busy_s=0)
        return self._address, {}, [*self._loaded.values()]

    def _described(self, key: str, entry: Json) -> ModelInfo:
        meta = as_object(entry.get("meta"))
        told = [*(entry.get(name) for name in LENGTHS), meta.get("n_ctx_train")]
        declared = next((length for value in told if (length := as_context(value))), None)
        # The server tells no more of a model than its name, and another one may have it too.
        digest = hashlib.sha256(f"{self._address} {key}".encode()).hexdigest()[:32]
        return ModelInfo(
            key=key,
            digest=digest,
            size_bytes=as_count(meta.get("size")) or 0,
            declared_context=self._declared or declared,
        )

    # Replies.

    async def _ask(self, key: str, prompt: Prompt, max_tokens: int, stop: Sequence[str]) -> Items:
        form, begun = self._forms.get(key, 0), False
        while True:
            repeats = form >= ASKED_FOR or key in self._repeating
            most = max_tokens + (room_to_repeat(prompt.answer_prefix) if repeats else 0)
            body = _chat(key, prompt, most, stop, form)
            events = self._server.events("/chat/completions", body)
            generation = _Generation(most, prompt.answer_prefix, stopped="stop" in body)
            try:
                async with aclosing(replied(events, generation)) as items:
                    async for item in items:
                        begun = True
                        yield item
            except (ContextOverflow, EngineCrashed):
                raise
            except (PredictionError, ModelNotFound):  # mlx_lm answers 404 to what it cannot read
                if begun or key in self._settled or form + 1 == len(FORMS):
                    raise
                form += 1
            else:
                self._forms[key] = form
                if prompt.answer_prefix:
                    self._settled.add(key)
                if generation.repeats:
                    self._repeating.add(key)
                return


class _Generation(Generation):
    """One reply as it arrives in server-sent events; it ends with them."""

    def __init__(self, max_tokens: int, prefix: str, *, stopped: bool) -> None:
        super().__init__(prompt_tokens=None, max_tokens=max_tokens, in_thought=False)
        self._echo = _Echo(prefix)
        self._stopped = stopped
        self._usage: Json = {}
        self._reason, self._last_s = "", 0.0

    @property
    def repeats(self) -> bool:
        """Whether the reply began with the first words of the answer."""
        return self._echo.found

    def _facts(self, event: Json, elapsed_s: float) -> list[PrefillProgress | ReplyChunk]:
        self._usage = as_object(event.get("usage")) or self._usage
        choice = as_object(next(iter(as_list(event.get("choices"))), None))
        self._reason = as_text(choice.get("finish_reason")) or self._reason
        if event.get("done") is True:  # some servers say no more than that
            self._reason = self._reason or "done"
        # A server that cannot stream sends the whole message.
        delta = as_object(choice.get("delta") or choice.get("message"))
        content = delta.get("content")
        pieces = self._thought(delta.get("reasoning_content") or delta.get("reasoning"), elapsed_s)
        text = self._echo.removed(content if isinstance(content, str) else "")
        pieces += self._answer(text, elapsed_s)
        if pieces:
            self._last_s = elapsed_s
        return self._said(pieces)

    def end(self) -> list[ReplyChunk]:
        """What was held back; the reply is whole if the server said why it ended."""
        if not self._reason:
            return []
        if self._reason in _BROKEN_OFF:
            raise ConnectionLost(f"the server broke the reply off ({self._reason})")
        written = len(self._pieces)
        rest = [*self._splitter.feed(self._echo.rest), *self._splitter.finish()]
        self._said(rest)
        count = as_count(self._usage.get("completion_tokens"))
        generated = written if count is None else count
        spent_s = self._last_s - (self._ttft_s or 0.0)
        why = _STOP_REASONS.get(self._reason, StopReason.UNKNOWN)
        if why is StopReason.END and self._stopped:  # servers give both the same reason
            why = StopReason.STOP_STRING
        details = as_object(self._usage.get("prompt_tokens_details"))
        reasoning = self._text(reasoning=True)
        spent = as_object(self._usage.get("completion_tokens_details")).get("reasoning_tokens")
        # They are counted, but the time that they took is not between the first piece and the last.
        hides = not reasoning and bool(as_count(spent))
        if hides and not written:
            reasoning = HIDDEN
        speed = (generated - 1) / spent_s if generated > 1 and spent_s > 0 and not hides else None
        self.reply = Reply(
            text=self._text(reasoning=False),
            reasoning=reasoning,
            stop_reason=why,
            prompt_tokens=as_count(self._usage.get("prompt_tokens")) or 0,
            cached_tokens=as_count(details.get("cached_tokens")),
            generated_tokens=generated,
            ttft_s=self._ttft_s,
            tokens_per_second=speed if speed and speed <= FASTEST else None,
        )
        return rest


class _Echo:
    """Removes the first words of an answer from a reply that repeats them, as llama-server does."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix.strip()
        self.rest = ""
        """What may still become a repetition."""
        self.found = False

    def removed(self, text: str) -> str:
        """What is certain of the reply now."""
        if not self._prefix:
            return text
        self.rest += text
        begun = self.rest.lstrip()
        if begun.startswith(self._prefix):
            text, self.found = begun[len(self._prefix) :], True
        elif self._prefix.startswith(begun):
            return ""
        else:
            text = self.rest
        self._prefix, self.rest = "", ""
        return text


def _chat(
    key: str, prompt: Prompt, max_tokens: int, stop: Sequence[str], form: int
) -> dict[str, object]:
    user, prefix = prompt.user, prompt.answer_prefix
    if form >= ASKED_FOR and prefix:
        user, prefix = user + BEGIN + prefix, ""
    body: dict[str, object] = {
        "model": key,
        "messages": chat_messages(prompt.system, user, prefix),
        "stream": True,
    }
    if form < 4:
        body["stream_options"] = {"include_usage": True}
    if form != 3:
        body |= {"max_tokens": max_tokens, "temperature": 0}
    else:
        body["max_completion_tokens"] = max_tokens
    if stop and form != 3:
        body["stop"] = list(stop)
    if form == 0 and prefix:
        body |= _CONTINUE
    return body
