"""The `lmstrix` group: global options, the list of commands, and the last line of defence.

Only click is imported here; a command's module, and with it the library, is imported when
the command is used, so that ``lmstrix --help`` answers at once.
"""

from __future__ import annotations

import errno
import importlib
import os
import shlex
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from lmstrix_cli.servers import add_server_options
from lmstrix_cli.settings import COLOUR_MODES, Settings, colours_wanted

__all__ = ["COMMANDS", "lmstrix", "main"]

COMMANDS = {
    "apply": "Put a measured context into LM Studio's settings.",
    "bench": "Measure prefill and generation speed by context length.",
    "completion": "Print a script that completes commands and model names in your shell.",
    "compare": "Compare results side by side.",
    "demo": "Download a small model and measure it.",
    "doctor": "Check everything that LMStrix needs, and explain how to fix it.",
    "export": "Write all stored results to a file, for another machine.",
    "import": "Add results from another machine or an earlier LMStrix.",
    "infer": "Ask a model a question at a context length that works.",
    "list": "List the stored results.",
    "map": "Show how much a model recalls by context length and depth.",
    "report": "Write a report: one HTML page, or Markdown.",
    "scan": "List the available models.",
    "status": "Show the engine, loaded models, the store and interrupted measurements.",
    "test": "Measure how much context a model really handles.",
}
"""Name and one sentence; each command is `command` in ``lmstrix_cli.commands.NAME``."""
MODULES = {"import": "import_results"}
"""Commands whose name is a Python keyword."""

EPILOG = """\b
First steps:
  lmstrix demo                      download and measure a small model
  lmstrix scan                      list the available models
  lmstrix test path/to/model.gguf   measure one
  lmstrix list                      list the results

\b
Exit codes:
  0  measured, or done
  1  anything else
  2  wrong usage: an option, a name or a value
  3  server or engine not reachable
  4  model not found, or not measurable
  5  interrupted or budget spent; the report is partial
"""


class CommandGroup(click.Group):
    """Finds commands in `COMMANDS`; turns their exceptions into a message and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, without importing anything."""
        del ctx
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of one command."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"lmstrix_cli.commands.{MODULES.get(cmd_name, cmd_name)}")
        command: click.Command = module.command
        if ctx.resilient_parsing:  # a shell asks what could come next
            from lmstrix_cli.commands.completion import complete_parameters  # noqa: PLC0415 - for shells only

            complete_parameters(command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list in ``--help``, from `COMMANDS` alone."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(sorted(COMMANDS.items()))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep the typed words for messages."""
        ctx.meta[__name__] = tuple(args)
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            raise _before_command(self, ctx, error) from None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command, or an error that suggests one with a similar name."""
        if args[0] in COMMANDS or ctx.resilient_parsing or args[0].startswith("-"):
            return super().resolve_command(ctx, args)
        raise _unknown_command(ctx, args, COMMANDS)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The names with their sentence, without importing a command; or the group's options."""
        from click.shell_completion import CompletionItem  # noqa: PLC0415 - for shells only

        if incomplete and not incomplete[0].isalnum():
            return super().shell_complete(ctx, incomplete)
        return [
            CompletionItem(name, help=COMMANDS[name])
            for name in self.list_commands(ctx)
            if name.startswith(incomplete)
        ]

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; click itself handles its own exceptions."""
        try:
            return super().invoke(ctx)
        except click.NoSuchOption as error:
            raise _after_command(self, ctx, error) from None
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except (Exception, KeyboardInterrupt) as error:
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                raise  # the reader went away: click ends quietly
            # Imported here because it pulls in the library, which a good run may not need.
            from lmstrix_cli.errors import explain  # noqa: PLC0415

            return ctx.exit(explain(error, verbose=bool(ctx.params.get("verbose"))))


def _complete_path(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    return click.Path().shell_complete(ctx, parameter, incomplete)


def _complete_adapter(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    from lmstrix_cli.commands.completion import complete_adapter  # noqa: PLC0415 - for shells only

    return complete_adapter(ctx, parameter, incomplete)


def _show_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click's signature
    if not value or ctx.resilient_parsing:
        return
    click.echo(f"lmstrix {_version()}")
    ctx.exit()


def _version() -> str:
    """From the name of the folder with our metadata, if there is just one: reading what is
    in it, by `importlib.metadata`, takes as long as all the rest of ``lmstrix --version``.
    """
    for folder in sys.path:
        try:
            names = os.listdir(folder or os.curdir)  # noqa: PTH208 - pathlib is not imported yet
        except OSError:
            continue
        found = [n for n in names if n.startswith("lmstrix-") and n.endswith(".dist-info")]
        if len(found) == 1:
            return found[0].removeprefix("lmstrix-").removesuffix(".dist-info")
        if found:
            break
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 - as above

    try:
        return version("lmstrix")
    except PackageNotFoundError:  # run from a source tree
        return "unknown"


@click.group(
    cls=CommandGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.option(
    "--adapter",
    metavar="NAME",
    envvar="LMSTRIX_ADAPTER",
    shell_complete=_complete_adapter,
    help="The engine: `lmstudio` (the default), `llamacpp` (GGUF files; the default if you give"
    " the path of one), `ollama`, `llama-server`, `openai` (any server with OpenAI's API), or a"
    " plug-in.  [env: LMSTRIX_ADAPTER]",
)
@click.option(
    "--host",
    metavar="HOST:PORT",
    envvar="LMSTRIX_HOST",
    help="Address of the server: HOST:PORT, or a URL. Default: found on this machine."
    "  [env: LMSTRIX_HOST]",
)
@click.option(
    "--store",
    metavar="PATH",
    envvar="LMSTRIX_STORE",
    shell_complete=_complete_path,
    help="File for trials and reports; `memory` keeps nothing."
    " Default: a file in your data folder, see `lmstrix status`.  [env: LMSTRIX_STORE]",
)
@click.option("-q", "--quiet", is_flag=True, help="No progress on stderr, for any command.")
@click.option("--verbose", is_flag=True, help="Show a traceback if something goes wrong.")
@click.option(
    "--color",
    "colours",
    type=click.Choice(COLOUR_MODES),
    default="auto",
    help="Colours: on a terminal only (auto), always or never. NO_COLOR and FORCE_COLOR also work.",
)
@click.option(
    "--log-file",
    metavar="PATH",
    shell_complete=_complete_path,
    help="Append events and errors with their tracebacks to this file. No prompts.",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version and exit.",
)
@click.pass_context
def lmstrix(
    ctx: click.Context,
    adapter: str | None,
    host: str | None,
    store: str | None,
    colours: str,
    log_file: str | None,
    *,
    quiet: bool,
    verbose: bool,
) -> None:
    """Find out how much context a local model really handles.

    LMStrix loads a model, fills its window, checks the answers, and reports three numbers: the
    context that the model DECLARES, the one that the engine can LOAD, and the TRUE one, up to
    which the model works as well as with a short prompt.
    """
    ctx.color = colours_wanted(colours)
    if log_file:
        _log_to(ctx, log_file)
    ctx.obj = Settings(
        adapter=adapter or None,
        host=_host(ctx, host),
        store=store or None,
        verbose=verbose,
        quiet=quiet,
        log_file=log_file or None,
        arguments=ctx.meta.get(__name__, ()),
    )


add_server_options(lmstrix)


def _log_to(ctx: click.Context, path: str) -> None:
    """Log to the file until the command ends."""
    # Imported here because it pulls in the library.
    from lmstrix_cli.logs import log  # noqa: PLC0415

    try:
        ctx.with_resource(log(path, ctx.invoked_subcommand or ""))
    except OSError as error:
        raise click.BadParameter(
            f"{path!r} cannot be written: {error.strerror}.", param_hint="--log-file"
        ) from error


def _host(ctx: click.Context, host: str | None) -> str | None:
    """The host, unless it comes from the environment while another adapter was named by hand."""
    typed = ParameterSource.COMMANDLINE
    from_environment = ctx.get_parameter_source("host") is not typed
    if from_environment and ctx.get_parameter_source("adapter") is typed:
        return host if ctx.params["adapter"] != "llamacpp" else None
    return host or None


def main() -> None:
    """Entry point of the `lmstrix` script."""
    prepare_streams()
    try:
        lmstrix(prog_name="lmstrix")
    except OSError as error:  # what was printed while the words were still being read
        # Imported here because it pulls in the library.
        from lmstrix_cli.errors import explain  # noqa: PLC0415

        sys.exit(explain(error, verbose=False))
    finally:
        discard_unwritten()


_STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


def prepare_streams() -> None:
    """Fill in the streams that this process was started without, as by ``>&-`` or a daemon.

    A missing one is a null device under its own number. Else the next file to be opened would
    get that number, and with it all that an engine's process prints.
    """
    for number, (name, mode) in enumerate(_STREAMS):
        if getattr(sys, name) is None:
            _reserve(number)
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115 - pathlib is not imported yet; open to the end
    for stream in (sys.stdout, sys.stderr):
        # A model's name must not break the output of a terminal that is not UTF-8.
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def discard_unwritten() -> None:
    """Forget what stdout and stderr did not take: Python would try once more at the very end,
    complain by itself, and put its own exit code in the place of ours.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)


