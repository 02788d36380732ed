"""The project's own cattrs converter: facts to JSON and back, versioned.

Never the global converter, so that nobody else's hooks change our files. Reading is strict
about types and lenient about keys that it does not know: a newer LMStrix may add some.
"""

from __future__ import annotations

import enum
import json
import math
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NoReturn, TypeVar, cast, get_args, get_origin

import cattrs
from cattrs.preconf.json import make_converter

from lmstrix.errors import LMStrixError
from lmstrix.models import MAP_SCHEMA_VERSION, SCHEMA_VERSION, ContextMap, ContextReport

__all__ = ["FormatError", "dump_report", "from_json", "load_map", "load_report", "to_json"]

T = TypeVar("T")
Hook = Callable[[Any, Any], Any]

_REFUSALS = (
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    RecursionError,
    OverflowError,
)
"""What the json module, cattrs and our hooks raise for a value that does not fit."""

LARGEST = 2**127
"""Whole numbers beyond this are refused. None means anything, and no float holds the largest."""


class FormatError(LMStrixError, ValueError):
    """A text is not the JSON of the fact that was wanted."""


def _strict(kind: type, *also: type) -> Hook:
    """A hook that takes exactly `kind`: JSON `true` is no integer, "12" is no number."""

    def structure(value: object, _: object) -> object:
        if isinstance(value, bool) and kind is not bool:
            raise TypeError(f"expected {kind.__name__}, got a boolean")
        if not isinstance(value, (kind, *also)):
            raise TypeError(f"expected {kind.__name__}, got {type(value).__name__}")
        return kind(value)

    return structure


def _int(value: object, kind: object) -> int:
    number: int = _strict(int)(value, kind)
    if abs(number) > LARGEST:
        raise ValueError("the number is impossibly large")
    return number


def _float(value: object, kind: object) -> float:
    """A finite number; a literal such as 1e999 would otherwise be read as infinity."""
    number: float = _strict(float, int)(value, kind)
    if not math.isfinite(number):
        raise ValueError("expected a finite number")
    return number


def _enum(value: object, kind: type[enum.Enum]) -> enum.Enum:
    """A member by its value. `StrEnum` is a `str`, so the hook for `str` would take it."""
    return kind(_strict(str)(value, str))


def _datetime(value: object, _: object) -> datetime:
    """A moment with its offset: one without cannot be put in order with the others."""
    moment = datetime.fromisoformat(_strict(str)(value, str))
    if moment.tzinfo is None:
        raise ValueError("expected a time with its offset from UTC")
    return moment


def _dump_datetime(moment: datetime) -> str:
    if moment.tzinfo is None:
        raise ValueError("a time without its offset from UTC")
    return moment.isoformat()


def _is_tuple(kind: object) -> bool:
    return kind is tuple or get_origin(kind) is tuple


def _tuple_hook(kind: Any, converter: cattrs.Converter) -> Hook:  # noqa: ANN401 - a type form
    """From a JSON array alone: a string and an object can be iterated over too."""
    kinds = get_args(kind)
    many = len(kinds) == 2 and kinds[1] is Ellipsis

    def structure(value: object, _: object) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise TypeError(f"expected an array, got {type(value).__name__}")
        items = cast("list[Any]", value)
        wanted = kinds[:1] * len(items) if many else kinds
        if len(items) != len(wanted):
            raise ValueError(f"expected {len(wanted)} items, got {len(items)}")
        return tuple(
            converter.structure(item, want) for item, want in zip(items, wanted, strict=True)
        )

    return structure


def _is_mapping(kind: object) -> bool:
    return get_origin(kind) in {Mapping, dict}


def _mapping_hook(kind: Any, converter: cattrs.Converter) -> Hook:  # noqa: ANN401 - a type form
    """From a JSON object alone."""
    key_kind, value_kind = get_args(kind)

    def structure(value: object, _: object) -> dict[Any, Any]:
        if not isinstance(value, dict):
            raise TypeError(f"expected an object, got {type(value).__name__}")
        return {
            converter.structure(key, key_kind): converter.structure(item, value_kind)
            for key, item in cast("dict[Any, Any]", value).items()
        }

    return structure


def _make() -> cattrs.Converter:
    converter = make_converter(unstruct_collection_overrides={tuple: list})
    converter.register_structure_hook(int, _int)
    converter.register_structure_hook(float, _float)
    converter.register_structure_hook(str, _strict(str))
    converter.register_structure_hook(bool, _strict(bool))
    converter.register_structure_hook(enum.StrEnum, _enum)
    converter.register_structure_hook(datetime, _datetime)
    converter.register_structure_hook_factory(_is_tuple, _tuple_hook)
    converter.register_structure_hook_factory(_is_mapping, _mapping_hook)
    converter.register_unstructure_hook(datetime, _dump_datetime)
    return converter


_CONVERTER = _make()


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _parse(text: str, kind: object) -> object:
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except _REFUSALS as error:
        raise FormatError(f"not a {_name(kind)}: no valid JSON") from error


def _structure(value: object, kind: type[T]) -> T:
    try:
        return _CONVERTER.structure(value, kind)
    except cattrs.BaseValidationError as error:
        details = "; ".join(cattrs.transform_error(error))
        raise FormatError(f"not a {_name(kind)}: {details}") from error
    except _REFUSALS as error:
        raise FormatError(f"not a {_name(kind)}: {type(error).__name__}") from error


def _name(kind: object) -> str:
    return str(getattr(kind, "__name__", kind))


def to_json(fact: object) -> str:
    """One line of JSON.

    Raises `FormatError` for what JSON or the reader would not take: not-a-number, infinity,
    a time without its offset. Text is written as it is, unless it cannot be written as
    UTF-8 (a file name of undecodable bytes); then everything beyond ASCII is escaped.
    """
    try:
        plain = _CONVERTER.unstructure(fact)
        text = json.dumps(plain, allow_nan=False, ensure_ascii=False)
        return text if _is_utf8(text) else json.dumps(plain, allow_nan=False)
    except _REFUSALS as error:
        raise FormatError(f"{type(fact).__name__} cannot be written as JSON: {error}") from error


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def from_json(text: str, kind: type[T]) -> T:
    """The fact of type `kind` that `text` holds; raises `FormatError`."""
    return _structure(_parse(text, kind), kind)


def dump_report(report: ContextReport) -> str:
    """One line of JSON: the keys and units that ``docs/json.md`` describes."""
    return to_json(report)


def load_report(text: str) -> ContextReport:
    """A report from its JSON; raises `FormatError`, also for a version newer than ours."""
    value = _parse(text, ContextReport)
    # First of all, because a newer report may have another shape in every other place.
    if isinstance(value, dict):
        version = cast("dict[str, Any]", value).get("schema_version")
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise FormatError(
                f"schema version {version} is newer than {SCHEMA_VERSION}",
                hint="Update LMStrix to read this report.",
            )
    return _structure(cast("object", value), ContextReport)


def load_map(text: str) -> ContextMap:
    """A map from its JSON; raises `FormatError`, also for a version newer than ours."""
    found = from_json(text, ContextMap)
    if found.schema_version > MAP_SCHEMA_VERSION:
        raise FormatError("a map is of a newer version", hint="Update LMStrix to read it.")
    if not found.lengths or min(found.lengths) < 1:
        raise FormatError("a map has no lengths")
    return found
