"""A stand-in server with OpenAI's chat API for the models of an adapter, which may misbehave.

``python -m lmstrix.testing.openai [--gguf FILE] [--port N]`` serves one file with the embedded
engine, or a simulated model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import aclosing

import anyio
import anyio.abc
import attrs

from lmstrix.errors import ContextOverflow, EngineCrashed
from lmstrix.json_values import Json, as_count, as_list, as_object, as_text
from lmstrix.models import ModelInfo, Prompt, Reply, ReplyChunk, StopReason
from lmstrix.ports import Adapter, LoadedModel
from lmstrix.testing.http_server import Answer, Request, StandInError
from lmstrix.testing.serving import ModelServer, ServerScript, chat_prompt, command

DEFAULT_PORT = 8000
DEFAULT_REPLY = 512


@attrs.frozen(kw_only=True)
class OpenAIScript(ServerScript):
    """How the server misbehaves; by default it does not. Lengths are tokens."""

    serves: int | None = None
    """A longer prompt is refused with 400; None: what the model declares."""
    declares: bool = True
    """Whether the list of models says a length."""
    usage: bool = True
    """Whether replies say how many tokens were read and written."""
    usage_asked: bool = True
    """Whether a request may ask for that."""
    cached: bool = True
    """Whether they say how many of those were in the cache."""
    counts_as: int | None = None
    """Every prompt is said to have this many tokens."""
    failures: int = 0
    """How many of them are then answered with 500."""
    fails_above: int | None = None
    """Longer prompts are answered with `failure`, a status and words."""
    failure: tuple[int, str] = (500, "输入内容无法处理")
    filters: bool = False
    """Replies are empty: a filter ended them."""
    reasons: bool = True
    """Whether replies say why they ended."""
    prefill: bool = True
    """Whether a last message of the assistant is accepted."""
    echoes: bool = False
    """Replies begin with the first words that were given, as llama-server's do."""
    strict: bool = False
    """Fields that OpenAI does not know are refused."""


