"""Malformed frames: what a broken server, or a proxy on the way, makes of good ones.

Each is one of: JSON cut off somewhere; a member of another type, or left out; a kind of frame
that nobody knows; a number that cannot be; or no JSON object at all.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import cast

from lmstrix.testing.lmstudio.wire import Json, as_list, as_object

__all__ = ["IMPOSSIBLE", "Mangler"]

IMPOSSIBLE = (10**30, 10**12, 1e308, -1, float("nan"))
"""No count, length or duration is one of these; 10**12 fits a 64-bit integer."""
NO_OBJECT = ("", "[]", "null", "17", '"text"', "{")
OTHER_TYPES: tuple[object, ...] = (None, "", "text", [], [1], {}, {"a": 1}, True, 0.5)

_Place = tuple[Json | list[object], str | int]
"""A container, and where in it."""


class Mangler:
    """Makes frames malformed, the same ones for the same seed and the same frames."""

    def __init__(self, seed: int = 0) -> None:
        self._random = Random(seed)  # noqa: S311 - reproducible
        self._ways: tuple[Callable[[Json], str], ...] = (
            self._cut,
            self._other_type,
            self._left_out,
            self._unknown,
            self._impossible,
            self._no_object,
        )

    def mangled(self, frame: Json, share: float) -> str | None:
        """The text that is sent in the place of `frame`; None to send it as it is."""
        if self._random.random() >= share:
            return None
        copy = as_object(json.loads(json.dumps(frame)))
        return self._random.choice(self._ways)(copy)

    def _cut(self, frame: Json) -> str:
        text = json.dumps(frame)
        return text[: self._random.randrange(len(text))]

    def _other_type(self, frame: Json) -> str:
        container, at = self._random.choice(_places(frame))
        old = cast("dict[str | int, object]", container)[at]
        others = [value for value in OTHER_TYPES if type(value) is not type(old)]
        return _with(frame, (container, at), self._random.choice(others))

    def _left_out(self, frame: Json) -> str:
        container, at = self._random.choice(_places(frame))
        del cast("dict[str | int, object]", container)[at]
        return json.dumps(frame)

    def _unknown(self, frame: Json) -> str:
        return json.dumps(frame | {"type": "somethingNew"})

    def _impossible(self, frame: Json) -> str:
        numbers = [place for place in _places(frame) if _is_number(place)]
        if not numbers:
            return self._cut(frame)
        return _with(frame, self._random.choice(numbers), self._random.choice(IMPOSSIBLE))

    def _no_object(self, _: Json) -> str:
        return self._random.choice(NO_OBJECT)


def _with(frame: Json, place: _Place, value: object) -> str:
    container, at = place
    cast("dict[str | int, object]", container)[at] = value
    return json.dumps(frame)


def _is_number(place: _Place) -> bool:
    container, at = place
    value = cast("dict[str | int, object]", container)[at]
    return isinstance(value, int | float) and not isinstance(value, bool)


def _places(frame: Json) -> list[_Place]:
    """Every member and every item, at any depth."""
    found: list[_Place] = []
    containers: list[Json | list[object]] = [frame]
    for container in containers:
        items = container.items() if isinstance(container, dict) else enumerate(container)
        for at, value in items:
            found.append((container, at))
            if isinstance(value, dict):
                containers.append(as_object(cast("object", value)))
            elif isinstance(value, list):
                containers.append(as_list(cast("object", value)))
    return found
