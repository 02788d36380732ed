"""``lmstrix apply``: put a measured context to use."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import attrs
import click

from lmstrix import (
    ContextReport,
    LMStrixError,
    ModelInfo,
    NotMeasured,
    SettingsError,
    StoredReport,
    apply,
)
from lmstrix.reports.words import apply_command
from lmstrix_cli import output
from lmstrix_cli.errors import ExitCode, explain_known, worst
from lmstrix_cli.options import TOKENS, json_option
from lmstrix_cli.results import name_of, stored
from lmstrix_cli.settings import Settings, pass_settings

EPILOG = """\b
Examples:
  lmstrix apply model-key --dry-run
  lmstrix apply model-key --percent 90 --yes
  lmstrix apply --all --dry-run
  lmstrix apply model-key --undo
  llama-server -m model.gguf $(lmstrix apply model-key --for llama-server)
  lmstrix apply model-key --for ollama > Modelfile

\b
Exit codes:
  0  written, restored, printed, or nothing to do
  1  the file cannot be changed safely, or you answered no
  2  wrong usage, or there is no terminal to ask on and no --yes
  4  the model has no finished true context
"""

LMSTUDIO, LLAMA_SERVER, OLLAMA = "lmstudio", "llama-server", "ollama"
_ENGINES = {
    LMSTUDIO: ("lmstudio",),
    LLAMA_SERVER: ("llama-server", "llamacpp"),
    OLLAMA: ("ollama",),
}
"""The adapters whose measurements are about the program itself."""
RELOAD = "A model that is loaded keeps its context until it is loaded again."
FITTED = "LM Studio may then fit it to the memory: `lmstrix status` shows what was loaded."


@attrs.frozen(kw_only=True)
class _Wish:
    """The options of one call."""

    model: str
    percent: float | None
    cap: int | None
    target: str
    home: Path | None
    yes: bool
    dry_run: bool
    as_json: bool
    store: str | None

    def context(self, report: ContextReport) -> int:
        """The context to set, in tokens."""
        return apply.recommended_context(
            report.true_context or 0,
            percent=100 if self.percent is None else self.percent,
            cap=self.cap,
        )


@click.command(name="apply", epilog=EPILOG)
@click.argument("model", required=False)
@click.option(
    "--all",
    "every",
    is_flag=True,
    help="Every measured model that LM Studio has; the others are named on stderr.",
)
@click.option(
    "--percent",
    type=click.FloatRange(min=0, max=100, min_open=True),
    metavar="P",
    help="Set P percent of the true context; less than 100 is rounded down to a multiple of 256.",
)
@click.option("--cap", type=TOKENS, metavar="N", help="Set no more than N tokens: 32768, 32k.")
@click.option(
    "--for",
    "target",
    type=click.Choice([LMSTUDIO, LLAMA_SERVER, OLLAMA]),
    default=LMSTUDIO,
    show_default=True,
    help="The program to set it for. For llama-server and ollama, the setting is only printed.",
)
@click.option("--undo", is_flag=True, help="Restore the file as it was before the last change.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Show the difference and write nothing.")
@click.option(
    "--home",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="PATH",
    help="LM Studio's home. Default: where LM Studio's own tools look, usually ~/.lmstudio.",
)
@json_option("Print the result as one JSON object for each model.")
@click.pass_context
@pass_settings
def command(
    settings: Settings,
    ctx: click.Context,
    *,
    model: str | None,
    every: bool,
    undo: bool,
    **wished: object,
) -> None:
    """Write the true context of MODEL into LM Studio's settings for it.

    Uses the newest finished result, preferably one measured with the program itself. A result with
    --quick does not replace a full one, nor one with --max-context a larger one. Shows the
    difference and asks first, keeps every other setting, and leaves a backup next to the file. For
    llama-server and Ollama it prints the setting instead.
    """
    if every and (model or undo):
        raise click.UsageError("--all takes neither a model nor --undo.")
    if every and wished["target"] != LMSTUDIO:
        raise click.UsageError("--all is for LM Studio: for another program name one model.")
    if not every and not model:
        raise click.UsageError("name a measured model (see `lmstrix list`), or use --all.")
    wish = _Wish(model=model or "", **wished, store=settings.store)  # pyright: ignore[reportArgumentType] - click gives each option by its name
    _check_usage(wish, undo=undo)
    reports = stored(settings)
    if every:
        code = _apply_all(wish, reports)
    elif undo:
        code = _undo(wish, reports)
    else:
        code = _apply(wish, reports)
    ctx.exit(code)


def _apply(wish: _Wish, reports: Sequence[StoredReport]) -> ExitCode:
    return _write(wish, reports) if wish.target == LMSTUDIO else _print(wish, reports)


def _apply_all(wish: _Wish, reports: Sequence[StoredReport]) -> ExitCode:
    """The newest result of every model that LM Studio can have; the others are left out.

    Of two results for one settings file, LM Studio's own is taken.
    """
    home = apply.existing_home(wish.home)
    found: dict[str, tuple[str, bool]] = {}
    for name in dict.fromkeys(name_of(one.report) for one in reports):
        try:
            report = _chosen(reports, name, LMSTUDIO)
            identifier = _identifier(report, home)
        except LMStrixError as error:
            output.note(f"left out: {error}")
            continue
        own = report.environment.adapter in _ENGINES[LMSTUDIO]
        if identifier not in found or (own and not found[identifier][1]):
            found[identifier] = name, own
    codes: list[ExitCode] = []
    for name, _ in found.values():
        if codes and not wish.as_json:
            output.out("")
        try:
            codes.append(_apply(attrs.evolve(wish, model=name), reports))
        except LMStrixError as error:
            codes.append(explain_known(error))
    if not codes:
        raise NotMeasured(
            "there is no measured model to apply", hint="Measure one first: lmstrix test MODEL."
        )
    return worst(codes)


def _check_usage(wish: _Wish, *, undo: bool) -> None:
    if wish.percent is not None and wish.cap is not None:
        raise click.UsageError("give --percent or --cap, not both.")
    if wish.target != LMSTUDIO and (undo or wish.home is not None):
        raise click.UsageError(f"--undo and --home do not work with --for {wish.target}.")
    if undo and (wish.percent is not None or wish.cap is not None):
        raise click.UsageError("--undo takes neither --percent nor --cap.")
    if wish.yes and wish.dry_run:
        raise click.UsageError("give --yes or --dry-run, not both.")


def _chosen(reports: Sequence[StoredReport], name: str, target: str) -> ContextReport:
    """The result to apply: one of the program itself, if there is one."""
    return apply.choose_report(reports, name, engines=_ENGINES[target])


def _write(wish: _Wish, reports: Sequence[StoredReport]) -> ExitCode:
    report = _chosen(reports, wish.model, wish.target)
    _check_engine(report)
    home = apply.existing_home(wish.home)
    change = apply.plan_change(home, _identifier(report, home), wish.context(report))
    facts = _facts(wish, reports, report)
    if not change.needed:
        said = f"Nothing to do: {output.label(str(change.path))} already sets this context."
        return _end(wish, facts | _contexts(change), "unchanged", said)
    return _settle(wish, facts, change, question="Write this?")


def _identifier(report: ContextReport, home: Path) -> str:
    """LM Studio's identifier of the model: its own, or that of a file in its models folder."""
    _check_engine(report)
    return apply.settings_identifier(report.model, home)


