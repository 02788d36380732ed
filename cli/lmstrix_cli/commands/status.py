"""``lmstrix status``: is everything in place?"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import attrs
import click

from lmstrix.converter import to_json
from lmstrix.models import LoadedInstance, ModelInfo, Status
from lmstrix_cli import safe_text, session
from lmstrix_cli.exit_codes import ExitCode
from lmstrix_cli.running import run_async
from lmstrix_cli.settings import Settings, pass_settings

__all__ = ["command"]

EPILOG = """\b
Examples:
  lmstrix status
  lmstrix status --json
"""


@attrs.frozen(kw_only=True)
class _Overview:
    status: Status
    store: str
    unfinished: Sequence[ModelInfo]


@click.command(name="status", epilog=EPILOG)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_context
@pass_settings
def command(settings: Settings, ctx: click.Context, *, as_json: bool) -> None:
    """Show the engine, the store, what is loaded, and which measurements were interrupted.

    Ends with exit code 3 where the engine is not there or does not answer.
    """
    overview = run_async(lambda: _overview(settings))
    if as_json:
        safe_text.json_line(_as_json(overview))
    else:
        safe_text.out("\n".join(_lines(overview)))
    if not overview.status.available:
        ctx.exit(ExitCode.UNREACHABLE)


async def _overview(settings: Settings) -> _Overview:
    async with session.open_client(settings) as client:
        return _Overview(
            status=await client.status(),
            store=client.store.location,
            unfinished=await client.unfinished_models(),
        )


def _as_json(overview: _Overview) -> str:
    """The status with two more keys: `store` and `unfinished` (model keys)."""
    document = json.loads(to_json(overview.status))
    document["store"] = overview.store
    document["unfinished"] = [model.key for model in overview.unfinished]
    return json.dumps(document, ensure_ascii=False)


def _lines(overview: _Overview) -> Iterator[str]:
    status = overview.status
    yield f"adapter    {safe_text.label(status.adapter)}"
    yield f"engine     {safe_text.label(status.engine)}"
    for name, number in status.versions.items():
        yield f"version    {safe_text.label(f'{name} {number}')}"
    yield f"available  {'yes' if status.available else 'no'}"
    if status.detail:
        yield f"           {safe_text.label(status.detail)}"
    if status.hint and not status.available:
        yield f"next step  {safe_text.label(status.hint)}"
    for folder in status.model_folders:
        yield f"models in  {safe_text.label(folder)}"
    yield f"store      {safe_text.label(overview.store) or 'none, nothing is remembered'}"
    for instance in status.loaded:
        yield f"loaded     {_instance(instance)}"
    for model in overview.unfinished:
        yield f"interrupted  {safe_text.label(model.key)} (measure it again to go on)"


def _instance(instance: LoadedInstance) -> str:
    length = instance.context_length
    context = "context unknown" if length is None else f"context {length}"
    owner = "by LMStrix" if instance.ours else "by somebody else, left alone"
    return f"{safe_text.label(instance.key)} ({context}, loaded {owner})"