def _reserve(number: int) -> None:
    """Put the null device under `number`, unless something has it already."""
    try:
        os.fstat(number)
    except OSError:
        null = os.open(os.devnull, os.O_RDWR)
        if null != number:
            os.dup2(null, number)
            os.close(null)
        os.set_inheritable(number, True)  # noqa: FBT003 - the function takes it by place only


def _after_command(
    group: click.Group, ctx: click.Context, error: click.NoSuchOption
) -> click.NoSuchOption | click.UsageError:
    """A better error for an option after the command that belongs before it."""
    option = _option_of(group, error.option_name)
    if option is None:
        return error
    value = "" if option.is_flag else f" {option.make_metavar(ctx)}"
    name = ctx.invoked_subcommand or "COMMAND"
    return click.UsageError(
        f"{error.option_name} belongs before the command:"
        f" lmstrix {error.option_name}{value} {name} ...",
        error.ctx,
    )


def _before_command(
    group: click.Group, ctx: click.Context, error: click.NoSuchOption
) -> click.NoSuchOption | click.UsageError:
    """A better error for an option of a command that comes before it."""
    typed = ctx.meta.get("lmstrix_cli.main", ())
    for name in typed:
        command = group.get_command(ctx, name)
        if command is not None and _option_of(command, error.option_name) is not None:
            return click.UsageError(
                f"{error.option_name} is an option of {name} and belongs after it:"
                f" lmstrix {name} {error.option_name} ...",
                error.ctx,
            )
    return error


def _unknown_command(
    ctx: click.Context, typed: Sequence[str], names: Iterable[str]
) -> click.UsageError:
    """The error for a command that does not exist."""
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


def _option_of(command: click.Command, name: str) -> click.Option | None:
    """The option of `command` that is called `name`."""
    return next(
        (one for one in command.params if isinstance(one, click.Option) and name in one.opts), None
    )


if TYPE_CHECKING:
    from click.shell_completion import CompletionItem
