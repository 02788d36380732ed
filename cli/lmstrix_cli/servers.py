"""The options of `lmstrix` that are for one adapter only, and what else goes to it."""

from __future__ import annotations

from typing import cast

import click

__all__ = ["add_server_options", "server_settings"]

TAKES = {
    "openai": {"declared", "accept_cost"},
    "ollama": {"force"},
    "llama-server": {"binary", "server_args"},
}
"""The settings of each adapter, by its name, besides the host."""
_META = "lmstrix_cli.servers"


def _keep(ctx: click.Context, option: click.Parameter, value: object) -> None:
    if value:
        _given(ctx)[option.name or ""] = value


def _given(ctx: click.Context) -> dict[str, object]:
    return cast("dict[str, object]", ctx.find_root().meta.setdefault(_META, {}))


def add_server_options(group: click.Group) -> None:
    """Let the group take them, before the command's name."""
    group.params += [
        click.Option(
            ["--declared"],
            type=click.IntRange(min=1),
            metavar="N",
            expose_value=False,
            callback=_keep,
            help="With --adapter openai: the context that the model declares, in tokens, if the"
            " server does not say.",
        ),
        click.Option(
            ["--yes", "accept_cost"],
            is_flag=True,
            expose_value=False,
            callback=_keep,
            help="With --adapter openai: measure on another machine, which may cost money,"
            " without a limit. `test --budget-tokens N` sets one.",
        ),
        click.Option(
            ["--binary"],
            metavar="PATH",
            expose_value=False,
            callback=_keep,
            help="With --adapter llama-server: the program to run for each load of a GGUF file,"
            " such as a build for your GPU. Without it, a running server is used.",
        ),
        click.Option(
            ["--server-args"],
            metavar="TEXT",
            expose_value=False,
            callback=_keep,
            help='With --binary: more arguments for it, such as "-ngl 99 -fa on -ctk q8_0".'
            " Results are stored by them.",
        ),
    ]


def server_settings(adapter: str | None) -> dict[str, object]:
    """The settings that go to `adapter`; raises `click.UsageError` for those of another one."""
    ctx = click.get_current_context(silent=True)
    if ctx is None:
        return {}
    given, takes = _given(ctx), TAKES.get(adapter or "", set())
    for option in given.keys() - takes:
        name = "yes" if option == "accept_cost" else option.replace("_", "-")
        owner = next(owner for owner, names in TAKES.items() if option in names)
        raise click.UsageError(f"--{name} is for --adapter {owner}.")
    settings = dict(given)
    if "force" in takes and ctx.params.get("force"):
        settings["force"] = True
    # One reply is what was asked for; so is a measurement with a limit.
    if "accept_cost" in takes and (ctx.params.get("budget_tokens") or ctx.info_name == "infer"):
        settings["accept_cost"] = True
    return settings
