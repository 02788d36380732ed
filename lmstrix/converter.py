"""The project's own cattrs converter: facts to JSON and back, versioned.

Never the global converter, so that nobody else's hooks change our files. Reading is strict
about types and lenient about keys that it does not know: a newer LMStrix may add some.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, TypeVar

import cattrs
from cattrs.preconf.json import make_converter

from lmstrix.errors import LMStrixError
from lmstrix.models import SCHEMA_VERSION, ContextReport

__all__ = ["FormatError", "dump_report", "from_json", "load_report", "to_json"]

T = TypeVar("T")


class FormatError(LMStrixError, ValueError):
    """A text is not the JSON of the fact that was wanted."""


def _strict(kind: type, *also: type) -> Any:  # noqa: ANN401 - a cattrs hook takes any JSON value
    """A hook that takes exactly `kind`: JSON `true` is no integer, "12" is no number."""

    def structure(value: Any, _: type) -> Any:  # noqa: ANN401
        if isinstance(value, bool) and kind is not bool:
            raise TypeError(f"expected {kind.__name__}, got a boolean")
        if not isinstance(value, (kind, *also)):
            raise TypeError(f"expected {kind.__name__}, got {type(value).__name__}")
        return kind(value)

    return structure


def _make() -> cattrs.Converter:
    converter = make_converter(unstruct_collection_overrides={tuple: list})
    converter.register_structure_hook(int, _strict(int))
    converter.register_structure_hook(float, _strict(float, int))
    converter.register_structure_hook(str, _strict(str))
    converter.register_structure_hook(bool, _strict(bool))
    converter.register_unstructure_hook(datetime, lambda d: d.isoformat())
    converter.register_structure_hook(datetime, lambda v, _: datetime.fromisoformat(v))
    return converter


_CONVERTER = _make()


def to_json(fact: object) -> str:
    """One line of JSON. Not-a-number and infinity are refused: JSON has neither."""
    return json.dumps(_CONVERTER.unstructure(fact), allow_nan=False, ensure_ascii=False)


def from_json(text: str, kind: type[T]) -> T:
    """The fact of type `kind` that `text` holds; raises `FormatError`."""
    try:
        return _CONVERTER.structure(json.loads(text), kind)
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError) as error:
        raise FormatError(f"not a {kind.__name__}: {type(error).__name__}") from error
    except cattrs.BaseValidationError as error:
        details = "; ".join(cattrs.transform_error(error))
        raise FormatError(f"not a {kind.__name__}: {details}") from error


def dump_report(report: ContextReport) -> str:
    """One line of JSON: the keys and units that ``docs/json.md`` describes."""
    return to_json(report)


def load_report(text: str) -> ContextReport:
    """A report from its JSON; raises `FormatError`, also for a version newer than ours."""
    report = from_json(text, ContextReport)
    if report.schema_version > SCHEMA_VERSION:
        raise FormatError(
            f"schema version {report.schema_version} is newer than {SCHEMA_VERSION}",
            hint="Update LMStrix to read this report.",
        )
    return report
