"""Prompt templates in TOML: a file of the user's, or one that was sent to them."""

from __future__ import annotations

from typing import cast

from fuzz_counts import put_through
from fuzz_values import NAMES, as_text, changed, damaged, fuzz
from hypothesis import example, given

from lmstrix.errors import ConfigurationError
from lmstrix_cli.prompts import fill, parse_templates

TABLES: dict[str, object] = {
    "summary": {
        "description": "A text in a few words",
        "system": "You write plainly.",
        "user": "Summarise in {words} words: {{}} {prompt}",
        "max_tokens": 400,
    },
    "plain": {"user": "{prompt}"},
}


def as_toml(value: object) -> str:
    """Tables of values that JSON and TOML write alike; any other value as it is."""
    if not isinstance(value, dict):
        return as_text(value)
    lines = list[str]()
    for name, table in cast("dict[str, object]", value).items():
        if not isinstance(table, dict):
            lines.append(f"{as_text(name)} = {as_text(table)}")
            continue
        fields = cast("dict[str, object]", table)
        lines += [f"[{as_text(name)}]"]
        lines += [f"{as_text(key)} = {as_text(field)}" for key, field in fields.items()]
    return "\n".join(lines)


@fuzz
@given(
    changed(TABLES).map(as_toml)
    | damaged(as_toml(TABLES).encode()).map(lambda data: data.decode("utf-8", "replace")),
    NAMES,
)
@example("a = " + "[" * 5000, "")
@example('["a"]\nuser = "' + "{x}" * 1000 + '"', "{x}")
def test_templates(text: str, value: str) -> None:
    templates = put_through(
        "prompt templates", lambda: parse_templates(text, "a file"), ConfigurationError
    )
    for template in (templates or {}).values():
        values = dict.fromkeys(template.variables, value)
        filled = put_through("prompt template, filled", lambda t=template, v=values: fill(t, v))
        assert filled is not None
        assert not values or value in filled.system + filled.user
