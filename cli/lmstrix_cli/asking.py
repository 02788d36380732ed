"""What `lmstrix infer` asks: words, stdin, files and a template, made into one prompt."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs
import click

from lmstrix.errors import ConfigurationError
from lmstrix.models import Prompt
from lmstrix_cli.options import Decorator, chain
from lmstrix_cli.prompts import Template, choose_template, fill
from lmstrix_cli.text_files import MAX_TEXT_BYTES, read_stdin, read_text

__all__ = ["STDIN", "Asked", "Sources", "sources_options"]

STDIN = "-"
TEXT = "prompt"
"""The placeholder that stands for PROMPT, stdin and files."""


@attrs.frozen(kw_only=True)
class Asked:
    """A prompt, and how long a reply its template wants, in tokens."""

    prompt: Prompt
    max_tokens: int | None = None


@attrs.frozen(kw_only=True)
class Sources:
    """What the command line says about the prompt."""

    words: str | None
    files: Sequence[Path] = ()
    system: str | None = None
    template: str | None = None
    template_file: Path | None = None
    variables: Mapping[str, str] = attrs.field(factory=dict[str, str])

    def read(self) -> Asked:
        """Read what is named. Raises `ConfigurationError`, and `click.UsageError` for options
        that do not go together.
        """
        if self.template is None and self.template_file is None:
            if self.variables:
                raise click.UsageError("--var is for templates; name one with --template.")
            return self._checked(Asked(prompt=Prompt(user=self._text())))
        return self._checked(self._filled(choose_template(self.template, self.template_file)))

    def _filled(self, template: Template) -> Asked:
        takes_text = TEXT in template.variables
        if not takes_text and (self.words is not None or self.files):
            raise ConfigurationError(
                f"template {template.name!r} takes no text",
                hint=f"Write {{{TEXT}}} where the text belongs, or leave PROMPT and --file out.",
            )
        if TEXT in self.variables and (self.words is not None or self.files):
            raise click.UsageError(f"--var {TEXT}=… and PROMPT or --file are the same.")
        values = dict(self.variables)
        if takes_text and TEXT not in values:
            fill(template, {**values, TEXT: ""})  # a wrong --var is told before stdin is waited for
            values[TEXT] = self._text()
        filled = fill(template, values)
        return Asked(
            prompt=Prompt(user=filled.user, system=filled.system), max_tokens=filled.max_tokens
        )

    def _text(self) -> str:
        """Files in their order, then what was typed: a question stands behind its text."""
        parts = [read_text(path) for path in self.files]
        if self.words == STDIN or (self.words is None and not self.files and _is_piped()):
            parts.append(read_stdin())
        elif self.words is not None:
            parts.append(self.words)
        if not parts:
            raise click.UsageError("there is no prompt: give PROMPT, --file, or text on stdin.")
        text = "\n\n".join(parts)
        if not text.strip():
            raise click.UsageError("the prompt is empty.")
        return text

    def _checked(self, asked: Asked) -> Asked:
        if self.system is not None:
            asked = attrs.evolve(asked, prompt=attrs.evolve(asked.prompt, system=self.system))
        for text in (asked.prompt.user, asked.prompt.system):
            if len(text) > MAX_TEXT_BYTES:
                raise ConfigurationError(f"the prompt is larger than {MAX_TEXT_BYTES} bytes")
            try:
                text.encode()
            except UnicodeEncodeError as error:  # bytes of another encoding on the command line
                raise ConfigurationError("the prompt is not text in UTF-8") from error
        return asked


def _is_piped() -> bool:
    """Whether something other than a person is at the other end of stdin."""
    try:
        return not sys.stdin.isatty()
    except (AttributeError, ValueError):  # none at all, or closed
        return False


def _variables(
    _: click.Context, parameter: click.Parameter, given: tuple[str, ...]
) -> dict[str, str]:
    values: dict[str, str] = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"{pair!r} is not NAME=VALUE.", param=parameter)
        if name in values:
            raise click.BadParameter(f"{name!r} is given twice.", param=parameter)
        values[name] = value
    return values


sources_options: Decorator = chain(
    click.option(
        "-f",
        "--file",
        "files",
        multiple=True,
        type=click.Path(path_type=Path),
        metavar="PATH",
        help="A text in UTF-8 that stands before PROMPT; may be repeated.",
    ),
    click.option("--system", metavar="TEXT", help="What the model is told before the prompt."),
    click.option(
        "--template",
        metavar="NAME",
        help="A template of yours: the prompt, with places for --var. PROMPT, stdin and --file"
        " are its {prompt}.",
    ),
    click.option(
        "--template-file",
        type=click.Path(path_type=Path),
        metavar="PATH",
        help="Take the template from this file.",
    ),
    click.option(
        "--var",
        "variables",
        multiple=True,
        callback=_variables,
        metavar="NAME=VALUE",
        help="A value for {NAME} in the template; may be repeated.",
    ),
)
"""Where the prompt comes from, as the keyword arguments of `Sources`."""
