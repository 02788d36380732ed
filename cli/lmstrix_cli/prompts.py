"""The prompts of `infer`: templates, files, stdin, and the options that choose them."""

from __future__ import annotations

import re
import sys
import threading
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import attrs
import click
import platformdirs

from lmstrix import ConfigurationError, Prompt
from lmstrix_cli import output
from lmstrix_cli.options import Decorator, chain
from lmstrix_cli.settings import is_quiet

STDIN = Path("-")
TEXT = "prompt"
"""The placeholder that stands for PROMPT, stdin and files."""
MAX_TEXT_BYTES = 64 * 1024 * 1024
"""Largest text of a prompt, in bytes: more than ten million tokens, which no model takes."""
PATIENCE_S = 3.0
"""How long stdin may be silent before a note says what is waited for."""
WAITING = (
    "Waiting for text on stdin: end it with Ctrl-D, or add `< /dev/null` to the command if there"
    " is none."
)


def read_text(path: Path, most_bytes: int = MAX_TEXT_BYTES) -> str:
    """The text of a file or a named pipe; the path ``-`` is stdin.

    Raises `ConfigurationError` if it cannot be read, is too large, or is not UTF-8 text.
    """
    name = "stdin" if path == STDIN else repr(str(path))
    try:
        if path == STDIN:
            data = _read_stdin(most_bytes + 1)
        else:
            with path.open("rb") as file:
                data = file.read(most_bytes + 1)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigurationError(f"{name} cannot be read: {why}") from error
    if len(data) > most_bytes:
        raise ConfigurationError(f"{name} is larger than {most_bytes:,} bytes")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"{name} is not text in UTF-8", hint="Convert it to UTF-8 first."
        ) from error
    if "\0" in text:
        raise ConfigurationError(f"{name} has NUL characters: it is not text")
    return text


def _read_stdin(most_bytes: int) -> bytes:
    """All of it. A pipe that stays open and silent cannot be told from a slow one."""
    waiting = threading.Timer(PATIENCE_S, output.note, [WAITING])
    waiting.daemon = True
    if not is_quiet():
        waiting.start()
    try:
        return sys.stdin.buffer.read(most_bytes)
    finally:
        waiting.cancel()


MAX_FILE_BYTES = 256 * 1024
"""Largest file of templates, in bytes: instructions, not documents."""
FILE = "prompts.toml"
"""The file in the user's folder."""
MAX_REPLY_TOKENS = 1 << 24
"""Largest `max_tokens`: above the longest context of any model."""

_FORMAT = "A template is a table with `user`, and perhaps `system`, `max_tokens`, `description`."
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)
_PART = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_]*)\}|[{}]", re.ASCII)
_CONTROL = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]"
)
"""Control characters except tabs and line breaks, and those that change the text direction."""


@attrs.frozen(kw_only=True)
class Template:
    """One template, checked. `source` is the file that it stands in."""

    name: str
    user: str
    system: str = ""
    max_tokens: int | None = None
    description: str = ""
    source: str = ""

    @property
    def variables(self) -> tuple[str, ...]:
        """The names of its placeholders, in the order in which they come."""
        found = (match[1] for text in (self.system, self.user) for match in _PART.finditer(text))
        return tuple(dict.fromkeys(name for name in found if name))


def parse_templates(text: str, source: str) -> dict[str, Template]:
    """The templates of one file by name; `source` names the file in errors.

    Raises `ConfigurationError` for invalid TOML, and for a table that is not a template.
    """
    try:
        tables = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        why = str(error)[:200] or type(error).__name__
        raise ConfigurationError(f"{source} is not TOML: {why}", hint=_FORMAT) from error
    return {name: _template(name, table, source) for name, table in tables.items()}


def read_templates(path: Path) -> dict[str, Template]:
    """The templates of the file `path`; raises `ConfigurationError`."""
    return parse_templates(read_text(path, MAX_FILE_BYTES), repr(str(path)))


def user_templates(folder: Path | None = None) -> dict[str, Template]:
    """All templates in the user's configuration, sorted by name.

    They stand in ``prompts.toml`` and in ``prompts/*.toml`` below `folder` (the configuration
    folder of LMStrix). Raises `ConfigurationError` if a file is wrong, or two have the same
    name.
    """
    folder = folder or _folder()
    found: dict[str, Template] = {}
    for path in [folder / FILE, *sorted((folder / "prompts").glob("*.toml"))]:
        if not path.is_file():
            continue
        for name, template in read_templates(path).items():
            if name in found:
                raise ConfigurationError(
                    f"there are two templates {name!r}: in {found[name].source} and in"
                    f" {template.source}",
                    hint="Give one of them another name.",
                )
            found[name] = template
    return dict(sorted(found.items()))


def choose_template(name: str | None, path: Path | None) -> Template:
    """The template `name`, of the file `path` or else of the user's own.

    A file with a single one needs no name. Raises `ConfigurationError`, which says what there is.
    """
    there = user_templates() if path is None else read_templates(path)
    where = f"in {str(path or _folder())!r}"
    if name is None and len(there) == 1:
        return next(iter(there.values()))
    if name is not None and name in there:
        return there[name]
    if name is None:
        wanted = "several templates: choose one with --template NAME" if there else "no templates"
    else:
        wanted = f"there is no template {name!r}"
    hint = f"Templates {where}: {_listed(there)}." if there else how_to_make_one(path)
    raise ConfigurationError(wanted, hint=hint)