def _check_engine(report: ContextReport) -> None:
    """Raises `SettingsError` for what LM Studio cannot have."""
    adapter, model = report.environment.adapter, report.model
    if adapter != "lmstudio" and not (model.path and Path(model.path).is_absolute()):
        program = next((name for name, of in _ENGINES.items() if adapter in of), "")
        command = apply_command(model.key, program) if program else ""
        elsewhere = (
            f"print the setting: {command}" if command else "set it where its server starts."
        )
        raise SettingsError(
            f"{model.key!r} was measured with {adapter}, not in LM Studio",
            hint=f"Measure it with --adapter lmstudio, or {elsewhere}",
        )


def _undo(wish: _Wish, reports: Sequence[StoredReport]) -> ExitCode:
    home = apply.existing_home(wish.home)
    try:
        model = apply.find_model(reports, wish.model, engines=_ENGINES[wish.target])
    except NotMeasured:
        model = ModelInfo(key=wish.model)  # the store may be another one by now
    change = apply.plan_undo(home, apply.settings_identifier(model, home))
    facts: dict[str, object] = {"model": model.key, "for": wish.target}
    return _settle(wish, facts, change, question="Restore this?")


def _settle(
    wish: _Wish, facts: dict[str, object], change: apply.Change, *, question: str
) -> ExitCode:
    """Show the change, ask, and write it."""
    _show(wish, change)
    facts |= _contexts(change)
    if wish.dry_run:
        return _end(wish, facts, "dry_run", "Dry run: nothing was written.")
    if not wish.yes and not _somebody_is_there():
        output.error(
            "nothing was written: there is no terminal to ask on",
            "Give --yes to write, or --dry-run to see the change.",
        )
        return _end(wish, facts, "refused", code=ExitCode.USAGE)
    if not wish.yes and not _agreed(question):
        output.error("nothing was written")
        return _end(wish, facts, "refused", code=ExitCode.OTHER)
    backup = change.write()
    if change.restores is not None:
        return _end(wish, facts, "undone", f"Undone. {RELOAD}")
    facts["backup"] = str(backup)
    said = f"Written. Backup: {output.label(str(backup))}\n{RELOAD} {FITTED}"
    return _end(wish, facts, "written", f"{said}\nTo undo: {_undo_command(wish)}")


