"""What the stand-ins for HTTP servers share: models, cut prompts, and their commands."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import anyio
import attrs

from lmstrix.adapters.llamacpp import LlamaCppAdapter
from lmstrix.adapters.streaming import BEGIN
from lmstrix.errors import EngineUnavailable, LMStrixError
from lmstrix.json_values import Json, as_list, as_object
from lmstrix.models import ModelInfo, Prompt
from lmstrix.ports import Adapter, LoadedModel
from lmstrix.testing.http_server import HttpServer
from lmstrix.testing.simulated import SimulatedAdapter, SimulatedModel

__all__ = ["chat_prompt", "cut_prompt", "serve_until_signalled", "served"]


async def served(adapter: Adapter, names: Sequence[str]) -> list[ModelInfo]:
    """The models of `adapter` with those names, or all; their keys are names, never paths."""
    if not names:
        return list(await adapter.list_models())
    found = [await adapter.find_model(name) for name in names]
    return [
        attrs.evolve(model, key=Path(model.key).stem) if "/" in model.key else model
        for model in found
    ]


def chat_prompt(body: Json) -> Prompt:
    """The prompt in a chat; a last message of the assistant is the beginning of its answer.

    So is what the user's message asks to begin with.
    """
    said: dict[str, str] = {}
    for message in map(as_object, as_list(body.get("messages"))):
        content = message.get("content")
        said[str(message.get("role"))] = content if isinstance(content, str) else ""
    user, prefix = said.get("user", ""), said.get("assistant", "")
    if BEGIN in user:
        user, _, prefix = user.rpartition(BEGIN)
    return Prompt(system=said.get("system", ""), user=user, answer_prefix=prefix)


async def cut_prompt(loaded: LoadedModel, prompt: Prompt, budget: int) -> Prompt:
    """`prompt` with so much of the beginning of its user text gone that it fits `budget` tokens."""
    text, cut = prompt.user, prompt
    count = await loaded.count_prompt_tokens(prompt)
    while count > budget and text:
        text = text[-int(len(text) * min(0.98, budget / count)) :] if len(text) > 16 else ""
        cut = attrs.evolve(prompt, user=text)
        count = await loaded.count_prompt_tokens(cut)
    return cut


def serve_until_signalled(
    make: Callable[..., HttpServer], name: str, gguf: str | None, port: int
) -> int:
    """Serve a GGUF file, or a simulated model, until Ctrl-C; returns the exit code."""
    try:
        anyio.run(_serve, make, name, gguf, port)
    except KeyboardInterrupt:
        return 0
    except (LMStrixError, OSError) as error:
        hint: Any = getattr(error, "hint", "")
        sys.stderr.write(f"{error} {hint}".strip() + "\n")
        return 1
    return 0


async def _serve(make: Callable[..., HttpServer], name: str, gguf: str | None, port: int) -> None:
    adapter: Adapter = SimulatedAdapter(SimulatedModel())
    models: list[str] = []
    if gguf is not None:
        adapter, models = LlamaCppAdapter([]), [gguf]
        status = await adapter.status()
        if not status.available:
            raise EngineUnavailable(status.detail, hint=status.hint)
        await adapter.find_model(gguf)
    async with make(adapter, port=port, models=models) as server:
        sys.stdout.write(f"{name} stand-in at {server.host}\n")
        sys.stdout.flush()
        await anyio.sleep_forever()
