"""The `lmstrix` group: global options, the list of commands, and the last line of defence.

Only click is imported here; a command's module, and with it the library, is imported when
the command is used, so that ``lmstrix --help`` answers at once.
"""

from __future__ import annotations

import errno
import importlib
import sys
from importlib.metadata import PackageNotFoundError, version

import click
from click.core import ParameterSource

from lmstrix_cli.settings import Settings

__all__ = ["COMMANDS", "lmstrix", "main"]

COMMANDS = {
    "apply": "Put a measured context into LM Studio's settings.",
    "demo": "Get a small model and measure it: the whole tool in one go.",
    "infer": "Ask a model one thing, at a context length that is known to work.",
    "list": "Show what was measured so far.",
    "map": "Show what a model still knows, by length and depth of the window.",
    "scan": "Look for models.",
    "status": "Show the engine, the store, and what was interrupted.",
    "test": "Measure how much context a model really handles.",
}
"""Name and one sentence; each lives in ``lmstrix_cli.commands.NAME`` as `command`."""

EPILOG = """\b
First steps:
  lmstrix demo                      no model at hand: get a small one
  lmstrix scan                      which models are there?
  lmstrix test path/to/model.gguf   measure one
  lmstrix list                      what is known by now

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
    """Finds commands in `COMMANDS` and turns what they raise into text and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, without importing anything."""
        del ctx
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of one command."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"lmstrix_cli.commands.{cmd_name}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list in ``--help``, from `COMMANDS` alone."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(sorted(COMMANDS.items()))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep the words as they were typed."""
        ctx.meta[__name__] = tuple(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; click itself handles its own exceptions."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except (Exception, KeyboardInterrupt) as error:
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                raise  # the reader went away: click ends quietly
            # Imported here because it pulls in the library, which a good run may not need.
            from lmstrix_cli.failures import explain  # noqa: PLC0415

            return ctx.exit(explain(error, verbose=bool(ctx.params.get("verbose"))))


def _show_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click's signature
    if not value or ctx.resilient_parsing:
        return
    try:
        number = version("lmstrix")
    except PackageNotFoundError:  # run from a source tree
        number = "unknown"
    click.echo(f"lmstrix {number}")
    ctx.exit()


@click.group(
    cls=CommandGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.option(
    "--adapter",
    metavar="NAME",
    envvar="LMSTRIX_ADAPTER",
    help="Where models live: `lmstudio` (the default), `llamacpp` (GGUF files; the default for"
    " the path of one), or a plug-in.  [env: LMSTRIX_ADAPTER]",
)
@click.option(
    "--host",
    metavar="HOST:PORT",
    envvar="LMSTRIX_HOST",
    help="Address of LM Studio's server. Default: looked for on this machine.  [env: LMSTRIX_HOST]",
)
@click.option(
    "--store",
    metavar="PATH",
    envvar="LMSTRIX_STORE",
    help="File that remembers trials and reports; `memory` remembers nothing."
    " Default: a file in your data folder, see `lmstrix status`.  [env: LMSTRIX_STORE]",
)
@click.option("--verbose", is_flag=True, help="Show a traceback where something goes wrong.")
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
    *,
    verbose: bool,
) -> None:
    """Find out how much context a local model really handles.

    LMStrix loads a model, fills its window, checks the answers, and tells three numbers
    apart: the context that the model DECLARES, the one that the engine can LOAD, and the TRUE
    one, up to which the model still does what it does with a short prompt.
    """
    ctx.obj = Settings(
        adapter=adapter or None,
        host=_host(ctx, host),
        store=store or None,
        verbose=verbose,
        arguments=ctx.meta.get(__name__, ()),
    )


def _host(ctx: click.Context, host: str | None) -> str | None:
    """The host, unless it comes from the environment while another adapter was named by hand."""
    typed = ParameterSource.COMMANDLINE
    from_environment = ctx.get_parameter_source("host") is not typed
    if from_environment and ctx.get_parameter_source("adapter") is typed:
        return host if ctx.params["adapter"] != "llamacpp" else None
    return host or None


def main() -> None:
    """Entry point of the `lmstrix` script."""
    for stream in (sys.stdout, sys.stderr):
        # A model's name must not break the output of a terminal that is not UTF-8.
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
    lmstrix(prog_name="lmstrix")
