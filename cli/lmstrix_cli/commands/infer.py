"""``lmstrix infer``: one prompt, one reply."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.status import Status

from lmstrix import REPLY_TOKENS, Reply, ReplyChunk, to_json
from lmstrix.reports.words import REPLY_KEEPS, escape_controls, say_seconds
from lmstrix_cli import output, session
from lmstrix_cli.options import TOKENS, json_option
from lmstrix_cli.prompts import (
    Sources,
    how_to_make_one,
    read_templates,
    sources_options,
    user_templates,
)
from lmstrix_cli.settings import Settings, pass_settings

EPILOG = """\b
Examples:
  lmstrix infer path/to/model.gguf "Why is the sky blue?"
  git diff | lmstrix infer model-key "Review this change."
  lmstrix infer model-key --file report.txt "What is missing here?"
  lmstrix infer model-key --template summary --var words=50 --file report.txt
"""


@click.command(name="infer", epilog=EPILOG)
@click.argument("model", required=False, metavar="MODEL")
@click.argument("prompt", required=False)
@sources_options
@click.option(
    "--max-tokens",
    type=TOKENS,
    metavar="N",
    help=f"Longest reply, in tokens. Default: the template's, else {REPLY_TOKENS}.",
)
@click.option(
    "--context",
    type=TOKENS,
    metavar="N",
    help="Context length to load, in tokens. Default: the true context if the model was"
    " measured, else at most 4,096.",
)
@json_option("The whole reply as one JSON object.")
@click.option("--list-templates", is_flag=True, help="Show your templates and exit.")
@pass_settings
def command(
    settings: Settings,
    model: str | None,
    prompt: str | None,
    *,
    max_tokens: int | None,
    context: int | None,
    as_json: bool,
    list_templates: bool,
    **sources: Any,  # noqa: ANN401 - click gives each option's value by its name
) -> None:
    """Send one prompt to MODEL and print the reply.

    The reply goes to stdout as it is generated; reasoning and statistics go to stderr. Text from
    files and from a pipe comes before PROMPT; if PROMPT is -, stdin is the prompt. A prompt that
    does not fit is an error before a reply is asked for; it is never shortened.
    """
    if list_templates:
        _list_templates(sources["template_file"])
        return
    if model is None:
        raise click.UsageError("name a MODEL: see `lmstrix scan`.")
    words, template_tokens = Sources(words=prompt, **sources).read()
    waiting = output.waiting("loading the model and reading the prompt")
    speaker = _Speaker(waiting, silent=as_json, thinks_aloud=not settings.quiet)

    async def ask() -> None:
        async with (
            session.client(settings) as client,
            client.stream(
                model,
                words,
                max_tokens=max_tokens or template_tokens or REPLY_TOKENS,
                context_length=context,
                on_note=speaker.note,
            ) as pieces,
        ):
            async for piece in pieces:
                speaker.hear(piece)

    waiting.start()
    try:
        session.run(ask)
    finally:
        waiting.stop()
        speaker.end_line()
    if speaker.reply is None:
        return
    if as_json:
        output.json_line(to_json(speaker.reply))
    else:
        output.note(_statistics(speaker.reply))


def _list_templates(path: Path | None) -> None:
    """One line for each template: its name, what it takes, what it is for."""
    templates = user_templates() if path is None else read_templates(path)
    if not templates:
        output.note(f"There are no templates. {how_to_make_one(path)}")
    for template in templates.values():
        places = " ".join(f"{{{name}}}" for name in template.variables)
        words = (template.name, places, output.label(template.description))
        output.out("  ".join(word for word in words if word))


class _Speaker:
    """Prints pieces as they come: the answer on stdout, reasoning dimmed on stderr."""

    def __init__(self, waiting: Status, *, silent: bool, thinks_aloud: bool) -> None:
        self.reply: Reply | None = None
        self._waiting = waiting
        self._silent = silent
        self._thinks_aloud = thinks_aloud
        self._open = {False: False, True: False}
        self._spoke = False

    def note(self, words: str) -> None:
        self._waiting.stop()
        output.note(f"Note: {output.label(words)}")

    def hear(self, piece: ReplyChunk | Reply) -> None:
        self._waiting.stop()
        if isinstance(piece, Reply):
            self.reply = piece
            if not self._spoke:  # an adapter may give the whole reply at once
                self._say(piece.reasoning, is_reasoning=True)
                self._say(piece.text, is_reasoning=False)
            return
        self._spoke = True
        self._say(piece.text, is_reasoning=piece.is_reasoning)

    def end_line(self, *streams: bool) -> None:
        """Leave the cursor at the start of a line, on both streams or on those of the reasoning
        (True) or the answer (False) alone.
        """
        for is_reasoning in streams or (True, False):
            if self._open[is_reasoning]:
                click.echo(err=is_reasoning)
                self._open[is_reasoning] = False

    def _say(self, text: str, *, is_reasoning: bool) -> None:
        if self._silent or not text or (is_reasoning and not self._thinks_aloud):
            return
        self.end_line(not is_reasoning)
        safe = escape_controls(text, keep=REPLY_KEEPS)
        shown = click.style(safe, dim=True) if is_reasoning else safe
        click.echo(shown, nl=False, err=is_reasoning)
        self._open[is_reasoning] = not text.endswith("\n")


def _statistics(reply: Reply) -> str:
    cached = "" if reply.cached_tokens is None else f" ({reply.cached_tokens:,} cached)"
    parts = [
        f"{reply.prompt_tokens:,} prompt tokens{cached}",
        f"{reply.generated_tokens:,} generated",
    ]
    if reply.ttft_s is not None:
        parts.append(f"first token after {say_seconds(reply.ttft_s)}")
    if reply.tokens_per_second is not None:
        parts.append(f"{reply.tokens_per_second:.1f} tok/s")
    parts.append(f"stopped: {reply.stop_reason.replace('_', ' ')}")
    return "[" + ", ".join(parts) + "]"