def how_to_make_one(path: Path | None) -> str:
    """What to write where, for somebody who has no template in `path` or of their own."""
    where = repr(str(path or _folder() / FILE))
    return (
        f"To make one, write a table to {where}, for example the two lines `[summary]` and"
        """ `user = "Summarise in {words} words: {prompt}"`."""
    )


def fill(template: Template, values: Mapping[str, str]) -> Template:
    """The template with the values in their places.

    Raises `ConfigurationError` if a value is missing, or has no place.
    """
    wanted = template.variables
    hint = f"Template {template.name!r} has {_listed(wanted)}."
    unknown = [name for name in values if name not in wanted]
    if unknown:
        raise ConfigurationError(f"the template has no variable {_listed(unknown)}", hint=hint)
    missing = [name for name in wanted if name not in values]
    if missing:
        given = " ".join(f"--var {name}=..." for name in missing)
        raise ConfigurationError(
            f"the template needs a value for {_listed(missing)}",
            hint=f"Add {given}. {hint}",
        )
    return attrs.evolve(
        template, user=_filled(template.user, values), system=_filled(template.system, values)
    )


def _filled(text: str, values: Mapping[str, str]) -> str:
    # One pass: braces in a value stay what they are.
    return _PART.sub(lambda match: values[match[1]] if match[1] else match[0][0], text)


def _template(name: str, table: object, source: str) -> Template:
    where = f"template {name[:64]!r} in {source}"
    if _NAME.fullmatch(name) is None:
        raise ConfigurationError(
            f"{where}: not a name", hint="Names are letters, digits, `-`, `_` and `.`."
        )
    if not isinstance(table, dict):
        raise ConfigurationError(f"{where} is not a table", hint=_FORMAT)
    fields: dict[str, Any] = {"user": "", **cast("dict[str, Any]", table)}
    for key, value in fields.items():
        _check(key, value, where)
    made = Template(name=name, source=source, **fields)
    if not made.user.strip():
        raise ConfigurationError(f"{where} has no `user`", hint=_FORMAT)
    return made


def _check(key: str, value: object, where: str) -> None:
    if key not in {"user", "system", "max_tokens", "description"}:
        raise ConfigurationError(f"{where} has an unknown key {key[:64]!r}", hint=_FORMAT)
    if key == "max_tokens":
        if type(value) is not int or not 1 <= value <= MAX_REPLY_TOKENS:
            raise ConfigurationError(f"{where}: `{key}` is not a number of tokens", hint=_FORMAT)
    elif not isinstance(value, str):
        raise ConfigurationError(f"{where}: `{key}` is not a text", hint=_FORMAT)
    elif found := _CONTROL.search(value):
        raise ConfigurationError(f"{where}: `{key}` has the control character {found[0]!a}")
    elif key != "description":
        _check_braces(value, f"{where}, `{key}`")


def _check_braces(text: str, where: str) -> None:
    for match in _PART.finditer(text):
        if match[0] in {"{", "}"}:
            line = text.count("\n", 0, match.start()) + 1
            raise ConfigurationError(
                f"{where}, line {line}: a single {match[0]!r}",
                hint="Write {{ and }} for braces, {name} for a value.",
            )


def _folder() -> Path:
    return platformdirs.user_config_path("lmstrix")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names) or "no variables"


@attrs.frozen(kw_only=True)
class Sources:
    """What the command line says about the prompt."""

    words: str | None
    files: Sequence[Path] = ()
    system: str | None = None
    template: str | None = None
    template_file: Path | None = None
    variables: Mapping[str, str] = attrs.field(factory=dict[str, str])

    def read(self) -> tuple[Prompt, int | None]:
        """The prompt, and how long a reply its template wants, in tokens.

        Raises `ConfigurationError`, and `click.UsageError` for options that do not go together.
        """
        if self.template is not None or self.template_file is not None:
            template = self._filled(choose_template(self.template, self.template_file))
        elif self.variables:
            raise click.UsageError("--var is for templates; name one with --template.")
        else:
            template = Template(name="", user=self._text())
        system = template.system if self.system is None else self.system
        for text in (template.user, system):
            if len(text) > MAX_TEXT_BYTES:
                raise ConfigurationError(f"the prompt is larger than {MAX_TEXT_BYTES:,} bytes")
            try:
                text.encode()
            except UnicodeEncodeError as error:  # bytes of another encoding on the command line
                raise ConfigurationError("the prompt is not text in UTF-8") from error
        return Prompt(user=template.user, system=system), template.max_tokens

    def _filled(self, template: Template) -> Template:
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
            # A wrong --var is reported before stdin is read, which may take time.
            fill(template, {**values, TEXT: ""})
            values[TEXT] = self._text()
        return fill(template, values)

    def _text(self) -> str:
        """Files in their order, then stdin, then PROMPT: a question stands behind its text."""
        dash = self.words == str(STDIN)
        parts = [read_text(path) for path in self.files]
        piped = read_text(STDIN) if dash or not sys.stdin.isatty() else ""
        if piped or dash:
            parts.append(piped)
        if self.words and not dash:
            parts.append(self.words)
        text = "\n\n".join(parts)
        if not text.strip():
            given = self.words is not None or parts
            raise click.UsageError(
                "the prompt is empty."
                if given
                else "there is no prompt: give PROMPT, --file, or text on stdin."
            )
        return text


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
        help="A text file (UTF-8) to put before PROMPT. May be repeated.",
    ),
    click.option("--system", metavar="TEXT", help="Instructions for the model: a system prompt."),
    click.option(
        "--template",
        metavar="NAME",
        help="One of your templates: a prompt with places for --var. PROMPT, stdin and --file are"
        " its {prompt}.",
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
