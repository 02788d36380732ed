"""The options before the command's name. Imports little, because ``lmstrix --help`` needs it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import click

__all__ = ["COLOUR_MODES", "Settings", "colours_wanted", "is_quiet", "pass_settings"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """The options of ``lmstrix`` itself; None if neither option nor environment says."""

    adapter: str | None = None
    host: str | None = None
    store: str | None = None
    verbose: bool = False
    quiet: bool = False
    log_file: str | None = None
    arguments: tuple[str, ...] = ()
    """The whole command line after ``lmstrix``, so that it can be shown again."""

    def command_again(self) -> str:
        """The same command, to continue where it stopped: without ``--fresh``, which would not."""
        import shlex  # noqa: PLC0415 - as above

        kept = [word for word in self.arguments if word != "--fresh"]
        return shlex.join(["lmstrix", *kept])


pass_settings = click.make_pass_decorator(Settings)


def is_quiet() -> bool:
    """Whether ``lmstrix --quiet`` was said, whatever the command; False outside of a command."""
    context = click.get_current_context(silent=True)
    settings = context.find_object(Settings) if context else None
    return settings is not None and settings.quiet


COLOUR_MODES = ("auto", "always", "never")


def colours_wanted(mode: str, environment: Mapping[str, str] | None = None) -> bool | None:
    """Whether to paint: yes, no, or None if each stream decides by being a terminal.

    An option goes before ``NO_COLOR``, that before ``FORCE_COLOR``, both before a terminal that
    says ``dumb``. Sources: https://no-color.org, https://force-color.org: any value but an empty
    one counts; ``FORCE_COLOR=0`` is taken for what it means.
    """
    environment = os.environ if environment is None else environment
    if mode != "auto":
        return mode == "always"
    if environment.get("NO_COLOR"):
        return False
    if environment.get("FORCE_COLOR", "0") not in {"", "0"}:
        return True
    return False if environment.get("TERM") == "dumb" else None
