"""``lmstrix completion``: what makes a shell complete commands, options and model names."""

from __future__ import annotations

import sys

import click
from click.shell_completion import get_completion_class

from lmstrix_cli import safe_text

__all__ = ["command"]

EPILOG = """\b
Examples:
  eval "$(lmstrix completion bash)"            # this bash
  lmstrix completion bash >> ~/.bashrc         # every bash
  lmstrix completion zsh > ~/.zfunc/_lmstrix   # a folder of $fpath
  lmstrix completion fish > ~/.config/fish/completions/lmstrix.fish
"""

VARIABLE = "_LMSTRIX_COMPLETE"
"""What click asks for where the program is called ``lmstrix``."""
_INSTALL = {
    "bash": "lmstrix completion bash >> ~/.bashrc",
    "zsh": "mkdir -p ~/.zfunc; lmstrix completion zsh > ~/.zfunc/_lmstrix"
    "  # with fpath+=~/.zfunc before compinit in ~/.zshrc",
    "fish": "lmstrix completion fish > ~/.config/fish/completions/lmstrix.fish",
}


@click.command(name="completion", epilog=EPILOG)
@click.argument("shell", type=click.Choice(sorted(_INSTALL)))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print what makes your shell complete commands, options and model names.

    Models come from the store and from the folders of GGUF files: no server is asked.
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"there is no completion for {shell}.")
    click.echo(kind(ctx.find_root().command, {}, "lmstrix", VARIABLE).source())
    if sys.stdout.isatty():
        safe_text.note(f"To install it: {_INSTALL[shell]}")
