"""One load setting put into the text of a settings file; every other byte stays."""

from __future__ import annotations

import json
import math
import re
from typing import Any, cast

import attrs

from lmstrix.settings.jsontext import Node, Part, parse, parts
from lmstrix.settings.problems import SettingsError

__all__ = ["CONTEXT_KEY", "new_text", "read_context", "with_context"]

CONTEXT_KEY = "llm.load.contextLength"
_MEND = (
    "The file was left as it is. Open the model's settings in LM Studio and save them, or move"
    " the file away, then try again."
)


@attrs.frozen
class _Style:
    """How a file is laid out; `unit` is None where it does not break its lines."""

    unit: str | None
    newline: str
    colon: str
    gap: str

    def write(self, value: Any, depth: int, *, broken: bool = True) -> str:  # noqa: ANN401 - any JSON
        """`value` as it would stand at `depth`, its own first line not indented."""
        if self.unit is None or not broken:
            return json.dumps(value, ensure_ascii=False, separators=(f",{self.gap}", self.colon))
        text = json.dumps(value, ensure_ascii=False, indent=self.unit, separators=(",", self.colon))
        return text.replace("\n", self.newline + self.unit * depth)

    def lead(self, depth: int) -> str:
        """What stands before a part at `depth`."""
        return "" if self.unit is None else self.newline + self.unit * depth


def new_text(context: int) -> str:
    """A settings file that holds the context length alone, as LM Studio lays it out."""
    fields = [{"key": CONTEXT_KEY, "value": context}]
    return json.dumps(
        {"preset": "", "operation": {"fields": []}, "load": {"fields": fields}}, indent=2
    )


def read_context(text: str) -> int | float | None:
    """The context length that `text` sets, in tokens; None where it sets none.

    Raises `SettingsError` where `text` is not the settings file of a model.
    """
    root = _parsed(text)
    entry = _entry(_checked_fields(root.value))
    return None if entry is None else cast("int | float", entry["value"])


def with_context(text: str, context: int) -> str:
    """`text` with the context length set to `context`, in tokens.

    Order, indentation, numbers and everything else stay as they are written. Raises
    `SettingsError` where `text` is not the settings file of a model.
    """
    root = _parsed(text)
    fields = _checked_fields(root.value)
    style = _style_of(text, root)
    load = _member(text, root, "load")
    listed = None if load is None else _member(text, load.node, "fields")
    added = {"key": CONTEXT_KEY, "value": context}
    if load is None:
        made = _append(text, root, style, 0, key="load", value={"fields": [added]})
    elif listed is None:
        made = _append(text, load.node, style, 1, key="fields", value=[added])
    elif _entry(fields) is None:
        made = _append(text, listed.node, style, 2, key=None, value=added)
    else:
        made = _replace(text, listed.node, context)
    _check(root.value, made, context)
    return made


def _parsed(text: str) -> Node:
    try:
        root = parse(text)
    except ValueError as error:
        raise SettingsError(f"it does not parse as JSON: {error}", hint=_MEND) from error
    if not isinstance(root.value, dict):
        raise _odd("its top level is no object")
    return root


def _checked_fields(root: dict[str, Any]) -> list[dict[str, Any]]:
    """The load settings, after a look at everything that this module relies on."""
    load = root.get("load", {})
    if not isinstance(load, dict):
        raise _odd("`load` is no object")
    fields: Any = cast("dict[str, Any]", load).get("fields", [])
    if not isinstance(fields, list):
        raise _odd("`load.fields` is no list")
    for field in cast("list[Any]", fields):
        if not (isinstance(field, dict) and isinstance(field.get("key"), str)):  # pyright: ignore[reportUnknownMemberType] - any JSON
            raise _odd("an entry of `load.fields` has no key")
    found = cast("list[dict[str, Any]]", fields)
    same = [field for field in found if field["key"] == CONTEXT_KEY]
    if len(same) > 1:
        raise _odd(f"it sets {CONTEXT_KEY} more than once")
    if same and not _is_number(same[0].get("value")):
        raise _odd(f"its value of {CONTEXT_KEY} is no number")
    return found


def _is_number(value: object) -> bool:
    """Not so for a bool, which is an int, nor for 1e999, which is infinite."""
    return type(value) is int or (isinstance(value, float) and math.isfinite(value))


def _odd(what: str) -> SettingsError:
    return SettingsError(f"it is not what LM Studio writes: {what}", hint=_MEND)


def _entry(fields: list[dict[str, Any]]) -> dict[str, Any] | None:
    return next((field for field in fields if field["key"] == CONTEXT_KEY), None)


def _member(text: str, node: Node, key: str) -> Part | None:
    return next((part for part in parts(text, node) if part.key == key), None)


def _replace(text: str, fields: Node, context: int) -> str:
    for item in parts(text, fields):
        if item.node.value["key"] == CONTEXT_KEY:
            value = _member(text, item.node, "value")
            if value is not None:
                return text[: value.node.start] + str(context) + text[value.node.end :]
    raise _odd(f"{CONTEXT_KEY} has no value")


def _append(
    text: str,
    container: Node,
    style: _Style,
    depth: int,
    *,
    key: str | None,
    value: Any,  # noqa: ANN401 - any JSON
) -> str:
    """`text` with one more part at the end of `container`, laid out like its neighbours."""
    there = parts(text, container)
    name = "" if key is None else json.dumps(key) + style.colon
    if not there:
        inner = style.lead(depth + 1) + name + style.write(value, depth + 1) + style.lead(depth)
        return text[: container.start + 1] + inner + text[container.end - 1 :]
    last = there[-1]
    lead = last.lead if len(there) > 1 or "\n" in last.lead else style.gap
    neighbour = text[last.node.start : last.node.end]
    broken = "\n" in neighbour if key is None else "\n" in last.lead
    inner = f",{lead}{name}{style.write(value, depth + 1, broken=broken)}"
    return text[: last.node.end] + inner + text[last.node.end :]


def _style_of(text: str, root: Node) -> _Style:
    there = parts(text, root)
    if not there:
        return _Style(unit="  ", newline="\n", colon=": ", gap=" ")
    first = there[0]
    broken = re.fullmatch(r"\s*?(\r?\n)([ \t]*)", first.lead)
    gap = there[1].lead if len(there) > 1 else ""
    return _Style(
        unit=broken[2] if broken else None,
        newline=broken[1] if broken else "\n",
        colon=first.colon if first.colon.strip(" ") == ":" else ": ",
        gap=" " if broken or gap.startswith(" ") or first.colon.endswith(" ") else "",
    )


def _check(before: dict[str, Any], text: str, context: int) -> None:
    """The new text says the same as the old one but for the context: else nothing is written."""
    load = before.get("load", {})
    fields: list[dict[str, Any]] = load.get("fields", [])
    changed = [
        {**field, "value": context} if field["key"] == CONTEXT_KEY else field for field in fields
    ]
    if _entry(fields) is None:
        changed.append({"key": CONTEXT_KEY, "value": context})
    if parse(text).value != {**before, "load": {**load, "fields": changed}}:
        raise _odd("the setting could not be put in without changing something else")
