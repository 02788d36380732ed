"""``lmstrix status``: the engine, the loaded models, the store, interrupted measurements."""

from __future__ import annotations

import enum
import json
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import attrs
import click

from lmstrix import LMStrix, MeasureOptions
from lmstrix.client import DEFAULT_ADAPTER, DEFAULT_LEVELS, DEFAULT_STRATEGY
from lmstrix.errors import StoreError
from lmstrix.json_values import as_list, as_object, as_text, parse_object
from lmstrix.models import UNFINISHED, Cause, LoadedInstance, Status
from lmstrix.reports.words import NO_LEVELS, say_bytes, say_count
from lmstrix.serialize import to_json
from lmstrix.stores.export import Archive, ReportSummary
from lmstrix_cli import safe_text, session
from lmstrix_cli.errors import ExitCode
from lmstrix_cli.running import run_async
from lmstrix_cli.safe_text import fold, terminal_width
from lmstrix_cli.settings import Settings, pass_settings

__all__ = ["Fit", "command", "command_to_go_on"]

EPILOG = """\b
Examples:
  lmstrix status
  lmstrix status --json
"""


class Fit(enum.StrEnum):
    """How a loaded context compares to the tested one."""

    FINE = "fine"
    TOO_LARGE = "too large"
    NOT_TESTED = "not tested"


@attrs.frozen(kw_only=True)
class _Loaded:
    """An instance and the newest result for its model; None if there is none."""

    instance: LoadedInstance
    result: ReportSummary | None

    @property
    def tested(self) -> int | None:
        """The true context, in tokens."""
        return self.result.true_context if self.result else None

    @property
    def fit(self) -> Fit:
        length = self.instance.context_length
        if self.result is None or self.tested is None or length is None:
            return Fit.NOT_TESTED
        if length <= self.tested:
            return Fit.FINE
        # Above the user's own limit nothing was tested.
        drawn = self.result.cause is Cause.MAX_CONTEXT
        return Fit.NOT_TESTED if drawn else Fit.TOO_LARGE


@attrs.frozen(kw_only=True)
class _Store:
    location: str
    reports: int
    size_bytes: int
    warnings: tuple[str, ...]


@attrs.frozen(kw_only=True)
class _Interrupted:
    model: str
    command: str


@attrs.frozen(kw_only=True)
class _Overview:
    status: Status
    loaded: Sequence[_Loaded]
    store: _Store
    unfinished: Sequence[_Interrupted]


@click.command(name="status", epilog=EPILOG)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_context
@pass_settings
def command(settings: Settings, ctx: click.Context, *, as_json: bool) -> None:
    """Show the engine, what is loaded, the store, and which measurements were interrupted.

    For each loaded model, shows whether more context is loaded than the model can use. The exit
    code is 3 if the engine cannot be reached.
    """
    overview = run_async(lambda: _overview(settings))
    if as_json:
        safe_text.json_line(_as_json(overview))
    else:
        text = "\n".join(_lines(overview))
        safe_text.out(fold(text, terminal_width(sys.stdout), indent=11))
    if not overview.status.available:
        ctx.exit(ExitCode.UNREACHABLE)


async def _overview(settings: Settings) -> _Overview:
    async with session.open_client(settings) as client:
        status = await client.status()
        try:
            summaries, unfinished = await client.summaries(), await _unfinished(client)
            trouble = ()
        except StoreError as error:  # the engine can be shown all the same
            summaries, unfinished, trouble = (), (), (str(error),)
        tested = _tested(summaries)
        return _Overview(
            status=status,
            loaded=[_Loaded(instance=i, result=tested.get(i.key)) for i in status.loaded],
            store=_Store(
                location=client.store.location,
                reports=len(summaries),
                size_bytes=session.store_bytes(client.store.location),
                warnings=(*trouble, *client.store.warnings),
            ),
            unfinished=[
                _Interrupted(model=name, command=command_to_go_on(name, key, settings))
                for name, key in unfinished
            ],
        )


async def _unfinished(client: LMStrix) -> Sequence[tuple[str, str]]:
    """Models with an interrupted measurement, and the key of each; empty if it is not known."""
    if isinstance(client.store, Archive):
        return [(kept.model.key, kept.key) for kept in await client.store.interrupted()]
    return [(model.key, "") for model in await client.unfinished_models()]


def _tested(summaries: Sequence[ReportSummary]) -> Mapping[str, ReportSummary]:
    """The newest true context of each model; `summaries` are newest first."""
    known: dict[str, ReportSummary] = {}
    for summary in summaries:
        if summary.true_context is not None and summary.cause not in UNFINISHED:
            known.setdefault(summary.model_key, summary)
    return known


