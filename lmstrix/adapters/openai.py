"""Any server with OpenAI's chat API as an adapter: vLLM, SGLang, mlx_lm, TabbyAPI, a provider."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from urllib.parse import urlsplit

from lmstrix.adapters.counted import CountedModel
from lmstrix.adapters.http import (
    BUSY_S,
    KEY_VARIABLE,
    ReplyBounds,
    Server,
    is_loopback,
    server_address,
)
from lmstrix.adapters.streaming import Items, ThoughtSplitter
from lmstrix.errors import (
    ConfigurationError,
    ContextOverflow,
    EngineCrashed,
    EngineUnavailable,
    LMStrixError,
    ModelNotFound,
    PredictionError,
)
from lmstrix.json_values import Json, as_context, as_count, as_list, as_object, as_text
from lmstrix.locks import THIS_MACHINE
from lmstrix.models import (
    LoadedInstance,
    LoadProgress,
    MemoryEstimate,
    ModelInfo,
    Prompt,
    Reply,
    ReplyChunk,
    Status,
    StopReason,
)
from lmstrix.names import find_key, suggestion

__all__ = ["DEFAULT_ADDRESS", "OpenAIAdapter"]

DEFAULT_ADDRESS = "http://127.0.0.1:8000"
START_HINT = (
    "Start the server, or name another one with --host HOST:PORT or --host https://HOST/v1. If it"
    f" wants an API key, put it into the variable {KEY_VARIABLE}."
)
LENGTHS = ("max_model_len", "context_length", "max_context_length", "context_window")
"""Where servers put the length that they declare; llama-server has it in ``meta``."""

BEGIN = "\nBegin your answer with: "
_CONTINUE: Mapping[str, object] = {
    "add_generation_prompt": False,
    "continue_final_message": True,
    "chat_template_kwargs": {"enable_thinking": False},
}
"""What vLLM, SGLang and llama-server want in order to go on with an answer."""
FORMS = ("continued", "last message", "asked for", "asked for, without a temperature")
"""How the first words of an answer are given: the first form that the server accepts."""

_STOP_REASONS = {"stop": StopReason.END, "length": StopReason.MAX_TOKENS}


class OpenAIAdapter:
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
        self._server = Server(
            address, name="The server", hint=START_HINT, stall_s=stall_timeout_s, busy_s=busy_s
        )
        self._declared = declared
        self._accept_cost = accept_cost
        self._form = 0
        self._form_is_known = False
        self._loaded: dict[str, LoadedInstance] = {}
        self._loads = 0
        self._notes: dict[str, None] = {}

    @property
    def name(self) -> str:
        """``openai``."""
        return "openai"

    @property
    def turn(self) -> str:
        """This machine if the server runs on it, else the server."""
        address = self._server.address
        return THIS_MACHINE if is_loopback(address) else f"server at {address.lower()}"

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was not as it should be, one sentence each."""
        return tuple(self._notes)

    async def list_models(self) -> Sequence[ModelInfo]:
        """Every model that the server lists, sorted by key; raises an `InfrastructureError`."""
        listed = as_list((await self._server.call("GET", "/models", busy_s=10)).get("data"))
        found: dict[str, ModelInfo] = {}
        for entry in map(as_object, listed):
            if key := as_text(entry.get("id")):
                found.setdefault(key, self._described(key, entry))
        return [found[key] for key in sorted(found)]

    async def find_model(self, name: str) -> ModelInfo:
        """The model that `name` means: a key, or the last part of one; raises `ModelNotFound`."""
        by_key = {model.key: model for model in await self.list_models()}
        key = find_key(name, by_key)
        if key is None:
            hint = f"`lmstrix scan` shows the keys of all {len(by_key)} models."
            raise ModelNotFound(
                f"the server has no model {name[:200]!r}", hint=suggestion(name, by_key) or hint
            )
        return by_key[key]

    def check_cost(self, context_length: int | None = None) -> None:
        """Raise `ConfigurationError` for another machine without `accept_cost`; sends nothing."""
        if self._accept_cost or is_loopback(self._server.address):
            return
        reads = "reads a context several times, about four times"
        if context_length is not None:
            reads = f"of {context_length} tokens reads about {4 * context_length} tokens"
        raise ConfigurationError(
            f"{self._server.address} is not this machine: a measurement {reads} with a prefix"
            " cache and more without one, and may cost money",
            hint="Set a limit with --budget-tokens N, or accept any cost with --yes.",
        )

    async def estimate_memory(self, model: ModelInfo, context_length: int) -> MemoryEstimate | None:
        """None: the server does not say."""
        del model, context_length
        return None

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
        loaded = CountedModel(model, context, self._ask(model.key), note=self._note)
        self._loads += 1
        identifier = f"{model.key} #{self._loads}"
        self._loaded[identifier] = LoadedInstance(
            key=model.key, identifier=identifier, context_length=context, ours=True
        )
        try:
            await loaded.learn()
            if on_progress is not None:
                on_progress(LoadProgress(fraction=1.0))
            yield loaded
        finally:
            loaded.release()
            del self._loaded[identifier]

    async def status(self) -> Status:
        """Whether the server answers, and which of its models are in use here."""
        try:
            await self._server.call("GET", "/models", busy_s=0)
        except LMStrixError as error:
            return Status(
                adapter=self.name,
                engine="OpenAI-compatible server",
                available=False,
                detail=str(error),
                hint=error.hint,
            )
        return Status(
            adapter=self.name,
            engine="OpenAI-compatible server",
            available=True,
            detail=" ".join([f"Server at {self._server.address}.", *self._notes]),
            loaded=tuple(self._loaded.values()),
        )

    def _described(self, key: str, entry: Json) -> ModelInfo:
        meta = as_object(entry.get("meta"))
        told = [*(entry.get(name) for name in LENGTHS), meta.get("n_ctx_train")]
        declared = next((length for value in told if (length := as_context(value))), None)
        return ModelInfo(
            key=key,
            size_bytes=as_count(meta.get("size")) or 0,
            declared_context=self._declared or declared,
        )

    # Replies.

    def _ask(self, key: str) -> Callable[[Prompt, int, Sequence[str]], Items]:
        async def ask(prompt: Prompt, max_tokens: int, stop: Sequence[str]) -> Items:
            while True:
                body = _chat(key, prompt, max_tokens, stop, self._form)
                begun = False
                try:
                    replied = self._replied(body, max_tokens, stop, prompt.answer_prefix)
                    async with aclosing(replied) as items:
                        async for item in items:
                            begun = True
                            yield item
                except (ContextOverflow, EngineCrashed):
                    raise
                except PredictionError:
                    if begun or self._form_is_known or self._form + 1 == len(FORMS):
                        raise
                    self._form += 1
                else:
                    self._form_is_known |= bool(prompt.answer_prefix)
                    return

        return ask

    async def _replied(
        self, body: Mapping[str, object], max_tokens: int, stop: Sequence[str], prefix: str
    ) -> AsyncGenerator[ReplyChunk | Reply, None]:
        bounds, splitter, echo = ReplyBounds(max_tokens), ThoughtSplitter(), _Echo(prefix)
        pieces: list[ReplyChunk] = []
        usage: Json = {}
        reason, first_s, last_s = "", None, 0.0
        async with aclosing(self._server.events("/chat/completions", body)) as events:
            async for event, elapsed_s in events:
                usage = as_object(event.get("usage")) or usage
                choice = as_object(next(iter(as_list(event.get("choices"))), None))
                delta = as_object(choice.get("delta"))
                thought = delta.get("reasoning_content") or delta.get("reasoning")
                text = delta.get("content")
                new: list[ReplyChunk] = []
                if isinstance(thought, str) and thought:
                    new.append(ReplyChunk(text=bounds.take(thought), is_reasoning=True))
                text = bounds.take(text if isinstance(text, str) else "")
                new += splitter.feed(echo.removed(text))
                reason = as_text(choice.get("finish_reason")) or reason
                if new:
                    first_s, last_s = first_s or elapsed_s, elapsed_s
                pieces += new
                for piece in new:
                    yield piece
        if not reason:
            raise EngineUnavailable("the server ended the reply too early")
        rest = [*splitter.feed(echo.rest), *splitter.finish()]
        for piece in rest:
            yield piece
        generated = as_count(usage.get("completion_tokens"))
        yield _reply(
            usage,
            [*pieces, *rest],
            reason,
            stopped=bool(stop),
            generated=len(pieces) if generated is None else generated,
            first_s=first_s,
            spent_s=last_s - (first_s or 0.0),
        )

    def _note(self, text: str) -> None:
        self._notes[text] = None


