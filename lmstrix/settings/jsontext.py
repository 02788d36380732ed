"""JSON as text: where each value stands, so that one can be changed and no other byte."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

import attrs

__all__ = ["Node", "Part", "parse", "parts"]

_SPACE = re.compile(r"[ \t\r\n]*")


@attrs.frozen
class Node:
    """A value, and where it stands: ``text[start:end]``."""

    value: Any
    start: int
    end: int


@attrs.frozen
class Part:
    """A member of an object, or an item of a list (`key` is None).

    It begins at `start`, with its key; `lead` is the white space before it, `colon` what
    stands between key and value.
    """

    key: str | None
    node: Node
    start: int
    lead: str
    colon: str


def parse(text: str) -> Node:
    """The whole document. Raises ValueError for anything that is not strict JSON.

    Also for an object that has a key twice: nobody can tell which of the two is meant.
    """
    if text.startswith("\ufeff"):
        raise ValueError("it begins with a byte order mark")
    try:
        value = json.loads(text, object_pairs_hook=_no_twins, parse_constant=_refuse)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    start = _skip(text, 0)
    return Node(value, start, len(text.rstrip(" \t\r\n")))


def parts(text: str, node: Node) -> list[Part]:
    """The members or items of `node`, which is an object or a list in `text`."""
    is_object = text[node.start] == "{"
    found: list[Part] = []
    at = node.start + 1
    while True:
        start = _skip(text, at)
        if text[start] in "}]":
            return found
        part = _part(text, start, text[at:start], is_object=is_object)
        found.append(part)
        at = _skip(text, part.node.end)
        if text[at] in "}]":
            return found
        at += 1  # the comma


def _part(text: str, start: int, lead: str, *, is_object: bool) -> Part:
    key, colon, at = None, "", start
    if is_object:
        key, after = _DECODER.raw_decode(text, start)
        at = _skip(text, _skip(text, after) + 1)
        colon = text[after:at]
    value, end = _DECODER.raw_decode(text, at)
    return Part(key, Node(value, at, end), start, lead, colon)


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("an object has a key twice")
    return made


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder()
