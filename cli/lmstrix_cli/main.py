"""The `lmstrix` group: shared options, the list of commands, and the last line of defence.

Only click is imported here; a command's module, and with it the library, is imported when
the command is used, so that ``lmstrix --help`` answers at once.
"""

from __future__ import annotations

import errno
import importlib
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import TYPE_CHECKING

import click

from lmstrix_cli.settings import Settings, add_shared_options

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

COMMANDS = {
    "apply": "Write a measured context to LM Studio's settings, or print it for another server.",
    "bench": "Measure prefill and generation speed by context length.",
    "completion": "Print a script that completes commands and model names in your shell.",
    "compare": "Compare results side by side.",
    "demo": "Download a small model and measure it.",
    "doctor": "Check everything that LMStrix needs, and explain how to fix problems.",
    "export": "Write all stored results to a file, for another machine.",
    "import": "Add results that were exported on another machine.",
    "infer": "Send one prompt to a model and print the reply.",
    "list": "List the stored results (also: ls).",
    "map": "Show how much a model recalls, by context length and depth.",
    "report": "Write a report: one HTML page, or Markdown.",
    "scan": "List the available models.",
    "status": "Show the engine, loaded models, the store and interrupted measurements.",
    "test": "Measure how much context a model really handles.",
}
"""Name and one sentence; each command is `command` in ``lmstrix_cli.commands.NAME``."""
MODULES = {"import": "import_results"}
"""Commands whose name is a Python keyword."""
ALIASES = {"ls": "list"}
STDERR = 2
USAGE, INTERRUPTED = 2, 5
"""`lmstrix_cli.errors.ExitCode.USAGE` and `PARTIAL`, without importing the library."""

FIRST_STEPS = """\
First steps:
  lmstrix demo                      measure a small model, in 5 to 25 minutes
  lmstrix scan                      list the available models
  lmstrix test path/to/model.gguf   measure one
  lmstrix list                      list the results
  lmstrix doctor                    check the setup, if something fails
"""
FIRST_SCREEN = f"""\
LMStrix finds out how much context a local model really handles.

It loads the model, fills its window with text, asks questions about the text,
and reports three context lengths, in tokens:

  declared  what the model claims
  loadable  the largest context that the engine loads
  true      the largest filled context at which every part of the window works

{FIRST_STEPS}
A result is certified by a fresh load and fresh texts; its report shows the
evidence. Ctrl-C is safe: the same command continues. No model that you loaded
is unloaded, and no setting is changed unless you ask.

All commands and options: lmstrix --help
"""
EPILOG = f"""\b
{FIRST_STEPS}
The options above also work after the command: lmstrix scan --host HOST:PORT

\b
Exit codes:
  0  measured, or done
  1  any other failure
  2  wrong usage: an option, a name or a value
  3  server or engine not reachable
  4  model not found, or not measurable
  5  interrupted or budget spent; the report is partial
"""
COMMAND_EPILOG = (
    "Options for every command, such as --host, --store and --quiet: see `lmstrix --help`."
)