class _Echo:
    """Removes the first words of an answer from a reply that repeats them, as llama-server does."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix.strip()
        self.rest = ""
        """What may still become a repetition."""

    def removed(self, text: str) -> str:
        """What is certain of the reply now."""
        if not self._prefix:
            return text
        self.rest += text
        begun = self.rest.lstrip()
        if begun.startswith(self._prefix):
            text = begun[len(self._prefix) :]
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
    if form >= 2 and prefix:
        user, prefix = user + BEGIN + prefix, ""
    said = (("system", prompt.system), ("user", user), ("assistant", prefix))
    body: dict[str, object] = {
        "model": key,
        "messages": [
            {"role": role, "content": text} for role, text in said if text or role == "user"
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if form < 3:
        body |= {"max_tokens": max_tokens, "temperature": 0}
    else:
        body["max_completion_tokens"] = max_tokens
    if stop:
        body["stop"] = list(stop)
    if form == 0 and prefix:
        body |= _CONTINUE
    return body


def _reply(
    usage: Json,
    pieces: Sequence[ReplyChunk],
    reason: str,
    *,
    stopped: bool,
    generated: int,
    first_s: float | None,
    spent_s: float,
) -> Reply:
    why = _STOP_REASONS.get(reason, StopReason.UNKNOWN)
    if why is StopReason.END and stopped:  # servers give both the same reason
        why = StopReason.STOP_STRING
    details = as_object(usage.get("prompt_tokens_details"))
    return Reply(
        text="".join(piece.text for piece in pieces if not piece.is_reasoning),
        reasoning="".join(piece.text for piece in pieces if piece.is_reasoning),
        stop_reason=why,
        prompt_tokens=as_count(usage.get("prompt_tokens")) or 0,
        cached_tokens=as_count(details.get("cached_tokens")),
        generated_tokens=generated,
        ttft_s=first_s,
        tokens_per_second=(generated - 1) / spent_s if generated > 1 and spent_s > 0 else None,
    )
