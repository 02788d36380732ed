"""``lmstrix status``: the engine, the loaded models, the store, interrupted measurements."""

from __future__ import annotations

import enum
import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import anyio.to_thread
import attrs
import click
from rich.console import RenderableType

from lmstrix import (
    DEFAULT_ADAPTER,
    EMBEDDED_ADAPTER,
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
from lmstrix.json_values import Json, as_count, as_object, as_text, parse_object
from lmstrix.locks import holders
from lmstrix.reports.words import apply_command, method_options, say_bytes, say_count
from lmstrix.stores.export import KeptMeasurement
from lmstrix_cli import output, session
from lmstrix_cli.errors import ExitCode
from lmstrix_cli.options import json_option
from lmstrix_cli.results import newest_true
from lmstrix_cli.settings import Settings, pass_settings

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
    unfinished: Sequence[_Interrupted]
    store: str
    store_reports: int
    store_bytes: int
    store_warnings: tuple[str, ...]


@click.command(name="status", epilog=EPILOG)
@json_option("One JSON object.")
@click.pass_context
@pass_settings
def command(settings: Settings, ctx: click.Context, *, as_json: bool) -> None:
    """Show the engine, what is loaded, the store, and which measurements run or were interrupted.

    Without --adapter, the engine is LM Studio, or else Ollama or llama-server if that answers. For
    each loaded model, shows whether more context is loaded than the model can use. The exit code is
    3 if no engine can be reached.
    """
    overview = session.ask(lambda: _overview(settings))
    if as_json:
        output.json_object(_as_json(overview))
    else:
        output.out(*_screen(overview, settings))
    if not overview.status.available:
        ctx.exit(ExitCode.UNREACHABLE)


async def _overview(settings: Settings) -> _Overview:
    async with session.open_client(settings) as client:
        status, *others = await _answering(client)
        for one in others:
            output.note(f"{one.engine} answers too: lmstrix --adapter {one.adapter} status")
        try:
            summaries, unfinished = await client.summaries(), await _unfinished(client)
            trouble = ()
        except StoreError as error:  # the engine can be shown all the same
            summaries, unfinished, trouble = (), (), (str(error),)
        same = [one for one in summaries if one.adapter == status.adapter]
        tested = newest_true(same, by="model_key")
        turns = {one.model_key: one.pid for one in await anyio.to_thread.run_sync(holders)}
        return _Overview(
            status=status,
            loaded=[_Instance(instance=i, result=tested.get(i.key)) for i in status.loaded],
            unfinished=[
                _Interrupted(
                    model=name,
                    command=command_to_go_on(name, key, settings),
                    running=name in turns,
                    pid=turns.pop(name, None),  # the newest of that model
                )
                for name, key in unfinished
            ],
            store=client.store.location,
            store_reports=len(summaries),
            store_bytes=session.store_bytes(client.store.location),
            store_warnings=(*trouble, *client.store.warnings),
        )


async def _answering(client: LMStrix) -> Sequence[Status]:
    """The status of each server that answers; of the usual one if none does."""
    usual = await client.status()
    others = [await server.status() for server in await client.other_servers()]
    return [one for one in (usual, *others) if one.available] or [usual]


async def _unfinished(client: LMStrix) -> Sequence[tuple[str, str]]:
    """Models with an interrupted measurement, and the key of each; empty if it is not known."""
    if isinstance(client.store, Archive):
        kept = await client.store.interrupted()
        return [(one.model.key, one.key) for one in kept if not _ended_quickly(one)]
    return [(model.key, "") for model in await client.unfinished_models()]


def _ended_quickly(kept: KeptMeasurement) -> bool:
    """Whether this is a whole result of ``--quick``, from which a full measurement continues, and
    none has begun to: it would have loaded the model again.
    """
    report = kept.report
    if report is None or not report.method.quick or report.cause in UNFINISHED:
        return False
    return kept.cost.loads <= report.cost.loads


def _as_json(overview: _Overview) -> Json:
    """The status, with more keys."""
    document: dict[str, Any] = json.loads(to_json(overview.status))
    for shown, loaded in zip(document["loaded"], overview.loaded, strict=True):
        shown["tested_context"] = loaded.tested
        shown["fit"] = loaded.fit.replace(" ", "_")
    for name in ("store", "store_reports", "store_bytes", "store_warnings"):
        document[name] = getattr(overview, name)
    idle = [one for one in overview.unfinished if not one.running]
    document["running"] = [one.model for one in overview.unfinished if one.running]
    document["unfinished"] = [one.model for one in idle]
    document["go_on"] = [one.command for one in idle]
    return document


def _screen(overview: _Overview, settings: Settings) -> Iterator[RenderableType]:
    yield output.grid(*_engine(overview.status), *_loaded(overview), *_store(overview), gap=2)
    for one in overview.loaded:
        if one.fit is Fit.TOO_LARGE and not one.instance.ours:
            store = ["--store", settings.store] if settings.store else []
            command = apply_command(one.instance.key, overview.status.adapter, store)
            yield output.verbatim(f"\nTo load it with {one.tested:,} from now on: {command}")
    for one in overview.unfinished:
        if one.running:
            process = "another process" if one.pid is None else f"process {one.pid}"
            yield output.verbatim(f"\nrunning {output.label(one.model)} ({process})")
        else:
            yield output.verbatim(f"\nunfinished {output.label(one.model)}")
            yield output.verbatim(f"To continue: {output.label(one.command)}")


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
    measured = {one.model for one in overview.unfinished if one.running}
    for one in overview.loaded:
        length = one.instance.context_length
        at = "context unknown" if length is None else f"at {length:,}"
        tested = "" if one.tested is None else f", true context {one.tested:,}"
        if tested and length and one.fit is Fit.NOT_TESTED:
            tested = f" beyond {one.tested:,} (--max-context)"
        if one.instance.ours or one.instance.key in measured:
            # A measurement or a prompt that runs now.
            yield "loaded", f"{one.instance.key} {at}"
            yield "", "loaded by LMStrix" if one.instance.ours else "in use by a measurement"
        else:
            yield "loaded", f"{one.instance.key} {at}: {one.fit}{tested}"
            yield "", "loaded by another program"


def _store(overview: _Overview) -> Iterator[tuple[str, str]]:
    if not overview.store:
        yield "store", "none, nothing is kept"
        return
    yield "store", overview.store
    size = say_bytes(overview.store_bytes) or "no file yet"
    yield "", f"{say_count(overview.store_reports, 'result')}, {size}"
    for warning in overview.store_warnings:
        yield "warning", warning


def command_to_go_on(model_key: str, key: str, settings: Settings) -> str:
    """``lmstrix test MODEL`` with the options that the measurement's key depends on.

    If the key cannot be read, the model alone. What it does not hold is the user's to repeat:
    ``--binary``, ``--server-args`` and ``--declared``, unless this command has them too.
    """
    depends = parse_object(key) or {}
    words = ["lmstrix"]
    adapter = as_text(depends.get("adapter"))
    usual = EMBEDDED_ADAPTER if model_key.lower().endswith(".gguf") else DEFAULT_ADAPTER
    if adapter and adapter != usual:
        words += ["--adapter", adapter]
    # What was named here is of one adapter only.
    same = (adapter or usual) == (settings.adapter or DEFAULT_ADAPTER) != EMBEDDED_ADAPTER
    given = settings if same else Settings()
    # A server with models of its own; see `lmstrix.measure.state.server_of`.
    server = as_text(depends.get("server")).rpartition(" at ")[2]
    words += replace(given, host=server or given.host).server_options()
    if settings.store:
        words += ["--store", settings.store]
    words += ["test"]
    if memory := as_count(depends.get("memory")):
        words += ["--max-memory", str(memory)]
    if documents := as_count(depends.get("documents")):
        words += ["--documents", str(documents)]
    method = as_object(depends.get("method"))
    if (seed := as_count(method.get("seed"))) not in {None, MeasureOptions().seed}:
        words += ["--seed", str(seed)]
    words += method_options(method)
    # A name may look like an option.
    words += ["--", model_key] if model_key.startswith("-") else [model_key]
    return shlex.join(words)
