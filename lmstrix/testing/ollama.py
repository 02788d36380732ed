"""A stand-in Ollama for the models of an adapter, which may misbehave.

``python -m lmstrix.testing.ollama [--gguf FILE] [--port N]`` serves one file with the embedded
engine, or a simulated model.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import aclosing
from functools import partial

import anyio
import anyio.abc
import attrs

from lmstrix.adapters.token_counts import common_length
from lmstrix.errors import ContextOverflow, EngineCrashed, LMStrixError, ModelError, OutOfMemory
from lmstrix.json_values import Json, as_count, as_list, as_object, as_text
from lmstrix.models import ModelInfo, Prompt, Reply, ReplyChunk, StopReason
from lmstrix.ports import Adapter, LoadedModel
from lmstrix.testing.http_server import Answer, Request, StandInError
from lmstrix.testing.serving import ModelServer, ServerScript, chat_prompt, command, cut_prompt

DEFAULT_PORT = 11434
DEFAULT_CONTEXT = 4096
"""What Ollama loads if a request does not say."""
DEFAULT_REPLY = 512
UNLOAD_S = 20.0
REPEAT_LIMIT = 100
"""Equal tokens after which Ollama breaks a reply off."""


@attrs.frozen(kw_only=True)
class OllamaScript(ServerScript):
    """How the server misbehaves; by default it does not. Lengths are tokens."""

    ignores_flags: bool = False
    """`truncate` and `shift` are not known: a prompt that does not fit is cut to half the
    context."""
    clamps_to: int | None = None
    """More context is not given, as of a model that was trained with less."""
    clamp_told_after: int = 0
    """How many replies are given before `/api/ps` tells so."""
    counts: bool = True
    """Whether replies say how many tokens were read and written."""
    tells_cached: bool = False
    """Whether replies say how many tokens were in the cache, as versions since late 2026 do."""
    repeats_token: bool = False
    """Every reply is one token without an end, and broken off with an error, as since late 2026."""
    token_s: float = 3e-5
    """How long reading a token takes that is not in the cache: the one sign of reuse."""
    reuses: bool = True
    """Whether the beginning of the last prompt is in the cache."""
    load_s: float = 0.0


@attrs.define(kw_only=True, eq=False)
class _Instance:
    """A loaded model."""

    key: str
    loaded: LoadedModel
    asked: int
    """The `num_ctx` that it was loaded for; another one loads it again."""
    users_own: bool
    cached: str = ""
    """The text of the last prompt."""
    ended: anyio.Event = attrs.field(factory=anyio.Event)
    released: anyio.Event = attrs.field(factory=anyio.Event)


class OllamaServer(ModelServer):
    """Ollama's own API over the models of `adapter`.

    Args:
        adapter: has the models; loads and replies are its own.
        script: how the server misbehaves; may be replaced at any time.
        port: the port to listen on; 0 for a free one.
        preload: what the user has loaded, as (model, context length).
        models: names of the only models to serve; all that the adapter lists if none are named.
    """

    def __init__(
        self,
        adapter: Adapter,
        *,
        script: OllamaScript | None = None,
        port: int = 0,
        preload: Sequence[tuple[str, int]] = (),
        models: Sequence[str] = (),
    ) -> None:
        super().__init__(adapter, port=port, models=models)
        self.script = script or OllamaScript()
        self.loads = 0
        """Loads that clients caused."""
        self._preload = preload
        self._instances: dict[str, _Instance] = {}
        self._changing = anyio.Lock()
        self._busy = 0

    async def begin(self) -> None:
        """Load what the user has loaded."""
        for key, context in self._preload:
            await self._load(key, context, users_own=True)

    @property
    def loaded(self) -> dict[str, int]:
        """The context of each loaded model."""
        return {key: one.loaded.effective_context for key, one in self._instances.items()}

    @property
    def left_behind(self) -> list[str]:
        """Loaded models that the user did not load."""
        return [key for key, one in self._instances.items() if not one.users_own]

    async def close(self) -> None:
        """Unload everything."""
        for key in list(self._instances):
            await self._unload(key)

    async def handle(self, request: Request, answer: Answer) -> None:
        """Answer one request."""
        match request.method, request.path:
            case "GET", "/api/version":
                await answer.whole({"version": "0.0.0"})
            case "GET", "/api/tags":
                models = (await self.served()).values()
                await answer.whole({"models": [_listed(model) for model in models]})
            case "GET", "/api/ps":
                await answer.whole({"models": [self._running(o) for o in self._instances.values()]})
            case "POST", "/api/show":
                await answer.whole(_shown(await self._find(as_text(request.body.get("model")))))
            case "POST", "/api/generate":
                await self._generate(request, answer)
            case "POST", "/api/chat":
                await self._chat(request, answer)
            case _:
                raise StandInError(404, "404 page not found")

    # Instances.

    async def _find(self, name: str) -> ModelInfo:
        models = await self.served()
        model = models.get(name) or models.get(f"{name}:latest")
        if model is None:
            raise StandInError(404, f"model '{name}' not found")
        return model

    async def _load(self, name: str, context: int, *, users_own: bool = False) -> _Instance:
        """The loaded model; loaded again if it is for another context."""
        model = await self._find(name)
        async with self._changing:
            known = self._instances.get(model.key)
            if known is not None and known.asked == context:
                return known
            if known is not None:
                await self._unload(model.key)
            clamp = self.script.clamps_to or model.declared_context or context
            hold = partial(self._hold, users_own=users_own)
            self.loads += not users_own
            await anyio.sleep(self.script.load_s)
            try:
                instance: _Instance = await self.tasks.start(
                    hold, model, context, min(context, clamp)
                )
            except OutOfMemory as error:
                raise StandInError(500, f"llama runner: out of memory: {error}") from error
            except ModelError as error:
                raise StandInError(404, str(error)) from error
            except LMStrixError as error:
                raise StandInError(500, f"model requires more system memory: {error}") from error
            return instance

    async def _hold(
        self,
        model: ModelInfo,
        asked: int,
        given: int,
        *,
        users_own: bool,
        task_status: anyio.abc.TaskStatus[_Instance],
    ) -> None:
        async with self._adapter.load(model, given) as loaded:
            instance = _Instance(key=model.key, loaded=loaded, asked=asked, users_own=users_own)
            self._instances[model.key] = instance
            try:
                task_status.started(instance)
                await instance.ended.wait()
            finally:
                self._instances.pop(model.key, None)
        instance.released.set()

    async def _unload(self, key: str) -> None:
        if instance := self._instances.get(key):
            instance.ended.set()
            with anyio.move_on_after(UNLOAD_S):
                await instance.released.wait()

    def _running(self, instance: _Instance) -> Json:
        told = len(self.prompt_tokens) >= self.script.clamp_told_after
        return {
            "name": instance.key,
            "model": instance.key,
            "expires_at": "2318-01-01T00:00:00Z",
            "context_length": instance.loaded.effective_context if told else instance.asked,
        }

    # Replies.

    async def _generate(self, request: Request, answer: Answer) -> None:
        """Only without a prompt: that loads a model, or unloads it with ``keep_alive: 0``."""
        body = request.body
        if body.get("keep_alive") == 0:
            await self._unload((await self._find(as_text(body.get("model")))).key)
        else:
            options = as_object(body.get("options"))
            context = as_count(options.get("num_ctx")) or DEFAULT_CONTEXT
            await self._load(as_text(body.get("model")), context)
        await answer.whole({"model": body.get("model"), "response": "", "done": True})

    async def _chat(self, request: Request, answer: Answer) -> None:
        body, options = request.body, as_object(request.body.get("options"))
        if self.script.repeats_key:
            raise StandInError(401, f"bad key: {request.headers.get('authorization')}")
        if self._busy < self.script.busy:
            self._busy += 1
            raise StandInError(429, "server busy", {"retry-after": "0"})
        context = as_count(options.get("num_ctx")) or DEFAULT_CONTEXT
        instance = await self._load(as_text(body.get("model")), context)
        prompt = chat_prompt(body)
        self.working += 1
        try:
            await self._reply(instance, prompt, body, answer)
        except EngineCrashed as error:
            instance.ended.set()
            words = f"llama runner process has terminated: {error}"
            raise StandInError(500, words) from error
        finally:
            self.working -= 1

    async def _reply(self, instance: _Instance, prompt: Prompt, body: Json, answer: Answer) -> None:
        script, options = self.script, as_object(body.get("options"))
        loaded, context = instance.loaded, instance.loaded.effective_context
        asked = as_count(options.get("num_predict")) or DEFAULT_REPLY
        prompt, count = await self.read(loaded, prompt, script)
        if count >= context:
            if body.get("truncate") is False and not script.ignores_flags:
                raise StandInError(400, "the input length exceeds the context length")
            prompt = await cut_prompt(loaded, prompt, context // 2 + 2)
            count = await loaded.count_prompt_tokens(prompt)
        known = common_length(instance.cached, prompt.user) if script.reuses else 0
        instance.cached = prompt.user
        new = count * (1 - known / max(1, len(prompt.user)))
        await anyio.sleep(script.prefill_s + script.token_s * new)
        room = max(1, min(asked, context - count))
        stop = [text for text in as_list(options.get("stop")) if isinstance(text, str)]
        stream = loaded.stream(prompt, max_tokens=room, stop=stop)
        try:
            async with aclosing(stream) as items:
                async for item in items:
                    if not answer.begun:
                        await answer.begin("application/x-ndjson")
                    if script.repeats_token:
                        for _ in range(REPEAT_LIMIT):
                            await self._line(answer, {"content": " and"}, done=False)
                        said = {"error": "prediction aborted, token repeat limit reached"}
                        await answer.piece(json.dumps(said).encode() + b"\n")
                        break
                    if isinstance(item, ReplyChunk):
                        name = "thinking" if item.is_reasoning else "content"
                        await self._line(answer, {name: item.text}, done=False)
                        continue
                    while script.endless:
                        await self._line(answer, {"content": " and"}, done=False)
                    await self._line(answer, {"content": ""}, done=True, **self._told(item))
        except ContextOverflow as error:  # the reply alone does not fit, or the engine counts more
            raise StandInError(400, "the input length exceeds the context length") from error
        await answer.end()

    def _told(self, reply: Reply) -> dict[str, object]:
        ends = reply.stop_reason is StopReason.MAX_TOKENS
        told: dict[str, object] = {"done_reason": "length" if ends else "stop"}
        if self.script.counts:
            left_out = 0 if self.script.counts_cached else reply.cached_tokens or 0
            told["prompt_eval_count"] = reply.prompt_tokens - left_out
            told["eval_count"] = reply.generated_tokens
            if self.script.tells_cached:
                told["prompt_eval_cached_count"] = reply.cached_tokens or 0
            if reply.tokens_per_second:
                seconds = reply.generated_tokens / reply.tokens_per_second
                told["eval_duration"] = round(1e9 * seconds)
        return told

    async def _line(self, answer: Answer, message: Json, *, done: bool, **told: object) -> None:
        line = {"message": {"role": "assistant", "content": "", **message}, "done": done, **told}
        await answer.piece(json.dumps(line).encode() + b"\n")


def _listed(model: ModelInfo) -> Json:
    return {
        "name": model.key,
        "model": model.key,
        "size": model.size_bytes,
        "digest": model.digest,
        "details": {
            "format": "gguf",
            "family": model.architecture,
            "parameter_size": model.parameters,
            "quantization_level": model.quantization,
        },
    }


def _shown(model: ModelInfo) -> Json:
    architecture = model.architecture or "llama"
    return {
        "details": {"format": "gguf", "family": architecture},
        "model_info": {
            "general.architecture": architecture,
            f"{architecture}.context_length": model.declared_context,
        },
        "capabilities": ["completion"],
    }


if __name__ == "__main__":
    raise SystemExit(command(OllamaServer, "ollama", "Ollama", DEFAULT_PORT))