class CommandGroup(click.Group):
    """Finds commands in `COMMANDS`; turns their exceptions into a message and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, without importing anything."""
        del ctx
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of one command."""
        name = ALIASES.get(cmd_name, cmd_name)
        if name == "help":
            return show_help
        if name not in COMMANDS:
            return None
        module = importlib.import_module(f"lmstrix_cli.commands.{MODULES.get(name, name)}")
        command: click.Command = module.command
        if command.epilog and COMMAND_EPILOG not in command.epilog:
            command.epilog += f"\n{COMMAND_EPILOG}"
        add_shared_options(command)
        _complete_if_asked(ctx, command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list in ``--help``, from `COMMANDS` alone."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(sorted(COMMANDS.items()))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep the typed words for messages. Without any, show how to begin."""
        if not args and not ctx.resilient_parsing:
            click.echo(FIRST_SCREEN, nl=False, err=True)
            ctx.exit(USAGE)
        ctx.meta[__name__] = tuple(args)
        _complete_if_asked(ctx, self)
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            raise _before_command(self, ctx, error) from None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command, or an error that suggests one with a similar name."""
        known = {*COMMANDS, *ALIASES, "help"}
        if args[0] in known or ctx.resilient_parsing or args[0].startswith("-"):
            return super().resolve_command(ctx, args)
        raise _unknown_command(ctx, args[0])

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
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                raise  # the reader went away: click ends quietly
            # Imported here because it pulls in the library, which a good run may not need.
            from lmstrix_cli.errors import explain  # noqa: PLC0415

            return ctx.exit(explain(error, verbose=ctx.ensure_object(Settings).verbose))


@click.command(name="help")
@click.argument("name", required=False, metavar="[COMMAND]")
@click.pass_context
def show_help(ctx: click.Context, name: str | None) -> None:
    """Show the help of LMStrix or of a command."""
    group = ctx.find_root()
    command = lmstrix.get_command(group, name) if name else None
    if name and command is None:
        raise _unknown_command(group, name)
    if command is None:
        click.echo(group.get_help())
        return
    with click.Context(command, info_name=name, parent=group) as inner:
        click.echo(command.get_help(inner))


@click.group(
    cls=CommandGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(package_name="lmstrix", message="%(package)s %(version)s")
@click.pass_context
def lmstrix(ctx: click.Context) -> None:
    """Find out how much context a local model really handles.

    LMStrix loads a model, fills its window, checks the answers, and reports three numbers: the
    context that the model DECLARES, the one that the engine can LOAD, and the TRUE one, up to
    which the model answers almost as well as with a short prompt.
    """
    ctx.ensure_object(Settings).arguments = ctx.meta.get(__name__, ())


add_shared_options(lmstrix, of_group=True)


def main() -> None:
    """Entry point of the `lmstrix` script."""
    signal.signal(signal.SIGINT, _interrupted)
    prepare_streams()
    try:
        lmstrix(prog_name="lmstrix")
    except OSError as error:  # what was printed while the words were still being read
        # Imported here because it pulls in the library.
        from lmstrix_cli.errors import explain  # noqa: PLC0415

        sys.exit(explain(error, verbose=False))
    finally:
        discard_unwritten()


def _interrupted(_: int, __: FrameType | None) -> None:
    """Ctrl-C outside of the event loop: nothing is loaded then, so the process just ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.write(2, b"Interrupted.\n")
    sys.exit(INTERRUPTED)


def prepare_streams() -> None:
    """Fill in the streams that this process was started without, as by ``>&-`` or a daemon.

    A missing one is a null device under its own number. Else the next file to be opened would
    get that number, and with it all that an engine's process prints.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= STDERR:
        os.set_inheritable(number, True)  # noqa: FBT003 - the function takes it by place only
    os.close(number)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115 - open to the end
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


def _complete_if_asked(ctx: click.Context, command: click.Command) -> None:
    """Prepare `command` for a shell that asks what could come next."""
    if ctx.resilient_parsing:
        from lmstrix_cli.commands.completion import complete_parameters  # noqa: PLC0415 - for shells only

        complete_parameters(command)


def _before_command(
    group: click.Group, ctx: click.Context, error: click.NoSuchOption
) -> click.NoSuchOption | click.UsageError:
    """A better error for an option of a command that comes before it."""
    typed: Sequence[str] = ctx.meta.get(__name__, ())
    for name in typed:
        command = group.get_command(ctx, name)
        if command is not None and any(error.option_name in one.opts for one in command.params):
            return click.UsageError(
                f"{error.option_name} is an option of {name} and belongs after it:"
                f" lmstrix {name} {error.option_name} ...",
                error.ctx,
            )
    return error


def _unknown_command(ctx: click.Context, typed: str) -> click.UsageError:
    if (typed.lower().endswith(".gguf") or "/" in typed) and typed.isprintable():
        measure = shlex.join(["lmstrix", "test", typed])
        return click.UsageError(f"No such command {typed!r}. To measure a model: {measure}", ctx)
    return click.NoSuchCommand(typed, possibilities=COMMANDS, ctx=ctx)
