"""What was said before the command's name, for every command."""

from __future__ import annotations

import shlex

import attrs
import click

__all__ = ["Settings", "pass_settings"]


@attrs.frozen(kw_only=True)
class Settings:
    """The options of ``lmstrix`` itself; None where neither option nor environment says."""

    adapter: str | None = None
    host: str | None = None
    store: str | None = None
    verbose: bool = False
    arguments: tuple[str, ...] = ()
    """The whole command line after ``lmstrix``, so that it can be shown again."""

    def command_again(self) -> str:
        """The same command, to go on where it was left: without ``--fresh``, which would not."""
        kept = [word for word in self.arguments if word != "--fresh"]
        return shlex.join(["lmstrix", *kept])


pass_settings = click.make_pass_decorator(Settings)
