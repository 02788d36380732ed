"""What was said before the command's name, for every command.

A dataclass, unlike the facts of the library: ``lmstrix --help`` needs this module, and importing
attrs would take a fifth of its time.
"""

from __future__ import annotations

from dataclasses import dataclass

import click

__all__ = ["Settings", "is_quiet", "pass_settings"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """The options of ``lmstrix`` itself; None where neither option nor environment says."""

    adapter: str | None = None
    host: str | None = None
    store: str | None = None
    verbose: bool = False
    quiet: bool = False
    log_file: str | None = None
    arguments: tuple[str, ...] = ()
    """The whole command line after ``lmstrix``, so that it can be shown again."""

    def command_again(self) -> str:
        """The same command, to go on where it was left: without ``--fresh``, which would not."""
        import shlex  # noqa: PLC0415 - as above

        kept = [word for word in self.arguments if word != "--fresh"]
        return shlex.join(["lmstrix", *kept])


pass_settings = click.make_pass_decorator(Settings)


def is_quiet() -> bool:
    """Whether ``lmstrix --quiet`` was said, whatever the command; False outside of a command."""
    context = click.get_current_context(silent=True)
    settings = context.find_object(Settings) if context else None
    return settings is not None and settings.quiet
