"""``lmstrix completion``: shell completion of commands, options and model names."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import anyio
import click
from click.shell_completion import CompletionItem, get_completion_class

from lmstrix import EMBEDDED_ADAPTER, LMStrixError, SqliteStore, StoreError, plugin_names
from lmstrix.adapters.llamacpp.catalogue import default_folders, files_in
from lmstrix_cli import output, session
from lmstrix_cli.prompts import read_templates, user_templates
from lmstrix_cli.settings import Settings


class Complete(Protocol):
    """What a parameter's `shell_complete` is replaced with."""

    def __call__(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """What may be typed from `incomplete` on."""
        ...


_PLAIN = re.compile(r"[\w./@:+,=%-]+")
MOST = 200
"""Names offered at once: more than a screen holds."""


def complete_models(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    """Keys in the store and of GGUF files; files by their path, which any adapter takes."""
    names = dict.fromkeys(
        name for name in _models(ctx) if name.startswith(incomplete) and _PLAIN.fullmatch(name)
    )
    items = [CompletionItem(name) for name in list(names)[:MOST]]
    if not items or incomplete[:1] in {"/", ".", "~"}:
        items.append(CompletionItem(incomplete, type="file"))
    return items


def _models(ctx: click.Context) -> Iterator[str]:
    settings = ctx.find_root().ensure_object(Settings)
    try:
        yield from anyio.run(_stored, _store(settings.store))
        files = files_in(default_folders())
    except (LMStrixError, OSError, RuntimeError, ValueError):
        return
    # LM Studio has names of its own; as a path a file needs no LM Studio.
    embedded = settings.adapter == EMBEDDED_ADAPTER
    yield from files if embedded else (str(path) for path in files.values())


def _store(value: str | None) -> str:
    """The store's file; empty if it is not a file. A whole client takes longer to make."""
    chosen = session.choose_store(value)
    if isinstance(chosen, Path):
        return str(chosen)
    return SqliteStore().location if chosen in {None, "sqlite"} else ""


async def _stored(location: str) -> list[str]:
    """Models with a result or an interrupted measurement. Nothing is created or changed."""
    store = SqliteStore(location or ":memory:", read_only=True)
    try:
        measured = [summary.model_key for summary in await store.summaries()]
        return measured + [model.key for model in await store.unfinished_models()]
    except StoreError:
        return []
    finally:
        await store.aclose()


def _plugins(group: str, *, several: bool = False) -> Complete:
    def complete(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        del ctx
        before, comma, last = incomplete.rpartition(",") if several else ("", "", incomplete)
        return [
            CompletionItem(f"{before}{comma}{name}")
            for name in plugin_names(group)
            if name.startswith(last)
        ]

    return complete


def complete_templates(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    """The user's own templates, or those of ``--template-file``."""
    path = ctx.params.get("template_file")
    try:
        there = user_templates() if path is None else read_templates(Path(path))
    except (LMStrixError, OSError):
        return []
    return [
        CompletionItem(name, help=one.description)
        for name, one in there.items()
        if name.startswith(incomplete)
    ]


_BY_NAME: dict[str, Complete] = {
    "adapter": _plugins("lmstrix.adapters"),
    "model": complete_models,
    "models": complete_models,
    "strategy": _plugins("lmstrix.strategies"),
    "validator": _plugins("lmstrix.validators"),
    "levels": _plugins("lmstrix.validators", several=True),
    "template": complete_templates,
}
"""By a parameter's name, the same in every command."""


def complete_parameters(command: click.Command) -> None:
    """Make the parameters of `command` complete what they are named for."""
    for parameter in command.params:
        complete = _BY_NAME.get(parameter.name or "")
        if complete is not None:
            parameter.shell_complete = complete


EPILOG = """\b
Examples:
  eval "$(lmstrix completion bash)"            # this bash
  lmstrix completion bash >> ~/.bashrc         # every bash
  lmstrix completion zsh > ~/.zfunc/_lmstrix   # a folder of $fpath
  lmstrix completion fish > ~/.config/fish/completions/lmstrix.fish
"""

VARIABLE = "_LMSTRIX_COMPLETE"
"""What click asks for if the program is called ``lmstrix``."""
_INSTALL = {
    "bash": "lmstrix completion bash >> ~/.bashrc",
    "fish": "lmstrix completion fish > ~/.config/fish/completions/lmstrix.fish",
    "zsh": "mkdir -p ~/.zfunc; lmstrix completion zsh > ~/.zfunc/_lmstrix"
    "  # with fpath+=~/.zfunc before compinit in ~/.zshrc",
}


@click.command(name="completion", epilog=EPILOG)
@click.argument("shell", type=click.Choice(_INSTALL))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print a script that completes commands, options and model names in your shell.

    Models come from the store and from the folders of GGUF files: no server is asked.
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"there is no completion for {shell}.")
    click.echo(kind(ctx.find_root().command, {}, "lmstrix", VARIABLE).source())
    if sys.stdout.isatty():
        output.note(f"To install it: {_INSTALL[shell]}")
