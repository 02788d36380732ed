"""The options that every command takes, before or after its name.

Imports little, because ``lmstrix --help`` needs it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click


@dataclass(kw_only=True, slots=True)
class Settings:
    """The values of the shared options; None if neither option nor environment says."""

    adapter: str | None = None
    host: str | None = None
    host_is_typed: bool = True
    """Whether `host` is an option on the command line, and not from the environment."""
    store: str | None = None
    verbose: bool = False
    quiet: bool = False
    log_file: str | None = None
    declared: int | None = None
    accept_cost: bool = False
    binary: str | None = None
    server_args: str | None = None
    arguments: tuple[str, ...] = ()
    """The whole command line after ``lmstrix``, so that it can be shown again."""

    def server_options(self) -> list[str]:
        """The options that another command needs to find the same server and model."""
        names = ("host", "binary", "server_args", "declared")
        given = {name: getattr(self, name) for name in names}
        return [
            word
            for name, value in given.items()
            if value
            for word in (f"--{name.replace('_', '-')}", str(value))
        ]

    def command_again(self) -> str:
        """The same command, to continue where it stopped: without ``--fresh``, which would not."""
        import shlex  # noqa: PLC0415 - not needed for --help

        kept = [word for word in self.arguments if word != "--fresh"]
        return shlex.join(["lmstrix", *kept])


pass_settings = click.make_pass_decorator(Settings)


def is_quiet() -> bool:
    """Whether ``--quiet`` was given; False outside of a command."""
    context = click.get_current_context(silent=True)
    settings = context.find_object(Settings) if context else None
    return settings is not None and settings.quiet


def colours_wanted(mode: str, environment: Mapping[str, str] | None = None) -> bool | None:
    """Whether to use colours: yes, no, or None if each stream decides by being a terminal.

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


def _keep(ctx: click.Context, parameter: click.Parameter, value: object) -> None:
    """Remember a value that was given; one behind the command goes before one in front of it."""
    if value:
        setattr(ctx.ensure_object(Settings), parameter.name or "", value)


def _keep_host(ctx: click.Context, parameter: click.Parameter, value: str | None) -> None:
    _keep(ctx, parameter, value)
    if value:
        source = ctx.get_parameter_source("host")
        typed = source is click.core.ParameterSource.COMMANDLINE
        ctx.ensure_object(Settings).host_is_typed = typed


def _keep_store(ctx: click.Context, parameter: click.Parameter, value: str | None) -> None:
    # Unlike Path.expanduser, it takes a user that does not exist.
    folder = Path(os.path.expanduser(value or "")).parent  # noqa: PTH111
    if value and not ctx.resilient_parsing and not os.path.isdir(folder):
        raise click.BadParameter(
            f"the folder {str(Path(value).parent)!r} does not exist. Create it first, or name a"
            " file in another folder."
        )
    _keep(ctx, parameter, value)


def _keep_colours(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    if value or ctx.parent is None:
        ctx.color = colours_wanted(value or "auto")


def _start_logs(ctx: click.Context, parameter: click.Parameter, value: str | None) -> None:
    """Every command's last step before it begins: who hears what is logged."""
    _keep(ctx, parameter, value)
    if ctx.parent is None or ctx.resilient_parsing:
        return
    # Imported here because it pulls in the library.
    from lmstrix_cli.logs import log, others  # noqa: PLC0415

    settings, root = ctx.ensure_object(Settings), ctx.find_root()
    root.with_resource(others(shown=settings.verbose))
    if settings.log_file:
        root.with_resource(log(settings.log_file, ctx.info_name or ""))


class _Tokens(click.ParamType[int]):
    """A number of tokens as `lmstrix_cli.options` reads it, which imports the library."""

    name = "tokens"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:  # noqa: ANN401 - click's signature
        """The value; fails with a usage error."""
        from lmstrix_cli.options import TOKENS  # noqa: PLC0415 - not needed for --help

        return TOKENS.convert(value, param, ctx)


PATH = click.Path(readable=False)
"""Any path: shells complete it, and what is wrong with it is reported where it is opened."""


def add_shared_options(command: click.Command, *, of_group: bool = False) -> None:
    """Let `command` take the shared options. They set the fields of its `Settings`.

    Only the group's own look at the environment and are in its help. An option of the command's
    own goes before one of the same name.
    """
    if any(option.name == "log_file" for option in command.params):
        return
    taken = {name for option in command.params for name in option.opts}

    def add(*names: str, envvar: str | None = None, **rest: Any) -> None:  # noqa: ANN401 - click's
        if taken.isdisjoint(names):
            option = click.Option(
                [*names],
                envvar=envvar if of_group else None,
                hidden=not of_group,
                expose_value=False,
                callback=rest.pop("callback", _keep),
                **rest,
            )
            command.params.append(option)

    add(
        "--adapter",
        metavar="NAME",
        envvar="LMSTRIX_ADAPTER",
        help="The engine: `lmstudio`, `llamacpp` (GGUF files; the default if you give the path"
        " of one), `ollama`, `llama-server`, `openai` (any server with OpenAI's API), or a"
        " plug-in. Default: the server of this machine that has the model, else `lmstudio`."
        "  [env: LMSTRIX_ADAPTER]",
    )
    add(
        "--host",
        metavar="HOST:PORT",
        envvar="LMSTRIX_HOST",
        callback=_keep_host,
        help="Address of the server: HOST:PORT, or a URL. Without --adapter it is LM Studio's."
        " Default: found on this machine."
        "  [env: LMSTRIX_HOST]",
    )
    add(
        "--store",
        type=PATH,
        metavar="PATH",
        envvar="LMSTRIX_STORE",
        callback=_keep_store,
        help="File for trials and reports; `memory` keeps nothing. Default: a file in your"
        " data folder, see `lmstrix status`.  [env: LMSTRIX_STORE]",
    )
    add("-q", "--quiet", is_flag=True, help="Only the result: no notes and no progress.")
    add(
        "--verbose",
        is_flag=True,
        is_eager=True,
        help="Show a traceback if something goes wrong, and other packages' log messages.",
    )
    add(
        "--color",
        type=click.Choice(("auto", "always", "never")),
        callback=_keep_colours,
        help="Colours: on a terminal only (auto, the default), always or never. The variables"
        " NO_COLOR and FORCE_COLOR also work.",
    )
    add(
        "--log-file",
        type=PATH,
        metavar="PATH",
        callback=_start_logs,
        help="Append events, and errors with their tracebacks, to this file. Prompts are never"
        " logged.",
    )
    add(
        "--declared",
        type=_Tokens(),
        metavar="N",
        help="With --adapter openai: the context that the model declares, in tokens (65536, 64k),"
        " whatever the server reports.",
    )
    add(
        "--yes",
        "accept_cost",
        is_flag=True,
        help="With --adapter openai: measure on another machine without a token limit, which may"
        " cost money. `test --budget-tokens N` sets a limit.",
    )
    add(
        "--binary",
        metavar="PATH",
        help="With --adapter llama-server: the program to run for each load of a GGUF file, such"
        " as a build for your GPU. Without it, a running server is used.",
    )
    add(
        "--server-args",
        metavar="TEXT",
        help='With --binary: more arguments for it, such as "-ngl 99 -fa on -ctk q8_0". Results'
        " with other arguments are stored apart.",
    )
