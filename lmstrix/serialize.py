"""Facts to JSON and back, with versions, by a cattrs converter of our own.

Hooks of others on the global converter do not change our files. Reading is strict about types,
refuses values that no measurement gives, and ignores unknown keys, because a newer LMStrix may add
some. Everything from a file, a store or a network comes through here.
"""

from __future__ import annotations

import enum
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from itertools import pairwise
from typing import Any, TypeVar, cast, get_args, get_origin

import attrs
import cattrs
from cattrs.gen import make_dict_structure_fn
from cattrs.preconf.json import make_converter

from lmstrix.errors import LMStrixError
from lmstrix.json_values import MAX_CONTEXT, as_object, refuse_constant
from lmstrix.models import (
    MAP_SCHEMA_VERSION,
    SCHEMA_VERSION,
    Baseline,
    ContextMap,
    ContextReport,
    CurvePoint,
    DepthTally,
    Interval,
    LevelReport,
    MapCell,
    Method,
    Observation,
    Proportion,
    RegionReport,
)

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
"""Errors of the json module, cattrs and our hooks for a value that does not fit."""

LARGEST = 2**127
"""Larger whole numbers are refused: they have no meaning, and some are too large for a float."""
MOST = 2**63 - 1
"""The largest count: SQLite's largest integer."""
FIRST_YEAR, LAST_YEAR = 1970, 2100
"""The first is that of a clock that was never set."""
LONGEST_COMPLAINT = 200
"""Characters of a complaint, which may quote the wrong text."""


class FormatError(LMStrixError, ValueError):
    """A text is not the JSON of the wanted fact."""


def _strict(kind: type, *also: type) -> Hook:
    """A hook that takes exactly `kind`: JSON `true` is not an integer, "12" is not a number."""

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
    """A finite number; Python reads a literal such as 1e999 as infinity."""
    number: float = _strict(float, int)(value, kind)
    if not math.isfinite(number):
        raise ValueError("expected a finite number")
    return number


def _enum(value: object, kind: type[enum.Enum]) -> enum.Enum:
    """A member by its value. `StrEnum` is a `str`, so the hook for `str` would take it."""
    return kind(_strict(str)(value, str))


def _datetime(value: object, _: object) -> datetime:
    """A moment with its UTC offset: one without cannot be ordered with the others."""
    moment = datetime.fromisoformat(_strict(str)(value, str))
    if moment.tzinfo is None:
        raise ValueError("expected a time with its offset from UTC")
    if not FIRST_YEAR <= moment.year <= LAST_YEAR:
        raise ValueError(f"the year {moment.year} is impossible")
    return moment


def _dump_datetime(moment: datetime) -> str:
    if moment.tzinfo is None:
        raise ValueError("a time without its offset from UTC")
    return moment.isoformat()


def _tuple_hook(kind: Any, converter: cattrs.Converter) -> Hook:  # noqa: ANN401 - a type form
    """From a JSON array only; strings and objects are iterable too."""
    kinds = get_args(kind)
    many = len(kinds) == 2 and kinds[1] is Ellipsis

    def structure(value: object, _: object) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise TypeError(f"expected an array, got {type(value).__name__}")
        items = cast("list[Any]", value)
        wanted = kinds[:1] * len(items) if many else kinds
        if len(items) != len(wanted):
            raise ValueError(f"expected {len(wanted)} items, got {len(items)}")
        pairs = zip(items, wanted, strict=True)
        return tuple(_each(((n, *pair) for n, pair in enumerate(pairs)), converter))

    return structure


def _mapping_hook(kind: Any, converter: cattrs.Converter) -> Hook:  # noqa: ANN401 - a type form
    """From a JSON object only."""
    key_kind, value_kind = get_args(kind)

    def structure(value: object, _: object) -> dict[Any, Any]:
        if not isinstance(value, dict):
            raise TypeError(f"expected an object, got {type(value).__name__}")
        items = cast("dict[Any, Any]", value).items()
        values = _each(((key, item, value_kind) for key, item in items), converter)
        return {
            converter.structure(key, key_kind): item
            for (key, _), item in zip(items, values, strict=True)
        }

    return structure


