"""``lmstrix status``: the engine, the loaded models, the store, interrupted measurements."""

from __future__ import annotations

import enum
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import anyio.to_thread
import attrs
import click
from rich.console import RenderableType

from lmstrix import (
    DEFAULT_ADAPTER,
    DEFAULT_LEVELS,
    DEFAULT_STRATEGY,
    UNFINISHED,
    Archive,
    Cause,
    LMStrix,
    LoadedInstance,
    MeasureOptions,
    ReportSummary,
    Status,
    StoreError,
    to_json,
)
from lmstrix.locks import holders
from lmstrix.reports.words import NO_LEVELS, say_bytes, say_count
from lmstrix_cli import output, session
from lmstrix_cli.errors import ExitCode
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
class _Instance:
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
class _StoreFacts:
    location: str
    reports: int
    size_bytes: int
    warnings: tuple[str, ...]


@attrs.frozen(kw_only=True)
class _Interrupted:
    """A measurement that can go on; `pid` is None unless a process runs it right now."""

    model: str
    command: str
    running: bool
    pid: int | None


@attrs.frozen(kw_only=True)
class _Overview:
    status: Status
    loaded: Sequence[_Instance]
    store: _StoreFacts
    unfinished: Sequence[_Interrupted]


@click.command(name="status", epilog=EPILOG)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_context
@pass_settings
def command(settings: Settings, ctx: click.Context, *, as_json: bool) -> None:
    """Show the engine, what is loaded, the store, and which measurements run or were interrupted.

    For each loaded model, shows whether more context is loaded than the model can use. The exit
    code is 3 if the engine cannot be reached.
    """
    overview = session.run(lambda: _overview(settings))
    if as_json:
        output.json_line(_as_json(overview))
    else:
        output.out(*_screen(overview))
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
        turns = {one.model_key: one.pid for one in await anyio.to_thread.run_sync(holders)}
        return _Overview(
            status=status,
            loaded=[_Instance(instance=i, result=tested.get(i.key)) for i in status.loaded],
            store=_StoreFacts(
                location=client.store.location,
                reports=len(summaries),
                size_bytes=session.store_bytes(client.store.location),
                warnings=(*trouble, *client.store.warnings),
            ),
            unfinished=[
                _Interrupted(
                    model=name,
                    command=command_to_go_on(name, key, settings),
                    running=name in turns,
                    pid=turns.pop(name, None),  # the newest of that model
                )
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
    idle = [one for one in overview.unfinished if not one.running]
    document["running"] = [one.model for one in overview.unfinished if one.running]
    document["unfinished"] = [one.model for one in idle]
    document["go_on"] = [one.command for one in idle]
    return json.dumps(document, ensure_ascii=False)


def _screen(overview: _Overview) -> Iterator[RenderableType]:
    yield output.grid(*_engine(overview.status), *_loaded(overview), *_store(overview.store), gap=2)
    too_large = [one for one in overview.loaded if one.fit is Fit.TOO_LARGE]
    for one in too_large:
        key = one.instance.key
        words = ["lmstrix", "apply", *(["--"] if key[:1] == "-" else []), key]
        yield output.verbatim(f"\nTo load it with {one.tested} from now on: {_shell(words)}")
    for one in overview.unfinished:
        if one.running:
            process = "another process" if one.pid is None else f"process {one.pid}"
            yield output.verbatim(f"\nrunning {output.label(one.model)} ({process})")
            continue
        yield output.verbatim(f"\nunfinished {output.label(one.model)}")
        yield output.verbatim(f"To continue: {output.label(one.command)}")


def _shell(words: Sequence[str]) -> str:
    return output.label(shlex.join(words))


def _engine(status: Status) -> Iterator[tuple[str, str]]:
    yield "adapter", status.adapter
    yield "engine", status.engine
    for name, number in status.versions.items():
        yield "version", f"{name} {number}"
    yield "available", "yes" if status.available else "no"
    if status.detail:
        yield "", status.detail
    if status.hint and not status.available:
        yield "next step", status.hint
    for folder in status.model_folders:
        yield "models in", folder


def _loaded(overview: _Overview) -> Iterator[tuple[str, str]]:
    for one in overview.loaded:
        length = one.instance.context_length
        at = "context unknown" if length is None else f"at {length}"
        tested = "" if one.tested is None else f", true context {one.tested}"
        if tested and length and one.fit is Fit.NOT_TESTED:
            tested = f", only up to {one.tested} (--max-context)"
        yield "loaded", f"{one.instance.key} {at}: {one.fit}{tested}"
        yield "", f"loaded by {'LMStrix' if one.instance.ours else 'another program'}"


def _store(store: _StoreFacts) -> Iterator[tuple[str, str]]:
    if not store.location:
        yield "store", "none, nothing is kept"
        return
    yield "store", store.location
    size = say_bytes(store.size_bytes) or "no file yet"
    yield "", f"{say_count(store.reports, 'report')}, {size}"
    for warning in store.warnings:
        yield "warning", warning


DEFAULT_VALIDATOR = "recall"


def command_to_go_on(model_key: str, key: str, settings: Settings) -> str:
    """``lmstrix test MODEL`` with every option that the measurement's key depends on.

    If the key cannot be read, the model alone.
    """
    depends = _object(key)
    words = ["lmstrix"]
    adapter = depends.get("adapter")
    is_file = model_key.lower().endswith(".gguf")
    if isinstance(adapter, str) and adapter != DEFAULT_ADAPTER and not is_file:
        words += ["--adapter", adapter]
    elif settings.host and not is_file:
        words += ["--host", settings.host]
    if settings.store:
        words += ["--store", settings.store]
    words += ["test", *_method_options(_object(json.dumps(depends.get("method"))))]
    words += [*(["--"] if model_key.startswith("-") else []), model_key]
    return shlex.join(words)


def _object(text: str) -> dict[str, Any]:
    """A JSON object; an empty one for any other text."""
    try:
        found: object = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _method_options(method: Mapping[str, Any]) -> Iterator[str]:
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
        names = [level for level in cast("list[object]", levels) if isinstance(level, str)]
        yield from ("--levels", ",".join(names) or NO_LEVELS)
