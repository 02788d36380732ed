"""Words that stand where they are not taken: what to say instead."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence

import click

__all__ = ["behind", "in_front", "unknown"]


def behind(
    group: click.Group, ctx: click.Context, error: click.NoSuchOption
) -> click.NoSuchOption | click.UsageError:
    """A better error for an option behind the command that belongs in front of it."""
    option = _option(group, error.option_name)
    if option is None:
        return error
    value = "" if option.is_flag else f" {option.make_metavar(ctx)}"
    name = ctx.invoked_subcommand or "COMMAND"
    return click.UsageError(
        f"{error.option_name} stands in front of the command:"
        f" lmstrix {error.option_name}{value} {name} ...",
        error.ctx,
    )


def in_front(
    group: click.Group, ctx: click.Context, error: click.NoSuchOption
) -> click.NoSuchOption | click.UsageError:
    """A better error for an option of a command that stands in front of it."""
    typed = ctx.meta.get("lmstrix_cli.main", ())
    for name in typed:
        command = group.get_command(ctx, name)
        if command is not None and _option(command, error.option_name) is not None:
            return click.UsageError(
                f"{error.option_name} is an option of {name} and stands behind it:"
                f" lmstrix {name} {error.option_name} ...",
                error.ctx,
            )
    return error


def unknown(ctx: click.Context, typed: Sequence[str], names: Iterable[str]) -> click.UsageError:
    """The error for a command that there is not."""
    from lmstrix.names import suggestion  # noqa: PLC0415 - for typing slips only

    known = list(names)
    first = typed[0]
    meant = suggestion(first, known)
    if first == "help":
        asked = [name for name in typed[1:2] if name in known]
        more = f" Say `{' '.join(['lmstrix', *asked, '--help'])}`."
    elif meant:
        more = f" {meant}"
    elif (first.lower().endswith(".gguf") or "/" in first) and first.isprintable():
        more = f" To measure a model: {shlex.join(['lmstrix', 'test', first])}"
    else:
        more = ""
    return click.UsageError(f"No such command {first!r}.{more}", ctx)


def _option(command: click.Command, name: str) -> click.Option | None:
    """The option of `command` that is called `name`."""
    return next(
        (one for one in command.params if isinstance(one, click.Option) and name in one.opts), None
    )