def _each(items: Iterable[tuple[Any, Any, Any]], converter: cattrs.Converter) -> list[Any]:
    """Each item of an array or object as its kind. The first error ends it and has the place."""
    found: list[Any] = []
    for at, item, kind in items:
        try:
            found.append(converter.structure(item, kind))
        except (cattrs.BaseValidationError, *_REFUSALS) as error:
            raise _Misplaced(f"[{at!r}]", error) from error
    return found


class _Misplaced(ValueError):
    """An error at a place in an array or an object."""

    def __init__(self, place: str, inner: Exception) -> None:
        super().__init__(place)
        self.place = place
        self.inner = inner


def _sound_hook(kind: Any, converter: cattrs.Converter) -> Hook:  # noqa: ANN401 - a type form
    """One of our facts, if a measurement could give it."""
    structure = make_dict_structure_fn(kind, converter)

    def check(value: object, _: object) -> object:
        fact = structure(cast("dict[str, Any]", value), kind)
        for place, wrong in _impossible(fact):
            raise _Misplaced(f".{place}", ValueError(wrong))
        return fact

    return check


Rule = Callable[[Any], Iterator[tuple[bool, str, str]]]
"""For a fact: whether each relation holds, its place, and the complaint if it does not."""


def _impossible(fact: attrs.AttrsInstance) -> Iterator[tuple[str, str]]:
    """The places in `fact` whose values no measurement gives, and why."""
    for name in (field.name for field in attrs.fields(type(fact)) if field.name != "seed"):
        value = getattr(fact, name)
        if isinstance(value, int | float) and not 0 <= value <= MOST:
            yield name, f"{value} is impossible"
    for rule in _RULES.get(type(fact), ()):
        yield from ((place, wrong) for holds, place, wrong in rule(fact) if not holds)


def _passes(fact: Baseline) -> Iterator[tuple[bool, str, str]]:
    yield fact.passes <= fact.trials, "passes", f"{fact.passes} of {fact.trials}"


def _depths(fact: CurvePoint) -> Iterator[tuple[bool, str, str]]:
    asked = sum(tally.trials for tally in fact.depths)
    yield asked <= fact.trials, "depths", f"{asked} trials of {fact.trials}"


def _ends(fact: Interval) -> Iterator[tuple[bool, str, str]]:
    low, high = fact.low, fact.high
    yield high is None or low <= high, "high", f"{high} is less than {low}"


def _share(name: str) -> Rule:
    def rule(fact: object) -> Iterator[tuple[bool, str, str]]:
        share = getattr(fact, name)
        yield share <= 1, name, f"{share} is more than 1"

    return rule


def _method(fact: Method) -> Iterator[tuple[bool, str, str]]:
    yield fact.ratio > 0, "ratio", "it must be above 0"
    yield 0 < fact.tolerance < 1, "tolerance", f"{fact.tolerance} is not between 0 and 1"


def _bracket(fact: RegionReport) -> Iterator[tuple[bool, str, str]]:
    low, high = fact.bracket
    yield 0 <= low <= MOST, "bracket[0]", f"{low} is impossible"
    yield high is None or low <= high <= MOST, "bracket", f"{high} does not follow {low}"


def _report(fact: ContextReport) -> Iterator[tuple[bool, str, str]]:
    true, loadable = fact.true_context or 0, fact.loadable_context
    fits = loadable is None or true <= loadable
    yield fits, "true_context", f"{true} is more than the loadable {loadable}"
    largest = max(true, loadable or 0)
    yield largest <= MAX_CONTEXT, "true_context", f"{largest} tokens are impossible"
    lengths = [point.length_tokens for point in fact.curve]
    ascend = all(before < after for before, after in pairwise(lengths))
    yield ascend, "curve", "the lengths do not ascend"


def _lengths(fact: ContextMap) -> Iterator[tuple[bool, str, str]]:
    yield min(fact.lengths, default=0) > 0, "lengths", "there are none, or one is 0"