class OpenAIServer(ModelServer):
    """``/v1/models`` and ``/v1/chat/completions`` over the models of `adapter`.

    A model is loaded at its first request, with all the context that the script says.
    """

    def __init__(
        self,
        adapter: Adapter,
        *,
        script: OpenAIScript | None = None,
        port: int = 0,
        models: Sequence[str] = (),
    ) -> None:
        super().__init__(adapter, port=port, models=models)
        self.script = script or OpenAIScript()
        self._loaded: dict[str, LoadedModel] = {}
        self._loading = anyio.Lock()
        self._ended = anyio.Event()
        self._refused = 0

    async def close(self) -> None:
        """Unload everything."""
        self._ended.set()

    async def handle(self, request: Request, answer: Answer) -> None:
        """Answer one request."""
        match request.method, request.path:
            case "GET", "/v1/models":
                models = (await self.served()).values()
                await answer.whole({"object": "list", "data": [self._entry(m) for m in models]})
            case "POST", "/v1/chat/completions":
                await self._chat(request, answer)
            case _:
                raise StandInError(404, {"message": "Not Found", "type": "not_found_error"})

    def _entry(self, model: ModelInfo) -> Json:
        entry: Json = {"id": model.key, "object": "model", "owned_by": "lmstrix"}
        declared = model.declared_context
        return {**entry, "max_model_len": declared} if self.script.declares else entry

    async def _chat(self, request: Request, answer: Answer) -> None:
        body, script = request.body, self.script
        if script.repeats_key:
            raise StandInError(401, {"message": f"bad {request.headers.get('authorization')}"})
        if self._refused < script.busy + script.failures:
            self._refused += 1
            status = 429 if self._refused <= script.busy else 500
            raise StandInError(status, {"message": "try again"}, {"retry-after": "0"})
        last = as_object(as_list(body.get("messages"))[-1])
        known = script.strict and "continue_final_message" in body
        known |= not script.usage_asked and "stream_options" in body
        if known or (last.get("role") == "assistant" and not script.prefill):
            raise StandInError(400, {"message": "unsupported", "type": "invalid_request_error"})
        loaded = await self._model(as_text(body.get("model")))
        self.working += 1
        try:
            await self._reply(loaded, chat_prompt(body), body, answer)
        except EngineCrashed as error:
            raise anyio.BrokenResourceError from error
        finally:
            self.working -= 1

    async def _model(self, name: str) -> LoadedModel:
        models = await self.served()
        if name not in models:
            raise StandInError(404, {"message": f"The model `{name}` does not exist."})
        async with self._loading:
            if name not in self._loaded:
                self._loaded[name] = await self.tasks.start(self._hold, models[name])
        return self._loaded[name]

    async def _hold(
        self, model: ModelInfo, *, task_status: anyio.abc.TaskStatus[LoadedModel]
    ) -> None:
        context = self.script.serves or model.declared_context or 4096
        async with self._adapter.load(model, context) as loaded:
            task_status.started(loaded)
            await self._ended.wait()

    async def _reply(self, loaded: LoadedModel, prompt: Prompt, body: Json, answer: Answer) -> None:
        script, context = self.script, loaded.effective_context
        given = body.get("max_tokens") or body.get("max_completion_tokens")
        asked = as_count(given) or DEFAULT_REPLY
        prompt, count = await self.read(loaded, prompt, script)
        if script.fails_above is not None and count > script.fails_above:
            status, words = script.failure
            raise StandInError(status, {"message": words})
        if count + asked > context:
            raise _overflow(context, count + asked)
        await anyio.sleep(script.prefill_s)
        stop = [text for text in as_list(body.get("stop")) if isinstance(text, str)]
        stream = loaded.stream(prompt, max_tokens=asked, stop=stop)
        try:
            async with aclosing(stream) as items:
                if script.echoes:
                    for word in re.findall(r"\s*\S+", prompt.answer_prefix):
                        await self._send(answer, ReplyChunk(text=word))
                async for item in items:
                    await self._send(answer, item)
        except ContextOverflow as error:
            raise _overflow(context, count + asked) from error
        await answer.piece(b"data: [DONE]\n\n")
        await answer.end()

    async def _send(self, answer: Answer, item: ReplyChunk | Reply) -> None:
        if not answer.begun:
            await answer.begin("text/event-stream")
        if isinstance(item, ReplyChunk):
            if self.script.filters:
                return
            name = "reasoning_content" if item.is_reasoning else "content"
            await _event(answer, {"choices": [{"index": 0, "delta": {name: item.text}}]})
            return
        while self.script.endless:
            await _event(answer, {"choices": [{"index": 0, "delta": {"content": " and"}}]})
        if self.script.filters:
            await _event(answer, {"choices": [{"index": 0, "finish_reason": "content_filter"}]})
            return
        reason = "length" if item.stop_reason is StopReason.MAX_TOKENS else "stop"
        if self.script.reasons:
            await _event(answer, {"choices": [{"index": 0, "finish_reason": reason}]})
        if self.script.usage:
            left_out = 0 if self.script.counts_cached else item.cached_tokens or 0
            usage: dict[str, object] = {
                "prompt_tokens": self.script.counts_as or item.prompt_tokens - left_out,
                "completion_tokens": item.generated_tokens,
            }
            if self.script.cached:
                usage["prompt_tokens_details"] = {"cached_tokens": item.cached_tokens}
            await _event(answer, {"choices": [], "usage": usage})


def _overflow(context: int, wanted: int) -> StandInError:
    message = (
        f"This model's maximum context length is {context} tokens. However, you requested"
        f" {wanted} tokens."
    )
    return StandInError(400, {"message": message, "type": "BadRequestError", "code": 400})


async def _event(answer: Answer, event: Json) -> None:
    await answer.piece(b"data: " + json.dumps(event).encode() + b"\n\n")


if __name__ == "__main__":
    raise SystemExit(command(OpenAIServer, "openai", "OpenAI", DEFAULT_PORT))
