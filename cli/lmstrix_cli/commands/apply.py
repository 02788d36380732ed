"""``lmstrix apply``: put a measured context to use."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import attrs
import click

from lmstrix.models import ContextReport, ModelInfo, StoredReport
from lmstrix.settings import (
    CONTEXT_KEY,
    NotMeasured,
    caveats,
    choose_report,
    find_home,
    find_model,
    llama_server_arguments,
    lmstudio_identifier,
    ollama_modelfile,
    plan_change,
    plan_undo,
    recommended_context,
)
from lmstrix_cli import safe_text, session
from lmstrix_cli.exit_codes import ExitCode
from lmstrix_cli.parameters import TOKENS
from lmstrix_cli.running import run_async
from lmstrix_cli.settings import Settings, pass_settings

__all__ = ["command"]

EPILOG = """\b
Examples:
  lmstrix apply model-key --dry-run
  lmstrix apply model-key --percent 90 --yes
  lmstrix apply model-key --undo
  llama-server -m model.gguf $(lmstrix apply model-key --for llama-server)
  lmstrix apply model-key --for ollama > Modelfile

\b
Exit codes:
  0  written, taken back, printed, or nothing to do
  1  a file that cannot be changed safely, or you said no
  2  wrong usage; also where nobody can be asked and --yes was not given
  4  the model has no finished true context