def _agreed(question: str) -> bool:
    try:
        return click.confirm(question, err=True)
    except click.Abort:  # Ctrl-C, or the end of what is typed
        output.note("")
        return False


def _somebody_is_there() -> bool:
    return sys.stdin.isatty()


def _contexts(change: apply.Change) -> dict[str, object]:
    return {
        "context": change.new_context,
        "before": change.old_context,
        "path": str(change.path),
    }


def _print(wish: _Wish, reports: Sequence[StoredReport]) -> ExitCode:
    report = _chosen(reports, wish.model, wish.target)
    context = wish.context(report)
    if wish.target == LLAMA_SERVER:
        text = apply.llama_server_arguments(context)
        file = report.model.path if Path(report.model.path).is_absolute() else "MODEL.gguf"
        start = shlex.join(["llama-server", "-m", file])
        how = f"{output.label(start)} {text}. Its slots (--parallel) share this context."
    else:
        text = apply.ollama_modelfile(report.model, context, adapter=report.environment.adapter)
        how = (
            "save this as a file named Modelfile, then run `ollama create NAME -f Modelfile` and"
            f" `ollama run NAME`. For one session: `/set parameter num_ctx {context}`."
        )
    facts = _facts(wish, reports, report) | {"context": context, "setting": text}
    if not wish.as_json:
        output.out(output.verbatim(text))
        output.note(f"How to use it: {how}")
        if apply.MODEL_PLACEHOLDER in text:
            output.note(f"Replace {apply.MODEL_PLACEHOLDER} with Ollama's name for the model.")
    return _end(wish, facts, "printed")


def _facts(
    wish: _Wish, reports: Sequence[StoredReport], report: ContextReport
) -> dict[str, object]:
    """The facts about the model, also printed: on stderr if stdout is for a program."""
    same = report.environment.adapter in _ENGINES[wish.target]
    engine = "" if same else _ENGINES[wish.target][0]
    notes = apply.caveats(reports, report, engine=engine)
    if not wish.as_json:
        say = output.out if wish.target == LMSTUDIO else output.note
        when = report.finished_at.date().isoformat()
        say(f"{report.model.key}: true context {report.true_context:,}, measured on {when}")
        for sentence in notes:
            output.note(f"Note: {sentence}")
    return {
        "model": report.model.key,
        "for": wish.target,
        "true_context": report.true_context,
        "certified": report.certified,
        "notes": notes,
    }


def _show(wish: _Wish, change: apply.Change) -> None:
    """The difference; with ``--json`` on stderr, so that stdout has the object alone."""
    say = output.note if wish.as_json else output.out
    contexts = (change.old_context, change.new_context)
    old, new = ("not set" if context is None else f"{context:,}" for context in contexts)
    lines = [output.label(str(change.path)), f"  {apply.CONTEXT_KEY}: {old} -> {new}"]
    lines += map(output.label, change.difference.split("\n") if change.difference else ())
    say(output.verbatim("\n".join(lines)))


def _undo_command(wish: _Wish) -> str:
    # The store knows which file the model's name means.
    store = ["--store", wish.store] if wish.store else []
    home = [] if wish.home is None else ["--home", str(wish.home)]
    model = ["--", wish.model] if wish.model.startswith("-") else [wish.model]
    return output.label(shlex.join(["lmstrix", *store, "apply", "--undo", *home, *model]))


def _end(
    wish: _Wish,
    facts: dict[str, object],
    outcome: str,
    said: str = "",
    *,
    code: ExitCode = ExitCode.MEASURED,
) -> ExitCode:
    """Print the end: `outcome` is a word for programs, `said` a sentence for people."""
    if wish.as_json:
        output.json_object(facts | {"outcome": outcome})
    elif said:
        output.out(said)
    return code
