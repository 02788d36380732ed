"""``lmstrix infer``: one prompt, one reply."""

from __future__ import annotations

import sys
from contextlib import aclosing

import click

from lmstrix.converter import to_json
from lmstrix.models import Reply, ReplyChunk
from lmstrix.reports.escaping import REPLY_KEEPS, escape_controls
from lmstrix.reports.quantities import say_seconds
from lmstrix_cli import safe_text, session
from lmstrix_cli.parameters import TOKENS
from lmstrix_cli.running import Interrupted, run_async
from lmstrix_cli.settings import Settings, pass_settings

__all__ = ["command"]

EPILOG = """\b
Examples:
  lmstrix infer path/to/model.gguf "Why is the sky blue?"
  lmstrix infer model-key - < question.txt
"""

REPLY_TOKENS = 512


@click.command(name="infer", epilog=EPILOG)
@click.argument("model")
@click.argument("prompt")
@click.option(
    "--max-tokens",
    type=TOKENS,
    metavar="N",
    default=REPLY_TOKENS,
    show_default=True,
    help="Longest reply, in tokens.",
)
@click.option(
    "--context",
    type=TOKENS,
    metavar="N",
    help="Context length to load, in tokens. Default: the true context if the model was"
    " measured, else at most 4096.",
)
@click.option("--json", "as_json", is_flag=True, help="The whole reply as one JSON object.")
@click.option("-q", "--quiet", is_flag=True, help="The answer only: no reasoning, no statistics.")
@pass_settings
def command(
    settings: Settings,
    model: str,
    prompt: str,
    max_tokens: int,
    context: int | None,
    *,
    as_json: bool,
    quiet: bool,
) -> None:
    """Ask MODEL one thing and print the reply.

    The reply goes to stdout as it is written; reasoning and statistics go to stderr. PROMPT
    is text, or - to read it from stdin. A prompt that does not fit is an error; it is never
    shortened.
    """
    text = _read_stdin() if prompt == "-" else prompt
    if not text.strip():
        raise click.UsageError("the prompt is empty.")
    quiet = quiet or settings.quiet
    speaker = _Speaker(silent=as_json, thinks_aloud=not quiet)

    async def ask() -> Reply | None:
        async with session.client(settings) as client:
            pieces = client.stream(model, text, max_tokens=max_tokens, context_length=context)
            async with aclosing(pieces):
                async for piece in pieces:
                    speaker.hear(piece)
        return speaker.reply

    try:
        reply = run_async(ask)
    except Interrupted:
        speaker.end_line()
        raise
    speaker.end_line()
    if reply is None:
        return
    if as_json:
        safe_text.json_line(to_json(reply))
    elif not quiet:
        safe_text.note(_statistics(reply))


class _Speaker:
    """Prints pieces as they come: the answer on stdout, reasoning dimmed on stderr."""

    def __init__(self, *, silent: bool, thinks_aloud: bool) -> None:
        self.reply: Reply | None = None
        self._silent = silent
        self._thinks_aloud = thinks_aloud
        self._open = {False: False, True: False}
        self._spoke = False

    def hear(self, piece: ReplyChunk | Reply) -> None:
        if isinstance(piece, Reply):
            self.reply = piece
            if not self._spoke:  # an adapter may give the whole reply at once
                self._say(piece.reasoning, is_reasoning=True)
                self._say(piece.text, is_reasoning=False)
            return
        self._spoke = True
        self._say(piece.text, is_reasoning=piece.is_reasoning)

    def end_line(self) -> None:
        """Leave the cursor at the start of a line, on both streams."""
        for is_reasoning in (True, False):
            self._end_line(is_reasoning=is_reasoning)

    def _say(self, text: str, *, is_reasoning: bool) -> None:
        if self._silent or not text or (is_reasoning and not self._thinks_aloud):
            return
        self._end_line(is_reasoning=not is_reasoning)
        safe = escape_controls(text, keep=REPLY_KEEPS)
        shown = click.style(safe, dim=True) if is_reasoning else safe
        click.echo(shown, nl=False, err=is_reasoning)
        self._open[is_reasoning] = not text.endswith("\n")

    def _end_line(self, *, is_reasoning: bool) -> None:
        if self._open[is_reasoning]:
            click.echo(err=is_reasoning)
            self._open[is_reasoning] = False


def _read_stdin() -> str:
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise click.UsageError("what stands on stdin is not UTF-8 text.") from error


def _statistics(reply: Reply) -> str:
    cached = "" if reply.cached_tokens is None else f" ({reply.cached_tokens} cached)"
    parts = [f"{reply.prompt_tokens} prompt tokens{cached}", f"{reply.generated_tokens} generated"]
    if reply.ttft_s is not None:
        parts.append(f"first after {say_seconds(reply.ttft_s)}")
    if reply.tokens_per_second is not None:
        parts.append(f"{reply.tokens_per_second:.1f} tok/s")
    parts.append(f"stopped: {reply.stop_reason.replace('_', ' ')}")
    return "[" + ", ".join(parts) + "]"