def _as_json(overview: _Overview) -> str:
    """The status, with more keys."""
    document = json.loads(to_json(overview.status))
    for shown, loaded in zip(document["loaded"], overview.loaded, strict=True):
        shown["tested_context"] = loaded.tested
        shown["fit"] = loaded.fit.replace(" ", "_")
    store = overview.store
    document["store"] = store.location
    document["store_reports"] = store.reports
    document["store_bytes"] = store.size_bytes
    document["store_warnings"] = list(store.warnings)
    document["unfinished"] = [one.model for one in overview.unfinished]
    document["go_on"] = [one.command for one in overview.unfinished]
    return json.dumps(document, ensure_ascii=False)


def _lines(overview: _Overview) -> Iterator[str]:
    yield from _engine_lines(overview.status)
    for loaded in overview.loaded:
        yield from _loaded_lines(loaded)
    yield from _store_lines(overview.store)
    for one in overview.unfinished:
        yield f"unfinished {safe_text.label(one.model)}"
        yield f"           to go on: {safe_text.label(one.command)}"


def _engine_lines(status: Status) -> Iterator[str]:
    yield f"adapter    {safe_text.label(status.adapter)}"
    yield f"engine     {safe_text.label(status.engine)}"
    for name, number in status.versions.items():
        yield f"version    {safe_text.label(f'{name} {number}')}"
    yield f"available  {'yes' if status.available else 'no'}"
    if status.detail:
        yield f"           {safe_text.label(status.detail)}"
    if status.hint and not status.available:
        yield f"next step  {safe_text.label(status.hint)}"
    for folder in status.model_folders:
        yield f"models in  {safe_text.label(folder)}"


def _store_lines(store: _Store) -> Iterator[str]:
    if not store.location:
        yield "store      none, nothing is kept"
        return
    yield f"store      {safe_text.label(store.location)}"
    size = say_bytes(store.size_bytes) or "no file yet"
    yield f"           {say_count(store.reports, 'report')}, {size}"
    for warning in store.warnings:
        yield f"warning    {safe_text.label(warning)}"


def _loaded_lines(loaded: _Loaded) -> Iterator[str]:
    instance = loaded.instance
    key = safe_text.label(instance.key)
    length = instance.context_length
    at = "context unknown" if length is None else f"at {length}"
    tested = "" if loaded.tested is None else f", true context {loaded.tested}"
    if tested and length and loaded.fit is Fit.NOT_TESTED:
        tested = f", only up to {loaded.tested} (--max-context)"
    yield f"loaded     {key} {at}: {loaded.fit}{tested}"
    yield f"           loaded by {'LMStrix' if instance.ours else 'another program'}"
    if loaded.fit is Fit.TOO_LARGE:
        command = shlex.join(["lmstrix", "apply", *(["--"] if key[:1] == "-" else []), key])
        yield f"           to load it with {loaded.tested} from now on: {command}"


DEFAULT_VALIDATOR = "recall"


def command_to_go_on(model_key: str, key: str, settings: Settings) -> str:
    """``lmstrix test MODEL`` with every option that the measurement's key depends on.

    If the key cannot be read, the model alone.
    """
    depends = parse_object(key) or {}
    words = ["lmstrix"]
    adapter = depends.get("adapter")
    is_file = model_key.lower().endswith(".gguf")
    if isinstance(adapter, str) and adapter != DEFAULT_ADAPTER and not is_file:
        words += ["--adapter", adapter]
    elif settings.host and not is_file:
        words += ["--host", settings.host]
    if settings.store:
        words += ["--store", settings.store]
    options = as_object(depends.get("method"))
    words += ["test", *_method_options(options)]
    words += [*(["--"] if model_key.startswith("-") else []), model_key]
    return shlex.join(words)


def _method_options(method: Mapping[str, object]) -> Iterator[str]:
    defaults = MeasureOptions()
    usual: Mapping[str, object] = {
        "max_context": defaults.max_context,
        "tolerance": defaults.tolerance,
        "ratio": defaults.ratio,
        "seed": defaults.seed,
        "strategy": DEFAULT_STRATEGY,
        "validator": DEFAULT_VALIDATOR,
    }
    for name, default in usual.items():
        value = method.get(name, default)
        if value != default and isinstance(value, str | int | float):
            yield from (f"--{name.replace('_', '-')}", str(value))
    if method.get("absolute") is True:
        yield "--absolute"
    if method.get("average") is True:
        yield "--average"
    levels = method.get("levels", list(DEFAULT_LEVELS))
    if isinstance(levels, list) and levels != list(DEFAULT_LEVELS):
        names = [as_text(level) for level in as_list(cast("object", levels))]
        yield from ("--levels", ",".join(filter(None, names)) or NO_LEVELS)