_RULES: Mapping[type, tuple[Rule, ...]] = {
    Baseline: (_passes,),
    ContextMap: (_lengths,),
    ContextReport: (_bracket, _report),
    CurvePoint: (_passes, _depths),
    DepthTally: (_passes,),
    Interval: (_ends, _share("level")),
    LevelReport: (_bracket,),
    MapCell: (_passes, _share("score")),
    Method: (_method, _share("ratio")),
    Observation: (_passes,),
    Proportion: (_ends, _share("high")),
    RegionReport: (_bracket,),
}


_CONVERTER = make_converter(unstruct_collection_overrides={tuple: list})
_CONVERTER.register_structure_hook(int, _int)
_CONVERTER.register_structure_hook(float, _float)
_CONVERTER.register_structure_hook(str, _strict(str))
_CONVERTER.register_structure_hook(bool, _strict(bool))
_CONVERTER.register_structure_hook(enum.StrEnum, _enum)
_CONVERTER.register_structure_hook(datetime, _datetime)
_CONVERTER.register_structure_hook_factory(lambda kind: get_origin(kind) is tuple, _tuple_hook)
_CONVERTER.register_structure_hook_factory(
    lambda kind: get_origin(kind) in {Mapping, dict}, _mapping_hook
)
_CONVERTER.register_structure_hook_factory(attrs.has, _sound_hook)
_CONVERTER.register_unstructure_hook(datetime, _dump_datetime)


def _complaint(error: Exception, place: str = "") -> str:
    """The first error after its place: ``curve[3].passes: 5 of 4``."""
    if isinstance(error, _Misplaced):
        return _complaint(error.inner, place + error.place)
    if isinstance(error, cattrs.ClassValidationError):
        noted, others = error.group_exceptions()
        if noted:
            inner, note = noted[0]
            return _complaint(inner, f"{place}.{note.name}")
        return _complaint(others[0], place)
    if isinstance(error, KeyError):
        said = "missing"
    else:
        said = str(error)[:LONGEST_COMPLAINT] or type(error).__name__
    return f"{place[:LONGEST_COMPLAINT].removeprefix('.')}: {said}" if place else said


def to_json(fact: object, **more: str) -> str:
    """One line of JSON; the keys `more` come after the fact's own.

    Raises `FormatError` for values that JSON or the reader refuses: not-a-number, infinity, a time
    without its offset. Text beyond ASCII is escaped only if it cannot be written as UTF-8 (a file
    name of undecodable bytes).
    """
    try:
        plain = _CONVERTER.unstructure(fact)
        plain = {**plain, **more} if more else plain
        text = json.dumps(plain, allow_nan=False, ensure_ascii=False)
        try:
            text.encode()
        except UnicodeEncodeError:
            text = json.dumps(plain, allow_nan=False)
    except _REFUSALS as error:
        raise FormatError(f"{type(fact).__name__} cannot be written as JSON: {error}") from error
    return text


def from_json(text: str, kind: type[T], *, newest: int | None = None) -> T:
    """The fact of type `kind` in `text`.

    Raises `FormatError`, also if `newest` is given and the fact's schema version is higher.
    """
    name = getattr(kind, "__name__", kind)
    try:
        value: object = json.loads(text, parse_constant=refuse_constant)
    except _REFUSALS as error:
        raise FormatError(f"not a {name}: no valid JSON") from error
    if newest is not None and not isinstance(value, dict):
        raise FormatError(f"not a {name}: it is not a JSON object")
    # First the version: a newer fact may have another shape in every other place.
    version = as_object(cast("object", value)).get("schema_version")
    if newest is not None and isinstance(version, int) and version > newest:
        raise FormatError(
            f"schema version {version} is newer than {newest}", hint="Update LMStrix to read it."
        )
    try:
        return _CONVERTER.structure(value, kind)
    except (cattrs.BaseValidationError, *_REFUSALS) as error:
        raise FormatError(f"not a {name}: {_complaint(error)}") from error


def load_report(text: str) -> ContextReport:
    """A report from its JSON; raises `FormatError`, also for a version newer than ours."""
    return from_json(text, ContextReport, newest=SCHEMA_VERSION)


def load_map(text: str) -> ContextMap:
    """A map from its JSON; raises `FormatError`, also for a version newer than ours."""
    return from_json(text, ContextMap, newest=MAP_SCHEMA_VERSION)
