"""The options that every command takes, before or after its name.

Imports little, because ``lmstrix --help`` needs it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lmstrix_cli.servers import add_server_options

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

__all__ = ["Settings", "add_shared_options", "colours_wanted", "is_quiet", "pass_settings"]


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
    arguments: tuple[str, ...] = ()
    """The whole command line after ``lmstrix``, so that it can be shown again."""

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


COLOUR_MODES = ("auto", "always", "never")


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


def _settings(ctx: click.Context) -> Settings:
    settings: Settings = ctx.ensure_object(Settings)
    return settings


def _keep(ctx: click.Context, parameter: click.Parameter, value: object) -> None:
    """Remember a value that was given; one behind the command goes before one in front of it."""
    if value:
        setattr(_settings(ctx), parameter.name or "", value)


def _keep_host(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    if value:
        settings = _settings(ctx)
        source = ctx.get_parameter_source("host")
        settings.host = value
        settings.host_is_typed = source is click.core.ParameterSource.COMMANDLINE


def _keep_store(ctx: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value and not ctx.resilient_parsing and not Path(value).parent.is_dir():
        raise click.BadParameter(
            f"the folder {str(Path(value).parent)!r} does not exist. Create it first, or name a"
            " file in another folder."
        )
    _keep(ctx, parameter, value)


def _keep_colours(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    if value or ctx.parent is None:
        ctx.color = colours_wanted(value or "auto")


def _start_logs(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    """Every command's last step before it begins: who hears what is logged."""
    settings = _settings(ctx)
    settings.log_file = value or settings.log_file
    if ctx.parent is None or ctx.resilient_parsing:
        return
    # Imported here because it pulls in the library.
    from lmstrix_cli.logs import log, others  # noqa: PLC0415

    root = ctx.find_root()
    root.with_resource(others(shown=settings.verbose))
    if settings.log_file:
        root.with_resource(log(settings.log_file, ctx.info_name or ""))


def _complete_path(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    return click.Path().shell_complete(ctx, parameter, incomplete)


def _complete_adapter(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    from lmstrix_cli.commands.completion import complete_adapter  # noqa: PLC0415 - for shells only

    return complete_adapter(ctx, parameter, incomplete)


def _options(*, of_group: bool) -> list[click.Option]:
    """The shared options. Only the group's own look at the environment and are in its help."""

    def option(*names: str, envvar: str | None = None, **rest: Any) -> click.Option:  # noqa: ANN401 - click's
        return click.Option(
            [*names],
            envvar=envvar if of_group else None,
            hidden=not of_group,
            expose_value=False,
            callback=rest.pop("callback", _keep),
            **rest,
        )

    return [
        option(
            "--adapter",
            metavar="NAME",
            envvar="LMSTRIX_ADAPTER",
            shell_complete=_complete_adapter,
            help="The engine: `lmstudio`, `llamacpp` (GGUF files; the default if you give the path"
            " of one), `ollama`, `llama-server`, `openai` (any server with OpenAI's API), or a"
            " plug-in. Default: the server of this machine that has the model, else `lmstudio`."
            "  [env: LMSTRIX_ADAPTER]",
        ),
        option(
            "--host",
            metavar="HOST:PORT",
            envvar="LMSTRIX_HOST",
            callback=_keep_host,
            help="Address of the server: HOST:PORT, or a URL. Default: found on this machine."
            "  [env: LMSTRIX_HOST]",
        ),
        option(
            "--store",
            metavar="PATH",
            envvar="LMSTRIX_STORE",
            callback=_keep_store,
            shell_complete=_complete_path,
            help="File for trials and reports; `memory` keeps nothing. Default: a file in your"
            " data folder, see `lmstrix status`.  [env: LMSTRIX_STORE]",
        ),
        option("-q", "--quiet", is_flag=True, help="Only the result: no notes and no progress."),
        option(
            "--verbose",
            is_flag=True,
            is_eager=True,
            help="Show a traceback if something goes wrong, and what other packages log.",
        ),
        option(
            "--color",
            type=click.Choice(COLOUR_MODES),
            callback=_keep_colours,
            help="Colours: on a terminal only (auto, the default), always or never. NO_COLOR and"
            " FORCE_COLOR also work.",
        ),
        option(
            "--log-file",
            metavar="PATH",
            callback=_start_logs,
            shell_complete=_complete_path,
            help="Append events and errors with their tracebacks to this file. No prompts.",
        ),
    ]


def add_shared_options(command: click.Command, *, of_group: bool = False) -> None:
    """Let `command` take the shared options. They set the fields of its `Settings`."""
    if not any(option.name == "log_file" for option in command.params):
        command.params.extend(_options(of_group=of_group))
        add_server_options(command, of_group=of_group)
