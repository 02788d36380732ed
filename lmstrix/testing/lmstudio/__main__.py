"""``python -m lmstrix.testing.lmstudio``: a stand-in LM Studio for one GGUF file."""

from __future__ import annotations

import errno
import signal
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path

import anyio
import click

from lmstrix.adapters.llamacpp import LlamaCppAdapter
from lmstrix.errors import LMStrixError
from lmstrix.ports import Adapter
from lmstrix.testing.lmstudio import LMStudioServer
from lmstrix.testing.simulated import SimulatedAdapter, SimulatedModel

DEFAULT_PORT = 41343
"""The first port at which SDKs look for LM Studio."""


@click.command()
@click.option(
    "--gguf",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The model to serve, with the embedded engine. Without it, a simulated one.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=DEFAULT_PORT,
    show_default=True,
    help="0 takes a free one.",
)
def main(gguf: Path | None, port: int) -> None:
    """Serve a model on the loopback as LM Studio would, until Ctrl-C."""
    try:
        anyio.run(serve, gguf, port)
    except KeyboardInterrupt:
        pass
    except LMStrixError as error:
        raise click.ClickException(f"{error} {error.hint}".strip()) from error
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise click.ClickException(
            f"Port {port} is taken, perhaps by LM Studio itself. Choose another with --port."
        ) from error


async def serve(gguf: Path | None, port: int) -> None:
    """Serve until the process is asked to end; then release all instances."""
    adapter: Adapter = SimulatedAdapter(SimulatedModel())
    models: tuple[str, ...] = ()
    if gguf is not None:
        adapter, models = LlamaCppAdapter([]), (str(gguf),)
        status = await adapter.status()
        if not status.available:
            raise click.ClickException(f"The embedded engine is missing. {status.hint}".strip())
        await adapter.find_model(models[0])
    server = LMStudioServer(adapter, port=port, models=models)
    with ExitStack() as watching:
        end = _end(watching)  # before anything is printed: who reads it may end us at once
        async with server:
            click.echo(f"LM Studio stand-in at {server.host}")
            for key in await server.model_keys():
                click.echo(f"model {key}")
            await end()


def _end(watching: ExitStack) -> Callable[[], Awaitable[object]]:
    """A function that waits until the process is asked to end."""
    try:
        signals = watching.enter_context(anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM))
    except NotImplementedError:  # asyncio on Windows; Ctrl-C comes as KeyboardInterrupt there
        return anyio.sleep_forever
    return lambda: anext(signals)


if __name__ == "__main__":
    main()