"""

LMSTUDIO, LLAMA_SERVER, OLLAMA = "lmstudio", "llama-server", "ollama"
RELOAD = "A model that is loaded keeps its context until it is loaded again."


@attrs.frozen(kw_only=True)
class _Wish:
    """What was asked for."""

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
        return recommended_context(
            report.true_context or 0,
            percent=100 if self.percent is None else self.percent,
            cap=self.cap,
        )


@attrs.frozen
class _Outcome:
    """How it ended: a word for programs, a sentence for people, the exit code."""

    name: str
    said: str = ""
    code: ExitCode = ExitCode.MEASURED


@click.command(name="apply", epilog=EPILOG)
@click.argument("model")
@click.option(
    "--percent",
    type=click.FloatRange(min=0, max=100, min_open=True),
    metavar="P",
    help="Set P percent of the true context, rounded down to a multiple of 256. Default: 100.",
)
@click.option("--cap", type=TOKENS, metavar="N", help="Set no more than N tokens: 32768, 32k.")
@click.option(
    "--for",
    "target",
    type=click.Choice([LMSTUDIO, LLAMA_SERVER, OLLAMA]),
    default=LMSTUDIO,
    show_default=True,
    help="Whose setting. The last two are printed, and nothing is written.",
)
@click.option("--undo", is_flag=True, help="Put back what was there before, to the byte.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Show the difference and write nothing.")
@click.option(
    "--home",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="PATH",
    help="LM Studio's own folder. Default: where LM Studio's tools look, mostly ~/.lmstudio.",
)
@click.option("--json", "as_json", is_flag=True, help="What was done as one JSON object.")
@click.pass_context
@pass_settings
def command(settings: Settings, ctx: click.Context, *, undo: bool, **wished: object) -> None:
    """Write the true context of MODEL into LM Studio's settings for it.

    The newest finished measurement counts. The difference is shown first and you are asked;
    everything else in the file stays as it is, and a backup is kept beside it. For
    llama-server and Ollama the setting is printed instead.
    """
    wish = _Wish(**wished, store=settings.store)  # pyright: ignore[reportArgumentType] - click gives each option by its name
    _check_usage(wish, undo=undo)
    reports = run_async(lambda: _reports(settings))
    if undo:
        code = _undo(wish, reports)
    elif wish.target == LMSTUDIO:
        code = _write(wish, reports)
    else:
        code = _print(wish, reports)
    ctx.exit(code)


def _check_usage(wish: _Wish, *, undo: bool) -> None:
    if wish.percent is not None and wish.cap is not None:
        raise click.UsageError("give --percent or --cap, not both.")
    if wish.target != LMSTUDIO and (undo or wish.home is not None):
        raise click.UsageError(f"nothing is written for {wish.target}: no --undo, no --home.")
    if undo and (wish.percent is not None or wish.cap is not None):
        raise click.UsageError("--undo takes neither --percent nor --cap.")
    if wish.yes and wish.dry_run:
        raise click.UsageError("give --yes or --dry-run, not both.")


async def _reports(settings: Settings) -> Sequence[StoredReport]:
    async with session.client(settings) as client:
        return await client.reports()


def _write(wish: _Wish, reports: Sequence[StoredReport]) -> ExitCode:
    report = choose_report(reports, wish.model)
    home = find_home(wish.home)
    change = plan_change(home, lmstudio_identifier(report.model, home), wish.context(report))
    told = _facts(wish, reports, report) | {
        "context": change.context,
        "before": change.old_context,
        "path": str(change.path),
    }
    if not change.needed:
        said = f"Nothing to do: {safe_text.label(str(change.path))} says so already."
        return _end(wish, told, _Outcome("unchanged", said))
    _show(wish, change.path, change.difference, (change.old_context, change.context))
    outcome = _ask(wish, "Write this?")
    if outcome is None:
        backup = str(change.write())
        told["backup"] = backup
        said = f"Written, and read back. Backup: {safe_text.label(backup)}\n{RELOAD}"
        outcome = _Outcome("written", f"{said}\nTo take it back: {_undoing(wish)}")
    return _end(wish, told, outcome)


def _undo(wish: _Wish, reports: Sequence[StoredReport]) -> ExitCode:
    home = find_home(wish.home)
    try:
        model = find_model(reports, wish.model)
    except NotMeasured:
        model = ModelInfo(key=wish.model)  # the store may be another one by now
    plan = plan_undo(home, lmstudio_identifier(model, home))
    before, after = plan.contexts
    _show(wish, plan.path, plan.difference, (before, after))
    outcome = _ask(wish, "Put this back?")
    if outcome is None:
        plan.write()
        outcome = _Outcome("undone", f"Put back, to the byte. {RELOAD}")
    told: dict[str, object] = {"model": model.key, "for": wish.target}
    told |= {"context": after, "before": before, "path": str(plan.path)}
    return _end(wish, told, outcome)


def _print(wish: _Wish, reports: Sequence[StoredReport]) -> ExitCode:
    report = choose_report(reports, wish.model)
    context = wish.context(report)
    if wish.target == LLAMA_SERVER:
        text = llama_server_arguments(context)
        how = f"llama-server -m MODEL.gguf {text}. Its slots (--parallel) share this context."
    else:
        text = ollama_modelfile(report.model, context)
        how = (
            "put this into a file named Modelfile, then `ollama create NAME -f Modelfile` and"
            f" `ollama run NAME`. For one session: `/set parameter num_ctx {context}`."
        )
    told = _facts(wish, reports, report) | {"context": context, "setting": text}
    if not wish.as_json:
        safe_text.out(text)
        safe_text.note(f"How to use it: {how}")
    return _end(wish, told, _Outcome("printed"))


def _facts(
    wish: _Wish, reports: Sequence[StoredReport], report: ContextReport
) -> dict[str, object]:
    """What is known of the model; said as well, on stderr where stdout is for a program."""
    engine = {LMSTUDIO: "lmstudio", LLAMA_SERVER: "llamacpp"}.get(wish.target, "")
    notes = caveats(reports, report, engine=engine)
    if not wish.as_json:
        say = safe_text.out if wish.target == LMSTUDIO else safe_text.note
        when = report.finished_at.date().isoformat()
        key = safe_text.label(report.model.key)
        say(f"{key}: true context {report.true_context}, measured on {when}")
        for sentence in notes:
            safe_text.note(f"Note: {safe_text.label(sentence)}")
    return {
        "model": report.model.key,
        "for": wish.target,
        "true_context": report.true_context,
        "certified": report.certified,
        "notes": notes,
    }


def _show(
    wish: _Wish, path: Path, difference: str, contexts: tuple[float | None, float | None]
) -> None:
    """The difference; with ``--json`` on stderr, so that stdout holds the object alone."""
    say = safe_text.note_as_it_is if wish.as_json else safe_text.out
    old, new = ("not set" if context is None else f"{context}" for context in contexts)
    say(f"{safe_text.label(str(path))}\n  {CONTEXT_KEY}: {old} -> {new}")
    if difference:
        say("\n".join(safe_text.label(line) for line in difference.split("\n")))


def _ask(wish: _Wish, question: str) -> _Outcome | None:
    """None to go on, or how it ends here."""
    if wish.dry_run:
        return _Outcome("dry_run", "Dry run: nothing was written.")
    if wish.yes:
        return None
    if not _somebody_is_there():
        said = "nothing was written: there is no terminal to ask on"
        return _Outcome("refused", said, ExitCode.USAGE)
    try:
        if click.confirm(question, err=True):
            return None
    except click.Abort:  # Ctrl-C, or the end of what is typed
        safe_text.note("")
    return _Outcome("refused", "nothing was written", ExitCode.OTHER)


def _undoing(wish: _Wish) -> str:
    """The command that takes it back."""
    # The store knows which file the model's name means.
    store = ["--store", wish.store] if wish.store else []
    home = [] if wish.home is None else ["--home", str(wish.home)]
    model = ["--", wish.model] if wish.model.startswith("-") else [wish.model]
    return safe_text.label(shlex.join(["lmstrix", *store, "apply", "--undo", *home, *model]))


def _somebody_is_there() -> bool:
    return sys.stdin.isatty()


def _end(wish: _Wish, told: dict[str, object], outcome: _Outcome) -> ExitCode:
    if outcome.code:
        hint = "Say --yes to write, or --dry-run to look." if outcome.code == 2 else ""
        safe_text.error(outcome.said, hint)
    elif outcome.said and not wish.as_json:
        safe_text.out(outcome.said)
    if wish.as_json:
        document = told | {"outcome": outcome.name}
        safe_text.json_line(json.dumps(document, ensure_ascii=False))
    return outcome.code
