"""What the stand-in servers share: models, prompts, and the command that runs one."""

from __future__ import annotations

import argparse
import errno
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import anyio
import attrs

from lmstrix.adapters.streaming import BEGIN
from lmstrix.errors import EngineCrashed, EngineUnavailable, LMStrixError
from lmstrix.json_values import Json, as_list, as_object
from lmstrix.models import ModelInfo, Prompt
from lmstrix.ports import Adapter, LoadedModel
from lmstrix.testing.http_server import HttpServer, LoopbackServer
from lmstrix.testing.simulated import SimulatedAdapter, SimulatedModel


@attrs.frozen(kw_only=True)
class ServerScript:
    """How any of these servers misbehaves; by default it does not. Lengths are tokens."""

    window: int | None = None
    """A longer prompt is cut to half of this and answered, whatever the server says of its context.
    """
    counts_cached: bool = True
    """Whether the tokens read include those that were in the cache, as in some versions not."""
    busy: int = 0
    """How many requests for a reply are answered with 429 before one is served."""
    prefill_s: float = 0.0
    """How long reading a prompt takes."""
    endless: bool = False
    """Replies never end."""
    crashes_above: int | None = None
    """The engine dies of longer prompts."""
    repeats_key: bool = False
    """Refuses every reply, and repeats the authorization header in the error."""


class ModelServer(HttpServer):
    """An `HttpServer` in front of the models of `adapter`: of those named, or of all."""

    def __init__(self, adapter: Adapter, *, port: int = 0, models: Sequence[str] = ()) -> None:
        super().__init__(port)
        self.working: int = 0
        """Replies in the making."""
        self.prompt_tokens: list[int] = []
        """The whole prompt of each reply, before it was cut."""
        self._adapter = adapter
        self._models = models

    async def served(self) -> dict[str, ModelInfo]:
        """The models by their keys, which are names and never paths."""
        if not self._models:
            return {model.key: model for model in await self._adapter.list_models()}
        found = [await self._adapter.find_model(name) for name in self._models]
        named = [attrs.evolve(m, key=Path(m.key).stem) if "/" in m.key else m for m in found]
        return {model.key: model for model in named}

    async def model_keys(self) -> list[str]:
        """The keys under which clients find its models."""
        return list(await self.served())

    async def read(
        self, loaded: LoadedModel, prompt: Prompt, script: ServerScript
    ) -> tuple[Prompt, int]:
        """What is read of a prompt, and its tokens. Raises `EngineCrashed`."""
        count = await loaded.count_prompt_tokens(prompt)
        self.prompt_tokens.append(count)
        if script.crashes_above is not None and count > script.crashes_above:
            raise EngineCrashed("killed")
        if script.window is None or count < script.window:
            return prompt, count
        cut = await cut_prompt(loaded, prompt, script.window // 2 + 2)
        return cut, await loaded.count_prompt_tokens(cut)


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


async def cut_prompt(
    loaded: LoadedModel, prompt: Prompt, budget: int, *, middle: bool = False
) -> Prompt:
    """`prompt` without so much of its user text that it fits `budget` tokens: without the
    beginning, or without the middle.
    """
    text, cut, keep = prompt.user, prompt, len(prompt.user)
    count = await loaded.count_prompt_tokens(prompt)
    while count > budget and keep:
        keep = int(keep * min(0.98, budget / count)) if keep > 16 else 0
        head = keep // 2 if middle else 0
        cut = attrs.evolve(prompt, user=text[:head] + text[len(text) - keep + head :])
        count = await loaded.count_prompt_tokens(cut)
    return cut


def command(make: Callable[..., LoopbackServer], module: str, name: str, port: int) -> int:
    """Serve a GGUF file, or a simulated model, until the process is asked to end.

    Returns the exit code.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m lmstrix.testing.{module}",
        description=f"Serve a model on the loopback as {name} would, until Ctrl-C.",
    )
    parser.add_argument(
        "--gguf", help="the model to serve, with the embedded engine; else a simulated one"
    )
    parser.add_argument("--port", type=int, default=port, help="0 takes a free one")
    given = parser.parse_args()
    try:
        anyio.run(_serve, make, name, given.gguf, given.port)
    except KeyboardInterrupt:
        return 0
    except LMStrixError as error:
        trouble = f"{error} {error.hint}".strip()
    except (OSError, OverflowError) as error:
        trouble = str(error)
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            trouble = (
                f"Port {given.port} is taken, perhaps by {name} itself. Choose another with --port."
            )
    else:
        return 0
    sys.stderr.write(f"Error: {trouble}\n")
    return 1


async def _serve(
    make: Callable[..., LoopbackServer], name: str, gguf: str | None, port: int
) -> None:
    adapter: Adapter = SimulatedAdapter(SimulatedModel())
    models: list[str] = []
    if gguf is not None:
        from lmstrix.adapters.llamacpp import LlamaCppAdapter  # noqa: PLC0415 - this command's alone

        adapter, models = LlamaCppAdapter([]), [gguf]
        status = await adapter.status()
        if not status.available:
            raise EngineUnavailable(status.detail, hint=status.hint)
        await adapter.find_model(gguf)
    with ExitStack() as watching:
        end: Callable[[], Awaitable[object]] = anyio.sleep_forever
        # Before anything is printed: who reads it may end us at once. On Windows asyncio cannot do
        # so; there Ctrl-C comes as KeyboardInterrupt.
        with suppress(NotImplementedError):
            receiver = anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM)
            end = watching.enter_context(receiver).__anext__
        async with make(adapter, port=port, models=models) as server:
            keys = "".join(f"model {key}\n" for key in await server.model_keys())
            sys.stdout.write(f"{name} stand-in at {server.host}\n{keys}")
            sys.stdout.flush()
            await end()
