"""The options of `lmstrix` that are for one adapter only, and what else goes to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import click

if TYPE_CHECKING:
    from lmstrix import Status
    from lmstrix_cli.settings import Settings

__all__ = [
    "OTHER_SERVERS",
    "add_server_options",
    "check_cost",
    "named_or_answering",
    "other_servers",
    "server_settings",
]

OTHER_SERVERS = ("ollama", "llama-server")
"""Adapters whose servers have ports of their own on this machine, besides LM Studio: without
``--adapter`` and ``--host`` a model is looked for there too."""

TAKES = {
    "openai": {"declared", "accept_cost"},
    "ollama": {"force"},
    "llama-server": {"binary", "server_args"},
}
"""The settings of each adapter, by its name, besides the host."""
MEASURES = {"test", "map", "bench"}
"""Commands that may cost money on another machine."""
_META = "lmstrix_cli.servers"


def _keep(ctx: click.Context, option: click.Parameter, value: object) -> None:
    if value:
        _given(ctx)[option.name or ""] = value


def _given(ctx: click.Context) -> dict[str, object]:
    return cast("dict[str, object]", ctx.find_root().meta.setdefault(_META, {}))


def add_server_options(command: click.Command, *, of_group: bool) -> None:
    """Let `command` take them; only the group's are in its help. An option of the command's own
    goes before one of the same name.
    """
    taken = {name for option in command.params for name in option.opts}

    def add(*names: str, **rest: Any) -> None:  # noqa: ANN401 - click's
        if taken.isdisjoint(names):
            option = click.Option(
                [*names], expose_value=False, callback=_keep, hidden=not of_group, **rest
            )
            command.params.append(option)

    add(
        "--declared",
        type=click.IntRange(min=1),
        metavar="N",
        help="With --adapter openai: the context that the model declares, in tokens, if the server"
        " does not say.",
    )
    add(
        "--yes",
        "accept_cost",
        is_flag=True,
        help="With --adapter openai: measure on another machine, which may cost money, without a"
        " limit. `test --budget-tokens N` sets one.",
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
        " are stored by them.",
    )


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


def check_cost(adapter: object) -> None:
    """Let an adapter that knows of costs refuse a measurement before anything is sent."""
    ctx = click.get_current_context(silent=True)
    check = getattr(adapter, "check_cost", None)
    if check and ctx and ctx.info_name in MEASURES and not ctx.params.get("dry_run"):
        check()


def other_servers() -> dict[str, dict[str, object]]:
    """`OTHER_SERVERS` and their settings. Whatever listens at their ports is not sent the key."""
    return {name: server_settings(name) | {"send_key": False} for name in OTHER_SERVERS}


async def named_or_answering(settings: Settings) -> Sequence[Status]:
    """The server that was named, or without a name those of `OTHER_SERVERS` that answer."""
    # Imported here because ``lmstrix --help`` does not need it.
    from lmstrix import LMStrix  # noqa: PLC0415

    named = settings.adapter
    async with LMStrix(
        adapter=named,
        host=settings.host if named else None,
        adapter_settings=server_settings(named),
        others=other_servers(),
        store="memory",
    ) as client:
        return await client.other_servers() if named is None else [await client.status()]
